"""Two runs compared: every claim in one group, for the right reason, from folders and from pages."""

import copy
import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analyses.errors import InputError
from checks import cli
from checks.report.comparison import answer, render_comparison
from checks.report.page import render_model
from checks.verify.compare import (
    CHANGED,
    DRIFT,
    FAILURE,
    FIX,
    GAINED,
    GROUPS,
    LOST,
    SAME,
    UNLIKE,
    Side,
    compare,
    metrics,
    read_side,
)
from checks.verify.tolerances import BOUND
from tests.page import attention_record, finding, gates, manifest, outcome, write_folder
from tests.report.test_report import HOSTILE, Page

KEY = {"weights": "w", "calibration": "c", "dtype": "float32", "seed": 0, "threads": 1, "code": "x"}


NUMBER = {"value": 0.5, "interval": None, "n": {}, "where": None, "method": "", "reason": None, "applies": True}


def side(claims, key=KEY, name="m", **record):
    found = {"attention_stats": attention_record(key=key, model=name, **record)}
    return Side(name=name, judged=gates(claims, model=name), manifest=manifest(name), found=found)


def group_of(before, after, **key):
    (pair,) = compare(side([before]), side([after], KEY | key))
    return pair.group


def with_noise(band, observed):
    controls = {"control": None, "noise": {"answer": "stable", "detail": "", "bands": [band]}}
    return outcome("A", findings=[finding(observed)], controls=controls)


@pytest.mark.parametrize(
    ("before", "after", "group"),
    [
        ("holds", "does not hold", FAILURE),
        ("holds", "undecided", FAILURE),
        ("does not hold", "error", FAILURE),
        ("undecided", "holds", FIX),
        ("does not hold", "undecided", CHANGED),
        ("holds", "holds", SAME),
        ("not applicable", "not applicable", SAME),
        ("holds", "not applicable", UNLIKE),
    ],
)
def test_a_claims_group_follows_from_its_two_verdicts(before, after, group):
    assert group_of(outcome("A", before), outcome("A", after)) == group


def test_a_number_drifts_when_it_moves_beyond_its_measured_noise_and_beyond_rounding_where_none_was_measured():
    assert group_of(with_noise(0.01, 0.05), with_noise(0.01, 0.0599)) == SAME
    assert group_of(with_noise(0.01, 0.05), with_noise(0.002, 0.0601)) == DRIFT
    step = BOUND["float32"] * 0.05
    assert group_of(outcome("A", findings=[finding(0.05)]), outcome("A", findings=[finding(0.05 + step)])) == SAME
    assert group_of(outcome("A", findings=[finding(0.05)]), outcome("A", findings=[finding(0.05 + 3 * step)])) == DRIFT
    assert group_of(outcome("A", findings=[finding(0.05)]), outcome("A", findings=[finding(None)])) == DRIFT


@pytest.mark.parametrize(
    ("part", "value", "words"),
    [
        ("weights", "other", "other weights"),
        ("dtype", "bfloat16", "another precision"),
        ("calibration", "other", "another calibration text"),
        ("layers", "0-3", "other layers"),
    ],
)
def test_another_question_is_not_comparable_and_says_why(part, value, words):
    (pair,) = compare(side([outcome("A")]), side([outcome("A", "does not hold")], KEY | {part: value}))
    assert (pair.group, pair.reasons) == (UNLIKE, (words,))


@pytest.mark.parametrize(
    ("before", "after", "group"),
    [
        ("holds", "does not hold", LOST),
        ("does not hold", "holds", GAINED),
        ("undecided", "does not hold", CHANGED),
        ("holds", "error", FAILURE),
        ("holds", "holds", SAME),
    ],
)
def test_two_checkpoints_of_one_training_are_asked_one_question_and_what_differs_is_what_training_did(
    before, after, group
):
    sides = [
        dataclasses.replace(side([claim], KEY | {"weights": name}), manifest=manifest(name, tensors=name))
        for name, claim in (
            ("run-step400", outcome("A", before)),
            ("run-step800", outcome("A", after, findings=[finding(0.09)])),
        )
    ]
    (pair,) = pairs = compare(*sides)
    assert (pair.group, pair.reasons, pair.trained) == (group, (), True)
    assert answer(pairs).startswith("Same training, other step. Of 1 claim: ")
    text = Page(render_comparison(*sides, pairs)).text
    assert "0.0340 → 0.0900" in text and "tolerance 0" not in text
    # Another name, or another configuration, is another training.
    elsewhere = dataclasses.replace(sides[1], manifest=manifest("other-step800", tensors="run-step800"))
    assert compare(sides[0], elsewhere)[0].group == UNLIKE


