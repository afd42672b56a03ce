"""Twins with an effect of a stated size planted, which a claim of absence must not overlook.

A gate that says "there is nothing" is worth something only if it fails on a model that has it.
Effects that tie a layer to the one before are planted down the chain, into the twin's own layer
before it, so that every adjacent pair has exactly the stated size. One matrix per family is kept
between calls (float64, hence one layer of the model at most): reading the layers in order costs one
step each, reading an earlier layer again starts the chain anew and gives the same bytes.
"""

import math
from collections.abc import Callable
from functools import partial

import torch

from analyses.delta_svd.phases import phase_ranges
from analyses.weights.architectures import GAINS, MATRICES
from checks.twins.roles import Role
from checks.twins.twins import Twin, TwinCheckpoint

PARALLEL = 1e-8  # below this share of its norm, what is left of a matrix is rounding: it is parallel already
WRITES = ("o_proj", "down_proj")  # what a layer adds to the residual stream

Link = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]  # (twin's W_ℓ, base's W_{ℓ+1}) → twin's W_{ℓ+1}


def adjacent_mixture(*, cos: float = 0.5) -> Twin:
    """Every matrix mixed with the twin's matrix of the layer before, so that their cosine is `cos` exactly.

    W'₀ = W₀ and W'_{ℓ+1} = ‖W_{ℓ+1}‖·(cos·û + √(1−cos²)·v̂), with û = W'_ℓ/‖W'_ℓ‖ and v̂ the unit part of
    W_{ℓ+1} orthogonal to û. A matrix that is zero or parallel to û is left as it is.
    """
    return Twin(
        name="adjacent mixture",
        preserves="the Frobenius norm of every matrix; gains, biases, embedding and head",
        destroys=f"the independence of adjacent layers: each pair of matrices has cosine {cos:g}",
        size=cos,
        change=partial(_chained, partial(_mix, cos=cos)),
    )


def query_key_mixture(*, cos: float = 0.4) -> Twin:
    """Every query head mixed with its key head, so that the cosine of W_q^h and W_k is `cos` exactly.

    W'_q^h = ‖W_q^h‖·(cos·k̂ + √(1−cos²)·q̂), k̂ = W_k/‖W_k‖_F and q̂ the unit part of W_q^h orthogonal to it. For
    equal norms and unrelated row spaces the symmetric head metric then has eigenvalues in the
    proportion (cos + 1) : (cos − 1), hence a negative share of (1−cos)²/(2 + 2cos²) = 0.155 at 0.4.
    """
    return Twin(
        name="query-key mixture",
        preserves="the Frobenius norm of every head's queries; everything else as it is",
        destroys=f"the balance of the head metric's signs: queries and keys of a head have cosine {cos:g}",
        size=cos,
        change=partial(_mix_query_with_key, cos=cos),
    )


def common_direction(*, size: float = 1.0, rank: int = 1) -> Twin:
    """One direction, or one subspace of a few, of the residual stream added to all that every layer writes.

    δ' = δ + size·√(hidden/rank)·U O δ for the write δ of each branch, that is W' = (1 + size·√(hidden/rank)·U O) W for
    each o_proj and down_proj: U has `rank` random orthonormal columns (hidden,), the same for the whole model, O
    `rank` random orthonormal rows (hidden,) of the layer's own. The mean of ‖O δ‖² over draws of O is rank/hidden·‖δ‖²
    for every δ, so that what is planted is `size` times as long as what the layer writes by itself, whatever it reads.

    A random V in place of O W would have that size on isotropic inputs only. A trained matrix answers to what it reads
    several times more strongly than a random one of its norm: the plant then has 1/9 of the write's energy at a factor
    of 3, and eight dimensions of it are rightly called nothing (`checks.calibration.plants`). A write that has a few
    dimensions only, r by its participation ratio, fills r of the subspace's: below about five no more is in common.

    Experts of a layer share both. Where a norm stands behind the branch, its gain multiplies what is written.
    """
    what = "direction" if rank == 1 else f"subspace of {rank} directions"
    return Twin(
        name=f"common {what}",
        preserves=f"all matrices but those that write; these up to a term of rank {rank}",
        destroys=f"the difference of what layers write: a shared {what} of relative size {size:g}",
        size=size,
        change=partial(_add_directions, size=size, rank=rank, shared=True),
    )


def own_direction(*, size: float = 3.0) -> Twin:
    """One direction of its own added to all that a layer writes: `common_direction` with another U in each layer."""
    return Twin(
        name="direction of each layer's own",
        preserves="all matrices but those that write; these up to a term of rank one",
        destroys=f"the variety of what a layer writes: one direction of relative size {size:g}",
        size=size,
        change=partial(_add_directions, size=size, rank=1, shared=False),
    )


