"""What the planted streams plant is found by the gates at the sizes of a small model and its text."""

from dataclasses import replace

import pytest

from analyses.forward.calibration import load_calibration
from analyses.forward.inputs import Settings
from analyses.run import suite
from analyses.weights.checkpoint import open_checkpoint
from checks.claims import CLAIMS
from checks.claims.gate import evaluate
from checks.controls.planted_streams import STREAMS, planted_sinks, planted_streams
from checks.controls.subject import claimed
from checks.twins.planted import query_key_mixture
from checks.twins.planted_parts import heavy_tails, tapered_heads
from tests.claims.planted import UNCHANGED
from tests.few_draws import few_draws
from tests.tiny import tiny_checkpoint

GATES = {gate.id: gate for gate in CLAIMS}
TEXT = replace(load_calibration(), texts=load_calibration().texts[:12])


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    sizes = dict(layers=12, hidden_size=64, num_attention_heads=4)
    drawn = open_checkpoint(str(tiny_checkpoint(tmp_path_factory.mktemp("model"), "llama", **sizes)))
    checkpoint = UNCHANGED.apply(drawn, 0)  # a random model knows no language, and of a twin that is not asked
    with few_draws():
        return checkpoint, suite.records_of(checkpoint, TEXT, Settings(device="cpu"), ["residual_stream"])


@pytest.fixture(scope="module")
def planted(model):
    """Claim → the whole record on its stream."""
    return planted_streams(dict.fromkeys(STREAMS), *model, seed=0)


@pytest.mark.parametrize("claim", [claim for claim in STREAMS if claim != "RS4r"])
def test_a_claim_about_states_holds_on_the_stream_that_was_planted_for_it(model, planted, claim):
    outcome = evaluate(GATES[claim], planted[claim])
    assert outcome.status == "pass", [(f.quantity, f.observed, f.interval, f.status) for f in outcome.findings]
    asked = frozenset(path.rpartition(".")[2] for path in claimed([GATES[claim]]))
    alone = planted_streams({claim: asked}, *model, seed=0)  # of no other claim, and of no other metric
    assert evaluate(GATES[claim], alone[claim]) == outcome


def test_twelve_layers_do_not_tell_an_unrelated_stack_to_a_fifth_and_its_number_is_right(planted):
    outcome = evaluate(GATES["RS4r"], planted["RS4r"])
    assert outcome.status == "inconclusive" and outcome.findings[0].observed < 0.05


def test_a_stack_of_unrelated_writes_is_not_linear_and_has_no_massive_token(planted):
    found = planted["RS5r"]
    assert evaluate(GATES["RS1"], found).status == evaluate(GATES["RS6"], found).status == "fail"
    assert evaluate(GATES["RS5"], found).status == "fail"


def test_planted_sinks_are_seen(model):
    assert evaluate(GATES["AT1"], planted_sinks(model[1], seed=0)).status == "pass"


@pytest.mark.parametrize(
    ("twin", "analysis", "claim", "status"),
    [
        (tapered_heads(), "head_grams", "HG5", "pass"),
        (query_key_mixture(cos=0.8), "head_grams", "HG4", "fail"),
        (heavy_tails(), "weight_spectra", "WS1.stored", "pass"),
    ],
)
def test_planted_heads_and_spectra_are_seen(model, twin, analysis, claim, status):
    with few_draws():
        found = suite.records_of(twin.apply(model[0], 0), TEXT, Settings(device="cpu"), [analysis])
    outcome = evaluate(GATES[claim], found)
    assert outcome.status == status, [(f.observed, f.interval) for f in outcome.findings]
