"""What lies beside a sweep's records may be anything: it is then as if it were not there, or one line."""

import json
import os
import time
from pathlib import Path

import pytest

from analyses import records
from analyses.errors import InputError
from checks.sweep import failures, lease, plan, process
from checks.sweep.failures import Failure
from checks.sweep.plan import Element, Plan, Task
from checks.sweep.planning import Hashes
from checks.sweep.request import _from_file
from checks.sweep.sources import Source

SOURCE = Source(given="m", exact="/m", name="m", commit=None, slug="m", series="m", step=None)
ELEMENT = Element(
    id="m-1",
    source=SOURCE,
    settings={"device": "cpu", "only": ["head_grams"]},
    threads=1,
    tasks={"head_grams": Task(id="t", key={"seed": 0}, reads=())},
    bytes=1,
    hashes={},
)
WRONG = (None, 3, "x", [], {"x": 1}, [[]], True)


@pytest.fixture
def out(tmp_path) -> Path:
    plan.write(Plan(out=tmp_path, elements=(ELEMENT,), command="fathom sweep m"))
    return tmp_path


def refused(call) -> bool:
    try:
        call()
    except InputError as error:
        assert "\n" not in str(error)
        return True
    return False


def test_a_plan_comes_back_and_each_of_its_values_of_another_type_is_one_line(out):
    assert plan.read(out).elements == (ELEMENT,)
    for name in ("plan.json", "elements/m-1.json"):
        path = out / plan.STATE / name
        kept = json.loads(path.read_text())
        for key in kept:
            for wrong in WRONG:
                path.write_text(json.dumps(kept | {key: wrong}))
                told = refused(lambda: plan.read(out))
                assert told or type(wrong) is type(kept[key]) or kept[key] is None or wrong is None, (name, key, wrong)
        path.write_text(json.dumps(kept))


def test_an_element_that_would_lie_elsewhere_is_refused(out):
    path = out / plan.STATE / "plan.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"elements": ["../../m-1"]}))
    with pytest.raises(InputError, match="no element's name"):
        plan.read(out)


def test_a_lease_of_another_type_is_nobody_s(tmp_path):
    path = tmp_path / "l.json"
    with lease.take(path, {"job": "1"}):
        kept = records.read_json(path)
        for key in ("process", "token"):
            for wrong in WRONG:
                records.write_json(path, kept | {key: wrong} if wrong is not None else {"absent": {key: ""}, key: None})
                assert lease.read(path) is None or isinstance(wrong, str)
        for pid in (-1, 0, 2**40):
            records.write_json(path, kept | {"process": kept["process"] | {"pid": pid}})
            assert lease.read(path).lives is False


def test_a_lease_that_was_touched_in_the_future_is_not_waited_for(tmp_path):
    path = tmp_path / "l.json"
    far = process.me() | {"host": "elsewhere"}
    records.write_json(path, {"process": far, "token": "t"})
    assert lease.read(path).lives is True  # young, and too far away to be seen
    os.utime(path, (time.time() + 10**6,) * 2)
    assert lease.read(path).lives is None


def test_notes_of_failures_and_hashes_of_another_type_are_left_out(tmp_path):
    good = Failure(element="m-1", attempt=1, kind="error", message="", tasks=("t",), engine="local", job="1")
    failures.write(tmp_path / "f", good)
    kept = records.plain(good)
    for n, key in enumerate(kept):
        for i, wrong in enumerate((3.5, {}, [[]], None)):
            (tmp_path / "f" / f"x.{n}.{i}.json").write_text(json.dumps(kept | {key: wrong}))
    assert failures.read(tmp_path / "f") == [good]
    (tmp_path / "h.json").write_text('{"a": 3}')
    assert Hashes(tmp_path / "h.json").known == {}


def test_a_sweep_file_lets_no_code_run(tmp_path):
    path = tmp_path / "s.toml"
    path.write_text('models = ["m"]\ntrust_remote_code = true\n')
    with pytest.raises(InputError, match="a file does not let code run"):
        _from_file(path, {})
