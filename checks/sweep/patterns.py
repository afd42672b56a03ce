"""The models that a pattern names.

    path/to/steps/step{0,400,800}           brace lists, in folders and in hub revisions
    EleutherAI/pythia-160m@step{0..10}      ranges, both ends counted; {0..100..10} in steps of ten
    path/to/steps/step*                     folders that are there
    EleutherAI/pythia-160m@step*            revisions that the hub has

Names that come from the disk or from the hub are put in the order of their numbers: step2 before step10.
"""

import fnmatch
import glob
import itertools
import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from natsort import natsorted

from analyses.errors import InputError

BRACES = re.compile(r"\{([^{}]*)\}")
RANGE = re.compile(r"(-?\d+)\.\.(-?\d+)(?:\.\.(\d+))?")
MOST = 100_000  # models a pattern may name; more is a slip of the pen

Revisions = Callable[[str], Mapping[str, str]]


def expand(patterns: Sequence[str], revisions: Revisions) -> list[str]:
    """The sources that these patterns name, in order, each once.

    Parameters
    ----------
    patterns : folders, hub ids or `id@revision`, with braces and `*`.
    revisions : repository → {revision: commit}; asked only where a revision has a `*`.

    Raises
    ------
    InputError for a pattern that is malformed or matches nothing.

    >>> expand(["a/b@step{0,1,4..6}", "a/b@step1"], lambda repository: {})
    ['a/b@step0', 'a/b@step1', 'a/b@step4', 'a/b@step5', 'a/b@step6']
    """
    found = [name for pattern in patterns for braced in _braces(pattern) for name in _stars(braced, revisions)]
    return list(dict.fromkeys(found))


def _braces(pattern: str) -> list[str]:
    between = BRACES.split(pattern)  # text, list, text, list, …, text
    if any(mark in text for text in between[::2] for mark in "{}"):
        raise InputError(f"{pattern}: braces do not match; expected lists like step{{0,1,2}} or ranges like {{0..10}}")
    lists = [_choices(text, pattern) if i % 2 else [text] for i, text in enumerate(between)]
    if (count := math.prod(map(len, lists))) > MOST:
        raise InputError(f"{pattern}: names {count:,} models; at most {MOST:,} are allowed")
    return ["".join(choice) for choice in itertools.product(*lists)]


def _choices(text: str, pattern: str) -> list[str]:
    choices: list[str] = []
    for part in text.split(","):
        if not (part := part.strip()):
            raise InputError(f"{pattern}: an empty place in {{{text}}}; expected names or numbers between commas")
        if found := RANGE.fullmatch(part):
            first, last, step = int(found[1]), int(found[2]), int(found[3] or 1)
            if step < 1 or last < first or (last - first) // step >= MOST:
                raise InputError(
                    f"{pattern}: {{{part}}} is no range; expected {{first..last}} or {{first..last..step}}"
                )
            choices += map(str, range(first, last + 1, step))
        else:
            choices.append(part)
    return choices


def _stars(pattern: str, revisions: Revisions) -> list[str]:
    repository, at, revision = pattern.rpartition("@")
    if "*" not in pattern:
        return [pattern]
    if at and "*" not in repository and not Path(repository).parent.is_dir() or at and repository.count("/") == 1:
        names = [f"{repository}@{name}" for name in revisions(repository) if fnmatch.fnmatchcase(name, revision)]
        what = f"no revision of {repository} has such a name"
    else:
        names = [path for path in glob.glob(pattern) if Path(path).is_dir()]
        what = "there is no such folder"
    if not names:
        raise InputError(f"{pattern}: the pattern matches nothing ({what})")
    return natsorted(names)
