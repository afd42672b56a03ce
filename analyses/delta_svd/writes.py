"""Size, spectrum and directions of what one layer adds to the residual stream.

The write is δ = h_{ℓ+1} − h_ℓ over the tokens of a text, (token, hidden). Spectra and directions
come from the Gram matrix of its smaller side, m, and the symmetric eigenvalue problem in float64: for
energy shares that is as good as an SVD and faster. A layer takes two or three products of m²·n operations and
four reductions of 4/3·m³, only the leading vectors are made, and beside h and δ one array of their size
and two of m² are held. The leading direction of δ as it stands is
mostly the mean write; and one massive token or one outlier feature can carry it alone. So the
spectrum is also taken with the mean removed, with every token's write scaled to length one, and
with the largest feature dimensions left out, and the energy shares of all three are recorded.
"""

from collections.abc import Sequence, Set
from dataclasses import dataclass, field

import torch

from analyses.delta_svd.left_out import SPAN, LeftOut, left_out
from analyses.numerics.spectra import EPS, eigenvalues, energy_entropy, gram, leading_modes

TOP = 10  # singular values kept
DIRECTIONS = 8  # top directions kept per layer, as many as a phase's shared basis holds
FORMS = frozenset({"plain", "unit_rows", "without_outliers"})  # of a write, beside the centred one
OUTLIER_SHARE = 0.01  # of the feature dimensions, by energy, are left out; at least one


@dataclass(frozen=True, slots=True, kw_only=True)
class Spectrum:
    """Leading part of a write's spectrum; energies are σ²."""

    singvals: list[float]  # up to TOP, descending
    eff_rank: float  # e^S of the spectral entropy, from 1
    top1_frac: float  # share of σ₁² in Σσ², in (0, 1]
    top3_frac: float  # of the three largest
    top10_frac: float  # of the ten largest


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """Sizes and angles of a write, token by token; standard deviations with ddof 0."""

    frob: float  # ‖δ‖_F
    token_norm_mean: float  # ‖δ_t‖
    token_norm_std: float
    h_norm_mean: float  # ‖h_t‖, of the layer's input
    rel_step_mean: float | None  # ‖δ_t‖/‖h_t‖, over tokens with h_t ≠ 0
    rel_step_std: float | None
    cos_delta_h_mean: float | None  # cos(δ_t, h_t), over tokens where neither is zero; −1 to 1
    parallel_frac: float | None  # |cos(δ_t, h_t)|, 0 to 1


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerWrite:
    """One layer's write, as published (`size`, `spectrum`) and corrected."""

    size: Size
    # Each of the next four is None where it was not asked for, too.
    spectrum: Spectrum | None  # of δ; None where the layer writes nothing
    centred: Spectrum | None  # mean over tokens removed; None where every token gets the same write
    unit_rows: Spectrum | None  # every token's write scaled to length 1, zero writes left out
    without_outliers: Spectrum | None  # the largest feature dimensions left out
    mean_share: float | None  # energy share of the mean write, 0 to 1
    top_token_share: float | None  # energy share of the largest token's write
    outlier_dims: list[int]  # the feature dimensions left out, by falling energy
    outlier_share: float | None  # their energy share
    energy_error: float  # |σ₁² − top1_frac·‖δ‖²| / ‖δ‖², an identity
    # statistic → its values with each group of the text left out, (group,)
    without: dict[str, torch.Tensor] = field(default_factory=dict)
    centred_without: LeftOut | None = None  # of the centred write


def layer_write(
    h: torch.Tensor, delta: torch.Tensor, groups: Sequence[slice] = (), forms: Set[str] = FORMS
) -> tuple[LayerWrite, torch.Tensor, torch.Tensor]:
    """Statistics of one layer's write and its top directions.

    Parameters
    ----------
    h, delta : (token, hidden) float64, the layer's input and write.
    groups : runs of tokens, each of which is left out once (`left_out`).
    forms : those whose spectra are taken, beside that of the centred write; of another there is none.

    Returns
    -------
    write, directions, centred directions; directions are (SPAN, hidden), see `principal`.
    """
    tokens, hidden = delta.shape
    of_size, without = size(h, delta, groups)
    varied = delta.square()  # all that is held beside h and δ: their energies first, then δ in one form after another
    total = float(varied.sum())
    by_dim, by_token = varied.sum(0), varied.sum(1)
    out = by_dim.argsort(descending=True, stable=True)[: max(1, int(OUTLIER_SHARE * hidden))]
    kept = torch.ones(hidden, dtype=torch.bool, device=delta.device)
    kept[out] = False
    mean = delta.mean(0)
    small_gram = smaller_gram(torch.sub(delta, mean, out=varied))
    centred_energies, centred_directions = modes(small_gram, varied, SPAN)
    # The mean of identical rows is rounded, which must not pass for a write that varies.
    varies = float(centred_energies.sum()) > (EPS * tokens) ** 2 * total
    centred_without = left_out(varied, centred_directions, groups, centred=True) if groups and varies else None
    plain, directions, rest, unit = None, delta.new_zeros(SPAN, hidden), None, None
    if forms & {"plain", "without_outliers"}:
        small_gram = small_gram.addr_(mean, mean, alpha=tokens) if tokens >= hidden else smaller_gram(delta)
    if "plain" in forms:
        plain, directions = modes(small_gram, delta, SPAN)
    if "without_outliers" in forms:
        rest = _energies(small_gram[kept][:, kept] if tokens >= hidden else gram(delta[:, kept]))
    del small_gram
    if groups and "plain" in forms:
        without["top1_frac"] = left_out(delta, directions, groups, centred=False).top1
    if "unit_rows" in forms:
        torch.div(delta, by_token.sqrt().where(by_token > 0, 1.0)[:, None], out=varied)
        unit, span = principal(varied, SPAN) if groups else (_energies(smaller_gram(varied)), None)
        if groups:
            without["top1_frac_unit_rows"] = left_out(varied, span, groups, centred=False).top1

    def share(energy: torch.Tensor) -> float | None:
        return float(energy) / total if total else None

    spectrum = _spectrum(plain)
    write = LayerWrite(
        size=of_size,
        spectrum=spectrum,
        centred=_spectrum(centred_energies) if varies else None,
        unit_rows=_spectrum(unit),
        without_outliers=_spectrum(rest),
        mean_share=share(tokens * mean.square().sum()),
        top_token_share=share(by_token.max()),
        outlier_dims=out.tolist(),
        outlier_share=share(by_dim[out].sum()),
        energy_error=abs(float(plain[0]) - spectrum.top1_frac * total) / total if spectrum else 0.0,
        without=without,
        centred_without=centred_without,
    )
    return write, directions, centred_directions if varies else torch.zeros_like(directions)


