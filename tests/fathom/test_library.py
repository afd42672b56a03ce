"""Fathom in Python: what a notebook asks for, and what it is told when it cannot be had."""

import shutil
import subprocess
import sys

import numpy as np
import pytest

import fathom
from analyses.errors import InputError
from analyses.records import read_json
from analyses.registry import NAMES
from tests.few_draws import few_draws
from tests.tiny import tiny_checkpoint


@pytest.fixture(scope="module")
def result(measured_result):
    return fathom.load(measured_result)


def test_importing_it_loads_nothing_heavy():
    heavy = "{'torch', 'numpy', 'scipy', 'transformers', 'pandas', 'jinja2'}"
    script = f"import sys, fathom; print(sorted({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.parametrize("name", NAMES)
def test_a_record_is_the_analysis_own_with_every_number_of_the_file(result, measured_result, name):
    from analyses.records import plain

    record, file = result.record(name), read_json(measured_result / f"{name}.json")
    again = plain(record)
    assert {key: again[key] for key in again} == {key: file[key] for key in again}


def test_arrays_have_the_axes_that_they_are_said_to_have(result):
    record, axes = result.record("head_grams"), result.axes("head_grams")
    sizes = dict(layer=4, head=4, head_dim=8, pair=3)
    for field, named in axes.items():
        array = getattr(record, field)
        if isinstance(array, np.ndarray) and set(named) <= set(sizes):
            assert array.shape == tuple(sizes[name] for name in named), field
    assert axes["singvals"] == ("layer", "head", "head_dim")


def test_a_number_that_is_null_in_the_file_is_nan(result, measured_result, tmp_path):
    from fathom.typed import _array

    assert np.isnan(_array([[1.0, None], None])).tolist() == [[False, True], [True, True]]
    assert _array([[1, 2], [3, 4]]).dtype.kind == "i"


def test_tables_reach_pandas_polars_and_arrow_with_the_same_numbers(result):
    pandas, polars = pytest.importorskip("pandas"), pytest.importorskip("polars")
    table = result.table("heads")
    frame, other, arrow = table.to_pandas(), table.to_polars(), table.to_arrow()
    assert isinstance(frame, pandas.DataFrame) and isinstance(other, polars.DataFrame)
    for column in ("layer", "entropy", "fro_sq"):
        assert frame[column].tolist() == other[column].to_list() == arrow[column].to_pylist() == table[column]


def test_a_page_gives_the_same_verdicts_as_its_folder(result, measured_result):
    assert fathom.load(measured_result / "report.html").claims.verdicts() == result.claims.verdicts()


def test_a_folder_is_loaded_by_its_address(result, measured_result):
    loaded = fathom.load(measured_result.as_uri())
    assert loaded.claims.verdicts() == result.claims.verdicts() and loaded.records == result.records


def test_measuring_in_python_is_the_command_and_leaves_nothing_behind(tmp_path, result, monkeypatch):
    model = tiny_checkpoint(tmp_path / "model", layers=4)
    monkeypatch.chdir(tmp_path)
    with few_draws():
        found = fathom.measure(model, only=["head_grams"], layers=range(0, 3))
    assert found.record("head_grams").singvals.shape[0] == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]


def test_what_cannot_be_had_is_one_sentence_that_names_it(result, tmp_path, measured_result):
    for call, told in (
        (lambda: fathom.load(tmp_path / "none"), "no such folder or page"),
        (lambda: fathom.load(f"{tmp_path.as_uri()}/none"), "cannot be fetched"),
        (lambda: result.record("head_gram"), "no record of 'head_gram'.*head_grams"),
        (lambda: result.table("neurons"), "no table 'neurons'"),
        (lambda: result.table("heads")["entropie"], "no column 'entropie'"),
        (lambda: result.table("heads").save(tmp_path / "x.xlsx"), "saved as .csv or .parquet"),
        (lambda: fathom.measure(tmp_path / "none", only=["head_gram"]), "no analysis 'head_gram'"),
        (lambda: fathom.measure(tmp_path / "none"), "none"),
        (lambda: fathom.measure(tmp_path, layers=range(0, 8, 2)), "has a step"),
    ):
        with pytest.raises(InputError, match=told) as caught:
            call()
        assert "\n" not in str(caught.value)
    with pytest.raises(KeyError, match="no claim 'XX9'"):
        result.claims["XX9"]


def test_records_of_another_version_are_refused_with_what_to_do(measured_result, tmp_path):
    folder = tmp_path / "old"
    shutil.copytree(measured_result, folder)
    path = folder / "head_grams.json"
    path.write_text(path.read_text().replace('"schema_version": 1', '"schema_version": 7'))
    with pytest.raises(InputError, match="schema version 7.*measure again"):
        fathom.load(folder)


def test_two_results_are_compared_claim_by_claim(result):
    assert {pair.group for pair in result.compare(result)} == {"unchanged"}


def test_a_family_is_a_table_and_a_drawing_and_one_model_is_none(result):
    found = fathom.family("DS1", [result, result])
    assert len(found.table) == 2 and found.table["observed"][0] == result.claims["DS1"]["findings"][0]["observed"]
    assert found._repr_svg_() == found.figure() and found.figure().count("<title>family-DS1</title>") == 1
    with pytest.raises(InputError, match="a family needs two"):
        fathom.family("DS1", [result]).figure()
    with pytest.raises(InputError, match="no claim 'XX9'"):
        fathom.family("XX9", [result])


def test_a_result_says_what_it_is(result):
    assert result.model in repr(result) and "undecided" in repr(result)
    assert "NR1" in repr(result.claims) and "rows of model, layer, head" in repr(result.table("heads"))


def test_a_notebook_shows_every_claim_in_a_frame_that_runs_nothing(result):
    shown = result._repr_html_()
    assert shown.startswith("<iframe") and "sandbox" in shown.partition("srcdoc")[0]
    assert all(f"&gt;{id}&lt;" in shown for id in result.claims.verdicts() if not id.endswith(".stored"))


def test_a_figure_is_a_drawing_and_a_name_that_is_none_is_told(result):
    assert result.figure().lstrip().startswith("<svg")
    with pytest.raises(InputError, match="no figure 'cat'.*network"):
        result.figure("cat")
