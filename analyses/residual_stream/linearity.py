"""How much of what a layer writes is a linear function of its states, on prompts that the map has not seen.

δ ≈ c + W h is fitted by least squares on four folds of whole prompts and tested on the fifth, in turn; R² is the share
of δ's energy about the training mean that it explains. The states are seen in their leading k = min(hidden, n/8)
directions, so that there are tokens enough for every regressor; what lies outside counts as unexplained.

The published form scores h_{ℓ+1} against h_ℓ, on the tokens it was fitted to. Since h_{ℓ+1} = h_ℓ + δ, the identity
alone scores nearly as much: its own score stands beside it.

Sums are taken apart by kind of token (ordinary, first of its prompt, massive), and added: a massive token's square is a
million times an ordinary one's, and taking it off a total again would leave rounding.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from analyses.numerics.spectra import gram, leading_modes
from analyses.residual_stream.ways import WAYS, by_mask, masks

TOKENS_PER_DIRECTION = 8
NOTHING = 1e-11  # of the largest energy of a direction: below that it is rounding
SOUND = 1e7  # condition below which no direction is near NOTHING, and an inverse is right to 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Linearity:
    """Of one layer; R² are at most 1, and negative where the mean would do better."""

    held_out: torch.Tensor  # (1 + fold,) R² of δ on unseen prompts, of all folds and with one left out; NaN: undefined
    # Of all tokens only, NaN otherwise:
    permuted: float  # the same of all folds, with the rows of δ in another order: what no relation gives
    published: float  # in-sample R² of h_{ℓ+1} from h_ℓ
    identity: float  # of h_{ℓ+1} from a multiple of h_ℓ


NONE = Linearity(held_out=torch.full((1,), torch.nan), permuted=torch.nan, published=torch.nan, identity=torch.nan)


@dataclass(frozen=True, slots=True)
class Sums:
    """Sums over some tokens of each fold, about fixed origins."""

    count: torch.Tensor  # (fold,)
    x: torch.Tensor  # (fold, k)
    y: torch.Tensor  # (fold, hidden)
    xx: torch.Tensor  # (fold, k, k)
    xy: torch.Tensor  # (fold, k, hidden)
    yy: torch.Tensor  # (fold,)

    def __add__(self, other: "Sums") -> "Sums":
        return Sums(*(a + b for a, b in zip(_parts(self), _parts(other), strict=True)))

    def at(self, fold: int) -> "Sums":
        return Sums(*(part[fold] for part in _parts(self)))

    def but(self, fold: int) -> "Sums":
        """Of all folds but one: the others added up, since a massive token's would leave rounding when taken off."""
        others = 1.0 - torch.nn.functional.one_hot(torch.tensor(fold), len(self.count)).to(self.x)
        return Sums(*(torch.tensordot(others, part, 1) for part in _parts(self)))


def _parts(sums: Sums) -> tuple[torch.Tensor, ...]:
    return sums.count, sums.x, sums.y, sums.xx, sums.xy, sums.yy


def _sums(x: torch.Tensor, y: torch.Tensor, counts: Sequence[int]) -> Sums:
    """Of (token, k) and (token, hidden) rows, the first `counts[0]` of which are the first fold's."""
    xs, ys = x.split(list(counts)), y.split(list(counts))
    return Sums(
        torch.tensor([float(count) for count in counts], dtype=x.dtype, device=x.device),
        torch.stack([a.sum(0) for a in xs]),
        torch.stack([b.sum(0) for b in ys]),
        torch.stack([gram(a.mT) for a in xs]),
        torch.stack([a.mT @ b for a, b in zip(xs, ys, strict=True)]),
        torch.stack([b.square().sum() for b in ys]),
    )


def linearity(
    h: torch.Tensor,
    delta: torch.Tensor,
    *,
    first: torch.Tensor,
    large: torch.Tensor,
    folds: Sequence[slice],
    permuted: bool,
    ways: Sequence[str] = WAYS,
    published: bool = True,
) -> dict[str, Linearity]:
    """Linearity of one layer in every way that is asked for.

    Parameters
    ----------
    h, delta : (token, hidden) float64, states and writes.
    first, large : (token,) bool, the first of each prompt, and those that are massive before or behind the layer.
    folds : runs of whole prompts; together all tokens.
    permuted : whether to score the permuted rows too, which takes half the time again.
    published : whether to score the published forms.
    """
    kept = {way: mask for way, mask in masks(first, large).items() if way in ways}
    ordinary = ~(first | large)
    if int(ordinary.sum()) < 2 * TOKENS_PER_DIRECTION or len(folds) < 2:
        return dict.fromkeys(kept, NONE)
    origin, offset = (ordinary.to(x.dtype) @ x / ordinary.sum() for x in (h, delta))
    x, y = h - origin, delta - offset
    basis = directions(x)
    x = x if basis is None else x @ basis.mT
    scored = _scored(x, y, first, large, folds, kept)
    shuffled = _shuffled(x, y, folds) if permuted else torch.nan
    none = {"published": torch.nan, "identity": torch.nan}
    return {
        way: Linearity(
            held_out=held_out,
            permuted=float(shuffled) if way == "all" else torch.nan,
            **(_published(h, delta, by_fold, basis) if way == "all" and published else none),
        )
        for way, (held_out, by_fold) in scored.items()
    }


