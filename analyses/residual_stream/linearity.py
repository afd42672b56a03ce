"""How much of what a layer writes is a linear function of its states, on prompts that the map has not seen.

δ ≈ c + W h is fitted by least squares on four folds of whole prompts and tested on the fifth, in turn; R² is the share
of δ's energy about the training mean that it explains. The states are seen in their leading k = min(hidden, n/8)
directions, so that there are tokens enough for every regressor; what lies outside counts as unexplained.

The published form scores h_{ℓ+1} against h_ℓ, on the tokens it was fitted to. Since h_{ℓ+1} = h_ℓ + δ, the identity
alone scores nearly as much: its own score stands beside it.

Sums are taken apart by kind of token (ordinary, first of its prompt, massive), and added: a massive token's square is a
million times an ordinary one's, and taking it off a total again would leave rounding.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from analyses.numerics.spectra import gram, leading_modes
from analyses.residual_stream.ways import masks

TOKENS_PER_DIRECTION = 8
NOTHING = 1e-11  # of the largest energy of a direction: below that it is rounding


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
    """Sums over some tokens, about fixed origins."""

    count: float
    x: torch.Tensor  # (k,)
    y: torch.Tensor  # (hidden,)
    xx: torch.Tensor  # (k, k)
    xy: torch.Tensor  # (k, hidden)
    yy: float

    def __add__(self, other: "Sums") -> "Sums":
        parts = zip(_parts(self), _parts(other), strict=True)
        return Sums(*(a + b for a, b in parts))


def _parts(sums: Sums) -> tuple:
    return sums.count, sums.x, sums.y, sums.xx, sums.xy, sums.yy


def _sums(x: torch.Tensor, y: torch.Tensor) -> Sums:
    return Sums(float(len(x)), x.sum(0), y.sum(0), x.mT @ x, x.mT @ y, float(y.square().sum()))


def linearity(
    h: torch.Tensor,
    delta: torch.Tensor,
    *,
    first: torch.Tensor,
    large: torch.Tensor,
    folds: Sequence[slice],
    permuted: bool,
) -> dict[str, Linearity]:
    """Linearity of one layer in every way.

    Parameters
    ----------
    h, delta : (token, hidden) float64, states and writes.
    first, large : (token,) bool, the first of each prompt, and those that are massive before or behind the layer.
    folds : runs of whole prompts; together all tokens.
    permuted : whether to score the permuted rows too, which takes half the time again.
    """
    kept = masks(first, large)
    ordinary = ~(first | large)
    if int(ordinary.sum()) < 2 * TOKENS_PER_DIRECTION or len(folds) < 2:
        return dict.fromkeys(kept, NONE)
    origin, offset = h[ordinary].mean(0), delta[ordinary].mean(0)
    basis = directions(h - origin)
    x = (h - origin) @ basis.mT if basis is not None else h - origin
    y = delta - offset
    scored = _scored(x, y, first, large, folds, kept)
    shuffled = _shuffled(x, y, first, large, folds) if permuted else torch.nan
    return {
        way: Linearity(
            held_out=held_out,
            permuted=float(shuffled) if way == "all" else torch.nan,
            **(_published(h, delta, whole, basis) if way == "all" else {"published": torch.nan, "identity": torch.nan}),
        )
        for way, (held_out, whole) in scored.items()
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
    """Way → (held-out R² and with each fold left out, sums over all folds)."""
    parts = {(a, b): _by_fold(x, y, (first == a) & (large == b), folds) for a in (False, True) for b in (False, True)}
    members = {"all": list(parts), "without_first": [(False, False), (False, True)],
               "without_massive": [(False, False), (True, False)]}  # fmt: skip
    found: dict[str, tuple[torch.Tensor, Sums]] = {}
    for way, mask in kept.items():
        if twin := next((w for w in found if torch.equal(kept[w], mask)), None):
            found[way] = found[twin]
            continue
        by_fold = [_added([parts[member][fold] for member in members[way]]) for fold in range(len(folds))]
        found[way] = held_out(by_fold), _added(by_fold)
    return found


def _by_fold(x: torch.Tensor, y: torch.Tensor, mask: torch.Tensor, folds: Sequence[slice]) -> list[Sums]:
    return [_sums(x[part][mask[part]], y[part][mask[part]]) for part in folds]


def _added(sums: Sequence[Sums]) -> Sums:
    total = sums[0]
    for more in sums[1:]:
        total = total + more
    return total


def held_out(by_fold: Sequence[Sums]) -> torch.Tensor:
    """(1 + fold,) R² of each fold from the others', pooled over all folds and with one of them left out."""
    left, energy = [], []
    for number, test in enumerate(by_fold):
        train = _added([sums for other, sums in enumerate(by_fold) if other != number])
        if test.count == 0 or train.count <= len(test.x):
            return torch.full((1 + len(by_fold),), torch.nan, dtype=torch.float64)
        a, b = train.x / train.count, train.y / train.count
        w = solve(train.xx - torch.outer(train.x, a), train.xy - torch.outer(train.x, b))
        xx = test.xx - torch.outer(test.x, a) - torch.outer(a, test.x) + test.count * torch.outer(a, a)
        xy = test.xy - torch.outer(test.x, b) - torch.outer(a, test.y) + test.count * torch.outer(a, b)
        yy = test.yy - 2 * float(test.y @ b) + test.count * float(b @ b)
        left.append(yy - 2 * float((w * xy).sum()) + float((w * (xx @ w)).sum()))
        energy.append(yy)
    lost, whole = (torch.tensor(values, dtype=torch.float64) for values in (left, energy))
    without = [~torch.eye(len(lost), dtype=torch.bool)[fold] for fold in range(len(lost))]
    shares = [(lost.sum(), whole.sum()), *((lost[some].sum(), whole[some].sum()) for some in without)]
    return torch.stack([1 - a / b if b > 0 else torch.full_like(a, torch.nan) for a, b in shares])


