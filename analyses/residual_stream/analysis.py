"""Sizes, spectra and angles of the residual stream's states over depth, each in three ways.

h_ℓ is what enters layer ℓ and h_L what enters the final norm; δ_ℓ = h_{ℓ+1} − h_ℓ. Every track is given for all tokens,
without the first token of each prompt, and without massive tokens (`ways`); all are free of the stream's scale and of
its basis but where said. `stream_probe` reduces the states during the pass, `measures` makes the claims' numbers.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from analyses.forward.inputs import Inputs, NotMeasured, Skipped
from analyses.forward.probe import ForwardFacts
from analyses.records import SCHEMA_VERSION, Metric
from analyses.residual_stream import measures
from analyses.residual_stream.linearity import NONE
from analyses.residual_stream.stream_probe import StreamProbe as StreamProbe
from analyses.residual_stream.tracks import Tracks, tracks
from analyses.weights.checkpoint import Checkpoint

ANALYSIS = "residual_stream"
Numbers = list[float | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """Tracks with these tokens counted. A state is one more than a layer: the last enters the final norm."""

    tokens: list[int]  # [state] that count
    massive_ratio: Numbers  # [state] max‖h_t‖/median‖h_t‖, from 1
    norm: Numbers  # [state] median ‖h_t‖, in the stream's own scale
    entropy: Numbers  # [state] mean over prompts of the entropy of their states' spectrum, over its largest; 0 to 1
    cosine: Numbers  # [state] mean cosine of two tokens, −1 to 1
    cosine_centred: Numbers  # [state] the same with the mean state removed
    step: Numbers  # [layer] median ‖δ_t‖/‖h_t‖
    linearity: Numbers  # [layer] held-out R² of δ from h, at most 1
    distance: Numbers  # [start] mean angle of h_start and h_{start+block}, over π; 0 to 1
    forms: dict[str, float]  # form of the growth of `norm` → Akaike weight; empty where there are too few states


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """Numbers by the published formulas, of all tokens, to show what they score."""

    linearity: Numbers  # [layer] in-sample R² of h_{ℓ+1} from h_ℓ
    identity: Numbers  # [layer] of h_{ℓ+1} from a multiple of h_ℓ: what the formula scores where nothing is learnt
    permuted: Numbers  # [layer] held-out R² of δ with its rows in another order; null but in three layers
    largest: Numbers  # [state] largest |x| of a state, which |x| > 100 is asked of; a rescaled stream moves it
    distance_of_ends: Numbers  # [start] mean distance of the last token of each prompt, as in 2403.17887
    centred_features: bool  # whether states are centred over features first, since the model's norm is a LayerNorm


@dataclass(frozen=True, slots=True, kw_only=True)
class ResidualStream:
    """States of all layers."""

    analysis: str = ANALYSIS
    schema_version: int = SCHEMA_VERSION
    model: str
    dtype: str  # of the forward pass; statistics are float64
    num_layers: int
    hidden: int
    tokens: int
    prompts: int  # sequences
    block: int  # layers compared across in `distance`
    sample: int  # tokens whose distances are taken
    directions: int  # of the states that a linear map sees
    calibration: ForwardFacts
    ways: dict[str, Way]  # those in which a metric is asked for
    massive_first: Numbers  # [state] share of the massive tokens that are the first of their prompt
    sink_share: Numbers | None  # [layer] mean over heads of the attention on key 0, from attention_stats
    published: Published
    metrics: dict[str, Metric]
    identities: dict[str, Metric]
    absent: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def measure(
    checkpoint: Checkpoint,
    probe: StreamProbe,
    facts: ForwardFacts,
    *,
    seed: int,
    sink_share: Sequence[float | None] | None = None,
    no_sinks: str = "attention_stats was not measured",
) -> ResidualStream:
    """Assemble what the probe saw into the record.

    Parameters
    ----------
    probe, facts : from `forward.run`.
    seed : of bootstraps and surrogates.
    sink_share : (layer,) mean over heads of the attention on key 0; None for the reason `no_sinks`.

    Raises
    ------
    What the probe raised during the pass.
    """
    if probe.failure is not None:
        raise probe.failure
    depth = checkpoint.shape.layers
    found = tracks(probe, depth)
    every = found["all"]
    hidden = checkpoint.shape.hidden
    n = {"tokens_per_dimension": every.tokens / hidden}
    metrics, forms = measures.metrics(
        found, asked=probe.asked, sink_share=sink_share, no_sinks=no_sinks, n=n, first=0, seed=seed
    )
    whole = (depth in probe.states) or f"the model's last layer was left out, so that state {depth} was not seen"
    lines = [probe.linearity[layer].get("all", NONE) for layer in range(depth)]
    return ResidualStream(
        model=checkpoint.name,
        dtype=facts.dtype,
        num_layers=depth,
        hidden=hidden,
        tokens=len(probe.first),
        prompts=int(probe.first.sum()),
        block=probe.block,
        sample=len(probe.sample),
        directions=min(hidden, len(probe.first) // measures.TOKENS_PER_DIRECTION),
        calibration=facts,
        ways={way: _way(found[way], forms[way]) for way in found},
        massive_first=_numbers(every.massive_first),
        sink_share=None if sink_share is None else list(sink_share),
        published=Published(
            linearity=_numbers([line.published for line in lines]),
            identity=_numbers([line.identity for line in lines]),
            permuted=_numbers([line.permuted for line in lines]),
            largest=_numbers([probe.states[s].largest for s in range(every.states)]),
            distance_of_ends=_numbers(every.distance_of_ends),
            centred_features=probe.layer_norm,
        ),
        metrics=metrics,
        identities=_identities(probe, every),
        absent=_absent(found, sink_share, no_sinks, whole),
        notes=_notes(checkpoint, facts, probe),
    )


def _way(found: Tracks, forms: dict[str, float]) -> Way:
    return Way(
        tokens=found.counts,
        massive_ratio=_numbers(found.ratio[0]),
        norm=_numbers(found.norm[0]),
        entropy=_numbers(found.entropy[0]),
        cosine=_numbers(found.cosine[0]),
        cosine_centred=_numbers(found.cosine_centred),
        step=_numbers(found.step[0]),
        linearity=_numbers(found.linear[0]),
        distance=_numbers(found.distance[0]),
        forms=forms,
    )


def _numbers(values: Sequence[float]) -> Numbers:
    return [float(value) if math.isfinite(value) else None for value in values]


def _identities(probe: StreamProbe, every: Tracks) -> dict[str, Metric]:
    """What holds of any states: bounds of an entropy, the triangle of a state, its write and the next state."""
    taken = [e for state in probe.states.values() for e in state.entropy.values()]
    entropies = torch.cat([torch.empty(0, dtype=torch.float64), *taken])
    known = entropies[entropies.isfinite()]
    excess = float(torch.maximum(known - 1, -known).max()) if len(known) else 0.0
    worst, where = 0.0, 0
    for layer, step in probe.steps.items():
        if layer + 1 in probe.states:
            before, after = probe.states[layer].norms, probe.states[layer + 1].norms
            size = torch.maximum(before, after).max().clamp_min(torch.finfo(torch.float64).tiny)
            off = float((((after - before).abs() - step) / size).max())
            worst, where = max((worst, where), (off, layer))
    return {
        "entropy_bound": Metric(
            value=max(0.0, excess),
            n={"spectra": len(entropies)},
            method="excess of the entropy over 1, or below 0; worst",
        ),
        "triangle": Metric(
            value=max(0.0, worst),
            n={"layers": every.layers},
            where=f"layer {where}",
            method="|‖h'‖ − ‖h‖| − ‖δ‖ over the layer's largest ‖h‖; worst token",
        ),
    }


def _absent(
    found: dict[str, Tracks], sink_share: Sequence[float | None] | None, no_sinks: str, whole: bool | str
) -> dict[str, str]:
    few = "fewer than two tokens of this kind are left, or their states are zero"
    unseen = whole if isinstance(whole, str) else few
    of_states = ("massive_ratio", "norm", "entropy", "cosine", "cosine_centred", "step")
    absent = {f"ways.*.{name}.*": few for name in of_states}
    absent |= {
        "ways.*.linearity.*": "too few tokens for a regression on unseen prompts, or nothing is written",
        "ways.*.distance.*": f"{few}; or {unseen}",
        "massive_first.*": "no token of this state is massive",
        "published.linearity.*": "too few tokens, or nothing varies",
        "published.identity.*": "too few tokens, or nothing varies",
        "published.permuted.*": "scored in three layers only",
        "published.distance_of_ends.*": few,
    }
    if sink_share is None:
        absent["sink_share"] = no_sinks
    elif None in sink_share:
        absent["sink_share.*"] = "no query of the text sees enough keys, or the layer has no heads"
    return absent


def _notes(checkpoint: Checkpoint, facts: ForwardFacts, probe: StreamProbe) -> list[str]:
    notes = []
    if checkpoint.architecture.post_norm:
        notes.append("Post-norm: the stream is normalised behind each branch, so that its states are of one size.")
    elif probe.layer_norm:
        notes.append("States are centred over features, since this model's LayerNorm ignores their mean.")
    if not probe.groups.whole_prompts:
        notes.append("The text has too few prompts to leave groups of them out: runs of tokens stand for them.")
    return notes + facts.notes()


def probe(checkpoint: Checkpoint) -> StreamProbe:
    """What the forward pass feeds. Behind a post-norm the stream is read as it is, mean over features included."""
    architecture = checkpoint.architecture
    return StreamProbe(layer_norm=architecture.layer_norm and not architecture.post_norm, depth=checkpoint.shape.layers)


def analyse(inputs: Inputs) -> tuple[ResidualStream, dict[str, torch.Tensor]]:
    """`measure` as the suite calls it; no arrays."""
    passes = inputs.passes
    passes.require()
    sinks, reason = None, ""
    try:
        attention = inputs.record_of("attention_stats")
        sinks = inputs.over_depth(measures.sink_shares(attention))
        reason = attention["absent"].get("dynamic", "")
    except (Skipped, NotMeasured) as missing:
        reason = str(missing)
    record = measure(
        inputs.checkpoint,
        passes.probes[ANALYSIS],
        passes.facts,
        seed=inputs.seed,
        sink_share=sinks,
        no_sinks=reason or "attention was not measured",
    )
    return record, {}
