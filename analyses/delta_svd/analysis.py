"""What each layer adds to the residual stream: sizes, spectra and directions of δ_ℓ, and phases of depth.

δ_ℓ = h_{ℓ+1} − h_ℓ on the calibration text, the first token of each sequence dropped. The hidden
states are those that enter the decoder layers and the final norm: the library's last hidden state
is *after* that norm, so that the published last δ was no layer's write; it is kept beside the right
one in `published_last`. `writes` measures one layer, `probe` feeds it, `phases` compares runs of layers.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

import numpy as np
import torch

from analyses.delta_svd.annealing import Annealing, annealing
from analyses.delta_svd.delta_probe import DeltaProbe as DeltaProbe
from analyses.delta_svd.neighbours import Pair, Text, neighbours
from analyses.delta_svd.of_text import beside
from analyses.delta_svd.phases import PLANTED, Phase, PhaseTest, describe, phase_ranges, phase_test
from analyses.delta_svd.writes import LayerWrite, Spectrum
from analyses.forward.inputs import Inputs
from analyses.forward.probe import ForwardFacts
from analyses.numerics.families import member
from analyses.numerics.intervals import spearman_of_text
from analyses.records import SCHEMA_VERSION, Metric
from analyses.weights.checkpoint import Checkpoint

ANALYSIS = "delta_svd"
POST_NORM = "the stream is normalised behind each branch, so that a write is not the sum of what the branches add"
ONE_ORDER = "there is no test, or the phases' lengths have one order"
NOT_TESTED = PhaseTest(difference=None, p=None, segmentations=0, power=None)
TESTED = {"phase_test": ("phase_p_published",), "phase_test_centred": ("phase_p", "phase_power")}
"""Test of the phases → the metrics that are read off it."""
NO_TEST = "a layer has no top direction, or no distance in depth has pairs both inside and across phases"


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One layer's write: published keys first, the corrected ones after them."""

    frob: float  # ‖δ‖_F
    token_norm_mean: float  # ‖δ_t‖ over tokens
    token_norm_std: float  # ddof 0
    h_norm_mean: float  # ‖h_t‖ of the layer's input
    rel_step_mean: float | None  # ‖δ_t‖/‖h_t‖
    rel_step_std: float | None  # ddof 0
    cos_delta_h_mean: float | None  # cos(δ_t, h_t), −1 to 1
    parallel_frac: float | None  # mean |cos(δ_t, h_t)|, 0 to 1
    singvals: list[float] | None  # ten largest of δ
    eff_rank: float | None  # e^S of δ's spectrum
    top1_frac: float | None  # σ₁²/Σσ², 0 to 1
    top3_frac: float | None
    top10_frac: float | None
    centred: Spectrum | None  # of δ with its mean over tokens removed
    unit_rows: Spectrum | None  # of δ with every token's write scaled to length 1
    without_outliers: Spectrum | None  # of δ without the largest feature dimensions
    mean_share: float | None  # energy share of the mean write
    top_token_share: float | None  # energy share of the largest token
    outlier_dims: list[int]  # the dimensions left out in `without_outliers`
    outlier_share: float | None  # their energy share


