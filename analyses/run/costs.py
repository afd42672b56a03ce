"""Costs of the analyses: bytes read, floating-point operations and peak memory, from shapes alone.

Leading terms only, of what the modules do, as spectra are computed by default (`pairs.settled`) or as asked for: a
product of (a × b) with (b × c) counts 2abc operations, the eigenvalues of a symmetric matrix of side m 4m³/3, a thin QR
of (n × m) 4nm². An assignment of neurons or heads, bootstraps and null tracks are not counted. Memory is what is held
at the worst moment, above what the libraries take when they are loaded. A test compares both with a measured run, and
the hours (`hours`) with runs at two widths.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from analyses.delta_svd.shared_map import TOKENS_PER_DIRECTION
from analyses.forward.calibration import STREAM_TOKENS, Calibration
from analyses.head_grams import folded_heads
from analyses.head_grams.all_pairs import FLOAT32_HIDDEN, SLAB_BYTES, TILE_BYTES, operations, paired_operations
from analyses.head_grams.head_ranks import SHOWN
from analyses.head_grams.shards import factor_work, matches_all
from analyses.null_residual.grams import branches
from analyses.null_residual.matching import NEURONS, SAMPLE
from analyses.null_residual.pairs import HAAR_SIDE, SAMPLED_SIDE
from analyses.null_residual.probed_heads import PROBES
from analyses.numerics.lanczos import PILOT
from analyses.numerics.prompt_groups import FOLDS, GROUPS
from analyses.residual_stream.states import PIECE
from analyses.weights.checkpoint import Checkpoint
from analyses.weights.schema import FEED_FORWARD, MATRICES
from analyses.weights.shape import Shape

FLOAT64 = 8  # bytes
CHARACTERS = 4  # of a text, per token: English in a vocabulary of some ten thousand pieces
COPIES = 9  # of one matrix: two layers, both scaled, their difference, its shuffle, an order, two temporaries
FACTORS = 10  # of a layer's heads or neurons: each side as read, as written, weighted, complex in planes
COSINES = 7  # (neuron × neuron) arrays: three roles, their products, and what the assignment takes
SUMS = 3  # of one layer's normal equations: of states, of writes, of both
SPECTRA = 6  # of one layer's writes: as they are, centred, both with unit rows, without outliers, as published
SQUARES = 5  # (hidden × hidden) arrays: what two layers read, a covariance, its factor, the factor's inverse
BYTES = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """One analysis, beside what is shared: reading every byte once to check and hash it."""

    reads: int  # bytes of weights
    operations: float  # floating-point
    peak: float  # bytes above those after the imports
    how: str  # the leading terms: L layers, D hidden, H heads, K key/value heads, d head_dim, F width
    # Kind of work, of `hours.CORE` → how much of it; empty where no run was held against it.
    work: Mapping[str, float] = field(default_factory=dict)


def costs(checkpoint: Checkpoint, text: Calibration, *, dtype: str, spectra: str = "exact") -> dict[str, Cost]:
    """Analysis → its cost; for those that read weights, text or states. The others take seconds.

    Parameters
    ----------
    text : the calibration text; its tokens are estimated as a quarter of its characters.
    dtype : of the forward pass, one of BYTES.
    spectra : of the residuals: exact, sampled or none.
    """
    wide = spectra != "exact" and checkpoint.shape.hidden >= SAMPLED_SIDE and not checkpoint.shape.experts
    return {
        "null_residual": sampled_residual(checkpoint, spectra) if wide else _null_residual(checkpoint),
        "head_grams": _head_grams(checkpoint),
        "attention_stats": _attention_stats(checkpoint, text),
        "delta_svd": _delta_svd(checkpoint, text),
        "weight_spectra": _weight_spectra(checkpoint),
        "residual_stream": _residual_stream(checkpoint, text),
        "forward": _forward(checkpoint, text, dtype),
    }


def tokens(text: Calibration) -> int:
    """About how many tokens of a text are read."""
    return max(1, sum(lengths(text)))


def lengths(text: Calibration) -> list[int]:
    """About how many tokens each sequence has that is read of a text; of token ids exactly."""
    found: list[int] = []
    for length in map(len, text.ids) if text.ids else (len(one) // CHARACTERS for one in text.texts):
        whole = [STREAM_TOKENS] * (length // STREAM_TOKENS) + [length % STREAM_TOKENS] if text.stream else [length]
        for sequence in whole if text.tokens else whole[:1]:
            found.append(sequence)
            if text.tokens and sum(found) - len(found) >= text.tokens:
                return found
    return found


def _bytes(checkpoint: Checkpoint, families: tuple[str, ...]) -> int:
    """Stored bytes of these families, each tensor once."""
    layers = range(checkpoint.shape.layers)
    present = [f for f in families if f in checkpoint.families]
    having = {family: [layer for layer in layers if checkpoint.has(family, layer)] for family in present}
    names = {name for family in present for layer in having[family] for name in checkpoint.names(family, layer)}
    return sum(checkpoint.headers[name].bytes for name in names)


def _null_residual(checkpoint: Checkpoint) -> Cost:
    shape = checkpoint.shape
    pairs, work, peak = shape.layers - 1, 0.0, 0.0
    for family in set(checkpoint.families) & set(MATRICES):
        small, large = sorted(shape.of(family))
        spectrum = 2 * small**2 * large + 4 * small**3 / 3
        draws = max(1, HAAR_SIDE // small)
        haar = draws * (4 + 4 / 3) * small**3
        each = shape.layers * spectrum + pairs * (2 * spectrum + haar) + 4 * draws * large * small**2
        work += each * max(1, checkpoint.experts(family))
        peak = max(peak, FLOAT64 * COPIES * small * large)
    neurons = [f for f in FEED_FORWARD if f in checkpoint.families]
    if {"up_proj", "down_proj"} <= set(neurons) and not shape.experts:
        chosen = min(NEURONS, shape.feed_forward)
        work += pairs * len(neurons) * 2 * 2 * chosen * shape.feed_forward * shape.hidden
        rows = 2 * len(neurons) * shape.feed_forward * shape.hidden
        peak = max(peak, FLOAT64 * (COSINES * chosen * shape.feed_forward + rows))
    sides = (shape.heads * shape.head_dim) ** 2 + (shape.kv_heads * shape.head_dim) ** 2
    work += pairs * 2 * 2 * 2 * sides * shape.hidden
    more, held = _grams(checkpoint)
    return Cost(
        reads=3 * _bytes(checkpoint, MATRICES),
        operations=work + more,
        peak=max(peak, held),
        how="per matrix m ≤ n and layer 3(2m²n + 4m³/3) + 16m³/3; neurons 12·min(F, 1024)·F·D and heads "
        "8((Hd)² + (Kd)²)D per pair; Grams 2D²(3F + 4Hd) and 7·6D³ a layer; memory 9 matrices, 7·min(F, 1024)·F "
        "numbers, or 15D² and a layer's heads or neurons",
    )


STEPS = 5  # of Lanczos, of a spectrum that is sampled: 4 for the oblong, 7 for square matrices
PASSES = 22  # over each entry of a pair for its spectra: residual, shuffle, upcasts; as measured, in passes of 1 ns
ROWS = 34  # the same for neurons and heads, read twice in float32, scaled and matched
PASSES_OF_HEADS = 60  # over each entry of queries and keys, as they are read, upcast, scaled, turned; as measured
BY_KEYS = ("k.read", "ov.read")  # Grams of one row for all heads that share a key or value head
KEPT = 32 << 20  # bytes of an array up to which the C library keeps what is freed for the next one
ANEW = 16  # float32 arrays as large as a matrix beyond that, in all that is done with it; as measured by page faults
LIKENESS = 4  # the same for cosines and residuals


def sampled_residual(checkpoint: Checkpoint, spectra: str) -> Cost:
    """`null_residual` where spectra, neurons and heads of a wide stream are sampled, or spectra left out."""
    shape = checkpoint.shape
    layers, pairs = shape.layers, shape.layers - 1
    hidden, heads, dim = shape.hidden, shape.heads, shape.head_dim
    matrices = [shape.of(f) for f in checkpoint.families if f in MATRICES]
    sizes = [float(rows * columns) for rows, columns in matrices]
    entries = sum(sizes)
    neurons = [f for f in FEED_FORWARD if f in checkpoint.families]
    of = branches(checkpoint)
    sides = {"feed-forward": shape.feed_forward, "attention": heads * dim}
    rows = {name: sides[branch] for branch, names in of.items() for name in names}
    rows |= {name: shape.kv_heads * dim for name in BY_KEYS if name in rows}
    grams = sum(map(len, of.values()))
    sampling = spectra != "none"
    # One triangle of each Gram; a sample's neurons with all of the next layer's, and scrambled; heads with the probes.
    products = layers * float(hidden) ** 2 * sum(rows.values())
    products += pairs * len(neurons) * 4 * min(SAMPLE, shape.feed_forward) * shape.feed_forward * hidden
    products += pairs * (16 * heads * dim * PROBES * hidden + 8 * (heads + shape.kv_heads) * dim**2 * hidden)
    few = pairs * sampling * 2.0 * PILOT * STEPS * (8 * entries + 3 * grams * hidden**2)
    passes = layers * entries * (LIKENESS + ROWS) + pairs * sampling * entries * PASSES
    small, large = sorted(max(matrices, key=lambda shape: shape[0] * shape[1]))
    held = 2 * sum(map(len, of.values())) * hidden**2 + 8 * heads * dim * hidden
    return Cost(
        reads=5 * _bytes(checkpoint, MATRICES),
        operations=products + few,
        peak=max(BYTES["float32"] * (7 * small * large), BYTES["float32"] * (held + 3 * shape.feed_forward * hidden)),
        how="a layer's Grams D²(3F + 2(H + K)d), 12·256·F·D for a sample of neurons, 16HdD·128 for heads by 128 directions, "
        "32 operations an entry and each of 40 products of a sampled spectrum; memory 7 float32 matrices, or 14D² "
        "numbers and a layer's heads or neurons",
        work={
            "float32 products": products,
            "products of few vectors": few,
            "entries": passes,
            "new pages": layers * ANEW * sum(4.0 * size for size in sizes if 4 * size > KEPT),
        },
    )


def _grams(checkpoint: Checkpoint) -> tuple[float, float]:
    """Operations on what layers read and write (products, spectra, chance), and the bytes that one branch takes."""
    shape = checkpoint.shape
    heads, neurons = shape.heads * shape.head_dim, shape.feed_forward * max(1, checkpoint.experts("up_proj"))
    work = held = 0.0
    draws = max(1, HAAR_SIDE // shape.hidden)
    for branch, names in branches(checkpoint).items():
        rows = heads if branch == "attention" else neurons
        spectra = 4 / 3 + 4 / 3 + draws * (2 + 4 / 3)  # a layer's own, of a pair's sum, of its chance level
        work += len(names) * shape.layers * (2 * rows * shape.hidden**2 + spectra * shape.hidden**3)
        rows = heads if branch == "attention" else shape.feed_forward  # one expert at a time
        held = max(held, (2 * len(names) + draws + 6) * shape.hidden**2 + FACTORS * rows * shape.hidden)
    return work, FLOAT64 * held


def _per_head(checkpoint: Checkpoint) -> tuple[float, float]:
    """Operations of one layer's head spectra (QR of the sides, of both together, small problems), and its bytes."""
    shape = checkpoint.shape
    rows = (shape.heads + shape.kv_heads) * shape.head_dim
    work = shape.heads * (24 * shape.head_dim**2 * shape.hidden + 60 * shape.head_dim**3)
    return work, FLOAT64 * rows * shape.hidden


