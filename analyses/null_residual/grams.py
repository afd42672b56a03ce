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

Unless exact spectra are asked for, the products are those of float32 rows from hidden NARROW_HIDDEN on: right to 1e-6
of a Gram's norm, at half the time and memory.

Under rotary positions a head has one metric for every distance, and gᵀg and ggᵀ are means over all of them (`planes`).
Biases of queries, keys and values are left out.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch

from analyses.numerics import spectra
from analyses.numerics.blockwise import row_squares
from analyses.weights.canonical import centred, neuron_rows, read_by_heads
from analyses.weights.checkpoint import Checkpoint
from analyses.weights.folded import folded_readers
from analyses.weights.planes import read_factors, swapped

NEURON_GRAMS = {"gate": "gate.read", "up": "up.read", "down": "down.write"}
READS = ("gate.read", "up.read", "q.read", "k.read", "ov.read")
WRITES = ("down.write", "ov.write")
GRAMS = ("gate.read", "up.read", "down.write", "q.read", "k.read", "ov.read", "ov.write")
SCALES = ("qk", "ov", "gate", "up_down")
_QK, _OV, _UP = ("q_proj", "k_proj"), ("v_proj", "o_proj"), ("up_proj", "down_proj")
MADE_OF = dict.fromkeys(("gate.read", "gate"), ("gate_proj", *_UP))
MADE_OF |= dict.fromkeys(("up.read", "down.write", "up_down"), _UP)
MADE_OF |= dict.fromkeys(("q.read", "k.read", "qk"), _QK) | dict.fromkeys(("ov.read", "ov.write", "ov"), _OV)
NARROW_HIDDEN = 512  # hidden dimensions from which on products may be of float32 rows
ACTIVATIONS = ("hidden_act", "activation_function", "hidden_activation", "activation")  # keys of a config

