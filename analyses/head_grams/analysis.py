"""Head metrics g = W_kᵀ W_q: their spectra and signs, and their similarity and shared subspaces across layers.

Three claims are read from here: whether heads of adjacent layers have similar metrics whatever the order of heads
(HG1), whether their leading subspaces are shared (HG2), and whether g + gᵀ is of mixed sign (HG3). Each head alone is
measured in `one_head`, pairs of layers in `layer_pairs`, both in the shards of `shards`, and put together in
`stored_heads`; this module makes the record.
"""

import functools
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from analyses.forward.inputs import Inputs
from analyses.head_grams import folded_record
from analyses.head_grams.all_pairs import FLOAT32_HIDDEN
from analyses.head_grams.asked import measure_asked
from analyses.head_grams.folded_record import NO_ROOM, FoldedRecord
from analyses.head_grams.head_ranks import HeadRanks, absent_ranks, measure_ranks
from analyses.head_grams.layer_pairs import Pairs, mean, median
from analyses.head_grams.one_head import HeadMetrics, Reader
from analyses.head_grams.shards import TOP, ShardOf, matches_all
from analyses.head_grams.stored_heads import all_layers, stored_heads, stored_metrics
from analyses.head_grams.subspaces import Overlaps
from analyses.progress import Tick, silent
from analyses.records import SCHEMA_VERSION, Metric, nulls, plain
from analyses.weights.checkpoint import Checkpoint
from analyses.weights.folded import folded_readers
from analyses.weights.positions import position_note
from analyses.weights.shape import Shape


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadGrams:
    """Axes: layer, head (query head), mode, pair (layers ℓ and ℓ+1)."""

    analysis: str = "head_grams"
    schema_version: int = SCHEMA_VERSION
    model: str
    dtype: str = "float64"  # of the arithmetic, but for what heads are matched by (`notes`); no forward pass is made
    hidden: int  # D
    head_dim: int  # d
    top: int  # k, directions per head
    kv_head_of: list[int]  # (head,) key/value head that each query head uses

    gram: np.ndarray  # (layer, layer, head), ⟨g_ℓ, g_ℓ'⟩ at equal head index
    similarity: np.ndarray  # (layer, layer, head), gram/√(diag diag), in [−1, 1]; null for a zero head
    fro_sq: np.ndarray  # (layer, head), ‖g‖_F², from the singular values
    fro_sq_published: np.ndarray  # (layer, head), ‖W_k W_qᵀ‖_F², which is not ‖g‖_F²
    sym_eigs: np.ndarray  # (layer, head, 2·head_dim), signed eigenvalues of g + gᵀ, by falling magnitude
    curvature: np.ndarray  # (layer, head), negative share of Σλ², in [0, 1]; null where g + gᵀ = 0
    singvals: np.ndarray  # (layer, head, head_dim), singular values of g, descending

    matching: np.ndarray  # (pair, head), head of layer ℓ+1 that the best matching gives to head h of ℓ
    similarity_matched: np.ndarray  # (pair, head), signed similarity at that matching
    mean_abs_similarity: np.ndarray  # (layer, layer), mean over heads of |similarity| at equal index
    mean_abs_similarity_matched: np.ndarray  # (layer, layer), the same at each pair's own best matching
    similarity_chance: float | None  # median |similarity| of a best matching when layers are unrelated
    overlap_chance: float | None  # k/hidden, expected overlap of unrelated subspaces
    overlap_chance_matched: float | None  # median overlap at the best matching when layers are unrelated
    overlap_adjacent: np.ndarray | None  # (pair, head), ‖V_ℓ V_ℓ+1ᵀ‖_F²/k at equal index, in [0, 1]
    overlap_adjacent_matched: np.ndarray | None  # (pair, head), at the best matching
    overlap_by_distance: list[float | None] | None  # (layer − 1,), mean overlap at equal index, |ℓ − ℓ'| = 1, 2, …
    # fro_sq_ratio: median of published/exact · fro_sq_pearson: their correlation over all heads ·
    # self_similarity: median of gram's diagonal/published · direction_abs_cos: mean |cos| of the first published
    # direction with v₁ · direction_crosstalk: median of the largest |cos| between two published directions of a head.
    published: dict[str, float | None]
    folded: FoldedRecord  # the heads apart from the coordinates they are stored in, which claims about the model read
    ranks: HeadRanks | None = None  # ranks beside those of turned factors, and rotary planes

    metrics: dict[str, Metric]
    identities: dict[str, Metric]
    absent: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def measure(
    checkpoint: Checkpoint,
    *,
    seed: int,
    device: str,
    shard_of: ShardOf | None = None,
    tick: Tick = silent,
) -> tuple[HeadGrams, dict[str, torch.Tensor]]:
    """Measure a checkpoint's head metrics, reading a layer at a time.

    Parameters
    ----------
    checkpoint : weights by layer; biases of queries and keys and q/k norms are left out (see `notes`).
    seed : of the bootstrap intervals and of the scrambled coordinates that give the chance level.
    device : where products are computed.
    shard_of : gives the shards that were measured elsewhere; None to measure them all here.

    Returns
    -------
    The record, and the arrays for `head_grams.safetensors`: `directions`, float32 (layer, head, k, hidden), right
    singular vectors of g, zero beyond a head's rank.

    Raises
    ------
    InputError if a weight is NaN or infinite.
    """
    read, notes = reader(checkpoint, device=device), _notes(checkpoint)
    options = dict(seed=seed, shard_of=shard_of, tick=tick)
    record, arrays = measure_heads(read, checkpoint.shape, model=checkpoint.name, notes=notes, **options)
    symmetry = record.metrics["all_distance_symmetry"]
    metrics = record.metrics | folded_record.by_kind(symmetry, encoder=checkpoint.architecture.encoder)
    found, of_ranks = measure_ranks(checkpoint, seed=seed, device=device)
    absent = {key: why for key, why in record.absent.items() if key != "ranks"} | absent_ranks(found)
    return replace(record, ranks=found, metrics=metrics | of_ranks, absent=absent), arrays


