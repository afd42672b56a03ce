"""The index: every model with what it is, every verdict one step from its evidence, none lost to another's records."""

import re
import urllib.parse

import pytest

from checks import cli
from checks.report.index import Indexed, is_ours, link, render_index
from tests.page import attention_record, gates, manifest, outcome, write_folder
from tests.report.test_report import HOSTILE, Page


def model(folder, name, claims=None, **described):
    judged = gates(claims or [outcome("A")], model=name)
    return write_folder(folder / name, judged, manifest(name, **described), attention_stats=attention_record())


def fathom(*arguments) -> int:
    return cli.main([str(argument) for argument in arguments])


def test_every_model_has_its_date_revision_and_precision(tmp_path):
    one = model(tmp_path, "one", revision="0123abcd", forward={"dtype": "float32"})
    two = model(tmp_path, "two", revision=None, tensors="ab" * 32, absent={"revision": "a folder has none"})
    text = Page(render_index([one, two], tmp_path)).text
    assert "2026-01-02 03:04 UTC 0123abcd bf16, run in fp32" in text
    assert f"tensors {'ab' * 6} " in text and "ab" * 7 not in text


def test_a_verdict_shows_the_number_that_decided_it_and_leads_to_its_card(tmp_path):
    from tests.page import finding

    claim = outcome(
        "A", "does not hold", findings=[finding(0.5, 0.1, status="pass"), finding(0.7321, 0.2, status="fail")]
    )
    source = render_index([model(tmp_path, "one", [claim])], tmp_path)
    said = "A on one: does not hold, 0.732, limit ≤ 0.2"
    assert re.search(rf'href="one/report.html#claim-A" aria-label="{said}"', source)


def test_columns_of_a_series_stand_beside_the_model_and_sort_by_value(tmp_path):
    steps = [Indexed(folder=model(tmp_path, f"step{n}"), facts={"step": n}) for n in (500, 2000)]
    source = render_index(steps, tmp_path, heading="Over training")
    assert "<h1>Over training</h1>" in source and ">Step</th>" in source
    found = re.findall(r'data-label="Step" data-value="(\d+)">([\d,]+)</td>', source)
    assert found == [("500", "500"), ("2000", "2,000")]


def test_a_model_that_cannot_be_read_stands_in_the_index_with_its_reason_and_the_others_are_there(tmp_path):
    good = model(tmp_path, "good")
    bad = Indexed(folder=model(tmp_path, "bad"), unreadable=f"{HOSTILE}: not JSON")
    page = Page(render_index([good, bad], tmp_path))
    assert "1 claim, 1 model." in page.text and "not JSON" in page.text
    assert "bad/report.html" not in page.targets
    assert "No model could be read" in Page(render_index([bad], tmp_path)).text


@pytest.mark.parametrize(
    "damage", ["{", '{"schema_version": 99}', '{"schema_version": 1, "analysis": "attention_stats"}']
)
def test_foreign_records_below_a_folder_are_told_and_change_no_exit_code_unless_asked_for_by_name(
    damage, tmp_path, capsys
):
    from tests.test_end_to_end import tiny_checkpoint

    out = tmp_path / "out"
    checkpoint = tiny_checkpoint(tmp_path / "tiny", layers=2, tokenizer=False)
    assert fathom("run", checkpoint, "--out", out, "--only", "null_residual", "--quiet", "--device", "cpu") == 0
    (model(out, "foreign") / "attention_stats.json").write_text(damage)
    capsys.readouterr()
    assert fathom("report", out, "--quiet") == 0
    error = capsys.readouterr().err
    assert "foreign" in error and "measure again" in error and error.count("\n") == 1
    index = (out / "index.html").read_text(encoding="utf-8")
    assert "tiny/report.html" in index and "foreign/report.html" not in index and "measure again" in index
    assert fathom("report", out / "tiny", out / "foreign", "--quiet") == 2
    assert fathom("report", out / "foreign", "--quiet") == 2


def test_models_that_hold_the_same_tensors_under_other_names_are_named(tmp_path):
    series = [model(tmp_path, name, tensors=digest * 32) for name, digest in (("first", "ab"), ("last", "cd"))]
    assert "same tensors" not in Page(render_index(series, tmp_path)).text
    series.append(model(tmp_path, "final", tensors="cd" * 32))
    assert "Final and last hold the same tensors to the last bit." in Page(render_index(series, tmp_path)).text


def test_models_that_share_one_of_their_weight_files_are_named_with_it(tmp_path):
    first, second = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
    held = {"first": ("ab", "11", "22"), "last": ("cd", "11", "33"), "final": ("cd", "11", "33")}
    held |= {"other": ("ef", "44", "55")}
    series = [
        model(tmp_path, name, tensors=whole * 32, files={first: one * 32, second: two * 32, "config.json": "66" * 32})
        for name, (whole, one, two) in held.items()
    ]
    text = Page(render_index(series, tmp_path)).text
    assert f"final, first and last share {first} to the last bit, though not all of their tensors." in text
    assert f"share {second}" not in text and "config.json to the last bit" not in text


@pytest.mark.parametrize("name", ["javascript:alert(1)", "data:text,x", "a#b", "a?b", "a%2e", "ein Wort", "é"])
def test_a_folder_s_name_is_an_address_below_the_index_whatever_it_is(tmp_path, name):
    address = link(tmp_path / name, tmp_path)
    parts = urllib.parse.urlsplit(urllib.parse.urljoin("file:///out/", address))
    assert (parts.scheme, parts.query, parts.fragment) == ("file", "", "")
    assert urllib.parse.unquote(parts.path) == f"/out/{name}"


def test_a_page_of_another_house_is_not_taken_for_an_index(tmp_path):
    index = tmp_path / "index.html"
    assert is_ours(index)
    index.write_text("<h1>My site</h1>")
    assert not is_ours(index)
    folder = write_folder(tmp_path / "m", gates([]), manifest(), attention_stats=attention_record())
    cli.main(["report", str(folder)])
    assert index.read_text() == "<h1>My site</h1>"
    index.write_text(render_index([folder], tmp_path))
    assert is_ours(index)