def _head_grams(checkpoint: Checkpoint) -> Cost:
    shape = checkpoint.shape
    layers, heads, dim, hidden = shape.layers, shape.heads, shape.head_dim, shape.hidden
    each, held = _per_head(checkpoint)
    every = operations(layers, heads, dim, hidden)
    rows = (heads + shape.kv_heads) * dim
    if hidden >= FLOAT32_HIDDEN:
        every += paired_operations(layers, heads, shape.kv_heads, dim, hidden)
    every += layers * folded_heads.operations(heads, shape.kv_heads, dim, hidden)
    if not matches_all(shape):
        every = sum(factor_work(shape, layer) for layer in range(layers))
    # Products of all heads; queries and keys of all layers as stored, with their scrambled copies, up to a limit.
    slabs = min(SLAB_BYTES, 2 * layers * rows * hidden * FLOAT64)
    return Cost(
        reads=3 * _bytes(checkpoint, ("q_proj", "k_proj")),
        operations=layers * each + every,
        peak=max(
            7 * held,
            slabs + min(TILE_BYTES, FLOAT64 * layers * heads * hidden**2) + 3.5 * held,
            5 * held + SQUARES * FLOAT64 * hidden**2,
        )
        + 3 * FLOAT64 * (layers * heads) ** 2,
        how="LH·D²(LH + 4d) for all pairs of heads, L²(H + K)d²D at equal index, LH(40d²D + 80d³) for each, "
        "LD²(Hd + 7D/3) for what layers read; memory 7 layers of q and k, or 5 and 5D² numbers, "
        "at most 160 MiB of all layers, 3(LH)² numbers",
        work=_heads_by_kind(shape),
    )