@dataclass(frozen=True, slots=True, kw_only=True)
class DeltaSvd:
    """Writes of all layers."""

    analysis: str = ANALYSIS
    schema_version: int = SCHEMA_VERSION
    model: str
    dtype: str  # of the forward pass; statistics are float64
    num_layers: int
    hidden: int
    tokens: int  # rows of each δ
    calibration: ForwardFacts
    layers: list[Layer]
    abs_cos: list[list[float | None]]  # [layer][layer] |cos| of top directions of δ, as published
    abs_cos_centred: list[list[float | None]]  # of centred δ
    phases: dict[str, Phase | None]  # A … tail; None where no layer falls in
    phase_test: PhaseTest  # of the published directions
    phase_test_centred: PhaseTest
    published_last: dict[str, float | None]  # of the published last δ, taken after the final norm
    pairs: list[Pair]  # of adjacent layers
    text: Text
    annealing: Annealing
    metrics: dict[str, Metric]
    identities: dict[str, Metric]
    absent: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def measure(
    checkpoint: Checkpoint, probe: DeltaProbe, facts: ForwardFacts, *, seed: int, device: str
) -> tuple[DeltaSvd, dict[str, torch.Tensor]]:
    """Assemble what the probe saw into the record, with the comparisons between layers.

    Parameters
    ----------
    probe, facts : from `forward.run`.
    seed : of the bootstraps over layers and of the sampled segmentations.
    device : unused, the layers were reduced where they ran.

    Returns
    -------
    The record, and the arrays for delta_svd.safetensors: `directions` and `directions_centred`,
    float32 (layer, mode, hidden), unit rows by falling energy, zero where the rank is smaller.

    Raises
    ------
    What the probe raised during the pass.
    """
    if probe.failure is not None:
        raise probe.failure
    depth, whole = checkpoint.shape.layers, probe.asked is None  # of some metrics no more is made than they need
    writes = [probe.writes[layer] for layer in range(depth)]
    directions = torch.stack([probe.directions[layer] for layer in range(depth)])  # (layer, mode, hidden)
    centred = torch.stack([probe.centred[layer] for layer in range(depth)])
    cos, cos_centred = _abs_cos(directions), _abs_cos(centred)
    ranges = phase_ranges(depth)
    phases = {
        name: describe(phase, cos, cos_centred, directions.numpy(), centred.numpy()) if phase else None
        for name, phase in (ranges.items() if whole else ())
    }
    similarities = {"phase_test": cos, "phase_test_centred": cos_centred}
    tests = {
        name: _test(similarities[name], ranges, seed) if probe.asks(*metrics) else NOT_TESTED
        for name, metrics in TESTED.items()
    }
    tokens = int(probe.later.sum())
    per_dimension = tokens / checkpoint.shape.hidden
    pairs, text, of_pairs, absent_pairs = neighbours(
        probe, depth=depth, adjacent=np.diagonal(cos_centred, 1).tolist(), per_dimension=per_dimension, seed=seed
    )
    hypothesis, of_hypothesis, absent_hypothesis = annealing(
        [probe.maps.get(layer) for layer in range(depth)],
        centred.numpy(),
        ranges,
        dimensions=checkpoint.shape.hidden - probe.layer_norm,
        seed=seed,
        asked=probe.asked,
    )
    record = DeltaSvd(
        model=checkpoint.name,
        dtype=facts.dtype,
        num_layers=depth,
        hidden=checkpoint.shape.hidden,
        tokens=tokens,
        calibration=facts,
        layers=[_layer(write) for write in writes],
        abs_cos=cos.tolist(),
        abs_cos_centred=cos_centred.tolist(),
        phases=phases,
        **tests,
        published_last=_published_last(probe.published_last),
        pairs=pairs,
        text=text,
        annealing=hypothesis,
        metrics=_metrics(probe, writes, tests, per_dimension, seed) | of_pairs | of_hypothesis,
        identities=_identities(probe, depth, checkpoint.architecture.unsummed or POST_NORM) if whole else {},
        absent=_absent(writes, phases, tests, probe.published_last) | absent_pairs | absent_hypothesis,
        notes=_notes(checkpoint, facts),
    )
    return record, {"directions": directions.float(), "directions_centred": centred.float()}


def _abs_cos(directions: torch.Tensor) -> np.ndarray:
    """(layer, layer) |cos| of top directions; NaN for a layer that has none."""
    top = directions[:, 0]
    cos = (top @ top.T).abs().clamp_max(1).numpy()
    none = (top == 0).all(1).numpy()
    cos[none] = np.nan
    cos[:, none] = np.nan
    return cos


def _test(similarity: np.ndarray, ranges: dict[str, range], seed: int) -> PhaseTest:
    if np.isnan(similarity).any():
        return NOT_TESTED
    return phase_test(similarity, ranges, seed=seed)


