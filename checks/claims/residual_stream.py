"""Gates of residual_stream: what must hold of any states, and what the field claims of the residual stream."""

from checks.claims.gate import Condition, Gate

_ROUNDING = "float64 sums over the hidden size of numbers that are exact: below 1e-12 up to a hidden size of 16,384"

INTEGRITY = (
    Gate(
        id="residual_stream.entropy_bound",
        kind="integrity",
        claim="The entropy of a prompt's states lies between 0 and that of equally many unrelated directions",
        conditions=(
            Condition(
                path="residual_stream.identities.entropy_bound",
                comparator="<=",
                threshold=1e-9,
                unit="",
                quantity="worst excess of the normalised entropy over 1, or below 0",
            ),
        ),
        reason="an inequality of entropies; eigenvalues of a Gram matrix are right to 256 eps of the largest, "
        "6e-14, and "
        "the entropy of a spectrum loses at most ln(1/eps) times as much",
    ),
    Gate(
        id="residual_stream.triangle",
        kind="integrity",
        claim="No state is longer than the one before it and what the layer wrote together, nor shorter than their "
        "difference",
        conditions=(
            Condition(
                path="residual_stream.identities.triangle",
                comparator="<=",
                threshold={"float32": 1e-6, "float64": 1e-12, "bfloat16": 1e-6, "float16": 1e-6},
                unit="",
                quantity="worst excess of |‖h'‖ − ‖h‖| over ‖δ‖, relative to the layer's largest state",
            ),
        ),
        reason=f"the triangle inequality; {_ROUNDING}, and states kept in float32 are right to 6e-8",
    ),
)

_ABSOLUTE = (
    "Published criteria count activations |x| > 100. Multiplying what is written to a pre-norm stream by a power "
    "of two "
    "leaves the model's function as it is and moves that count at will; the ratio to the median does not move."
)
_IDENTITY = (
    "The published score compares h_{ℓ+1} with a linear map of h_ℓ, on the tokens that the map was fitted to. Since "
    "h_{ℓ+1} = h_ℓ + δ, the identity alone scores nearly as much. Here only δ is predicted, on prompts not seen "
    "before."
)
_UNCENTRED = (
    "Under a LayerNorm the mean over features is invisible to the model and can be set at will; published "
    "cosines leave "
    "it in. Here it is taken out."
)
_ARC = (
    "The arc cosine of a cosine that rounding has carried beyond 1 is not a number, and near 1 it keeps half of the "
    "digits. Here angles come from chords."
)
_UNTRAINED = "Position 0 attends to itself alone: its state differs from all others in an untrained stack too."

