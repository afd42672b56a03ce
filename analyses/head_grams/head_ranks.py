"""Ranks of heads beside those that their factors allow, and symmetry as it was published.

How unevenly a product's spectrum falls says something of the model only beside what its factors give anyway: effective
rank of g̃ = W̃_kᵀW̃_q and of P = W_oW_v over that of the same factors, turned against each other at random. But a map
between the factors changes theirs and not the product's spectrum, so they are first balanced, in the one form that such
maps leave: of each plane that positions turn, ‖a_p‖ = ‖b_p‖; where any map is exact, W_kW_kᵀ = ΣW_qW_qᵀ over the heads
of a group. All of it is made of Gram matrices of side head_dim.
"""

import itertools
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import torch

from analyses.head_grams.plane_order import NO_PLANES, PLANES, plane_metrics, plane_rows, plane_sizes, planes_of
from analyses.head_grams.summaries import median_over_layers
from analyses.numerics import spectra
from analyses.records import Metric, nulls, plain
from analyses.weights.canonical import centred, read_by_heads
from analyses.weights.checkpoint import Checkpoint
from analyses.weights.folded import Folded, folded_readers
from analyses.weights.planes import STILL, Turns
from analyses.weights.positions import turns as turns_of

LOT_BYTES = 2 << 20  # of queries and keys taken at once: of small heads a call costs as much as its arithmetic
HAAR_SIDE = 256  # of draws times head_dim: from that side on one draw is enough
NOTHING = 1e-12  # of the largest eigenvalue: below that it is rounding
RATIOS = ("qk_rank_ratio", "ov_rank_ratio")
SHOWN = 3  # layers whose symmetry is also computed as published


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadRanks:
    """Axes: layer, head. Null where a head is zero, or the model has no such thing."""

    qk_rank_ratio: np.ndarray | None  # effective rank of g̃ over its factors', turned at random
    ov_rank_ratio: np.ndarray | None  # of P
    plane_rho: np.ndarray | None  # Spearman's ρ over planes of e_p with θ_p; null for a layer without planes
    symmetry_of_sum: float | None  # median over SHOWN layers, of the sum of a layer's heads, as published
    symmetry_misread: float | None  # the same with grouped keys sliced as the published code does
    # These two are written only where there are any, so that earlier records are read too.
    plane_share: np.ndarray | None = field(  # (layer, head, plane), e_p/Σe, in [0, 1]; null beyond a layer's planes
        default=None, metadata={"written": "if not empty"}
    )
    plane_frequency: np.ndarray | None = field(  # (layer, plane), θ_p in radians a position, before any scaling
        default=None, metadata={"written": "if not empty"}
    )


ABSENT = {
    "qk_rank_ratio": "a head whose product is zero has no rank",
    "ov_rank_ratio": "a head whose product is zero has no rank, or values and output are not measured here",
    "plane_rho": NO_PLANES,
    "plane_share": f"{NO_PLANES}, or fewer than another layer has, or the head is zero",
    "plane_frequency": f"{NO_PLANES}, or fewer than another layer has",
    "symmetry_of_sum": "a layer whose product is zero has no symmetry",
    "symmetry_misread": "a layer whose product is zero has none, heads have keys of their own, or the hidden size is "
    "not that of all heads",
}
"""Key → why it may hold nulls."""


def absent_ranks(found: HeadRanks) -> dict[str, str]:
    """Path in the record → why it holds nulls, for the keys that do."""
    return {f"ranks.{key}": why for key, why in ABSENT.items() if any(True for _ in nulls(plain(getattr(found, key))))}


def balanced(keys: torch.Tensor, queries: torch.Tensor, turns: Turns) -> tuple[torch.Tensor, torch.Tensor]:
    """Gram matrices of balanced factors, (kv_head or head, head_dim, head_dim) of keys and of queries.

    Parameters
    ----------
    keys : (kv_head, head_dim, hidden). queries : (head, head_dim, hidden). turns : STILL where any map is exact.
    """
    group = len(queries) // len(keys)
    a, b = spectra.gram(keys), spectra.gram(queries)
    summed = b.unflatten(0, (len(keys), group)).sum(1)
    there, back = torch.zeros_like(a), torch.zeros_like(a)  # the map of queries, and its inverse, that of keys
    turned = 2 * len(turns.frequencies)
    if turned:
        rows = plane_rows(turns, a.device)  # (plane, 2)
        of_keys, of_queries = (x.diagonal(dim1=-2, dim2=-1)[:, rows].sum(-1) for x in (a, summed))  # (kv_head, plane)
        known = (of_keys > 0) & (of_queries > 0)
        factor = torch.where(known, of_keys / of_queries.where(known, 1.0), 1.0) ** 0.25
        for side in range(2):
            there[:, rows[:, side], rows[:, side]], back[:, rows[:, side], rows[:, side]] = factor, 1 / factor
    still = slice(turned, None)
    if a.shape[-1] > turned:
        maps = _balancing(a[:, still, still], summed[:, still, still])
        there[:, still, still], back[:, still, still] = maps
    there = there.repeat_interleave(group, 0)
    return back @ a @ back, there @ b @ there


