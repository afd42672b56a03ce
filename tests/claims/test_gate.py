"""Every gate at pass, at its limit, at fail and without a number; and the comparison itself."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from checks.claims import CLAIMS, INTEGRITY
from checks.claims.compare import compare, compare_worst, p_value
from checks.claims.gate import Condition, Gate, evaluate

GATES = INTEGRITY + CLAIMS
DTYPE = "float32"
MODEL_IDS = (
    "NR1 NR1m NR3 NR4 NR5 SF1 SF2 SF3 SF4 SF5 HG1 HG2 HG3 HE1 HE2 HE3 DS1 DS2 DS3 DS4 DS5 AN1 AN2 AN3 AN4 AN5 "
    "HG4 HG4e HG5 HG6 AT1 WS1 RS1 RS2 RS2r RS3 RS4 RS4r RS5 RS5r RS6 RS7 RS8"
).split()
STORED_IDS = [f"{id}.stored" for id in "NR1 NR2 NR3 NR4 NR5 SF1 SF2 HG1 HG2 HG3 HE1 HE2 HE3 WS1".split()]

every_gate = pytest.mark.parametrize("gate", GATES, ids=lambda gate: gate.id)


def limit(condition: Condition) -> float:
    return condition.threshold if isinstance(condition.threshold, float | int) else condition.threshold[DTYPE]


def inside(condition: Condition, distance: float) -> float:
    """A value at a distance from the threshold, positive on the passing side."""
    return limit(condition) + (distance if condition.comparator.startswith(">") else -distance)


def records_with(gate: Gate, value, *, n=None, interval=None, applies=True, power=1.0) -> dict:
    """Records in which every condition's metric has `value(condition)`, and just enough n."""
    found: dict = {}
    for condition in gate.conditions:
        analysis, section, name = condition.path.split(".")
        number = value(condition)
        record = found.setdefault(analysis, {"dtype": DTYPE, "metrics": {}, "identities": {}})
        if condition.power:
            record["metrics"][condition.power.rpartition(".")[2]] = {"value": power}
        record[section][name] = {
            "value": number,
            "interval": interval(condition) if interval else None,
            "n": dict(gate.minimum if n is None else n),
            "where": None,
            "reason": "it was not a number" if number is None else None,
            "applies": applies,
        }
    return found


@every_gate
def test_a_gate_passes_inside_its_limits(gate):
    assert evaluate(gate, records_with(gate, lambda c: inside(c, 1e-14))).status == "pass"


@every_gate
def test_a_gate_at_its_limit_passes_exactly_if_the_limit_is_included(gate):
    strict = any(c.comparator in ("<", ">") for c in gate.conditions)
    assert evaluate(gate, records_with(gate, limit)).status == ("fail" if strict else "pass")


def answer_outside(condition: Condition) -> str:
    """What a number outside its limit says; a p-value alone says nothing."""
    return "inconclusive" if condition.test and not condition.power else "fail"


@every_gate
def test_a_gate_fails_outside_its_limits_unless_it_is_a_test_of_unknown_power(gate):
    outcome = evaluate(gate, records_with(gate, lambda c: inside(c, -1e-3)))
    answers = {answer_outside(c) for c in gate.conditions}
    assert outcome.status == ("fail" if "fail" in answers else "inconclusive")
    assert all(finding.margin < 0 for finding in outcome.findings)


@every_gate
def test_one_failing_condition_fails_the_gate(gate):
    for bad in gate.conditions:
        found = records_with(gate, lambda c, bad=bad: inside(c, -1e-3 if c is bad else 1e-14))
        assert evaluate(gate, found).status == answer_outside(bad)


TESTED = [gate for gate in CLAIMS if any(c.test for c in gate.conditions)]


@pytest.mark.parametrize("gate", TESTED, ids=lambda gate: gate.id)
def test_a_large_p_value_is_no_failure_where_the_test_would_seldom_have_seen_the_effect(gate):
    found = records_with(gate, lambda c: inside(c, -0.2 if c.test else 1e-14), power=0.5)
    outcome = evaluate(gate, found)
    assert outcome.status == "inconclusive" and outcome.reason.startswith("not shown: p = 0.25")
    assert ("50% of trials only" in outcome.reason) == any(c.power for c in gate.conditions)


@every_gate
def test_a_gate_without_a_number_neither_passes_nor_fails(gate):
    outcome = evaluate(gate, records_with(gate, lambda c: None))
    assert (outcome.status, outcome.reason) == ("inconclusive", "it was not a number")
    assert evaluate(gate, records_with(gate, lambda c: None, applies=False)).status == "skip"


@every_gate
def test_a_gate_on_nan_neither_passes_nor_fails(gate):
    assert evaluate(gate, records_with(gate, lambda c: math.nan)).status == "inconclusive"


@every_gate
def test_an_interval_across_the_limit_decides_nothing(gate):
    if all(c.test for c in gate.conditions):
        pytest.skip("a p-value has no interval")

    def across(condition):
        bound = limit(condition) if condition.interval_bound is None else condition.interval_bound
        return sorted((bound - 1e-3, bound + 1e-3))

    found = records_with(gate, lambda c: inside(c, 1e-14), interval=across)
    assert evaluate(gate, found).status == "inconclusive"


