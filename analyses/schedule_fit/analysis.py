"""Fits of schedules over depth to the scales of the weights, and of cooling laws to attention temperatures.

Each family's track y_ℓ (Frobenius norm of the role's tensor in layer ℓ) is fitted with a constant, four one-piece forms
and a two-piece exponential (`tracks`). The fits as published stand beside the corrected ones.

The published attention temperature, T_ℓ/T_0 = γ_0/γ_ℓ from the norms of `input_ln`, is not one: with q/k norms a
uniform factor of the gain cancels in the logits, without them logits go as γ². The corrected temperature is measured,
1/(mean logit standard deviation of a layer), and arrives here as an argument.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np

from analyses.errors import LEFT_OUT
from analyses.forward.inputs import HEADS, Inputs, NotMeasured, Skipped
from analyses.numerics.intervals import slope, spearman_of_text
from analyses.records import SCHEMA_VERSION, Metric
from analyses.schedule_fit import chance
from analyses.schedule_fit.forms import COOLING_LAWS, ONE_PIECE
from analyses.schedule_fit.tracks import TWO_PIECE, CorrectedFit, Track, fit_track

GAIN = "input_ln"
NO_FAMILY = "the model lacks this family"
NESTED = (
    ("constant", "linear"),
    ("constant", "power"),
    ("constant", "exponential"),
    ("constant", "kirkpatrick"),
    ("linear", "offset_power"),
    ("power", "offset_power"),
    ("exponential", TWO_PIECE),
    ("hajek", "hajek_c2"),
)
"""Special case, the form that contains it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleFit:
    """The record."""

    analysis: str = "schedule_fit"
    schema_version: int = SCHEMA_VERSION
    model: str
    dtype: str  # of the forward pass that measured the temperature; "float64" without one
    num_layers: int  # of the longest track
    families: Mapping[str, Track]  # role → its track of Frobenius norms
    temperature: Mapping[str, Track]  # "published" T_ℓ/T_0 and "measured" T_ℓ as given; forms are cooling laws
    metrics: Mapping[str, Metric]
    identities: Mapping[str, Metric]  # akaike_weights_sum, nested_rss, line_residuals
    absent: Mapping[str, str]
    notes: list[str] = field(default_factory=list)


def measure(
    scales: Mapping[str, Sequence[float | None] | None],
    temperature: Sequence[float | None] | None,
    *,
    model: str,
    dtype: str,
    seed: int,
    no_temperature: str = "",
    invariant_scales: Mapping[str, Sequence[float] | None] | None = None,
    sigma1: Sequence[float | None] | None = None,
    temperature_left_out: Sequence[Sequence[float]] | None = None,
    lacking: Mapping[str, str] = MappingProxyType({}),
    asked: frozenset[str] | None = None,
) -> ScheduleFit:
    """Fit every family's track of norms, and the published and the measured temperature.

    Parameters
    ----------
    scales : family → (layer) Frobenius norms, or None for the reason in `lacking`.
    temperature : (layer) measured temperatures in any unit, or None with the reason in `no_temperature`.
    dtype : of the forward pass behind `temperature`.
    invariant_scales : name → (layer) scales that no exact map moves, or None where the model lacks one.
    sigma1 : (layer) largest singular value of the layer's centred write.
    temperature_left_out : (group, layer) the temperature with each group of prompts left out.
    asked : names of metrics; tracks and tests that none of them needs are left out. None: all.

    Returns
    -------
    ScheduleFit. A track that is absent, too short, not positive or constant is reported as such with its reason;
    its metrics then have no value.
    """
    pieces = 2 if asked is None or not asked.isdisjoint(INPUT_GAIN) else 1
    fits = {
        f"families.{name}": fit_track(
            track, ONE_PIECE, seed=seed, missing=lacking.get(name, NO_FAMILY), pieces=pieces
        )
        for name, track in ({GAIN: None} | dict(scales)).items()
    }
    gain, no_gain = fits[f"families.{GAIN}"]
    ratio = None if gain.status == "absent" else (gain.track[0] / np.asarray(gain.track)).tolist()
    fits["temperature.published"] = fit_track(ratio, COOLING_LAWS, seed=seed, missing=no_gain.get("*", ""))
    fits["temperature.measured"] = fit_track(
        temperature, COOLING_LAWS, seed=seed, missing=no_temperature or "no temperature was measured"
    )
    tracks: dict[str, dict[str, Track]] = {"families": {}, "temperature": {}}
    for path, (track, _) in fits.items():
        section, name = path.split(".")
        tracks[section][name] = track
    return ScheduleFit(
        model=model,
        dtype=dtype,
        num_layers=max((len(track.track) for track, _ in fits.values() if track.track), default=0),
        **tracks,
        metrics=_metrics(fits, scales.get(GAIN) is not None, temperature is not None, seed, asked)
        | _laws(temperature, no_temperature, invariant_scales or {}, sigma1, lacking, seed, asked)
        | (_fall_of_text(temperature, temperature_left_out) if asked is None or OF_TEXT in asked else {}),
        identities=_identities([track for track, _ in fits.values() if track.status == "fitted"]),
        absent={f"{path}.{key}": why for path, (_, reasons) in fits.items() for key, why in reasons.items()},
        notes=[
            "Corrected fits are least squares of the logarithm and are compared by AICc. Two pieces count only where "
            "their advantage exceeds what white noise and random walks give.",
            "The published temperature is a ratio of input gains. It is no temperature: a uniform factor of a gain can "
            "be moved into the projections without changing what the model computes.",
            "Published fits of the power, exponential, two-piece and Kirkpatrick forms minimise in log space, the "
            "others in linear space; their R² is taken in linear space and has no penalty for parameters.",
            "A fit at the end of its range is a limit of its form: an exponent c of −10 is a step after the first "
            "layer, and c₂ beyond a million is a constant.",
        ],
    )


