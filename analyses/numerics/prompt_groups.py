"""Groups of whole prompts, each left out once or predicted from the others.

A statistic of a text is computed anew with each group left out; `intervals.jackknife_error` makes a standard error of
the values. Where a text has fewer prompts than groups, as one long stream
has, the groups are runs of neighbouring tokens: these depend on one another a little across their ends, and the
standard error is too small by as much.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

GROUPS = 10  # the standard error then has a relative standard error of 1/√(2·9), a quarter
FOLDS = 5  # of a prediction that is tested on prompts it has not seen


@dataclass(frozen=True, slots=True, kw_only=True)
class Groups:
    """Contiguous runs of tokens, in the order of the text; together they are all tokens."""

    slices: tuple[slice, ...]
    whole_prompts: bool  # False where there were too few prompts, and the runs cut through them

    @property
    def counts(self) -> tuple[int, ...]:
        return tuple(part.stop - part.start for part in self.slices)


def groups(lengths: Sequence[int], number: int = GROUPS) -> Groups:
    """Cut a text into groups of about equally many tokens, of whole prompts where these are enough.

    lengths : tokens of each prompt that count. Fewer groups come out where there are fewer tokens.

    >>> groups([3, 1, 2, 2], 2).counts, groups([3, 1, 2, 2], 2).whole_prompts
    ((4, 4), True)
    """
    ends = np.cumsum([0, *(length for length in lengths if length)])  # (prompt + 1,)
    total = int(ends[-1])
    whole = len(ends) > number
    if not whole:
        ends = np.arange(total + 1)
        number = min(number, total)
    cuts = [0]
    for part in range(1, number):
        nearest = int(np.abs(ends - part * total / number).argmin())
        cuts.append(min(max(nearest, cuts[-1] + 1), len(ends) - 1 - (number - part)))  # none is empty
    edges = [int(ends[cut]) for cut in cuts] + [total]
    return Groups(slices=tuple(slice(a, b) for a, b in zip(edges[:-1], edges[1:], strict=True)), whole_prompts=whole)