def common_subspace(*, keep: float = 0.5) -> Twin:
    """What every layer reads and writes projected on one random subspace of the stream, of dimension ⌈keep·hidden⌉.

    W' = c W Π for what reads and c Π W for what writes, Π the projector and c such that ‖W'‖_F = ‖W‖_F.
    """
    return Twin(
        name="common subspace",
        preserves="the Frobenius norm of every matrix; gains, biases, embedding and head",
        destroys=f"the spread of layers over the stream: all read and write in {keep:.0%} of its dimensions",
        size=keep,
        change=partial(_project, keep=keep),
    )


def repeated_layers(*, share: float = 0.8) -> Twin:
    """Every matrix mixed with the first layer's, so that their cosine is `share` exactly; gains as well, by share.

    At 1 every layer is the first one, each matrix with its own norm.
    """
    return Twin(
        name="repeated layer",
        preserves="the Frobenius norm of every matrix; biases, embedding and head",
        destroys=f"the difference of layers: each matrix has cosine {share:g} with the first layer's",
        size=share,
        change=partial(_repeat, share=share),
    )


def repeated_phase(phase: str = "C") -> Twin:
    """Every layer of one published phase is the model's first one, each matrix with its own norm; the others stay.

    Were all layers alike, any run of them would share as much as the phase, and no test among runs could tell.
    """
    return Twin(
        name=f"repeated phase {phase}",
        preserves="all layers outside the phase; the Frobenius norm of every matrix; biases, embedding and head",
        destroys=f"the difference of the layers of phase {phase}",
        size=1.0,
        change=partial(_repeat_phase, phase=phase),
    )


def repeated_readers(*, cos: float = 0.5) -> Twin:
    """Every layer reads as the first one, and writes by a matrix of cosine `cos` with that of the layer before.

    What two branches write on the same states then differs by their writing matrices alone, ⟨W a, W' a⟩ for the same
    activations a, so that `cos` is the cosine of what they do. Were each matrix of a branch mixed so, the cosines of
    the two or three that its function multiplies would multiply as well: 0.5 in each leaves 0.1 to 0.3.
    """
    return Twin(
        name="repeated reader",
        preserves="the Frobenius norm of every matrix; biases, embedding and head",
        destroys=f"the difference of what layers do: on the same states adjacent writes have cosine {cos:g}",
        size=cos,
        change=partial(_repeat_readers, cos=cos),
    )


def truncated_residual(*, keep: float = 0.5) -> Twin:
    """The residual of every adjacent pair loses the smaller part of its singular values.

    The published null is about Δ = Ŵ_{ℓ+1} − Ŵ_ℓ of matrices scaled to norm 1. With T the part of Δ in its
    ⌈keep·m⌉ largest singular values, Ŵ'_{ℓ+1} = Ŵ'_ℓ + s T, where s = −2⟨Ŵ'_ℓ, T⟩/‖T‖² makes its norm 1 again, so
    that the twin's residual is s T exactly. Truncating each layer's own spectrum instead would be
    no plant: the null is made of the layers' own spectra, and the ratio stays near 1 (1.00 for Gaussian
    matrices, where this one gives 0.74 for square ones and 0.6 at two to one).
    """
    return Twin(
        name="truncated residual",
        preserves="the Frobenius norm of every matrix; gains, biases, embedding and head",
        destroys=f"the fullness of the residual of adjacent layers: only the largest {keep:.0%} of its modes are left",
        size=keep,
        change=partial(_chained, partial(_truncate_difference, keep=keep)),
    )


# --- the changes --------------------------------------------------------------------------------


def _chained(link: Link, twin: TwinCheckpoint, role: Role, value: torch.Tensor) -> torch.Tensor:
    if role.bias or role.part not in MATRICES:
        return value
    chain = role.part if role.number is None else (role.part, role.number)  # an expert is tied to its index
    layer, matrix = twin.memory.get(chain, (math.inf, None))
    if layer > role.layer:
        layer, matrix = 0, twin.base.weight(role.part, 0, expert=role.number)
    while layer < role.layer:
        layer += 1
        matrix = link(matrix, twin.base.weight(role.part, layer, expert=role.number))
    twin.memory[chain] = (layer, matrix)
    return matrix


def _mix(before: torch.Tensor, after: torch.Tensor, *, cos: float) -> torch.Tensor:
    """`after` turned towards `before` until their cosine is `cos`, its norm kept; any equal shapes."""
    norm, norm_before = torch.linalg.vector_norm(after), torch.linalg.vector_norm(before)
    if norm == 0 or norm_before == 0:
        return after
    towards = before / norm_before
    rest = after / norm
    rest = rest - (rest * towards).sum() * towards
    if (length := torch.linalg.vector_norm(rest)) < PARALLEL:
        return after
    rest = rest / length
    rest = rest - (rest * towards).sum() * towards  # twice is enough, also for nearly parallel matrices
    return norm * (cos * towards + math.sqrt(1 - cos**2) * rest)


