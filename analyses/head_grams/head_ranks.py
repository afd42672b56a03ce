"""Ranks of heads beside those that their factors allow, sizes of rotary planes, and symmetry as it was published.

How unevenly a product's spectrum falls says something of the model only beside what its factors give anyway: effective
rank of g̃ = W̃_kᵀW̃_q and of P = W_oW_v over that of the same factors, turned against each other at random. But a map
between the factors changes theirs and not the product's spectrum, so they are first balanced, in the one form that such
maps leave: of each plane that positions turn, ‖a_p‖ = ‖b_p‖; where any map is exact, W_kW_kᵀ = ΣW_qW_qᵀ over the heads
of a group. All of it is made of Gram matrices of side head_dim.

The size of a plane is e_p = ‖a_p‖‖b_p‖, which no map moves; its frequency is θ_p.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import torch
from scipy import stats

from analyses.head_grams.summaries import median_over_layers, medians
from analyses.numerics import spectra
from analyses.numerics.pvalues import power, share_at_least
from analyses.records import Metric, nulls, plain
from analyses.weights.canonical import centred, read_by_heads
from analyses.weights.checkpoint import Checkpoint
from analyses.weights.folded import Folded, folded_readers
from analyses.weights.planes import STILL, Turns

HAAR_SIDE = 256  # of draws times head_dim: from that side on one draw is enough
NOTHING = 1e-12  # of the largest eigenvalue: below that it is rounding
PERMUTATIONS = 199  # of planes; p is then 0.005 at least
ORDERED = 1 << 21  # products of ranks at a time
PLANTS = 40
PLANTED_RHO = 0.7
LEAST_PLANES = 4
NO_PLANES = "no position turns this model's heads, or fewer than four planes of them"
RATIOS = ("qk_rank_ratio", "ov_rank_ratio")
PLANES = ("plane_rho", "plane_p", "plane_power")
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
    "symmetry_misread": "a layer whose product is zero has none, heads have keys of their own, or the hidden size is not that of all heads",
}
"""Key → why it may hold nulls."""


def absent_ranks(found: HeadRanks) -> dict[str, str]:
    """Path in the record → why it holds nulls, for the keys that do."""
    return {f"ranks.{key}": why for key, why in ABSENT.items() if any(True for _ in nulls(plain(getattr(found, key))))}


def balanced(keys: torch.Tensor, queries: torch.Tensor, turns: Turns) -> tuple[torch.Tensor, torch.Tensor]:
    """Gram matrices of balanced factors, (head, head_dim, head_dim) of keys and of queries.

    Parameters
    ----------
    keys : (kv_head, head_dim, hidden). queries : (head, head_dim, hidden). turns : STILL where any map is exact.
    """
    group = len(queries) // len(keys)
    a, b = keys @ keys.mT, queries @ queries.mT
    summed = b.unflatten(0, (len(keys), group)).sum(1)
    map_of = torch.zeros_like(a)
    turned = 2 * len(turns.frequencies)
    if turned:
        rows = _plane_rows(turns, a.device)  # (plane, 2)
        of_keys, of_queries = (x.diagonal(dim1=-2, dim2=-1)[:, rows].sum(-1) for x in (a, summed))  # (kv_head, plane)
        known = (of_keys > 0) & (of_queries > 0)
        factor = torch.where(known, of_keys / of_queries.where(known, 1.0), 1.0) ** 0.25
        for side in range(2):
            map_of[:, rows[:, side], rows[:, side]] = factor
    still = slice(turned, None)
    if a.shape[-1] > turned:
        map_of[:, still, still] = _balancing(a[:, still, still], summed[:, still, still])
    back = torch.linalg.pinv(map_of, hermitian=True)
    a, map_of = (x.repeat_interleave(group, 0) for x in (back @ a @ back, map_of))
    return a, map_of @ b @ map_of


def _plane_rows(turns: Turns, device: torch.device) -> torch.Tensor:
    plane = torch.arange(len(turns.frequencies), device=device)
    first, second = (2 * plane, 2 * plane + 1) if turns.pairs else (plane, plane + len(plane))
    return torch.stack([first, second], 1)


def _balancing(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Symmetric T with T⁻¹AT⁻¹ = TBT: T² is the geometric mean of A and B⁻¹."""
    root, inverse = _power(b, 0.5), _power(b, -0.5)
    return _power(inverse @ _power(root @ a @ root, 0.5) @ inverse, 0.5)


