"""Adjacent layers' weight matrices compared entry by entry, with what chance would give.

For each adjacent pair of layers and each family: the cosine and the normalised residual, the
spectrum of the residual, and their chance levels (`pairs`); the same after matching neurons and
heads (`matching`); and the tracks of the families' scales over depth (`scales`). At most two
layers of one family are held at a time.

The published script compared gains with √2, which is no null for positive vectors; called
(mean resid − mean scalar_resid)/mean resid an explained share, though it is 0.293 for unrelated
layers and 0 for identical ones; left the spectra null; and crashed where a family was missing.
Its keys are kept with their meaning, and the corrected numbers stand beside them.
"""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from analyses.errors import LEFT_OUT
from analyses.forward.inputs import Inputs
from analyses.null_residual import grams, invariant, scales
from analyses.null_residual import metrics as judged
from analyses.null_residual.alignment import GramPair
from analyses.null_residual.asked import METRICS, MODES, PARTS, RANKS, any_of, asked_parts, kinds_read
from analyses.null_residual.experts import UNDEFINED, ExpertTrack, combine, expert_track
from analyses.null_residual.family import (
    NO_SPECTRA,
    FamilySummary,
    FamilyTrack,
    absent_pairs,
    absent_summary,
    summarise,
)
from analyses.null_residual.grams import NARROW_HIDDEN
from analyses.null_residual.matching import FLOAT32_HIDDEN, NEURONS, SAMPLE, MatchedPair
from analyses.null_residual.pairs import SAMPLED_SIDE, FamilyPair, settled
from analyses.null_residual.probed_heads import PROBES
from analyses.null_residual.shards import Shard, ShardOf, join, layer_shards, measure_shard
from analyses.progress import Count, Tick, silent
from analyses.records import SCHEMA_VERSION, Metric
from analyses.weights.architectures import FAMILIES, GAINS, MATRICES
from analyses.weights.checkpoint import Checkpoint