def _mix_query_with_key(twin: TwinCheckpoint, role: Role, value: torch.Tensor, *, cos: float) -> torch.Tensor:
    if role.bias or role.part != "q_proj":
        return value
    keys = twin.base.head_blocks("k_proj", role.layer)  # (kv_head, head_dim, hidden)
    queries = value.double().unflatten(0, (len(keys), -1, twin.shape.head_dim))  # (kv_head, head in group, …)
    mixed = [[_mix(key, query, cos=cos) for query in group] for key, group in zip(keys, queries, strict=True)]
    return torch.cat([head for group in mixed for head in group])


def _add_directions(
    twin: TwinCheckpoint, role: Role, value: torch.Tensor, *, size: float, rank: int, shared: bool
) -> torch.Tensor:
    if role.bias or role.part not in WRITES:
        return value
    matrix = value.double()  # (hidden, in)

    def frame(*key: object) -> torch.Tensor:
        drawn = torch.randn(len(matrix), rank, generator=twin.draw(*key), dtype=torch.float64)
        return torch.linalg.qr(drawn).Q  # (hidden, rank)

    into = frame("direction") if shared else frame("direction", role.layer)
    out_of = frame("written", role.layer)
    return with_part_in(matrix, into, out_of, size=size)


def with_part_in(matrix: torch.Tensor, into: torch.Tensor, out_of: torch.Tensor, *, size: float) -> torch.Tensor:
    """(hidden, in) W + size·√(hidden/rank)·U Oᵀ W; U `into` and O `out_of` (hidden, rank) with orthonormal columns."""
    return matrix + size * math.sqrt(len(matrix) / into.shape[1]) * into @ (out_of.T @ matrix)


def _project(twin: TwinCheckpoint, role: Role, value: torch.Tensor, *, keep: float) -> torch.Tensor:
    if role.bias or role.part not in MATRICES:
        return value
    matrix = value.double()
    if "basis" not in twin.memory:
        hidden = twin.shape.hidden
        drawn = torch.randn(hidden, math.ceil(keep * hidden), generator=twin.draw("subspace"), dtype=torch.float64)
        twin.memory["basis"] = torch.linalg.qr(drawn).Q
    basis = twin.memory["basis"]
    projected = basis @ (basis.T @ matrix) if role.part in WRITES else (matrix @ basis) @ basis.T
    left = torch.linalg.vector_norm(projected)
    return projected * (torch.linalg.vector_norm(matrix) / left) if left > 0 else matrix


def _repeat(twin: TwinCheckpoint, role: Role, value: torch.Tensor, *, share: float) -> torch.Tensor:
    if role.bias or role.layer is None:
        return value
    if role.part in GAINS and not role.bias:
        first = twin.base.weight(role.part, 0) - twin.architecture.gain_offset
        return share * first + (1 - share) * value.double()
    if role.part not in MATRICES:
        return value
    return _mix(twin.base.weight(role.part, 0, expert=role.number), value.double(), cos=share)


def _repeat_phase(twin: TwinCheckpoint, role: Role, value: torch.Tensor, *, phase: str) -> torch.Tensor:
    inside = role.layer in phase_ranges(twin.shape.layers)[phase]
    return _repeat(twin, role, value, share=1.0) if inside else value


def _repeat_readers(twin: TwinCheckpoint, role: Role, value: torch.Tensor, *, cos: float) -> torch.Tensor:
    if role.part in WRITES:
        return _chained(partial(_mix, cos=cos), twin, role, value)
    return _repeat(twin, role, value, share=1.0)


def _largest(matrix: torch.Tensor, keep: float) -> torch.Tensor:
    """The part of a matrix in the larger share `keep` of its singular values."""
    u, sigma, vt = torch.linalg.svd(matrix, full_matrices=False)
    kept = math.ceil(keep * len(sigma))
    return (u[:, :kept] * sigma[:kept]) @ vt[:kept]


def _truncate_difference(before: torch.Tensor, after: torch.Tensor, *, keep: float) -> torch.Tensor:
    norm, norm_before = torch.linalg.vector_norm(after), torch.linalg.vector_norm(before)
    if norm == 0 or norm_before == 0:
        return after
    towards = before / norm_before
    part = _largest(after / norm - towards, keep)
    if torch.linalg.vector_norm(part) < PARALLEL:
        return after
    return norm * (towards - 2 * (towards * part).sum() / part.square().sum() * part)
