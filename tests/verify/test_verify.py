"""A number that comes again, or a reason why it does not."""

import json
import shutil
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from analyses import records, registry
from analyses.errors import InputError
from analyses.run import keys
from checks import cli
from checks.verify.accept import LOG, accept, shortened
from checks.verify.differences import Tolerance, compare, status, worst
from checks.verify.remeasure import settings_of
from checks.verify.results import model_of, received, subset
from checks.verify.tolerances import SAFETY, quantity, tolerance_of
from checks.verify.verify import verify
from tests.tiny import tiny_checkpoint

WEIGHTS = "null_residual,head_grams"


def fathom(*arguments: object) -> int:
    return cli.main([str(argument) for argument in arguments])


def measured(model: Path, out: Path, *more: object) -> Path:
    assert fathom("run", model, "--out", out, "--device", "cpu", "--quiet", *more) == 0
    return out / model.name


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def result(tiny, tmp_path_factory) -> Path:
    """Everything, as it was received from somebody."""
    return measured(tiny, tmp_path_factory.mktemp("out"))


def copy(folder: Path, to: Path) -> Path:
    shutil.copytree(folder, to / folder.name)
    return to / folder.name


def held(old: Path, new: Path, names: str = "", **given) -> tuple[dict[str, str], str]:
    """(analysis → status and words, status of the whole) of one result against another."""
    with received(old) as recorded, received(new) as found:
        verification = verify(recorded, found, names=names.split(",") if names else tuple(recorded.found), **given)
    return {a.analysis: f"{a.status}: {' '.join([*a.inputs, *a.notes])}" for a in verification.analyses}, verification


def rewrite(folder: Path, name: str, change) -> None:
    """Change a record and everything that vouches for it, as somebody who measured it otherwise would have."""
    record = records.read_json(folder / f"{name}.json")
    change(record)
    record["checksum"] = records.checksum(record)
    records.write_json(folder / f"{name}.json", record)
    manifest = records.read_json(folder / "manifest.json")
    manifest["records"][name] = record["checksum"]
    records.write_json(folder / "manifest.json", manifest)


# --- the same again -----------------------------------------------------------------------------


def test_measured_again_on_this_machine_every_byte_is_the_same(tiny, result, tmp_path):
    outcome = {kind: tmp_path / f"v.{kind}" for kind in ("json", "markdown", "junit")}
    files = [word for kind, path in outcome.items() for word in (f"--{kind}", path)]
    assert fathom("verify", result, "--model", tiny, "--out", tmp_path / "again", "--quiet", *files) == 0
    told = records.read_json(outcome["json"])
    assert told["status"] == "identical" and {a["status"] for a in told["analyses"]} == {"identical"}
    for name in registry.NAMES:
        assert (tmp_path / "again" / "tiny" / f"{name}.json").read_bytes() == (result / f"{name}.json").read_bytes()
    suites = ET.parse(outcome["junit"]).getroot()
    assert (suites.get("tests"), suites.get("failures")) == (str(len(registry.NAMES)), "0")
    assert "identical" in outcome["markdown"].read_text()


def test_a_page_and_the_model_are_enough(tiny, result, tmp_path, capsys):
    page = tmp_path / "received.html"
    shutil.copy(result / "report.html", page)
    assert fathom("verify", page, "--model", tiny, "--only", WEIGHTS) == 0
    printed = capsys.readouterr().out
    assert "identical" in printed and "not asked for" in printed


def test_a_subset_is_the_quickest_part_and_says_which(result, tiny, capsys):
    manifest = {"timings": {"forward": 50.0, "null_residual": 10.0, "head_grams": 5.0, "delta_svd": 1.0}}
    assert subset(manifest, ("null_residual", "head_grams", "delta_svd")) == ("null_residual", "head_grams")
    assert fathom("verify", result, "--model", tiny, "--subset") == 0
    printed = capsys.readouterr().out
    assert "measuring" in printed and "not asked for" in printed


# --- each difference by its name ----------------------------------------------------------------


def test_one_weight_bit_is_other_weights_and_not_drift(tiny, result, tmp_path):
    other = copy(tiny, tmp_path)
    tensors = load_file(other / "model.safetensors")
    tensors["model.layers.1.mlp.up_proj.weight"].view(torch.int32)[0, 0] ^= 1
    save_file(tensors, other / "model.safetensors")
    found, verification = held(result, measured(other, tmp_path / "out", "--only", WEIGHTS), WEIGHTS)
    assert all(told.startswith("not comparable: other weights") for told in found.values())
    assert verification.exit_code == 3 and "model.safetensors" in verification.notes[0]


