"""A record that says something else than the class does is caught on the text, whatever its tensors are called."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from analyses.forward.calibration import Calibration
from analyses.forward.inputs import Settings
from analyses.forward.instrumented import run
from analyses.forward.probe import Probe
from analyses.forward.witness import witness
from analyses.run.suite import records_of
from analyses.weights.checkpoint import Checkpoint, open_checkpoint
from checks.claims import INTEGRITY
from checks.claims.gate import evaluate
from checks.families.tiny import save

TEXTS = ("A text of some length.", "Another one that is longer than the first by some way.")
TEXT = Calibration(name="test", texts=TEXTS, sha256="0" * 64, stream=False)
WITNESSED = ("probabilities", "output", "reads", "heads")


class Watcher(Probe):
    """Keeps what the witness saw, of the record as it is or of a mistaken one."""

    witnesses = True

    def __init__(self) -> None:
        self.seen, self.inputs, self.real = {}, {}, None

    def begin(self, real):
        self.real = real

    def attention(self, layer, inputs):
        self.inputs[layer] = inputs

    def witnessed(self, layer, seen):
        self.seen[layer] = seen


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = {}

    def build(name: str, **entries) -> Path:
        key = (name, *sorted(map(str, entries.items())))
        if key not in made:
            made[key] = save(name, tmp_path_factory.mktemp("witness"), layers=2, **entries)
        return made[key]

    return build


def watched(checkpoint: Checkpoint, **options) -> Watcher:
    watcher = Watcher()
    run(checkpoint, TEXT, [watcher], **options)
    return watcher


def worst(watcher: Watcher, name: str) -> float:
    return max(getattr(seen, name) or 0.0 for seen in watcher.seen.values())


def mistaken(checkpoint: Checkpoint, **facts) -> Checkpoint:
    return replace(checkpoint, architecture=replace(checkpoint.architecture, **facts))


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_a_decoder_that_its_config_makes_an_encoder_is_read_as_one(folder, attention: str):
    """`is_causal: false`: sdpa is then given no mask at all, which a causal reading takes for a causal one."""
    checkpoint = open_checkpoint(str(folder("llama", is_causal=False)))
    watcher = watched(checkpoint, attention=attention)
    assert worst(watcher, "output") < 1e-5
    causal = replace(watcher.inputs[0], mask=torch.ones_like(watcher.inputs[0].mask, dtype=torch.bool).tril())
    rows = torch.zeros(4, checkpoint.shape.hidden)
    module = torch.nn.Module()
    assert witness(checkpoint, 0, module, causal, watcher.real, rows, rows).output > 0.01


def test_another_scale_of_the_logits_is_caught(folder):
    """As where a class divides by the layer's number and its attention function is told of the usual scale."""
    checkpoint = open_checkpoint(str(folder("gpt2")))
    watcher = watched(checkpoint)
    other = replace(watcher.inputs[1], scaling=watcher.inputs[1].scaling / 2)
    rows = torch.zeros(4, checkpoint.shape.hidden)
    seen = witness(checkpoint, 1, torch.nn.Module(), other, watcher.real, rows, rows)
    assert seen.probabilities > 0.01 and seen.output > 0.01 and worst(watcher, "probabilities") < 1e-5


def test_gpt2s_scale_by_the_inverse_of_the_layers_number_is_what_runs(folder):
    checkpoint = open_checkpoint(str(folder("gpt2", scale_attn_by_inverse_layer_idx=True)))
    watcher = watched(checkpoint)
    assert worst(watcher, "probabilities") < 1e-5
    assert watcher.inputs[1].scaling == pytest.approx(watcher.inputs[0].scaling / 2)


def test_norms_that_stand_behind_a_branch_under_gpt2s_names_are_caught(folder):
    checkpoint = open_checkpoint(str(folder("openai-gpt")))
    assert worst(watched(checkpoint), "reads") < 1e-5
    in_front = replace(checkpoint, places=dict(checkpoint.places) | {"input_ln": checkpoint.places["post_attn_ln"]})
    assert worst(watched(in_front), "reads") > 0.05


def test_rotary_positions_under_berts_names_are_caught(folder):
    checkpoint = open_checkpoint(str(folder("roformer")))
    assert worst(watched(checkpoint), "heads") < 1e-5
    assert worst(watched(mistaken(checkpoint, rotary=None)), "heads") > 0.1
    assert worst(watched(mistaken(checkpoint, rotary="halves")), "heads") > 0.1


@pytest.mark.parametrize(
    ("name", "fact", "what"),
    [
        ("helium", {"rotary": "halves"}, "heads"),
        ("glm", {"rotary": "halves"}, "heads"),
        ("gemma", {"gain_offset": 0.0}, "reads"),
        ("cohere", {"layer_norm": False}, "reads"),
        ("persimmon", {"qk_layer_norm": False}, "heads"),
    ],
)
def test_a_wrong_fact_of_a_record_is_caught(folder, name: str, fact: dict, what: str):
    checkpoint = open_checkpoint(str(folder(name)))
    assert worst(watched(mistaken(checkpoint, **fact)), what) > 0.02


def test_an_identity_breaks_where_names_mislead(folder):
    """Helium has Llama's names and turns other planes."""
    llama = mistaken(open_checkpoint(str(folder("helium"))), rotary="halves")
    found = records_of(llama, TEXT, Settings(device="cpu"), ("attention_stats",))
    status = {gate.id: evaluate(gate, found).status for gate in INTEGRITY if gate.id.startswith("attention_stats.")}
    assert status["attention_stats.heads"] == "fail" and status["attention_stats.output"] == "pass"


def test_every_witnessed_identity_is_judged():
    judged = {gate.id for gate in INTEGRITY}
    assert {f"attention_stats.{name}" for name in WITNESSED} <= judged


def test_identities_of_a_float64_pass_ask_for_no_more_than_the_softmax_that_ran(folder):
    """The library's eager function takes it in float32, so that rows add up to 1 within 1e-6 and not 1e-12."""
    checkpoint = open_checkpoint(str(folder("llama")))
    found = records_of(checkpoint, TEXT, Settings(device="cpu", dtype="float64"), ("attention_stats",))
    record = found["attention_stats"]
    assert record["dtype"] == "float64" and record["softmax_dtype"] == "float32"
    assert record["identities"]["row_sum"]["value"] > 1e-12
    gates = [gate for gate in INTEGRITY if gate.id.startswith("attention_stats.")]
    assert {evaluate(gate, found).status for gate in gates} == {"pass"}
