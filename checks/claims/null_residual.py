"""Gates of null_residual: what adjacent layers share."""

from checks.claims.gate import Condition, Gate, identity

_STORED = (
    "The published script stopped at the stored coordinates: reordering one layer's neurons or heads changes these "
    "cosines and leaves the model as it was. What it cannot remove is a mean that all rows share."
)
_GAINS = (
    "The published script compared gains with √2. That is no null for vectors of positive entries: unrelated gains "
    "have a cosine of about 0.98 and a residual of about 0.2, as the permutation null says."
)
_IMPROVE = (
    "The published improve_frac is upside down: it equals 1 − √((1+cos)/2), that is 0.293 for unrelated layers and 0 "
    "for identical ones. The share explained by a scalar multiple, which its text promised, is cos²."
)
_SPECTRA = "The published script left the residual's spectrum null, because the SVD was too slow."
_MISSING = "In the published script one family that a model lacks crashed the step that reads the scales."

INTEGRITY = (
    identity(
        "null_residual.resid_direct",
        "The residual's norm computed from the residual is √(2 − 2cos)",
        "largest |resid² − (2 − 2cos)|",
        limit=1e-12,
        reason=(
            "Sums of N products in float64 err by less than N·eps·max, in practice by about √N·eps/8: "
            "2e-13 at 10⁸ entries, so 1e-12 leaves room for the largest matrices"
        ),
    ),
    identity(
        "null_residual.scalar_resid",
        "What the best scalar multiple explains and what it leaves add up to one",
        "largest |scalar_resid² + cos² − 1|",
        limit=1e-12,
        reason="Pythagoras; the same rounding as for the residual's norm",
    ),
    identity(
        "null_residual.pearson_z",
        "The distance from the permutation null in standard deviations is Pearson's r times √(N−1)",
        "largest |(cos − null_cos) − r·√(N−1)·null_sd|",
        limit=1e-12,
        reason="Both sides are cosines of at most 1; the same rounding as for the residual's norm",
    ),
    identity(
        "null_residual.spectrum_energy",
        "The squared singular values of a residual add up to its squared norm",
        "largest |Σσ² − ‖Δ‖²| relative to ‖Δ‖²",
        limit=1e-10,
        reason=(
            "Eigenvalues of a Gram matrix of side m err by at most m·eps·σ₁² each, their sum by m²·eps relative: "
            "1e-10 at side 670 in the worst case, and 5e-16 as measured"
        ),
    ),
)

_WRITES = (
    "The published cosines compare stored entries, whose rows and columns are in an arbitrary order. What two layers "
    "do can be compared: both are given the same states, and what they write on them is held against each other."
)
_READS = (
    "A common pattern of gains can be moved into the matrices that read them. What is left of it when gains are folded "
    "in is which directions of the stream a layer reads most."
)

MODEL = (
    Gate(
        id="NR1",
        kind="absence",
        section="null_residual",
        claim="Adjacent layers do unrelated things: what they write on the same states is nearly orthogonal",
        conditions=(
            Condition(
                path="delta_svd.metrics.functional_cos",
                comparator="<=",
                threshold=0.1,
                quantity="median over layer pairs of |cos| of what both write on the first one's states, worst branch",
            ),
        ),
        minimum={"pairs": 4},
        reason="A cosine of 0.1 is one percent of explained variance, as for the stored entries",
        errata=_WRITES,
    ),
    Gate(
        id="NR3",
        kind="absence",
        claim="Adjacent layers read and write in different directions, as far as their own spectra allow",
        conditions=(
            Condition(
                path="null_residual.metrics.read_write_rank_ratio",
                comparator=">=",
                threshold=0.8,
                quantity="median over layer pairs of the summed Grams' effective rank / its Haar null, worst Gram",
            ),
        ),
        minimum={"pairs": 4},
        reason=(
            "Unrelated eigenvectors give 1; a sum that fills less than four fifths of what the two spectra allow has "
            "shared directions"
        ),
        errata=_SPECTRA,
    ),
    Gate(
        id="NR4",
        kind="schedule",
        claim="The invariant scales of a layer's parts move along one mode over depth",
        conditions=(
            Condition(
                path="null_residual.metrics.invariant_first_mode",
                comparator=">=",
                threshold=0.8,
                quantity="share of the first mode of the standardised logarithms of the invariant scales",
            ),
            Condition(
                path="null_residual.metrics.invariant_first_mode_walk_p",
                comparator="<=",
                threshold=0.05,
                quantity="share of random walks of the tracks' own steps with as large a first mode",
                test=True,
            ),
        ),
        minimum={"layers": 12},
        reason="Four fifths of the variance in one mode leaves no room for a second; wandering tracks share modes too",
        errata=_MISSING,
    ),
    Gate(
        id="NR5",
        kind="presence",
        claim="Adjacent layers read the same directions of the residual stream most",
        conditions=(
            Condition(
                path="null_residual.metrics.read_alignment",
                comparator=">=",
                threshold=0.3,
                quantity="median over layer pairs of the alignment of their read Grams less their mean, worst reader",
            ),
        ),
        minimum={"pairs": 4},
        reason="0.3 is nine percent of the shared variance, the usual 'medium' association; unrelated layers have 0",
        errata=_READS + " " + _GAINS,
    ),
)

