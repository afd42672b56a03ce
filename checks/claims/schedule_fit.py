"""Gates of schedule_fit: what must hold of every fit, and the claims that something follows a schedule over depth."""

from checks.claims.gate import Condition, Gate, identity

_FOR_A_LAW = {"layers": 24}
"""At 12 the interval of R² covers 0.74 of its 90 % where noise persists, and a law is told from walks in 7 % of trials
(docs/calibration.md); at 24 the shares are 0.88 and 94 %."""
_NOT_A_TEMPERATURE = (
    "T ∝ 1/γ is no temperature: with q/k norms a uniform factor of the input norm cancels in the logits, and without "
    "them logits scale as γ². Multiplying the gain of layer ℓ by 2^⌊ℓ/3⌋ and dividing the projections that read it by "
    "the same factor leaves the model's function unchanged and makes this fit report an exponential cooling: R² 0.91 "
    "to 0.95, by the number of layers."
)

INTEGRITY: tuple[Gate, ...] = (
    identity(
        "schedule_fit.akaike_weights_sum",
        "The Akaike weights of the forms compared on one track sum to 1",
        "distance of the sum from 1",
        limit=1e-14,
        reason="Six quotients by their own sum, each rounded once: 6 × 1.1e-16 in the terms, as much again in adding.",
    ),
    identity(
        "schedule_fit.nested_rss",
        "A form fits no worse than the special cases that it contains",
        "excess residual square sum, relative to the centred square sum of ln y",
        limit=1e-8,
        reason="Each search starts from its special cases. What is left is rounding: ln y is right to 1e-15, against a "
        "range of at least 1e-6 in a track that is not called constant, so 1e-9 in the ratio, and a factor of ten.",
    ),
    identity(
        "schedule_fit.line_residuals",
        "For the forms that are lines of ln y, explained and residual square sums add up to the total",
        "gap between total and the two parts, relative to the total",
        limit=1e-8,
        reason="Residuals of a least-squares line are orthogonal to it; rounding as for nested forms.",
    ),
)