def test_a_model_that_is_not_the_recorded_one_is_not_measured_to_find_that_out(
    tiny, result, tmp_path, capsys, monkeypatch
):
    other = copy(tiny, tmp_path)
    tensors = load_file(other / "model.safetensors")
    tensors["model.norm.weight"].view(torch.int32)[0] ^= 1
    save_file(tensors, other / "model.safetensors")
    monkeypatch.setattr("analyses.run.measure.measure", lambda *a, **k: pytest.fail("it was measured"))
    assert fathom("verify", result, "--model", other) == 3
    assert capsys.readouterr().out.count("other weights") == len(registry.NAMES)


def test_one_prompt_is_another_text_and_leaves_the_weights_comparable(tiny, result, tmp_path):
    text = tmp_path / "mine.txt"
    text.write_text("Another prompt altogether, and more of it. " * 20)
    found, verification = held(result, measured(tiny, tmp_path / "out", "--calibration", text))
    for name in ("attention_stats", "delta_svd", "head_geometry", "schedule_fit"):
        assert found[name].startswith("not comparable: another calibration text"), found[name]
    for name in ("null_residual", "head_grams"):
        assert found[name].startswith("identical"), found[name]
    assert verification.exit_code == 3 and "--calibration" in " ".join(verification.notes)


@pytest.mark.parametrize(
    ("option", "value", "word"),
    [("dtype", "bfloat16", "precision"), ("attention", "sdpa", "attention"), ("seed", "1", "seed")],
)
def test_another_setting_is_named(tiny, result, tmp_path, option, value, word):
    names = "delta_svd" if option != "seed" else "null_residual"
    other = measured(tiny, tmp_path, f"--{option}", value, "--only", names)
    found, verification = held(result, other, names)
    assert found[names].startswith(f"not comparable: another {word} ({value}"), found
    assert verification.exit_code == 3


def test_a_restriction_to_some_layers_is_read_back_from_the_manifest_as_it_was_written(result):
    manifest = records.read_json(result / "manifest.json")
    for layers in (range(1, 3), None):
        written = manifest | {"settings": manifest["settings"] | {"layers": keys.chosen(layers)}}
        assert settings_of(written, ("head_grams",), None).layers == layers


def test_another_revision_is_named_and_the_same_tensors_under_another_name_are_seen(result, tmp_path):
    other = copy(result, tmp_path)
    manifest = records.read_json(other / "manifest.json")

    def revise(record):
        record["key"] |= {"revision": "b" * 40, "model": "owner/name", "weights": "c" * 64}

    for name in registry.NAMES:
        rewrite(other, name, revise)
    manifest = records.read_json(other / "manifest.json")
    same = manifest | {"model": "owner/name", "revision": "b" * 40}
    records.write_json(other / "manifest.json", same)
    found, verification = held(result, other)
    assert verification.status == "identical" and "holds the same tensors as tiny" in verification.notes[0]
    records.write_json(other / "manifest.json", same | {"tensors": "d" * 64})
    found, verification = held(result, other)
    assert all("not comparable" in told and "another revision" in told for told in found.values())
    assert verification.exit_code == 3


def test_a_number_that_moved_is_drift_with_its_tolerance_and_its_likely_cause(result, tmp_path, capsys):
    other = copy(result, tmp_path)

    def move(record):
        record["metrics"]["worst_median_abs_cos"]["value"] += 1e-3
        record["key"]["threads"] = 64

    rewrite(other, "null_residual", move)
    assert fathom("verify", result, "--against", other) == 1
    printed = capsys.readouterr().out
    assert "metrics.worst_median_abs_cos.value" in printed and "moved 0.001" in printed
    assert "another number of threads (64, then" in printed and "is allowed" in printed


def test_a_movement_within_its_tolerance_passes_and_without_a_measured_one_the_bound_is_said(result, tmp_path):
    other = copy(result, tmp_path)
    tolerances = {"schema_version": 1, "tensors": records.read_json(result / "manifest.json")["tensors"], "safety": 8}
    entry = {"moved": 1e-3, "scale": 1.0, "by": "2 threads"}
    tolerances["dtypes"] = {"float64": {"null_residual": {"metrics.worst_median_abs_cos.value": entry}}}
    def move(record, by=5e-3):
        record["metrics"]["worst_median_abs_cos"]["value"] += by

    rewrite(other, "null_residual", move)
    verification = held(result, other, "null_residual", moved=(tolerances,))[1]
    assert verification.status == "within tolerance"
    assert "2 threads" in verification.analyses[0].worst.source
    assert held(result, other, "null_residual")[1].status == "drifted"


