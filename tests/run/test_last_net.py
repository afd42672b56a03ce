"""Whatever goes wrong with one model or one analysis is one line and exit code 2, and the others go on."""

import json
import shutil
from pathlib import Path

import pytest

from analyses import records
from analyses.errors import LEFT_OUT, one_line
from analyses.weights import checkpoint as checkpoints
from checks import cli
from tests.sweep.test_sweep_driver import Inline
from tests.sweep.test_sweep_plan import one_thread  # noqa: F401, the fixture restores torch's threads
from tests.tiny import tiny_checkpoint


def fathom(*arguments: object) -> int:
    return cli.main([str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    """Two folders of one name, and the tokenizer that a pass needs."""
    root = tmp_path_factory.mktemp("models")
    for seed in (0, 1):
        tiny_checkpoint(root / f"seed{seed}" / "checkpoint-100", layers=4, seed=seed)
    shutil.copytree(root / "seed0" / "checkpoint-100", root / "other")
    return root


def lines(capsys) -> list[str]:
    err = capsys.readouterr().err
    assert "Traceback" not in err
    return err.splitlines()


def break_for(monkeypatch, name: str, error: BaseException) -> None:
    """Opening a folder of this name raises what nobody foresaw."""
    real = checkpoints.assemble

    def assemble(**known):
        if known["name"] == name:
            raise error
        return real(**known)

    monkeypatch.setattr(checkpoints, "assemble", assemble)
    monkeypatch.setattr("analyses.run.plan.assemble", assemble)


UNFORESEEN = (ZeroDivisionError("division by zero"), RecursionError("too deep\nby far"), KeyError("x"), MemoryError())


@pytest.mark.parametrize("error", UNFORESEEN, ids=lambda error: type(error).__name__)
def test_what_nobody_foresaw_is_one_line_and_no_broken_identity(models, tmp_path, monkeypatch, capsys, error):
    break_for(monkeypatch, "other", error)
    for verb in (["run", "--out", tmp_path], ["measure", "--out", tmp_path], ["plan"]):
        assert fathom(verb[0], models / "other", *verb[1:]) == 2
        (line,) = lines(capsys)
        assert line.startswith(f"fathom: {type(error).__name__}") and "--debug shows where" in line
        with pytest.raises(type(error)):
            fathom(verb[0], models / "other", *verb[1:], "--debug")


def test_the_other_models_of_a_command_go_on(models, tmp_path, monkeypatch, capsys):
    break_for(monkeypatch, "other", TypeError("'<' not supported"))
    good = models / "seed0" / "checkpoint-100"
    only = ("--only", "head_grams", "--quiet", "--out", tmp_path)
    assert fathom("run", models / "other", good, *only) == 2
    (line,) = lines(capsys)
    assert line.startswith(f"fathom: {models / 'other'}: TypeError: '<' not supported")
    assert (tmp_path / "checkpoint-100" / "report.html").exists()
    assert fathom("plan", models / "other", good) == 2
    captured = capsys.readouterr()
    assert "checkpoint-100" in captured.out and captured.err.count("\n") == 1


def test_a_page_that_cannot_be_made_does_not_keep_the_others_from_theirs(models, tmp_path, monkeypatch, capsys):
    for seed in (0, 1):
        folder = models / f"seed{seed}" / "checkpoint-100"
        assert fathom("measure", folder, "--only", "head_grams", "--quiet", "--out", tmp_path / f"out{seed}") == 0
    folders = [tmp_path / f"out{seed}" / "checkpoint-100" for seed in (0, 1)]
    from checks.report import page

    real = page.render_model

    def render(folder):
        if folder == folders[0]:
            raise ZeroDivisionError("of the figure")
        return real(folder)

    monkeypatch.setattr(page, "render_model", render)
    assert fathom("report", *folders, "--quiet") == 2
    (line,) = lines(capsys)
    assert line.startswith(f"fathom: {folders[0]}: ") and "ZeroDivisionError: of the figure" in line
    assert (folders[1] / "report.html").exists()


def test_a_sweep_goes_on_without_a_model_that_cannot_be_opened_and_ends_with_2(models, tmp_path, monkeypatch, capsys):
    bad, odd = (Path(shutil.copytree(models / "other", tmp_path / "models" / name)) for name in ("bad", "odd"))
    (bad / "config.json").write_text("{")
    break_for(monkeypatch, "odd", IndexError("out of range"))
    good, out = models / "seed0" / "checkpoint-100", tmp_path / "out"
    monkeypatch.setattr("checks.sweep.engines.local.apart", lambda function, *given, **named: function(*given, **named))
    monkeypatch.setattr("checks.sweep.engines.start", lambda name, setup: Inline(setup.out))
    command = ("sweep", bad, odd, good, "--only", "head_grams", "--out", out, "--quiet", "--threads", "1")
    assert fathom(*command) == 2
    told = lines(capsys)
    assert any(str(bad / "config.json") in line for line in told), told
    assert any("IndexError: out of range" in line for line in told), told
    assert records.read_record(out / "checkpoint-100" / "head_grams.json")
    assert fathom("sweep", bad, "--only", "head_grams", "--out", tmp_path / "none", "--quiet") == 2


def test_two_models_that_would_write_one_folder_are_refused_before_anything_is_measured(models, tmp_path, capsys):
    one, two = (models / f"seed{seed}" / "checkpoint-100" for seed in (0, 1))
    assert fathom("run", one, two, "--out", tmp_path / "out") == 2
    (line,) = lines(capsys)
    assert line == f"fathom: {two}: would write checkpoint-100/, as {one} does; measure one of them into another --out"
    assert not (tmp_path / "out").exists()
    again = models / "seed1" / ".." / "seed0" / "checkpoint-100"
    assert fathom("measure", one, again, "--only", "head_grams", "--out", tmp_path / "out", "--quiet") == 0
    hub = Path(shutil.copytree(one, tmp_path / "owner--name"))
    assert fathom("run", hub, "owner/name", "--out", tmp_path / "out") == 2
    assert "owner/name: would write owner--name/, as" in capsys.readouterr().err


def test_a_pass_that_fails_leaves_what_the_weights_say_and_is_tried_again(models, tmp_path, monkeypatch, capsys):
    from analyses.forward import instrumented

    real = instrumented.run

    def fail(*arguments, **keywords):
        raise RuntimeError("CUDA error:\n  an illegal access")

    monkeypatch.setattr(instrumented, "run", fail)
    good, folder = models / "seed0" / "checkpoint-100", tmp_path / "checkpoint-100"
    only = ("--only", "attention_stats,schedule_fit,head_geometry", "--quiet", "--out", tmp_path)
    assert fathom("run", good, *only) == 2
    assert any("attention_stats failed: the forward pass failed: RuntimeError: CUDA" in line for line in lines(capsys))
    record = records.read_record(folder / "attention_stats.json")
    assert record["dynamic"] is None and len(record["static"]) == 4
    assert record["incomplete"] == record["absent"]["dynamic"]
    assert record["incomplete"] == "the forward pass failed: RuntimeError: CUDA error: an illegal access"
    judged = records.read_json(folder / "gates.json")
    verdicts = {claim["id"]: claim for claim in judged["claims"]}
    assert [(id, verdicts[id]["verdict"]) for id in ("SF3", "HE1")] == [("SF3", "error"), ("HE1", "error")]
    assert "CUDA error" in verdicts["HE1"]["verdict_reason"]
    assert {o["status"] for o in judged["integrity"]} <= {"pass", "skip", "error"}
    assert fathom("report", folder, "--quiet") == 2  # never 1: no identity is broken
    monkeypatch.setattr(instrumented, "run", real)
    assert fathom("measure", good, *only) == 0
    assert records.read_record(folder / "attention_stats.json")["dynamic"]
    assert "incomplete" not in records.read_record(folder / "head_geometry.json")


def test_what_an_option_left_out_is_not_called_inapplicable_or_lacking(models, tmp_path):
    good, folder = models / "seed0" / "checkpoint-100", tmp_path / "checkpoint-100"
    command = ("run", good, "--only", "null_residual,schedule_fit", "--families", "down_proj", "--quiet")
    assert fathom(*command, "--spectra", "none", "--out", tmp_path) in (0, 3)
    claims = records.read_json(folder / "gates.json")
    found = {claim["id"]: claim for claim in [*claims["claims"], *claims["stored"]]}
    for claim in ("HG1", "HE1", "SF1", "NR3", "SF1.stored"):
        word, reason = found[claim]["verdict"], found[claim]["verdict_reason"]
        assert word in ("undecided", "coordinate-dependent") and LEFT_OUT in reason, (claim, word, reason)
    text = json.dumps(records.read_json(folder / "schedule_fit.json"))
    assert "the model lacks this family" not in text and LEFT_OUT in text


def test_one_line_keeps_our_own_words_and_names_the_class_of_others():
    assert one_line(ValueError("a\n b\x1b")) == r"ValueError: a b\x1b"
    assert one_line(MemoryError()) == "MemoryError"
