"""A verdict's worth: twins that must fail or pass, tracks without a schedule, other coordinates, noise."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from analyses import records, registry, schedule_fit
from analyses.forward.calibration import Calibration, load_calibration
from analyses.forward.inputs import Settings
from analyses.run import suite
from analyses.weights.checkpoint import open_checkpoint
from checks.claims import CLAIMS
from checks.claims.gate import evaluate
from checks.controls import by_class, stability, surrogates
from checks.controls.by_class import PLANTS, _absence, _presence
from checks.controls.run import controls
from checks.controls.stability import _coordinates, _noise, window
from checks.controls.subject import Run, Subject, run_of
from checks.twins.twins import SHUFFLED
from tests.tiny import tiny_checkpoint

GATES = {gate.id: gate for gate in CLAIMS}


def run(name: str, status: str, value: float | None = 0.0) -> Run:
    return Run(name=name, seed=0, status=status, observed=(value,), where=None)


def outcome(
    status: str, observed: float | None, margin: float | None, kind: str = "absence", where: str | None = None
) -> SimpleNamespace:
    """What the readers of runs look at in an Outcome."""
    finding = SimpleNamespace(observed=observed, margin=margin, where=where, status=status)
    return SimpleNamespace(status=status, kind=kind, findings=(finding,))


def test_one_lucky_twin_in_nineteen_is_chance_and_two_of_a_kind_are_vacuous():
    failing = [run("shuffled", "fail")] * 18 + [run("initialised", "fail")] * 18
    assert _presence([*failing, run("shuffled", "pass"), run("initialised", "pass")]).answer == "informative"
    evidence = _presence([*failing, run("initialised", "pass"), run("initialised", "pass")])
    assert evidence.answer == "vacuous"
    assert "2 of 20 initialised models pass" in evidence.detail and "0 of 18 shuffled" in evidence.detail


def test_a_plant_must_be_seen_also_in_other_coordinates():
    plants = PLANTS["NR1"]
    for missed in ("pass", "inconclusive"):
        assert _absence(plants, [run("plant", missed)], run("scrambled", missed)).answer == "insensitive"
        assert _absence(plants, [run("plant", "fail")], run("scrambled", missed)).answer == "coordinate-blind"
    assert "scrambled" not in _absence(plants, [run("plant", "fail")], None).detail
    assert _absence(plants, [run("plant", "fail")], run("scrambled", "fail")).answer == "informative"


def test_the_detection_limit_is_the_weakest_plant_that_is_still_seen():
    seen = [run("0.5", "fail"), run("0.25", "fail"), run("0.125", "inconclusive")]
    detail = _absence(PLANTS["NR1"], seen, run("scrambled", "fail")).detail
    assert detail.endswith("detection limit: it still fails at size 0.25 and no longer at 0.125")
    assert _absence(PLANTS["NR1"], [*seen[:2], run("0.125", "fail")], None).detail.endswith("still fails at size 0.125")


def test_every_claim_of_absence_has_its_plant_and_every_schedule_its_surrogate():
    assert set(PLANTS) == {gate.id for gate in CLAIMS if gate.kind == "absence"}
    schedules = {gate.id for gate in CLAIMS if gate.kind == "schedule"}
    assert {claim for claims in surrogates.TRACKS for claim in claims} == schedules
    assert all(plant.size is not None for plants in PLANTS.values() for plant in plants)


def test_coordinates_that_change_the_answer_the_sign_or_the_number_are_named():
    base = outcome("pass", 0.5, 0.1)
    same = run("scramble", "pass", 0.5 + 1e-12)
    assert _coordinates(base, [same], band=0.0).answer == "stable"
    for moved, word in (
        (run("scramble", "fail", 0.5), "turns pass into fail"),
        (run("scramble", "pass", -0.5), "changes the sign"),
        (run("scramble", "pass", 0.6), "beyond the noise band"),
        (run("folding", "pass", None), "undefined after folding"),
    ):
        evidence = _coordinates(base, [same, moved], band=0.05)
        assert evidence.answer == "changes" and word in evidence.detail
    assert _coordinates(base, [run("scramble", "pass", 0.54)], band=0.05).answer == "stable"


def test_a_margin_smaller_than_what_noise_moves_is_within_noise():
    base = outcome("pass", 0.5, 0.1)
    assert _noise(base, [run("bfloat16", "pass", 0.55)]).answer == "stable"
    evidence = _noise(base, [run("bfloat16", "pass", 0.55), run("text", "pass", 0.35)])
    assert (evidence.answer, evidence.bands) == ("within noise", pytest.approx((0.15,), rel=1e-12))  # rounding
    assert _noise(base, [run("text", "fail", 0.5)]).answer == "within noise"


def test_a_pass_rests_on_every_margin_and_a_failure_on_one_that_fails():
    def two(status: str, first: str, second: str) -> SimpleNamespace:
        given = ((0.1, first), (0.01, second))
        parts = [SimpleNamespace(observed=0.5, margin=m, where=None, status=s) for m, s in given]
        return SimpleNamespace(status=status, kind="presence", findings=tuple(parts))

    moved = [replace(run("text", "pass"), observed=(0.55, 0.55))]  # each number by 0.05: within the second margin only
    assert _noise(two("pass", "pass", "pass"), moved).answer == "within noise"
    assert _noise(two("pass", "pass", "pass"), moved).bands == pytest.approx((0.05, 0.05), rel=1e-12)  # rounding
    failed = [replace(moved[0], status="fail")]
    assert _noise(two("fail", "fail", "fail"), failed).answer == "stable"
    assert _noise(two("fail", "pass", "fail"), failed).answer == "within noise"


def test_another_winning_form_or_descriptor_is_another_answer_and_another_worst_family_is_not():
    moved = [replace(run("scramble", "pass", 0.5), where="fro")]
    for kind, noisy, changed in (("association", "within noise", "changes"), ("absence", "stable", "stable")):
        base = outcome("pass", 0.5, 0.1, kind=kind, where="op")
        noise, coordinates = _noise(base, moved), _coordinates(base, moved, band=0.0)
        assert (noise.answer, coordinates.answer) == (noisy, changed)
        assert kind == "absence" or ("fro the winner in place of op" in noise.detail + coordinates.detail)


def test_a_claim_without_a_number_has_nothing_to_compare():
    base = outcome("inconclusive", None, None)
    assert _coordinates(base, [run("scramble", "inconclusive", None)], band=0.0).answer == "not defined"
    assert _noise(base, [run("text", "inconclusive", None)]).answer == "not defined"


def test_windows_of_the_text_leave_out_each_quarter_once():
    text = load_calibration()
    kept = [set(window(text, i).texts) for i in range(stability.WINDOWS)]
    assert set.union(*kept) == set(text.texts)
    for prompt in text.texts:
        assert sum(prompt in part for part in kept) == stability.WINDOWS - 1
    stream = Calibration(name="s", texts=("abcdefgh",), sha256="", stream=True)
    assert [window(stream, i).texts[0] for i in range(4)] == ["cdefgh", "abefgh", "abcdgh", "abcdef"]


def judged(claim: str, found: dict) -> str:
    return evaluate(GATES[claim], found).status


def drift_of(claim: str, found: dict) -> dict[str, float]:
    """Kind of surrogate → share that passes."""
    shares: dict[str, list[bool]] = {}
    claims = next(claims for claims in surrogates.TRACKS if claim in claims)
    for kind, judged_by in surrogates.surrogate_records(claims, found, seed=0, count=40):
        shares.setdefault(kind, []).append(judged(claim, judged_by) == "pass")
    return {kind: sum(passed) / len(passed) for kind, passed in shares.items()}


def test_an_exponential_measured_cooling_is_recognised_and_its_shuffled_layers_are_not():
    noise = np.random.default_rng(0).normal(size=24) * 0.01
    temperature = (0.8 * 0.95 ** np.arange(24) * np.exp(noise)).tolist()
    found = {"attention_stats": {"temperature": temperature}}
    fit = schedule_fit.measure({}, temperature, model="planted", dtype="float32", seed=0)
    assert judged("SF4", {"schedule_fit": records.plain(fit)}) == "pass"
    shares = drift_of("SF4", found)
    # The chance that a random order of 24 layers favours an exponential nine to one is far below 1 in 40.
    assert shares["order"] == 0.0
    # Steps of one size and sign, shuffled, with random signs: a walk that rarely keeps its direction.
    assert shares["walk"] <= by_class.DRIFT


def test_a_falling_rank_correlation_is_generic_drift_among_random_walks():
    found = {"attention_stats": {"temperature": (1 + np.arange(24) / 10).tolist()}}
    shares = drift_of("SF3", found)
    assert shares["order"] <= by_class.DRIFT
    # About a quarter of random walks has ρ ≤ −0.5 with depth; 40 draws give 0.25 ± 0.07, of which 0.08 is −2.5 σ.
    assert shares["walk"] > 0.08


def test_surrogates_keep_the_tracks_values_or_its_steps():
    track = [1.0, 2.0, 1.5, 3.0]
    rng = np.random.default_rng(0)
    assert sorted(surrogates.shuffled(track, rng)) == sorted(track)
    walk = surrogates.walk(track, rng)
    steps = [sorted(np.abs(np.diff(np.log(t)))) for t in (track, walk)]
    np.testing.assert_allclose(steps[0], steps[1], rtol=1e-14)  # rounding of exp and log
    assert walk[0] == track[0]


def test_all_controls_run_on_a_small_model_and_explain_themselves(tmp_path, monkeypatch):
    monkeypatch.setattr(by_class, "TWINS", 1)
    monkeypatch.setattr(stability, "SCRAMBLES", 1)
    monkeypatch.setattr(surrogates.surrogate_records, "__kwdefaults__", {"count": 2})
    folder = tiny_checkpoint(tmp_path / "tiny", layers=5)
    text = load_calibration()
    checkpoint, text = open_checkpoint(str(folder)), replace(text, texts=text.texts[:8])
    settings = Settings(device="cpu")
    found = suite.records_of(checkpoint, text, settings, registry.NAMES)
    evidence = controls(checkpoint, text, settings, found)
    records.write_json(tmp_path / "controls.json", evidence)
    assert set(evidence["claims"]) >= {"NR1", "NR5", "SF3", "HG1", "HE2", "DS1"}
    for claim, parts in evidence["claims"].items():
        assert set(parts) == {"control", "coordinates", "noise"}
        for part in parts.values():
            assert part is not None and part.detail, claim
    # No exact map touches what neurons and heads are matched by, nor the residual stream's writes.
    for claim in ("NR1m", "DS1", "DS3"):
        assert evidence["claims"][claim]["coordinates"].answer == "stable", evidence["claims"][claim]["coordinates"]
    # A random model's layers are unrelated, and the plant is seen.
    assert evidence["claims"]["NR1m"]["control"].answer == "informative"


@pytest.mark.parametrize("claim", ["NR1", "NR1m", "NR2", "NR3", "NR5"])
def test_a_twin_that_is_spared_families_or_spectra_gives_the_same_run(tmp_path, claim):
    sizes = dict(hidden_size=64, head_dim=32, num_key_value_heads=4, intermediate_size=64)  # sides of NR3's 32 and more
    checkpoint = open_checkpoint(str(tiny_checkpoint(tmp_path / "tiny", layers=6, **sizes)))
    text, settings, gate = load_calibration(), Settings(device="cpu"), GATES[claim]
    found = suite.records_of(checkpoint, text, settings, ["null_residual"])
    subject = Subject(checkpoint, text, settings, found, {gate.id: evaluate(gate, found)}, lambda line: None)
    twin = SHUFFLED.apply(checkpoint, 3)
    whole = run_of(gate, suite.records_of(twin, text, settings, ["null_residual"]), name="shuffled")
    assert whole.observed[0] is not None
    assert subject.judge("shuffled", [gate], checkpoint=twin) == {claim: whole}