def reader(checkpoint: Checkpoint, *, device: str) -> Reader:
    """Layer → its heads, as this checkpoint stores them."""
    return Reader(
        keys=lambda layer: checkpoint.stored_heads("k_proj", layer, device=device),
        queries=lambda layer: checkpoint.stored_heads("q_proj", layer, device=device),
        folded=lambda layer: folded_readers(checkpoint, layer, device=device),
    )


def measure_heads(
    read: Reader,
    shape: Shape,
    *,
    model: str,
    notes: Sequence[str],
    seed: int,
    shard_of: ShardOf | None = None,
    tick: Tick = silent,
) -> tuple[HeadGrams, dict[str, torch.Tensor]]:
    """`measure` on the heads that `read(layer)` returns."""
    heads, head_dim, hidden = shape.heads, shape.head_dim, shape.hidden
    top = min(TOP, head_dim, hidden)
    facts, products, of_folded = all_layers(read, shape, seed=seed, shard_of=shard_of, tick=tick)
    folded = folded_record.record(of_folded, top=top, hidden=hidden)
    found = stored_heads(facts, products, seed=seed)
    pairs, overlap = found.pairs, found.overlap
    values = dict(
        gram=pairs.gram,
        similarity=found.similarity,
        fro_sq=facts.fro_sq.numpy(),
        fro_sq_published=facts.fro_sq_published.numpy(),
        sym_eigs=facts.sym_eigs.numpy(),
        curvature=found.negative,
        singvals=facts.singvals.numpy(),
        matching=pairs.matching,
        similarity_matched=pairs.matched,
        mean_abs_similarity=mean(np.abs(found.similarity), axis=2),
        mean_abs_similarity_matched=pairs.matched_mean,
        similarity_chance=median(np.abs(pairs.chance)),
        overlap_chance=top / hidden,
        **{f"overlap_{field}": overlap and getattr(overlap, field) for field in Overlaps._fields},
        published=_published(facts, pairs.gram, found.dead),
        folded=folded,
    )
    record = HeadGrams(
        model=model,
        hidden=hidden,
        head_dim=head_dim,
        top=top,
        kv_head_of=[h * shape.kv_heads // heads for h in range(heads)],
        **values,
        metrics=stored_metrics(found, seed=seed) | folded_record.metrics(folded, seed=seed),
        identities=_identities(facts, pairs),
        absent=_absent(values, all_pairs=matches_all(shape)) | {"ranks": "not asked for"},
        notes=list(notes),
    )
    return record, {"directions": facts.directions}


def _published(facts: HeadMetrics, gram: np.ndarray, dead: np.ndarray) -> dict[str, float | None]:
    """How far the published formulas are from what their text says; over heads that are not zero."""
    live = ~dead
    exact, published = facts.fro_sq.numpy()[live], facts.fro_sq_published.numpy()[live]
    diagonal = np.einsum("llh->lh", gram)[live]
    varied = min(len(np.unique(exact)), len(np.unique(published))) > 1
    return {
        "fro_sq_ratio": median(published / exact),
        "fro_sq_pearson": float(np.corrcoef(published, exact)[0, 1]) if varied else None,
        "self_similarity": median(diagonal / published),
        "direction_abs_cos": mean(facts.published_abs_cos.numpy()[live]),
        "direction_crosstalk": median(facts.published_crosstalk.numpy()[live]),
    }


def _identities(facts: HeadMetrics, pairs: Pairs) -> dict[str, Metric]:
    """Worst violations, relative to ‖W_k‖_F‖W_q‖_F (to its square for squares), with which rounding scales."""
    scale = torch.where(facts.scale > 0, facts.scale, 1).numpy()  # (layer, head); a zero head violates nothing
    layers, heads = scale.shape
    gram = pairs.gram / np.einsum("ah,bh->abh", scale, scale)  # (layer, layer, head)
    diagonal = np.einsum("aah->ah", gram)
    product = np.sqrt(np.einsum("ah,bh->abh", diagonal, diagonal))
    eigenvalues = facts.sym_eigs.numpy()
    trace = eigenvalues.sum(-1) - 2 * facts.trace.numpy()
    square = np.square(eigenvalues).sum(-1) - 2 * (facts.fro_sq + facts.trace_of_square).numpy()
    per_head = {"heads": layers * heads}
    one, two = "relative to ‖W_k‖‖W_q‖", "relative to ‖W_k‖²‖W_q‖²"

    def worst(violation: np.ndarray, n: Mapping[str, float], method: str) -> Metric:
        return Metric(value=max(0.0, float(violation.max())), n=n, method=method)

    return {
        "gram_diagonal": worst(np.abs(diagonal - facts.fro_sq.numpy() / scale**2), per_head, two),
        "cauchy_schwarz": worst(np.abs(gram) - product, {"pairs": gram.size}, f"|gram| − √(diag diag), {two}"),
        "gram_psd": worst(-np.linalg.eigvalsh(np.moveaxis(gram, 2, 0)), {"heads": heads}, f"lowest eigenvalue, {two}"),
        "gram_symmetry": worst(np.array(pairs.asymmetry), {"layers": layers}, "relative to a layer's largest ⟨g, g'⟩"),
        "sym_eigs_trace": worst(np.abs(trace) / scale, per_head, f"{one}, which is at least half of Σ|λ|"),
        "sym_eigs_square": worst(np.abs(square) / scale**2, per_head, two),
        "top_direction": worst(np.abs((facts.stretch - facts.singvals[..., 0]).numpy()) / scale, per_head, one),
    }


def _absent(values: Mapping[str, Any], *, all_pairs: bool) -> dict[str, str]:
    """Why a key holds nulls, for the keys that do."""
    zero = "a head whose g is zero is like no other"
    thin = f"a head of rank below {TOP} has no top subspace"
    reasons = {
        "similarity": zero,
        "similarity_matched": zero,
        "mean_abs_similarity": zero,
        "mean_abs_similarity_matched": zero if all_pairs else "only adjacent layers are matched in so large a model",
        "similarity_chance": zero,
        "published": "every head's g is zero, or all have the same norm",
        "curvature": "g + gᵀ is zero",
    } | {key: NO_ROOM if values[key] is None else thin for key in values if key.startswith("overlap")}
    reasons |= folded_record.absent()
    tree = plain({key: values[key] for key in {path.split(".")[0] for path in reasons}})
    return {key: reason for key, reason in reasons.items() if any(True for _ in nulls(_at(tree, key)))}


def _at(tree: Any, path: str) -> Any:
    return functools.reduce(operator.getitem, path.split("."), tree)


def _notes(checkpoint: Checkpoint) -> list[str]:
    notes = [
        position_note(checkpoint),
        "g is taken from the stored projections; the gain of the norm before them is not folded in.",
        "The published fro_sq is ‖W_k W_qᵀ‖², not ‖g‖² = ‖W_kᵀ W_q‖²: the gram's diagonal agrees with the latter "
        "only.",
        "The published eigenvalues, of an unsymmetric matrix, turn complex on rank-deficient heads; these are real.",
        "The published directions (V of W_k W_qᵀ pushed through W_q) are not singular vectors of g; these are.",
        "The order of heads is a free permutation of the parameters: the pairing by index is arbitrary, "
        "the best matching is what counts.",
        "Heads under `folded` have all gains folded in and are compared over all distances at once; a plane that "
        "turns "
        "slowly takes longer than the context to average out.",
    ]
    if matches_all(checkpoint.shape) and checkpoint.shape.hidden >= FLOAT32_HIDDEN:
        notes.append(
            "Heads are matched by products of float32 numbers, right to a millionth of the norms, unless the weights "
            "are float64; all else is float64."
        )
    if checkpoint.has_qk_bias:
        notes.append("Queries or keys carry biases, which g omits.")
    if checkpoint.has_qk_norm:
        notes.append("Queries and keys are normalised, so that the scale of g is not the scale of the model's logits.")
    return notes


def analyse(inputs: Inputs) -> tuple[Any, dict[str, torch.Tensor]]:
    """`measure` as the suite calls it. A twin is spared what none of its claims reads."""
    options = dict(seed=inputs.seed, device=inputs.device)
    if inputs.asked is not None:
        read = reader(inputs.checkpoint, device=inputs.device)
        return measure_asked(inputs.checkpoint, read, inputs.asked, **options), {}
    return measure(inputs.checkpoint, shard_of=inputs.shard_of, tick=inputs.tick, **options)