CLAIMS: tuple[Gate, ...] = (
    Gate(
        id="SF1",
        kind="schedule",
        claim="The invariant scales of a layer's parts follow a smooth schedule over depth",
        conditions=(
            Condition(
                path="schedule_fit.metrics.invariant_scale_r2",
                comparator=">=",
                threshold=0.9,
                quantity="R² of the best one-piece form of the scale's logarithm, worst scale",
            ),
            Condition(
                path="schedule_fit.metrics.invariant_scale_walk_p",
                comparator="<=",
                threshold=0.05,
                quantity="share of surrogates of the worst track (walks, autoregressions, orders) that fit as well",
                test=True,
                power="schedule_fit.metrics.invariant_scale_power",
                effect="the fitted law",
            ),
        ),
        reason="A schedule should leave at most a tenth of the variance of the log track unexplained, and a track that "
        "merely wanders should seldom look as smooth.",
        minimum=_FOR_A_LAW,
        errata="The published track is the stored gain, whose size can be moved into the matrices that read it.",
    ),
    Gate(
        id="SF2",
        kind="schedule",
        claim="The measured attention temperature follows an exponential cooling law",
        conditions=(
            Condition(
                path="schedule_fit.metrics.measured_exponential_r2",
                comparator=">=",
                threshold=0.9,
                quantity="R² of T₀·α^ℓ, of the measured temperature's logarithm",
            ),
            Condition(
                path="schedule_fit.metrics.measured_kirkpatrick_alpha",
                comparator="<",
                threshold=1.0,
                unit="per layer",
                quantity="cooling rate α of the measured temperature",
            ),
        ),
        reason="As published, of a temperature that is one: R² of at least 0.9, and a factor below 1.",
        minimum=_FOR_A_LAW,
        errata=_NOT_A_TEMPERATURE,
    ),
    Gate(
        id="SF1.stored",
        row="stored",
        kind="schedule",
        claim="The norm of the input gain, as stored, follows a smooth schedule over depth",
        conditions=(
            Condition(
                path="schedule_fit.metrics.input_gain_one_piece_r2",
                comparator=">=",
                threshold=0.9,
                quantity="R² of the best one-piece form, of the logarithm",
            ),
            Condition(
                path="schedule_fit.metrics.input_gain_two_piece_p",
                comparator=">",
                threshold=0.05,
                quantity="probability that noise or drift favours two pieces as much",
            ),
        ),
        reason="A schedule should leave at most a tenth of the variance of the log track unexplained; 0.05 is the "
        "usual level for preferring the form with a break.",
        minimum={"layers": 12},
        errata="The published two-piece form won on 300 of 300 tracks of pure noise: no penalty for its parameters, "
        "segments of two points, break off by one. Here forms are compared by AICc on one scale, and two pieces must "
        "beat what white noise and random walks give them.",
    ),
    Gate(
        id="SF2.stored",
        row="stored",
        kind="schedule",
        claim="The published attention temperature, the inverse norm of the input gain, cools exponentially",
        conditions=(
            Condition(
                path="schedule_fit.metrics.published_kirkpatrick_r2",
                comparator=">=",
                threshold=0.9,
                quantity="R² of T₀·α^ℓ, in linear space",
            ),
            Condition(
                path="schedule_fit.metrics.published_kirkpatrick_alpha",
                comparator="<",
                threshold=1.0,
                unit="per layer",
                quantity="cooling rate α of the published temperature",
            ),
        ),
        reason="As published: R² of at least 0.9, and a factor below 1, since a rising temperature is no cooling.",
        minimum={"layers": 12},
        errata=_NOT_A_TEMPERATURE,
    ),
    Gate(
        id="SF3",
        kind="schedule",
        claim="The measured attention temperature, the inverse spread of a layer's logits, falls with depth",
        conditions=(
            Condition(
                path="schedule_fit.metrics.measured_temperature_spearman",
                comparator="<=",
                threshold=-0.5,
                quantity="rank correlation of the measured temperature with depth",
                interval_bound=0.0,
            ),
        ),
        reason="Half of a perfect ranking is a trend that one sees; the interval must exclude no trend at all.",
        minimum={"layers": 12},
        errata=_NOT_A_TEMPERATURE,
    ),
    Gate(
        id="SF4",
        kind="schedule",
        claim="The measured attention temperature cools exponentially with depth, not linearly or logarithmically",
        conditions=(
            Condition(
                path="schedule_fit.metrics.measured_kirkpatrick_alpha",
                comparator="<",
                threshold=1.0,
                unit="per layer",
                quantity="cooling rate α of the measured temperature",
            ),
            Condition(
                path="schedule_fit.metrics.measured_kirkpatrick_weight",
                comparator=">=",
                threshold=0.9,
                quantity="Akaike weight of the exponential law",
            ),
        ),
        reason="A weight of 0.9 is odds of nine to one against all other laws together, the constant among them.",
        minimum={"layers": 12},
        errata=_NOT_A_TEMPERATURE,
    ),
    Gate(
        id="SF5",
        kind="schedule",
        claim="The size of a layer's main write cools or grows exponentially with depth",
        conditions=(
            Condition(
                path="schedule_fit.metrics.write_sigma1_r2",
                comparator=">=",
                threshold=0.9,
                quantity="R² of an exponential through the first singular value of the centred write, of its logarithm",
            ),
            Condition(
                path="schedule_fit.metrics.write_sigma1_walk_p",
                comparator="<=",
                threshold=0.05,
                quantity="share of its surrogates (walks, autoregressions, orders) that fit as well",
                test=True,
                power="schedule_fit.metrics.write_sigma1_power",
                effect="the fitted law",
            ),
        ),
        reason="The published text calls this number γ_L, and what Kirkpatrick's law was fitted to.",
        minimum=_FOR_A_LAW,
        errata="The scripts announce this schedule and never fit it: they fit the stored input gain instead.",
    ),
)
