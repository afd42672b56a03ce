"""Truth planted in records and in tiny models; each row's verdict must find it, and no change of coordinates hide it.

Nothing is mocked between what is planted and the word: tracks are fitted, checkpoints written, measured and judged as
`fathom` does it. A row's own word is looked at, before the number of answers on a page is taken into account.
"""

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest

from analyses import delta_svd, head_geometry, schedule_fit
from analyses.forward.calibration import load_calibration
from analyses.forward.inputs import Settings
from analyses.null_residual import invariant, scales
from analyses.records import plain
from analyses.run import suite
from analyses.weights.checkpoint import Checkpoint, open_checkpoint
from checks.claims import CLAIMS
from checks.claims.gate import evaluate
from checks.claims.judge import judge
from checks.claims.verdicts import verdict
from checks.controls import by_class
from checks.controls import subject as subject_module
from checks.controls.subject import Subject
from checks.maps.catalogue import SCRAMBLE
from checks.twins.planted import adjacent_mixture, common_subspace, query_key_mixture, repeated_layers
from tests.tiny import tiny_checkpoint

GATES = {gate.id: gate for gate in CLAIMS}
SETTINGS = Settings(device="cpu")
TEXT = replace(load_calibration(), texts=load_calibration().texts[:2])
LAYERS = 24


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


def test_a_planted_cooling_holds_in_every_row_about_a_schedule():
    assert judged_schedules("cooling", *SCHEDULES) == dict.fromkeys(SCHEDULES, "holds")


def test_noise_about_a_constant_is_no_schedule():
    assert judged_schedules("noise", *SCHEDULES) == dict.fromkeys(SCHEDULES, "does not hold")


def test_a_walk_that_happens_to_fall_is_left_undecided():
    undecided = ("SF1", "SF2", "SF3", "SF5", "DS5")
    assert judged_schedules("walk", *undecided) == dict.fromkeys(undecided, "undecided")


def test_eight_layers_of_a_perfect_cooling_decide_nothing():
    for claim in SCHEDULES:
        outcome = evaluate(GATES[claim], fitted("cooling", 8))
        assert outcome.reason == "8 layers are too few for this claim (needs 12)"
        assert verdict(outcome.status, outcome.reason, None)[0] == "undecided"


def modes(tracks: dict[str, list[float]]) -> dict[str, Any]:
    logs, _ = scales.log_tracks(tracks)
    pca = scales.scale_pca(logs, seed=0, standardise=True)
    return {"null_residual": {"metrics": plain(invariant.mode_metrics(logs, pca, 0))}}


def test_scales_that_follow_one_law_move_along_one_mode_and_unrelated_ones_do_not():
    rng = np.random.default_rng(0)
    law = 0.9 ** np.arange(LAYERS)
    names = ("qk", "ov", "up_down", "gate")
    alike = {name: (law * np.exp(0.02 * rng.normal(size=LAYERS))).tolist() for name in names}
    unlike = {name: np.exp(rng.normal(size=LAYERS)).tolist() for name in names}
    assert evaluate(GATES["NR4"], modes(alike)).status == "pass"
    assert evaluate(GATES["NR4"], modes(unlike)).status == "fail"


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


def test_a_spectrum_that_predicts_entropy_within_layers_holds_and_noise_does_not():
    assert words(heads(slope=-0.8), *ASSOCIATIONS) == dict.fromkeys(ASSOCIATIONS, "holds")
    noise = words(heads(slope=0.0, layers=12, count=16), *ASSOCIATIONS)
    assert noise == dict.fromkeys(ASSOCIATIONS, "does not hold")


def test_two_unrelated_trends_over_depth_are_no_association():
    drifting = words(heads(slope=0.0, drift=0.3, layers=12), *ASSOCIATIONS)
    assert drifting["HE1"] == drifting["HE2"] == "does not hold" and drifting["HE3"] == "undecided"


def test_six_layers_of_a_strong_association_decide_nothing():
    assert words(heads(slope=-0.8, layers=6), *ASSOCIATIONS) == dict.fromkeys(ASSOCIATIONS, "undecided")


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
    return suite.records_of(checkpoint, TEXT, SETTINGS, analyses or ("null_residual", "head_grams"))


def subject_of(checkpoint: Checkpoint, *claims: str) -> Subject:
    """The checkpoint measured and judged on these claims only, ready for its controls."""
    gates = [gate for gate in subject_module.CLAIMS if gate.id in claims]
    found = measured(checkpoint, *sorted({name for gate in gates for name in gate.reads}))
    return Subject(checkpoint, TEXT, SETTINGS, found, {g.id: evaluate(g, found) for g in gates}, lambda line: None)


def test_unrelated_layers_are_so_in_any_coordinates_and_their_published_cosines_are_not_the_same(unrelated):
    own, scrambled = rows_of(measured(unrelated)), rows_of(measured(SCRAMBLE.apply(unrelated, seed=0)))
    expected = {"NR3": "holds", "HG1": "holds", "HG3": "holds", "NR5": "does not hold", "HG2": "does not hold"}
    for rows in (own, scrambled):
        assert {claim: rows[claim]["raw"]["verdict"] for claim in expected} == expected
    for claim in ("NR1.stored", "NR2.stored", "HG1.stored"):
        assert own[claim]["verdict"] == scrambled[claim]["verdict"] == "coordinate-dependent"
        before, after = (rows[claim]["findings"][0]["observed"] for rows in (own, scrambled))
        assert abs(after - before) > 0.1 * before, claim  # rounding moves it by 1e-7


