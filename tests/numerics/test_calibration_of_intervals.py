"""Coverage, size and power as promised, in a short version of `make calibrate`; its page is whole."""

import math

import pytest

from checks.calibration import run, simulate
from checks.calibration import simulate_tests as tests

TRIALS, FEW = 200, 50


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


@pytest.mark.parametrize("name", [name for name, (_, cost) in simulate.INTERVALS.items() if cost > 1])
def test_intervals_that_resample_cover_as_promised(name):
    found = simulate.coverage(simulate.INTERVALS[name][0], 24, 0.8, trials=FEW, seed=1)
    assert above(found, run.COVERED[0], FEW)


@pytest.mark.parametrize("phi", [0.0, 0.8, 1.0])
def test_tests_over_depth_have_their_size(phi):
    assert below(tests.law(24, phi, trials=FEW, seed=1), run.SIZE, FEW)
    assert below(tests.best_of_seven(24, phi, trials=FEW, seed=1), run.SIZE, FEW)


def test_phases_are_found_seldom_where_directions_only_drift_and_their_power_falls_with_the_drift():
    still, drifting = (tests.phase_sharing(12, phi, trials=FEW, seed=1) for phi in (0.0, 1.0))
    for found in (still, drifting):
        assert below(found[0], run.SIZE, FEW) and below(found[2], run.SIZE, FEW)
    assert still[1] > run.POWER > drifting[1]


@pytest.mark.parametrize(("length", "phi"), [(12, 0.0), (24, 0.8)])
def test_the_worst_of_seven_families_on_the_limit_is_seldom_called_either(length, phi):
    found = tests.worst_family(length, phi, trials=30, seed=1)
    assert below(found["fail"], run.SIZE, 30) and below(found["pass"], run.SIZE, 30)


def test_twins_and_pages_are_wrong_as_seldom_as_promised():
    assert below(tests.twins(trials=1000, seed=1), 0.05, 1000)
    for correlation in (0.0, 0.5):
        alone, adjusted = tests.one_page(correlation, trials=1000, seed=1)
        assert below(adjusted, 0.05, 1000) and alone > 0.3


def test_a_planted_law_is_seen():
    assert above(tests.law(24, 0.0, rate=run.LAW_RATE, trials=FEW, seed=1), run.POWER, FEW)


def test_the_page_holds_every_case_and_says_how_it_was_made(monkeypatch):
    monkeypatch.setattr(simulate, "coverage", lambda *args, **options: 0.9)
    for name, found in (("law", 0.9), ("best_of_seven", 0.9), ("within", 0.9), ("phase_sharing", (0.9,) * 4)):
        monkeypatch.setattr(tests, name, lambda *args, found=found, **options: found)
    monkeypatch.setattr(tests, "worst_family", lambda *args, **options: {"pass": 0.0, "fail": 0.9})
    text = run.page(8, 5)
    assert "--trials 8 --seed 5" in text
    assert text.count("| R² of an exponential law |") == len(simulate.LENGTHS)
    assert "**0.900**" in text  # as a size it is marked
