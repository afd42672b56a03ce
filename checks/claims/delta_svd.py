"""Gates of delta_svd: DS1 to DS5 and the identities of the residual stream."""

from checks.claims.gate import Condition, Gate, identity

_RESIDUAL = {"float32": 1e-5, "float64": 1e-12, "bfloat16": 2**-7, "float16": 2**-10}
_RESIDUAL_REASON = (
    "the stream is rounded twice in a layer, half a unit in the last place of max |h| each: 2⁻⁷ in bfloat16, 2⁻¹⁰ "
    "in float16, 1.2e-7 in float32; float32 and float64 have a margin for models that scale their branches"
)

INTEGRITY = (
    identity(
        "delta_svd.layer_chain",
        "Each layer's output is the next layer's input, and the last one's is the final norm's",
        "worst |difference| / max |h|",
        limit=_RESIDUAL,
        reason=_RESIDUAL_REASON,
        errata="The library's last hidden state is after the final norm, so the published last write was no layer's.",
    ),
    identity(
        "delta_svd.branch_sum",
        "Each layer's write is the sum of what its attention and feed-forward branches add",
        "worst |δ − attention − feed-forward| / max |h|",
        limit=_RESIDUAL,
        reason=_RESIDUAL_REASON,
    ),
    identity(
        "delta_svd.top1_energy",
        "The first squared singular value of each write is its top-1 share of the squared Frobenius norm",
        "worst |σ₁² − top1_frac·‖δ‖²| / ‖δ‖²",
        limit=1e-10,
        reason="float64 rounding of a Gram matrix's trace grows as eps × side, 2e-16 × 16,384 = 4e-12 at the largest",
    ),
)

_ENOUGH_TOKENS = {"tokens_per_dimension": 2.0}
_MEAN = "The top direction of an uncentred write is mostly the mean write, the same for every token."
_HYPOTHESIS = (
    "The scripts' own text predicts this (an update shared by the layers of phase C, one direction a layer, phase E "
    "specialised), and no published number tests it."
)