def _layer(write: LayerWrite) -> Layer:
    size, spectrum = write.size, write.spectrum
    names = ("singvals", "eff_rank", "top1_frac", "top3_frac", "top10_frac")
    return Layer(
        **asdict(size),
        **{name: getattr(spectrum, name) if spectrum else None for name in names},
        centred=write.centred,
        unit_rows=write.unit_rows,
        without_outliers=write.without_outliers,
        mean_share=write.mean_share,
        top_token_share=write.top_token_share,
        outlier_dims=write.outlier_dims,
        outlier_share=write.outlier_share,
    )


def _published_last(write: LayerWrite | None) -> dict[str, float | None]:
    names = ("frob", "rel_step_mean", "cos_delta_h_mean", "parallel_frac")
    if write is None:
        return dict.fromkeys((*names, "top1_frac"))
    return {name: getattr(write.size, name) for name in names} | {
        "top1_frac": write.spectrum.top1_frac if write.spectrum else None
    }


def _metrics(
    probe: DeltaProbe, writes: list[LayerWrite], tests: dict[str, PhaseTest], per_dimension: float, seed: int
) -> dict[str, Metric]:
    """Of those that are asked for."""

    def bare() -> Metric:
        shares = [write.without_outliers.top1_frac if write.without_outliers else None for write in writes]
        found = member(shares, seed=seed, families=1, unit="layers", within=(0, 1))
        return Metric(
            value=found.value,
            interval=found.interval,
            n={**found.n, "tokens_per_dimension": per_dimension},
            method="median over layers of the first direction's share, largest feature dimensions left out; over depth",
            reason=found.reason,
        )

    def p_value(test: PhaseTest) -> Metric:
        n = {"segmentations": test.segmentations}
        method = "distance-matched intra − cross |cos| against random contiguous segmentations, one-sided"
        return Metric(value=test.p, n=n, method=method, reason=NO_TEST if test.p is None else None)

    def power(test: PhaseTest) -> Metric:
        return Metric(
            value=test.power,
            n={"segmentations": test.segmentations},
            method=f"share of segmentations of the phases' lengths in which |cos| larger by {PLANTED} inside is seen",
            reason=ONE_ORDER if test.power is None else None,
        )

    made = {
        "median_top1_frac_without_outliers": bare,
        "phase_p": lambda: p_value(tests["phase_test_centred"]),
        "phase_power": lambda: power(tests["phase_test_centred"]),
        "phase_p_published": lambda: p_value(tests["phase_test"]),
        "rel_step_spearman": lambda: trend(
            [write.size.rel_step_mean for write in writes], [write.without.get("rel_step_mean") for write in writes]
        ),
    }
    return {name: make() for name, make in made.items() if probe.asks(name)}


def trend(steps: list[float | None], without: Sequence[torch.Tensor | None] = ()) -> Metric:
    """Whether relative steps fall with depth; (layer), and each with groups of prompts left out where there are any."""
    layers = {"layers": len(steps)}
    if None in steps:
        return Metric(value=None, n=layers, reason=f"layer {steps.index(None)} reads a zero hidden state everywhere")
    values = beside(steps, without)
    rho, interval = spearman_of_text(values[:, 0], values[:, 1:].T)
    reason = "the track is constant or too short" if rho is None else None
    method = "Spearman's ρ of mean ‖δ‖/‖h‖ with depth; Fisher's z, wider for persistent ranks; and the text's error"
    return Metric(value=rho, interval=interval, n=layers, method=method, reason=reason)


def _identities(probe: DeltaProbe, depth: int, unsummed: str) -> dict[str, Metric]:
    def worst(errors: dict[int, float], method: str) -> Metric:
        if not errors:
            return Metric(value=None, reason=unsummed, applies=False, method=method)
        layer = max(range(depth), key=errors.__getitem__)
        return Metric(value=errors[layer], n={"layers": depth}, where=f"layer {layer}", method=method)

    energy = {layer: write.energy_error for layer, write in probe.writes.items()}
    return {
        "layer_chain": worst(probe.chain_error, "max |output of a layer − input of the next| / max |h|; worst layer"),
        "branch_sum": worst(probe.branch_error, "max |δ − attention − feed-forward branch| / max |h|; worst layer"),
        "top1_energy": worst(energy, "|σ₁² − top1_frac·‖δ‖²| / ‖δ‖²; worst layer"),
    }


