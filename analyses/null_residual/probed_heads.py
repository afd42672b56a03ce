"""Cosines of heads' maps estimated from what the maps make of some directions.

The inner product of two maps g = leftᵀ·right is ⟨g, g'⟩ = tr gᵀg', for which products of all heads with all heads are
needed: 8((Hd)² + (Kd)²)D operations a pair of layers. For directions U with U Uᵀ the identity on average, ⟨gU, g'U⟩ is
right on average too, at 8HdD operations a direction. U is PROBES orthonormal directions, Haar-random and the same for
all heads and layers, so that a rotation of the stream changes a cosine by no more than its error; norms are exact.

The error of a mean over matched heads is that of a sum over directions, each with its mean over heads: √p times their
standard deviation, and less by √(1 − p/D), since no direction comes twice.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment

from analyses.numerics.spectra import haar
from analyses.weights.canonical import HeadFactors

PROBES = 128  # a mean cosine of unrelated heads is then right to about 0.001 at hidden 1,024 and 16 heads


class Probed(NamedTuple):
    """What one layer's heads make of the directions, each map at norm 1."""

    images: torch.Tensor  # (head, probe, hidden), the rows (g·U)ᵀ
    alive: torch.Tensor  # (head,) whether the map is not zero


def draw_probes(hidden: int, seed: int, *, device: str) -> torch.Tensor:
    """(hidden, probe) directions U at right angles, of length √(hidden/probe), float32."""
    count = min(PROBES, hidden)
    generator = torch.Generator().manual_seed(int(np.random.SeedSequence((seed, hidden, count)).generate_state(1)[0]))
    return (haar(hidden, count, generator) * math.sqrt(hidden / count)).float().to(device)


def probed(factors: HeadFactors, sizes: Sequence[torch.Tensor], probes: torch.Tensor) -> Iterator[Probed]:
    """Of one layer: its maps W_kᵀW_q and W_oW_v, from ((W_k, W_q), (W_v, W_oᵀ)), see `head_factors`.

    sizes : of each of the two, `product_norms`.
    """
    return (_probed(left, right, size, probes) for (left, right), size in zip(factors, sizes, strict=True))


def _probed(left: torch.Tensor, right: torch.Tensor, size: torch.Tensor, probes: torch.Tensor) -> Probed:
    inner = (right @ probes.to(right.dtype)).mT / size.where(size > 0, 1.0).to(right.dtype)[:, None, None]
    groups = inner.unflatten(0, (len(left), -1))  # (kv_head, group, probe, head_dim)
    return Probed((groups @ left[:, None]).flatten(0, 1), size > 0)


def score_probed(
    a: Iterable[Probed], b: Iterable[Probed]
) -> tuple[dict[str, float | None], dict[str, float | None]]:
    """Mean cosine of matched heads' maps in two layers, each map matched on the other, and its standard error.

    Parameters
    ----------
    a, b : (qk, vo) of two layers, made with the same directions; one map of each is held at a time.
    """
    products, alive, hidden = [], [], 1
    others = iter(b)
    for one in a:
        other = next(others)
        hidden = one.images.shape[-1]
        products.append(one.images.transpose(0, 1) @ other.images.permute(1, 2, 0))  # (probe, head, head')
        alive.append((one.alive, other.alive))
        del other  # or two maps would be held while the next is made
    rows, columns = ((qk & vo).cpu() for qk, vo in zip(*alive, strict=True))
    products = [of.cpu().double()[:, rows][:, :, columns] for of in products]
    cosines = [of.sum(0) for of in products]  # (head, head')
    means: dict[str, float | None] = {}
    errors: dict[str, float | None] = {}
    for role, on, of in zip(("qk", "vo"), reversed(cosines), products, strict=True):
        if not on.numel():
            means[role] = errors[role] = None
            continue
        left, right = assigned(on)
        by_probe = of[:, left, right].mean(1)  # (probe,)
        count = len(by_probe)
        means[role] = max(-1.0, min(1.0, float(by_probe.sum())))
        errors[role] = math.sqrt(count * (1 - count / hidden)) * float(by_probe.std()) if count > 1 else None
    return means, errors


def assigned(cosines: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of the best matching, the one with the largest sum of cosines."""
    cost = cosines.cpu().double().numpy()  # the solver's own type: it copies any other, and also to maximise
    cost = np.negative(cost, out=cost if cosines.dtype != torch.float64 else None)
    return linear_sum_assignment(cost)


def held_out(matched_on: torch.Tensor, scored: torch.Tensor) -> np.ndarray | None:
    """Cosines of units matched on another matrix; None where there are none."""
    if not matched_on.numel():
        return None
    rows, columns = assigned(matched_on)
    return scored.cpu().numpy()[rows, columns]


def product_norms(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """‖leftᵀ·right‖_F per query head, (head,)."""
    gram_left = (left @ left.mT).repeat_interleave(right.shape[0] // left.shape[0], dim=0)  # (head, dim, dim)
    return (gram_left * (right @ right.mT)).sum((-2, -1), dtype=torch.float64).clamp_min(0).sqrt()
