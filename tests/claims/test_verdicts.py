"""The words, each for the right reason, and the number of claims taken into account."""

import pytest

from analyses.errors import LEFT_OUT
from checks.claims.verdicts import FROM_STATUS, LEVEL, VERDICTS, WORTHLESS, across, adjusted, stored_verdict, verdict


def evidence(answer: str) -> dict:
    return {"answer": answer, "detail": f"because of {answer}", "runs": []}


SOUND = {"control": evidence("informative"), "noise": evidence("stable")}


@pytest.mark.parametrize("status", FROM_STATUS)
def test_without_controls_or_with_sound_ones_the_gate_decides(status):
    for controls in (None, {}, SOUND, {"control": None, "noise": None}):
        assert verdict(status, "so", controls) == (FROM_STATUS[status], "so")
    assert FROM_STATUS[status] in VERDICTS


@pytest.mark.parametrize("answer", WORTHLESS)
def test_a_pass_with_a_worthless_control_is_uninformative(answer):
    word, reason = verdict("pass", None, SOUND | {"control": evidence(answer)})
    assert word == "uninformative" and answer in reason


def test_a_pass_whose_control_has_no_such_number_is_not_one():
    word, reason = verdict("pass", None, SOUND | {"control": evidence("not defined")})
    assert word == "undecided" and reason.startswith("its control has no such number")
    assert verdict("fail", None, SOUND | {"control": evidence("not defined")}) == ("does not hold", None)


def test_what_an_option_left_out_is_undecided_in_both_rows():
    reason = f"head_grams was {LEFT_OUT}"
    assert verdict("skip", reason, None) == stored_verdict("skip", reason) == ("undecided", reason)


def test_a_failure_on_a_model_where_the_planted_effect_is_not_seen_either_is_undecided():
    word, reason = verdict("fail", None, SOUND | {"control": evidence("insensitive")})
    assert word == "undecided" and "insensitive" in reason
    for harmless in ("informative", "vacuous", "mechanical"):
        assert verdict("fail", None, SOUND | {"control": evidence(harmless)}) == ("does not hold", None)


@pytest.mark.parametrize("status", ["pass", "fail"])
def test_a_margin_within_the_rounding_decides_nothing(status):
    assert verdict(status, None, SOUND | {"noise": evidence("within rounding")})[0] == "undecided"


def test_nothing_rescues_what_could_not_be_asked_or_decided():
    worst = {"control": evidence("vacuous"), "noise": evidence("within rounding")}
    assert verdict("skip", "no tokenizer", worst) == ("not applicable", "no tokenizer")
    assert verdict("inconclusive", "4 layers", worst) == ("undecided", "4 layers")
    assert verdict("error", "crash", worst) == ("error", "crash")


def test_a_vacuous_pass_is_uninformative_before_its_rounding_is_looked_at():
    controls = {"control": evidence("vacuous"), "noise": evidence("within rounding")}
    assert verdict("pass", None, controls)[0] == "uninformative"


@pytest.mark.parametrize("status", ["pass", "fail", "inconclusive"])
def test_a_number_in_stored_coordinates_has_one_word_whatever_its_limit_says(status):
    assert stored_verdict(status, "so") == ("coordinate-dependent", "so")
    assert stored_verdict("skip", "no gains") == ("not applicable", "no gains")


def row(word: str, p: float | None) -> dict:
    return {"id": "A", "verdict": word, "verdict_reason": None, "p": p}


def test_an_answer_that_the_number_of_claims_makes_likely_by_chance_is_undecided():
    # Holm: 0.01 × 3, then 0.02 × 2, then 0.04 × 1 but no less than the one before.
    found = adjusted([row("holds", 0.01), row("does not hold", 0.04), row("holds", 0.02), row("undecided", None)])
    assert [c["p_adjusted"] for c in found] == pytest.approx([0.03, 0.04, 0.04, None])
    assert [c["verdict"] for c in found] == ["holds", "does not hold", "holds", "undecided"]
    crowded = adjusted([row("holds", 0.01)] + [row("does not hold", 0.04)] * 5)
    assert crowded[1]["verdict"] == "undecided" and "among 6 answers" in crowded[1]["verdict_reason"]
    assert crowded[1]["raw"] == {"verdict": "does not hold", "reason": None}
    assert crowded[0]["p_adjusted"] == pytest.approx(0.06) and crowded[0]["verdict"] == "undecided"


def test_a_single_answer_and_one_without_a_p_value_stay_as_they_are():
    found = adjusted([row("holds", LEVEL), row("does not hold", None)])
    assert [c["verdict"] for c in found] == ["holds", "does not hold"]
    assert found[1]["p_adjusted"] is None


def test_over_many_models_an_answer_must_survive_the_false_discovery_rate():
    # Benjamini–Hochberg: 0.04 stays beside 0.001 (0.04 × 2/2), and falls among four that are no better (0.04 × 4/4
    # with one at 0.06: 0.06).
    assert across([row("holds", 0.001), row("holds", 0.04)]) == ["holds", "holds"]
    crowd = across([row("holds", 0.06), *[row("does not hold", 0.045)] * 2, None, row("undecided", None)])
    assert crowd == ["undecided", "undecided", "undecided", None, "undecided"]
