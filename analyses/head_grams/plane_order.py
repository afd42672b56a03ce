"""Sizes of the planes that rotary positions turn, and whether they follow the planes' frequencies.

The size of a plane of a head is e_p = ‖a_p‖‖b_p‖, of its rows of keys and of queries, which no map moves; its frequency
is θ_p.
"""

from collections.abc import Sequence

import numpy as np
import torch
from scipy import stats

from analyses.head_grams.summaries import median_over_layers, medians
from analyses.numerics.pvalues import power, share_at_least
from analyses.records import Metric
from analyses.weights.folded import Folded
from analyses.weights.planes import Turns

PERMUTATIONS = 199  # of planes; p is then 0.005 at least
PLANTS = 40
PLANTED_RHO = 0.7
LEAST_PLANES = 4
NO_PLANES = "no position turns this model's heads, or fewer than four planes of them"
PLANES = ("plane_rho", "plane_p", "plane_power")


def plane_rows(turns: Turns, device: torch.device) -> torch.Tensor:
    """(plane, 2) rows of a head that each plane turns."""
    plane = torch.arange(len(turns.frequencies), device=device)
    first, second = (2 * plane, 2 * plane + 1) if turns.pairs else (plane, plane + len(plane))
    return torch.stack([first, second], 1)


def plane_sizes(heads: Folded) -> torch.Tensor | None:
    """(head, plane) e_p; None where fewer than LEAST_PLANES planes turn."""
    if len(heads.turns.frequencies) < LEAST_PLANES:
        return None
    rows = plane_rows(heads.turns, heads.keys.device)
    keys, queries = (x.square().sum(-1)[:, rows].sum(-1) for x in (heads.keys, heads.queries))
    return (keys.repeat_interleave(len(queries) // len(keys), 0) * queries).sqrt()


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
    turned = theta[:, orders].mT  # (layer, plane, order)

    def p_of(of_heads: np.ndarray) -> float:
        null = np.moveaxis(of_heads @ turned, 2, 0)  # (order, layer, head)
        observed = float(np.median((of_heads * theta[:, None]).sum(-1)))
        return share_at_least(-medians(null.reshape(PERMUTATIONS, -1)), -observed)

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
