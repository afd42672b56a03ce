"""How often tests call chance an effect, and see an effect that is there.

Every function gives the share of trials at 5 %; every trial has its own seed. Axes: trial, layer, head.
"""

from collections.abc import Iterable

import numpy as np

from analyses.delta_svd import phases, stacks
from analyses.head_geometry import gained
from analyses.numerics import families, pvalues
from analyses.numerics.autocorrelation import noise
from analyses.schedule_fit import chance
from checks.calibration.simulate import GROUPS, PERSISTENCE, heads
from checks.claims.compare import compare_worst

LEVEL = 0.05
DRIFT = PERSISTENCE | {"walk": 1.0}
SHAPES = ((8, 4), (16, 4), (14, 2))  # query heads, key/value heads
PER_LAYER = 0.2  # noise deviations, of two unrelated trends
DESCRIPTORS, ALIKE = 7, 0.8  # descriptors of one spectrum, and the variance that they share
FAMILIES = 7
DIMENSIONS = 128  # that layers write in
TWINS = 19
CLAIMS = 26
SEEN = 99  # surrogates a trial


def law(length: int, phi: float, *, trials: int, seed: int, rate: float = 0.0) -> float:
    """Tracks called an exponential law; `rate` per layer is planted, in noise deviations."""
    rng = np.random.default_rng([seed, 1, length, int(100 * phi)])
    tracks = noise(phi, (trials, length), rng) + rate * np.arange(length)
    return _share(chance.against_chance(t, t, _line_r2, seed=i).p for i, t in enumerate(tracks))


def best_of_seven(
    length: int, phi: float, *, trials: int, seed: int, trend: float = 0.0, planted: float = 0.0
) -> float:
    """Seven descriptors and an unrelated (layer, head) entropy, layer means of persistence φ, called related."""
    rng = np.random.default_rng([seed, 2, length, int(100 * phi)])

    def variable() -> np.ndarray:
        return trend * rng.choice([-1, 1]) * np.arange(length)[:, None] + heads(phi, length, rng)

    def related(trial: int) -> float:
        common, y = variable(), variable()
        x = [np.sqrt(ALIKE) * common + np.sqrt(1 - ALIKE) * variable() for _ in range(DESCRIPTORS)]
        if planted:
            a, b = ((v - v.mean()) / v.std() for v in (x[0], y))
            y = planted * a + np.sqrt(1 - planted**2) * b
        return gained.drift_test(x, y, groups=GROUPS, seed=trial, draws=SEEN)

    return _share(map(related, range(trials)))


def within(
    length: int, count: int, groups: int, *, trials: int, seed: int, planted: float = 0.0, moved: int | None = None
) -> float:
    """Called related within layers; heads of a group correlate at 0.5; `moved` groups are permuted."""
    rng = np.random.default_rng([seed, 3, length, count, groups])

    def related(trial: int) -> float:
        x, y = (heads(0.0, length, rng, count, groups) for _ in range(2))
        y = planted * x + np.sqrt(1 - planted**2) * y
        return gained.within_test(x, y, groups=moved or groups, seed=trial, draws=SEEN)

    return _share(map(related, range(trials)))


def phase_sharing(length: int, phi: float, *, trials: int, seed: int) -> tuple[float, float, float, float]:
    """Layers whose directions drift: called phases, and that test's power; called unequal in sharing, and its power.

    Directions of layers have persistence φ in every one of their dimensions, and know of no phase.
    """
    ranges = phases.phase_ranges(length)
    chances: dict[int, float] = {}  # of random frames, the same in all trials
    found = []
    for trial in range(trials):
        rng = np.random.default_rng([seed, 4, length, int(100 * phi), trial])
        drifting = np.moveaxis(noise(phi, (DIMENSIONS, phases.BASIS_RANK, length), rng), -1, 0)
        frames = np.moveaxis(np.linalg.qr(drifting)[0], 2, 1)  # (layer, mode, dimension)
        similarity = np.abs(frames[:, 0] @ frames[:, 0].T)
        one = phases.phase_test(similarity, ranges, seed=trial)
        stacked = stacks.Stacks(frames, dimensions=DIMENSIONS, seed=0)
        stacked.chances = chances
        other, _ = stacks.differences(stacked, similarity, ranges["C"], ranges["E"], seed=trial)
        found.append((one.p <= LEVEL, one.power, other.p <= LEVEL, other.power))
    return tuple(np.mean(found, axis=0).tolist())


def worst_family(length: int, phi: float, *, trials: int, seed: int, outside: int = FAMILIES) -> dict[str, float]:
    """Seven families whose medians lie on the limit, or one of them and the rest far inside: how often each answer."""
    rng = np.random.default_rng([seed, 5, length, int(100 * phi)])
    answers = []
    for trial in range(trials):
        tracks = noise(phi, (FAMILIES, length), rng)
        tracks[outside:] -= 10
        metric = families.worst_of(
            {str(i): track.tolist() for i, track in enumerate(tracks)},
            worst="largest", seed=trial, method="", absent="",
        )  # fmt: skip
        members = {
            name: {"value": m.value, "interval": m.interval, "bonferroni": m.bonferroni}
            for name, m in metric.members.items()
        }
        answers.append(compare_worst(members, "<=", 0.0, 0.0))
    return {word: answers.count(word) / trials for word in ("pass", "fail")}


def twins(*, trials: int, seed: int) -> float:
    """A model no different from its twins called rare among them, drawn until five are as extreme, nineteen at most."""
    rng = np.random.default_rng([seed, 6])

    def p(trial: int) -> float:
        own, drawn = rng.standard_normal(), rng.standard_normal(TWINS)
        return pvalues.sequential(lambda i: float(drawn[i]), float(own), limit=TWINS, attempts=TWINS).p

    return _share(map(p, range(trials)))


def one_page(correlation: float, *, trials: int, seed: int) -> tuple[float, float]:
    """Pages of 26 true null hypotheses with an answer called an effect: as they stand, and by Holm's correction."""
    rng = np.random.default_rng([seed, 7])
    common, own = rng.standard_normal((trials, 1)), rng.standard_normal((trials, CLAIMS))
    z = np.sqrt(correlation) * common + np.sqrt(1 - correlation) * own
    p = np.argsort(np.argsort(z.ravel())).reshape(z.shape) / z.size  # uniform, in the dependence of z
    adjusted = np.array([pvalues.holm(row) for row in p])
    return float((p <= LEVEL).any(1).mean()), float((adjusted <= LEVEL).any(1).mean())


def _line_r2(logs: np.ndarray) -> np.ndarray:
    return chance.best_r2(logs, chance.EXPONENTIAL_LAW)


def _share(p: Iterable[float]) -> float:
    return float(np.mean(np.array(list(p)) <= LEVEL))