def _heads_by_kind(shape: Shape) -> dict[str, float]:
    """What `head_grams` does, kind by kind, as a test counts it."""
    layers, heads, kv_heads, dim, hidden = shape.layers, shape.heads, shape.kv_heads, shape.head_dim, shape.hidden
    both, pair = heads + kv_heads, dim**2 * hidden  # pair: half the operations of one head's rows with another's
    # A head's queries with its keys and with themselves, those of head 0 with all, Gram matrices of four sides; what
    # layers read; small matrices.
    products = layers * (4 * heads * pair + 4 * both * pair + 2 * both * pair + hidden**2 * heads * dim)
    products += layers * 18.0 * heads * dim**3 + min(layers, SHOWN) * 2.0 * kv_heads * dim * hidden**2
    of_pairs = operations(layers, heads, dim, hidden)
    if not matches_all(shape):
        of_pairs, products = 0.0, products + sum(factor_work(shape, layer) for layer in range(layers))
    elif hidden >= FLOAT32_HIDDEN:
        products += paired_operations(layers, heads, kv_heads, dim, hidden)
    else:
        of_pairs, products = 0.0, products + of_pairs
    return {
        "products of heads": of_pairs,
        "float64 products": products,
        # Keys reflected, queries turned by them and reflected, stored and folded; the stored queries by themselves.
        "factorisations": layers * (14.0 * heads + 4 * kv_heads) * pair,
        "small spectra": layers * heads * 71.0 * dim**3,
        "eigenvalues": layers * 7.0 * hidden**3 / 3,
        "entries": layers * PASSES_OF_HEADS * float(both * dim * hidden),
    }