def _metrics(
    fits: Mapping[str, tuple[Track, Mapping[str, str]]],
    has_gain: bool,
    has_temperature: bool,
    seed: int,
    asked: frozenset[str] | None,
) -> dict[str, Metric]:
    """What the claims ask of the tracks, without a value for a track that is not fitted."""
    metrics: dict[str, Metric] = {}
    for path, names, metrics_of in CLAIMED:
        if asked is not None and asked.isdisjoint(names):
            continue
        track, reasons = fits[path]
        if track.status == "fitted":
            metrics |= dict(zip(names, metrics_of(track, seed), strict=True))
        else:
            applies = has_temperature if path == "temperature.measured" else has_gain
            metrics |= {name: Metric(value=None, reason=reasons["*"], applies=applies) for name in names}
    return metrics


def _laws(
    temperature: Sequence[float | None] | None,
    no_temperature: str,
    invariant_scales: Mapping[str, Sequence[float] | None],
    sigma1: Sequence[float | None] | None,
    lacking: Mapping[str, str],
    seed: int,
    asked: frozenset[str] | None,
) -> dict[str, Metric]:
    """Of what no exact map moves: the laws that its tracks follow, against chance."""
    known = {name: track for name, track in invariant_scales.items() if track is not None and None not in track}
    left_out = [why for why in lacking.values() if LEFT_OUT in why]
    no_scale = (left_out or ["no invariant scale was measured"])[0]
    laws = {
        "invariant_scale": lambda **o: chance.one_piece(known, absent=no_scale, **o),
        "measured_exponential": lambda **o: chance.exponential(
            temperature, missing=no_temperature or "no temperature was measured", **o
        ),
        "write_sigma1": lambda **o: chance.exponential(
            sigma1, missing="the writes of the layers were not measured", **o
        ),
    }
    metrics: dict[str, Metric] = {}
    for track, law in laws.items():
        wanted = None if asked is None else {name for name in asked if name.startswith(track)}
        if wanted is None or wanted:
            tests = [name for name in chance.TESTS if wanted is None or f"{track}_{name}" in wanted]
            metrics |= {f"{track}_{name}": metric for name, metric in law(seed=seed, tests=tests).items()}
    if asked is None or "measured_temperature_walk_p" in asked:
        metrics["measured_temperature_walk_p"] = _fall(temperature, no_temperature, seed)
    return metrics