def test_a_metric_that_is_gone_and_a_record_that_is_not_there_are_failures(result, tmp_path):
    other = copy(result, tmp_path)
    rewrite(other, "null_residual", lambda record: record["metrics"].pop("worst_median_abs_cos"))
    for pair in ((result, other), (other, result)):
        found, verification = held(*pair, "null_residual")
        assert verification.analyses[0].status == "missing" and verification.exit_code == 1
    manifest = records.read_json(other / "manifest.json")
    del manifest["records"]["delta_svd"]
    records.write_json(other / "manifest.json", manifest)
    assert held(result, other, "delta_svd")[1].exit_code == 1


def test_a_verdict_that_changed_outranks_everything(result, tmp_path):
    other = copy(result, tmp_path)

    def turn(record):
        record["identities"]["gram_diagonal"]["value"] = 1.0

    rewrite(other, "head_grams", turn)
    _, verification = held(result, other, "head_grams")
    assert verification.status == "verdict changed" and verification.exit_code == 1
    assert verification.verdicts[0]["id"] == "head_grams.gram_diagonal"


def test_directions_are_compared_up_to_sign(result, tmp_path):
    other = copy(result, tmp_path)
    path = other / "head_grams.safetensors"
    directions = load_file(path)["directions"]

    def store(array):
        save_file({"directions": array.contiguous()}, path)
        rewrite(other, "head_grams", lambda r: r.update(arrays={path.name: records._sha256(path)}))

    store(-directions)
    assert held(result, other, "head_grams")[1].status == "within tolerance"
    turned = directions.clone()
    turned[0, 0, 0] = directions[0, 0, 0] * 0.99 + directions[0, 0, 1] * 0.1
    store(turned)
    _, verification = held(result, other, "head_grams")
    assert verification.status == "drifted" and "directions[0, 0" in verification.analyses[0].worst.path


# --- what is refused ----------------------------------------------------------------------------


def test_a_digit_changed_by_hand_is_refused(result, tiny, tmp_path, capsys):
    other = copy(result, tmp_path)
    text = (other / "delta_svd.json").read_text()
    place = text.index('"value":') + 8
    (other / "delta_svd.json").write_text(text[:place] + "1" + text[place:])
    assert fathom("verify", other, "--model", tiny, "--only", "head_grams") == 1
    assert "delta_svd.json: its checksum is not that of its content" in capsys.readouterr().out


def test_a_folder_model_needs_to_be_given_and_the_reference_does_not(result, capsys):
    assert fathom("verify", result) == 2
    assert "--model" in capsys.readouterr().err
    assert model_of({"model": "o/n", "revision": "a" * 40}) == "o/n@" + "a" * 40
    assert Path(model_of({"model": "reference", "revision": None})).name == "reference"


def test_a_result_is_not_compared_with_itself(result, tiny, capsys):
    assert fathom("verify", result, "--model", tiny, "--out", result.parent, "--only", WEIGHTS) == 2
    assert "choose another folder" in capsys.readouterr().err


def test_what_is_no_result_is_one_line(tmp_path, capsys):
    (tmp_path / "x.html").write_text("<p>a page of another house</p>")
    assert fathom("verify", tmp_path / "x.html") == 2
    assert capsys.readouterr().err.count("\n") == 1


# --- accepting ----------------------------------------------------------------------------------


def test_accepting_is_logged_and_nothing_else_changes_a_recorded_result(result, tiny, tmp_path, capsys):
    recorded = tmp_path / "recorded"
    assert accept(result, recorded, reason="the first", tolerances={"schema_version": 1})
    entry = json.loads((recorded / LOG).read_text())
    assert entry["reason"] == "the first" and any("worst_median_abs_cos: none → " in line for line in entry["changed"])
    assert fathom("verify", recorded, "--model", tiny, "--only", WEIGHTS) == 0
    with pytest.raises(InputError, match="nothing to accept"):
        accept(result, recorded, reason="again", tolerances={})
    other = copy(result, tmp_path)
    rewrite(other, "null_residual", lambda r: r["metrics"]["worst_median_abs_cos"].update(value=0.25))
    assert any("→ 0.25" in line for line in accept(other, recorded, reason="moved", tolerances={}))
    log = (recorded / LOG).read_text().splitlines()
    assert [json.loads(line)["reason"] for line in log] == ["the first", "moved"]
    path = recorded / "null_residual.json"
    path.write_text(path.read_text().replace("0.25", "0.26"))
    assert fathom("verify", recorded, "--model", tiny) == 2
    assert "only `fathom accept` changes it" in capsys.readouterr().err