def _balancing(a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Symmetric T with T⁻¹AT⁻¹ = TBT, and T⁻¹: T² is the geometric mean of A and B⁻¹."""
    root, inverse = _powers(b, 0.5, -0.5)
    (middle,) = _powers(root @ a @ root, 0.5)
    there, back = _powers(inverse @ middle @ inverse, 0.5, -0.5)
    return there, back


def _powers(symmetric: torch.Tensor, *exponents: float) -> list[torch.Tensor]:
    values, vectors = torch.linalg.eigh((symmetric + symmetric.mT) / 2)
    return [(vectors * _power(values, exponent).unsqueeze(-2)) @ vectors.mT for exponent in exponents]


def _power(values: torch.Tensor, exponent: float) -> torch.Tensor:
    """Of (…, mode) ascending eigenvalues; 0 where one is rounding."""
    known = values > NOTHING * values[..., -1:]
    return torch.where(known, values.where(known, 1.0) ** exponent, 0.0)


def rank_ratio(a: torch.Tensor, b: torch.Tensor, *, seed: int) -> torch.Tensor:
    """(head,) effective rank of a product over that of its factors turned at random, from their Gram matrices.

    Parameters
    ----------
    a : (kv_head, head_dim, head_dim), each shared by the consecutive heads of a group. b : (head, head_dim, head_dim).

    NaN for a head whose product is zero.
    """
    group = len(b) // len(a)
    values, vectors = torch.linalg.eigh((a + a.mT) / 2)
    half = (vectors * _power(values, 0.5).unsqueeze(-2)).repeat_interleave(group, 0)  # A is this and its transpose
    own = spectra.eigenvalues(half.mT @ b @ half).clamp_min(0)
    of_keys = values.clamp_min(0).repeat_interleave(group, 0)  # (head, mode)
    of_queries = spectra.eigenvalues(b).clamp_min(0)
    turns = random_turns(a.shape[-1], seed).to(a.device).unsqueeze(1)
    mixed = of_queries.sqrt().unsqueeze(-1) * turns * of_keys.sqrt().unsqueeze(-2)  # Σ_q O Σ_k, (draw, head, …)
    ranks = spectra.energy_entropy(spectra.eigenvalues(spectra.gram(mixed))).exp()
    found = spectra.energy_entropy(own).exp() / ranks.mean(0)
    return torch.where(own.sum(-1) > 0, found, torch.nan)


@lru_cache(maxsize=4)
def random_turns(dim: int, seed: int) -> torch.Tensor:
    """(draw, dim, dim) orthogonal matrices, uniform over all such: one from side HAAR_SIDE on, more below."""
    generator = torch.Generator().manual_seed(seed)
    return torch.stack([spectra.haar(dim, dim, generator) for _ in range(max(1, HAAR_SIDE // dim))])


def measure_ranks(checkpoint: Checkpoint, *, seed: int, device: str) -> tuple[HeadRanks, dict[str, Metric]]:
    """Every layer's heads, some layers at a time, and what claims read of them."""
    found, metrics = ranks_asked(checkpoint, (*RATIOS, *PLANES), seed=seed, device=device)
    return HeadRanks(**found, **_published(checkpoint, device)), metrics


def ranks_asked(
    checkpoint: Checkpoint, asked: Collection[str], *, seed: int, device: str
) -> tuple[dict[str, np.ndarray | None], dict[str, Metric]]:
    """The metrics of RATIOS, of PLANES, or of both, and the arrays of `HeadRanks` that they are made of.

    asked : some names of metrics; one of RATIOS or of PLANES asks for all of these.
    """
    of_ratios, of_planes = (not set(names).isdisjoint(asked) for names in (RATIOS, PLANES))
    ratios: dict[str, list[np.ndarray]] = {name: [] for name in RATIOS}
    sizes: list[np.ndarray | None] = []
    frequencies: list[Sequence[float]] = []
    for layers, heads in _lots(checkpoint, device):
        if of_ratios:
            found = {"qk_rank_ratio": rank_ratio(*balanced(*heads), seed=seed)}
            if factors := _values(checkpoint, layers, device):
                found["ov_rank_ratio"] = rank_ratio(*balanced(*factors, STILL), seed=seed)
            for name, values in found.items():
                ratios[name].extend(values.unflatten(0, (len(layers), -1)).cpu().numpy())
        if of_planes:
            size = plane_sizes(heads)
            sizes.extend([None] * len(layers) if size is None else size.unflatten(0, (len(layers), -1)).cpu().numpy())
            frequencies += [heads.turns.frequencies] * len(layers)
    arrays, metrics = ratio_metrics(ratios, seed=seed) if of_ratios else ({}, {})
    if of_planes:
        rho, of_rho = plane_metrics(sizes, frequencies, seed=seed)
        shares, theta = planes_of(sizes, frequencies)
        arrays |= {"plane_rho": rho, "plane_share": shares, "plane_frequency": theta}
        metrics |= of_rho
    return arrays, metrics


def _lots(checkpoint: Checkpoint, device: str) -> Iterator[tuple[Sequence[int], Folded]]:
    """Neighbouring layers that turn alike, up to LOT_BYTES of them, and their folded heads, layer after layer."""
    shape = checkpoint.shape
    of_layer = 8 * shape.hidden * shape.head_dim * (shape.heads + shape.kv_heads)
    most = max(1, LOT_BYTES // of_layer)
    for turns, run in itertools.groupby(range(shape.layers), key=lambda layer: turns_of(checkpoint, layer)):
        alike = list(run)
        for layers in (alike[start : start + most] for start in range(0, len(alike), most)):
            read = [folded_readers(checkpoint, layer, device=device) for layer in layers]
            yield layers, Folded(_joined([heads.keys for heads in read]), _joined([h.queries for h in read]), turns)


def _joined(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _values(checkpoint: Checkpoint, layers: Sequence[int], device: str) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Values and outputs of these layers' heads, layer after layer, as they read and write the stream."""
    if not {"v_proj", "o_proj"} <= set(checkpoint.families):
        return None
    values = [read_by_heads(checkpoint, "v_proj", layer, device) for layer in layers]
    outputs = [checkpoint.weight("o_proj", layer, device=device).mT for layer in layers]
    output = _joined([rows.unflatten(0, (-1, values[0].shape[1])) for rows in outputs])
    return _joined(values), centred(checkpoint, output)


def ratio_metrics(
    ratios: Mapping[str, Sequence[np.ndarray]], *, seed: int
) -> tuple[dict[str, np.ndarray | None], dict[str, Metric]]:
    """Name → (layer, head) ratios, and their medians; from (layer,) of (head,) rows, none where there is nothing."""
    missing = Metric(value=None, reason="values or output are not measured here", applies=False)
    found = {name: np.stack(rows) if rows else None for name, rows in ratios.items()}
    return found, {
        name: missing if values is None else median_over_layers(values, reason="every head is zero", seed=seed)
        for name, values in found.items()
    }


# --- as published -------------------------------------------------------------------------------


def _published(checkpoint: Checkpoint, device: str) -> dict[str, float | None]:
    """Symmetry of the sum of a layer's heads, stored, and of what the published slicing makes of grouped keys."""
    shape = checkpoint.shape
    layers = sorted({0, shape.layers // 2, shape.layers - 1})[:SHOWN]
    right, wrong = [], []
    for layer in layers:
        keys = checkpoint.head_blocks("k_proj", layer, device=device)  # (kv_head, head_dim, hidden)
        queries = checkpoint.head_blocks("q_proj", layer, device=device)
        group = len(queries) // len(keys)
        # Heads of a group meet the same keys, so that their queries may be summed first.
        summed = queries.unflatten(0, (len(keys), group)).sum(1)
        right.append(_symmetry(summed.flatten(0, 1), keys.flatten(0, 1)))
        if group > 1 and queries.shape[:2].numel() == shape.hidden:
            wrong.append(_symmetry(misread(queries, len(keys)).flatten(0, 1), keys.flatten(0, 1)))
    return {
        "symmetry_of_sum": float(np.median(right)),
        "symmetry_misread": float(np.median(wrong)) if wrong else None,
    }


def misread(queries: torch.Tensor, kv_heads: int) -> torch.Tensor:
    """(head, head_dim, hidden) queries, summed over those that meet one key head in the published code.

    It repeats all keys where each head is to be repeated: query head h meets key head h mod kv_heads.
    """
    return queries.unflatten(0, (-1, kv_heads)).sum(0)


def _symmetry(queries: torch.Tensor, keys: torch.Tensor) -> float:
    """½(1 + tr M²/‖M‖²) of M = W_qᵀW_k, from M, or where they are less work from three products of all rows."""
    if 3 * len(queries) > queries.shape[1]:
        whole = queries.mT @ keys
        norm = float(whole.square().sum())
        return 0.5 * (1 + float((whole * whole.mT).sum()) / norm) if norm > 0 else float("nan")
    crossed = keys @ queries.mT
    norm = float(((queries @ queries.mT) * (keys @ keys.mT)).sum())
    return 0.5 * (1 + float((crossed * crossed.mT).sum()) / norm) if norm > 0 else float("nan")
