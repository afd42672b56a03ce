"""Published numbers as data, and two readings of one finding on one card."""

import pytest

from checks.claims import CLAIMS
from checks.claims.published import KEYS, RIVALS, beside, numbers, readings

IDS = {gate.id for gate in CLAIMS}


def test_every_published_number_names_its_source_its_model_and_a_claim_that_there_is():
    for entry in numbers():
        assert set(entry) == KEYS and entry["claim"] in IDS and entry["model"] and entry["source"]
        assert entry["tolerance"] > 0 and isinstance(entry["original"], bool)


def test_ours_theirs_and_the_difference_stand_together_on_a_model_that_has_one():
    found = {"head_grams": {"ranks": {"symmetry_of_sum": 0.58}}}
    (row,) = beside("HG4", "gpt2", found)
    assert row["same"] and row["difference"] == pytest.approx(0.005) and row["value"] == 0.575


def test_elsewhere_another_models_number_stands_and_no_difference_is_made():
    (row,) = beside("RS6", "mine", {"residual_stream": {"published": {"linearity": [0.9, None, 0.98]}}})
    assert not row["same"] and row["difference"] is None and row["own"] == pytest.approx(0.94)
    assert beside("RS1", "mine", {}) == []


def claim(id: str, verdict: str) -> dict[str, str]:
    return {"id": id, "claim": f"what {id} says", "verdict": verdict}


def test_rivals_name_each_other():
    assert {RIVALS[RIVALS[id]] for id in RIVALS} == set(RIVALS) and {"RS2", "RS4", "RS5"} <= set(RIVALS)


@pytest.mark.parametrize(
    ("word", "other", "told"),
    [
        ("holds", "does not hold", "this reading and not the other"),
        ("does not hold", "holds", "the other reading and not this"),
        ("holds", "holds", "both"),
        ("does not hold", "uninformative", "neither"),
        ("holds", "undecided", "the other is open"),
        ("undecided", "does not hold", "leaves both readings open"),
    ],
)
def test_a_card_says_which_reading_the_model_supports(word, other, told):
    rows = [claim("RS5", word), claim("RS5r", other)]
    assert told in readings(rows[0], rows)["told"]
    assert readings(claim("RS1", "holds"), rows) is None
