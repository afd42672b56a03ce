"""Coverage, size and power as promised, in a short version of `make calibrate`; its page is whole."""

import math

import pytest

from checks.calibration import run, simulate

TRIALS, FEW = 300, 100


def above(share: float, least: float, trials: int) -> bool:
    return share >= least - 3.5 * math.sqrt(least * (1 - least) / trials)  # binomial: once in 4000


def below(share: float, most: float, trials: int) -> bool:
    return share <= most + 3.5 * math.sqrt(most * (1 - most) / trials)


@pytest.mark.parametrize("phi", [0.0, 0.5, 0.8])
@pytest.mark.parametrize(
    "name", ["Spearman with depth, no trend", "Spearman with depth, a trend", "rate of an exponential law"]
)
def test_intervals_of_a_trend_cover_as_promised(name, phi):
    found = simulate.coverage(simulate.INTERVALS[name][0], 24, phi, trials=TRIALS, seed=1)
    assert above(found, run.COVERED[0], TRIALS) and below(found, run.COVERED[1], TRIALS)


@pytest.mark.parametrize("phi", [0.0, 0.8])
@pytest.mark.parametrize("name", ["median of a track", "R² of an exponential law"])
def test_intervals_that_resample_cover_as_promised(name, phi):
    found = simulate.coverage(simulate.INTERVALS[name][0], 24, phi, trials=FEW, seed=1)
    assert above(found, run.COVERED[0], FEW)


@pytest.mark.parametrize("phi", [0.0, 0.8, 1.0])
def test_tests_over_depth_have_their_size(phi):
    assert below(simulate.law_rejections(24, phi, trials=FEW, seed=1), run.SIZE, FEW)
    assert below(simulate.shift_rejections(24, min(phi, 0.8), trials=TRIALS, seed=1), run.SIZE, TRIALS)


def test_a_planted_law_is_seen():
    assert above(simulate.law_rejections(24, 0.0, rate=run.LAW_RATE, trials=FEW, seed=1), run.POWER, FEW)


def test_the_page_holds_every_case_and_says_how_it_was_made(monkeypatch):
    for name in ("coverage", "law_rejections", "shift_rejections", "within_rejections"):
        monkeypatch.setattr(simulate, name, lambda *args, **options: 0.9)
    text = run.page(8, 5)
    assert "--trials 8 --seed 5" in text
    assert text.count("| R² of an exponential law |") == len(simulate.LENGTHS)
    assert "**0.900**" in text  # as a size it is marked
