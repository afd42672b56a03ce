"""Records are strict JSON, written whole or not at all, and every null has its reason."""

import json
import math
import os
import stat

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from analyses import records
from analyses.errors import InputError
from analyses.records import Metric

finite = st.floats(allow_nan=False, allow_infinity=False)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | finite | st.text(),
    lambda children: st.lists(children) | st.dictionaries(st.text(), children),
    max_leaves=20,
)


@given(st.dictionaries(st.text().filter(lambda k: k != "absent"), values))
def test_what_is_written_is_read_back_to_the_last_bit(tmp_path_factory, tree):
    path = tmp_path_factory.mktemp("records") / "record.json"
    records.write_json(path, tree)
    assert records.read_json(path) == tree


def test_arrays_tensors_and_records_become_plain_values():
    metric = Metric(value=0.5, n={"pairs": np.int64(3)})
    tree = records.plain({"a": np.arange(2.0), "t": torch.ones(1, 2), "m": metric, "x": math.nan})
    assert tree["a"] == [0.0, 1.0] and tree["t"] == [[1.0, 1.0]] and tree["x"] is None
    assert tree["m"]["n"] == {"pairs": 3} and tree["m"]["value"] == 0.5


def test_a_null_needs_a_reason(tmp_path):
    record = {"scales": {"q_norm": None}, "absent": {}}
    with pytest.raises(ValueError, match=r"scales\.q_norm"):
        records.write_json(tmp_path / "r.json", record)
    assert not list(tmp_path.iterdir())
    records.write_json(tmp_path / "r.json", record | {"absent": {"scales.q_norm": "no query norm"}})
    records.write_json(tmp_path / "r.json", record | {"absent": {"scales.*": "no norms"}})


def test_a_metric_is_finite_or_says_why_not():
    with pytest.raises(ValueError, match="finite"):
        Metric(value=math.nan)
    with pytest.raises(ValueError, match="reason"):
        Metric(value=None)


@pytest.mark.parametrize("constant", ["NaN", "Infinity", "-Infinity"])
def test_a_file_with_nan_or_infinity_is_refused(tmp_path, constant):
    path = tmp_path / "r.json"
    path.write_text(f'{{"x": {constant}}}')
    with pytest.raises(InputError, match=constant):
        records.read_json(path)


def test_a_missing_or_broken_record_is_one_clear_line(tmp_path):
    with pytest.raises(InputError, match="no such record"):
        records.read_json(tmp_path / "none.json")
    (tmp_path / "half.json").write_text('{"x": 1')
    with pytest.raises(InputError, match=r"half\.json"):
        records.read_json(tmp_path / "half.json")


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "r.json"
    records.write_json(path, {"x": 1})
    with pytest.raises(ValueError):
        records.write_json(path, {"x": None, "absent": {}})
    assert json.loads(path.read_text()) == {"x": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["r.json"]


def test_a_folder_that_cannot_be_written_is_one_clear_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="--out"):
        records.write_json(tmp_path / "file" / "r.json", {"x": 1})
    if os.geteuid():  # root writes anywhere
        tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
        with pytest.raises(InputError, match="--out"):
            records.write_json(tmp_path / "r.json", {"x": 1})


# --- the same record from two processes ---------------------------------------------------------------------------


COMMON = {"schema_version": records.SCHEMA_VERSION, "analysis": "mine", "model": "m", "absent": {}}


def written(path, value, **parts):
    records.write_record(path, COMMON | {"value": value}, key={"seed": 0} | parts)


def test_the_same_record_once_more_is_left_alone(tmp_path):
    path = tmp_path / "r.json"
    written(path, 1.0)
    before = path.stat()
    written(path, 1.0)
    assert (path.stat().st_mtime_ns, path.stat().st_ino) == (before.st_mtime_ns, before.st_ino)


def test_the_same_key_with_other_bytes_is_loud_and_changes_nothing(tmp_path):
    path = tmp_path / "r.json"
    records.write_record(path, COMMON, key={"seed": 0}, arrays=[b"one"])
    with pytest.raises(records.Differs, match="same key and other numbers"):
        records.write_record(path, COMMON, key={"seed": 0}, arrays=[b"two"])
    assert records.read_record(path)["key"] == {"seed": 0}


def test_another_key_replaces_and_a_failure_takes_nothing_back(tmp_path):
    path = tmp_path / "r.json"
    written(path, 1.0)
    written(path, 2.0, seed=1)
    assert records.read_record(path)["value"] == 2.0
    failed = COMMON | {"error": "MemoryError"}
    records.write_record(path, failed, key={"seed": 1})
    assert records.read_record(path)["value"] == 2.0
    records.write_record(path, failed, key={"seed": 2})
    written(path, 3.0, seed=2)
    assert records.read_record(path)["value"] == 3.0