def solve(squares: torch.Tensor, products: torch.Tensor) -> torch.Tensor:
    """The map of least squares, (k, hidden); directions without energy take no part."""
    values, vectors = torch.linalg.eigh(squares)
    inverse = torch.where(values > NOTHING * values[-1].clamp_min(torch.finfo(values.dtype).tiny), 1 / values, 0.0)
    return (vectors * inverse) @ (vectors.mT @ products)


def _shuffled(
    x: torch.Tensor, y: torch.Tensor, first: torch.Tensor, large: torch.Tensor, folds: Sequence[slice]
) -> torch.Tensor:
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(0)).to(y.device)
    every = torch.ones_like(first)
    return held_out(_by_fold(x, y[order], every, folds))[0]


def _published(h: torch.Tensor, delta: torch.Tensor, whole: Sums, basis: torch.Tensor | None) -> dict[str, float]:
    """In-sample scores of h_{ℓ+1} from h_ℓ about their means: of a linear map in the same directions, of a multiple."""
    if len(h) < 2:
        return {"published": torch.nan, "identity": torch.nan}
    h = h - h.mean(0)
    after = h + (delta - delta.mean(0))
    total, squares = float(after.square().sum()), float(h.square().sum())
    if not (total > 0 and squares > 0):
        return {"published": torch.nan, "identity": torch.nan}
    identity = float((h * after).sum()) ** 2 / (squares * total)
    xx = whole.xx - torch.outer(whole.x, whole.x) / whole.count
    xy = whole.xy - torch.outer(whole.x, whole.y) / whole.count
    xy = xy + (xx if basis is None else (h @ basis.mT).mT @ h)  # of h_{ℓ+1} = h_ℓ + δ
    return {"published": float((solve(xx, xy) * xy).sum()) / total, "identity": identity}
