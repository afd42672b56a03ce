"""Truth planted in records and in tiny models; each row's verdict must find it, and no change of coordinates hide it.

Nothing is mocked between what is planted and the word: tracks are fitted, checkpoints written, measured and judged as
`fathom` does it. A row's own word is looked at, before the number of answers on a page is taken into account.
"""

import re
from dataclasses import replace
from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from analyses import delta_svd, head_geometry, schedule_fit
from analyses.forward.calibration import load_calibration
from analyses.forward.inputs import Settings
from analyses.null_residual import invariant, scales
from analyses.null_residual.family import ALIKE
from analyses.records import plain
from analyses.run import suite
from analyses.weights.checkpoint import Checkpoint, open_checkpoint
from checks.claims import CLAIMS
from checks.claims.gate import Gate, evaluate
from checks.claims.judge import judge
from checks.claims.verdicts import verdict
from checks.controls import by_class
from checks.controls.subject import Run, Subject
from checks.maps.catalogue import SCRAMBLE
from checks.maps.ramps import RAMP_ALL
from checks.twins.planted import adjacent_mixture, repeated_layers
from tests.claims.planted import MODELS, WIDE
from tests.tiny import tiny_checkpoint

GATES = {gate.id: gate for gate in CLAIMS}
SETTINGS = Settings(device="cpu")
TEXT = replace(load_calibration(), texts=load_calibration().texts[:2])
LAYERS = 24
PUBLISHED = "NR|SF|DS|AN|HE|HG[123]$"  # rows about what the published scripts claim


