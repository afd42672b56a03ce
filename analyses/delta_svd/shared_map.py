"""Normal equations of the map from a layer's state to its write, kept so that layers can share one afterwards.

A linear map T with δ ≈ T(h), both centred over tokens, is found from sums of h hᵀ, h δᵀ and δ δᵀ over the text.
These are kept per layer and per fold of whole prompts, in k = min(D, n/8) directions: all of them where that is D, else
the leading ones of each layer's states and of its writes, found by subspace iteration from combinations of tokens,
which a rotation of the stream turns along. That is 3·FOLDS·k² + 2kD numbers a layer, which grow with depth, against
some 12·D² weights of the layer; states of no token are kept. Afterwards all layers' sums are carried into one basis,
the leading k directions of the pooled states and those of the pooled writes (`in_one_basis`), and there any run
of layers can be given one map (`Maps`). What the directions leave out of a write counts as unexplained.

Each layer's squared error counts relative to the energy of its write, so that none outweighs the others; and every
prediction is of prompts that the map has not seen.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from analyses.numerics.spectra import gram

TOKENS_PER_DIRECTION = 8  # so many tokens for every regressor
ITERATIONS = 4  # of the subspace iteration: of slowly falling energies it finds 98 % of what k directions can hold
RIDGE = 1e-3  # of each regressor's own energy
NOTHING = 1e-10  # of the largest energy of a direction: below that it is rounding, or the mean that a norm takes off

Moved = tuple[torch.Tensor, torch.Tensor]
"""Sums of rows, (layer, k), and the origin that the rows are moved to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sums:
    """One layer's sums by fold, in its own directions."""

    counts: torch.Tensor  # (fold,) tokens
    state: torch.Tensor  # (fold, k)
    write: torch.Tensor  # (fold, k)
    state_state: torch.Tensor  # (fold, k, k)
    state_write: torch.Tensor  # (fold, k, k)
    write_write: torch.Tensor  # (fold, k, k)
    states: torch.Tensor | None  # (k, hidden) orthonormal rows, the states' directions; None where k is hidden
    writes: torch.Tensor | None  # of the writes
    energy: float  # of the centred write, in all directions


