"""Invariance as an identity: what a claim about the model reads is the same number on every exact copy of the model.

Which statistics an exact map leaves alone is a theorem about them, and the table in `invariance` says so. Here the
theorem is held against this checkpoint's own numbers. A difference beyond its limit means that a statistic is not what
its text says, or that a map is not exact: the software is wrong, not the model.
"""

from collections.abc import Callable, Sequence

from analyses.forward.calibration import Calibration
from analyses.forward.inputs import Settings
from analyses.weights.checkpoint import Checkpoint
from checks.maps import invariance
from checks.maps.catalogue import SCRAMBLE
from checks.maps.exact import EXACT, Composition, CoordinateMap
from checks.maps.heads import MIX_VALUES
from checks.maps.planes import ROTATE_PLANES
from checks.maps.queries import MIX_QUERIES
from checks.maps.ramps import RAMP_ALL
from checks.maps.remeasured import Records, exactly, needs_pass, read
from checks.maps.stream import ROTATE_STREAM
from checks.maps.untied import untied
from checks.twins.twins import kept

SAME = 1e-6  # relative; float64 sums of up to 1e6 products err 1e-10, through ratios and correlations a hundredfold
UP_TO_EPS = (
    1e-4  # of a forward pass, where the map scales what a norm with an eps sees: 1e-6 over 1e-2, its mean square
)
SMALL = 1e-3  # numbers below it are compared by their difference over it

CHANGES: tuple[tuple[str, CoordinateMap | Composition, int], ...] = (
    ("scramble", SCRAMBLE, 0),
    ("scramble again", SCRAMBLE, 1),
    (RAMP_ALL.name, RAMP_ALL, 0),
    (MIX_VALUES.name, MIX_VALUES, 0),
    (ROTATE_PLANES.name, ROTATE_PLANES, 0),  # scrambles make quarter turns, also where q/k gains forbid others
    (MIX_QUERIES.name, MIX_QUERIES, 0),
    (ROTATE_STREAM.name, ROTATE_STREAM, 0),  # of an untied copy, gains folded first
)
"""Name → map and number of its draw. Each has what the others lack: scrambles hold every lossless map there is."""


def limit(checkpoint: Checkpoint, path: str, change: CoordinateMap | Composition) -> float:
    """The relative difference that arithmetic, or a norm's eps, may make of a statistic under a map."""
    return UP_TO_EPS if needs_pass(path) and change.tolerance(checkpoint) > EXACT else SAME


def invariance_identities(
    checkpoint: Checkpoint,
    text: Calibration,
    settings: Settings,
    found: Records,
    statistics: Sequence[str],
    *,
    say: Callable[[str], None] = lambda line: None,
    step: Callable[[bool], None] = lambda reads_text: None,
) -> dict[str, dict[str, float | None]]:
    """Statistic → map → its relative difference from the model's own number.

    |a − b| / max(|a|, 1e-3); None where the number appears or disappears. A map that the model does not have, or that
    the table says moves the statistic, is left out, and so is a statistic that the records do not have.

    Parameters
    ----------
    found : the records of the model itself; numbers that need a forward pass are found again in float64,
        on every fourth prompt, since what stays does so on any text.
    statistics : paths like "head_grams.metrics.all_distance_similarity".
    step : told of each measurement whether it read the text.
    """
    paths = [path for path in dict.fromkeys(statistics) if read(found, path) is not None]
    passing = [path for path in paths if needs_pass(path)]
    base = {path: read(found, path) for path in paths}
    if passing:
        again = exactly(checkpoint, text, settings, passing)
        base |= {path: read(again, path) for path in passing}
        paths = [path for path in paths if base[path] is not None]  # of so few prompts some have no number to move
        step(True)
    differences: dict[str, dict[str, float | None]] = {path: {} for path in paths}
    for name, change, number in CHANGES:
        source = untied(checkpoint) if change is ROTATE_STREAM else checkpoint
        asked = [path for path in paths if _stays(path, change, source)]
        if not asked or change.undefined(source):
            continue
        say(f"{checkpoint.name}: {name}")
        other = exactly(kept(change.apply(source, settings.seed + number)), text, settings, asked)
        for path in asked:
            differences[path][name] = difference(base[path], read(other, path))
        step(any(map(needs_pass, asked)))
    return differences


def limits(checkpoint: Checkpoint, statistics: Sequence[str]) -> dict[str, dict[str, float]]:
    """Statistic → map → the limit of its difference, for the maps of `invariance_identities`."""
    return {path: {name: limit(checkpoint, path, change) for name, change, _ in CHANGES} for path in statistics}


def difference(before: float | None, after: float | None) -> float | None:
    """Relative, or over SMALL where the number itself is smaller; None where one of the two is missing."""
    if before is None or after is None:
        return None
    return abs(after - before) / max(abs(before), SMALL)


def _stays(path: str, change: CoordinateMap | Composition, checkpoint: Checkpoint) -> bool:
    """Whether the table promises that the map leaves the statistic alone; one that is not in it must stay."""
    moving = invariance.moved_by(path, checkpoint) or frozenset()
    return not moving & change.listed & set(invariance.known_maps(checkpoint))
