"""What a record says of a model family, the library's own class does.

Each family's q, k, v, o, gate, up, down and gains are taken from disk through the table and applied
by hand, in float64, to the stream that enters a layer of the class; the attention and the output
that come out must be the class's own. A name that points to the wrong tensor, a wrong split of a fused one, or a
wrong fact cannot pass.
"""

import dataclasses
import math
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
import transformers
from safetensors.torch import load_file

from analyses.weights import architecture_table, files
from analyses.weights.checkpoint import Checkpoint, open_checkpoint
from analyses.weights.layouts import PLAIN
from tests.by_hand import Layer, run_layer
from tests.tiny import TINY, tiny_checkpoint

TOKENS = torch.randint(1, 256, (1, 24), generator=torch.Generator().manual_seed(1))  # (sequence, token)
ROUNDING = 1e-5  # the classes compute norms and softmax in float32 whatever the dtype: 24 tokens, some 20 eps of 1.2e-7
"""Relative to the largest entry; for logarithms of probabilities, absolute."""


class Seen(NamedTuple):
    """What the class computed in one layer."""

    hidden: torch.Tensor  # (token, hidden), the layer's input
    attention: torch.Tensor  # (head, token, key)
    branches: tuple[torch.Tensor, torch.Tensor]  # (token, hidden) each
    output: torch.Tensor  # (token, hidden)


@torch.no_grad()
def watch(checkpoint: Checkpoint) -> list[Seen]:
    """Run the class once, in float64."""
    kind = transformers.AutoModelForMaskedLM if checkpoint.architecture.encoder else transformers.AutoModelForCausalLM
    plain = {"attn_implementation": "eager"} | ({"experts_implementation": "eager"} if checkpoint.shape.experts else {})
    model = kind.from_pretrained(checkpoint.folder, dtype=torch.float64, **plain).eval()
    record, base = checkpoint.architecture, model.base_model
    seen = [{} for _ in range(checkpoint.shape.layers)]

    def keep(layer: int, key: str):
        def hook(module, args, output) -> None:
            first = output[0] if isinstance(output, tuple) else output
            seen[layer][key] = first.detach().clone().reshape(-1, first.shape[-1])

        return hook

    def entrance(layer: int):
        def hook(module, args, kwargs) -> None:
            seen[layer]["hidden"] = (args[0] if args else kwargs["hidden_states"])[0].detach().clone()

        return hook

    for i, module in enumerate(base.get_submodule(record.layers)):
        module.register_forward_pre_hook(entrance(i), with_kwargs=True)
        module.register_forward_hook(keep(i, "output"))
        for name in record.branches:
            module.get_submodule(name).register_forward_hook(keep(i, name))
    attentions = model(input_ids=TOKENS, output_attentions=True).attentions
    return [
        Seen(s["hidden"], a[0], tuple(s[name] for name in record.branches), s["output"])
        for s, a in zip(seen, attentions, strict=True)
    ]


@pytest.fixture(scope="module")
def stage(tmp_path_factory):
    """Name → (checkpoint, what its class computed); made once."""
    made = {}

    def build(name: str) -> tuple[Checkpoint, list[Seen]]:
        if name not in made:
            folder = tiny_checkpoint(tmp_path_factory.mktemp("architecture"), name, tokenizer=False)
            checkpoint = open_checkpoint(str(folder))
            made[name] = checkpoint, watch(checkpoint)
        return made[name]

    return build