def _fall_of_text(
    temperature: Sequence[float | None] | None, left_out: Sequence[Sequence[float]] | None
) -> dict[str, Metric]:
    """SF3's rank correlation with an interval that joins depth with the sampling of prompts, where groups are known."""
    if not left_out or temperature is None or None in temperature:
        return {}
    rho, interval = spearman_of_text(np.asarray(temperature, float), np.asarray(left_out, float))
    if rho is None:
        return {}
    return {
        OF_TEXT: Metric(
            value=rho,
            interval=interval,
            n={"layers": len(temperature)},
            method="rank correlation with depth; Fisher's z, wider for the persistence of the ranks about their line, "
            "joined with the jackknife over prompts",
        )
    }


def _fall(temperature: Sequence[float | None] | None, no_temperature: str, seed: int) -> Metric:
    """p of Spearman's ρ of the measured temperature among its surrogates, one-sided: how many fall as much."""
    missing = no_temperature or "no temperature was measured"
    track, reasons = fit_track(temperature, COOLING_LAWS, seed=seed, missing=missing)
    if track.status != "fitted":
        return Metric(value=None, reason=reasons["*"], applies=temperature is not None)
    log = np.log(np.asarray(temperature, float))
    line = np.polynomial.Polynomial.fit(np.arange(len(log)), log, 1)(np.arange(len(log)))
    found = chance.against_chance(log, line, chance.fall, seed=seed)
    return Metric(
        value=found.p,
        n={"layers": len(log), "draws": found.draws},
        where=found.null,
        method="share of walks, autoregressions or orders of ln T, the largest, that fall as steadily (Spearman)",
    )


def _input_gain(track: Track, seed: int) -> tuple[Metric, Metric]:
    """SF1: how smooth the input gain's schedule is, and whether two pieces beat it."""
    n = {"layers": len(track.track)}
    best = track.corrected[track.best_one_piece]
    log, curve = np.log(track.track), np.log(best.fitted)
    smooth = Metric(
        value=best.r2_log,
        interval=chance.r2_interval(log, curve, ONE_PIECE, seed=seed),
        n=n,
        where=track.best_one_piece,
        method="R² of ln y of the one-piece form with the least AICc; refitted tracks about it, of the residuals' "
        "persistence",
    )
    pieces = track.two_piece
    broken = Metric(
        value=1.0 if pieces is None else pieces.p,
        n=n,
        where=None if pieces is None else pieces.null,
        method="share of null tracks on which two pieces gain as much AICc; 1 where they do not win or are not fitted",
    )
    return smooth, broken


def _published_temperature(track: Track, seed: int) -> tuple[Metric, Metric]:
    """SF2: the published exponential cooling; its R² as published, without an interval."""
    r2 = Metric(
        value=track.fits["kirkpatrick"].r2,
        n={"layers": len(track.track)},
        method="line of ln T over depth, R² of T; no interval, as published",
    )
    return r2, rate(track)


def _measured_temperature(track: Track, seed: int) -> tuple[Metric, Metric, Metric]:
    """SF3 and SF4: whether the measured temperature falls, and by which law."""
    n = {"layers": len(track.track)}
    weight = track.corrected["kirkpatrick"].weight
    return (
        Metric(
            value=track.spearman,
            interval=track.spearman_interval,
            n=n,
            method="rank correlation with depth; Fisher's z, wider for the persistence of the ranks about their line",
        ),
        rate(track),
        Metric(
            value=weight,
            n=n,
            where=track.best_form,
            method="Akaike weight among constant, Kirkpatrick, linear and both Hajek laws",
        ),
    )


OF_TEXT = "measured_temperature_spearman"
INPUT_GAIN = ("input_gain_one_piece_r2", "input_gain_two_piece_p")
PUBLISHED = ("published_kirkpatrick_r2", "published_kirkpatrick_alpha")
CLAIMED = (
    (f"families.{GAIN}", INPUT_GAIN, _input_gain),
    ("temperature.published", PUBLISHED, _published_temperature),
    (
        "temperature.measured",
        (OF_TEXT, "measured_kirkpatrick_alpha", "measured_kirkpatrick_weight"),
        _measured_temperature,
    ),
)
"""Track, the names of the metrics that are read off it, and the function that gives them."""