def sums(h: torch.Tensor, delta: torch.Tensor, folds: Sequence[slice], *, single: bool) -> Sums | None:
    """Of a layer's states and writes, (token, hidden) float64; None for too few tokens.

    folds : runs of tokens that together are all of them.
    single : keep directions in float32, as the pass's states were.
    """
    tokens, hidden = h.shape
    k = min(hidden, tokens // TOKENS_PER_DIRECTION)
    if k < 1 or len(folds) < 2:
        return None
    means = h.mean(0), delta.mean(0)
    energy = float(delta.square().sum() - tokens * means[1].square().sum())
    states = writes = None
    if k < hidden:
        states, writes = (leading(x, mean, k) for x, mean in zip((h, delta), means, strict=True))
    found = Sums(
        counts=torch.tensor([float(part.stop - part.start) for part in folds], dtype=torch.float64),
        state=torch.empty(len(folds), k, dtype=torch.float64),
        write=torch.empty(len(folds), k, dtype=torch.float64),
        state_state=torch.empty(len(folds), k, k, dtype=torch.float64),
        state_write=torch.empty(len(folds), k, k, dtype=torch.float64),
        write_write=torch.empty(len(folds), k, k, dtype=torch.float64),
        states=_kept(states, single),
        writes=_kept(writes, single),
        energy=max(energy, 0.0),
    )
    for fold, part in enumerate(folds):  # about the whole text's mean: the sums then lose nothing to a large one
        x, y = _seen(h[part] - means[0], states), _seen(delta[part] - means[1], writes)
        found.state[fold], found.write[fold] = x.sum(0), y.sum(0)
        found.state_state[fold], found.state_write[fold] = gram(x.mT), x.mT @ y
        found.write_write[fold] = gram(y.mT)
    return found


def _kept(basis: torch.Tensor | None, single: bool) -> torch.Tensor | None:
    return None if basis is None else basis.to(torch.float32 if single else torch.float64).cpu()


def _seen(x: torch.Tensor, basis: torch.Tensor | None) -> torch.Tensor:
    return x if basis is None else x @ basis.mT


def leading(x: torch.Tensor, mean: torch.Tensor, k: int) -> torch.Tensor:
    """(k, hidden) orthonormal rows near the leading directions of x − mean, iterated from mixtures of tokens.

    Through the Gram matrix of the smaller side: all products are then of that side.
    """
    tokens, hidden = x.shape
    span = torch.randn(tokens, k, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(x.device)
    if tokens < hidden:
        products = gram(x)  # (token, token)
        products = products - products.mean(0) - products.mean(1, keepdim=True) + products.mean()
        for _ in range(ITERATIONS):
            span = _orthonormal(products @ span)
        return _orthonormal(_across(x, mean, span)).mT
    products = gram(x.mT) - tokens * torch.outer(mean, mean)  # (hidden, hidden)
    span = _orthonormal(_across(x, mean, span))
    for _ in range(ITERATIONS):
        span = _orthonormal(products @ span)
    return span.mT


def _across(x: torch.Tensor, mean: torch.Tensor, mixtures: torch.Tensor) -> torch.Tensor:
    """(x − 1 meanᵀ)ᵀ times mixtures of tokens, without a centred copy; (hidden, mixture)."""
    return x.mT @ mixtures - torch.outer(mean, mixtures.sum(0))


def _orthonormal(columns: torch.Tensor) -> torch.Tensor:
    """Q of a QR with positive diagonal, the only one: it turns along when the columns are turned."""
    q, r = torch.linalg.qr(columns)
    return q * torch.where(r.diagonal() < 0, -1.0, 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Maps:
    """Sums of all layers in one basis of states and one of writes; layer is the first axis."""

    counts: torch.Tensor  # (layer, fold)
    state: torch.Tensor  # (layer, fold, k)
    write: torch.Tensor  # (layer, fold, r)
    state_state: torch.Tensor  # (layer, fold, k, k)
    state_write: torch.Tensor  # (layer, fold, k, r)
    write_write: torch.Tensor  # (layer, fold, r, r)
    energy: torch.Tensor  # (layer,) of the centred write in all directions
    kept: torch.Tensor  # (layer,) share of it inside the basis

    def splits(self, *, whole: bool = False) -> Iterator["Split"]:
        """Of each fold, what a map is fitted to and what it is tested on; `whole` : in all directions of writes."""
        counts, states, writes = self.counts.sum(1), self.state.sum(1), self.write.sum(1)
        squares, products = self.state_state.sum(1), self.state_write.sum(1)
        for fold in range(self.counts.shape[1]):
            count, state, write = self.counts[:, fold], self.state[:, fold], self.write[:, fold]
            others, rest, left = counts - count, states - state, writes - write
            a, b = rest / others[:, None], left / others[:, None]  # training means, (layer, k) and (layer, r)
            yield Split(
                squares=self._about(squares - self.state_state[:, fold], others, (rest, a), (rest, a)),
                products=self._about(products - self.state_write[:, fold], others, (rest, a), (left, b)),
                test_squares=self._about(self.state_state[:, fold], count, (state, a), (state, a)),
                test_products=self._about(self.state_write[:, fold], count, (state, a), (write, b)),
                test_writes=self._about(self.write_write[:, fold], count, (write, b), (write, b)) if whole else None,
                test_energy=self._energy(self.write_write[:, fold], count, write, b),
            )

    @property
    def weight(self) -> torch.Tensor:
        """(layer,) that makes each layer's energy 1."""
        return 1 / self.energy.where(self.energy > 0, torch.inf)

    def _about(self, sums: torch.Tensor, count: torch.Tensor, one: Moved, other: Moved) -> torch.Tensor:
        """Weighted Σ (x − a)(y − b)ᵀ from Σ x yᵀ; `one` is Σ x and a, `other` Σ y and b."""
        (x, a), (y, b) = one, other
        left, right = torch.stack([x - count[:, None] * a, a], 2), torch.stack([b, y], 1)
        return torch.baddbmm(sums, left, right, alpha=-1).mul_(self.weight[:, None, None])

    def _energy(self, sums: torch.Tensor, count: torch.Tensor, y: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        """Weighted Σ ‖y − b‖²."""
        centred = sums.diagonal(dim1=1, dim2=2).sum(1) - 2 * (y * b).sum(1) + count * b.square().sum(1)
        return centred * self.weight


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """Sums of one fold and of all others, about the others' means, each layer's divided by its energy."""

    squares: torch.Tensor  # (layer, k, k) ⟨h hᵀ⟩ of the others
    products: torch.Tensor  # (layer, k, r) ⟨h δᵀ⟩ of the others
    test_squares: torch.Tensor  # of the fold
    test_products: torch.Tensor
    test_writes: torch.Tensor | None  # (layer, r, r) ⟨δ δᵀ⟩ of the fold, where asked for
    test_energy: torch.Tensor  # (layer,) ⟨δ, δ⟩ of the fold


def in_one_basis(layers: Sequence[Sums]) -> Maps:
    """Carry every layer's sums into the leading k directions of the pooled states, and of the pooled writes."""
    states = _pooled([(s.states, _centred(s.state_state, s.state, s.counts)) for s in layers])
    weigh = [1 / s.energy if s.energy > 0 else 0.0 for s in layers]
    writes = None
    if layers[0].writes is not None:
        spread = [
            (s.writes, w * _centred(s.write_write, s.write, s.counts)) for s, w in zip(layers, weigh, strict=True)
        ]
        writes = _pooled(spread)
    carried: dict[str, list[torch.Tensor]] = {name: [] for name in ("s", "w", "ss", "sw", "ww")}
    for layer in layers:
        t = states.mT if layer.states is None else layer.states.double() @ states.mT  # (own direction, pooled)
        carried["s"].append(layer.state @ t)
        carried["ss"].append(t.mT @ layer.state_state @ t)
        write, state_write, write_write = layer.write, t.mT @ layer.state_write, layer.write_write
        if writes is not None:
            u = layer.writes.double() @ writes.mT
            write, state_write, write_write = write @ u, state_write @ u, u.mT @ write_write @ u
        for name, part in (("w", write), ("sw", state_write), ("ww", write_write)):
            carried[name].append(part)
    s, w, ss, sw, ww = (torch.stack(parts) for parts in carried.values())
    counts, energy = torch.stack([x.counts for x in layers]), torch.tensor([x.energy for x in layers]).double()
    inside = ww.sum(1).diagonal(dim1=1, dim2=2).sum(1) - w.sum(1).square().sum(1) / counts.sum(1)
    kept = (inside / energy).where(energy > 0, 1.0).clamp(0, 1)
    return Maps(
        counts=counts, state=s, write=w, state_state=ss, state_write=sw, write_write=ww, energy=energy, kept=kept
    )


def _centred(products: torch.Tensor, rows: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
    total = rows.sum(0)
    return products.sum(0) - torch.outer(total, total) / counts.sum()


def _pooled(parts: Sequence[tuple[torch.Tensor | None, torch.Tensor]]) -> torch.Tensor:
    """(≤ k, hidden) leading directions of Σ BᵀCB over layers, B (k, hidden) rows or the identity, C (k, k)."""
    if parts[0][0] is None:
        values, vectors = torch.linalg.eigh(sum(c for _, c in parts))
        span = torch.eye(len(values), dtype=values.dtype)
    else:
        bases = [(b.double(), c) for b, c in parts]
        k = bases[0][0].shape[0]
        generator = torch.Generator().manual_seed(0)
        mixed = sum(
            b.mT @ (c @ torch.randn(k, k, generator=generator, dtype=torch.float64)) for b, c in bases
        )  # a mixture of the layers' own directions turns along with the stream
        span = _orthonormal(mixed)
        for _ in range(ITERATIONS):
            span = _orthonormal(sum(b.mT @ (c @ (b @ span)) for b, c in bases))  # (hidden, k)
        values, vectors = torch.linalg.eigh(sum((b @ span).mT @ c @ (b @ span) for b, c in bases))
    kept = values > NOTHING * values[-1]
    return (span @ vectors[:, kept]).mT.flip(0)


def solve(squares: torch.Tensor, products: torch.Tensor) -> torch.Tensor:
    """The map (…, k, r) from centred sums, with a ridge of RIDGE on each regressor's own energy."""
    energy = squares.diagonal(dim1=-2, dim2=-1)
    largest = energy.amax(-1, keepdim=True)
    ridge = torch.diag_embed(RIDGE * energy + NOTHING * largest + (largest == 0))
    return torch.linalg.solve(squares + ridge, products)
