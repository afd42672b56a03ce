"""Tables: every cell is the number that stands in the record, at its own place."""

import csv
import io
import math

import pyarrow.parquet
import pytest

from analyses.errors import InputError
from analyses.records import read_json
from checks.cli import main
from checks.tables.across import across
from checks.tables.files import as_csv
from checks.tables.quantities import KEYS, TABLES
from checks.tables.tables import NAMES, stacked, table
from checks.verify.compare import read_side


@pytest.fixture(scope="module")
def side(measured_result):
    return read_side(measured_result)


def tables(side):
    return {name: table(name, side.found, side.judged) for name in NAMES}


def test_a_heads_row_holds_that_heads_numbers(side):
    found = table("heads", side.found, side.judged)
    grams, attention = side.found["head_grams"], side.found["attention_stats"]
    for row in found.rows:
        of = dict(zip(found.columns, row, strict=True))
        layer, head = of["layer"], of["head"]
        assert of["fro_sq"] == grams["fro_sq"][layer][head]
        assert of["symmetry"] == grams["folded"]["symmetry"][layer][head]
        assert of["entropy"] == attention["dynamic"][layer]["mean_attention_entropy_per_head"][head]
    assert len(found.rows) == attention["num_layers"] * attention["num_heads"]


def test_a_planes_row_holds_its_share_and_the_frequency_of_its_layer(side):
    found, ranks = table("planes", side.found, side.judged), side.found["head_grams"]["ranks"]
    for row in found.rows:
        of = dict(zip(found.columns, row, strict=True))
        layer, head, plane = of["layer"], of["head"], of["plane"]
        assert of["share"] == ranks["plane_share"][layer][head][plane]
        assert of["frequency"] == ranks["plane_frequency"][layer][plane]
    heads = table("heads", side.found, side.judged)
    assert len(found.rows) == len(heads.rows) * len(ranks["plane_frequency"][0])


def test_planes_that_a_layer_lacks_have_no_row(side):
    ranks = {"plane_share": [[[0.5, 0.5]], [[1.0, None]]], "plane_frequency": [[1.0, 0.1], [1.0, None]]}
    found = table("planes", {"head_grams": {"ranks": ranks}}, side.judged)
    assert [row[1:4] for row in found.rows] == [(0, 0, 0), (0, 0, 1), (1, 0, 0)]
    assert found.column("frequency") == [1.0, 0.1, 1.0]


def test_rows_are_named_by_their_keys_once_each(side):
    for name, keys in KEYS.items():
        found = table(name, side.found, side.judged)
        places = [tuple(row[found.columns.index(key)] for key in keys) for row in found.rows]
        assert len(set(places)) == len(places) and None not in {part for place in places for part in place}


def test_every_quantity_is_somewhere_in_a_real_result(side):
    """So no column names a path that no record has."""
    for columns in TABLES.values():
        for quantity in columns:
            assert any(True for _ in quantity.of(side.found[quantity.analysis])), quantity.path


def test_a_layer_whose_next_layer_is_missing_has_no_pair(side):
    found = table("pairs", side.found, side.judged)
    assert max(found.column("pair")) == side.found["attention_stats"]["num_layers"] - 2


def test_claims_stand_with_every_condition(side):
    found = table("claims", side.found, side.judged)
    rows = [*side.judged["claims"], *side.judged["stored"]]
    assert len(found.rows) == sum(len(claim["findings"]) for claim in rows)
    assert found.column("observed")[0] == rows[0]["findings"][0]["observed"]


def test_csv_and_parquet_give_the_numbers_back_to_the_last_digit(side, measured_result, tmp_path):
    assert main(["tables", str(measured_result), "--format", "parquet", "--out", str(tmp_path), "--quiet"]) == 0
    for name, found in tables(side).items():
        text = list(csv.DictReader(io.StringIO(as_csv(found).decode())))
        arrow = pyarrow.parquet.read_table(tmp_path / f"{name}.parquet").to_pylist()
        for row, written, stored in zip(found.rows, text, arrow, strict=True):
            of = dict(zip(found.columns, row, strict=True))
            assert stored == of
            for column, value in of.items():
                if isinstance(value, float):
                    assert float(written[column]) == value
                elif value is None:
                    assert written[column] == ""


def test_one_claim_over_two_models_has_a_row_for_each(side):
    found = across("DS1", [(side.manifest, side.judged)] * 2)
    assert len(found.rows) == 2 and found.column("id") == ["DS1", "DS1"]
    assert all(math.isfinite(x) for x in found.column("parameters"))
    with pytest.raises(InputError, match="no claim 'XX9'"):
        across("XX9", [(side.manifest, side.judged)])


def test_one_claim_is_drawn_from_the_command_line(measured_result, tmp_path, capsys):
    results = [str(measured_result)] * 2
    drawn = ["--claim", "DS1", "--plot", str(tmp_path / "x.svg"), "--out", str(tmp_path), "--quiet"]
    assert main(["tables", *results, *drawn]) == 0
    assert (tmp_path / "x.svg").read_text(encoding="utf-8").count("<use") >= 2 and (tmp_path / "DS1.csv").exists()
    for words in (["--plot", "x.svg"], ["--claim", "DS1", "--plot", "x.png"]):
        assert main(["tables", *results, *words]) != 0
        assert "--plot: expected --claim ID beside it, and a file that ends in .svg" in capsys.readouterr().err


def test_tables_of_two_models_stack_and_a_column_that_one_lacks_is_null(side):
    whole = table("heads", side.found, side.judged)
    half = table("heads", {"head_grams": side.found["head_grams"]}, side.judged)
    both = stacked([whole, half])
    assert both.columns == whole.columns and len(both.rows) == 2 * len(whole.rows)
    assert both.column("entropy")[-1] is None and both.column("fro_sq")[-1] == whole.column("fro_sq")[-1]


@pytest.mark.parametrize(("name", "told"), [("neurons", "no table 'neurons'"), ("heads", "not measured: attention_stats")])
def test_a_table_that_cannot_be_had_says_why(side, name, told):
    with pytest.raises(InputError, match=told):
        table(name, {}, side.judged)


def test_a_column_that_is_not_there_is_told_with_those_that_are(side):
    with pytest.raises(InputError, match="no column 'entropie'.*entropy"):
        table("heads", side.found, side.judged).column("entropie")


def test_the_manifest_names_the_revision_and_size_of_a_row(side, measured_result):
    assert side.manifest == read_json(measured_result / "manifest.json")
    found = across("NR1", [(side.manifest, side.judged)])
    assert found.column("parameters") == [side.manifest["architecture"]["parameters"]]
