"""Some layers and some families: what is measured is the same, what is not says so, and nonsense is one line."""

import json
from pathlib import Path

import pytest

from analyses import records
from analyses.errors import InputError
from analyses.forward.calibration import Calibration
from analyses.forward.inputs import Settings
from analyses.forward.probe import Probe, Window
from analyses.run.measure import measure
from analyses.run.suite import records_of
from analyses.weights.checkpoint import open_checkpoint
from checks.cli import main
from tests.tiny import tiny_checkpoint

TEXT = Calibration(name="test", texts=("Down to the sea in ships.", "The deep."), sha256="0" * 64, stream=False)
WEIGHTS_AND_PASS = ("null_residual", "head_grams", "attention_stats", "delta_svd")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("filters") / "tiny", layers=5)


@pytest.fixture(scope="module")
def whole(folder):
    return records_of(open_checkpoint(str(folder)), TEXT, Settings(device="cpu"), WEIGHTS_AND_PASS)


def some(folder, **settings):
    return records_of(open_checkpoint(str(folder)), TEXT, Settings(device="cpu", **settings), WEIGHTS_AND_PASS)


@pytest.mark.parametrize("layers", [range(1, 4), range(2, 5)], ids=["without the last", "with the last"])
def test_some_layers_have_the_numbers_that_they_have_among_all(folder, whole, layers):
    found = some(folder, layers=layers)
    chosen = slice(layers.start, layers.stop)
    for family, track in found["null_residual"]["scales"].items():
        assert track == whole["null_residual"]["scales"][family][chosen]
    here, among_all = (r["null_residual"]["pair_results"] for r in (found, whole))
    cosines = [pair["families"]["up_proj"]["cos"] for pair in among_all]
    assert [pair["families"]["up_proj"]["cos"] for pair in here] == cosines[layers.start : layers.stop - 1]
    for name, key in (
        ("head_grams", "singvals"),
        ("attention_stats", "static"),
        ("attention_stats", "dynamic"),
        ("attention_stats", "temperature"),
        ("delta_svd", "layers"),
    ):
        assert found[name][key] == whole[name][key][chosen], f"{name}.{key}"
    last = found["delta_svd"]["published_last"]
    assert last == (whole["delta_svd"]["published_last"] if layers.stop == 5 else dict.fromkeys(last))


def test_records_say_which_layers_and_families_they_are_of(folder):
    found = some(folder, layers=range(1, 4), families=("q_proj", "k_proj", "input_ln"))
    sentence = "Of 5 layers, 1 to 3 were measured; layer 0 of this record is layer 1 of the model."
    assert all(sentence in record["notes"] for record in found.values())
    assert "Only q_proj, k_proj, input_ln were measured: the worst family is the worst of these." in (
        found["null_residual"]["notes"]
    )
    absent = found["null_residual"]["absent"]
    assert absent["scales.up_proj"] == "left out of this measurement"
    assert not any(records.unexplained_nulls(record) for record in found.values())


def test_the_manifest_and_the_page_name_the_filters(folder, tmp_path):
    filters = ["--layers", "1:4", "--families", "up_proj,input_ln"]
    assert main(["run", str(folder), "--out", str(tmp_path), "--quiet", *filters]) in (0, 3)
    manifest = json.loads((tmp_path / "tiny" / "manifest.json").read_text())
    assert (manifest["settings"]["layers"], manifest["settings"]["families"]) == ("1:4", "up_proj,input_ln")
    assert manifest["command"].endswith("--layers 1:4 --families up_proj,input_ln")
    page = (tmp_path / "tiny" / "report.html").read_text()
    assert "1:4" in page and "up_proj,input_ln" in page and "Of 5 layers, 1 to 3 were measured" in page
    skipped = json.loads((tmp_path / "tiny" / "head_grams.json").read_text())["skipped"]
    assert skipped == "heads are measured from q_proj and k_proj, and k_proj, q_proj was left out of this measurement"


def test_a_window_counts_from_its_own_first_layer_and_passes_failures_on():
    seen = []

    class Log(Probe):
        def attention(self, layer, inputs):
            seen.append(layer)

        def final(self, before, after):
            seen.append("final")

    window = Window(Log(), range(2, 4), depth=5)
    for layer in range(5):
        window.attention(layer, None)
    window.final(None, None)
    assert seen == [0, 1]
    Window(window.probe, range(2, 5), depth=5).final(None, None)
    assert seen[-1] == "final"
    window.failure = failure = ValueError("x")
    assert window.probe.failure is failure and window.failure is failure


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"layers": range(3, 9)}, "layers 3:9: expected at least two within 0:5 of tiny"),
        ({"layers": range(2, 3)}, "layers 2:3: expected at least two within 0:5 of tiny"),
        ({"families": ("q_norm", "up_proj")}, "--families q_norm: llama has none .this architecture does not"),
    ],
)
def test_what_the_model_has_not_is_refused_before_anything_is_written(tmp_path, folder, settings, message):
    source = folder
    if "families" in settings:
        source = tiny_checkpoint(tmp_path / "llama", "llama", tokenizer=False)
    with pytest.raises(InputError, match=message):
        measure(str(source), tmp_path / "out", Settings(device="cpu", **settings))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (["--layers", "3"], "'3' is no range; expected FIRST:END, as 0:12 for the first 12 layers"),
        (["--layers", "4:4"], "'4:4' is no range"),
        (["--layers", "5:2"], "'5:2' is no range"),
        (["--layers", "-1:3"], "'-1:3' is no range"),
        (["--layers", "a:b"], "'a:b' is no range"),
        (["--families", "q_proj,query"], "no family 'query' (there are: q_proj, "),
        (["--families", ""], "no family ''"),
        (["--only", "head_gram"], "no analysis 'head_gram'"),
    ],
)
def test_an_option_that_makes_no_sense_is_one_line(folder, tmp_path, capsys, option, message):
    with pytest.raises(SystemExit) as caught:
        main(["measure", str(folder), "--out", str(tmp_path / "out"), "=".join(option)])
    error = capsys.readouterr().err
    assert caught.value.code == 2 and error.count("\n") == 1
    assert message in error and error.endswith("see `fathom measure --help`\n")
    assert not (tmp_path / "out").exists()
