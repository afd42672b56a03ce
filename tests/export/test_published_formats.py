"""Exports for a hub, a database of evaluations and an archive, held against the formats as they are published."""

import hashlib
import json
import shutil
from datetime import datetime
from pathlib import Path

import jsonschema
import pytest
import yaml
from huggingface_hub import parse_eval_result_entries
from markdown_it import MarkdownIt

from analyses.errors import InputError
from analyses.records import read_json
from checks.cli import main
from checks.export import crate, every_eval_ever, hub
from checks.export.answers import answers, require
from checks.verify.compare import Side, read_side

PUBLISHED = Path(__file__).with_name("published")


@pytest.fixture(scope="module")
def folder(measured_result, tmp_path_factory):
    """A result of its own, since a crate is written into it."""
    return shutil.copytree(measured_result, tmp_path_factory.mktemp("export") / "model")


@pytest.fixture(scope="module")
def side(folder) -> Side:
    return read_side(folder)


@pytest.fixture(scope="module")
def exported(folder) -> Path:
    assert main(["export", str(folder), "--hub", "--eee", "--crate", "--quiet"]) == 0
    return folder


def with_numbers(side):
    return [one for one in answers(side) if one.value is not None]


def test_an_answer_is_that_of_the_condition_that_decides_a_claim(side):
    found = {one.id: one for one in answers(side)}
    assert list(found) == [claim["id"] for claim in side.judged["claims"]]
    for claim in side.judged["claims"]:
        one = found[claim["id"]]
        assert one.verdict == claim["verdict"]
        assert (one.value, one.threshold) in [(f["observed"], f["threshold"]) for f in claim["findings"]]
    assert found["NR1"].analysis == "delta_svd"  # it stands in the section of weights and reads what layers write


def test_results_for_the_hub_are_entries_that_its_own_parser_reads_with_every_number(exported, side):
    raw = yaml.safe_load((exported / "hub" / ".eval_results" / "fathom.yaml").read_text(encoding="utf-8"))
    found = parse_eval_result_entries(raw)
    assert [(one.task_id, one.value) for one in found] == [(one.id, one.value) for one in with_numbers(side)]
    for one in found:
        assert one.dataset_id == "fathom-geometry/claims"
        assert datetime.fromisoformat(one.date).strftime("%Y-%m-%d %H:%M UTC") == side.manifest["date"]
    assert any("≤ 0.100" in one.notes and one.notes.startswith("undecided: ") for one in found)


def test_results_for_the_hub_have_the_keys_of_its_published_example_and_no_others(exported):
    text = (PUBLISHED / "eval_results.yaml").read_text(encoding="utf-8")
    for gap in ("{task_id}", "{dataset_revision}", "{metric_value}", "{verify_token}", "{source_url}", "{source_name}"):
        text = text.replace(gap, "x")
    example = yaml.safe_load(text.replace("{username}", "x").replace("{orgname}", "x"))[0]
    for entry in yaml.safe_load((exported / "hub" / ".eval_results" / "fathom.yaml").read_text(encoding="utf-8")):
        assert set(entry) <= set(example) and set(entry["dataset"]) <= set(example["dataset"])
        assert {"dataset", "value"} <= set(entry) and {"id", "task_id"} <= set(entry["dataset"])
        assert isinstance(entry["date"], str)


def test_another_benchmark_is_named_where_it_is_given_and_told_where_it_is_none(folder, side, tmp_path):
    given = ["export", str(folder), "--hub", "--quiet", "--out", str(tmp_path), "--benchmark"]
    assert main([*given, "lab/geometry"]) == 0
    (entry, *_) = yaml.safe_load((tmp_path / ".eval_results" / "fathom.yaml").read_text(encoding="utf-8"))
    assert entry["dataset"]["id"] == "lab/geometry"
    assert main([*given, "geometry"]) != 0


def test_the_section_of_the_model_card_is_a_table_with_a_row_a_claim(exported, side):
    text = (exported / "hub" / "model_card_section.md").read_text(encoding="utf-8")
    rendered = MarkdownIt("commonmark").enable("table").render(text)
    assert rendered.count("<tr>") == 1 + len(side.judged["claims"]) and rendered.count("<h2>") == 1
    for claim in side.judged["claims"]:
        assert f"<td>{claim['id']}</td>" in rendered
    assert side.manifest["tensors"][:12] in text


def test_a_models_name_cannot_put_markup_on_its_card(side):
    odd = Side(name="x", judged=side.judged, found=side.found, manifest={**side.manifest, "forward": {
        **side.manifest["forward"], "calibration": "a|b <script>"}})  # fmt: skip
    assert "<script>" not in hub.section(odd)


