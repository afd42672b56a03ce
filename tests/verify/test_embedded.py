"""What a page carries: the records themselves, or a copy that says what it lacks."""

import base64
import gzip
import json

import numpy as np
import pytest

from analyses import records
from analyses.errors import InputError
from checks.report.page import LIMIT, render_model
from checks.verify.embedded import NAMES, SCHEME, carry, embed, extract
from tests.page import attention_record, gates, manifest, outcome, write_folder


def layer_of(row: list[list[float]]) -> dict:
    same = dict.fromkeys(("metric_singvals_per_head", "singvals_per_head"), row)
    return same | {"gained_singvals_per_head": [[1.0]] * len(row)}


def large(layers: int = 8, heads: int = 64, modes: int = 128) -> dict:
    """An attention record with digits that no packing makes small."""
    draws = np.random.default_rng(0).random((layers, heads, modes)).tolist()
    static = [layer_of(row) for row in draws]
    metric = {"n": {}, "where": None, "method": "", "reason": None, "applies": True}
    metrics = {"m": metric | {"value": 0.5, "interval": [0.25, 0.75], "curve": [0.125] * 1000}}
    return attention_record(layers, static=static, metrics=metrics)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    folder = tmp_path_factory.mktemp("small")
    write_folder(folder, gates([outcome("A")]), manifest(), attention_stats=attention_record())
    (folder / "report.html").write_text(render_model(folder), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def heavy(tmp_path_factory):
    folder = tmp_path_factory.mktemp("heavy")
    write_folder(folder, gates([outcome("A")]), manifest(), attention_stats=large())
    (folder / "report.html").write_text(render_model(folder), encoding="utf-8")
    return folder


def test_a_page_gives_back_every_file_of_its_folder_to_the_byte(small):
    found = extract(small / "report.html")
    assert found == {path.name: path.read_bytes() for path in small.glob("*.json")}
    assert set(found) == {"attention_stats.json", "gates.json", "manifest.json"}


def test_the_same_file_makes_the_same_link_and_the_link_opens_as_gzip():
    href = embed("gates.json", b"{}")
    assert href == embed("gates.json", b"{}") and href.startswith(SCHEME)


def test_a_page_over_its_limit_leaves_out_long_arrays_and_says_which(heavy):
    page = heavy / "report.html"
    assert page.stat().st_size <= LIMIT < (heavy / "attention_stats.json").stat().st_size
    copy, whole = (
        json.loads(text)
        for text in (extract(page)["attention_stats.json"], (heavy / "attention_stats.json").read_text())
    )
    assert copy["shortened"] == ["static.*.metric_singvals_per_head"]  # one of the two fits
    assert not records.unexplained_nulls(copy)
    assert copy["static"] == [layer | {"metric_singvals_per_head": None} for layer in whole["static"]]
    assert "65,536 numbers" in page.read_text(encoding="utf-8")
    for key in set(whole) - {"static", "absent"}:  # numbers that judge a claim among them
        assert copy[key] == whole[key], key


def test_a_metric_is_never_left_out_however_little_room_there_is():
    record = json.dumps(large(2, 4, 64)).encode()
    carried = carry({"attention_stats.json": record}, size=0)["attention_stats.json"]
    copy = json.loads(gzip.decompress(base64.b64decode(carried.href.removeprefix(SCHEME))))
    assert copy["metrics"] == json.loads(record)["metrics"]
    assert carried.left_out and carried.size == len(record)


def test_a_page_without_records_a_damaged_one_and_no_page_at_all_are_one_line_each(small, tmp_path):
    other = tmp_path / "page.html"
    source = (small / "report.html").read_text(encoding="utf-8")
    other.write_text("<p>no page of ours</p>", encoding="utf-8")
    with pytest.raises(InputError, match="carries no records"):
        extract(other)
    other.write_text(source.replace(SCHEME + "H4sI", SCHEME + "H4sJ"), encoding="utf-8")
    with pytest.raises(InputError, match="is damaged"):
        extract(other)
    with pytest.raises(InputError, match="cannot be read as a page"):
        extract(tmp_path / "nowhere.html")


def test_a_file_that_a_page_gives_another_name_is_not_taken(small, tmp_path):
    other = tmp_path / "page.html"
    source = (small / "report.html").read_text(encoding="utf-8")
    other.write_text(source.replace('data-record="gates.json"', 'data-record="../../gates.json"'), encoding="utf-8")
    assert set(extract(other)) == {"attention_stats.json", "manifest.json"} < set(NAMES)


def test_gates_repeat_the_runs_of_their_controls_only_where_there_is_room():
    evidence = {"answer": "stable", "detail": "d", "runs": [{"name": "twin", "observed": [0.5]}] * 50, "bands": [0.1]}
    claim = outcome("A", controls={"control": None, "noise": evidence})
    files = {name: json.dumps(tree).encode() for name, tree in (("gates.json", gates([claim])), ("controls.json", {}))}
    assert not carry(files, 100_000)["gates.json"].left_out
    assert carry(files, 10)["gates.json"].left_out == ("runs of the controls",)


def test_a_page_with_everything_of_36_layers_of_32_heads_and_its_controls_stays_below_its_limit(tmp_path):
    evidence = {
        "answer": "stable",
        "detail": "d",
        "runs": [{"name": f"twin {i}", "observed": [i / 7]} for i in range(40)],
    }
    claims = [outcome(f"C{i}", controls=dict.fromkeys(("control", "noise"), evidence)) for i in range(21)]
    draws = np.random.default_rng(0).random((36, 32, 128)).tolist()
    static = [layer_of(row) for row in draws]
    record = attention_record(36, 32, static=static)
    folder = write_folder(tmp_path, gates(claims), manifest(), attention_stats=record)
    records.write_json(
        folder / "controls.json", {"schema_version": 1, "claims": {c["id"]: c["controls"] for c in claims}}
    )
    page = render_model(folder)
    assert len(page.encode()) <= LIMIT
    (tmp_path / "report.html").write_text(page, encoding="utf-8")
    assert "shortened" in json.loads(extract(tmp_path / "report.html")["attention_stats.json"])