def size(h: torch.Tensor, delta: torch.Tensor, groups: Sequence[slice] = ()) -> tuple[Size, dict[str, torch.Tensor]]:
    """Sizes and angles of a write, and those with each group left out; h, delta (token, hidden) float64."""
    h_norm, norm = h.norm(dim=1), delta.norm(dim=1)  # (token,)
    reads = h_norm > 0
    both = reads & (norm > 0)
    every_step, every_cos = norm / h_norm, (h * delta).sum(1) / (h_norm * norm)
    step, cos = every_step[reads], every_cos[both]
    found = Size(
        frob=float(delta.norm()),
        token_norm_mean=float(norm.mean()),
        token_norm_std=float(norm.std(correction=0)),
        h_norm_mean=float(h_norm.mean()),
        rel_step_mean=float(step.mean()) if len(step) else None,
        rel_step_std=float(step.std(correction=0)) if len(step) else None,
        cos_delta_h_mean=float(cos.mean()) if len(cos) else None,
        parallel_frac=float(cos.abs().mean()) if len(cos) else None,
    )
    steps, angles = _means_without(every_step, reads, groups), _means_without(every_cos.abs(), both, groups)
    return found, {"rel_step_mean": steps, "parallel_frac": angles} if groups else {}


def _means_without(values: torch.Tensor, counted: torch.Tensor, groups: Sequence[slice]) -> torch.Tensor:
    """Mean of (token,) values with each group left out, of the tokens that are counted; (group,), NaN where none is."""
    values = values.where(counted, 0)
    sums = torch.tensor([float(values[part].sum()) for part in groups], dtype=torch.float64)
    n = torch.tensor([float(counted[part].sum()) for part in groups], dtype=torch.float64)
    return (sums.sum() - sums) / (n.sum() - n)


def principal(x: torch.Tensor, k: int = DIRECTIONS) -> tuple[torch.Tensor, torch.Tensor]:
    """Energies and leading right singular vectors of a (token, hidden) float64 matrix, see `modes`."""
    return modes(smaller_gram(x), x, k)


def smaller_gram(x: torch.Tensor) -> torch.Tensor:
    """Gram matrix of the smaller side of a (token, hidden) matrix: over hidden if both are equal."""
    return gram(x.mT if x.shape[0] >= x.shape[1] else x)


def modes(small_gram: torch.Tensor, x: torch.Tensor, k: int = DIRECTIONS) -> tuple[torch.Tensor, torch.Tensor]:
    """Energies and leading right singular vectors of x through the Gram matrix of its smaller side.

    Parameters
    ----------
    small_gram : `smaller_gram(x)`. x : (token, hidden) float64.

    Returns
    -------
    energies : (min(token, hidden),) σ², descending. directions : (k, hidden) orthonormal rows, the
    largest entry of each positive; zero rows where the rank of x is smaller than k.
    """
    tokens, hidden = x.shape
    values, vectors = leading_modes(small_gram, min(k, tokens, hidden))
    energies = values.flip(0).clamp_min(0)
    vectors = vectors.flip(1).mT  # (≤ k, token or hidden)
    rows = vectors if tokens >= hidden else vectors @ x
    # Below this the vectors span what rounding left over, in no direction of the data.
    real = energies[:k] > EPS * max(tokens, hidden) * energies[0]
    rows = torch.where(real[:, None], torch.nn.functional.normalize(rows, dim=1), 0)
    largest = rows.gather(1, rows.abs().argmax(1, keepdim=True))
    rows = rows * torch.where(largest < 0, -1.0, 1.0)
    return energies, torch.nn.functional.pad(rows, (0, 0, 0, k - len(rows)))


def _energies(small_gram: torch.Tensor) -> torch.Tensor:
    """σ² from a Gram matrix, descending; one zero where there is nothing."""
    return eigenvalues(small_gram).flip(0).clamp_min(0) if small_gram.numel() else small_gram.new_zeros(1)


def _spectrum(energies: torch.Tensor | None) -> Spectrum | None:
    if energies is None or (total := energies.sum()) == 0:
        return None
    share = energies / total
    return Spectrum(
        singvals=energies[:TOP].sqrt().tolist(),
        eff_rank=float(energy_entropy(energies).exp()),
        top1_frac=float(share[0]),
        top3_frac=float(share[:3].sum()),
        top10_frac=float(share[:10].sum()),
    )