def test_in_every_group_claims_with_another_verdict_come_first():
    verdicts = [("undecided", "undecided"), ("holds", "undecided"), ("holds", "holds"), ("undecided", "holds")]
    sides = [
        side([outcome(f"C{i}", pair[k]) for i, pair in enumerate(verdicts)], KEY | {"weights": str(k)}) for k in (0, 1)
    ]
    assert [pair.id for pair in compare(*sides)] == ["C1", "C3", "C0", "C2"]


@pytest.mark.parametrize("part", ["seed", "threads", "code", "libraries", "device_class"])
def test_what_a_comparison_is_for_does_not_keep_two_runs_apart(part):
    assert group_of(outcome("A"), outcome("A", "does not hold"), **{part: "other"}) == FAILURE


def test_a_claim_is_held_to_the_question_of_the_record_that_its_number_is_from():
    elsewhere = outcome("A", findings=[finding(path="delta_svd.metrics.x")])
    sides = [side([elsewhere]), side([elsewhere])]
    for read, text in zip(sides, ("c", "other"), strict=True):
        read.found["delta_svd"] = {"dtype": "float32", "key": KEY | {"calibration": text}}
    (pair,) = compare(*sides)
    assert (pair.group, pair.reasons) == (UNLIKE, ("another calibration text",))


def test_another_limit_and_a_claim_that_one_run_lacks_are_not_comparable():
    moved = outcome("A", findings=[finding(threshold=0.2)])
    assert group_of(outcome("A"), moved) == UNLIKE
    pairs = compare(side([outcome("A"), outcome("B")]), side([outcome("A")]))
    assert [(p.id, p.group, p.reasons) for p in pairs if p.id == "B"] == [("B", UNLIKE, ("only A asks this claim",))]


def test_a_verdict_that_only_a_control_turned_which_one_run_lacks_is_no_failure():
    evidence = {"answer": "vacuous", "detail": "", "runs": []}
    bare, turned = outcome("A"), outcome("A", "uninformative", status="pass", controls={"control": evidence})
    (pair,) = compare(side([bare]), side([turned]))
    assert (pair.group, pair.reasons) == (UNLIKE, ("other controls were run",))
    informative = outcome("A", controls={"control": evidence | {"answer": "informative"}})
    assert group_of(informative, turned) == FAILURE
    assert group_of(bare, outcome("A", "does not hold", controls={"control": evidence})) == FAILURE


@given(st.lists(st.sampled_from(["holds", "does not hold", "undecided", "error", "not applicable"]), min_size=1))
def test_every_claim_is_in_one_group_and_a_run_against_itself_is_unchanged(verdicts):
    claims = [outcome(f"C{i}", verdict) for i, verdict in enumerate(verdicts)]
    pairs = compare(side(claims), side(claims))
    assert [pair.group for pair in pairs] == [SAME] * len(verdicts)
    mixed = compare(side(claims), side(list(reversed([c | {"id": f"C{i}"} for i, c in enumerate(claims)]))))
    assert len(mixed) == len(verdicts) and all(pair.group in GROUPS for pair in mixed)


def test_every_metric_of_both_runs_has_its_tolerance():
    a, b = (side([outcome("A")], metrics={"m": NUMBER | {"value": v}}) for v in (0.5, 0.6))
    (number,) = metrics(a, b, "attention_stats")
    assert number.drifts and number.tolerance == pytest.approx(BOUND["float32"] * 0.6, rel=1e-12)
    assert number.source == "rounding of float32"