CLAIMS = (
    Gate(
        id="DS1",
        kind="presence",
        claim="A layer writes essentially one direction: half the energy of its write, token sizes counted or not",
        conditions=(
            Condition(
                path="delta_svd.metrics.median_top1_frac",
                comparator=">=",
                threshold=0.5,
                quantity="median over layers of the write's top-1 energy share",
            ),
            Condition(
                path="delta_svd.metrics.median_top1_frac_unit_rows",
                comparator=">=",
                threshold=0.5,
                quantity="the same with every token's write scaled to length 1",
            ),
        ),
        reason="one direction that holds half the energy outweighs all others together; with unit rows too, since one "
        "massive token could carry it alone; fewer than two tokens a dimension inflate the share, so that a "
        "share which fails is conclusive even so",
        minimum=_ENOUGH_TOKENS,
        flattering=("tokens_per_dimension",),
        errata=_MEAN,
    ),
    Gate(
        id="DS2",
        kind="presence",
        claim="A layer writes essentially one direction also when its mean write over tokens is removed",
        conditions=(
            Condition(
                path="delta_svd.metrics.median_top1_frac_centred",
                comparator=">=",
                threshold=0.5,
                quantity="median over layers of the centred write's top-1 energy share",
            ),
        ),
        reason="as DS1: one direction that outweighs all others together",
        minimum=_ENOUGH_TOKENS,
        flattering=("tokens_per_dimension",),
        errata=_MEAN,
    ),
    Gate(
        id="DS3",
        kind="absence",
        claim="Adjacent layers write different directions: top directions of centred writes are nearly orthogonal, and "
        "so are their covariances",
        conditions=(
            Condition(
                path="delta_svd.metrics.median_adjacent_abs_cos_centred",
                comparator="<=",
                threshold=0.3,
                quantity="median over adjacent layers of |cos| between top directions of centred writes",
            ),
            Condition(
                path="delta_svd.metrics.write_alignment",
                comparator="<=",
                threshold=0.1,
                quantity="median over adjacent layers of the alignment of their write covariances, less their mean",
            ),
        ),
        reason="|cos| = 0.3 is 9 % of shared energy; two random directions in 128 dimensions have 0.07. Several common "
        "dimensions pass a test of one direction, so that the whole covariances must differ too",
        minimum=_ENOUGH_TOKENS,
        errata=_MEAN,
    ),
    Gate(
        id="DS4",
        kind="presence",
        claim="The published phases share a subspace: top directions of centred writes are more alike inside phases "
        "than across them, at equal distance in depth",
        conditions=(
            Condition(
                path="delta_svd.metrics.phase_p",
                comparator="<=",
                threshold=0.05,
                quantity="share of random contiguous segmentations that separate at least as well",
                test=True,
                power="delta_svd.metrics.phase_power",
                effect="a planted |cos| larger by 0.1 inside phases",
            ),
        ),
        reason="the usual 5 % level; neighbours are alike in any drifting stack, so pairs are matched on distance",
        minimum={"segmentations": 100},
        errata="The published capture scored a layer against a basis that contains it: its chance level is about 1/N "
        "for a phase of N layers, not 8/D, and a single-layer phase got 1.0 whatever it wrote.",
    ),
    Gate(
        id="DS5",
        kind="schedule",
        claim="Relative steps ‖δ‖/‖h‖ shrink with depth",
        conditions=(
            Condition(
                path="delta_svd.metrics.rel_step_spearman",
                comparator="<=",
                threshold=-0.5,
                quantity="Spearman's ρ of the mean relative step with depth",
                interval_bound=0.0,
            ),
        ),
        reason="half of a perfect ranking (a quarter of the rank variation), and a trend that sampling has not made",
        minimum={"layers": 12},
        errata="The published last step was taken after the final norm and is no layer's.",
    ),
    Gate(
        id="AN1",
        kind="presence",
        claim="The layers of phase C write by one shared linear map of their states",
        conditions=(
            Condition(
                path="delta_svd.metrics.shared_map_r2_ratio",
                comparator=">=",
                threshold=0.5,
                quantity="R² of one map for all layers of phase C / R² of a map for each, of held-out prompts",
            ),
            Condition(
                path="delta_svd.metrics.shared_map_p",
                comparator="<=",
                threshold=0.05,
                quantity="share of random contiguous segmentations with as large a ratio",
                test=True,
                power="delta_svd.metrics.shared_map_power",
                effect="a planted ratio larger by 0.25",
            ),
        ),
        reason="half of what separate maps explain; neighbours share maps in any drifting stack, so that other "
        "stretches of layers must share less",
        minimum={"layers": 4, "runs": 19},
        flattering=("runs",),  # of fewer, no p is small enough: the ratio can still miss its limit
        errata=_HYPOTHESIS,
    ),
    Gate(
        id="AN2",
        kind="presence",
        claim="What the shared map of phase C leaves over is one direction a layer",
        conditions=(
            Condition(
                path="delta_svd.metrics.remainder_top1",
                comparator=">=",
                threshold=0.5,
                quantity="median over the phase's layers of the remainder's top-1 energy share",
            ),
        ),
        reason="as DS1: one direction that outweighs all others together",
        minimum={"layers": 4},
        errata=_HYPOTHESIS,
    ),
    Gate(
        id="AN3",
        kind="presence",
        claim="The top directions that the layers of phase C write span few dimensions",
        conditions=(
            Condition(
                path="delta_svd.metrics.phase_c_rank_ratio",
                comparator="<=",
                threshold=0.7,
                quantity="effective rank of the stacked top directions of phase C / that of random ones",
            ),
        ),
        reason="seven tenths of chance leaves three tenths of the dimensions shared",
        minimum={"layers": 3},
        errata=_HYPOTHESIS,
    ),
    Gate(
        id="AN4",
        kind="absence",
        claim="The layers of phase E each write a direction of their own",
        conditions=(
            Condition(
                path="delta_svd.metrics.phase_e_rank_share",
                comparator=">=",
                threshold=0.8,
                quantity="effective rank of the centred top directions of phase E / number of its layers",
            ),
        ),
        reason="1 is all orthogonal; at 0.8 a fifth of the directions repeat others",
        minimum={"layers": 3},
        errata=_HYPOTHESIS,
    ),
    Gate(
        id="AN5",
        kind="presence",
        claim="The layers of phase C share more of their directions than those of phase E do",
        conditions=(
            Condition(
                path="delta_svd.metrics.phase_difference",
                comparator=">",
                threshold=0.0,
                quantity="rank ratio of phase E less that of phase C",
            ),
            Condition(
                path="delta_svd.metrics.phase_difference_p",
                comparator="<=",
                threshold=0.05,
                quantity="share of random contiguous segmentations with as large a difference",
                test=True,
                power="delta_svd.metrics.phase_difference_power",
                effect="a planted difference of 0.1",
            ),
        ),
        reason="the sign that the hypothesis predicts, at the usual 5 % level",
        minimum={"segmentations": 20},
        errata=_HYPOTHESIS,
    ),
)
