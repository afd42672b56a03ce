"""The worst of several families' tracks, with bounds that allow for its having been chosen.

An interval of the worst alone repeats the selection's bias: with seven families all at 0.095 the largest of their
medians lies near 0.1 by chance. So each family keeps its own 90 % interval, and a second one at 1 − 0.10/k
(Bonferroni). All families lie below a limit with 95 % confidence if each one's own upper bound does (intersection and
union: Berger 1982, Technometrics 24, 295); some family lies above if one's Bonferroni lower bound does. The metric's
interval holds these two bounds, so that the ordinary comparison with a limit is the right one.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from analyses.numerics import intervals
from analyses.records import Member, Metric


def member(
    track: Sequence[float | None],
    *,
    seed: int,
    families: int,
    unit: str = "pairs",
    within: tuple[float, float] = (-np.inf, np.inf),
) -> Member:
    """The median of one family's known units, its interval, and its interval among `families`."""
    values = np.array([np.nan if value is None else value for value in track], dtype=float)
    known = values[np.isfinite(values)]
    n = {unit: len(known)}
    if not len(known):
        return Member(value=None, n=n, reason=f"undefined in all {unit}")

    joint = 1 - (1 - intervals.LEVEL) / families
    own, bonferroni = intervals.bootstraps(
        lambda drawn: intervals.medians(known, drawn)[:, None],
        len(known),
        seed=seed,
        levels=(intervals.LEVEL, joint),
        track=known,
        within=within,
    )
    return Member(value=float(np.median(known)), interval=own, bonferroni=bonferroni, n=n)


def worst_of(
    tracks: Mapping[str, Sequence[float | None]],
    *,
    worst: str,
    seed: int,
    method: str,
    absent: str,
    unit: str = "pairs",
    within: tuple[float, float] = (-np.inf, np.inf),
) -> Metric:
    """The largest or least of the families' medians over depth.

    Parameters
    ----------
    tracks : family → (unit) values in their order over depth; None where undefined. None at all: not applicable, for
        the reason `absent`.
    worst : "largest" or "least".
    within : range of the values.
    """
    if not tracks:
        return Metric(value=None, reason=absent, applies=False, method=method)
    found = {
        name: member(track, seed=seed, families=len(tracks), unit=unit, within=within) for name, track in tracks.items()
    }
    return worst_member(found, worst=worst, method=method, unit=unit)


def worst_member(members: Mapping[str, Member], *, worst: str, method: str, unit: str = "pairs") -> Metric:
    """The metric of the worst of members that were measured already; one without a value leaves it without one.

    Its n is the least of any member's.
    """
    if worst not in ("largest", "least"):
        raise ValueError(f'worst is "largest" or "least", not {worst!r}')
    n = {unit: min(found.n.get(unit, 0) for found in members.values())}
    if missing := [name for name, found in members.items() if found.value is None]:
        reason = f"{', '.join(missing)}: {members[missing[0]].reason}"
        return Metric(value=None, n=n, method=method, reason=reason, members=members)
    choose = max if worst == "largest" else min
    where = choose(members, key=lambda name: members[name].value)
    own = [found.interval for found in members.values()]
    joint = [found.bonferroni for found in members.values()]
    interval = None
    if None not in own and None not in joint:
        far, near = (own, joint) if worst == "largest" else (joint, own)
        interval = choose(low for low, _ in near), choose(high for _, high in far)
    return Metric(
        value=members[where].value,
        interval=interval,
        n=n,
        where=where,
        method=f"{method}; each family's own bound on the good side, Bonferroni's on the other",
        members=members,
    )