CLAIMS = (
    Gate(
        id="RS1",
        kind="presence",
        claim="In some layer a few tokens have massive states, ten times as long as the median",
        conditions=(
            Condition(
                path="residual_stream.metrics.massive_ratio",
                comparator=">=",
                threshold=10.0,
                unit="× median",
                quantity="largest max‖h‖/median‖h‖ of any state",
            ),
        ),
        reason="ten times the median is what the word massive is used for; the ratio of a stack without such "
        "tokens is 1 "
        "to 3",
        minimum={"layers": 2},
        errata=f"{_ABSOLUTE} {_UNTRAINED}",
    ),
    Gate(
        id="RS2",
        kind="association",
        claim="Massive tokens and attention sinks rise and fall together over the layers",
        conditions=(
            Condition(
                path="residual_stream.metrics.massive_sink_rho",
                comparator=">=",
                threshold=0.5,
                unit="",
                quantity="Spearman's ρ over layers of max‖h‖/median‖h‖ with the mean attention on key 0",
            ),
            Condition(
                path="residual_stream.metrics.massive_sink_p",
                comparator="<=",
                threshold=0.05,
                unit="",
                quantity="share of rearrangements of layers with as large a ρ, trends removed",
                test=True,
                power="residual_stream.metrics.massive_sink_power",
                effect="a planted correlation of 0.7",
            ),
        ),
        reason="half of a perfect ranking; two tracks that merely drift must not pass for related",
        minimum={"layers": 10},
        errata="Two tracks over depth that each have a trend correlate whatever they are of: trends are removed "
        "first.",
        rival="RS2r",
    ),
    Gate(
        id="RS2r",
        kind="absence",
        claim="Among the layers that have massive tokens the sink does not follow their size: a norm hands each "
        "on alike",
        conditions=(
            Condition(
                path="residual_stream.metrics.plateau_rho",
                comparator="<=",
                threshold=0.3,
                unit="",
                quantity="|Spearman's ρ| of the two over the layers with a massive token",
            ),
        ),
        reason="0.3 is nine percent of shared variance, below the usual 'medium' association",
        minimum={"layers": 10},
        errata="The other reading of the same co-occurrence: what a pre-norm shows the heads of a massive token "
        "is of one "
        "length, whatever its state's is.",
        rival="RS2",
    ),
    Gate(
        id="RS3",
        kind="presence",
        claim="The middle layers compress their states, and massive tokens alone make it so",
        conditions=(
            Condition(
                path="residual_stream.metrics.valley_ratio",
                comparator="<=",
                threshold=0.5,
                unit="",
                quantity="least entropy of the middle third over the mean of the first and the last state's",
            ),
            Condition(
                path="residual_stream.metrics.valley_ratio_without_massive",
                comparator=">",
                threshold=0.5,
                unit="",
                quantity="the same without massive tokens",
            ),
        ),
        reason="half of the entropy is gone; that it is not gone without a few tokens says what it was",
        minimum={"layers": 6},
        errata="One long state makes any spectrum look compressed: the entropy of states that are not centred "
        "counts it.",
    ),
    Gate(
        id="RS4",
        kind="schedule",
        claim="The second half of the layers writes half as much as the first, relative to what is there",
        conditions=(
            Condition(
                path="residual_stream.metrics.half_ratio",
                comparator="<=",
                threshold=0.5,
                unit="",
                quantity="median ‖δ‖/‖h‖ of the second half over that of the first",
            ),
            Condition(
                path="residual_stream.metrics.half_ratio_walk_p",
                comparator="<=",
                threshold=0.05,
                unit="",
                quantity="share of its surrogates (walks, autoregressions, orders) that fall as much",
                test=True,
                power="residual_stream.metrics.half_ratio_power",
                effect="the fitted fall",
            ),
        ),
        reason="half as much is a fall that one sees, and a track that merely wanders should seldom fall so",
        minimum={"layers": 12},
        errata="A stream that only grows makes every later write smaller beside it, in an untrained stack too.",
        rival="RS4r",
    ),
    Gate(
        id="RS4r",
        kind="schedule",
        claim="Relative writes fall as those of a stack of unrelated writes of equal length do",
        conditions=(
            Condition(
                path="residual_stream.metrics.unrelated_departure",
                comparator="<=",
                threshold=0.223,
                unit="",
                quantity="|ln| of the ratio of halves over that of unrelated writes of equal length",
            ),
        ),
        reason="within a fifth of what equal and unrelated writes give, either way: 0.223 is ln 1.25",
        minimum={"layers": 12},
        errata="The other reading of the same fall: nothing in it but the stream's growth.",
        rival="RS4",
    ),
    Gate(
        id="RS5",
        kind="schedule",
        claim="The length of states grows exponentially with depth",
        conditions=(
            Condition(
                path="residual_stream.metrics.norm_exponential_weight_without_first",
                comparator=">=",
                threshold=0.9,
                unit="",
                quantity="Akaike weight of the exponential among constant, linear, √(a + bℓ) and exponential, "
                "position 0 "
                "left out",
            ),
            Condition(
                path="residual_stream.metrics.norm_growth_without_first",
                comparator=">",
                threshold=0.0,
                unit="per layer",
                quantity="growth of the median ‖h‖, position 0 left out",
            ),
            Condition(
                path="residual_stream.metrics.norm_walk_p_without_first",
                comparator="<=",
                threshold=0.05,
                unit="",
                quantity="share of its surrogates (walks, autoregressions, orders) that are as exponential",
                test=True,
                power="residual_stream.metrics.norm_power_without_first",
                effect="the fitted law",
            ),
        ),
        reason="a weight of 0.9 is odds of nine to one against all other forms together",
        minimum={"layers": 12},
        errata="A straight line in a logarithmic plot was read by eye; no other form was fitted beside it.",
        rival="RS5r",
    ),
    Gate(
        id="RS5r",
        kind="schedule",
        claim="The length of states grows as the root of depth, as that of a sum of unrelated writes does",
        conditions=(
            Condition(
                path="residual_stream.metrics.norm_root_weight_without_first",
                comparator=">=",
                threshold=0.9,
                unit="",
                quantity="Akaike weight of √(a + bℓ) among constant, linear, √(a + bℓ) and exponential, position "
                "0 left out",
            ),
        ),
        reason="the same odds as are asked of the exponential",
        minimum={"layers": 12},
        errata="The other reading of the same growth: unrelated writes of equal length add up so.",
        rival="RS5",
    ),
    Gate(
        id="RS6",
        kind="presence",
        claim="What a layer writes is a linear function of its states",
        conditions=(
            Condition(
                path="residual_stream.metrics.linear_r2",
                comparator=">=",
                threshold=0.9,
                unit="",
                quantity="median over layers of held-out R² of δ from h",
            ),
        ),
        reason="nine tenths of a write's variance; the published 0.99 is of a score that the identity nearly reaches",
        minimum={"layers": 2, "tokens_per_dimension": 2},
        errata=_IDENTITY,
    ),
    Gate(
        id="RS7",
        kind="schedule",
        claim="Deep blocks are redundant: the least angle across a tenth of the depth is small, and in the later half",
        conditions=(
            Condition(
                path="residual_stream.metrics.least_distance",
                comparator="<=",
                threshold=0.15,
                unit="",
                quantity="least mean angle, over π, of states a tenth of the depth apart",
            ),
            Condition(
                path="residual_stream.metrics.later_advantage",
                comparator=">",
                threshold=0.0,
                unit="",
                quantity="least distance of the first half less that of the later half",
            ),
        ),
        reason="0.15 is 27 degrees; unrelated states are at 0.5. The published figures are of the last token of "
        "each prompt",
        minimum={"layers": 12},
        errata=_ARC,
    ),
    Gate(
        id="RS8",
        kind="presence",
        claim="States point in like directions, more so with depth: two random tokens have a large cosine",
        conditions=(
            Condition(
                path="residual_stream.metrics.mean_cosine",
                comparator=">=",
                threshold=0.5,
                unit="",
                quantity="median over states of the mean cosine of two tokens",
            ),
            Condition(
                path="residual_stream.metrics.cosine_trend",
                comparator=">",
                threshold=0.0,
                unit="",
                quantity="Spearman's ρ of the mean cosine with depth",
            ),
        ),
        reason="0.5 is an angle of 60 degrees where unrelated directions have 90; a trend must be there at all",
        minimum={"layers": 5},
        errata=f"{_UNCENTRED} A mean state common to all tokens makes any two alike: with it removed the cosine "
        f"is near 0.",
    ),
)
