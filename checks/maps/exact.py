"""A change of parameters that leaves the model's function alone: as an object, and composed.

A map is exact for real numbers. `lossless` maps multiply by powers of two, flip signs and permute:
in binary floating point they lose nothing, also in bfloat16 storage (float16 has so few exponents that a
small weight may lose its last bit; such a tensor comes out in float64 instead). Where a model
normalises queries and keys, some maps are exact only up to the eps inside those norms.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from analyses.numerics import spectra
from analyses.weights.checkpoint import Checkpoint
from checks.maps.facts import foreign
from checks.twins.roles import Role, unknown_tensors
from checks.twins.twins import TwinCheckpoint, make_twin

# Relative change of logits in a float64 pass. Rounding of chained products: 6e-15 at most was measured on tiny models.
EXACT = 1e-9
UP_TO_EPS = 1e-4  # the same behind a norm that takes a scale off: its eps over the mean square it sees, 1e-6/1e-2
POWERS = 2  # exponents of random factors lie in ±POWERS: a composition stays far from over- and underflow


def always(checkpoint: Checkpoint) -> str | None:
    return None


def never(checkpoint: Checkpoint) -> bool:
    return False


def under_qk_norm(checkpoint: Checkpoint) -> bool:
    return checkpoint.has_qk_norm


@dataclass(frozen=True, slots=True, kw_only=True)
class CoordinateMap:
    """One exact map, drawn by a seed."""

    name: str
    sentence: str  # what it does, for the page
    lossless: bool  # in the stored dtype
    change: Callable[[TwinCheckpoint, Role, torch.Tensor], torch.Tensor]  # of each tensor, given in float64
    eps_limited: Callable[[Checkpoint], bool] = never  # whether the function is kept up to a norm's eps only
    fits: Callable[[Checkpoint], str | None] = always  # why the architecture has no such map; reads no tensor
    precondition: Callable[[Checkpoint], str | None] = always  # why these weights have none
    case_of: tuple[str, ...] = ()  # names of the table's maps of which it is a case; () where it is one of them

    @property
    def listed(self) -> frozenset[str]:
        """Names of the table's maps that together move what this one moves."""
        return frozenset(self.case_of or (self.name,))

    def undefined_for_kind(self, checkpoint: Checkpoint) -> str | None:
        """Why no checkpoint of this architecture and shape has the map; reads no tensor."""
        return foreign(checkpoint) or self.fits(checkpoint)

    def undefined(self, checkpoint: Checkpoint) -> str | None:
        """Why the map is not exact, or changes nothing, on this checkpoint; None where it is defined."""
        if reason := self.undefined_for_kind(checkpoint):
            return reason
        if unknown := unknown_tensors(checkpoint):
            return f"no exact maps known here: the role of tensor {unknown[0]} is unknown"
        return self.precondition(checkpoint)

    def tolerance(self, checkpoint: Checkpoint) -> float:
        """How far logits may move, relative to the largest, in a float64 pass."""
        return UP_TO_EPS if self.eps_limited(checkpoint) else EXACT

    def apply(self, checkpoint: Checkpoint, seed: int) -> TwinCheckpoint:
        """The twin; raises ValueError where `undefined` gives a reason."""
        if reason := self.undefined(checkpoint):
            raise ValueError(f"{self.name}: {reason}")
        return make_twin(checkpoint, _InFloat64(self), seed)


@dataclass(frozen=True, slots=True)
class _InFloat64:
    """Upcasts before the map; the twin narrows again where nothing is lost."""

    map: CoordinateMap

    @property
    def name(self) -> str:
        return self.map.name

    def change(self, twin: TwinCheckpoint, role: Role, value: torch.Tensor) -> torch.Tensor:
        return self.map.change(twin, role, value.double())


@dataclass(frozen=True, slots=True, kw_only=True)
class Composition:
    """Maps one after the other, each on the twin that the one before has made."""

    name: str
    sentence: str
    parts: tuple[CoordinateMap, ...]
    optional: tuple[CoordinateMap, ...] = ()  # parts that are left out where they are undefined
    # Other undefined parts make the whole undefined.

    @property
    def listed(self) -> frozenset[str]:
        return frozenset().union(*(part.listed for part in self.parts))

    @property
    def lossless(self) -> bool:
        return all(part.lossless for part in self.parts)

    def undefined_for_kind(self, checkpoint: Checkpoint) -> str | None:
        """Why no checkpoint of this architecture and shape has the composition; reads no tensor."""
        reasons = [part.undefined_for_kind(checkpoint) for part in self.parts]
        needed = [r for part, r in zip(self.parts, reasons, strict=True) if part not in self.optional]
        return next(filter(None, needed), None) or (reasons[0] if all(reasons) else None)

    def undefined(self, checkpoint: Checkpoint) -> str | None:
        """The first reason of a needed part that is undefined where its turn comes; of the first part, if all are."""
        reasons = []
        for part in self.parts:
            if (reason := part.undefined(checkpoint)) is None:
                checkpoint = part.apply(checkpoint, 0)
            elif part not in self.optional:
                return reason
            reasons.append(reason)
        return reasons[0] if all(reasons) else None

    def tolerance(self, checkpoint: Checkpoint) -> float:
        there = (part for part in self.parts if not part.undefined_for_kind(checkpoint))
        return max((part.tolerance(checkpoint) for part in there), default=EXACT)

    def apply(self, checkpoint: Checkpoint, seed: int) -> TwinCheckpoint:
        """The twin; raises ValueError where `undefined` gives a reason."""
        if reason := self.undefined(checkpoint):
            raise ValueError(f"{self.name}: {reason}")
        twin = checkpoint
        for part in self.parts:
            if not (part in self.optional and part.undefined(twin)):
                twin = part.apply(twin, seed)
        return replace(twin, name=f"{checkpoint.name} ({self.name}, seed {seed})")


def compose(name: str, sentence: str, *parts: CoordinateMap, optional: tuple[CoordinateMap, ...] = ()) -> Composition:
    return Composition(name=name, sentence=sentence, parts=parts, optional=optional)


# --- random parameters of maps ------------------------------------------------------------------


def powers_of_two(*shape: int, generator: torch.Generator, least: int = -POWERS) -> torch.Tensor:
    """2^e with e uniform over least … least + 2·POWERS, float64."""
    exponents = torch.randint(least, least + 2 * POWERS + 1, shape, generator=generator)
    return torch.exp2(exponents.double())


def signs(*shape: int, generator: torch.Generator) -> torch.Tensor:
    return 1.0 - 2.0 * torch.randint(2, shape, generator=generator).double()


def permutation(n: int, *, generator: torch.Generator) -> torch.Tensor:
    """A random order of n > 1 things that is not the one they have."""
    order = torch.randperm(n, generator=generator)
    return order.roll(1) if torch.equal(order, torch.arange(n)) else order


def conditioned(side: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """A random invertible matrix with singular values in [1/2, 2], and its inverse, (side, side) float64."""
    left, right = spectra.haar(side, side, generator), spectra.haar(side, side, generator)
    sigma = torch.exp2(2 * torch.rand(side, generator=generator, dtype=torch.float64) - 1)
    return (left * sigma) @ right.mT, (right / sigma) @ left.mT