STORED = (
    Gate(
        id="NR1.stored",
        row="stored",
        kind="absence",
        claim="Adjacent layers' projections are unrelated in their stored coordinates",
        conditions=(
            Condition(
                path="null_residual.metrics.worst_median_abs_cos",
                comparator="<=",
                threshold=0.1,
                quantity="median over layer pairs of |cos|, worst matrix family, stored coordinates",
            ),
        ),
        minimum={"pairs": 4},
        reason=(
            "A cosine of 0.1 is one percent of explained variance; chance gives 1/√N, "
            "which is below 0.01 for any matrix of 10⁴ entries"
        ),
        errata=_STORED,
    ),
    Gate(
        id="NR1m",
        kind="absence",
        claim="Adjacent layers' projections are unrelated also after the best matching of their neurons and heads",
        conditions=(
            Condition(
                path="null_residual.metrics.worst_median_abs_cos_matched",
                comparator="<=",
                threshold=0.1,
                quantity="median over layer pairs of |mean cos of matched units|, worst of gate, up, down, qk and vo",
            ),
        ),
        minimum={"pairs": 4},
        reason=(
            "The same limit as in stored coordinates. Each matrix is scored on a matching found on the other matrices "
            "of its block, so that chance gives about 0; on its own matching, chance alone would be over the limit"
        ),
        errata=_STORED,
    ),
    Gate(
        id="NR2.stored",
        row="stored",
        kind="absence",
        claim="A scalar multiple of one layer explains almost nothing of the next, in the stored coordinates",
        conditions=(
            Condition(
                path="null_residual.metrics.worst_median_cos_sq",
                comparator="<=",
                threshold=0.05,
                quantity="median over layer pairs of cos², the share of the next layer explained, worst matrix family",
            ),
        ),
        minimum={"pairs": 4},
        reason="Five percent of the energy is the usual limit of 'almost nothing'; chance gives 1/N",
        errata=_IMPROVE,
    ),
    Gate(
        id="NR3.stored",
        row="stored",
        kind="absence",
        claim="The residual between adjacent layers is as full-rank as the two matrices' own spectra allow",
        conditions=(
            Condition(
                path="null_residual.metrics.worst_eff_rank_ratio",
                comparator=">=",
                threshold=0.8,
                quantity="median over layer pairs of effective rank / its Haar null, worst matrix family",
            ),
        ),
        minimum={"pairs": 4, "side": 32},
        reason=(
            "Unrelated singular vectors give 1, known to 0.5 % from the seeded draws; a residual that fills less than "
            "four fifths of what the two spectra allow has shared directions"
        ),
        errata=_SPECTRA,
    ),
    Gate(
        id="NR4.stored",
        row="stored",
        kind="schedule",
        claim="The scales of all families move along one mode over depth",
        conditions=(
            Condition(
                path="null_residual.metrics.first_mode_standardised",
                comparator=">=",
                threshold=0.8,
                quantity="share of the first mode of the standardised log-scale tracks",
            ),
            Condition(
                path="null_residual.metrics.first_mode_above_parallel",
                comparator=">",
                threshold=0.0,
                quantity="that share less the 95 % level of parallel analysis",
            ),
        ),
        minimum={"layers": 12},
        reason=(
            "Four fifths of the variance in one mode leaves no room for a second of comparable size; tracks are "
            "standardised because one loud family alone reaches 0.94"
        ),
        errata=_MISSING,
    ),
    Gate(
        id="NR5.stored",
        row="stored",
        kind="presence",
        claim="The norm gains of adjacent layers share a pattern over features",
        conditions=(
            Condition(
                path="null_residual.metrics.worst_gain_pearson",
                comparator=">=",
                threshold=0.3,
                quantity="median over layer pairs of Pearson's r between gains, worst gain family",
            ),
            Condition(
                path="null_residual.metrics.worst_gain_z",
                comparator=">=",
                threshold=3.0,
                unit="sd",
                quantity="median over layer pairs of the distance from random matchings of features, worst gain family",
            ),
        ),
        minimum={"pairs": 4},
        reason=(
            "r = 0.3 is nine percent of the variance, the customary 'medium' association; 3 standard deviations of the "
            "permutation null keep short gains (a head's q and k norms) from passing by chance"
        ),
        errata=_GAINS,
    ),
)

CLAIMS = (*MODEL, *STORED)
