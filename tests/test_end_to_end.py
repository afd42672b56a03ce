"""A user's day: one command on a checkpoint, and what it leaves behind."""

import json
import math
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from analyses import records, registry
from checks import cli
from checks.claims.judge import current_records
from checks.report.overlays import overlays
from tests.few_draws import few_draws
from tests.figures.test_figures import assert_inside
from tests.report.test_for_machines import valid
from tests.tiny import MODEL_TYPES, tiny_checkpoint

FILES = {f"{name}.json" for name in (*registry.NAMES, "gates", "manifest")}
FILES |= {"report.html", "junit.xml", "summary.md"}


def fathom(*arguments: object) -> int:
    return cli.main([str(argument) for argument in arguments])


def numbers(folder: Path) -> dict[str, bytes]:
    """Every file's bytes, the manifest without its date and timings and the page without them too."""
    found = {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "report.html"}
    manifest = json.loads(found["manifest.json"])
    found["manifest.json"] = json.dumps({k: v for k, v in manifest.items() if k not in ("date", "timings")}).encode()
    return found


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("models") / "tiny", layers=4)


@pytest.fixture(scope="module")
def measured(tiny, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("out")
    assert fathom("run", tiny, "--out", out, "--device", "cpu") == 0
    return out


@pytest.fixture
def result(measured, tmp_path) -> Path:
    """A copy of the measured folder, below `tmp_path`."""
    return shutil.copytree(measured / "tiny", tmp_path / "tiny")


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_one_command_measures_judges_and_renders(model_type, tmp_path, capsys):
    model = tiny_checkpoint(tmp_path / model_type, model_type)
    with few_draws():
        assert fathom("run", model, "--out", tmp_path / "out", "--device", "cpu") == 0
    folder = tmp_path / "out" / model_type
    assert FILES <= {path.name for path in folder.iterdir()}
    judged = records.read_json(folder / "gates.json")
    valid(judged)
    # Three layers are too few to fit a schedule, so its identities have nothing to say.
    statuses = {o["status"] for o in judged["integrity"] if o["analysis"] != "schedule_fit"}
    assert statuses == {"pass"}
    assert not {claim["verdict"] for claim in judged["claims"]} & {"error"}
    printed = capsys.readouterr().out
    assert str(folder / "report.html") in printed
    for claim in judged["claims"]:
        assert claim["claim"] in printed
    assert model_type in (tmp_path / "out" / "index.html").read_text()


def test_two_runs_give_the_same_bytes(tiny, measured, tmp_path):
    assert fathom("run", tiny, "--out", tmp_path, "--quiet", "--device", "cpu") == 0
    assert numbers(tmp_path / "tiny") == numbers(measured / "tiny")


def test_a_page_is_made_from_records_alone_and_comes_out_the_same(measured, capsys):
    page = measured / "tiny" / "report.html"
    before = page.read_bytes()
    page.unlink()
    assert fathom("report", measured) == 0
    assert page.read_bytes() == before


def test_reporting_loads_no_model_library(measured):
    code = (
        "import sys; from checks.cli import main; assert main(sys.argv[1:]) == 0; "
        "assert not {'torch', 'transformers'} & set(sys.modules), 'a heavy import'"
    )
    subprocess.run([sys.executable, "-c", code, "report", str(measured), "--quiet"], check=True)


def test_help_loads_nothing_heavy():
    code = (
        "import sys; from checks.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "assert not {'torch', 'transformers', 'numpy', 'jinja2'} & set(sys.modules), 'a heavy import'"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_no_record_names_a_path_of_the_machine(measured, tiny):
    for path in (measured / "tiny").glob("*.json"):
        assert str(tiny.parent) not in path.read_text(), path.name
    assert str(tiny.parent) not in (measured / "tiny" / "report.html").read_text()


def test_a_run_with_another_seed_or_text_says_so_in_the_manifest(tiny, tmp_path):
    text = tmp_path / "mine.txt"
    text.write_text("All work and no play makes a dull sample. " * 20)
    words = ("--calibration", text, "--seed", 3, "--device", "cpu", "--only", "attention_stats")
    assert fathom("run", tiny, "--out", tmp_path, *words) == 0
    manifest = records.read_json(tmp_path / "tiny" / "manifest.json")
    assert manifest["settings"]["seed"] == 3
    assert manifest["calibration"]["name"] == "mine.txt"
    assert manifest["forward"]["sequences"] == 1


def test_a_long_text_is_cut_at_2048_tokens_and_says_so(tiny, tmp_path):
    text = tmp_path / "long.txt"
    text.write_text("abc " * 1000)  # one token a byte
    command = ("measure", tiny, "--out", tmp_path, "--calibration", text, "--only", "attention_stats")
    assert fathom(*command, "--device", "cpu") == 0
    forward = records.read_json(tmp_path / "tiny" / "manifest.json")["forward"]
    assert (forward["tokens"], forward["truncated"]) == (2048, True)


def test_without_a_tokenizer_the_weights_are_measured_and_the_rest_is_skipped_with_the_reason(tmp_path):
    model = tiny_checkpoint(tmp_path / "mute", layers=4, tokenizer=False)
    with few_draws():
        assert fathom("run", model, "--out", tmp_path / "out", "--device", "cpu") == 0
    judged = records.read_json(tmp_path / "out" / "mute" / "gates.json")
    verdicts = {claim["id"]: claim for claim in judged["claims"]}
    assert verdicts["NR5"]["verdict"] != "not applicable"
    for claim in ("NR1", "DS1", "HE1", "SF3"):
        assert verdicts[claim]["verdict"] == "not applicable"
        assert "tokenizer" in verdicts[claim]["verdict_reason"]


def test_one_analysis_that_crashes_loses_no_other(tiny, tmp_path, monkeypatch, capsys):
    def crash(*arguments, **keywords):
        raise MemoryError("no room for the grams")

    monkeypatch.setattr("analyses.head_grams.analysis.measure", crash)
    only = "null_residual,head_grams,delta_svd"
    assert fathom("run", tiny, "--out", tmp_path, "--device", "cpu", "--only", only) == 2
    assert "head_grams failed: MemoryError: no room for the grams" in capsys.readouterr().err
    judged = records.read_json(tmp_path / "tiny" / "gates.json")
    verdicts = {claim["id"]: claim["verdict"] for claim in judged["claims"]}
    assert verdicts["HG1"] == "error" and not {verdicts["NR1"], verdicts["DS1"]} & {"error", "not applicable"}
    assert "no room for the grams" in (tmp_path / "tiny" / "report.html").read_text()


def test_controls_that_crash_lose_no_measurement_and_are_shown_as_not_run(tiny, tmp_path, monkeypatch, capsys):
    def crash(*arguments, **keywords):
        raise MemoryError("no room for a twin")

    monkeypatch.setattr("checks.controls.run.controls", crash)
    assert fathom("run", tiny, "--out", tmp_path, "--device", "cpu", "--controls", "class", "--only", "null_residual") == 2
    assert "controls failed: MemoryError: no room for a twin" in capsys.readouterr().err
    assert "not run" in (tmp_path / "tiny" / "report.html").read_text()


def test_a_crash_leaves_old_records_whole_and_nothing_concluded_from_them(
    tiny, result, tmp_path, monkeypatch, capsys
):
    before = numbers(result)

    def die(*arguments, **keywords):
        raise SystemExit("the process ends here")

    monkeypatch.setattr("analyses.null_residual.analysis.measure", die)
    with pytest.raises(SystemExit):
        fathom("run", tiny, "--out", tmp_path, "--quiet", "--device", "cpu", "--seed", 1)
    left = {path.name: path.read_bytes() for path in result.iterdir()}
    assert left.keys() == before.keys() - {"manifest.json", "gates.json", "report.html", "junit.xml", "summary.md"}
    assert all(left[name] == before[name] for name in left)
    assert fathom("report", result) == 2
    assert "fathom measure" in capsys.readouterr().err


def test_bad_input_leaves_the_last_good_result_alone(tiny, result, tmp_path, capsys):
    before = numbers(result)
    empty = tmp_path / "empty.txt"
    empty.write_text(" \n")
    assert fathom("run", tiny, "--out", tmp_path, "--calibration", empty, "--device", "cpu") == 2
    assert numbers(result) == before
    error = capsys.readouterr().err
    assert "empty.txt" in error and error.count("\n") == 1


def test_one_bad_model_does_not_keep_the_others_from_the_index(tiny, tmp_path, capsys):
    out = tmp_path / "out"
    words = ("--out", out, "--quiet", "--exact-index", "--device", "cpu", "--only", "head_grams")
    assert fathom("run", tmp_path / "nowhere", tiny, *words) == 2
    assert "nowhere" in capsys.readouterr().err
    assert "tiny" in (out / "index.html").read_text()


def test_the_index_lists_the_models_that_are_there_or_exactly_those_named(tiny, tmp_path):
    other = tiny_checkpoint(tmp_path / "another-one", "llama", layers=4)
    out = tmp_path / "out"
    assert fathom("run", tiny, other, "--out", out, "--quiet", "--device", "cpu", "--only", "head_grams") == 0
    assert "another-one" in (out / "index.html").read_text()
    assert fathom("report", out / "tiny", "--quiet") == 0
    assert "another-one" not in (out / "index.html").read_text()
    assert fathom("report", out, "--quiet") == 0
    assert "another-one" in (out / "index.html").read_text()


def break_weights(folder: Path) -> str:
    tensors = load_file(folder / "model.safetensors")
    tensors["model.layers.2.self_attn.v_proj.weight"][0, 0] = math.nan
    save_file(tensors, folder / "model.safetensors")
    return r"model.layers.2.self_attn.v_proj.weight"


def remove_config(folder: Path) -> str:
    (folder / "config.json").unlink()
    return "no config.json"


def remove_weights(folder: Path) -> str:
    (folder / "model.safetensors").unlink()
    return "no weights"


def keep_one_layer(folder: Path) -> str:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 1}))
    return "one layer"