def test_a_record_for_every_eval_ever_is_valid_by_its_published_schema(exported, side):
    schema = json.loads((PUBLISHED / "eval.schema.json").read_text(encoding="utf-8"))
    (path,) = (exported / "every_eval_ever").rglob("*.json")
    log = read_json(path)
    jsonschema.Draft7Validator.check_schema(schema)
    jsonschema.Draft7Validator(schema).validate(log)
    assert log["schema_version"] == schema["version"]
    scores = {one["evaluation_result_id"]: one for one in log["evaluation_results"]}
    assert list(scores) == [one.id for one in with_numbers(side)]
    for one in with_numbers(side):
        details = scores[one.id]["score_details"]
        assert details["score"] == one.value and details["details"]["verdict"] == one.verdict
        if one.interval:
            ends = details["uncertainty"]["confidence_interval"]
            assert (ends["lower"], ends["upper"], ends["confidence_level"]) == (*one.interval, 0.9)
    assert scores["AT1"]["source_data"]["dataset_name"] == side.manifest["forward"]["calibration"]
    assert scores["HG1"]["source_data"]["additional_details"]["sha256"] == side.manifest["tensors"]


def test_the_same_result_has_the_same_record_in_the_place_that_the_database_asks_for(side, tmp_path):
    first, again = (every_eval_ever.write(side, tmp_path / x, organization=None) for x in "ab")
    assert first.relative_to(tmp_path / "a") == again.relative_to(tmp_path / "b")
    assert first.relative_to(tmp_path / "a").parts[:4] == ("data", "fathom", "unknown", "model")
    hub_id = Side(name="o/m", judged=side.judged, found=side.found,
                  manifest={**side.manifest, "model": "owner/mo del", "revision": "abc"})  # fmt: skip
    named = every_eval_ever.write(hub_id, tmp_path, organization="A laboratory")
    assert named.relative_to(tmp_path).parts[:4] == ("data", "fathom", "owner", "mo_del")
    log = read_json(named)
    assert log["model_info"]["developer"] == "owner"
    assert log["source_metadata"]["source_organization_name"] == "A laboratory"
    assert log["model_info"]["additional_details"]["model_availability"] == "open_weights"


def crate_of(folder: Path) -> tuple[dict, dict[str, dict]]:
    content = read_json(folder / "ro-crate-metadata.json")
    return content, {entity["@id"]: entity for entity in content["@graph"]}


def test_a_crate_has_what_its_specification_says_must_be(exported):
    """RO-Crate 1.2: root-data-entity.md, structure.md and data-entities.md, their sentences with MUST."""
    content, entities = crate_of(exported)
    assert content["@context"] == "https://w3id.org/ro/crate/1.2/context" and set(content) == {"@context", "@graph"}
    assert len(entities) == len(content["@graph"]) and all("@type" in entity for entity in entities.values())
    descriptor, root = entities["ro-crate-metadata.json"], entities["./"]
    assert descriptor["@type"] == "CreativeWork" and descriptor["about"] == {"@id": "./"}
    assert descriptor["conformsTo"]["@id"].startswith("https://w3id.org/ro/crate/")
    assert root["@type"] == "Dataset" and all(root[key] for key in ("name", "description", "license"))
    assert datetime.fromisoformat(root["datePublished"]) and datetime.fromisoformat(entities["#run"]["endTime"])
    files = {id for id, entity in entities.items() if entity["@type"] == "File"}
    assert {part["@id"] for part in root["hasPart"]} == files


def test_a_crate_is_flat_and_every_reference_in_it_has_its_entity(exported):
    content, entities = crate_of(exported)
    described = set(entities) | {"https://w3id.org/ro/crate/1.2"}
    for entity in content["@graph"]:
        for key, value in entity.items():
            for part in value if isinstance(value, list) else [value]:
                if isinstance(part, dict):
                    assert set(part) == {"@id"} and part["@id"] in described, (entity["@id"], key)


def test_every_term_of_a_crate_is_one_of_its_published_context(exported):
    terms = json.loads((PUBLISHED / "ro-crate-1.2-context.jsonld").read_text(encoding="utf-8"))["@context"]
    known = set().union(*terms) if isinstance(terms, list) else set(terms)
    for entity in crate_of(exported)[0]["@graph"]:
        assert {key for key in entity if not key.startswith("@")} | {entity["@type"]} <= known, entity["@id"]


def test_a_crates_files_are_there_with_the_size_and_hash_that_it_gives(exported):
    _, entities = crate_of(exported)
    files = [entity for entity in entities.values() if entity["@type"] == "File"]
    assert {"gates.json", "manifest.json", "head_grams.json", "report.html"} <= {file["@id"] for file in files}
    for file in files:
        data = (exported / file["@id"]).read_bytes()
        assert (file["contentSize"], file["sha256"]) == (str(len(data)), hashlib.sha256(data).hexdigest())


def test_a_folder_with_a_crate_is_loaded_as_before(exported):
    assert read_side(exported).judged["model"] == "model"


def test_what_cannot_be_exported_is_one_sentence_that_says_why(folder, side, capsys):
    for words, told in (
        ([], "expected one of --as-published, --hub, --eee, --crate"),
        (["--as-published"], "needs --model"),
    ):
        assert main(["export", str(folder), *words]) != 0
        assert told in (error := capsys.readouterr().err) and error.count("\n") == 1
    with pytest.raises(InputError, match="give the folder, not its page"):
        crate.write(side, folder / "report.html")
    earlier = Side(name="m", judged=side.judged, found={}, manifest={**side.manifest, "date": None})
    with pytest.raises(InputError, match="no date; measure again"):
        require(earlier)
