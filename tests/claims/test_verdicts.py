"""Six words, each for the right reason."""

import pytest

from checks.claims.verdicts import FROM_STATUS, VERDICTS, WORTHLESS, verdict


def evidence(answer: str) -> dict:
    return {"answer": answer, "detail": f"because of {answer}", "runs": []}


SOUND = {"control": evidence("informative"), "coordinates": evidence("stable"), "noise": evidence("stable")}


@pytest.mark.parametrize("status", FROM_STATUS)
def test_without_controls_or_with_sound_ones_the_gate_decides(status):
    for controls in (None, {}, SOUND, {"control": None, "coordinates": None, "noise": None}):
        assert verdict(status, "so", controls) == (FROM_STATUS[status], "so")
    assert FROM_STATUS[status] in VERDICTS


@pytest.mark.parametrize("answer", WORTHLESS)
def test_a_pass_with_a_worthless_control_is_uninformative_and_a_failure_stays_one(answer):
    controls = SOUND | {"control": evidence(answer)}
    word, reason = verdict("pass", None, controls)
    assert word == "uninformative" and answer in reason
    assert verdict("fail", None, controls) == ("does not hold", None)


def test_a_plant_that_coordinates_hide_makes_a_pass_speak_of_coordinates():
    controls = SOUND | {"control": evidence("coordinate-blind")}
    assert verdict("pass", None, controls)[0] == "coordinate-dependent"
    assert verdict("fail", None, controls)[0] == "does not hold"


@pytest.mark.parametrize("status", ["pass", "fail"])
def test_what_other_coordinates_change_depends_on_them_whichever_way_it_went(status):
    assert verdict(status, None, SOUND | {"coordinates": evidence("changes")})[0] == "coordinate-dependent"


@pytest.mark.parametrize("status", ["pass", "fail"])
def test_a_margin_within_the_noise_decides_nothing(status):
    assert verdict(status, None, SOUND | {"noise": evidence("within noise")})[0] == "undecided"


def test_nothing_rescues_what_could_not_be_asked_or_decided():
    worst = {"control": evidence("vacuous"), "coordinates": evidence("changes"), "noise": evidence("within noise")}
    assert verdict("skip", "no tokenizer", worst) == ("not applicable", "no tokenizer")
    assert verdict("inconclusive", "4 layers", worst) == ("undecided", "4 layers")
    assert verdict("error", "crash", worst) == ("error", "crash")


def test_a_vacuous_pass_is_uninformative_before_anything_else():
    controls = {"control": evidence("vacuous"), "coordinates": evidence("changes")}
    assert verdict("pass", None, controls)[0] == "uninformative"