def test_the_page_says_both_numbers_apart_draws_both_tracks_and_escapes_names():
    a = side([outcome("A", findings=[finding(0.05)])], name=HOSTILE)
    record = copy.deepcopy(attention_record())
    b = side([outcome("A", findings=[finding(0.0500001)])], name=HOSTILE, dynamic=record["dynamic"])
    source = render_comparison(a, b, compare(a, b))
    page = Page(source)
    assert "0.050000 → 0.0500001" in page.text.replace("0.0500000", "0.050000")
    assert source.count("<script") == 1 and "Both runs over depth" in page.text
    assert len(set(page.ids)) == len(page.ids) and {t[1:] for t in page.targets if t.startswith("#")} <= set(page.ids)
    assert answer(compare(a, b)) == "Of 1 claim: no new failure, 1 unchanged."


def test_a_folder_and_its_page_are_the_same_side_and_a_comparison_is_written(tmp_path, capsys):
    folder = write_folder(tmp_path / "m", gates([outcome("A")]), manifest(), attention_stats=attention_record(key=KEY))
    (folder / "report.html").write_text(render_model(folder), encoding="utf-8")
    assert read_side(folder) == read_side(folder / "report.html")
    out = tmp_path / "both.html"
    assert cli.main(["compare", str(folder), str(folder / "report.html"), "--out", str(out)]) == 0
    assert "Of 1 claim: no new failure" in capsys.readouterr().out
    first = out.read_bytes()
    assert cli.main(["compare", str(folder), str(folder), "--out", str(out), "--quiet"]) == 0
    assert out.read_bytes() == first


def test_a_new_failure_exits_with_1_under_strict_and_a_broken_identity_always(tmp_path):
    sides = {}
    for name, verdict, status in (("a", "holds", "pass"), ("b", "does not hold", "pass"), ("c", "holds", "fail")):
        judged = gates([outcome("A", verdict)], [outcome("attention_stats.sum", status=status)])
        record = attention_record(key=KEY, metrics={"x": NUMBER | {"value": finding()["observed"]}})
        sides[name] = str(write_folder(tmp_path / name, judged, manifest(), attention_stats=record))
    out = ["--out", str(tmp_path / "x.html"), "--quiet"]
    assert cli.main(["compare", sides["a"], sides["b"], *out]) == 0
    assert cli.main(["compare", sides["a"], sides["b"], "--strict", *out]) == 1
    assert cli.main(["compare", sides["a"], sides["c"], *out]) == 1


def test_a_verdict_that_its_record_does_not_give_is_no_fix_and_no_failure(tmp_path):
    sides = {}
    for name, observed in (("honest", 0.034), ("forged", 0.2)):
        record = attention_record(key=KEY, metrics={"x": NUMBER | {"value": observed}})
        sides[name] = write_folder(tmp_path / name, gates([outcome("A")]), manifest(), attention_stats=record)
    (pair,) = compare(read_side(sides["honest"]), read_side(sides["forged"]))
    assert (pair.group, pair.reasons) == (UNLIKE, ("the verdict of B is not what its record gives",))


def test_a_record_that_was_changed_or_is_gone_is_refused_and_not_called_unchanged(tmp_path):
    folder = write_folder(tmp_path / "m", gates([outcome("A")]), manifest(), attention_stats=attention_record(key=KEY))
    path = folder / "attention_stats.json"
    whole = path.read_text()
    path.write_text(whole.replace('"queries": 100', '"queries": 101'))
    with pytest.raises(InputError, match="attention_stats.json is not as it was written"):
        read_side(folder)
    path.unlink()
    with pytest.raises(InputError, match="names attention_stats, which is not there"):
        read_side(folder)


def test_a_folder_over_models_and_one_that_is_not_judged_are_refused_in_one_line(tmp_path):
    folder = write_folder(tmp_path / "m", gates([outcome("A")]), manifest(), attention_stats=attention_record())
    with pytest.raises(InputError, match="one model's folder"):
        read_side(tmp_path)
    (folder / "gates.json").unlink()
    with pytest.raises(InputError, match="fathom report"):
        read_side(folder)


def test_the_recorded_results_which_are_kept_short_are_refused_in_one_line():
    from checks.reference import RECORDED

    with pytest.raises(InputError, match="no numbers beside the verdicts.*`fathom verify recorded`"):
        read_side(RECORDED)
