"""A value that is read back has the shape that its type writes, or is named."""

import copy
from collections.abc import Iterator
from typing import Any

import pytest

from analyses import records, registry, shapes
from analyses.errors import InputError
from tests.page import attention_record

WRONG = {dict: ("x", 3.5, []), list: ("x", 3.5, {}), str: (3.5, [], {}, "\ud800"), bool: (1, "x", []),
         int: (0.5, True, "x", [], 10**400), float: (True, "x", [], {}, 10**400)}  # fmt: skip
METRIC = {"value": 0.5, "interval": [0.25, 0.75], "n": {"pairs": 4}, "where": None, "method": "", "reason": None,
          "applies": True}  # fmt: skip
COMMON = {"key": {"seed": 0}, "checksum": "c"}


def places(value: Any, at: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    yield at, value
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in parts:
        yield from places(child, (*at, str(key)))


def put(tree: Any, place: tuple[str, ...], value: Any) -> Any:
    if not place:
        return value
    changed, key = copy.copy(tree), int(place[0]) if isinstance(tree, list) else place[0]
    changed[key] = put(tree[key], place[1:], value)
    return changed


def refused(record: dict) -> str:
    try:
        records.require_record(record, "r.json")
    except InputError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("name", registry.NAMES)
def test_the_shape_of_every_record_is_read_off_its_type_and_asks_for_its_numbers(name):
    common = COMMON | {"schema_version": 1, "analysis": name, "model": "m", "absent": {}}
    assert "it is missing" in refused(common)
    assert refused(common | {"skipped": "no text"}) == refused(common | {"error": "boom"}) == ""


def test_a_value_of_another_type_is_refused_and_named_at_every_place_of_a_record():
    record = attention_record(metrics={"m": METRIC}) | COMMON
    assert refused(record) == ""
    asked = [(place, wrong) for place, value in places(record) if place for wrong in WRONG.get(type(value), ())]
    for place, wrong in asked:
        told = refused(put(record, place, wrong))
        named = told.startswith(f"r.json: {'.'.join(place)}: expected") or "schema version" in told
        assert named or place[0] == "key" or (place[-2] == "n" and wrong == 0.5), (place, wrong, told)
    assert len(asked) > 300


def test_what_a_claim_is_judged_by_cannot_be_listed_as_left_out():
    record = attention_record() | COMMON
    del record["metrics"]
    assert "metrics as left out" in refused(record | {"shortened": ["metrics"]})
    assert "metrics as left out" in refused(record | {"shortened": ["metrics.*.value"]})
    assert "metrics: expected an object" in refused(record | {"shortened": ["static"]})


def test_what_is_listed_as_left_out_may_be_null_or_missing_and_nothing_else_may():
    record = attention_record() | COMMON
    bare = {**record, "static": [layer | {"singvals_per_head": None} for layer in record["static"]]}
    assert refused(bare | {"shortened": ["static.*.singvals_per_head"]}) == ""
    assert "static.0.singvals_per_head: expected a list, got None" in refused(bare)
    del bare["static"]
    assert refused(bare | {"shortened": ["static"]}) == ""


@pytest.mark.parametrize("text", ["[]", "3", "{", "[" * 100_000, '{"x": 1e999}', '{"x": ' + "9" * 5000 + "}", "\x00"])
def test_what_is_no_object_of_finite_numbers_is_one_line(tmp_path, text):
    path = tmp_path / "r.json"
    path.write_text(text)
    with pytest.raises(InputError) as told:
        records.read_record(path)
    assert "\n" not in str(told.value)


def test_a_type_with_an_annotation_that_has_no_shape_is_loud():
    with pytest.raises(TypeError, match="no type of its own"):
        shapes.shape("analyses.records", "Nowhere")