IMPROVE_NOTE = (
    "improve_frac is kept as published and is upside down: it is 1 − √((1+cos)/2), so 0.293 for "
    "unrelated layers and 0 for identical ones; scalar_explained (cos²) is what its text promised"
)
STORED_NOTE = (
    "cosines and residuals compare tensors entry by entry in the stored coordinates; reordering the neurons or "
    "heads of one layer changes them and not the model, which is why the matched comparison stands beside them"
)
SPECTRA_NOTES = {
    "sampled": f"spectra of matrices of side {SAMPLED_SIDE} or more are sampled where that is faster, "
    "with a standard error of about 0.4 % of the effective rank beside them",
    "none": NO_SPECTRA,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerPair:
    """Layers L and L_next = L + 1, counted from 0."""

    L: int
    L_next: int
    families: dict[str, FamilyPair]  # families the model has
    matched: dict[str, float | None]  # gate, up, down, qk, vo → mean cosine of matched units, in [−1, 1]
    matched_null: dict[str, float | None]  # the same with one layer's coordinates scrambled
    # Of matched, by role: standard error where a sample stands for all units. Written only where one does.
    matched_error: dict[str, float | None] = field(default_factory=dict, metadata={"written": "if not empty"})


@dataclass(frozen=True, slots=True, kw_only=True)
class NullResidual:
    """Record of the analysis; lists over layers and pairs run in layer order."""

    analysis: str = "null_residual"
    schema_version: int = SCHEMA_VERSION
    model: str
    dtype: str = "float64"  # of the arithmetic, but for sampled spectra and what is matched (`notes`); no forward pass
    spectra: str  # exact | sampled | none
    pair_results: list[LayerPair]  # (pair,)
    summary: dict[str, FamilySummary]
    sides: dict[str, int]  # matrix family → its smaller side
    scales: dict[str, list[float | None] | None]  # family → ‖W_ℓ‖_F, (layer,); None where the model lacks it
    fam_used: list[str]  # rows of the loadings
    scale_pca_singvals: list[float] | None  # (mode,)
    scale_pca_loadings: list[list[float]] | None  # (family, mode)
    scale_pca_scores: list[list[float]] | None  # (layer, mode)
    scale_pca_explained: list[float] | None  # (mode,) share of variance
    scale_pca_parallel_95: list[float] | None  # (mode,) 95 % level of the share, tracks shuffled over layers
    scale_pca_walk_95: list[float] | None  # (mode,) 95 % level of the share, random walks of the tracks' own steps
    scale_pca_standardised: scales.ScalePca | None  # the same for tracks of unit variance
    experts: dict[str, ExpertTrack]  # family → its experts one by one; empty where layers have no experts
    grams: dict[str, list[GramPair]]  # what layers read and write (names in `grams.GRAMS`) → (pair,)
    invariant_scales: dict[str, list[float | None] | None]  # qk, ov, gate, up_down → (layer,); None: it has none
    invariant_scale_pca: scales.ScalePca | None  # of their standardised logarithms
    metrics: dict[str, Metric]
    identities: dict[str, Metric]
    absent: dict[str, str]
    notes: list[str]


def measure(
    checkpoint: Checkpoint,
    *,
    seed: int,
    device: str,
    spectra: str = "exact",
    parts: Collection[str] = PARTS,
    asked: Collection[str] | None = None,
    shard_of: ShardOf | None = None,
    tick: Tick = silent,
) -> NullResidual:
    """Compare adjacent layers of a checkpoint, family by family, with their chance levels.

    Parameters
    ----------
    checkpoint : weights by family and layer.
    seed : of the entry shuffles, Haar draws, null tracks and bootstraps.
    spectra : of the residuals: exact; sampled, for large matrices; none; auto, see `pairs.settled`.
    parts : what is compared, of `shards.PARTS`; the metrics of the rest are without a value.
        Unless spectra are exact, a sample stands for the matched neurons and heads of a wide stream.
    asked : names of the metrics that are wanted, and nothing that they do not read; None for the whole record.
    shard_of : gives the shards that were measured elsewhere; None to measure them all here.
    device : torch device of the arithmetic; random draws are made on the CPU, so do not depend on it.
    tick : told how many matrices and pairs of layers are done.

    Returns
    -------
    The record. What a tensor does not allow (all zero, constant, identical) is None with its reason.

    References
    ----------
    Page, Phys. Rev. Lett. 71, 1291 (1993). Horn, Psychometrika 30, 179 (1965). Mezzadri, Notices AMS 54 (2007).
    """
    spectra = settled(spectra, checkpoint.shape.hidden)
    wanted = dict(parts=parts, kinds=kinds_read(asked), beside=asked is None)
    options = dict(seed=seed, device=device, spectra=spectra, **wanted)
    compared = _all_layers(checkpoint, options, shard_of=shard_of, tick=tick)
    singles = {f: combine(tracks) for f, tracks in compared.experts.items()}
    families = {f: track for f in checkpoint.families if (track := compared.tracks.get(f) or singles.get(f))}
    norms = {f: families[f].norms if f in families else None for f in FAMILIES}
    tracks, no_track = scales.log_tracks(norms)
    raw = scales.scale_pca(tracks, seed=seed, standardise=False) if asked is None else None
    nulls = scales.NULLS if asked is None else scales.NULLS[:1] if "first_mode_above_parallel" in asked else ()
    standardised = scales.scale_pca(tracks, seed=seed, standardise=True, nulls=nulls) if any_of(MODES, asked) else None
    summary = {f: summarise(track.pairs) for f, track in families.items()}
    sides = {f: min(checkpoint.shape.of(f)) for f in families if f in MATRICES}
    matched = compared.matched or [MatchedPair(cos={}, chance={})] * (checkpoint.shape.layers - 1)
    metrics = judged.metrics(families, matched, sides, tracks, standardised, seed, compared.experts)
    free = invariant.Invariant.of(checkpoint, compared.grams, spectra=spectra, seed=seed, asked=asked)
    return NullResidual(
        model=checkpoint.name,
        spectra=spectra,
        pair_results=_layer_pairs(families, matched),
        summary=summary,
        sides=sides,
        scales=norms,
        **_scale_pca(raw),
        scale_pca_standardised=standardised,
        experts={f: expert_track(tracks) for f, tracks in compared.experts.items()},
        grams=compared.grams.pairs,
        invariant_scales=free.scales,
        invariant_scale_pca=free.pca,
        metrics=_explained(
            _without_spectra(_counted(metrics, checkpoint.shape.experts), spectra) | free.metrics, parts
        ),
        identities=_identities(checkpoint, compared, spectra),
        absent={f"scales.{f}": why for f, why in checkpoint.absent.items()}
        | _absent_layers(checkpoint, compared)
        | _absent_pca(raw, standardised)
        | _absent_families(families, summary, spectra)
        | _absent_experts(compared.experts, spectra)
        | _absent_matched(compared.matched)
        | ({} if "grams" in parts else {"invariant_scales.*": NOT_MEASURED["grams"]})
        | free.absent,
        notes=[STORED_NOTE, IMPROVE_NOTE, *_notes(checkpoint, tracks, no_track, spectra), *free.notes],
    )


def _all_layers(
    checkpoint: Checkpoint, options: Mapping[str, Any], *, shard_of: ShardOf | None, tick: Tick
) -> Shard:
    """The comparisons of all layers, shard by shard; those that `shard_of` does not give are made here."""
    shards = layer_shards(checkpoint)
    matrices = sum(checkpoint.experts(f) or 1 for f in checkpoint.families)
    walks = matrices + 1 + len(grams.branches(checkpoint))
    steps = Count(tick, sum(len(layers) * walks - 1 for layers in shards))

    def measured(layers: range) -> Shard:
        return measure_shard(checkpoint, layers, **options, each=steps.over)

    return join([(shard_of(layers) if shard_of else None) or measured(layers) for layers in shards])


def _layer_pairs(families: Mapping[str, FamilyTrack], matched: Sequence[MatchedPair]) -> list[LayerPair]:
    return [
        LayerPair(
            L=i,
            L_next=i + 1,
            families={family: track.pairs[i] for family, track in families.items()},
            matched=pair.cos,
            matched_null=pair.chance,
            matched_error=pair.error,
        )
        for i, pair in enumerate(matched)
    ]


def _scale_pca(raw: scales.ScalePca | None) -> dict[str, list | None]:
    """What the record keeps of the principal components of the tracks as they are."""
    fields = ("singvals", "loadings", "scores", "explained", "parallel_95", "walk_95")
    components = {f"scale_pca_{field}": raw and getattr(raw, field) for field in fields}
    return components | {"fam_used": raw.families if raw else []}


def _counted(metrics: dict[str, Metric], experts: int) -> dict[str, Metric]:
    """The metrics that run over matrices also say over how many experts, and the matched one that it skips them."""
    if not experts:
        return metrics
    over = ("worst_median_abs_cos", "worst_median_cos_sq", "worst_eff_rank_ratio")
    counted = {k: replace(m, n={**m.n, "experts": experts}) if k in over else m for k, m in metrics.items()}
    heads = counted["worst_median_abs_cos_matched"]
    method = f"{heads.method}; heads alone, the neurons of experts are not matched"
    return counted | {"worst_median_abs_cos_matched": replace(heads, method=method)}


def _without_spectra(metrics: dict[str, Metric], spectra: str) -> dict[str, Metric]:
    """The metrics, without the rank of the residuals where no spectra were asked for."""
    if spectra != "none":
        return metrics
    rank = replace(metrics["worst_eff_rank_ratio"], value=None, interval=None, reason=NO_SPECTRA)
    return metrics | {"worst_eff_rank_ratio": rank}


NOT_MEASURED = {
    "entries": f"the entries of matrices were {LEFT_OUT}",
    "matching": f"the matching of neurons and heads was {LEFT_OUT} (--no-matching)",
    "grams": f"what layers read and write was {LEFT_OUT} (--spectra none --no-matching)",
}
"""Part of the comparison → why the numbers that need it have no value, where it was not made."""


def _explained(metrics: dict[str, Metric], parts: Collection[str]) -> dict[str, Metric]:
    """The metrics, those of parts that were not compared with that as their reason."""
    found = dict(metrics)
    for part in set(PARTS) - set(parts):
        for name in METRICS[part]:
            if name in found and found[name].value is None:
                found[name] = replace(found[name], reason=NOT_MEASURED[part])
    return found


def _identities(checkpoint: Checkpoint, compared: Shard, spectra: str) -> dict[str, Metric]:
    """The identities of every tensor compared, experts one by one."""
    sizes = {  # entries of one tensor that is compared: of one expert's, of all heads' gains together
        f: math.prod(checkpoint.shape.of(f)) * (1 if f in compared.experts else len(checkpoint.names(f, 0)))
        for f in checkpoint.families
    }
    every = compared.experts | {f: [track] for f, track in compared.tracks.items()}
    pairs = [{f: pair} for f, tracks in every.items() for track in tracks for pair in track.pairs]
    identities = judged.identities(pairs, sizes)
    energy = identities["spectrum_energy"]
    if spectra != "exact" and energy.value is None:
        energy = replace(energy, reason=SPECTRA_NOTES[spectra], applies=False)
    return identities | {"spectrum_energy": energy}


# --- reasons and notes --------------------------------------------------------------------------


def _absent_layers(checkpoint: Checkpoint, compared: Shard) -> dict[str, str]:
    """Reasons for what layers of another kind have not, which `family.spread` left empty."""
    absent = {}
    for family in (*compared.tracks, *compared.experts):
        for layer in range(checkpoint.shape.layers):
            if not checkpoint.has(family, layer):
                why = checkpoint.why_not(family, layer)
                absent[f"scales.{family}.{layer}"] = absent[f"experts.{family}.scales.{layer}.*"] = why
    return absent


def _absent_pca(raw: scales.ScalePca | None, standardised: scales.ScalePca | None) -> dict[str, str]:
    absent = {}
    if raw is None:
        absent["scale_pca_*"] = "fewer than two families have a scale above zero in every layer"
    elif raw.explained is None:
        absent |= dict.fromkeys(("scale_pca_explained", "scale_pca_*_95"), "no family's scale varies over depth")
    if standardised is None:
        absent["scale_pca_standardised"] = "fewer than two families have a scale that varies over depth"
    return absent


def _absent_families(
    families: Mapping[str, FamilyTrack], summary: Mapping[str, FamilySummary], spectra: str
) -> dict[str, str]:
    absent = {}
    for family, track in families.items():
        absent |= absent_pairs(family, track) | absent_summary(family, summary[family], family in GAINS, spectra)
    return absent


def _absent_experts(experts: Iterable[str], spectra: str) -> dict[str, str]:
    rank = NO_SPECTRA if spectra == "none" else UNDEFINED
    fields = {"cos": UNDEFINED, "eff_rank_ratio": rank}
    return {f"experts.{family}.{field}.*": why for family in experts for field, why in fields.items()}


def _absent_matched(matched: Iterable[MatchedPair]) -> dict[str, str]:
    if all(None not in pair.cos.values() for pair in matched):
        return {}
    why = "no neuron or head of one of the two layers is free of all-zero weights, or a layer is of another kind"
    return {"pair_results.*.matched*": why}


def _notes(
    checkpoint: Checkpoint, tracks: Mapping[str, np.ndarray], no_track: Mapping[str, str], spectra: str
) -> list[str]:
    notes = list(no_track.values())
    if spectra in SPECTRA_NOTES:
        notes.append(SPECTRA_NOTES[spectra])
    constant = [f for f, track in tracks.items() if scales.is_constant(track)]
    if constant:
        notes.append(
            f"left out of the standardised tracks, because the scale is the same in every layer: {', '.join(constant)}"
        )
    wide = checkpoint.shape.hidden >= FLOAT32_HIDDEN
    if wide:
        notes.append("matched neurons and heads are compared by products of float32 numbers, right to 1e-6")
    if wide and spectra != "exact":
        notes.append(
            f"{SAMPLE} neurons and what heads make of {PROBES} directions stand for all in the matched comparison, "
            "with the standard error of each mean beside it; --spectra exact compares all"
        )
    if checkpoint.shape.hidden >= NARROW_HIDDEN and spectra != "exact" and not checkpoint.shape.experts:
        notes.append("what layers read and write is made of products of float32 numbers, right to 1e-6 of its norm")
    if checkpoint.has_qk_bias:
        notes.append("queries and keys carry biases, which the matched head metric g = W_kᵀW_q omits")
    if checkpoint.shape.experts:
        notes += checkpoint.architecture.notes
        notes.append(
            f"each layer has {checkpoint.shape.experts} experts: the numbers of gate, up and down are means over them; "
            "their neurons are not matched, since experts would have to be matched with them"
        )
    elif checkpoint.shape.feed_forward > NEURONS:
        notes.append(
            f"of {checkpoint.shape.feed_forward} neurons per layer, the {NEURONS} whose rows are longest (by their "
            "product over gate, up and down) are matched into all of the next layer's"
        )
    return notes


def analyse(inputs: Inputs) -> tuple[NullResidual, dict[str, Any]]:
    """`measure` as the suite calls it; no arrays. A twin is spared what none of its claims reads."""
    settings, checkpoint, parts = inputs.settings, inputs.checkpoint, asked_parts(inputs)
    if parts == ["entries"] and not inputs.asks(*METRICS["entries"]):  # of the stored scales only gains are read
        checkpoint = checkpoint.restricted(families=[f for f in checkpoint.families if f in GAINS])
    record = measure(
        checkpoint,
        seed=inputs.seed,
        device=inputs.device,
        spectra=settings.spectra if inputs.asks(*RANKS) else "none",
        parts=parts,
        asked=inputs.asked,
        shard_of=inputs.shard_of,
        tick=inputs.tick,
    )
    return record, {}