@pytest.mark.parametrize("gate", [g for g in GATES if g.minimum], ids=lambda gate: gate.id)
def test_too_small_a_sample_decides_nothing_even_for_a_number_that_fails(gate):
    few = {unit: least - 1 for unit, least in gate.minimum.items()}
    for distance in (1e-14, -1e-3):
        outcome = evaluate(gate, records_with(gate, lambda c, d=distance: inside(c, d), n=few))
        if distance < 0 and set(few) <= set(gate.flattering):
            assert outcome.status == "fail"  # what too few would flatter fails all the same
            continue
        assert outcome.status == "inconclusive"
        assert "too few" in outcome.reason


@pytest.mark.parametrize("gate", [g for g in GATES if g.minimum], ids=lambda gate: gate.id)
def test_a_number_that_hides_its_sample_size_is_an_error(gate):
    assert evaluate(gate, records_with(gate, lambda c: inside(c, 1e-14), n={})).status == "error"


@every_gate
def test_a_crashed_or_missing_analysis_is_never_a_pass(gate):
    assert evaluate(gate, {}).status == "skip"
    for record, status in (
        ({"error": "out of memory"}, "error"),
        ({"skipped": "no tokenizer"}, "skip"),
        ({"metrics": {}, "identities": {}}, "error"),
    ):
        assert evaluate(gate, dict.fromkeys(gate.reads, record)).status == status


def test_every_claim_of_the_specification_is_there_once_and_in_order():
    assert sorted(gate.id for gate in CLAIMS if gate.row == "model") == sorted(MODEL_IDS)
    assert [gate.id for gate in CLAIMS if gate.row == "stored"] == STORED_IDS
    assert len({gate.id for gate in GATES}) == len(GATES)


@every_gate
def test_a_gate_speaks_in_sentences_and_says_why_its_threshold(gate):
    assert gate.claim[-1] != "." and gate.claim[0].isupper() and " " in gate.claim, gate.claim
    assert len(gate.reason) > 20
    assert (gate.kind == "integrity") == (gate in INTEGRITY)


@given(
    observed=st.floats(-10, 10),
    half_width=st.floats(0, 5),
    threshold=st.floats(-5, 5),
    comparator=st.sampled_from(["<=", "<", ">=", ">"]),
)
def test_the_mirror_image_of_a_comparison_has_the_same_answer(observed, half_width, threshold, comparator):
    mirror = {"<=": ">=", ">=": "<=", "<": ">", ">": "<"}[comparator]
    ends = (observed - half_width, observed + half_width)
    status = compare(observed, ends, comparator, threshold, threshold)
    assert status == compare(-observed, (-ends[1], -ends[0]), mirror, -threshold, -threshold)
    if status != "inconclusive":
        assert status == compare(observed, None, comparator, threshold, threshold)


@pytest.mark.parametrize("comparator", ["<=", "<", ">=", ">"])
@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf, None])
def test_what_is_not_finite_neither_passes_nor_fails(comparator, broken):
    assert compare(broken, None, comparator, 0.0, 0.0) == "inconclusive"
    assert compare(0.5, (0.4, broken), comparator, 0.0, 0.0) == "inconclusive"


def test_a_rank_correlation_passes_on_its_point_with_an_interval_below_zero():
    # ρ ≤ −0.5 with an interval below 0: the interval may reach above −0.5 but not above 0.
    assert compare(-0.6, (-0.8, -0.2), "<=", -0.5, 0.0) == "pass"
    assert compare(-0.6, (-0.8, 0.1), "<=", -0.5, 0.0) == "inconclusive"
    assert compare(-0.4, (-0.7, -0.1), "<=", -0.5, 0.0) == "inconclusive"
    assert compare(0.1, (-0.3, 0.4), "<=", -0.5, 0.0) == "fail"


def family(value: float, half: float, wide: float) -> dict:
    return {"value": value, "interval": [value - half, value + half], "bonferroni": [value - wide, value + wide]}


def test_seven_families_just_inside_the_limit_hold_together():
    seven = {f"family {i}": family(0.095, 0.004, 0.008) for i in range(7)}
    assert compare_worst(seven, "<=", 0.1, 0.1) == "pass"
    one_out = seven | {"family 3": family(0.105, 0.004, 0.008)}  # outside by itself, not by its share of seven
    assert compare_worst(one_out, "<=", 0.1, 0.1) == "inconclusive"
    assert compare_worst(seven | {"family 3": family(0.12, 0.004, 0.008)}, "<=", 0.1, 0.1) == "fail"


@given(value=st.floats(-1, 1), half=st.floats(1e-3, 1))
def test_a_one_sided_95_percent_bound_on_the_limit_is_p_of_5_percent(value, half):
    for end in (value - half, value + half):
        assert p_value(value, (value - half, value + half), end) == pytest.approx(0.05, abs=1e-9)  # rounding of the end