def test_no_reason_no_whole_result_no_acceptance(result, tmp_path):
    with pytest.raises(InputError, match="--reason"):
        accept(result, tmp_path / "r", reason="  ", tolerances={})
    other = copy(result, tmp_path)
    judged = records.read_json(other / "gates.json")
    judged["integrity"][0]["status"] = "fail"
    records.write_json(other / "gates.json", judged)
    with pytest.raises(InputError, match="broken identity"):
        accept(other, tmp_path / "r", reason="why not", tolerances={})
    assert not (tmp_path / "r").exists()


# --- leaf by leaf -------------------------------------------------------------------------------


def tolerant(size: float):
    return lambda pattern: Tolerance(size=size, source="here")


def test_every_leaf_is_compared_and_what_explains_numbers_is_not():
    old = {"metrics": {"m": {"value": 1.0, "method": "a"}}, "x": [1.0, 2.0], "notes": ["a"], "best": "power"}
    new = {"metrics": {"m": {"value": 1.5, "method": "b"}}, "x": [1.0, 2.25], "notes": ["b"], "best": "power"}
    leaves = {leaf.path: leaf.status for leaf in compare(old, new, tolerant(0.3))}
    assert leaves == {"metrics.m.value": "drifted", "x.0": "identical", "x.1": "within tolerance", "best": "identical"}
    assert worst(compare(old, new, tolerant(0.3))).path == "metrics.m.value"


@pytest.mark.parametrize("other", [{}, {"x": None}, {"x": [1.0]}, {"x": [1.0, 2.0, 3.0]}, {"x": [1.0, 2.0], "y": 1}])
def test_a_leaf_that_only_one_side_has_is_missing(other):
    for pair in (({"x": [1.0, 2.0]}, other), (other, {"x": [1.0, 2.0]})):
        assert status(compare(*pair, tolerant(9.0))) == "missing"


def test_nothing_compared_is_not_the_same():
    assert status([]) == "missing"


def test_another_winner_is_drift_unless_rounding_alone_decides_it():
    old, new = {"best": "power"}, {"best": "linear"}
    assert status(compare(old, new, tolerant(9.0))) == "drifted"
    assert status(compare(old, new, lambda p: Tolerance(size=0, source="", unstable=True))) == "within tolerance"


def test_a_tolerance_is_a_multiple_of_the_movement_and_scales_with_the_number_on_another_model():
    entry = {"moved": 1e-6, "scale": 2.0, "by": "sdpa attention"}
    measured = {"safety": SAFETY, "dtypes": {"float32": {"delta_svd": {"layers.frob": entry}}}}
    record = {"key": {"dtype": "float32"}, "layers": [{"frob": 200.0, "other": 3.0}]}
    own = tolerance_of(measured, "delta_svd", record, same_model=True)("layers.*.frob")
    other = tolerance_of(measured, "delta_svd", record, same_model=False)("layers.*.frob")
    assert own.size == pytest.approx(SAFETY * 1e-6) and other.size == pytest.approx(SAFETY * 1e-4)
    unknown = tolerance_of(measured, "delta_svd", record, same_model=True)("layers.*.other")
    assert "no movement was measured" in unknown.source and 0 < unknown.size < 1e-3


def test_an_identity_may_move_as_far_as_its_gate_allows():
    record = {"key": {"dtype": "float64"}, "identities": {"gram_diagonal": {"value": 1e-16}}}
    tolerance = tolerance_of({}, "head_grams", record, same_model=True)("identities.gram_diagonal.value")
    assert 0 < tolerance.size < 1e-6 and "gate" in tolerance.source


def test_where_an_identity_misses_most_may_change_and_where_a_metric_comes_from_may_not():
    def record(part: str, where: str) -> dict:
        return {"key": {"dtype": "float64"}, part: {"resid_direct": {"value": 1e-16, "where": where}}}

    for part, expected in (("identities", "within tolerance"), ("metrics", "drifted")):
        old, new = record(part, "v_proj"), record(part, "up_proj")
        assert status(compare(old, new, tolerance_of({}, "null_residual", old, same_model=True))) == expected


def test_a_shortened_record_keeps_metrics_identities_and_key():
    record = {"metrics": {"m": 1}, "key": {"a": "b" * 5000}, "gram": [1.5] * 5000, "few": [1, 2], "checksum": "c"}
    kept = shortened(record)
    assert kept["shortened"] == ["gram"] and "gram" not in kept and kept["key"] == record["key"]
    assert not compare(kept, record, tolerant(0.0)) or status(compare(kept, record, tolerant(0.0))) == "identical"
    assert quantity("pair_results.3.families.q_proj.cos") == "pair_results.cos"