def _attention_stats(checkpoint: Checkpoint, text: Calibration) -> Cost:
    shape = checkpoint.shape
    each, held = _per_head(checkpoint)
    logits = 2 * sum(length**2 for length in lengths(text)) * shape.heads * shape.head_dim
    return Cost(
        reads=_bytes(checkpoint, ("q_proj", "k_proj")),
        operations=shape.layers * (2 * each + logits),
        peak=4 * held,
        how="LH(48d²D + 120d³) for spectra, 2LHd·Σt² for logits over texts of t tokens; memory 4 layers of q and k",
    )


def _delta_svd(checkpoint: Checkpoint, text: Calibration) -> Cost:
    shape, count = checkpoint.shape, tokens(text)
    small, large = sorted((count, shape.hidden))
    k = min(shape.hidden, count // TOKENS_PER_DIRECTION)
    return Cost(
        reads=0,
        operations=shape.layers * (SPECTRA * (2 * small**2 * large + 9 * small**3) + 2 * SUMS * count * k**2)
        + 2.0 * checkpoint.parameters() * count,
        peak=FLOAT64
        * (
            SPECTRA * count * shape.hidden
            + 3 * small**2
            + 2 * GROUPS * min(shape.hidden, count) ** 2
            + shape.layers * (SUMS * FOLDS * k**2 + k * shape.hidden)
        ),
        how="6L(2s²l + 9s³) with s ≤ l of n tokens and D, 6Lnk² with k = min(D, n/8), and each layer run once more; "
        "memory 6 arrays of n × D, 23 of s × s, and 15k² + kD a layer",
    )


def _weight_spectra(checkpoint: Checkpoint) -> Cost:
    shape = checkpoint.shape
    work = peak = 0.0
    for family in set(checkpoint.families) & set(MATRICES):
        small, large = sorted(shape.of(family))
        work += shape.layers * (2 * small**2 * large + 4 * small**3 / 3)
        peak = max(peak, 2 * FLOAT64 * small * large)
    for branch, names in branches(checkpoint).items():
        rows = shape.heads * shape.head_dim if branch == "attention" else shape.feed_forward
        work += len(names) * shape.layers * (2 * rows * shape.hidden**2 + 4 * shape.hidden**3 / 3)
        peak = max(peak, FLOAT64 * (FACTORS * rows * shape.hidden + (len(names) + 2) * shape.hidden**2))
    return Cost(
        reads=2 * _bytes(checkpoint, MATRICES),
        operations=work,
        peak=peak,
        how="per matrix m ≤ n and layer 2m²n + 4m³/3, Grams 2D²(3F + 5Hd) and 8·4D³/3 a layer; the samples made of "
        "each law come on top; memory a layer's heads or neurons and 6D² numbers",
    )


def _residual_stream(checkpoint: Checkpoint, text: Calibration) -> Cost:
    shape, count = checkpoint.shape, tokens(text)
    hidden, k = shape.hidden, min(shape.hidden, count // TOKENS_PER_DIRECTION)
    pieces = [min(PIECE, length) for length in lengths(text) for _ in range(-(-length // PIECE))]
    state = sum(2 * length**2 * hidden + 2 * 4 * length**3 / 3 for length in pieces)
    basis = 0.0
    if k < hidden:
        basis = 2 * count * hidden**2 + 4 * hidden**3 / 3 + 4 * k * hidden**2 + 4 * count * hidden * k
    sums = 2 * count * k * (k + hidden)
    solved = k**3 + 4 * k**2 * hidden
    return Cost(
        reads=0,
        operations=(shape.layers + 1) * state + shape.layers * (basis + sums + (2 * FOLDS + 1) * solved),
        peak=FLOAT64 * (6 * count * hidden + 3 * hidden**2 + 4 * FOLDS * k * (k + hidden)),
        how="Σ(2t²D + 8t³/3) a state over pieces of t ≤ 256 tokens; a layer 2nD² + 4D³/3 + 4kD² + 6nkD + 2nk² and 11 "
        "solutions of k³ + 4k²D, k = min(D, n/8); memory 6 arrays of n × D, 3D² and 20k(k + D)",
    )


def _forward(checkpoint: Checkpoint, text: Calibration, dtype: str) -> Cost:
    parameters, longest = checkpoint.parameters(), max(lengths(text))
    widest = max(checkpoint.shape.feed_forward, checkpoint.shape.heads * longest, checkpoint.shape.hidden)
    return Cost(
        reads=sum(header.bytes for header in checkpoint.headers.values() if header.shares is None),
        operations=2.0 * parameters * tokens(text),
        peak=BYTES[dtype] * (parameters + 8 * longest * widest),
        how="2 operations per parameter and token; memory the whole model in the pass's precision",
    )
