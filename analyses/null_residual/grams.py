"""Read and write Gram matrices of a layer, from its weights alone.

A branch reads the residual stream through some matrices and writes it through others. What rows A read is AᵀA,
hidden × hidden: a sum over neurons or heads, which has no order of them, and which a rotation of the stream turns
without changing its trace, its spectrum or its inner product with the Gram of another layer. Rows are taken as they
read the stream, the gain of the norm in front folded in (`canonical`), and columns as they write it, the gain of a
norm behind the branch folded in; and each is made of what no exact map of the layer changes:

    gate.read    Σ gᵢgᵢᵀ over the gate rows g of neurons
    up.read      Σ ‖dᵢ‖² uᵢuᵢᵀ over their up rows u and down columns d: a factor moved between the two leaves ‖d‖u alone
    down.write   Σ ‖uᵢ‖² dᵢdᵢᵀ
    q.read       Σ ĝᵀĝ over query heads, ĝ the head's metric W_kᵀW_q at norm 1
    k.read       Σ ĝĝᵀ
    ov.read      Σ PᵀP over query heads, P = W_oW_v
    ov.write     Σ PPᵀ

A neuron's factor is weighted with only where it is free: up against down behind a gate, or behind a relu; with a relu
on the gate, the gate's too; nowhere without a gate behind another activation, where u and d stand unweighted.

Under rotary positions a head has one metric for every distance Δ, g(Δ) = Re Σ_p e^{iθ_pΔ} b̄_p a_pᵀ over its planes p,
with complex rows a of W_q and b of W_k. The mean over all distances of gᵀg is ½ Σ_p ‖b_p‖² Re ā_p a_pᵀ, since the
planes turn at different speeds: no plane's turn or scale is left in it. Dimensions that no position turns meet as they
are. Biases of queries, keys and values are left out.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch

from analyses.numerics import spectra
from analyses.weights.canonical import centred, neuron_rows, qk_gain, read_by_heads
from analyses.weights.checkpoint import Checkpoint

NEURON_GRAMS = {"gate": "gate.read", "up": "up.read", "down": "down.write"}
READS = ("gate.read", "up.read", "q.read", "k.read", "ov.read")
WRITES = ("down.write", "ov.write")
GRAMS = ("gate.read", "up.read", "down.write", "q.read", "k.read", "ov.read", "ov.write")
SCALES = ("qk", "ov", "gate", "up_down")
ACTIVATIONS = ("hidden_act", "activation_function", "hidden_activation", "activation")  # keys of a config

Rows = dict[str, torch.Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerGrams:
    """One branch of one layer."""

    grams: Mapping[str, torch.Tensor]  # name in GRAMS → (hidden, hidden) float64
    scales: Mapping[str, float]  # name in SCALES → Frobenius norm, or ratio of two where a norm takes it off


def unmeasured(checkpoint: Checkpoint) -> dict[str, str]:
    """Names in GRAMS and SCALES that this checkpoint has not → why."""
    has = set(checkpoint.families)

    def missing(*families: str) -> str | None:
        lacking = next((f for f in families if f not in has), None)
        return lacking and f"{lacking}: {checkpoint.absent.get(lacking, 'not measured')}"

    qk, ov = missing("q_proj", "k_proj"), missing("v_proj", "o_proj")
    gate, up_down = missing("gate_proj", "up_proj", "down_proj"), missing("up_proj", "down_proj")
    found = {"q.read": qk, "k.read": qk, "qk": qk, "ov.read": ov, "ov.write": ov, "ov": ov}
    found |= {"gate.read": gate, "gate": gate, "up.read": up_down, "down.write": up_down, "up_down": up_down}
    if gate is None and "gate" in free_factors(checkpoint):
        found["gate"] = "behind a relu a gate's scale is its up row's, and is counted there"
    return {name: why for name, why in found.items() if why}


def branches(checkpoint: Checkpoint) -> dict[str, tuple[str, ...]]:
    """Feed-forward and attention → the names in GRAMS that each has here; a branch without any is left out."""
    absent = unmeasured(checkpoint)
    of = {"feed-forward": tuple(NEURON_GRAMS.values()), "attention": GRAMS[3:]}
    kept = {branch: tuple(name for name in names if name not in absent) for branch, names in of.items()}
    return {branch: names for branch, names in kept.items() if names}


def layer_grams(checkpoint: Checkpoint, branch: str, layer: int, *, device: str) -> LayerGrams:
    """What a branch of a layer reads and writes, and the norms of what it is made of.

    Holds the branch's matrices in float64, those of one expert at a time.

    Parameters
    ----------
    branch : "feed-forward" or "attention", one that `branches` lists.
    """
    if branch == "feed-forward":
        return _neurons(checkpoint, layer, device)
    absent, grams, scales = unmeasured(checkpoint), {}, {}
    if "q.read" not in absent:
        grams["q.read"], grams["k.read"], scales["qk"] = _query_key(checkpoint, layer, device)
    if "ov.read" not in absent:
        grams["ov.read"], grams["ov.write"], scales["ov"] = _value_output(checkpoint, layer, device)
    return LayerGrams(grams=grams, scales=scales)


def is_centred(checkpoint: Checkpoint, name: str) -> bool:
    """Whether this Gram is blind to a constant over channels, which a LayerNorm never lets through."""
    reads_stream = checkpoint.architecture.post_norm and name in ("q.read", "k.read", "ov.read")
    return checkpoint.architecture.layer_norm and not reads_stream


# --- neurons ------------------------------------------------------------------------------------


def free_factors(checkpoint: Checkpoint) -> tuple[str, ...]:
    """Roles of a neuron whose norms a factor can be moved between; () where each has its own scale."""
    relu = "relu" in map(checkpoint.config.get, ACTIVATIONS)
    if checkpoint.architecture.gated:
        return ("gate", "up", "down") if relu else ("up", "down")
    return ("up", "down") if relu else ()


def _neurons(checkpoint: Checkpoint, layer: int, device: str) -> LayerGrams:
    absent, free = unmeasured(checkpoint), free_factors(checkpoint)
    names = {role: name for role, name in NEURON_GRAMS.items() if name not in absent}
    hidden = checkpoint.shape.hidden
    grams = {name: torch.zeros(hidden, hidden, dtype=torch.float64, device=device) for name in names.values()}
    squares = dict.fromkeys(("gate", "up_down", "before the norm"), 0.0)
    for rows, stored in _blocks(checkpoint, tuple(names), layer, device):
        square = {role: r.square().sum(-1) for role, r in rows.items()}  # (neuron,)
        if "gate" in rows:
            squares["gate"] += float(square["gate"].sum())
        weight = square["gate"] if "gate" in free else 1.0
        squares["up_down"] += float((square["up"] * square["down"] * weight).sum())
        squares["before the norm"] += float((square["up"] * stored.square().sum(-1) * weight).sum())
        for role, r in rows.items():
            partners = [square[other] for other in free if other != role] if role in free else []
            for partner in partners:
                r = r * partner.sqrt()[:, None]
            grams[names[role]] += spectra.gram(r.mT)
    up_down = _scale(checkpoint, squares["up_down"], squares["before the norm"])
    scales = {"gate": squares["gate"] ** 0.5, "up_down": up_down}
    return LayerGrams(grams=grams, scales={name: scale for name, scale in scales.items() if name not in absent})


def _blocks(
    checkpoint: Checkpoint, roles: tuple[str, ...], layer: int, device: str
) -> Iterator[tuple[Rows, torch.Tensor]]:
    """Role → (neuron, hidden) rows of all a layer's neurons or of one expert after the other, and down as stored."""
    count = checkpoint.experts("up_proj")
    for expert in range(count) if count else (None,):
        rows = {role: neuron_rows(checkpoint, role, layer, device, expert=expert) for role in roles}
        stored = rows["down"]
        yield rows | {"down": stored * _behind(checkpoint, "ffn_out_ln", layer, device)}, stored


