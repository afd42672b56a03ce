"""Spectra of the heads' metrics g = W_kᵀ W_q, and statistics of the heads' attention on a text, layer by layer.

Static: singular values of g, from the weights alone. The published key holds those of W_k W_qᵀ, another matrix; the
exact ones come from thin QR factors of both sides and one d×d problem per head, never a hidden × hidden matrix.
Dynamic: what `AttentionProbe` measured of the attention on the calibration text. A layer's temperature is 1/(mean over
heads of the standard deviation of its logits), the measured counterpart of what the published scripts read off a gain.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from analyses.attention_stats import sinks
from analyses.attention_stats.attention_probe import AttentionProbe as AttentionProbe
from analyses.attention_stats.attention_probe import early_queries
from analyses.attention_stats.means import EARLY, STATISTICS, HeadMeans
from analyses.errors import InputError
from analyses.forward.inputs import Inputs
from analyses.forward.probe import ForwardFacts, Seen
from analyses.numerics import spectra
from analyses.progress import Tick, silent
from analyses.records import SCHEMA_VERSION, Metric
from analyses.weights.checkpoint import Checkpoint
from analyses.weights.folded import folded_readers
from analyses.weights.positions import position_note

ANALYSIS = "attention_stats"


@dataclass(frozen=True, slots=True, kw_only=True)
class StaticLayer:
    """Spectra of one layer's heads, descending."""

    metric_singvals_per_head: list[list[float]]  # [head][mode] of W_k W_qᵀ, as published
    singvals_per_head: list[list[float]]  # [head][mode] of g = W_kᵀ W_q
    # [head][mode] of g with the input norm's gain and the q/k norms' gains folded in; under q/k norms W^h·γ is
    # divided by its Frobenius norm before their gains are applied, and a head that is all zero has none.
    gained_singvals_per_head: list[list[float] | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class DynamicLayer:
    """One layer's attention on the calibration text; each a list over heads."""

    mean_attention_entropy_per_head: list[float]  # nats, mean over queries
    entropy_fraction_per_head: list[float | None]  # of ln(visible keys), 0 to 1, queries with ≥ 2 visible keys
    mean_logit_std_per_head: list[float | None]  # scaled logits before softmax, ddof 0, queries with ≥ 2 visible keys
    sink_share_per_head: list[float | None]  # mean probability on key 0, queries other than the first
    sink_share_early_per_head: list[float | None]  # the same of the first 64 queries, the first with them, as published
    entropy_without_sink_per_head: list[float | None]  # nats, key 0 left out, where ≥ 2 other keys are visible
    logit_std_without_sink_per_head: list[float | None]  # key 0 left out, where ≥ 2 other keys are visible


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionStats:
    """Static and dynamic statistics of every head."""

    analysis: str = ANALYSIS
    schema_version: int = SCHEMA_VERSION
    model: str
    dtype: str  # of the forward pass; "float64" where only the weights were read
    # Of the model's own softmax, where it is narrower than `dtype`: many classes take it in float32 whatever the pass.
    softmax_dtype: str = field(default="", metadata={"written": "if not empty"})
    num_layers: int
    num_heads: int  # query heads
    num_kv_heads: int  # key/value heads, each shared by num_heads/num_kv_heads query heads in their order
    head_dim: int
    static: list[StaticLayer]  # [layer]
    dynamic: list[DynamicLayer] | None  # [layer]; None without a forward pass
    temperature: list[float | None] | None  # [layer], 1/(mean over heads of the logit std)
    temperature_left_out: list[list[float]] | None  # [group][layer] with each group of prompts left out, if defined
    calibration: ForwardFacts | None  # text, tokens, devices; None without a forward pass
    queries: int | None  # over all sequences
    metrics: dict[str, Metric]
    identities: dict[str, Metric]
    absent: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def measure(
    checkpoint: Checkpoint,
    probe: AttentionProbe | None,
    facts: ForwardFacts | None,
    *,
    seed: int,
    device: str,
    no_forward: str = "no forward pass was run",
    tick: Tick = silent,
) -> AttentionStats:
    """Spectra of all heads, and their attention where a forward pass fed the probe.

    Parameters
    ----------
    probe, facts : from `forward.run`; None where there was no pass, for the reason in `no_forward`.
    seed : of the bootstrap over layers.
    device : where the spectra are computed.

    Raises
    ------
    What the probe raised during the pass; InputError if a layer's attention never reached it.
    """
    shape = checkpoint.shape
    static, energy_errors = [], []
    for layer in range(shape.layers):
        spectra_of_layer, energy_error = _static(checkpoint, layer, device)
        static.append(spectra_of_layer)
        energy_errors.append(energy_error)
        tick(layer + 1, shape.layers)
    absent = _absent_heads(static)
    identities = {
        "singvals_energy": Metric(
            value=max(energy_errors),
            n={"heads": shape.layers * shape.heads},
            method="|Σσ² − ‖g‖²| / ‖g‖², ‖g‖² from traces of d×d matrices; worst head",
        )
    }
    dynamic, temperature, left_out = None, None, None
    if probe is None or facts is None:
        metrics = sinks.none(no_forward)
        identities |= {
            name: Metric(value=None, reason=no_forward, applies=False)
            for name in ("entropy_bound", "row_sum", *WITNESSED)
        }
        absent |= dict.fromkeys(("dynamic", "temperature*", "calibration", "queries"), no_forward)
    else:
        by_layer = _means_by_layer(probe, shape.layers)
        dynamic = [_dynamic(means, layer, absent) for layer, means in enumerate(by_layer)]
        metrics = sinks.metrics(dynamic, prompts=int(early_queries(probe.real).sum()) // EARLY, seed=seed)
        temperature = [_temperature(means, layer, absent) for layer, means in enumerate(by_layer)]
        spreads = torch.stack([means.logit_std_left_out.mean(1) for means in by_layer], 1)  # (group, layer)
        left_out = (1 / spreads).tolist() if (spreads > 0).all() else []
        identities |= _probe_identities(by_layer, own=facts.attention == "eager" and probe.holds_against_own)
        identities |= _witnessed(probe.seen)
    return AttentionStats(
        model=checkpoint.name,
        dtype="float64" if facts is None else facts.dtype,
        softmax_dtype="float32" if probe is not None and probe.narrow else "",
        num_layers=shape.layers,
        num_heads=shape.heads,
        num_kv_heads=shape.kv_heads,
        head_dim=shape.head_dim,
        static=static,
        dynamic=dynamic,
        temperature=temperature,
        temperature_left_out=left_out,
        calibration=facts,
        queries=None if dynamic is None else by_layer[0].queries,
        metrics=metrics,
        identities=identities,
        absent=absent,
        notes=_notes(checkpoint, facts),
    )


def _absent_heads(static: list[StaticLayer]) -> dict[str, str]:
    return {
        f"static.{layer}.gained_singvals_per_head.{head}": "this head's queries or keys are all zero"
        for layer, spectra_of_layer in enumerate(static)
        for head, values in enumerate(spectra_of_layer.gained_singvals_per_head)
        if values is None
    }


def _static(checkpoint: Checkpoint, layer: int, device: str) -> tuple[StaticLayer, float]:
    """Spectra of one layer, and the worst head's |Σσ² − ‖g‖²|/‖g‖². The keys of a group are factored once."""
    query = checkpoint.head_blocks("q_proj", layer, device=device)  # (head, head_dim, hidden)
    key = checkpoint.head_blocks("k_proj", layer, device=device)  # (kv_head, head_dim, hidden)
    key_of = torch.arange(len(query), device=key.device) // (len(query) // len(key))  # (head,) its key head
    exact = _singvals(key, query)
    # ‖g‖² = tr(W_k W_kᵀ W_q W_qᵀ)
    norm_sq = ((key @ key.mT)[key_of] * (query @ query.mT)).sum((-2, -1))
    error = (exact.square().sum(-1) - norm_sq).abs() / norm_sq.clamp_min(torch.finfo(torch.float64).tiny)
    published = spectra.singular_values(key.unsqueeze(1) @ _by_group(query, key).mT).flatten(0, 1)
    del query, key
    key, query, _ = folded_readers(checkpoint, layer, device=device)
    gained = _singvals(key, query).tolist()
    # Under q/k norms a head is made scale-free, which one that is all zero cannot be.
    alive = query.any(-1).any(-1) & key.any(-1).any(-1)[key_of] | (not checkpoint.has_qk_norm)
    return StaticLayer(
        metric_singvals_per_head=published.tolist(),
        singvals_per_head=exact.tolist(),
        gained_singvals_per_head=[values if ok else None for values, ok in zip(gained, alive.tolist(), strict=True)],
    ), float(error.max())


def _singvals(key: torch.Tensor, query: torch.Tensor) -> torch.Tensor:
    """Of each head's W_kᵀ W_q, (head, head_dim)."""
    return spectra.product_singular_values(key.unsqueeze(1), _by_group(query, key)).flatten(0, 1)


def _by_group(query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
    """(kv_head, query of the group, head_dim, hidden)."""
    return query.unflatten(0, (len(key), -1))


def _means_by_layer(probe: AttentionProbe, layers: int) -> list[HeadMeans]:
    if probe.failure is not None:
        raise probe.failure
    if missing := [layer for layer in range(layers) if layer not in probe.layers]:
        raise InputError(
            f"layer {missing[0]}'s attention does not go through the library's attention interface "
            f"({len(missing)} of {layers} layers); this model's code is not supported"
        )
    return [probe.layers[layer] for layer in range(layers)]


def _dynamic(means: HeadMeans, layer: int, absent: dict[str, str]) -> DynamicLayer:
    keys = {name: f"{name}_per_head" for name in STATISTICS}
    keys |= {"entropy": "mean_attention_entropy_per_head", "logit_std": "mean_logit_std_per_head"}
    lists: dict[str, Any] = {}
    for name, key in keys.items():
        values = getattr(means, name)
        if not values.isfinite().all():
            early = f"no prompt has {EARLY} tokens" if name == "sink_share_early" else ""
            absent[f"dynamic.{layer}.{key}.*"] = early or "no query of the text sees enough keys"
        lists[key] = [value if value == value else None for value in values.tolist()]
    return DynamicLayer(**lists)


def _temperature(means: HeadMeans, layer: int, absent: dict[str, str]) -> float | None:
    spread = float(means.logit_std.mean())
    if spread > 0:  # false also for a NaN
        return 1 / spread
    absent[f"temperature.{layer}"] = "this layer's logits are all equal, so that 1/(their spread) is not defined"
    return None


def _probe_identities(by_layer: list[HeadMeans], *, own: bool) -> dict[str, Metric]:
    rows = {"rows": sum(means.queries * len(means.entropy) for means in by_layer)}

    def worst(values: list[float], method: str) -> Metric:
        layer = max(range(len(values)), key=values.__getitem__)
        return Metric(value=values[layer], n=rows, where=f"layer {layer}", method=method)

    source = "the model's own probabilities" if own else "probabilities recomputed from q and k"
    return {
        "entropy_bound": worst(
            [max(0.0, means.entropy_excess) for means in by_layer],
            "excess of the entropy over ln(visible keys), or below 0, in nats; worst query",
        ),
        "row_sum": worst(
            [means.row_sum_error for means in by_layer], f"|Σ over visible keys − 1| of {source}; worst query"
        ),
    }


WITNESSED = {
    "probabilities": (
        "largest |p − the model's own p|, p from queries, keys, mask, scale; two queries of each sequence, all heads",
        "this attention function does not show its probabilities",
    ),
    "output": (
        "|p·values − what the attention function returns|, relative to the largest; the same queries",
        "what this class's attention returns is not seen",
    ),
    "reads": (
        "|stream behind the record's norm − what the attention module is given|, relative to the largest",
        "what this class's attention module is given is not seen",
    ),
    "heads": (
        "queries, keys and values by the record's roles, as unit vectors, less the class's own; worst token and head",
        "what this class's attention module is given is not seen",
    ),
}
"""What `forward.witness` compares → (how, why there may be nothing to compare)."""


def _witnessed(seen: Mapping[int, Seen]) -> dict[str, Metric]:
    found = {}
    for name, (method, nothing) in WITNESSED.items():
        values = {layer: value for layer, one in seen.items() if (value := getattr(one, name)) is not None}
        if values:
            layer = max(values, key=values.__getitem__)
            n = {"layers": len(values)}
            found[name] = Metric(value=values[layer], n=n, where=f"layer {layer}", method=method)
        else:
            found[name] = Metric(value=None, reason=nothing, applies=False, method=method)
    return found


def _notes(checkpoint: Checkpoint, facts: ForwardFacts | None) -> list[str]:
    notes = [position_note(checkpoint)]
    if "input_ln" in checkpoint.absent:
        notes.append(f"Gained spectra have no input gain folded in: {checkpoint.absent['input_ln']}.")
    if checkpoint.has_qk_bias:
        notes.append("Queries and keys carry biases, which the static spectra omit and the dynamic statistics include.")
    return notes + (facts.notes() if facts is not None else [])


def probe(checkpoint: Checkpoint) -> AttentionProbe:
    """What the forward pass feeds."""
    return AttentionProbe()


def analyse(inputs: Inputs) -> tuple[AttentionStats, dict[str, torch.Tensor]]:
    """`measure` as the suite calls it; no arrays. Without a tokenizer, or a pass that ends, the static half remains."""
    passes = inputs.passes
    failed = passes.failed(ANALYSIS)
    record = measure(
        inputs.checkpoint,
        passes.probes[ANALYSIS] if passes.facts and not failed else None,
        passes.facts if not failed else None,
        seed=inputs.seed,
        device=inputs.device,
        no_forward=passes.skipped or failed,
        tick=inputs.tick,
    )
    return record, {}
