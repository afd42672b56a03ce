"""A verdict's worth: twins that must not show as much, plants that must be seen, numerical rounding."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from analyses import records, registry
from analyses.forward.calibration import load_calibration
from analyses.forward.inputs import Settings
from analyses.numerics.pvalues import STOP
from analyses.run import suite
from analyses.weights.checkpoint import open_checkpoint
from checks.claims import CLAIMS
from checks.claims.gate import evaluate
from checks.claims.verdicts import WORTHLESS
from checks.controls import by_class, stability, surrogates
from checks.controls.by_class import PLANTS, POSITIVES, _absence, _positive, _rare, _settled, as_extreme
from checks.controls.planted_streams import STREAMS
from checks.controls.run import controls
from checks.controls.stability import _band
from checks.controls.steps import PASS, Steps
from checks.controls.subject import Run, Subject, run_of
from checks.machine.threads import threads
from checks.twins.twins import SHUFFLED
from tests.tiny import tiny_checkpoint

GATES = {gate.id: gate for gate in CLAIMS}


def run(name: str, status: str, *observed: float | None) -> Run:
    return Run(name=name, seed=0, status=status, observed=observed or (0.0,), where=None, findings=(status,))


def outcome(status: str, *numbers: tuple[float | None, str, bool], margin: float | None = 0.1) -> SimpleNamespace:
    """What the readers of runs look at in an Outcome: of each condition observed, comparator, whether it is a test."""
    findings = [
        SimpleNamespace(observed=x, comparator=c, test=t, margin=margin, where=None, status=status)
        for x, c, t in numbers
    ]
    return SimpleNamespace(status=status, kind="presence", findings=tuple(findings))


# --- twins ----------------------------------------------------------------------------------------


def test_a_twin_counts_where_all_its_numbers_are_as_far_inside_and_p_values_are_not_asked():
    observed = outcome("pass", (0.5, ">=", False), (0.1, "<", False), (0.01, "<=", True))
    assert as_extreme(observed, run("shuffled", "fail", 0.5, 0.1, 0.9))
    assert not as_extreme(observed, run("shuffled", "pass", 0.49, 0.1, 0.0))
    assert not as_extreme(observed, run("shuffled", "pass", 0.5, 0.11, 0.0))
    assert not as_extreme(observed, run("shuffled", "inconclusive", 0.5, None, 0.0))


def test_p_is_the_share_of_twins_that_show_as_much_and_undefined_ones_count_for_nothing():
    observed = outcome("pass", (0.5, ">=", False))
    none = _rare(observed, "vacuous", {"shuffled": [run("shuffled", "fail", 0.1)] * 19})
    assert none.answer == "informative" and none.p == {"shuffled": pytest.approx(0.05)}
    one = _rare(observed, "vacuous", {"shuffled": [run("shuffled", "fail", x) for x in [0.6] + [0.1] * 18]})
    assert one.answer == "vacuous" and one.p == {"shuffled": pytest.approx(0.1)}
    undefined = [run("initialised", "inconclusive", None)] * 19
    told = _rare(observed, "vacuous", {"shuffled": [run("shuffled", "fail", 0.1)] * 19, "initialised": undefined})
    assert told.answer == "informative" and "none of 19 initialised models has such a number" in told.detail
    assert _rare(observed, "vacuous", {"initialised": undefined}).answer == "not defined"


def test_an_association_that_shuffled_weights_show_is_mechanical():
    observed = outcome("pass", (0.5, ">=", False))
    evidence = _rare(observed, "mechanical", {"shuffled": [run("shuffled", "pass", 0.9)] * STOP})
    assert (evidence.answer, evidence.p) == ("mechanical", {"shuffled": 1.0})


def subject_of(checkpoint, text, *claims: str) -> Subject:
    settings = Settings(device="cpu")
    gates = [GATES[claim] for claim in claims]
    found = suite.records_of(checkpoint, text, settings, sorted({name for gate in gates for name in gate.reads}))
    return Subject(checkpoint, text, settings, found, {g.id: evaluate(g, found) for g in gates}, lambda line: None)


def test_drawing_ends_when_enough_twins_have_shown_as_much(monkeypatch):
    asked = []

    def judge(name, gates, *, number=0, checkpoint=None):
        asked.append((number, [gate.id for gate in gates]))
        return {gate.id: run(name, "pass", 0.9 if gate.id == "NR5" else 0.0) for gate in gates}

    observed = outcome("pass", (0.5, ">=", False))
    subject = SimpleNamespace(
        checkpoint=None, settings=SimpleNamespace(seed=0), outcomes={"NR5": observed, "HG2": observed}, judge=judge
    )
    drawn = SimpleNamespace(name="shuffled", undefined=lambda c: None, apply=lambda c, seed: None)
    runs = by_class._drawn(subject, [GATES["NR5"], GATES["HG2"]], drawn)
    assert len(runs["NR5"]["shuffled"]) == STOP and len(runs["HG2"]["shuffled"]) == by_class.TWINS
    assert asked[STOP] == (STOP, ["HG2"])


# --- plants ---------------------------------------------------------------------------------------


def test_the_detection_limit_is_the_weakest_plant_that_is_still_seen():
    (plants,) = PLANTS["HG1"]
    seen = [run("0.5", "fail"), run("0.25", "fail"), run("0.125", "inconclusive")]
    detail = _absence(plants, seen).detail
    assert detail.endswith("detection limit: it still fails at size 0.25 and no longer at 0.125")
    assert _absence(plants, [*seen[:2], run("0.125", "fail")]).detail.endswith("still fails at size 0.125")
    for missed in ("pass", "inconclusive"):
        assert _absence(plants, [run("plant", missed)]).answer == "insensitive"


def test_what_is_planted_must_be_seen_in_four_draws_of_five():
    passed, failed, model = [run("planted", "pass")], [run("planted", "fail")], outcome("fail", (0.1, "<=", False))
    assert _positive("a planted law", passed * 16 + failed * 4, model).answer == "informative"
    assert _positive("a planted law", passed * 15 + failed * 5, model).answer == "insensitive"
    assert "either (undecided)" not in _positive("a plant", [run("plant", "pass")], model).detail


def test_no_more_tracks_are_planted_than_settle_what_all_would_say():
    passed, failed, model = [run("planted", "pass")], [run("planted", "fail")], outcome("fail", (0.1, "<=", False))
    for seen in range(surrogates.DRAWS + 1):
        draws = passed * seen + failed * (surrogates.DRAWS - seen)
        for drawn in (draws, draws[::-1]):
            settled = next(n for n in range(len(drawn) + 1) if _settled(drawn[:n], model))
            assert _positive("a law", drawn[:settled], model).answer == _positive("a law", drawn, model).answer
    assert [next(n for n in range(11) if _settled(all_one * n, model)) for all_one in (passed, failed)] == [8, 3]


def test_a_plant_is_seen_by_the_number_by_which_the_model_fails_whatever_the_other_says_of_it():
    model = SimpleNamespace(findings=[SimpleNamespace(status="fail"), SimpleNamespace(status="inconclusive")])
    plant = run("plant", "inconclusive", 0.9, 0.06)
    seen = replace(plant, findings=("pass", "inconclusive"))
    assert _positive("a plant", [seen], model).answer == "informative"
    assert _positive("a plant", [replace(plant, findings=("inconclusive", "pass"))], model).answer == (
        "insensitive"
    )


def test_every_claim_of_absence_has_its_plant_and_every_schedule_its_planted_track():
    model = [gate for gate in CLAIMS if gate.row == "model"]
    # Sinks that do not follow massive tokens: nothing is planted, so that a pass is called insensitive.
    assert {gate.id for gate in model if gate.kind == "absence"} - set(PLANTS) == {"RS2r"}
    schedules = {gate.id for gate in model if gate.kind == "schedule"}
    tracks = {claim for claims in surrogates.TRACKS for claim in claims}
    assert tracks | (schedules & set(STREAMS)) == schedules and not tracks & set(STREAMS)
    assert all(plant.size is not None for ladders in PLANTS.values() for ladder in ladders for plant in ladder)
    # Of a presence that only a p-value judges, nothing is said without a test's power, so that no plant is asked.
    limited = {g.id for g in model if g.kind == "presence" and not all(c.test for c in g.conditions)}
    assert set(POSITIVES) <= {g.id for g in model if g.kind == "presence"}
    assert limited - set(POSITIVES) - set(STREAMS) <= {"AN5", "AT1"}  # AT1's sinks are planted in its record


def test_an_absence_for_which_nothing_is_planted_is_insensitive_when_it_holds():
    subject = SimpleNamespace(gates=lambda *kinds, status: [GATES["RS2r"]])
    assert by_class.absences(subject)["RS2r"].answer == "insensitive"


# --- rounding -------------------------------------------------------------------------------------


def test_a_margin_smaller_than_what_rounding_moves_is_within_rounding():
    base = outcome("pass", (0.5, ">=", False))
    assert _band(base, [run("bfloat16", "pass", 0.55)]).answer == "stable"
    evidence = _band(base, [run("sdpa", "pass", 0.35)])
    assert (evidence.answer, evidence.bands) == ("within rounding", pytest.approx((0.15,), rel=1e-12))  # float64
    assert "rounding moves it by 0.15 at most (sdpa); its margin is 0.1" == evidence.detail
    assert _band(base, [run("bfloat16", "fail", 0.5)]).answer == "within rounding"


def test_a_pass_rests_on_every_margin_and_a_failure_on_one_that_fails():
    def two(status: str, first: str, second: str) -> SimpleNamespace:
        given = ((0.1, first), (0.01, second))
        parts = [SimpleNamespace(observed=0.5, margin=m, where=None, status=s) for m, s in given]
        return SimpleNamespace(status=status, kind="presence", findings=tuple(parts))

    moved = [run("bfloat16", "pass", 0.55, 0.55)]  # each number by 0.05: within the second margin only
    assert _band(two("pass", "pass", "pass"), moved).answer == "within rounding"
    assert _band(two("pass", "pass", "pass"), moved).bands == pytest.approx((0.05, 0.05), rel=1e-12)  # float64
    failed = [replace(moved[0], status="fail")]
    assert _band(two("fail", "fail", "fail"), failed).answer == "stable"
    assert _band(two("fail", "pass", "fail"), failed).answer == "within rounding"


def test_what_could_round_otherwise_is_changed_at_once_and_alone_where_that_leaves_a_claim_unclear():
    asked = []

    def judge(name, gates, *, checkpoint=None, **settings):
        asked.append((name, [gate.id for gate in gates], settings, torch.get_num_threads()))
        moved = {"sdpa attention": 0.15, "bfloat16, sdpa attention, 2 threads": 0.2}.get(name, 0.0)
        return {gate.id: run(name, "pass", 0.6 + moved) for gate in gates}

    margins = {"HG1": 0.1, "HE1": 0.1, "DS1": 0.3}
    outcomes = {claim: outcome("pass", (0.6, ">=", False), margin=margin) for claim, margin in margins.items()}
    subject = SimpleNamespace(settings=Settings(), outcomes=outcomes, judge=judge, checkpoint=None)
    subject.gates = lambda: [GATES[claim] for claim in margins]
    with pytest.MonkeyPatch.context() as patch, threads(1):
        patch.setattr(stability, "REROUNDED", SimpleNamespace(undefined=lambda checkpoint: "no twin of it"))
        found = stability.rounding(subject)
    both = {"dtype": "bfloat16", "attention": "sdpa"}
    assert asked == [
        ("bfloat16, sdpa attention, 2 threads", ["HE1", "DS1"], both, 2),
        ("bfloat16", ["HE1"], {"dtype": "bfloat16"}, 1),
        ("sdpa attention", ["HE1"], {"attention": "sdpa"}, 1),
        ("2 threads", ["HE1"], {}, 2),
    ]
    assert {claim: evidence.answer for claim, evidence in found.items()} == {
        "HG1": "not defined", "HE1": "within rounding", "DS1": "stable"
    }  # fmt: skip
    assert "0.2 at most (bfloat16, sdpa attention, 2 threads; sdpa attention alone by 0.15)" in found["HE1"].detail


def test_a_claim_without_a_number_has_nothing_to_compare():
    base = outcome("inconclusive", (None, ">=", False), margin=None)
    assert _band(base, [run("bfloat16", "inconclusive", None)]).answer == "not defined"


# --- whole ----------------------------------------------------------------------------------------


def test_all_controls_run_on_a_small_model_and_explain_themselves(tmp_path, monkeypatch):
    monkeypatch.setattr(by_class, "TWINS", 1)
    folder = tiny_checkpoint(tmp_path / "tiny", layers=5)
    text = load_calibration()
    checkpoint, text = open_checkpoint(str(folder)), replace(text, texts=text.texts[:8])
    settings = Settings(device="cpu")
    found = suite.records_of(checkpoint, text, settings, registry.NAMES)
    told: list[tuple[int, int]] = []
    evidence = controls(checkpoint, text, settings, found, tick=lambda done, of: told.append((done, of)))
    done, of = zip(*told, strict=True)
    assert list(done) == sorted(set(done)) and set(of) == {done[-1]}  # one bar, which ends where all is done
    records.write_json(tmp_path / "controls.json", evidence)
    assert set(evidence["claims"]) >= {"NR1", "NR1m", "NR5", "HG1", "DS1"}
    for claim, parts in evidence["claims"].items():
        assert set(parts) == {"control", "noise"}
        assert parts["noise"] is not None and parts["noise"].detail, claim
    for name, comparisons in evidence["invariance"].items():
        for comparison in comparisons:
            assert comparison["difference"] <= comparison["tolerance"], (name, comparison)
    moved = {path: reached for path, reached in evidence["orbits"].items() if reached.low < reached.high}
    assert "null_residual.metrics.worst_median_abs_cos" in moved
    for claim, parts in evidence["claims"].items():
        if (control := parts["control"]) is not None:
            assert control.answer in ("informative", *WORTHLESS, "not defined", "not needed"), claim
            assert control.detail
    assert any(parts["control"] for parts in evidence["claims"].values())


@pytest.fixture(scope="module")
def shuffled(tmp_path_factory):
    """(subject, a shuffled twin, all records of that twin) of a tiny model."""
    sizes = dict(hidden_size=64, head_dim=32, num_key_value_heads=4, intermediate_size=64)  # sides of NR3's 32 and more
    folder = tiny_checkpoint(tmp_path_factory.mktemp("shuffled") / "tiny", layers=6, **sizes)
    checkpoint, text, settings = open_checkpoint(str(folder)), load_calibration(), Settings(device="cpu")
    text = replace(text, texts=text.texts[:8])
    twin = SHUFFLED.apply(checkpoint, 3)
    subject = Subject(checkpoint, text, settings, {}, {}, lambda line: None)
    return subject, twin, suite.records_of(twin, text, replace(settings, attention="sdpa"), registry.NAMES)


SPARED = ("NR1", "NR1m", "NR3", "NR4", "NR5", "SF1", "SF3", "SF4", "SF5", "HG1", "HE1", "HE2", "HE3", "DS3", "DS4")
SPARED += ("SF1.stored", "SF2.stored", "HG1.stored", "HG4", "HG5", "HG6", "WS1", "WS1.stored", "RS1", "RS2", "RS3")
SPARED += ("RS4", "RS6", "RS7", "RS8")


@pytest.mark.parametrize("claim", SPARED)
def test_a_twin_that_is_spared_what_a_claim_does_not_read_gives_the_same_run(shuffled, claim):
    subject, twin, records_of_all = shuffled
    whole = run_of(GATES[claim], records_of_all, name="shuffled")
    spared = subject.judge("shuffled", [GATES[claim]], checkpoint=twin)[claim]
    assert whole.observed[0] is not None and spared == whole


def test_all_controls_are_one_count_and_a_stage_that_ends_early_jumps_to_its_end():
    told = []
    steps = Steps([3, 0, 2], lambda done, of: told.append((done, of)))
    with steps.stage():
        steps.step()
    with steps.stage():
        steps.step()  # beyond its end: not counted
    with steps.stage():
        steps.step()
        steps.step()
    assert told == [(1, 5), (3, 5), (4, 5), (5, 5)]


def test_a_measurement_that_reads_the_text_counts_for_as_many_as_it_takes_the_time_of():
    told = []
    steps = Steps([1 + PASS, 1], lambda done, of: told.append((done, of)))
    with steps.stage():
        steps.step(True)
        steps.step()
    with steps.stage():
        steps.step(True)  # no further than the stage
    assert told == [(PASS, PASS + 2), (PASS + 1, PASS + 2), (PASS + 2, PASS + 2)]


def test_the_counts_of_all_stages_are_those_of_the_measurements_that_they_make():
    """Twins of a claim on weights count once, those of one on states PASS times; a twin of both as the dearer."""
    status = {"NR5": "pass", "DS1": "pass", "HG1": "pass", "HG2": "fail"}
    outcomes = {claim: SimpleNamespace(status=word) for claim, word in status.items()}
    subject = Subject(None, None, Settings(), {}, outcomes, lambda line: None)
    nulls, absences, positives, schedules = by_class.most_steps(subject)
    assert nulls == 2 * by_class.TWINS * PASS and schedules == 0
    assert absences == len(PLANTS["HG1"][0]) and positives == 1