def _power(symmetric: torch.Tensor, exponent: float) -> torch.Tensor:
    values, vectors = torch.linalg.eigh((symmetric + symmetric.mT) / 2)
    known = values > NOTHING * values[..., -1:]
    return (vectors * torch.where(known, values.where(known, 1.0) ** exponent, 0.0).unsqueeze(-2)) @ vectors.mT


def rank_ratio(a: torch.Tensor, b: torch.Tensor, *, seed: int) -> torch.Tensor:
    """(head,) effective rank of a product over that of its factors turned at random, from their Gram matrices.

    NaN for a head whose product is zero.
    """
    root = _power(a, 0.5)
    own = spectra.eigenvalues(root @ b @ root).clamp_min(0)
    of_keys, of_queries = (spectra.eigenvalues(x).clamp_min(0) for x in (a, b))  # (head, mode)
    turns = random_turns(a.shape[-1], seed).to(a.device).unsqueeze(1)
    mixed = of_queries.sqrt().unsqueeze(-1) * turns * of_keys.sqrt().unsqueeze(-2)  # Σ_q O Σ_k, (draw, head, …)
    ranks = spectra.energy_entropy(spectra.eigenvalues(mixed @ mixed.mT)).exp()
    found = spectra.energy_entropy(own).exp() / ranks.mean(0)
    return torch.where(own.sum(-1) > 0, found, torch.nan)


