"""What a layer reads and writes, against sums over dense maps, and left alone by every exact map."""

import json
import math

import pytest
import torch
from safetensors.torch import load_file, save_file

from analyses.null_residual import grams
from analyses.null_residual.grams import GRAMS, SCALES, branches, layer_grams, unmeasured
from analyses.weights import folded as folded_heads
from analyses.weights.checkpoint import Checkpoint, open_checkpoint
from tests.by_hand import run_layer
from tests.tiny import TINY, tiny_checkpoint

ROUNDING = 1e-12  # of sums of a few thousand float64 products, relative to the largest
DISTANCES = 64  # of a circle on which every plane's speed is a whole number


@pytest.fixture(scope="module")
def stage(tmp_path_factory):
    made = {}

    def build(name: str) -> Checkpoint:
        if name not in made:
            made[name] = open_checkpoint(str(tiny_checkpoint(tmp_path_factory.mktemp("m"), name, tokenizer=False)))
        return made[name]

    return build


def measured(checkpoint: Checkpoint, layer: int) -> tuple[dict[str, torch.Tensor], dict[str, float]]:
    parts = [layer_grams(checkpoint, branch, layer, device="cpu") for branch in branches(checkpoint)]
    return ({k: v for part in parts for k, v in part.grams.items()}, {k: v for p in parts for k, v in p.scales.items()})


# --- the same by dense maps, from the tensors and the architecture's facts ----------------------


def folded(checkpoint: Checkpoint, family: str, norm: str | None, layer: int, expert: int | None = None):
    """W·diag(gain), without the mean that a LayerNorm takes off."""
    weight = checkpoint.weight(family, layer, expert=expert)
    if norm in checkpoint.places:
        weight = weight * checkpoint.weight(norm, layer)
    reads_stream = checkpoint.architecture.post_norm and norm == "input_ln"
    if checkpoint.architecture.layer_norm and not reads_stream:
        weight = weight @ (torch.eye(weight.shape[1]).double() - 1 / weight.shape[1])
    return weight


def written(checkpoint: Checkpoint, family: str, norm: str, layer: int, expert: int | None = None):
    """diag(gain)·W of the norm behind the branch, without its mean where a LayerNorm follows; and without the gain."""
    weight = checkpoint.weight(family, layer, expert=expert)
    if checkpoint.architecture.layer_norm:
        weight = (torch.eye(len(weight)).double() - 1 / len(weight)) @ weight
    if norm in checkpoint.places and not checkpoint.architecture.post_norm:
        return checkpoint.weight(norm, layer)[:, None] * weight, weight
    return weight, None