def rate(track: Track) -> Metric:
    """α of the exponential law with Student's interval of its slope under the residuals' persistence."""
    _, (low, high) = slope(np.log(track.track))
    return Metric(
        value=track.corrected["kirkpatrick"].params["alpha"],
        interval=(math.exp(low), math.exp(high)),
        n={"layers": len(track.track)},
        method="e^slope of the line of ln T over depth; Student's interval under the residuals' persistence",
    )


def _identities(tracks: Sequence[Track]) -> dict[str, Metric]:
    """What holds for every set of least-squares fits, worst case over the fitted tracks."""
    weights, nested, lines = [], [], []
    for track in tracks:
        log = np.log(track.track)
        total = float(np.square(log - log.mean()).sum())
        fits: Mapping[str, CorrectedFit] = track.corrected
        weights.append(abs(sum(f.weight for f in fits.values() if f.weight is not None) - 1))
        for special, general in NESTED:
            if special in fits and general in fits:
                nested.append(max(0.0, fits[general].rss - fits[special].rss) / total)
        for name in {"power", "exponential", "kirkpatrick"} & set(fits):
            explained = float(np.square(np.log(fits[name].fitted) - log.mean()).sum())
            lines.append(abs(total - explained - fits[name].rss) / total)
    cases = (
        ("akaike_weights_sum", weights, "|Σ weights − 1|"),
        (
            "nested_rss",
            nested,
            "residual sum of a form beyond that of its special case, relative to the centred square sum",
        ),
        ("line_residuals", lines, "|total − explained − residual| square sum of ln y, relative to the total"),
    )
    return {
        name: Metric(
            value=max(errors) if errors else None,
            n={"cases": len(errors)},
            method=method,
            reason=None if errors else "no track could be fitted",
            applies=bool(errors),
        )
        for name, errors, method in cases
    }


def analyse(inputs: Inputs) -> tuple[ScheduleFit, dict[str, Any]]:
    """`measure` on the records that it reads; no arrays. The gains need no forward pass.

    A twin is spared the tracks that none of its claims reads.
    """
    weights = inputs.record_of("null_residual")
    asked = inputs.asked
    gains = asked is None or not asked.isdisjoint((*INPUT_GAIN, *PUBLISHED))
    try:
        attention = inputs.record_of("attention_stats")
        temperature, left_out = attention["temperature"], attention["temperature_left_out"]
        reason, dtype = attention["absent"].get("dynamic", ""), attention["dtype"]
    except (Skipped, NotMeasured) as missing:
        temperature, left_out, reason, dtype = None, None, str(missing), weights["dtype"]
    having, depth = len(inputs.checkpoint.layers_with(*HEADS)), inputs.checkpoint.shape.layers
    if having < depth:
        temperature, left_out = None, None
        reason = reason or f"heads are in {having} of {depth} layers, and a schedule over depth needs a value in each"
    record = measure(
        weights["scales"] if asked is None else {GAIN: weights["scales"].get(GAIN) if gains else None},
        temperature,
        model=weights["model"],
        dtype=dtype,
        seed=inputs.seed,
        no_temperature=reason,
        lacking={path.removeprefix("scales."): why for path, why in weights["absent"].items()},
        invariant_scales=weights.get("invariant_scales") if inputs.asks(*_law("invariant_scale")) else None,
        sigma1=_write_sizes(inputs) if inputs.asks(*_law("write_sigma1")) else None,
        temperature_left_out=left_out,
        asked=asked,
    )
    return record, {}


def _law(track: str) -> tuple[str, ...]:
    """Names of the metrics of a track's law."""
    return tuple(f"{track}_{name}" for name in ("r2", "walk_p", "power"))


def _write_sizes(inputs: Inputs) -> list[float | None] | None:
    """First singular value of every layer's centred write, (layer,); None where writes were not measured."""
    try:
        return [layer["centred"]["singvals"][0] for layer in inputs.record_of("delta_svd")["layers"]]
    except (Skipped, NotMeasured):
        return None
