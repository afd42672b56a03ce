"""Rotary planes of heads, and inner products of heads over all distances.

Positions turn the planes of a head: with complex rows a_p of W_q and b_p of W_k in plane p, and real rows in the
dimensions that no position turns, the metric that a query and a key at distance Δ meet in is

    g(Δ) = W_kᵀ R_Δ W_q = g_still + Re Σ_p e^{iθ_pΔ} M_p,    M_p = b̄_p a_pᵀ

What maps of queries and keys leave the logits alone leave every M_p alone, and so every g(Δ). Averaged over all
distances, products of different frequencies vanish:

    ⟨⟨g, g'⟩⟩ = mean over Δ of ⟨g(Δ), g'(Δ)⟩ = ⟨g_still, g'_still⟩ + ½ Re Σ_p ⟨a_p, a'_p⟩⟨b'_p, b_p⟩,  ⟨u, v⟩ = Σ ū v

at a cost of head_dim·hidden a pair of heads. Planes that turn alike couple, so that M belongs to a frequency and is a
sum over its planes; what does not turn is one frequency more, with real rows and weight 1 instead of ½. Without rotary
positions that is all, and ⟨⟨g, g'⟩⟩ = ⟨g, g'⟩.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch


class Turns(NamedTuple):
    """How positions turn a head: its first 2·len(frequencies) dimensions, plane by plane."""

    frequencies: tuple[float, ...] = ()  # (plane,) radians a position, before any scaling; from 0, still, to π
    pairs: bool = False  # planes (2i, 2i + 1) instead of halves (i, i + planes)
    scaling: str = ""  # how the frequencies are scaled, in the config's words: equal texts, equal scaling

    def alike(self, other: "Turns") -> bool:
        """Whether another layer turns by the same frequencies, so that all distances compare the two."""
        return (self.frequencies, self.scaling) == (other.frequencies, other.scaling)


STILL = Turns()


class Part(NamedTuple):
    """Rows of a layer's heads at some frequencies; complex128 where they turn, float64 where they stand still."""

    weight: float  # mean of cos² over all distances: ½ for what turns, 1 for what stands still
    keys: torch.Tensor  # (kv_head, frequency, row, hidden)
    queries: torch.Tensor  # (head, frequency, row, hidden)


def parts(keys: torch.Tensor, queries: torch.Tensor, turns: Turns) -> list[Part]:
    """A layer's heads taken apart: what turns, as complex rows, and what stands still.

    Parameters
    ----------
    keys : (kv_head, head_dim, hidden), float64. queries : (head, head_dim, hidden).
    turns : of this layer.
    """
    found = []
    for planes in _frequencies(turns.frequencies):
        found.append(Part(0.5, *(_complex(rows, planes, turns) for rows in (keys, queries))))
    if still := _still(turns, keys.shape[1]):
        found.append(Part(1.0, keys[:, still].unsqueeze(1), queries[:, still].unsqueeze(1)))
    return found


def _still(turns: Turns, head_dim: int) -> list[int]:
    """Dimensions that no position turns: those beyond the planes, and planes of frequency 0."""
    count = len(turns.frequencies)
    planes = [plane for plane, frequency in enumerate(turns.frequencies) if not frequency]
    of_planes = [2 * p + i if turns.pairs else p + i * count for i in range(2) for p in planes]
    return of_planes + list(range(2 * count, head_dim))


def _frequencies(of_planes: Sequence[float]) -> list[list[list[int]]]:
    """Planes by frequency, in lists of frequencies that have equally many planes."""
    planes: dict[float, list[int]] = {}
    for plane, frequency in enumerate(of_planes):
        if frequency:
            planes.setdefault(frequency, []).append(plane)
    by_size: dict[int, list[list[int]]] = {}
    for alike in planes.values():
        by_size.setdefault(len(alike), []).append(alike)
    return list(by_size.values())


def _complex(rows: torch.Tensor, planes: Sequence[Sequence[int]], turns: Turns) -> torch.Tensor:
    """(head, frequency, row, hidden) complex rows of these planes."""
    chosen = torch.tensor(planes, device=rows.device)  # (frequency, row)
    first, second = (2 * chosen, 2 * chosen + 1) if turns.pairs else (chosen, chosen + len(turns.frequencies))
    return torch.complex(rows[:, first], rows[:, second])


def inner_products(a: Sequence[Part], b: Sequence[Part]) -> torch.Tensor:
    """⟨⟨g_h, g_h'⟩⟩ for all heads h of one layer and h' of another that turns alike, (head, head'), float64."""
    return sum(part.weight * _inner(part, other) for part, other in zip(a, b, strict=True))