def turn(checkpoint: Checkpoint, layer: int, distance: int) -> torch.Tensor:
    """R_Δ, (head_dim, head_dim), plane p turned by (p + 1)·Δ parts of the circle."""
    rotation, dims = torch.eye(checkpoint.shape.head_dim).double(), checkpoint.rotary_dims(layer)
    for plane in range(dims // 2):
        angle = 2 * math.pi * (plane + 1) * distance / DISTANCES
        pair = [2 * plane, 2 * plane + 1] if checkpoint.architecture.rotary == "pairs" else [plane, plane + dims // 2]
        c, s = math.cos(angle), math.sin(angle)
        rotation[torch.tensor(pair)[:, None], torch.tensor(pair)] = torch.tensor([[c, -s], [s, c]], dtype=torch.float64)
    return rotation


def metrics_of_heads(checkpoint: Checkpoint, layer: int):
    """Head → (W_k, W_q) by head, gains of their norms folded in, scale-free in front of these."""
    record, shape = checkpoint.architecture, checkpoint.shape
    sides = []
    for family, count in (("q_proj", shape.heads), ("k_proj", shape.kv_heads)):
        heads = folded(checkpoint, family, "input_ln", layer).view(count, shape.head_dim, shape.hidden)
        if checkpoint.has_qk_norm:
            if record.qk_layer_norm:
                heads = heads - heads.mean(1, keepdim=True)
            size = heads.flatten(1).norm(dim=1)[:, None, None]
            if record.qk_norm == "whole projection":  # of the keys as the queries meet them, one a query head
                size = heads.norm() * math.sqrt(shape.heads / count)
            gain = checkpoint.weight(f"{family[0]}_norm", layer).view(-1, shape.head_dim, 1)
            heads = heads / size * gain
        sides.append(heads)
    q, k = sides
    for head in range(shape.heads):
        yield k[head * shape.kv_heads // shape.heads], q[head]


def dense(checkpoint: Checkpoint, layer: int) -> tuple[dict[str, torch.Tensor], dict[str, float]]:
    record, shape, hidden = checkpoint.architecture, checkpoint.shape, checkpoint.shape.hidden
    found = {name: torch.zeros(hidden, hidden).double() for name in GRAMS}
    square = 0.0
    for k, q in metrics_of_heads(checkpoint, layer):
        g = torch.stack([k.T @ turn(checkpoint, layer, distance) @ q for distance in range(DISTANCES)])
        size = g.square().sum((1, 2)).mean()
        square += size
        found["q.read"] += (g.mT @ g).mean(0) / size
        found["k.read"] += (g @ g.mT).mean(0) / size
    scales = {"qk": math.sqrt(square / shape.heads)}
    v = folded(checkpoint, "v_proj", "input_ln", layer).view(shape.kv_heads, shape.head_dim, hidden)
    o, before = written(checkpoint, "o_proj", "attn_out_ln", layer)

    def products(o):
        heads = o.view(hidden, shape.heads, shape.head_dim).transpose(0, 1)
        return [heads[h] @ v[h * shape.kv_heads // shape.heads] for h in range(shape.heads)]

    found["ov.read"], found["ov.write"] = sum(p.T @ p for p in products(o)), sum(p @ p.T for p in products(o))
    norm = lambda maps: sum(p.square().sum() for p in maps)  # noqa: E731
    scales["ov"] = math.sqrt(norm(products(o)) / (shape.heads if before is None else norm(products(before))))
    gate, maps, maps_before = 0.0, 0.0, 0.0
    relu = checkpoint.config.get("activation_function") == "relu"
    for expert in range(checkpoint.experts("up_proj")) or (None,):
        up = folded(checkpoint, "up_proj", record.feed_forward_norm, layer, expert)
        down, before = written(checkpoint, "down_proj", "ffn_out_ln", layer, expert)
        for i in range(len(up)):
            neuron = torch.outer(down[:, i], up[i])
            maps += neuron.square().sum()
            maps_before += 0 if before is None else torch.outer(before[:, i], up[i]).square().sum()
            free = record.gated or relu
            found["up.read"] += neuron.T @ neuron if free else torch.outer(up[i], up[i])
            found["down.write"] += neuron @ neuron.T if free else torch.outer(down[:, i], down[:, i])
        if record.gated:
            weight = folded(checkpoint, "gate_proj", record.feed_forward_norm, layer, expert)
            gate += weight.square().sum()
            found["gate.read"] += weight.T @ weight
    scales["up_down"] = math.sqrt(maps / (maps_before or 1))
    if record.gated:
        scales["gate"] = math.sqrt(gate)
    else:
        del found["gate.read"]
    return found, {} if record.post_norm else scales


@pytest.mark.parametrize("name", TINY)
def test_grams_and_scales_of_every_architecture_are_those_of_its_dense_maps(stage, name):
    checkpoint = stage(name)
    for layer in (0, 1):
        (found, scales), (expected, sizes) = measured(checkpoint, layer), dense(checkpoint, layer)
        assert set(found) == set(expected) and set(scales) == set(sizes)
        for key, gram in expected.items():
            error = (found[key] - gram).abs().max() / gram.abs().max()
            assert float(error) <= ROUNDING, (key, layer, float(error))
        assert scales == pytest.approx(sizes, rel=ROUNDING)


@pytest.mark.parametrize("name", TINY)
def test_what_an_architecture_lacks_has_its_reason(stage, name):
    checkpoint = stage(name)
    record = checkpoint.architecture
    absent = {} if record.gated else dict.fromkeys(("gate.read", "gate"), "not gated")
    absent = (dict.fromkeys(SCALES, "whose size is free") if record.post_norm else {}) | absent
    found, scales = measured(checkpoint, 0)
    assert unmeasured(checkpoint).keys() == absent.keys() == ({*GRAMS, *SCALES} - found.keys() - scales.keys())
    assert all(absent[name] in why for name, why in unmeasured(checkpoint).items())


@pytest.mark.parametrize("name", ["llama", "qwen3", "gpt_neox", "olmo2"])
def test_scales_of_heads_are_those_of_the_folded_heads(stage, name):
    checkpoint = stage(name)
    for scale, track in folded_heads.head_scales(checkpoint).items():
        found = [measured(checkpoint, layer)[1][scale] for layer in range(checkpoint.shape.layers)]
        assert found == pytest.approx(track.tolist(), rel=ROUNDING), scale


@pytest.mark.parametrize("name", ["bert", "opt, post-norm"])
def test_where_the_stream_is_normalised_its_size_is_free_and_no_gram_knows_it(stage, name, tmp_path):
    """All that reads one layer's normalised stream divided by 4, its gain and what is added to it times 4."""
    checkpoint = stage(name)
    folder = tiny_checkpoint(tmp_path, name, tokenizer=False)
    tensors = load_file(folder / "model.safetensors")
    layer = checkpoint.shape.layers - 1
    for role, factor in {"post_attn_ln": 4.0, "up_proj": 0.25, "down_proj": 4.0}.items():
        (tensor,) = checkpoint.names(role, layer)
        tensors[tensor] *= factor
        for bias in checkpoint.names(role, layer, bias=True) if role != "up_proj" else ():
            tensors[bias] *= factor
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    twin = open_checkpoint(str(folder))
    stream = torch.randn(7, checkpoint.shape.hidden, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    outputs = [run_layer(c, layer, stream).output for c in (checkpoint, twin)]
    assert torch.allclose(*outputs, rtol=0, atol=1e-4)  # up to the norm's eps
    for key, gram in measured(checkpoint, layer)[0].items():
        other = measured(twin, layer)[0][key]
        assert torch.allclose(other / other.trace(), gram / gram.trace(), rtol=0, atol=ROUNDING), key


def test_unit_heads_count_alike_and_a_dead_one_not_at_all(stage, tmp_path):
    assert measured(stage("llama"), 0)[0]["q.read"].trace() == pytest.approx(stage("llama").shape.heads)
    folder = tiny_checkpoint(tmp_path, "llama", tokenizer=False)
    tensors = load_file(folder / "model.safetensors")
    tensors["model.layers.0.self_attn.q_proj.weight"][:8] = 0
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    found, _ = measured(open_checkpoint(str(folder)), 0)
    assert found["q.read"].trace() == pytest.approx(3) and found["k.read"].trace() == pytest.approx(3)


@pytest.mark.parametrize("name", ["llama", "opt"])
def test_behind_a_relu_a_neurons_scales_are_free_and_leave_its_grams_alone(name, tmp_path):
    folder = tiny_checkpoint(tmp_path, name, tokenizer=False)
    config = json.loads((folder / "config.json").read_text())
    if name == "llama":
        (folder / "config.json").write_text(json.dumps(config | {"hidden_act": "relu"}))
    checkpoint = open_checkpoint(str(folder))
    assert ("gate" in unmeasured(checkpoint)) and len(grams.free_factors(checkpoint)) == (3 if name == "llama" else 2)
    before = measured(checkpoint, 1)
    tensors = load_file(folder / "model.safetensors")
    factors = torch.exp2(torch.randint(-3, 4, (2, 48), generator=torch.Generator().manual_seed(0)).float())
    for role, factor in {"gate_proj": factors[0], "up_proj": factors[1], "down_proj": 1 / factors.prod(0)}.items():
        if role in checkpoint.families:
            (tensor,) = checkpoint.names(role, 1)
            factor = factor if name == "llama" else {"up_proj": factors[0], "down_proj": 1 / factors[0]}[role]
            tensors[tensor] *= factor if role == "down_proj" else factor[:, None]
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    after = measured(open_checkpoint(str(folder)), 1)
    for key, gram in before[0].items():
        assert torch.allclose(after[0][key], gram, rtol=0, atol=ROUNDING * float(gram.abs().max())), key
    assert after[1] == pytest.approx(before[1], rel=ROUNDING)


def test_a_view_without_a_family_lacks_what_is_made_of_it(stage):
    view = stage("qwen3").restricted(families=("q_proj", "k_proj", "gate_proj"))
    assert branches(view) == {"attention": ("q.read", "k.read")}
    assert unmeasured(view)["ov.read"] == "v_proj: left out of this measurement"
    found, scales = measured(view, 0)
    assert set(found) == {"q.read", "k.read"} and set(scales) == {"qk"}
    whole, _ = measured(stage("qwen3"), 0)
    assert torch.equal(found["q.read"], whole["q.read"])
