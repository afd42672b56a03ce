"""The orbit of a statistic: the range of values that it takes on exact copies of one model.

A number that some exact map moves is a fact about stored coordinates as much as about the model. How far it can be
driven without a trace in the model's function is shown by scrambles, by ramps of the input gains and of all scales, by
one channel of every norm gain made 2^12 times larger or smaller, and by a rotation of the stream; the map that moves it
furthest is the witness.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from analyses import registry
from analyses.forward.calibration import Calibration
from analyses.forward.inputs import Settings
from analyses.run import suite
from analyses.weights.checkpoint import Checkpoint
from checks.maps import invariance
from checks.maps.catalogue import LOSSLESS, SCRAMBLE
from checks.maps.exact import Composition, CoordinateMap
from checks.maps.gains import NORMS, RAMP_INPUT_GAIN, readers, single_channel
from checks.maps.heads import PERMUTE_GROUPS, PERMUTE_HEADS
from checks.maps.ramps import RAMP_ALL
from checks.maps.remeasured import Records, analyses_of, lean, read, records
from checks.maps.stream import ROTATE_STREAM
from checks.maps.untied import untied
from checks.twins.twins import kept

EXPONENT = 12  # of the channel's factor: 4096 outweighs the other channels of every model's gains together
SCRAMBLES = 2
MOVED = SCRAMBLES + 5  # changes tried at most
ATTENTION = frozenset({"attention_stats", "head_geometry", "schedule_fit"})
"""Analyses that read of a forward pass what each head does, and nothing of the stream's basis."""

_ORDER = (PERMUTE_HEADS, PERMUTE_GROUPS)
_ORDERED = Composition(
    name=SCRAMBLE.name,
    sentence="The scramble, with heads left in their places.",
    parts=tuple(part for part in LOSSLESS if part not in _ORDER),
    optional=LOSSLESS,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Orbit:
    """What exact maps make of one statistic."""

    value: float  # as stored
    low: float  # least of the values that the maps reach, and of the stored one
    high: float
    witness: str  # the map that moves it furthest
    at_witness: float  # its value there


def orbit(
    checkpoint: Checkpoint,
    text: Calibration,
    settings: Settings,
    found: Records,
    paths: Sequence[str],
    *,
    say: Callable[[str], None] = lambda line: None,
    step: Callable[[bool], None] = lambda reads_text: None,
) -> dict[str, Orbit]:
    """Statistic → its orbit; without those that have no number, or that no map moves.

    What attention does is the same on every twin, so that one pass on the model serves all of them; a statistic of
    the stream is measured in a pass of each twin's own.

    Parameters
    ----------
    found : the records of the model itself, made with the same text and settings.
    paths : like "head_geometry.metrics.within_r_signed".
    step : told of each measurement whether it read the text.
    """
    stored = {path: value for path in paths if (value := read(found, path)) is not None}
    weights, heads, stream = _groups(list(stored))
    orbits: dict[str, Orbit] = {}
    told = dict(say=say, step=step)
    for asked, order, shared in ((weights, True, True), (heads, False, True), (stream, True, False)):
        if asked:
            reached = _reached(checkpoint, text, lean(settings, asked), asked, order=order, shared=shared, **told)
            orbits |= {path: _of(stored[path], values) for path, values in reached.items() if values}
    return orbits


def _groups(paths: Sequence[str]) -> tuple[list[str], list[str], list[str]]:
    """Statistics of weights, of what heads do, and of the stream."""
    weights = [path for path in paths if not registry.reads_text(_analysis(path))]
    heads = [path for path in paths if _analysis(path) in ATTENTION]
    return weights, heads, [path for path in paths if path not in weights and path not in heads]


def measurements(paths: Sequence[str]) -> list[bool]:
    """Of each measurement of `orbit` at most, whether it reads the text."""
    weights, heads, stream = _groups(paths)
    found = [False] * MOVED if weights else []
    found += [True] + [False] * MOVED if heads else []
    return found + ([True] * MOVED if stream else [])


def _reached(
    checkpoint: Checkpoint,
    text: Calibration,
    settings: Settings,
    paths: Sequence[str],
    *,
    order: bool,  # whether heads may change places
    shared: bool,  # whether one pass serves all
    say: Callable[[str], None],
    step: Callable[[bool], None],
) -> dict[str, dict[str, float]]:
    """Statistic → map → the value that it takes there."""
    wanted = analyses_of(paths)
    reads_text = bool(registry.FORWARD & set(wanted))
    passes = None
    if shared:
        passes = suite.forward_pass(checkpoint, text, settings, wanted)
        if reads_text:
            step(True)
    reached: dict[str, dict[str, float]] = {path: {} for path in paths}
    for name, change, seed in _changes(checkpoint, settings.seed, order=order):
        source = untied(checkpoint) if change is ROTATE_STREAM else checkpoint
        asked = [path for path in paths if _moves(path, change, source)]
        if not asked or change.undefined(source):
            continue
        say(f"{checkpoint.name}: orbit, {name}")
        twin = kept(change.apply(source, seed))
        after: Records = records(twin, passes or suite.forward_pass(twin, text, settings, wanted), settings, wanted)
        step(reads_text and not shared)
        for path in asked:
            if (value := read(after, path)) is not None:
                reached[path][name] = value
    return reached


def _of(value: float, reached: dict[str, float]) -> Orbit:
    witness = max(reached, key=lambda name: abs(reached[name] - value))
    every = (value, *reached.values())
    return Orbit(value=value, low=min(every), high=max(every), witness=witness, at_witness=reached[witness])


def _changes(checkpoint: Checkpoint, seed: int, *, order: bool) -> list[tuple[str, CoordinateMap | Composition, int]]:
    """(name, map, seed)."""
    scramble = SCRAMBLE if order else _ORDERED
    tried: list[tuple[str, CoordinateMap | Composition, int]] = [
        (f"{scramble.name} {number + 1}", scramble, seed + number) for number in range(SCRAMBLES)
    ]
    tried += [(ramp.name, ramp, seed) for ramp in (RAMP_INPUT_GAIN, RAMP_ALL)]
    for exponent in (EXPONENT, -EXPONENT):
        channels = tuple(single_channel(norm, exponent=exponent) for norm in NORMS if readers(checkpoint, norm))
        if channels:
            name = f"one channel of each gain by 2^{exponent}"
            tried.append((name, Composition(name=name, sentence=f"{name}.", parts=channels), seed))
    return [*tried, (ROTATE_STREAM.name, ROTATE_STREAM, seed)]


def _moves(path: str, change: CoordinateMap | Composition, checkpoint: Checkpoint) -> bool:
    """Whether the map may move the statistic, by the table; one that is not in it may move by any."""
    moving = invariance.moved_by(path, checkpoint)
    return moving is None or bool(moving & change.listed & set(invariance.known_maps(checkpoint)))


def _analysis(path: str) -> str:
    return path.partition(".")[0]