def directions(x: torch.Tensor) -> torch.Tensor | None:
    """(k, hidden) leading directions of centred states; None where k is hidden, and none are left out."""
    tokens, hidden = x.shape
    k = min(hidden, tokens // TOKENS_PER_DIRECTION)
    return None if k == hidden else leading_modes(gram(x.mT), k)[1].mT


def _scored(
    x: torch.Tensor,
    y: torch.Tensor,
    first: torch.Tensor,
    large: torch.Tensor,
    folds: Sequence[slice],
    kept: Mapping[str, torch.Tensor],
) -> dict[str, tuple[torch.Tensor, Sums]]:
    """Way → (held-out R² and with each fold left out, sums by fold)."""
    kinds = _by_kind(x, y, first, large, folds)
    members = {
        "all": list(kinds.values()),
        "without_first": [sums for (is_first, _), sums in kinds.items() if not is_first],
        "without_massive": [sums for (_, is_large), sums in kinds.items() if not is_large],
    }

    def score(way: str, mask: torch.Tensor) -> tuple[torch.Tensor, Sums]:
        by_fold = members[way][0]
        for more in members[way][1:]:
            by_fold = by_fold + more
        return held_out(by_fold), by_fold

    return by_mask(kept, score)


def _by_kind(
    x: torch.Tensor, y: torch.Tensor, first: torch.Tensor, large: torch.Tensor, folds: Sequence[slice]
) -> dict[tuple[bool, bool], Sums]:
    """(first of its prompt, massive) → sums over such tokens, ordinary ones first; kinds without a token left out."""
    found = {}
    for kind in itertools.product((False, True), repeat=2):
        mask = (first == kind[0]) & (large == kind[1])
        if mask.any():
            found[kind] = _sums(x[mask], y[mask], [int(mask[part].sum()) for part in folds])
    return found


def held_out(by_fold: Sums) -> torch.Tensor:
    """(1 + fold,) R² of each fold from the others', pooled over all folds and with one of them left out."""
    folds, k = by_fold.x.shape
    if (by_fold.count == 0).any() or (by_fold.count.sum() - by_fold.count <= k).any():
        return torch.full((1 + folds,), torch.nan, dtype=torch.float64)
    lost, whole = torch.stack([_lost(by_fold.at(fold), by_fold.but(fold)) for fold in range(folds)], 1).cpu()
    some = 1 - torch.eye(1 + folds, dtype=torch.float64)[:, 1:]  # of all folds, and of all but each
    return torch.where(some @ whole > 0, 1 - (some @ lost) / (some @ whole), torch.nan)


def _lost(test: Sums, train: Sums) -> torch.Tensor:
    """Energy of a fold's writes about the training mean, (2,): what the others' map leaves of it, and all."""
    a, b = train.x / train.count, train.y / train.count
    w = solve(train.xx - torch.outer(train.x, a), train.xy - torch.outer(train.x, b))
    half = test.x - test.count * a / 2
    xx = test.xx - torch.outer(half, a) - torch.outer(a, half)
    xy = test.xy - torch.outer(test.x - test.count * a, b) - torch.outer(a, test.y)
    whole = test.yy - 2 * test.y @ b + test.count * b @ b
    return torch.stack([whole + (w * (xx @ w - 2 * xy)).sum(), whole])


def solve(squares: torch.Tensor, products: torch.Tensor) -> torch.Tensor:
    """The map of least squares, (k, hidden); directions without energy take no part."""
    factor, failed = torch.linalg.cholesky_ex(squares)
    if not failed:
        inverse = torch.cholesky_inverse(factor)
        if squares.norm() * inverse.norm() < SOUND:  # by the Frobenius norms, which are at least the largest values
            return inverse @ products
    values, vectors = torch.linalg.eigh(squares)
    inverse = torch.where(values > NOTHING * values[-1].clamp_min(torch.finfo(values.dtype).tiny), 1 / values, 0.0)
    return (vectors * inverse) @ (vectors.mT @ products)


def _shuffled(x: torch.Tensor, y: torch.Tensor, folds: Sequence[slice]) -> torch.Tensor:
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(0)).to(y.device)
    return held_out(_sums(x, y[order], [part.stop - part.start for part in folds]))[0]


def _published(h: torch.Tensor, delta: torch.Tensor, by_fold: Sums, basis: torch.Tensor | None) -> dict[str, float]:
    """In-sample scores of h_{ℓ+1} from h_ℓ about their means: of a linear map in the same directions, of a multiple."""
    if len(h) < 2:
        return {"published": torch.nan, "identity": torch.nan}
    h = h - h.mean(0)
    after = (delta - delta.mean(0)).add_(h)
    total, squares, both = (float(a.flatten() @ b.flatten()) for a, b in ((after, after), (h, h), (h, after)))
    if not (total > 0 and squares > 0):
        return {"published": torch.nan, "identity": torch.nan}
    identity = both**2 / (squares * total)
    count, x, y, xx, xy, _ = (part.sum(0) for part in _parts(by_fold))
    xx = xx - torch.outer(x, x) / count
    xy = xy - torch.outer(x, y) / count
    xy = xy + (xx if basis is None else (h @ basis.mT).mT @ h)  # of h_{ℓ+1} = h_ℓ + δ
    return {"published": float((solve(xx, xy) * xy).sum()) / total, "identity": identity}
