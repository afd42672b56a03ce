"""Symmetry, ranks and planes of heads against dense float64 matrices of the class's own weights, on five architectures.

The truth knows no folding code of this project: queries, keys, values and outputs are cut from the library's own model,
gains are folded in by hand, and what positions do is averaged over the four quarter turns of every plane.
"""

import itertools

import numpy as np
import pytest
import torch
import transformers
from scipy import linalg, stats

from analyses import head_grams
from analyses.head_grams.head_ranks import random_turns
from analyses.weights.checkpoint import open_checkpoint
from tests.tiny import tiny_checkpoint

FAMILIES = ("llama", "qwen3", "gpt2", "gpt_neox", "gemma2")
HEADS, DIM, LAYER = 4, 8, 1
QUARTERS = [np.array([[c, -s], [s, c]]) for c, s in ((1, 0), (0, 1), (-1, 0), (0, -1))]


@pytest.fixture(scope="module", params=FAMILIES)
def stage(request, tmp_path_factory):
    """(name, the class's model with gains of every size, what head_grams says of it)."""
    folder = tiny_checkpoint(tmp_path_factory.mktemp("truth") / request.param, request.param, layers=3, tokenizer=False)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:  # gains and biases; of the latter nothing here depends
                parameter += 0.4 * torch.rand(parameter.shape, generator=generator)
    model.save_pretrained(folder)
    record, _ = head_grams.measure(open_checkpoint(str(folder)), seed=0, device="cpu")
    return request.param, model, record


def numpy(parameter: torch.Tensor) -> np.ndarray:
    return parameter.detach().double().numpy()