def distance(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return float((ours - theirs).abs().max() / theirs.abs().max())


def differences(ours: Layer, theirs: Seen) -> dict[str, float]:
    visible = theirs.attention > 0
    logits = (ours.attention.log() - theirs.attention.log())[visible].abs().max()
    first, second = theirs.branches
    return {
        "attention": float(logits) if bool(visible.equal(ours.attention > 0)) else float("inf"),
        "attention branch": distance(ours.attention_branch, first),
        "feed-forward branch": distance(ours.feed_forward_branch, second),
        "output": distance(ours.output, theirs.output),
    }


@pytest.mark.parametrize("name", TINY)
def test_roles_applied_by_hand_give_the_attention_and_the_output_of_the_librarys_class(stage, name):
    checkpoint, layers = stage(name)
    for layer, seen in enumerate(layers):
        found = differences(run_layer(checkpoint, layer, seen.hidden), seen)
        assert max(found.values()) < ROUNDING, (layer, found)


def swapped(checkpoint: Checkpoint, one: str, other: str) -> Checkpoint:
    """The checkpoint read through a record that mistakes two roles for each other."""
    exchange = {one: other, other: one}
    places = {exchange.get(role, role): place for role, place in checkpoint.places.items()}
    for role in (one, other):
        layout = places[role].layout
        roles = tuple(exchange.get(r, r) for r in layout.roles)
        places[role] = dataclasses.replace(places[role], layout=dataclasses.replace(layout, roles=roles))
    return dataclasses.replace(checkpoint, places=places)


@pytest.mark.parametrize("name", TINY)
def test_two_roles_taken_for_each_other_are_noticed(stage, name):
    """The comparison above tells keys from values, and gate from up."""
    checkpoint, layers = stage(name)
    pairs = [("k_proj", "v_proj"), ("gate_proj", "up_proj")]
    for one, other in pairs[: 1 + checkpoint.architecture.gated]:
        mistaken = swapped(checkpoint, one, other)
        assert torch.equal(mistaken.weight(one, 0), checkpoint.weight(other, 0))
        found = differences(run_layer(mistaken, 0, layers[0].hidden), layers[0])
        assert found["output"] > 100 * ROUNDING, (one, other)


@pytest.mark.parametrize("name", TINY)
def test_the_biases_that_a_record_promises_are_there(stage, name):
    checkpoint, _ = stage(name)
    stored = {family for family in checkpoint.families if checkpoint.bias(family, 0) is not None}
    assert stored >= set(checkpoint.architecture.biases)
    assert checkpoint.has_qk_bias == bool(stored & {"q_proj", "k_proj"})


@pytest.mark.parametrize("name", TINY)
def test_every_family_is_there_or_absent_with_its_reason(stage, name):
    checkpoint, _ = stage(name)
    assert not set(checkpoint.families) & set(checkpoint.absent)
    assert len(checkpoint.families) + len(checkpoint.absent) == 11
    assert all(checkpoint.absent.values())
    for family in checkpoint.families:
        expected = checkpoint.shape.of(family)
        if checkpoint.experts(family):
            expected = (checkpoint.experts(family), *expected)
        elif family in ("q_norm", "k_norm") and checkpoint.architecture.qk_norm == "own per head":
            expected = (checkpoint.shape.heads * 8,) if family == "q_norm" else (checkpoint.shape.kv_heads * 8,)
        assert tuple(checkpoint.weight(family, 1).shape) == expected, family


def test_the_matrix_of_one_expert_is_its_part_of_the_stack(stage):
    for name in ("mixtral", "qwen3_moe"):
        checkpoint, _ = stage(name)
        stack = checkpoint.weight("down_proj", 1)
        assert len(stack) == 4
        for expert in range(4):
            assert torch.equal(checkpoint.weight("down_proj", 1, expert=expert), stack[expert])


@pytest.mark.parametrize("name", ["gpt2", "phi3"])
def test_a_role_of_a_fused_tensor_is_read_without_the_others(stage, name, monkeypatch):
    checkpoint, _ = stage(name)
    read, sizes = files.read, []

    def watched(*arguments):
        sizes.append((value := read(*arguments)).numel())
        return value

    monkeypatch.setattr(files, "read", watched)
    for family in ("q_proj", "k_proj", "v_proj", "up_proj"):
        checkpoint.weight(family, 1)
    assert sizes == [math.prod(checkpoint.shape.of(f)) for f in ("q_proj", "k_proj", "v_proj", "up_proj")]


@pytest.mark.parametrize(("name", "pickled"), [("mixtral", False), ("mixtral", True), ("qwen3_moe", False)])
def test_experts_stacked_as_they_are_in_memory_are_read_alike(stage, tmp_path, name, pickled):
    """The library writes experts one by one, and as it keeps them in memory if told so."""
    checkpoint, _ = stage(name)
    model = transformers.AutoModelForCausalLM.from_pretrained(checkpoint.folder)
    model.save_pretrained(tmp_path, save_original_format=False)
    if pickled:
        torch.save(load_file(tmp_path / "model.safetensors"), tmp_path / "pytorch_model.bin")
        (tmp_path / "model.safetensors").unlink()
    stacked = open_checkpoint(str(tmp_path))
    assert stacked.places["up_proj"].layout != PLAIN and not stacked.places["up_proj"].by_part
    for family in checkpoint.families:
        assert torch.equal(stacked.weight(family, 2), checkpoint.weight(family, 2)), family
    for family in ("gate_proj", "up_proj", "down_proj"):
        for expert in range(4):
            assert torch.equal(stacked.weight(family, 1, expert=expert), checkpoint.weight(family, 1)[expert]), family
    assert torch.equal(stacked.weight("router", 1), checkpoint.weight("router", 1))


def test_the_readme_names_the_families_and_their_table_is_the_one_the_records_make():
    root = Path(__file__).parents[2]
    assert f"\n\n{architecture_table.names()}\n\n" in (root / "README.md").read_text(encoding="utf-8")
    table = (root / "docs" / "families.md").read_text(encoding="utf-8")
    assert f"\n\n{architecture_table.markdown()}\n\n" in table
