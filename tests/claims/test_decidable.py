"""What cannot be decided is said beforehand, by the counts that the records then have."""

from dataclasses import replace

import pytest

from analyses.run.plan import Plan, plan
from checks.claims.decidable import undecidable
from tests.tiny import tiny_checkpoint


@pytest.fixture(scope="module")
def shallow(tmp_path_factory) -> Plan:
    return plan(str(tiny_checkpoint(tmp_path_factory.mktemp("plan"), "llama", layers=3)))


def test_three_layers_decide_nothing_that_needs_four_pairs_or_twelve_layers(shallow):
    found = undecidable(shallow)
    assert found["NR1"] == found["HG1"] == "2 pairs of 4" and found["SF3"] == "3 layers of 12"
    assert "NR1.stored" not in found


def test_a_deep_model_with_a_short_text_can_only_fail_what_few_tokens_flatter(shallow):
    deep = replace(shallow, layers=64, hidden=4096, heads=32, tokens=1300, skipped={})
    found = undecidable(deep)
    assert found["DS1"] == found["DS2"] == "0.317 tokens per dimension of 2, can only fail"
    assert found["DS3"] == "0.317 tokens per dimension of 2"
    assert not {"NR1", "SF1", "HE1", "HE2", "HE3", "AN1", "AN5", "DS4", "HG3"} & set(found)


def test_runs_as_long_as_a_phase_are_few_in_24_layers_and_what_is_skipped_is_not_told(shallow):
    medium = replace(shallow, layers=24, hidden=128, heads=8, tokens=2600, skipped={})
    assert undecidable(medium) == {"AN1": "16 runs of 19, can only fail"}
    assert "AN1" not in undecidable(replace(medium, skipped={"delta_svd": "no tokenizer"}))
