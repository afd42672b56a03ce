"""Seven numbers that describe a head's spectrum.

The seven of the published scripts, for singular values σ_1 ≥ … ≥ σ_d of a head. anisotropy ≡ d/rank_eff, so the two
carry the same information, and a regression on both is collinear.
"""

import numpy as np

DESCRIPTORS = ("op", "fro", "trace", "rank_eff", "spec_ent", "anisotropy", "condition")


def describe(sigma: np.ndarray) -> dict[str, np.ndarray]:
    """Seven descriptors of each spectrum.

    Parameters
    ----------
    sigma : (..., mode) singular values, any order, float64; NaN for a head that has none.

    Returns
    -------
    name → (...): `op` σmax, `fro` √Σσ², `trace` Σσ, in the unit of σ; `rank_eff` Σσ/σmax and `anisotropy` σmax/mean σ,
    1 to d; `spec_ent` −Σ p ln p of p = σ²/Σσ², nats, 0 to ln d; `condition` σmax/σmin ≥ 1.
    NaN for all of a zero spectrum, and for the condition number where σmin is rounding error: a singular value is right
    to about d·eps·σmax only.

    >>> {name: round(float(value), 3) for name, value in describe(np.array([2.0, 1.0])).items()}["rank_eff"]
    1.5
    """
    modes = sigma.shape[-1]
    largest, smallest, total = sigma.max(-1), sigma.min(-1), sigma.sum(-1)
    alive = largest > 0
    largest = np.where(alive, largest, np.nan)
    share = np.square(sigma / largest[..., None])
    share /= share.sum(-1, keepdims=True)
    entropy = -np.sum(share * np.log(np.where(share > 0, share, 1)), -1)
    resolved = smallest > modes * np.finfo(float).eps * largest  # false for a NaN
    return {
        "op": largest,
        "fro": np.where(alive, np.linalg.norm(sigma, axis=-1), np.nan),
        "trace": np.where(alive, total, np.nan),
        "rank_eff": total / largest,
        "spec_ent": entropy + 0.0,  # no −0.0 in the record
        "anisotropy": largest * modes / np.where(alive, total, np.nan),
        "condition": np.where(resolved, largest, np.nan) / np.where(resolved, smallest, 1),
    }
