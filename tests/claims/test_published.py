"""Published numbers as data, and two readings of one finding on one card."""

import pytest

from checks.claims import CLAIMS
from checks.claims.published import KEYS, NEAREST, RIVALS, beside, numbers, readings
from checks.report.cards import beside_it

IDS = {gate.id for gate in CLAIMS}


def test_every_published_number_names_its_source_its_model_and_a_claim_that_there_is():
    for entry in numbers():
        assert set(entry) - NEAREST == KEYS and entry["claim"] in IDS and entry["model"] and entry["source"]
        assert entry["tolerance"] > 0 and isinstance(entry["original"], bool)
        assert len(NEAREST & set(entry)) in (0, 2), "a relative is found by both or by neither"
    places = [(entry["claim"], name) for entry in numbers() for name in entry["model"]]
    assert len(set(places)) == len(places)


def test_ours_theirs_and_the_difference_stand_together_on_a_model_that_has_one():
    found = {"head_grams": {"ranks": {"symmetry_of_sum": 0.58}}}
    (row,) = beside("HG4", "gpt2", found)
    assert row["same"] and row["difference"] == pytest.approx(0.005) and row["value"] == 0.575


def test_elsewhere_another_models_number_stands_and_no_difference_is_made():
    (row,) = beside("RS6", "mine", {"residual_stream": {"published": {"linearity": [0.9, None, 0.98]}}})
    assert not row["same"] and row["difference"] is None and row["own"] == pytest.approx(0.94)
    assert beside("NR1", "mine", {}) == []


SYMMETRY = {"head_grams": {"ranks": {"symmetry_of_sum": 0.58, "symmetry_misread": None}}}


def relative(claim: str, found, **architecture) -> str:
    (row,) = beside(claim, "mine", found, architecture)
    assert not row["same"]
    return row["model"][0]


def test_the_nearest_relative_is_of_the_same_type_and_then_of_the_nearest_size():
    assert relative("HG4", SYMMETRY, model_type="gpt2", parameters=400e6) == "openai-community/gpt2-medium"
    assert relative("HG4", SYMMETRY, model_type="gpt_neo", parameters=2e9) == "EleutherAI/gpt-neo-2.7B"
    assert relative("HG4", SYMMETRY, model_type="qwen3", parameters=6e9) == "EleutherAI/gpt-j-6B"
    assert relative("HG4", SYMMETRY, model_type="llama", parameters=1e9) == "meta-llama/Llama-2-7b-hf"


def test_a_relative_whose_number_was_measured_here_comes_first():
    grouped = {"head_grams": {"ranks": {"symmetry_of_sum": None, "symmetry_misread": 0.5}}}
    assert relative("HG4", grouped, model_type="llama", parameters=1e9) == "meta-llama/Llama-3.2-1B"


def test_a_card_tells_ours_theirs_and_the_difference_with_its_tolerance_or_names_the_relative():
    found = {"attention_stats": {"metrics": {"sink_heads": {"value": 0.9248}}}}
    manifest = {"architecture": {"model_type": "llama", "parameters": 6738e6}}

    def told(model: str) -> str:
        judged = {"model": model, "claims": []}
        (said,) = beside_it({"id": "AT1"}, judged, found, manifest)["published"]
        return said

    own = told("meta-llama/Llama-2-7b-hf")
    assert "0.925 for meta-llama/Llama-2-7b-hf" in own and "arXiv:2410.10781, Table 1" in own
    assert "from a secondary source" in own and "here 0.925" in own and "beyond the tolerance" in own
    other = told("mine")
    assert "0.925 for meta-llama/Llama-2-7b-hf" in other and "the nearest relative. This one has 0.925." in other


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
