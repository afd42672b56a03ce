"""What a page says of a number is so: the limit at which an answer changes, what decides it, what was asked."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from checks.claims import CLAIMS
from checks.claims.compare import compare
from checks.controls import by_class
from checks.report import cards, index, words
from tests.page import finding, outcome

RECORDED = Path(__file__).parents[2] / "checks" / "reference" / "recorded"


@given(
    observed=st.floats(-1, 1),
    below=st.floats(0, 1),
    above=st.floats(0, 1),
    threshold=st.floats(-1, 1),
    comparator=st.sampled_from(["<=", ">="]),
)
def test_the_limit_at_which_an_answer_is_said_to_change_is_where_it_does(observed, below, above, threshold, comparator):
    interval = (observed - below, observed + above)
    status = compare(observed, interval, comparator, threshold, threshold)
    assume(status in ("pass", "fail") and abs(threshold) > 1e-3)
    at = words.flips_at(finding(observed, threshold, comparator, interval=list(interval), status=status))
    step = 1e-6 * (1 if at > threshold else -1)
    assume(abs(at - threshold) > abs(step))
    assert compare(observed, interval, comparator, at + step, at + step) != status
    assert compare(observed, interval, comparator, at - step, at - step) == status


def test_the_index_and_the_card_show_the_condition_that_decides():
    first, second = finding(0.9, 0.5, ">="), finding(0.4, 0.05, status="fail")
    claim = outcome("HE2", "does not hold", findings=[first, second])
    model = SimpleNamespace(name="m", href="m/report.html", judged={"claims": [claim]})
    (cell,) = index._cells("HE2", [model])
    assert cell["said"] == "HE2 on m: does not hold, 0.400, limit ≤ 0.05"
    assert claim["findings"][cards.deciding(claim)] is second


@pytest.mark.parametrize("path", sorted(RECORDED.glob("*.json")), ids=lambda path: path.stem)
def test_every_recorded_estimate_lies_in_its_own_interval(path):
    for where, node in metrics(json.loads(path.read_text(encoding="utf-8")), ""):
        for name in ("interval", "bonferroni"):
            if node.get(name):
                assert node[name][0] <= node["value"] <= node[name][1], f"{where}.{name}"


def metrics(node, where: str):
    """Every number with an interval, and its dotted path."""
    if isinstance(node, dict):
        if node.get("interval") and node.get("value") is not None:
            yield where, node
        for key, child in node.items():
            yield from metrics(child, f"{where}.{key}")
    elif isinstance(node, list):
        for i, child in enumerate(node):
            yield from metrics(child, f"{where}.{i}")


def test_a_detection_limit_is_looked_for_where_the_absence_holds_and_nowhere_else():
    def gates(kind, *, status):
        assert (kind, status) == ("absence", "pass")
        return []

    assert by_class.absences(SimpleNamespace(gates=gates)) == {}


def test_half_of_a_perfect_ranking_is_called_a_quarter_of_the_variation():
    for gate in CLAIMS:
        assert "half of the rank variation" not in gate.reason
    (steps,) = (gate for gate in CLAIMS if gate.id == "DS5")
    assert steps.conditions[0].threshold**2 == 0.25 and "a quarter of the rank variation" in steps.reason


def test_a_control_without_a_number_on_any_twin_counts_none_of_them_as_evidence():
    claim = SimpleNamespace(findings=[SimpleNamespace(observed=0.5, comparator=">=", test=False)])
    run = by_class.Run(name="shuffled", seed=0, status="inconclusive", observed=(None,), where=None)
    found = by_class._rare(claim, "vacuous", {"shuffled": [run] * 19})
    assert (found.answer, found.p) == ("not defined", None)
    assert found.detail == "none of 19 shuffled models has such a number"
