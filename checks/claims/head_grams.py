"""Gates of head_grams: what must hold of the per-head metric g = W_kᵀ W_q, and what is claimed of it."""

from checks.claims.gate import Condition, Gate, identity

# Every identity is relative to ‖W_k‖_F‖W_q‖_F, or its square, with which rounding scales.
ROUNDING = 1e-11
ROUNDING_SOURCE = (
    "float64 rounding of sums over the hidden size, relative to ‖W_k‖‖W_q‖: about (hidden + 8·head_dim)·eps, "
    "4e-12 at hidden 16,384 and head dimension 256; a wrong head, index or factor moves it by about 1/head_dim"
)
PUBLISHED_NORM = (
    "The published fro_sq is ‖W_k W_qᵀ‖², not ‖W_kᵀ W_q‖²: another quantity, at odds with the gram's own diagonal"
)
UNSYMMETRIC = "The published eigenvalues, of the unsymmetric J X Xᵀ, turn complex on rank-deficient heads"
PUBLISHED_DIRECTIONS = (
    "The published directions (V of W_k W_qᵀ pushed through W_q) are neither singular vectors of g nor orthogonal"
)
HEAD_ORDER = "The order of heads is a free permutation of the parameters: pairing equal indices is arbitrary"


def _identity(name: str, claim: str, quantity: str, errata: str = "") -> Gate:
    return identity(f"head_grams.{name}", claim, quantity, limit=ROUNDING, reason=ROUNDING_SOURCE, errata=errata)


INTEGRITY = (
    _identity(
        "gram_diagonal",
        "The diagonal of every head's gram is ‖g‖², the sum of its squared singular values",
        "worst |⟨g, g⟩ − Σσ²|",
        PUBLISHED_NORM,
    ),
    _identity(
        "cauchy_schwarz",
        "No inner product of two head metrics exceeds the product of their norms",
        "worst |⟨g, g'⟩| − ‖g‖‖g'‖",
    ),
    _identity(
        "gram_psd",
        "Every head's gram over layers is positive semi-definite",
        "most negative eigenvalue",
    ),
    _identity(
        "gram_symmetry",
        "The inner product of two heads of one layer does not depend on their order",
        "worst |⟨g, g'⟩ − ⟨g', g⟩|",
    ),
    _identity(
        "sym_eigs_trace",
        "The signed eigenvalues of g + gᵀ add up to 2 tr g",
        "worst |Σλ − 2 tr g|",
        UNSYMMETRIC,
    ),
    _identity(
        "sym_eigs_square",
        "The squared eigenvalues of g + gᵀ add up to 2‖g‖² + 2 tr g²",
        "worst |Σλ² − 2‖g‖² − 2 tr g²|",
        UNSYMMETRIC,
    ),
    _identity(
        "top_direction",
        "The head metric stretches its first singular direction by its first singular value",
        "worst |‖g v₁‖ − σ₁|",
        PUBLISHED_DIRECTIONS,
    ),
)

FOLDED = "Gains are folded in and every head is scaled to norm one, so that no exact change of coordinates moves it"
_SLICES = (
    "The published code repeats all keys of grouped queries where it should repeat each, so that query head h "
    "meets key "
    "head h mod K, and halves an interleaved tensor of queries and keys: its 0.500 for Llama-3, Mistral and "
    "Pythia is what "
    "unrelated pairs give. It also adds up a layer's heads before it asks."
)