def rows_of(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Row id → row, of the model and of the stored coordinates."""
    judged = judge({name: {"model": "planted"} | record for name, record in found.items()})
    return {row["id"]: row for row in (*judged["claims"], *judged["stored"])}


def words(found: dict[str, Any], *claims: str) -> dict[str, str]:
    """Claim → its own word."""
    rows = rows_of(found)
    return {claim: rows[claim]["raw"]["verdict"] for claim in claims}


# --- schedules over depth -------------------------------------------------------------------------


def track(law: str, layers: int = LAYERS) -> list[float]:
    """(layer,) positive: a cooling by a tenth a layer, scattered by 2 %; a walk; noise of 10 % about a constant."""
    rng = np.random.default_rng(0)
    cooling = 0.9 ** np.arange(LAYERS) * np.exp(0.02 * rng.normal(size=LAYERS))
    found = {
        "cooling": cooling,
        "exact": 0.9 ** np.arange(LAYERS),
        "noise": np.exp(0.1 * rng.normal(size=LAYERS)),
        "walk": np.exp(0.1 * np.random.default_rng(0).normal(size=LAYERS).cumsum()),
    }
    return found[law][:layers].tolist()


@cache
def fitted(law: str, layers: int = LAYERS) -> dict[str, Any]:
    """Records in which the temperature, a scale, the main write and the relative step all follow one track."""
    y = track(law, layers)
    told = {"model": "planted", "dtype": "float32", "seed": 0}
    fit = schedule_fit.measure({}, y, **told, invariant_scales={"qk": y}, sigma1=y)
    steps = {"dtype": "float32", "metrics": {"rel_step_spearman": plain(delta_svd.trend(y))}, "identities": {}}
    return {"schedule_fit": plain(fit), "delta_svd": steps}


def judged_schedules(law: str, *claims: str, layers: int = LAYERS) -> dict[str, str]:
    outcomes = {claim: evaluate(GATES[claim], fitted(law, layers)) for claim in claims}
    return {claim: verdict(o.status, o.reason, None)[0] for claim, o in outcomes.items()}


SCHEDULES = ("SF1", "SF2", "SF3", "SF4", "SF5", "DS5")
TRACKS = {
    "cooling": dict.fromkeys(SCHEDULES, "holds"),
    "exact": dict.fromkeys(("SF1", "SF2", "SF3", "SF5", "DS5"), "holds"),
    "noise": dict.fromkeys(SCHEDULES, "does not hold"),
    "walk": dict.fromkeys(("SF1", "SF2", "SF3", "SF5", "DS5"), "undecided"),
}
"""Track → word of each row; the walk happens to fall, the exact one is 0.9^ℓ."""


@pytest.mark.parametrize("law", TRACKS)
def test_a_planted_cooling_holds_noise_about_a_constant_does_not_and_a_walk_decides_nothing(law):
    assert judged_schedules(law, *TRACKS[law]) == TRACKS[law]


def test_eight_layers_of_a_perfect_cooling_decide_nothing():
    for claim in SCHEDULES:
        outcome = evaluate(GATES[claim], fitted("cooling", 8))
        assert outcome.reason == f"8 layers are too few for this claim (needs {GATES[claim].minimum['layers']})"
        assert verdict(outcome.status, outcome.reason, None)[0] == "undecided"


def modes(tracks: dict[str, list[float]]) -> dict[str, Any]:
    logs, _ = scales.log_tracks(tracks)
    pca = scales.scale_pca(logs, seed=0, standardise=True)
    return {"null_residual": {"metrics": plain(invariant.mode_metrics(logs, pca, 0))}}


def scale_tracks(kind: str) -> dict[str, list[float]]:
    """Four scales: one law for all, scattered by 2 %; independent noise; or two laws, one of them shared by three."""
    rng = np.random.default_rng(0)
    law, names = 0.9 ** np.arange(LAYERS), ("qk", "ov", "up_down", "gate")
    if kind == "alike":
        return {name: (law * np.exp(0.02 * rng.normal(size=LAYERS))).tolist() for name in names}
    noise = {name: np.exp(rng.normal(size=LAYERS)) for name in names}
    if kind == "unlike":
        return {name: track.tolist() for name, track in noise.items()}
    return {name: (law * (noise[name] if name == "qk" else noise[name] ** 0.02)).tolist() for name in names}


MODES = {"alike": "holds", "unlike": "does not hold", "three of four": "undecided"}


@pytest.mark.parametrize("kind", MODES)
def test_scales_that_follow_one_law_move_along_one_mode_and_unrelated_ones_do_not(kind):
    outcome = evaluate(GATES["NR4"], modes(scale_tracks(kind)))
    assert verdict(outcome.status, outcome.reason, None)[0] == MODES[kind]


# --- spectra that predict entropy -----------------------------------------------------------------


@cache
def heads(*, slope: float, drift: float = 0.0, layers: int = LAYERS, count: int = 8) -> dict[str, Any]:
    """A record of head_geometry: entropy is 2 + slope·ln σmax + noise of 0.3 inside every layer, and both drift.

    Over depth ln σmax rises and entropy falls by `drift` a layer, whatever the slope.
    """
    rng = np.random.default_rng(0)
    sigma = -np.sort(-np.abs(rng.normal(size=(layers, count, 6))) * np.exp(rng.normal(size=(layers, count, 1))))
    entropy = 2 + slope * np.log(sigma[..., 0]) + 0.3 * rng.normal(size=(layers, count))
    depth = drift * np.arange(layers)
    sigma, entropy = sigma * np.exp(depth)[:, None, None], entropy - depth[:, None]
    spectra = ("metric_singvals_per_head", "singvals_per_head", "gained_singvals_per_head")
    seen = ("mean_attention_entropy_per_head", "mean_logit_std_per_head")
    attention = {
        "model": "planted",
        "dtype": "float32",
        "num_layers": layers,
        "num_heads": count,
        "absent": {},
        "static": [{key: layer.tolist() for key in spectra} for layer in sigma],
        "dynamic": [{key: layer.tolist() for key in seen} for layer in entropy],
    }
    return {"head_geometry": plain(head_geometry.measure(attention, seed=0))}


ASSOCIATIONS = ("HE1", "HE2", "HE3")
SPECTRA = {
    "within": (dict(slope=-0.8), dict.fromkeys(ASSOCIATIONS, "holds")),
    "noise": (dict(slope=0.0, layers=12, count=16), dict.fromkeys(ASSOCIATIONS, "does not hold")),
    "two unrelated trends": (
        dict(slope=0.0, drift=0.3, layers=12, count=16),  # of 8 heads a correlation of 0.5 is seen in 72 % only
        {"HE1": "does not hold", "HE2": "does not hold", "HE3": "undecided"},
    ),
    "six layers": (dict(slope=-0.8, layers=6), dict.fromkeys(ASSOCIATIONS, "undecided")),
}


@pytest.mark.parametrize("kind", SPECTRA)
def test_a_spectrum_that_predicts_entropy_within_layers_holds_and_noise_or_two_trends_do_not(kind):
    planted, told = SPECTRA[kind]
    assert words(heads(**planted), *told) == told


def test_the_stored_form_of_an_association_has_one_word_whether_it_meets_its_limit_or_not():
    for slope, meets in ((-0.8, "yes"), (0.0, "no")):
        row = rows_of(heads(slope=slope, layers=24 if slope else 12, count=8 if slope else 16))["HE1.stored"]
        assert (row["verdict"], row["meets"]) == ("coordinate-dependent", meets)


# --- what adjacent layers share -------------------------------------------------------------------


@pytest.fixture(scope="module")
def unrelated(tmp_path_factory) -> Checkpoint:
    """Twelve layers drawn independently."""
    return open_checkpoint(str(tiny_checkpoint(tmp_path_factory.mktemp("unrelated"), "llama", layers=12)))


def measured(checkpoint: Checkpoint, *analyses: str) -> dict[str, Any]:
    return suite.records_of(checkpoint, TEXT, SETTINGS, analyses)


def subject_of(checkpoint: Checkpoint, claim: str, gate: Gate | None = None) -> Subject:
    """The checkpoint measured and judged on this claim only, ready for its control."""
    gate = gate or GATES[claim]
    found = measured(checkpoint, *gate.reads)
    return Subject(
        checkpoint, TEXT, SETTINGS, found, {claim: evaluate(gate, found)}, lambda line: None, asked=[gate]
    )


def test_layers_equal_up_to_a_factor_are_called_identical_in_the_row_and_in_its_stored_form(unrelated):
    rows = rows_of(measured(repeated_layers(share=1.0).apply(unrelated, seed=0), "null_residual"))
    assert rows["NR3"]["verdict"] == "undecided"
    assert rows["NR3"]["verdict_reason"].startswith(f"{invariant.IDENTICAL} (gate.read in 11 of 11 pairs")
    assert rows["NR3.stored"]["reason"].startswith(f"{ALIKE} (q_proj in 11 of 11 pairs")


def test_the_published_cosines_miss_what_is_planted_once_the_parameters_are_written_otherwise(unrelated):
    """Layers of cosine 0.95 with the one before: in another order of neurons and heads stored entries forget it."""
    related = adjacent_mixture(cos=0.95).apply(unrelated, seed=0)
    own, scrambled = (rows_of(measured(c, "null_residual")) for c in (related, SCRAMBLE.apply(related, seed=0)))
    stored = [rows["NR1.stored"] for rows in (own, scrambled)]
    assert [row["verdict"] for row in stored] == ["coordinate-dependent"] * 2
    assert [row["meets"] for row in stored] == ["no", "undecided"]
    assert stored[0]["findings"][0]["observed"] == pytest.approx(0.95, abs=1e-9)  # by construction, float64
    assert stored[1]["findings"][0]["observed"] < 0.3
    for rows in (own, scrambled):
        assert rows["NR1m"]["verdict"] == "does not hold" and rows["NR1m"]["findings"][0]["observed"] > 0.9


def test_the_published_temperature_cools_where_a_gain_was_moved_into_the_matrices_that_read_it(tmp_path):
    """The exact ramp of SF2's erratum, on layers whose temperature follows no law."""
    unrelated = open_checkpoint(str(tiny_checkpoint(tmp_path, "llama", layers=24)))
    found = measured(RAMP_ALL.apply(unrelated, seed=0), "null_residual", "attention_stats", "delta_svd", "schedule_fit")
    rows = rows_of(found)
    published, cooling = (finding["observed"] for finding in rows["SF2.stored"]["findings"])
    assert published > 0.85 and cooling < 0.85  # steps of 2 every third layer: ∛½ = 0.79 a layer
    assert rows["SF2"]["raw"]["verdict"] == "does not hold" and rows["SF2"]["findings"][0]["observed"] < 0.5


# --- what a control makes of a word ---------------------------------------------------------------


def verdict_of(subject: Subject, claim: str, control: Any = None) -> tuple[str, str | None]:
    outcome = subject.outcomes[claim]
    return verdict(outcome.status, outcome.reason, {"control": control and plain(control)})


def test_an_absence_holds_if_what_was_planted_is_seen_and_says_how_little_is(unrelated):
    subject = subject_of(unrelated, "HG1")
    control = by_class.absences(subject)["HG1"]
    assert control.answer == "informative" and "detection limit: it still fails at size" in control.detail
    assert verdict_of(subject, "HG1", control) == ("holds", None)


def test_an_absence_that_passes_on_its_own_plant_is_uninformative(unrelated):
    lax = replace(GATES["HG1"], conditions=(replace(GATES["HG1"].conditions[0], threshold=0.3),))  # the plant has 0.21
    subject = subject_of(unrelated, "HG1", lax)
    assert verdict_of(subject, "HG1") == ("holds", None)
    word, reason = verdict_of(subject, "HG1", by_class.absences(subject)["HG1"])
    assert word == "uninformative" and reason.startswith("insensitive") and "adjacent mixture of size 0.5" in reason


def test_ds3_must_see_one_common_direction_and_eight(unrelated, monkeypatch):
    found = {"delta_svd": {"metrics": {}, "dtype": "float32"}}
    answers = {"common direction": "fail", "common subspace of 8 directions": "inconclusive"}

    def judge(name, gates, *, checkpoint):
        status = next(status for plant, status in answers.items() if name.startswith(plant))
        return {gate.id: Run(name=name, seed=0, status=status, observed=(0.0, 0.0), where=None) for gate in gates}

    subject = SimpleNamespace(
        gates=lambda kind, status: [GATES["DS3"]], checkpoint=unrelated, settings=SETTINGS, judge=judge, found=found
    )
    blind = by_class.absences(subject)["DS3"]
    assert blind.answer == "insensitive" and "common subspace of 8 directions of size 1 (inconclusive)" in blind.detail
    answers["common subspace of 8 directions"] = "fail"
    assert by_class.absences(subject)["DS3"].answer == "informative"


def test_a_presence_that_is_not_seen_where_it_was_planted_either_is_undecided(unrelated):
    subject = subject_of(unrelated, "HG2")  # four heads of dimension 8 in 32: subspaces have little room to differ
    assert verdict_of(subject, "HG2")[0] == "does not hold"
    word, reason = verdict_of(subject, "HG2", by_class.positives(subject)["HG2"])
    assert word == "undecided" and reason.startswith("insensitive"), reason


def test_unrelated_layers_are_so_after_matching_and_the_plant_is_seen(tmp_path):
    wide = open_checkpoint(str(tiny_checkpoint(tmp_path, "llama", **WIDE)))
    subject = subject_of(wide, "NR1m")
    control = by_class.absences(subject)["NR1m"]
    assert control.answer == "informative" and verdict_of(subject, "NR1m", control) == ("holds", None)


# --- too little to decide, nothing to ask ---------------------------------------------------------


def test_three_layers_decide_no_absence_and_without_a_text_nothing_is_asked(tmp_path):
    folder = tiny_checkpoint(tmp_path / "shallow", "llama", tokenizer=False, layers=3, hidden_size=16)
    analyses = ("null_residual", "head_grams", "attention_stats", "head_geometry")
    rows = rows_of(measured(open_checkpoint(str(folder)), *analyses))
    told = {claim: (row["verdict"], row["verdict_reason"]) for claim, row in rows.items()}
    for claim in ("NR1m", "NR5", "HG1"):
        assert told[claim] == ("undecided", "2 pairs are too few for this claim (needs 4)"), claim
    assert told["NR3"][0] == "undecided" and "16 dimensions" in told["NR3"][1]  # a number's own reason comes first
    assert told["HG3"] == ("undecided", "12 heads are too few for this claim (needs 32)")
    assert told["NR4"] == ("undecided", "3 layers are too few for this claim (needs 12)")
    for claim in ("HE1", "HE2", "HE3"):
        assert told[claim][0] == "not applicable" and "tokenizer" in told[claim][1], told[claim]


# --- all of them ----------------------------------------------------------------------------------


def test_every_row_about_the_model_has_a_plant_for_each_of_its_words():
    tables = [planted.words for planted in MODELS.values()] + [*TRACKS.values()]
    tables += [{"NR4": word} for word in MODES.values()] + [told for _, told in SPECTRA.values()]
    tables.append(dict.fromkeys(SCHEDULES, "undecided"))  # eight layers
    rows = [gate.id for gate in CLAIMS if gate.row == "model" and re.match(PUBLISHED, gate.id)]
    assert len(rows) == 26
    found = {claim: {table[claim] for table in tables if claim in table} for claim in rows}
    every = {"holds", "does not hold", "undecided"}
    assert {claim: every - words for claim, words in found.items() if every - words} == {}