@pytest.mark.parametrize("damage", [break_weights, remove_config, remove_weights, keep_one_layer])
def test_bad_input_is_one_line_and_exit_code_2_with_nothing_written(damage, tmp_path, capsys):
    folder = tiny_checkpoint(tmp_path / "model")
    message = damage(folder)
    assert fathom("run", folder, "--out", tmp_path / "out") == 2
    captured = capsys.readouterr()
    assert message in captured.err and captured.err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_an_output_folder_that_cannot_be_written_is_one_line(tiny, tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    assert fathom("run", tiny, "--out", tmp_path / "file") == 2
    assert "choose another folder with --out" in capsys.readouterr().err


def test_a_device_that_is_not_there_is_one_line(tiny, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert fathom("run", tiny, "--out", tmp_path, "--device", "cuda") == 2
    assert "--device cuda: not available here" in capsys.readouterr().err


def test_an_unknown_analysis_or_verb_is_refused_by_the_parser(tiny, capsys):
    for wrong in (["run", str(tiny), "--only", "phrenology"], ["divine", str(tiny)]):
        with pytest.raises(SystemExit) as caught:
            cli.main(wrong)
        assert caught.value.code == 2
    assert "phrenology" in capsys.readouterr().err


def test_a_models_own_code_does_not_run_unless_trusted(tmp_path, capsys):
    folder = tiny_checkpoint(tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoConfig": "trap.Config", "AutoModelForCausalLM": "trap.Model"}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "trap.py").write_text(f"open({str(tmp_path / 'sprung')!r}, 'w')\n")
    with few_draws():
        fathom("run", folder, "--out", tmp_path / "out", "--device", "cpu")
    assert not (tmp_path / "sprung").exists()


def test_every_figure_of_a_measured_model_lies_inside_its_view_boxes_and_says_what_it_shows(measured):
    found = current_records(measured / "tiny")
    for section in registry.sections():
        record = found[section.name]
        drawn = [*section.figures(record).values(), overlays(section.name, record, record)]
        for panel in (panel for figure in drawn if figure for panel in with_those_below(figure.panels)):
            assert_inside(panel)
            assert panel.desc and panel.title and panel.measure, panel.title
            shown = [*panel.x_ticks, *panel.y_ticks, *panel.words]
            assert not [text for text in shown if re.search(r"nan|None|inf\b", text.text)], panel.title


def with_those_below(panels):
    for panel in panels:
        yield panel
        yield from with_those_below(panel.below)


def test_a_model_of_hostile_names_a_long_path_and_odd_tokens_is_text_on_its_page(tmp_path):
    name = "<script>alert(1)<"
    folder = tiny_checkpoint(tmp_path / ("deep-" * 30) / ("deeper-" * 20) / name, layers=2)
    odd = ["</script><script>alert(2)</script>", "\u202e", "\x00", "{{ 7 * 7 }}", "'\"><img src=x onerror=alert(3)>"]
    tokenizer = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    start = 1 + max(tokenizer["model"]["vocab"].values())
    tokenizer["added_tokens"] += [
        {"id": start + i, "content": token, "special": False, "single_word": False, "lstrip": False, "rstrip": False}
        | {"normalized": False}
        for i, token in enumerate(odd)
    ]
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    text = tmp_path / "<b>text.txt"
    text.write_text("plain words and no odd ones. " * 40, encoding="utf-8")
    assert len(str(folder)) > 300
    out = tmp_path / "out"
    assert fathom("run", folder, "--out", out, "--calibration", text, "--device", "cpu", "--quiet") == 0
    for page in (out / name / "report.html", out / "index.html"):
        source = page.read_text(encoding="utf-8")
        assert source.count("<script") == 1 and "<b>" not in source and "&lt;script&gt;alert(1)&lt;" in source