CLAIMS = (
    Gate(
        id="HG1",
        kind="absence",
        claim="Head metrics of adjacent layers are unrelated at every distance between tokens, in any order of heads",
        conditions=(
            Condition(
                path="head_grams.metrics.all_distance_similarity",
                comparator="<=",
                threshold=0.05,
                quantity="median |similarity| over all distances of heads in adjacent layers, at the best matching",
            ),
        ),
        reason="a similarity of 0.05 is 0.25 % of shared energy; the best matching of unrelated heads stays below it",
        minimum={"pairs": 4},
        errata=f"{FOLDED}. {HEAD_ORDER}",
    ),
    Gate(
        id="HG2",
        kind="presence",
        claim="Heads of adjacent layers look for the same directions, beyond what their layers read anyway",
        conditions=(
            Condition(
                path="head_grams.metrics.read_subspace_overlap",
                comparator=">=",
                threshold=3.0,
                unit="× chance",
                quantity="median overlap of adjacent layers' top subspaces, over that of subspaces drawn from what "
                "the layers read",
            ),
        ),
        reason="three times what two subspaces share that are drawn from the layers' own read covariance; so "
        "much must "
        "be possible at all",
        minimum={"pairs": 4, "room": 3},
        errata=f"{PUBLISHED_DIRECTIONS}. {HEAD_ORDER}",
    ),
    Gate(
        id="HG3",
        kind="absence",
        claim="Heads both attract and repel like directions: the symmetric part of most heads has both signs",
        conditions=(
            Condition(
                path="head_grams.metrics.folded_sign_mixed",
                comparator=">=",
                threshold=0.8,
                quantity="share of heads with 0.2 to 0.8 of the energy of the folded g + gᵀ in negative eigenvalues",
            ),
        ),
        reason="a fifth of the energy at least on either sign, for four heads in five; unrelated W_q, W_k give a half",
        minimum={"heads": 32},
        errata=f"{FOLDED}. {UNSYMMETRIC}",
    ),
    Gate(
        id="HG4",
        kind="absence",
        claim="A decoder's queries and keys are directional: heads are hardly more symmetric than unrelated ones",
        conditions=(
            Condition(
                path="head_grams.metrics.decoder_symmetry_off",
                comparator="<=",
                threshold=0.06,
                unit="",
                quantity="distance of the median S from 0.56, the middle of 0.5 to 0.62; S is 1 for a symmetric head",
            ),
        ),
        reason="0.5 is what unrelated queries and keys give, 0.62 lies between the published decoders and encoders",
        minimum={"heads": 32},
        errata=_SLICES,
    ),
    Gate(
        id="HG4e",
        kind="presence",
        claim="An encoder's queries and keys are symmetric: what attends to what is attended to",
        conditions=(
            Condition(
                path="head_grams.metrics.encoder_symmetry",
                comparator=">=",
                threshold=0.65,
                unit="",
                quantity="median S of heads, 1 for a symmetric head and 0.5 for unrelated queries and keys",
            ),
        ),
        reason="0.65 lies between the published encoders and decoders",
        minimum={"heads": 32},
        errata=_SLICES,
    ),
    Gate(
        id="HG5",
        kind="presence",
        claim="Heads' products are of lower rank than their factors need: of queries and keys, of values and output",
        conditions=(
            Condition(
                path="head_grams.metrics.qk_rank_ratio",
                comparator="<=",
                threshold=0.9,
                unit="",
                quantity="median effective rank of the folded W_kᵀW_q / that of its balanced factors turned at random",
            ),
            Condition(
                path="head_grams.metrics.ov_rank_ratio",
                comparator="<=",
                threshold=0.9,
                unit="",
                quantity="median effective rank of W_oW_v / that of its balanced factors turned at random",
            ),
        ),
        reason="factors that know nothing of each other give 1; a tenth less is a rank that they do not need",
        minimum={"heads": 32},
        errata="The spectra of stored factors are free: a map between them moves theirs and not the product's. "
        "They are "
        "balanced before they are turned.",
    ),
    Gate(
        id="HG6",
        kind="association",
        claim="Large queries and keys sit in the rotary planes that turn slowly",
        conditions=(
            Condition(
                path="head_grams.metrics.plane_rho",
                comparator="<=",
                threshold=-0.5,
                unit="",
                quantity="median over heads of Spearman's ρ, over planes, of ‖a_p‖‖b_p‖ with the frequency",
            ),
            Condition(
                path="head_grams.metrics.plane_p",
                comparator="<=",
                threshold=0.05,
                unit="",
                quantity="share of orders of the planes with as low a median ρ",
                test=True,
                power="head_grams.metrics.plane_power",
                effect="a planted correlation of −0.7",
            ),
        ),
        reason="half of a perfect ranking; with few planes chance orders them often",
        minimum={"planes": 4},
        errata="Published figures show the entries of queries and keys on a text, whose scale a map moves "
        "between the two; "
        "the product of a plane's norms does not move.",
    ),
    Gate(
        id="HG1.stored",
        row="stored",
        kind="absence",
        claim="Head metrics W_kᵀW_q of adjacent layers are unrelated in the stored coordinates, in any order of heads",
        conditions=(
            Condition(
                path="head_grams.metrics.median_abs_similarity_matched",
                comparator="<=",
                threshold=0.05,
                quantity="median |similarity| of head metrics in adjacent layers, at the best matching of heads",
            ),
        ),
        reason="a similarity of 0.05 is 0.25 % of shared energy; unrelated heads have a root mean square of 1/hidden, "
        "and a best matching of 8 scrambled heads reaches about 1.5 times that: 0.022 at hidden size 64",
        minimum={"pairs": 4},
        errata=HEAD_ORDER,
    ),
    Gate(
        id="HG2.stored",
        row="stored",
        kind="presence",
        claim="Heads of adjacent layers share the top subspaces of W_kᵀW_q, spanned by right singular vectors",
        conditions=(
            Condition(
                path="head_grams.metrics.median_overlap_ratio",
                comparator=">=",
                threshold=3.0,
                unit="× chance",
                quantity="median overlap of adjacent layers' top subspaces at the best matching, over chance k/hidden",
            ),
        ),
        reason="three times what unrelated subspaces share; at most hidden/k is possible, 4 or more where judged",
        minimum={"pairs": 4},
        errata=f"{PUBLISHED_DIRECTIONS}. {HEAD_ORDER}",
    ),
    Gate(
        id="HG3.stored",
        row="stored",
        kind="absence",
        claim="Heads' curvature is of mixed sign: g + gᵀ is neither positive nor negative for most heads",
        conditions=(
            Condition(
                path="head_grams.metrics.mixed_sign_share",
                comparator=">=",
                threshold=0.8,
                quantity="share of heads with 0.2 to 0.8 of the energy of g + gᵀ in negative eigenvalues",
            ),
        ),
        reason="a fifth of the energy at least on either sign, for four heads in five; unrelated W_q, W_k give a half",
        minimum={"heads": 32},
        errata=UNSYMMETRIC,
    ),
)
