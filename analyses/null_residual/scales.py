"""Principal-component analysis of scale tracks over depth.

The track of a family is ln ‖W_ℓ‖_F over the layers. Principal components are taken over families
(rows, each centred over layers) by one small SVD. A first mode always explains something: a single
loud family alone gives a share of 0.94, and tracks that merely wander share a trend by accident.
Hence the same with each track scaled to unit variance, and two nulls: tracks shuffled over layers
(Horn's parallel analysis) and random walks made of the track's own steps.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

DRAWS = 1000  # of each null; the 95 % level is then right to about 0.7 percentage points in rank
LEVEL = 0.95  # one-sided
NULLS = ("parallel_95", "walk_95")  # tracks shuffled over layers, and random walks of their steps
CONSTANT = 1e-13  # standard deviation of a log-scale below this is rounding of the norm


@dataclass(frozen=True, slots=True, kw_only=True)
class ScalePca:
    """Principal components of log-scale tracks, centred over layers; modes by falling variance."""

    families: list[str]  # rows, in the order of the loadings
    singvals: list[float]  # (mode,)
    loadings: list[list[float]]  # (family, mode), unit columns; each one's largest entry is positive
    scores: list[list[float]]  # (layer, mode) = projection of each layer on the loadings
    explained: list[float] | None  # (mode,) share of variance; None where nothing varies
    # The 95 % levels of the share under NULLS, (mode,); None where nothing varies, or where they were not asked for.
    parallel_95: list[float] | None = None
    walk_95: list[float] | None = None


def log_tracks(scales: Mapping[str, Sequence[float] | None]) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Log-scale track (layer,) of each family that has one, and why the others have none.

    A scale of 0 has no logarithm; a family that has one anywhere is left out as a whole.
    """
    tracks, excluded = {}, {}
    for family, values in scales.items():
        if values is None:
            continue
        if None in values:
            having = sum(value is not None for value in values)
            excluded[family] = f"{family} is in {having} of {len(values)} layers, so it has no track over all of them"
            continue
        if min(values) <= 0:
            excluded[family] = (
                f"{family} is all zero in {sum(v <= 0 for v in values)} layers, so its log-scale is undefined"
            )
        else:
            tracks[family] = np.log(np.asarray(values, dtype=np.float64))
    return tracks, excluded


def is_constant(track: np.ndarray) -> bool:
    return float(np.std(track)) <= CONSTANT


def scale_pca(
    tracks: Mapping[str, np.ndarray], *, seed: int, standardise: bool, nulls: Sequence[str] = NULLS
) -> ScalePca | None:
    """PCA of log-scale tracks with the 95 % levels of its shares under two nulls.

    Parameters
    ----------
    tracks : family → (layer,) float64; equal lengths.
    standardise : divide each track by its standard deviation; constant tracks are left out.
    nulls : the first of NULLS that are wanted.

    Returns
    -------
    None for fewer than two families: one track is its own first mode.
    """
    kept = {f: t for f, t in tracks.items() if not (standardise and is_constant(t))}
    if len(kept) < 2:
        return None
    raw = np.stack(list(kept.values()))  # (family, layer)
    u, s, vt = np.linalg.svd(prepared(raw, standardise), full_matrices=False)
    # A singular vector's sign is arbitrary; this choice keeps the record the same everywhere.
    signs = np.sign(u[np.abs(u).argmax(axis=0), np.arange(len(s))])
    u, vt = u * signs, vt * signs[:, None]
    varies = any(not is_constant(t) for t in kept.values())
    drawn = zip(nulls, _null_tracks(raw, seed), strict=False) if varies else ()
    return ScalePca(
        families=list(kept),
        singvals=s.tolist(),
        loadings=u.tolist(),
        scores=(vt.T * s).tolist(),
        explained=shares(raw, standardise).tolist() if varies else None,
        **{null: np.quantile(shares(of, standardise), LEVEL, axis=0).tolist() for null, of in drawn},
    )


def prepared(tracks: np.ndarray, standardise: bool) -> np.ndarray:
    """Tracks (..., family, layer) centred over layers, and scaled to unit variance if asked.

    A constant track stays zero: it has no variance to be scaled to.
    """
    centred = tracks - tracks.mean(axis=-1, keepdims=True)
    if not standardise:
        return centred
    spread = centred.std(axis=-1, keepdims=True)
    moving = spread > CONSTANT
    return np.where(moving, centred, 0.0) / np.where(moving, spread, 1.0)


def shares(tracks: np.ndarray, standardise: bool) -> np.ndarray:
    """Share of variance per mode, (..., min(family, layer)), of tracks (..., family, layer).

    NaN where no track varies.
    """
    rows = prepared(tracks, standardise)
    rows = rows if rows.shape[-2] <= rows.shape[-1] else rows.swapaxes(-1, -2)
    # The Gram matrix loses digits of small modes, at 1e-16 of the total, and takes half the time of the SVD.
    energy = np.linalg.eigvalsh(rows @ rows.swapaxes(-1, -2))[..., ::-1].clip(0)
    total = energy.sum(axis=-1, keepdims=True)
    return np.where(total > 0, energy / np.where(total > 0, total, 1.0), np.nan)


def walk_p(tracks: np.ndarray, *, seed: int) -> float:
    """Share of random walks whose first mode explains as much as that of the standardised tracks, or more; +1 rule.

    Parameters
    ----------
    tracks : (family, layer) float64; the walks are made of each track's own steps, as in `scale_pca`.
    """
    _, walks = _null_tracks(tracks, seed)
    as_extreme = shares(walks, True)[:, 0] >= shares(tracks, True)[0] - CONSTANT  # equal ones up to rounding count
    return (1 + int(as_extreme.sum())) / (1 + DRAWS)


def _null_tracks(tracks: np.ndarray, seed: int) -> Iterator[np.ndarray]:
    """(draw, family, layer) tracks under each of NULLS, drawn when asked for, each family on its own.

    The walks take the track's own steps, in random order and with random signs: the step sizes are
    the model's, the direction is chance's, and no step distribution is assumed.
    """
    rng = np.random.default_rng([seed, 0])
    repeated = np.broadcast_to(tracks, (DRAWS, *tracks.shape))
    yield rng.permuted(repeated, axis=-1)
    steps = rng.permuted(np.diff(repeated, axis=-1), axis=-1)
    walks = np.cumsum(steps * rng.choice([-1.0, 1.0], size=steps.shape), axis=-1)
    yield np.concatenate([np.zeros((*walks.shape[:-1], 1)), walks], axis=-1)