def _inner(a: Part, b: Part) -> torch.Tensor:
    """Re Σ ⟨a, a'⟩⟨b', b⟩ over frequencies and pairs of their rows."""
    (heads, frequencies, rows, _), kv_heads = a.queries.shape, len(a.keys)
    total = torch.zeros(kv_heads, heads // kv_heads, kv_heads, heads // kv_heads, dtype=torch.float64)
    total = total.to(a.queries.device)
    for f in range(frequencies):
        queries = a.queries[:, f].flatten(0, 1).conj() @ b.queries[:, f].flatten(0, 1).mT
        keys = a.keys[:, f].flatten(0, 1) @ b.keys[:, f].flatten(0, 1).mH  # (kv_head·row, kv_head'·row')
        queries = queries.view(kv_heads, -1, rows, kv_heads, heads // kv_heads, rows)
        keys = keys.view(kv_heads, 1, rows, kv_heads, 1, rows)
        total += (queries * keys).sum((2, 5)).real
    return total.view(heads, heads)


def norms(of: Sequence[Part]) -> torch.Tensor:
    """√⟨⟨g, g⟩⟩, the root mean square of ‖g(Δ)‖_F over all distances, (head,)."""
    total = 0.0
    for part in of:
        queries = part.queries.conj() @ part.queries.mT  # ⟨a_m, a_n⟩, (head, frequency, row, row')
        keys = _repeated(part.keys @ part.keys.mH, part)  # ⟨b_n, b_m⟩
        total = total + part.weight * (queries * keys).sum((1, 2, 3)).real
    return total.clamp_min(0).sqrt()


def swapped_products(of: Sequence[Part]) -> torch.Tensor:
    """⟨⟨g, ĝ⟩⟩ with the head ĝ whose queries are g's keys and whose keys are g's queries, (head,).

    ĝ(Δ) = g(−Δ)ᵀ. With C_mn = ⟨a_m, b_n⟩ over the rows of a frequency it is ½ Re Σ tr C², plane by plane
    ½ Re Σ ⟨a_p, b_p⟩².
    """
    total = 0.0
    for part in of:
        crossed = part.queries.conj() @ _repeated(part.keys, part).mT  # (head, frequency, row, row')
        total = total + part.weight * (crossed * crossed.mT).sum((1, 2, 3)).real
    return total


def symmetry(of: Sequence[Part]) -> torch.Tensor:
    """S = ½(1 + ⟨⟨g, ĝ⟩⟩/⟨⟨g, g⟩⟩) in [0, 1], (head,); NaN for a head whose g is zero.

    1 for a symmetric head, whose queries are its keys or their negative; 0 for an antisymmetric one, whose queries are
    its keys turned by a quarter in every plane; ½ on average where the two are unrelated. Plane by plane it is
    ½(1 + Re Σ e²c²/Σ e²) with e = ‖a‖‖b‖ and c = ⟨a, b⟩/e.
    """
    return (1 + swapped_products(of) / norms(of).square()) / 2


def read_factors(of: Sequence[Part]) -> torch.Tensor:
    """F with FᵀF = mean over Δ of g(Δ)ᵀ g(Δ), what a head reads and how strongly: (head, head_dim, hidden).

    For a plane alone its rows are ‖b‖·Re a/√2 and ‖b‖·Im a/√2.
    """
    rows = []
    for part in of:
        if part.keys.shape[2] == 1:
            lengths = _lengths(part.keys)
            read = part.queries * _repeated(lengths * part.weight**0.5, part)
        else:
            # With keys = Rᴴ Qᴴ, keys·keysᴴ = RᴴR: R carries the keys' lengths and angles over to the queries.
            lengths = torch.linalg.qr(part.keys.mH, mode="r").R
            read = _repeated(lengths * part.weight**0.5, part) @ part.queries
        rows += [read.real, read.imag] if read.is_complex() else [read]
    return torch.cat([found.flatten(1, 2) for found in rows], dim=1)


def _lengths(rows: torch.Tensor) -> torch.Tensor:
    """‖row‖, (..., row, 1); complex rows as real ones of twice as many entries, which is the faster way."""
    real = torch.view_as_real(rows).flatten(-2) if rows.is_complex() else rows
    return torch.linalg.vector_norm(real, dim=-1, keepdim=True)


def swapped(of: Sequence[Part], factors: torch.Tensor) -> list[Part]:
    """Heads whose queries are these heads' keys, and whose keys are the queries of all heads that share them.

    `read_factors` of them gives F with FᵀF = Σ c² · mean over Δ of g(Δ) g(Δ)ᵀ, summed over the heads of a key head with
    c of `factors`, (head,): (kv_head, head_dim, hidden).
    """
    found = []
    for part in of:
        queries = (part.queries * factors[:, None, None, None]).unflatten(0, (len(part.keys), -1))
        queries = queries.permute(0, 2, 3, 1, 4).flatten(3)  # (kv_head, frequency, row, group·hidden)
        found.append(Part(part.weight, queries, part.keys))
    return found


def _repeated(of_keys: torch.Tensor, part: Part) -> torch.Tensor:
    """What belongs to each key head, for the query heads that it serves."""
    return of_keys.repeat_interleave(len(part.queries) // len(part.keys), dim=0)