def _behind(checkpoint: Checkpoint, role: str, layer: int, device: str) -> torch.Tensor | float:
    """(hidden,) gain of the norm behind a branch, before what it writes is added to the stream; 1 without one."""
    if checkpoint.architecture.post_norm or role not in checkpoint.places:
        return 1.0
    return checkpoint.weight(role, layer, device=device)


def _scale(checkpoint: Checkpoint, square: float, before: float) -> float:
    """The norm of a product; over that before the branch's norm where there is one, which takes its size off."""
    if checkpoint.architecture.post_norm or "ffn_out_ln" not in checkpoint.places:
        return square**0.5
    return (square / before) ** 0.5 if before else 0.0


# --- heads --------------------------------------------------------------------------------------


def _query_key(checkpoint: Checkpoint, layer: int, device: str) -> tuple[torch.Tensor, torch.Tensor, float]:
    """q.read, k.read and √Σ‖g‖² over query heads, each g at all distances."""
    q, k = (_normalised(checkpoint, family, layer, device) for family in ("q_proj", "k_proj"))
    k = k.repeat_interleave(len(q) // len(k), 0)
    reading, writing = (met(checkpoint, layer, *sides) for sides in ((q, k), (k, q)))  # (head, row, hidden)
    square = reading.square().sum((1, 2))  # ‖g‖² per head
    unit = torch.where(square > 0, 1 / square.where(square > 0, 1.0).sqrt(), 0.0)[:, None, None]
    return _gram(reading * unit), _gram(writing * unit), float(square.sum().sqrt())


def _normalised(checkpoint: Checkpoint, family: str, layer: int, device: str) -> torch.Tensor:
    """(head, head_dim, hidden) of q_proj or k_proj; where a norm follows, at norm 1 times that norm's gain.

    Norm 1 is each head's, or that of all heads together, as the norm has it; a zero head stays zero.
    """
    heads = read_by_heads(checkpoint, family, layer, device)
    if not checkpoint.has_qk_norm:
        return heads
    whole = checkpoint.architecture.qk_norm == "whole projection"
    norm = torch.linalg.vector_norm(heads) if whole else torch.linalg.vector_norm(heads, dim=(1, 2), keepdim=True)
    return heads / norm.where(norm > 0, 1.0) * qk_gain(checkpoint, family, layer, len(heads), device)


def met(checkpoint: Checkpoint, layer: int, rows: torch.Tensor, partners: torch.Tensor) -> torch.Tensor:
    """(head, row, hidden) A with AᵀA the mean over all distances of gᵀg, g = partnersᵀ·rows at distance 0.

    Parameters
    ----------
    rows, partners : (head, head_dim, hidden) float64, all gains folded in.
    """
    turned = checkpoint.rotary_dims(layer)
    if not turned:
        return through(rows, partners)
    planes = lambda heads: _planes(checkpoint, heads[:, :turned])  # noqa: E731
    strength = planes(partners).square().sum((2, 3)) / 2  # (head, plane), ½‖b_p‖²
    weighted = planes(rows) * strength.sqrt()[:, :, None, None]
    still = through(rows[:, turned:], partners[:, turned:]) if turned < rows.shape[1] else rows[:, :0]
    return torch.cat([weighted.flatten(1, 2), still], dim=1)


def _planes(checkpoint: Checkpoint, turned: torch.Tensor) -> torch.Tensor:
    """(head, plane, 2, hidden) of the rotated dimensions (head, dim, hidden)."""
    if checkpoint.architecture.rotary == "pairs":
        return turned.unflatten(1, (-1, 2))
    return turned.unflatten(1, (2, -1)).transpose(1, 2)


def through(rows: torch.Tensor, partners: torch.Tensor) -> torch.Tensor:
    """A with AᵀA = gᵀg for g = partnersᵀ·rows, (head, row, hidden), without forming g.

    partnersᵀ = Q R gives gᵀg = (R·rows)ᵀ(R·rows), exact also for partners of low rank.
    """
    return torch.linalg.qr(partners.mT, mode="r").R @ rows


def _value_output(checkpoint: Checkpoint, layer: int, device: str) -> tuple[torch.Tensor, torch.Tensor, float]:
    """ov.read, ov.write and √Σ‖P‖² over query heads."""
    v = read_by_heads(checkpoint, "v_proj", layer, device)
    o = checkpoint.weight("o_proj", layer, device=device).mT.unflatten(0, (-1, checkpoint.shape.head_dim))
    o = centred(checkpoint, o)
    v = v.repeat_interleave(len(o) // len(v), 0)
    written = o * _behind(checkpoint, "attn_out_ln", layer, device)
    reading, writing = through(v, written), through(written, v)
    square = float(reading.square().sum())
    return _gram(reading), _gram(writing), _scale(checkpoint, square, float(through(v, o).square().sum()))


def _gram(heads: torch.Tensor) -> torch.Tensor:
    """Σ AᵀA over (head, row, hidden)."""
    return spectra.gram(heads.flatten(0, 1).mT)
