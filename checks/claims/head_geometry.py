"""Gates of head_geometry: what must hold of every correlation, and that a head's spectrum predicts its attention."""

from checks.claims.gate import Condition, Gate, identity

_DEPTH = (
    "The pooled correlation can have the opposite sign of every layer's own, and thirds of the depth do not protect. "
    "Its chance level must keep the drift over depth: freely permuting heads rejects 63 to 100 % of unrelated drifting "
    "tracks. "
)
_COORDINATES = (
    "Under q/k norms W_q times 2^⌊ℓ/3⌋ alone leaves the model's function unchanged and moves r from 0.01 to 0.95. "
    "Without them a larger head metric lowers the entropy by arithmetic, on shuffled weights too."
)

INTEGRITY: tuple[Gate, ...] = (
    identity(
        "head_geometry.anisotropy_rank_eff",
        "A spectrum's anisotropy times its effective rank Σσ/σmax is the number of its singular values",
        "relative distance of the product from the number of singular values",
        limit=1e-14,
        reason="The same sum divides and is divided: four roundings of 1.1e-16 each, with room.",
        errata="Hence the published regression, on both, is collinear (variance inflation over 100).",
    ),
    identity(
        "head_geometry.r_decomposition",
        "Every pooled correlation is the sum of its within-layer and its between-layer part",
        "distance of the pooled r from the sum of its parts",
        limit=1e-6,
        reason="Sums of squares add up to rounding, 1e-16 times the number of heads; a part that holds less than 1e-13 "
        "of the variance is called empty, which leaves out at most its root, 3e-7.",
    ),
)

_MECHANICAL = (
    "Gains are folded in and scales that cancel are taken off. Even so a head with a larger metric attends more "
    "sharply by arithmetic, whatever its weights: models with shuffled weights say how much of the association that is."
)

CLAIMS: tuple[Gate, ...] = (
    Gate(
        id="HE1",
        kind="association",
        claim="A descriptor of the head's spectrum, gains folded in, predicts the head's attention entropy",
        conditions=(
            Condition(
                path="head_geometry.metrics.gained_best_abs_r",
                comparator=">=",
                threshold=0.5,
                quantity="|r| of the best of seven descriptors with entropy, over all heads",
            ),
            Condition(
                path="head_geometry.metrics.gained_best_drift_p",
                comparator="<=",
                threshold=0.05,
                quantity="probability that tracks with the same trends over depth give as large a best of seven",
                test=True,
                power="head_geometry.metrics.gained_best_power",
                effect="a planted correlation of 0.5",
            ),
        ),
        reason="0.5 is a quarter of the variance explained.",
        minimum={"layers": 8},
        errata=_DEPTH + _MECHANICAL,
    ),
    Gate(
        id="HE2",
        kind="association",
        claim="That descriptor, gains folded in, predicts entropy also among the heads of a layer",
        conditions=(
            Condition(
                path="head_geometry.metrics.gained_within_r",
                comparator=">=",
                threshold=0.3,
                quantity="within-layer r, positive where its sign is that of the pooled r",
            ),
            Condition(
                path="head_geometry.metrics.gained_within_p",
                comparator="<=",
                threshold=0.05,
                quantity="probability that key/value groups permuted inside layers give as large a within-layer |r|",
                test=True,
                power="head_geometry.metrics.gained_within_power",
                effect="a planted correlation of 0.3 within layers",
            ),
        ),
        reason="0.3 is a tenth of the variance inside layers; with 60 degrees of freedom chance gives 0.25 once in 20.",
        minimum={"layers": 8, "degrees_of_freedom_within_layers": 24},
        errata=_DEPTH + _MECHANICAL,
    ),
    Gate(
        id="HE3",
        kind="association",
        claim="A regression on the head's spectrum, gains folded in, explains entropy in layers that it has not seen",
        conditions=(
            Condition(
                path="head_geometry.metrics.gained_regression_r2",
                comparator=">=",
                threshold=0.25,
                quantity="R² of entropy on σmax, spectral entropy and effective rank, with whole layers as folds",
            ),
        ),
        reason="The share of variance that |r| of 0.5 explains, now for layers left out of the fit.",
        minimum={"layers": 8, "heads": 32},
        errata=_MECHANICAL,
    ),
    Gate(
        id="HE1.stored",
        row="stored",
        kind="association",
        claim="A descriptor of the stored head metric's spectrum predicts a head's attention entropy",
        conditions=(
            Condition(
                path="head_geometry.metrics.best_abs_r",
                comparator=">=",
                threshold=0.5,
                quantity="|r| of the best of seven descriptors with entropy, over all heads",
            ),
            Condition(
                path="head_geometry.metrics.best_abs_r_shift_p",
                comparator="<=",
                threshold=0.05,
                quantity="probability that rearranged layers give as large a best of seven",
            ),
        ),
        reason="0.5 is a quarter of the variance explained. With ten layers the least p of 2L arrangements is 0.05.",
        minimum={"layers": 10},
        errata=_DEPTH + _COORDINATES,
    ),
    Gate(
        id="HE2.stored",
        row="stored",
        kind="association",
        claim="That descriptor of the stored head metric's spectrum predicts entropy also among the heads of a layer",
        conditions=(
            Condition(
                path="head_geometry.metrics.within_r_signed",
                comparator=">=",
                threshold=0.3,
                quantity="within-layer r, positive where its sign is that of the pooled r",
            ),
            Condition(
                path="head_geometry.metrics.within_r_p",
                comparator="<=",
                threshold=0.05,
                quantity="probability that heads permuted inside layers give as large a within-layer |r|",
            ),
        ),
        reason="0.3 is a tenth of the variance inside layers; with 60 degrees of freedom chance gives 0.25 once in 20.",
        minimum={"degrees_of_freedom_within_layers": 60},
        errata=_DEPTH + _COORDINATES,
    ),
    Gate(
        id="HE3.stored",
        row="stored",
        kind="association",
        claim="A regression on the stored head metric's spectrum explains entropy in layers that it has not seen",
        conditions=(
            Condition(
                path="head_geometry.metrics.r2_out_of_sample",
                comparator=">=",
                threshold=0.25,
                quantity="R² of entropy on σmax, spectral entropy and effective rank, with whole layers as folds",
            ),
        ),
        reason="The share of variance that |r| of 0.5 explains, now for layers left out of the fit.",
        minimum={"layers": 10, "heads": 50},
        errata="The published regression also has the anisotropy, which is d divided by the effective rank: its "
        "coefficients are not determined (variance inflation over 100), and its R² was taken in the sample. "
        + _COORDINATES,
    ),
)