Rows = dict[str, torch.Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerGrams:
    """One branch of one layer."""

    grams: dict[str, torch.Tensor]  # name in GRAMS → (hidden, hidden) float64, or float32 and then up to a factor
    scales: Mapping[str, float]  # name in SCALES → a norm; its ratio to that before a norm that takes it off


def unmeasured(checkpoint: Checkpoint) -> dict[str, str]:
    """Names in GRAMS and SCALES that this checkpoint has not → why."""
    found, here = {}, set(checkpoint.families)
    for name, families in MADE_OF.items():
        if lacking := [family for family in families if family not in here]:
            found[name] = f"{lacking[0]}: {checkpoint.absent[lacking[0]]}"
        elif name in SCALES and checkpoint.architecture.post_norm:
            found[name] = "the stream carries the gain of the norm that made it, whose size is free"
    if "gate" in free_factors(checkpoint):
        found.setdefault("gate", "behind a relu the size of gate rows is free; it is counted with that of up and down")
    return found


def branches(checkpoint: Checkpoint) -> dict[str, tuple[str, ...]]:
    """Feed-forward and attention → the names in GRAMS that each has here; a branch without any is left out."""
    absent = unmeasured(checkpoint)
    of = {"feed-forward": tuple(NEURON_GRAMS.values()), "attention": GRAMS[3:]}
    kept = {branch: tuple(name for name in names if name not in absent) for branch, names in of.items()}
    return {branch: names for branch, names in kept.items() if names}


def branch_scales(names: Iterable[str]) -> tuple[str, ...]:
    """Names in SCALES that belong to the branch of these Grams."""
    neurons = set(names) & set(NEURON_GRAMS.values())
    return ("gate", "up_down") if neurons else ("qk", "ov")


def product_type(checkpoint: Checkpoint, *, exact: bool) -> torch.dtype:
    """The type of the rows whose products make the Grams. Experts' rows are added up, and stay float64."""
    narrow = not exact and checkpoint.shape.hidden >= NARROW_HIDDEN and not checkpoint.shape.experts
    return torch.float32 if narrow else torch.float64


def layer_grams(
    checkpoint: Checkpoint,
    branch: str,
    layer: int,
    *,
    device: str,
    dtype: torch.dtype = torch.float64,
    kinds: Collection[str] = GRAMS,
) -> LayerGrams:
    """What a branch of a layer reads and writes, and the norms of what it is made of.

    Holds the branch's matrices in `dtype`, those of one expert at a time.

    Parameters
    ----------
    branch : "feed-forward" or "attention", one that `branches` lists.
    dtype : of the rows that are multiplied, see `product_type`.
    kinds : of Grams that are wanted.
    """
    absent = unmeasured(checkpoint)
    wanted = [name for name in kinds if name not in absent]
    with spectra.full_float32():
        if branch == "feed-forward":
            roles = [role for role, name in NEURON_GRAMS.items() if name not in absent]
            grams, scales = _neurons(checkpoint, layer, roles, wanted, device, dtype)
        else:
            grams, scales = {}, {}
            if "q.read" not in absent:
                scales["qk"] = _query_key(checkpoint, layer, grams, wanted, device, dtype)
            if "ov.read" not in absent:
                scales["ov"] = _value_output(checkpoint, layer, grams, wanted, device, dtype)
    return LayerGrams(grams=grams, scales={name: scale for name, scale in scales.items() if name not in absent})


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


def _neurons(
    checkpoint: Checkpoint, layer: int, roles: Sequence[str], wanted: Sequence[str], device: str, dtype: torch.dtype
) -> tuple[Rows, dict[str, float]]:
    """Their Grams that are wanted, and the scales of gate, and of up and down together."""
    free = free_factors(checkpoint)
    names = {role: NEURON_GRAMS[role] for role in roles if NEURON_GRAMS[role] in wanted}
    grams: Rows = {}
    squares = dict.fromkeys(("gate", "up_down", "before the norm"), 0.0)
    for rows, square, stored in _blocks(checkpoint, roles, layer, device, dtype):
        if "gate" in roles:
            squares["gate"] += float(square["gate"].sum())
        weight = square["gate"] if "gate" in free else 1.0
        squares["up_down"] += float((square["up"] * square["down"] * weight).sum())
        squares["before the norm"] += float((square["up"] * stored * weight).sum())
        for role in names:
            factors = torch.ones_like(square[role])
            for other in free if role in free else ():
                if other != role:
                    factors = factors * square[other]
            made = spectra.gram(_weighted(rows(role), square[role], factors, dtype).mT)
            grams[names[role]] = grams[names[role]].add_(made) if names[role] in grams else made
            del made
    up_down = _scale(checkpoint, squares["up_down"], squares["before the norm"])
    return grams, {"gate": squares["gate"] ** 0.5, "up_down": up_down}


def _blocks(
    checkpoint: Checkpoint, roles: Sequence[str], layer: int, device: str, dtype: torch.dtype
) -> Iterator[tuple[Callable[[str], torch.Tensor], Rows, torch.Tensor]]:
    """Of all a layer's neurons or of one expert after the other: what gives the (neuron, hidden) rows of a role, once,
    in `dtype`; role → (neuron,) their squares, float64; and the squares of down as stored.

    Rows in float64 are held, others read again: that is the smaller part of what their products take.
    """
    count = checkpoint.experts("up_proj")
    for expert in range(count) if count else (None,):
        rows, square, stored = {}, {}, {}

        def read(role: str, expert: int | None = expert) -> torch.Tensor:
            return neuron_rows(checkpoint, role, layer, device, expert=expert, dtype=dtype)

        def written(role: str, found: torch.Tensor) -> torch.Tensor:
            behind = _behind(checkpoint, "ffn_out_ln", layer, device) if role == "down" else 1.0
            return found * behind.to(dtype) if torch.is_tensor(behind) else found

        for role in roles:
            found = read(role)
            stored[role] = row_squares(found)
            rows[role] = written(role, found)
            square[role] = stored[role] if rows[role] is found else row_squares(rows[role])
            del found
            if dtype != torch.float64:
                del rows[role]
        again = lambda role, read=read, written=written: written(role, read(role))  # noqa: E731
        yield rows.pop if rows else again, square, stored["down"]


def _weighted(rows: torch.Tensor, squares: torch.Tensor, factors: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Rows times √factors, (row,); in float32 at a size that their products bear, whatever that of the weights is.

    squares : ‖row‖², (row,).
    """
    weights = factors.sqrt() / (1.0 if dtype == torch.float64 else _size((squares * factors).sum()))
    return rows * weights.to(dtype)[:, None]


def _size(square: torch.Tensor) -> torch.Tensor:
    """A power of two of the size of rows that have this sum of squares."""
    return spectra.binary_size(square.sqrt().view(1, 1))


def _behind(checkpoint: Checkpoint, role: str, layer: int, device: str) -> torch.Tensor | float:
    """(hidden,) gain of the norm behind a branch, before what it writes is added to the stream; 1 without one."""
    if checkpoint.architecture.post_norm or not checkpoint.has(role, layer):
        return 1.0
    return checkpoint.weight(role, layer, device=device)


def _scale(checkpoint: Checkpoint, square: float, before: float) -> float:
    """The norm of a product; over that before the branch's norm where there is one, which takes its size off."""
    if checkpoint.architecture.post_norm or "ffn_out_ln" not in checkpoint.places:
        return square**0.5
    return (square / before) ** 0.5 if before else 0.0


# --- heads --------------------------------------------------------------------------------------


def _query_key(
    checkpoint: Checkpoint, layer: int, grams: Rows, wanted: Sequence[str], device: str, dtype: torch.dtype
) -> float:
    """The root mean square of ‖g‖ over query heads, each g at all distances; q.read and k.read are put into `grams`."""
    parts = folded_readers(checkpoint, layer, device=device).parts()
    reading = read_factors(parts)  # (head, head_dim, hidden)
    square = reading.square().sum((1, 2))  # ‖g‖² per head
    unit = torch.where(square > 0, 1 / square.where(square > 0, 1.0).sqrt(), 0.0)  # (head,)
    if "q.read" in wanted:
        grams["q.read"] = _gram(reading.mul_(unit[:, None, None]).to(dtype))
    del reading
    if "k.read" in wanted:
        grams["k.read"] = _gram(read_factors(swapped(parts, unit)).to(dtype))
    return float(square.mean().sqrt())


def _value_output(
    checkpoint: Checkpoint, layer: int, grams: Rows, wanted: Sequence[str], device: str, dtype: torch.dtype
) -> float:
    """The root mean square of ‖P‖ over query heads; ov.read and ov.write are put into `grams`."""
    values = read_by_heads(checkpoint, "v_proj", layer, device)  # (kv_head, dim, hidden)
    output = checkpoint.weight("o_proj", layer, device=device).mT.unflatten(0, (-1, checkpoint.shape.value_dim))
    output = centred(checkpoint, output)  # (head, dim, hidden)
    behind = _behind(checkpoint, "attn_out_ln", layer, device)
    written = output * behind if torch.is_tensor(behind) else output
    reading, heads = through(values, written), len(output)  # of all the heads that share a value head
    square = reading.square().sum()
    before = square if written is output else through(values, output).square().sum()
    del output
    size = 1.0 if dtype == torch.float64 else _size(square)  # products of float32 rows are of rows of size 1
    if "ov.read" in wanted:
        grams["ov.read"] = _gram((reading / size).to(dtype))
    del reading
    if "ov.write" in wanted:
        grams["ov.write"] = _gram((through(written, values) / size).to(dtype))
    return _scale(checkpoint, float(square) / heads, float(before) / heads)


def through(rows: torch.Tensor, partners: torch.Tensor) -> torch.Tensor:
    """A with AᵀA = Σ gᵀg for g = partnerᵀ·rows, (head, row, hidden), without forming g.

    partnerᵀ = Q R gives gᵀg = (R·rows)ᵀ(R·rows), exact also for partners of low rank. Of fewer partners than heads each
    serves as many heads in a row; of more, as many in a row are one head's, and the sum is over these.
    """
    if len(partners) > len(rows):
        partners = partners.unflatten(0, (len(rows), -1)).transpose(1, 2).flatten(2)  # (head, row, partner·hidden)
    factors = torch.linalg.qr(partners.mT, mode="r").R
    return factors.repeat_interleave(len(rows) // len(factors), 0) @ rows


def _gram(heads: torch.Tensor) -> torch.Tensor:
    """Σ AᵀA over (head, row, hidden)."""
    return spectra.gram(heads.flatten(0, 1).mT)