@lru_cache(maxsize=4)
def random_turns(dim: int, seed: int) -> torch.Tensor:
    """(draw, dim, dim) orthogonal matrices, uniform over all such: one from side HAAR_SIDE on, more below."""
    generator = torch.Generator().manual_seed(seed)
    return torch.stack([spectra.haar(dim, dim, generator) for _ in range(max(1, HAAR_SIDE // dim))])


def plane_sizes(heads: Folded) -> torch.Tensor | None:
    """(head, plane) e_p; None where fewer than LEAST_PLANES planes turn."""
    if len(heads.turns.frequencies) < LEAST_PLANES:
        return None
    rows = _plane_rows(heads.turns, heads.keys.device)
    keys, queries = (x.square().sum(-1)[:, rows].sum(-1) for x in (heads.keys, heads.queries))
    return (keys.repeat_interleave(len(queries) // len(keys), 0) * queries).sqrt()


def measure_ranks(checkpoint: Checkpoint, *, seed: int, device: str) -> tuple[HeadRanks, dict[str, Metric]]:
    """Every layer's heads, one layer at a time, and what claims read of them."""
    ratios, of_ratios = rank_ratios(checkpoint, seed=seed, device=device)
    planes, of_planes = plane_order(checkpoint, seed=seed, device=device)
    return HeadRanks(**ratios, **planes, **_published(checkpoint, device)), of_ratios | of_planes


def rank_ratios(
    checkpoint: Checkpoint, *, seed: int, device: str
) -> tuple[dict[str, np.ndarray | None], dict[str, Metric]]:
    """`qk_rank_ratio` and `ov_rank_ratio` of every head, (layer, head), and their medians."""
    qk, ov = [], []
    for layer in range(checkpoint.shape.layers):
        qk.append(rank_ratio(*balanced(*folded_readers(checkpoint, layer, device=device)), seed=seed).cpu().numpy())
        if factors := _values(checkpoint, layer, device):
            ov.append(rank_ratio(*balanced(*factors, STILL), seed=seed).cpu().numpy())
    zero = "every head is zero"
    missing = Metric(value=None, reason="values or output are not measured here", applies=False)
    ratios = {name: np.stack(rows) if rows else None for name, rows in (("qk_rank_ratio", qk), ("ov_rank_ratio", ov))}
    return ratios, {
        name: missing if values is None else median_over_layers(values, reason=zero, seed=seed)
        for name, values in ratios.items()
    }


def plane_order(
    checkpoint: Checkpoint, *, seed: int, device: str
) -> tuple[dict[str, np.ndarray | None], dict[str, Metric]]:
    """`plane_rho`, `plane_share` and `plane_frequency` of every layer's heads, and what claims read of them."""
    sizes, frequencies = [], []
    for layer in range(checkpoint.shape.layers):
        heads = folded_readers(checkpoint, layer, device=device)
        size = plane_sizes(heads)
        sizes.append(None if size is None else size.cpu().numpy())
        frequencies.append(heads.turns.frequencies)
    rho, metrics = plane_metrics(sizes, frequencies, seed=seed)
    shares, theta = planes_of(sizes, frequencies)
    return {"plane_rho": rho, "plane_share": shares, "plane_frequency": theta}, metrics


def _values(checkpoint: Checkpoint, layer: int, device: str) -> tuple[torch.Tensor, torch.Tensor] | None:
    if not {"v_proj", "o_proj"} <= set(checkpoint.families):
        return None
    values = read_by_heads(checkpoint, "v_proj", layer, device)
    output = checkpoint.weight("o_proj", layer, device=device).mT.unflatten(0, (-1, values.shape[1]))
    return values, centred(checkpoint, output)


def planes_of(
    sizes: Sequence[np.ndarray | None], frequencies: Sequence[Sequence[float]]
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """(layer, head, plane) share of each plane in its head, and (layer, plane) frequency; NaN where there is none.

    A share, since under post-norm a head's size is free.
    """
    known = {layer: size for layer, size in enumerate(sizes) if size is not None}
    if not known:
        return None, None
    heads, most = len(next(iter(known.values()))), max(size.shape[1] for size in known.values())
    shares, theta = np.full((len(sizes), heads, most), np.nan), np.full((len(sizes), most), np.nan)
    for layer, size in known.items():
        total = size.sum(1, keepdims=True)
        shares[layer, :, : size.shape[1]] = np.divide(size, total, out=np.full(size.shape, np.nan), where=total > 0)
        theta[layer, : size.shape[1]] = frequencies[layer]
    return shares, theta


def plane_metrics(
    sizes: Sequence[np.ndarray | None], frequencies: Sequence[Sequence[float]], *, seed: int
) -> tuple[np.ndarray | None, dict[str, Metric]]:
    """(layer, head) ρ of e_p with θ_p, and its median, p among orders of the planes, and power.

    All heads' planes are put into the same order in a draw, since heads of a model may share what orders them.
    """
    known = [layer for layer, size in enumerate(sizes) if size is not None]
    if not known:
        return None, dict.fromkeys(PLANES, Metric(value=None, reason=NO_PLANES, applies=False))
    number = max(sizes[layer].shape[1] for layer in known)
    known = [layer for layer in known if sizes[layer].shape[1] == number]
    ranks = _standard(stats.rankdata(np.stack([sizes[layer] for layer in known]), axis=-1))  # (layer, head, plane)
    theta = _standard(stats.rankdata(np.array([frequencies[layer] for layer in known]), axis=-1))  # (layer, plane)
    rho = (ranks * theta[:, None]).sum(-1)
    found = np.full((len(sizes), rho.shape[1]), np.nan)
    found[known] = rho
    median = median_over_layers(found, reason="every head is zero", seed=seed)
    rng = np.random.default_rng(seed)
    orders = np.stack([rng.permutation(number) for _ in range(PERMUTATIONS)])
    turned = theta[:, orders].swapaxes(0, 1)[:, :, None]  # (order, layer, 1, plane)
    step = max(1, ORDERED // ranks.size)

    def p_of(of_heads: np.ndarray) -> float:
        parts = (turned[start : start + step] for start in range(0, PERMUTATIONS, step))
        null = [medians((of_heads * part).sum(-1).reshape(len(part), -1)) for part in parts]
        return share_at_least(-np.concatenate(null), -float(np.median((of_heads * theta[:, None]).sum(-1))))

    def planted(trial: int) -> float:
        draw = np.random.default_rng([seed, 12, trial])
        noise = ranks[..., draw.permutation(number)]
        mixed = -PLANTED_RHO * theta[:, None] + np.sqrt(1 - PLANTED_RHO**2) * noise
        return p_of(_standard(stats.rankdata(mixed, axis=-1)))

    n = {"layers": len(known), "planes": number}
    return found, {
        "plane_rho": Metric(value=median.value, interval=median.interval, n={**median.n, **n}, method=median.method),
        "plane_p": Metric(
            value=p_of(ranks), n=n, method=f"share of {PERMUTATIONS} orders of the planes with as low a median ρ"
        ),
        "plane_power": Metric(
            value=power(planted, PLANTS),
            n=n,
            method=f"share of {PLANTS} planted associations of −{PLANTED_RHO} with reordered planes that are seen",
        ),
    }


def _standard(ranks: np.ndarray) -> np.ndarray:
    """Ranks less their mean, of unit length; zero where all are alike."""
    ranks = ranks - ranks.mean(-1, keepdims=True)
    length = np.linalg.norm(ranks, axis=-1, keepdims=True)
    return np.divide(ranks, length, out=np.zeros_like(ranks), where=length > 0)


# --- as published -------------------------------------------------------------------------------


def _published(checkpoint: Checkpoint, device: str) -> dict[str, float | None]:
    """Symmetry of the sum of a layer's heads, stored, and of what the published slicing makes of grouped keys."""
    shape = checkpoint.shape
    layers = sorted({0, shape.layers // 2, shape.layers - 1})[:SHOWN]
    right, wrong = [], []
    for layer in layers:
        keys = checkpoint.head_blocks("k_proj", layer, device=device)  # (kv_head, head_dim, hidden)
        queries = checkpoint.head_blocks("q_proj", layer, device=device).flatten(0, 1)
        group = len(queries) // keys.shape[1] // len(keys)
        right.append(_symmetry(queries, keys.repeat_interleave(group, 0).flatten(0, 1)))
        if group > 1 and len(queries) == shape.hidden:
            wrong.append(_symmetry(queries, misread(keys, group).flatten(0, 1)))
    return {
        "symmetry_of_sum": float(np.median(right)),
        "symmetry_misread": float(np.median(wrong)) if wrong else None,
    }


def misread(keys: torch.Tensor, group: int) -> torch.Tensor:
    """(head, head_dim, hidden) of (kv_head, head_dim, hidden) keys as the published code spreads them over groups.

    It repeats the whole tensor where each head is to be repeated: query head h meets key head h mod kv_heads.
    """
    return keys.repeat(group, 1, 1)


def _symmetry(queries: torch.Tensor, keys: torch.Tensor) -> float:
    """½(1 + tr M²/‖M‖²) of M = W_qᵀW_k, from products of side (head·head_dim), or of M where the stream is narrower."""
    if len(queries) > queries.shape[1]:
        whole = queries.mT @ keys
        norm = float(whole.square().sum())
        return 0.5 * (1 + float((whole * whole.mT).sum()) / norm) if norm > 0 else float("nan")
    crossed = keys @ queries.mT
    norm = float(((queries @ queries.mT) * (keys @ keys.mT)).sum())
    return 0.5 * (1 + float((crossed * crossed.mT).sum()) / norm) if norm > 0 else float("nan")