def own(name: str, model) -> dict[str, np.ndarray]:
    """(head, head_dim, hidden) of a layer: q, k, v with gains folded in, o transposed; k and v repeated for a group."""
    base = model.base_model
    if name == "gpt2":
        block = base.h[LAYER]
        rows = numpy(block.attn.c_attn.weight).T.reshape(3, HEADS, DIM, -1)
        q, k, v, gain = *rows, numpy(block.ln_1.weight)
        o = numpy(block.attn.c_proj.weight).reshape(HEADS, DIM, -1)
    elif name == "gpt_neox":
        block = base.layers[LAYER]
        q, k, v = numpy(block.attention.query_key_value.weight).reshape(HEADS, 3, DIM, -1).transpose(1, 0, 2, 3)
        gain, o = numpy(block.input_layernorm.weight), numpy(block.attention.dense.weight).T.reshape(HEADS, DIM, -1)
    else:
        block = base.layers[LAYER]
        q, k, v = (numpy(getattr(block.self_attn, f"{x}_proj").weight).reshape(-1, DIM, 32) for x in "qkv")
        gain = numpy(block.input_layernorm.weight) + (name == "gemma2")
        o = numpy(block.self_attn.o_proj.weight).T.reshape(HEADS, DIM, -1)
    layer_norm = name in ("gpt2", "gpt_neox")

    def folded(rows: np.ndarray) -> np.ndarray:
        rows = rows * gain
        return (rows - rows.mean(-1, keepdims=True) if layer_norm else rows).repeat(HEADS // len(rows), 0)

    q, k, v = map(folded, (q, k, v))
    if name == "qwen3":  # the norms of queries and keys take a head's size off, and put their gains on
        q, k = (x / np.linalg.norm(x, axis=(1, 2), keepdims=True) for x in (q, k))
        q = q * numpy(block.self_attn.q_norm.weight)[:, None]
        k = k * numpy(block.self_attn.k_norm.weight)[:, None]
    return {"q": q, "k": k, "v": v, "o": o - o.mean(-1, keepdims=True) if layer_norm else o}


def planes(name: str) -> int:
    return {"gpt2": 0, "gpt_neox": DIM // 4}.get(name, DIM // 2)


def test_symmetry_is_that_of_the_dense_metric_over_all_turns_of_the_classes_planes(stage):
    name, model, record = stage
    weights, count = own(name, model), planes(name)
    for head in range(HEADS):
        q, k = weights["q"][head], weights["k"][head]
        both = square = 0.0
        for quarters in itertools.product(QUARTERS, repeat=count):
            turn, back = np.eye(DIM), np.eye(DIM)
            for p, quarter in enumerate(quarters):
                at = np.ix_([p, p + count], [p, p + count])
                turn[at], back[at] = quarter, quarter.T
            g, other = k.T @ turn @ q, k.T @ back @ q
            both, square = both + (g * other.T).sum(), square + (g * g).sum()
        assert record.folded.symmetry[LAYER, head] == pytest.approx((1 + both / square) / 2, abs=1e-10)


def erank(sigma: np.ndarray) -> float:
    p = sigma**2 / (sigma**2).sum()
    p = p[p > 1e-15]
    return float(np.exp(-(p * np.log(p)).sum()))


def turned(first: np.ndarray, second: np.ndarray) -> float:
    """Mean effective rank of two factors of these singular values, over the turns that are drawn for every head."""
    turns = random_turns(DIM, 0).numpy()
    return float(np.mean([erank(np.linalg.svd(first[:, None] * x * second, compute_uv=False)) for x in turns]))


def singular(rows: np.ndarray) -> np.ndarray:
    """Rising."""
    return np.linalg.svd(rows, compute_uv=False)[::-1]


def balanced(a: np.ndarray, group: list[np.ndarray]) -> np.ndarray:
    """Symmetric T with T⁻¹ a aᵀ T⁻¹ = T Σ b bᵀ T, by Schur square roots: T² is the geometric mean of A and B⁻¹."""
    A, B = a @ a.T, sum(b @ b.T for b in group)
    root = linalg.sqrtm(A)
    inverse = np.linalg.inv(root)
    mean = root @ linalg.sqrtm(inverse @ np.linalg.inv(B) @ inverse) @ root
    return linalg.sqrtm(mean).real


def ratio(a: np.ndarray, b: np.ndarray, between: np.ndarray) -> float:
    """Effective rank of aᵀb over that of its factors T⁻¹a and Tb, turned at random."""
    return erank(singular(a.T @ b)) / turned(singular(between @ b), singular(np.linalg.inv(between) @ a))


def groups(rows: np.ndarray) -> list[list[int]]:
    """Query heads that share a key/value head, as equal keys tell."""
    return [[h for h in range(HEADS) if np.array_equal(rows[h], rows[at])] for at in range(HEADS)]


def test_ranks_are_those_of_dense_products_beside_balanced_factors_turned_at_random(stage):
    name, model, record = stage
    weights, count = own(name, model), planes(name)
    for head in range(HEADS):
        a, group = weights["v"][head], [weights["o"][h] for h in groups(weights["v"])[head]]
        expected = ratio(a, weights["o"][head], balanced(a, group))
        assert record.ranks.ov_rank_ratio[LAYER, head] == pytest.approx(expected, rel=1e-6)
        a, group = weights["k"][head], [weights["q"][h] for h in groups(weights["k"])[head]]
        between = np.zeros((DIM, DIM))  # a number for each plane that turns, any map of what stands still
        for p in range(count):
            rows = [p, p + count]
            size = np.linalg.norm(a[rows]) ** 2 / sum(np.linalg.norm(b[rows]) ** 2 for b in group)
            between[rows, rows] = size**0.25
        still = slice(2 * count, None)
        if 2 * count < DIM:
            between[still, still] = balanced(a[still], [b[still] for b in group])
        expected = ratio(a, weights["q"][head], between)
        assert record.ranks.qk_rank_ratio[LAYER, head] == pytest.approx(expected, rel=1e-6)


def test_planes_are_those_of_the_classes_rows_and_turn_as_its_own_angles(stage):
    name, model, record = stage
    if planes(name) < 4:
        assert record.ranks.plane_rho is None and record.ranks.plane_share is None
        return
    angles = numpy(model.base_model.rotary_emb.inv_freq)
    weights = own(name, model)
    np.testing.assert_allclose(record.ranks.plane_frequency[LAYER], angles, rtol=1e-6)  # the class's are float32
    for head in range(HEADS):
        q, k = (np.linalg.norm(weights[x][head].reshape(2, 4, -1), axis=(0, 2)) for x in "qk")
        np.testing.assert_allclose(record.ranks.plane_share[LAYER, head], q * k / (q * k).sum(), rtol=1e-10)
        expected = stats.spearmanr(q * k, angles).statistic
        assert record.ranks.plane_rho[LAYER, head] == pytest.approx(expected, abs=1e-12)
