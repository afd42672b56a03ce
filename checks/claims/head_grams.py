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
        reason="three times what two subspaces share that are drawn from the layers' own read covariance; so much must "
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
