"""Numbers held against limits: the comparison of one, of the worst of several, and how likely an answer is by chance.

The decision is one of equivalence: a number passes if its one-sided 95 % bound clears the limit, fails if the opposite
bound misses it, and is inconclusive otherwise. Of the worst of several families, every family's bound must clear it, or
some family's bound, widened for their number, must miss it.
"""

import math
from collections.abc import Mapping
from typing import Any, Literal

Status = Literal["pass", "fail", "inconclusive", "skip", "error"]
Comparator = Literal["<=", "<", ">=", ">"]
Interval = tuple[float, float]

ONE_SIDED_95 = 1.6448536269514722  # standard deviations


def satisfies(value: float, comparator: Comparator, threshold: float) -> bool:
    """The comparison, in positive form: false for a NaN on either side."""
    match comparator:
        case "<=":
            return value <= threshold
        case "<":
            return value < threshold
        case ">=":
            return value >= threshold
        case ">":
            return value > threshold


def compare(
    observed: float | None,
    interval: Interval | None,
    comparator: Comparator,
    threshold: float,
    interval_bound: float,
    wide: Interval | None = None,
) -> Status:
    """Pass inside the limit with the whole interval inside `interval_bound`; fail outside it with
    the whole interval outside; inconclusive otherwise, and for a number that is not finite.

    Parameters
    ----------
    interval : 90 %, so that each end is a one-sided 95 % bound; None for a number without sampling error.
    wide : the interval that a failure must clear, where it is one of several of which the worst was picked.

    >>> compare(0.04, (0.03, 0.05), "<=", 0.1, 0.1), compare(0.09, (0.07, 0.12), "<=", 0.1, 0.1)
    ('pass', 'inconclusive')
    >>> compare(0.12, (0.11, 0.13), "<=", 0.1, 0.1), compare(0.12, (0.11, 0.13), "<=", 0.1, 0.1, (0.09, 0.15))
    ('fail', 'inconclusive')
    """
    ends, outer = interval or (observed, observed), wide or interval or (observed, observed)
    if any(x is None or not math.isfinite(x) for x in (observed, *ends, *outer, threshold, interval_bound)):
        return "inconclusive"
    if satisfies(observed, comparator, threshold) and all(satisfies(e, comparator, interval_bound) for e in ends):
        return "pass"
    if not satisfies(observed, comparator, threshold) and not any(satisfies(e, comparator, threshold) for e in outer):
        return "fail"
    return "inconclusive"


def compare_worst(
    members: Mapping[str, Mapping[str, Any]], comparator: Comparator, threshold: float, interval_bound: float
) -> Status:
    """The answer for the worst of several: pass if each passes, fail if one does by its Bonferroni interval."""
    answers = {
        compare(m["value"], m["interval"], comparator, threshold, interval_bound, m["bonferroni"])
        for m in members.values()
    }
    return "fail" if "fail" in answers else "pass" if answers == {"pass"} else "inconclusive"


def p_value(value: float, interval: Interval | None, limit: float) -> float:
    """How often a number so far beyond `limit` would be seen if the truth lay on it.

    By the normal law whose one-sided 95 % point is the interval's end on the limit's side; 0 where there is no
    sampling error.

    >>> round(p_value(0.2, (0.1, 0.3), 0.1), 3), p_value(0.2, None, 0.1)
    (0.05, 0.0)
    """
    reach = abs(value - interval[0 if limit < value else 1]) if interval else 0.0
    if reach == 0:
        return 0.0 if value != limit else 1.0
    return 0.5 * math.erfc(ONE_SIDED_95 * abs(value - limit) / reach / math.sqrt(2))