@pytest.mark.parametrize(
    ("cos", "expected"),
    [
        (0.5, {"NR1m": "does not hold", "HG1": "does not hold", "NR5": "does not hold", "NR3": "holds"}),
        (0.8, {"NR1m": "does not hold", "HG1": "does not hold", "NR5": "undecided", "NR3": "undecided"}),
        (0.95, {"NR1m": "does not hold", "HG1": "does not hold", "NR3": "does not hold"}),
    ],
)
def test_layers_mixed_with_the_one_before_are_found_related_by_as_much_as_was_planted(unrelated, cos, expected):
    found = measured(adjacent_mixture(cos=cos).apply(unrelated, seed=0))
    assert words(found, *expected) == expected
    stored = rows_of(found)["NR1.stored"]["findings"][0]["observed"]
    assert stored == pytest.approx(cos, abs=1e-9)  # every family's cosine by construction; float64 rounding


def test_layers_that_read_what_the_one_before_reads_hold_where_there_are_enough_of_them(tmp_path):
    """Eleven pairs cannot tell alignments that wander between 0.4 and 0.75 from a walk; 23 can."""
    deep = open_checkpoint(str(tiny_checkpoint(tmp_path, "llama", layers=24)))
    assert words(measured(adjacent_mixture(cos=0.95).apply(deep, seed=0), "null_residual"), "NR5") == {"NR5": "holds"}


def test_a_common_subspace_is_seen_in_what_layers_read_and_write(unrelated):
    found = measured(common_subspace().apply(unrelated, seed=0), "null_residual")
    assert words(found, "NR3") == {"NR3": "does not hold"}


def test_heads_whose_queries_are_like_their_keys_are_not_of_mixed_sign(unrelated):
    found = measured(query_key_mixture().apply(unrelated, seed=0), "head_grams")
    assert words(found, "HG3") == {"HG3": "does not hold"}


def test_layers_equal_up_to_a_factor_leave_no_rank_to_compare(unrelated):
    row = rows_of(measured(repeated_layers(share=1.0).apply(unrelated, seed=0), "null_residual"))["NR3"]
    assert row["verdict"] == "undecided"
    assert invariant.IDENTICAL in row["findings"][0]["reason"]


# --- what a control makes of a word ---------------------------------------------------------------


def verdict_of(subject: Subject, claim: str, control: Any = None) -> tuple[str, str | None]:
    outcome = subject.outcomes[claim]
    return verdict(outcome.status, outcome.reason, {"control": control and plain(control)})


def test_an_absence_holds_if_what_was_planted_is_seen_and_says_how_little_is(unrelated):
    subject = subject_of(unrelated, "HG1")
    control = by_class.absences(subject)["HG1"]
    assert control.answer == "informative" and "detection limit: it still fails at size" in control.detail
    assert verdict_of(subject, "HG1", control) == ("holds", None)


def test_an_absence_that_passes_on_its_own_plant_is_uninformative(unrelated, monkeypatch):
    gate = GATES["HG1"]
    lax = replace(gate, conditions=(replace(gate.conditions[0], threshold=0.3),))  # the plant has 0.21
    monkeypatch.setattr(subject_module, "CLAIMS", (lax,))
    subject = subject_of(unrelated, "HG1")
    assert verdict_of(subject, "HG1") == ("holds", None)
    word, reason = verdict_of(subject, "HG1", by_class.absences(subject)["HG1"])
    assert word == "uninformative" and reason.startswith("insensitive") and "adjacent mixture of size 0.5" in reason


def test_a_presence_that_is_not_seen_where_it_was_planted_either_is_undecided(unrelated):
    subject = subject_of(unrelated, "HG2")  # four heads of dimension 8 in 32: subspaces have little room to differ
    assert verdict_of(subject, "HG2")[0] == "does not hold"
    word, reason = verdict_of(subject, "HG2", by_class.positives(subject)["HG2"])
    assert word == "undecided" and reason.startswith("insensitive"), reason


# --- too little to decide, nothing to ask ---------------------------------------------------------


def test_three_layers_decide_no_absence_and_without_a_text_nothing_is_asked(tmp_path):
    folder = tiny_checkpoint(tmp_path / "shallow", "llama", tokenizer=False, layers=3, hidden_size=16)
    analyses = ("null_residual", "head_grams", "attention_stats", "head_geometry")
    rows = rows_of(measured(open_checkpoint(str(folder)), *analyses))
    told = {claim: (row["verdict"], row["verdict_reason"]) for claim, row in rows.items()}
    for claim in ("NR1m", "NR3", "NR5", "HG1"):
        assert told[claim] == ("undecided", "2 pairs are too few for this claim (needs 4)"), claim
    assert told["HG3"] == ("undecided", "12 heads are too few for this claim (needs 32)")
    assert told["NR4"] == ("undecided", "3 layers are too few for this claim (needs 12)")
    for claim in ("HE1", "HE2", "HE3"):
        assert told[claim][0] == "not applicable" and "tokenizer" in told[claim][1], told[claim]