def _absent(
    writes: list[LayerWrite], phases: dict[str, Phase | None], tests: dict[str, PhaseTest], published: LayerWrite | None
) -> dict[str, str]:
    """Why a key holds nulls, by path pattern, for the keys that do."""
    absent = _absent_phases(phases)
    for layer, write in enumerate(writes):
        absent |= _absent_layer(layer, write)
    if any(write.spectrum is None or write.centred is None for write in writes):
        absent["phases.*"] = "a layer of the phase, or all others, have no top direction"
        absent["published_last.*"] = "the layer's input is zero, or equal to the final norm's output"
    absent |= dict.fromkeys((key for key, test in tests.items() if test.p is None), NO_TEST)
    absent |= dict.fromkeys((f"{key}.power" for key, test in tests.items() if test.power is None), ONE_ORDER)
    return absent | ({} if published else {"published_last.*": "the model's last layer was left out"})


def _absent_phases(phases: dict[str, Phase | None]) -> dict[str, str]:
    absent: dict[str, str] = {}
    for name, phase in phases.items():
        if phase is None:
            absent[f"phases.{name}"] = "no layer falls in this phase at this depth"
        elif phase.first == phase.last:
            for key in ("intra", "intra_centred", "capture_left_out*"):
                absent[f"phases.{name}.{key}"] = "a single layer has no other layer in its phase"
    return absent


def _absent_layer(layer: int, write: LayerWrite) -> dict[str, str]:
    at, reasons = f"layers.{layer}", {}
    if write.spectrum is None:
        reasons["the layer writes nothing on this text"] = (f"{at}.*", f"abs_cos.{layer}.*", f"abs_cos.*.{layer}")
    if write.centred is None:
        paths = (f"{at}.centred", f"abs_cos_centred.{layer}.*", f"abs_cos_centred.*.{layer}")
        reasons["the layer writes the same to every token"] = paths
    if write.without_outliers is None:
        reasons["the layer writes to the left-out feature dimensions only"] = (f"{at}.without_outliers",)
    if write.size.rel_step_mean is None:
        paths = (f"{at}.rel_step_*", f"{at}.cos_delta_h_mean", f"{at}.parallel_frac")
        reasons["the layer's input is zero everywhere"] = paths
    return {path: why for why, paths in reasons.items() for path in paths}


def _notes(checkpoint: Checkpoint, facts: ForwardFacts) -> list[str]:
    mark = "the beginning-of-sequence mark" if facts.bos else "an ordinary token, not a beginning-of-sequence mark"
    notes = [f"The first token of each sequence is left out; it was {mark}."]
    if checkpoint.architecture.post_norm:
        notes.append(
            "Post-norm: the stream is normalised behind each branch, so that a write is not the sum of what the "
            "branches add; states are not centred over features, since what reads them sees their mean."
        )
    elif checkpoint.architecture.layer_norm:
        notes.append("States and writes are centred over features, since this model's LayerNorm ignores their mean.")
    return notes + facts.notes()


def probe(checkpoint: Checkpoint) -> DeltaProbe:
    """What the forward pass feeds. Behind a post-norm the stream is read as it is, mean over features included."""
    architecture = checkpoint.architecture
    return DeltaProbe(
        layer_norm=architecture.layer_norm and not architecture.post_norm,
        branches_add=not (architecture.post_norm or architecture.unsummed),
    )


def analyse(inputs: Inputs) -> tuple[DeltaSvd, dict[str, torch.Tensor]]:
    """`measure` as the suite calls it."""
    passes = inputs.passes
    passes.require()
    return measure(inputs.checkpoint, passes.probes["delta_svd"], passes.facts, seed=inputs.seed, device=inputs.device)
