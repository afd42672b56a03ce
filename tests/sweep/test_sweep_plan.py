"""What a sweep is asked for, and what must be there in the end."""

import argparse
import dataclasses
import json
import multiprocessing
import os
import shutil
import time

import pytest
import torch

from analyses import head_grams, null_residual, records
from analyses.errors import InputError
from analyses.head_grams import shards as head_shards
from analyses.null_residual import shards as layer_shards
from checks import cli
from checks.sweep import disk, done, failures, lease, plan, planning, process, progress, request, sources, staging
from checks.sweep.failures import Failure, History
from checks.sweep.patterns import expand
from checks.sweep.worker import work
from tests.loopback_hub import COMMIT
from tests.tiny import tiny_checkpoint
from tests.weights.test_hub import ID, hub, sharded, single  # noqa: F401, fixtures

NO_HUB = {}.__getitem__


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_checkpoint(tmp_path_factory.mktemp("models") / "step20", layers=2, tokenizer=False)


def asked(*patterns, **given):
    """What the command line asks for, with these options."""
    base = request._defaults() | {"device": "cpu", "only": ("null_residual",)} | given
    return [request.Wanted(pattern=str(pattern), options=base) for pattern in patterns]


def planned(out, *patterns, split=False, **given):
    wanted = asked(*patterns, **given)
    made = planning.make(wanted, out, threads=1, local=True, command="fathom sweep", split=split)
    plan.write(made)
    return made


def swept(model, out):
    """A plan of one element, done."""
    made = planned(out, model)
    work(out, made.elements[0].id, 1, "local", "1")
    return made


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


# --- patterns -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("a/b@step{0,1,4}", ["a/b@step0", "a/b@step1", "a/b@step4"]),
        ("x{0..2}", ["x0", "x1", "x2"]),
        ("x{0..100..50}", ["x0", "x50", "x100"]),
        ("{a,b}-{1..2}", ["a-1", "a-2", "b-1", "b-2"]),
        ("plain", ["plain"]),
    ],
)
def test_braces_are_lists_and_ranges(pattern, names):
    assert expand([pattern], NO_HUB) == names


def test_a_star_names_the_folders_that_are_there_in_the_order_of_their_numbers(tmp_path):
    for step in (10, 2, 0):
        (tmp_path / f"step{step}").mkdir()
    (tmp_path / "step3").write_text("a file is no checkpoint")
    assert expand([f"{tmp_path}/step*"], NO_HUB) == [f"{tmp_path}/step{step}" for step in (0, 2, 10)]


def test_a_star_in_a_revision_names_the_hubs_revisions():
    there = {"step10": "c1", "main": "c2", "step2": "c3"}
    assert expand(["a/b@step*"], lambda repository: there) == ["a/b@step2", "a/b@step10"]


@pytest.mark.parametrize("pattern", ["x{1,2", "x}", "x{}", "x{1,,2}", "x{5..1}", "x{1..9..0}", "{0..999}{0..999}"])
def test_a_malformed_pattern_is_one_line_that_names_it(pattern):
    with pytest.raises(InputError) as caught:
        expand([pattern], NO_HUB)
    assert pattern in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("pattern", ["nowhere/step*", "a/b@nothing*"])
def test_a_pattern_that_matches_nothing_says_so(pattern):
    with pytest.raises(InputError, match="matches nothing"):
        expand([pattern], lambda repository: {"main": "c"})


# --- sources ------------------------------------------------------------------------------------------------------


def test_a_revision_is_resolved_to_its_commit_and_keeps_its_own_folder(monkeypatch):
    monkeypatch.setattr(sources, "revisions", lambda repository: {"main": "a" * 40, "step8": "b" * 40})
    found = sources.resolve("owner/name@step8")
    assert (found.exact, found.slug) == (f"owner/name@{'b' * 40}", "owner--name@step8")
    assert (found.series, found.step) == ("owner/name", 8)
    assert sources.resolve("owner/name").slug == "owner--name"


def test_a_revision_that_does_not_exist_is_one_line_that_names_some_that_do(monkeypatch):
    monkeypatch.setattr(sources, "revisions", lambda repository: {"main": "a" * 40})
    with pytest.raises(InputError, match=r"owner/name has no revision step9 \(it has: main\)"):
        sources.resolve("owner/name@step9")


def test_without_a_network_the_hubs_cache_says_which_revisions_there_are(tmp_path, monkeypatch):
    refs = tmp_path / "models--owner--name" / "refs"
    refs.mkdir(parents=True)
    (refs / "step3").write_text("c" * 40)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    sources.revisions.cache_clear()
    assert sources.resolve("owner/name@step3").commit == "c" * 40


# --- sweep files --------------------------------------------------------------------------------------------------


def test_a_sweep_file_says_of_all_models_and_otherwise_of_one(tmp_path):
    path = tmp_path / "models.toml"
    path.write_text(
        'models = ["a", "b@step{0,1}"]\nonly = ["null_residual"]\nseed = 3\n[[model]]\nsource = "c"\nseed = 4\n'
    )
    found = request.wanted([str(path), "d"], _arguments(dtype="auto"))
    assert [want.pattern for want in found] == ["a", "b@step{0,1}", "c", "d"]
    assert [want.options["seed"] for want in found] == [3, 3, 4, 0]
    assert {want.options["dtype"] for want in found} == {"auto"}
    assert found[0].options["only"] == ("null_residual",)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("models = [", "cannot be read as TOML"),
        ("seed = 1", "names no model"),
        ('models = "a"', "models must be a list"),
        ('models = ["a"]\nspeed = 3', "speed is no option"),
        ('models = ["a"]\nseed = "fast"', "invalid int value"),
        ("[[model]]\nseed = 1", "no source"),
    ],
)
def test_a_sweep_file_that_is_none_is_one_line(text, line, tmp_path):
    path = tmp_path / "models.toml"
    path.write_text(text)
    with pytest.raises(InputError, match=line) as caught:
        request.wanted([str(path)], _arguments())
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def _arguments(**given):
    return argparse.Namespace(**request._defaults() | given)


# --- keys and evidence --------------------------------------------------------------------------------------------


def test_the_plans_keys_are_those_that_measuring_writes(model, tmp_path):
    made = planned(tmp_path, model)
    assert set(done.missing(tmp_path, made.elements[0])) == {"null_residual"}
    work(tmp_path, made.elements[0].id, 1, "local", "1")
    assert done.missing(tmp_path, made.elements[0]) == {}
    record = records.read_record(tmp_path / "step20" / "null_residual.json")
    assert record["key"] == made.elements[0].tasks["null_residual"].key


def test_a_plan_read_back_is_the_plan(model, tmp_path):
    made = planned(tmp_path, model, layers=range(0, 2)) if "layers" in request._defaults() else planned(tmp_path, model)
    assert plan.read(tmp_path) == made
    assert plan.settings_of(made.elements[0]).only == ("null_residual",)


def test_what_is_read_by_an_analysis_becomes_a_task_too(model, tmp_path):
    (element,) = planned(tmp_path, model, only=("schedule_fit",)).elements
    assert list(element.tasks) == ["null_residual", "attention_stats", "delta_svd", "schedule_fit"]


def test_one_flipped_bit_of_a_weight_is_another_task(model, tmp_path):
    before = planned(tmp_path / "out", model).elements[0]
    copy = tiny_checkpoint(tmp_path / "step20", layers=2, tokenizer=False)
    path = copy / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert planned(tmp_path / "out", copy).elements[0].id != before.id


def damage_record(folder):
    path = folder / "null_residual.json"
    path.write_bytes(path.read_bytes().replace(b'"resid_norm":1', b'"resid_norm":2', 1))


def truncate_record(folder):
    path = folder / "null_residual.json"
    path.write_bytes(path.read_bytes()[:1000])


def remove_manifest(folder):
    (folder / "manifest.json").unlink()


def change_key(folder):
    record = records.read_json(folder / "null_residual.json")
    kept = {key: value for key, value in record.items() if key not in ("key", "checksum")}
    records.write_record(folder / "null_residual.json", kept, key=record["key"] | {"threads": 7})


@pytest.mark.parametrize("damage", [damage_record, truncate_record, remove_manifest, change_key])
def test_a_record_that_is_not_whole_or_not_of_the_key_is_not_there(damage, model, tmp_path):
    made = swept(model, tmp_path)
    damage(tmp_path / "step20")
    assert done.missing(tmp_path, made.elements[0])


def test_a_record_made_from_others_than_lie_beside_it_is_not_there(model, tmp_path):
    made = planned(tmp_path, model, only=("schedule_fit",))
    work(tmp_path, made.elements[0].id, 1, "local", "1")
    open_key = {p: v for p, v in made.elements[0].tasks["schedule_fit"].key.items() if p not in planning.OF_FILES}
    tasks = dict(made.elements[0].tasks)
    tasks["schedule_fit"] = dataclasses.replace(tasks["schedule_fit"], key=open_key)
    element = dataclasses.replace(made.elements[0], tasks=tasks)
    assert done.missing(tmp_path, element) == {}
    path = tmp_path / "step20" / "null_residual.json"
    record = records.read_json(path)
    kept = {key: value for key, value in record.items() if key not in ("key", "checksum")}
    records.write_record(path, kept, key=record["key"] | {"extra": "part"})
    assert list(done.missing(tmp_path, element)) == ["schedule_fit"]


def test_a_second_worker_finds_nothing_to_do(model, tmp_path):
    made = swept(model, tmp_path)
    before = (tmp_path / "step20" / "manifest.json").stat().st_mtime_ns
    work(tmp_path, made.elements[0].id, 1, "local", "1")
    assert (tmp_path / "step20" / "manifest.json").stat().st_mtime_ns == before


def test_another_number_of_threads_is_refused_before_anything_is_measured(model, tmp_path):
    made = planned(tmp_path, model)
    path = tmp_path / plan.STATE / "elements" / f"{made.elements[0].id}.json"
    tree = json.loads(path.read_text())
    tree["tasks"]["null_residual"]["key"]["threads"] = 5
    path.write_text(json.dumps(tree))
    work(tmp_path, made.elements[0].id, 1, "local", "1")
    (failure,) = failures.read(tmp_path / plan.STATE / "failures")
    assert failure.kind == "class" and "threads of null_residual: 1 here, 5 when" in failure.message
    assert not (tmp_path / "step20").exists()


# --- one large checkpoint -----------------------------------------------------------------------------------------


BOTH = ("null_residual", "head_grams")


@pytest.fixture
def in_shards(monkeypatch):
    """The limits of a shard are constants; here they are small, as if every checkpoint were large."""
    monkeypatch.setattr(layer_shards, "SHARD_BYTES", 1)
    monkeypatch.setattr(head_shards, "MATCH_WORK", 0)
    monkeypatch.setattr(head_shards, "SHARD_WORK", 1)


def test_a_checkpoint_in_shards_leaves_the_bytes_of_one_in_one_go(tmp_path, in_shards, monkeypatch):
    model = tiny_checkpoint(tmp_path / "step1", layers=4, tokenizer=False)
    whole = planned(tmp_path / "whole", model, only=BOTH)
    work(whole.out, whole.elements[0].id, 1, "local", "1")
    made = planned(out := tmp_path / "shards", model, only=BOTH, split=True)
    assert plan.read(out) == made
    *parts, last = made.elements
    shards = [(part.shard.analysis, part.shard.start, part.shard.stop) for part in parts]
    pairs, lows = [(0, 2), (1, 3), (2, 4)], [(0, 1), (1, 2), (2, 3), (3, 4)]
    assert shards == [("null_residual", *p) for p in pairs] + [("head_grams", *p) for p in lows]
    assert last.after == tuple(part.id for part in parts) and made.checkpoints == (last,)
    with lease.take(made.state / "leases" / f"{parts[0].id}.json", {}) as held:
        assert progress.standing(made).counts[0].running == 2, "who works on a shard works on the checkpoint"
        held.give_back()
    for part in reversed(parts):
        work(out, part.id, 1, "local", "1")
        assert done.missing(out, part) == {}
    again = "a shard was measured again"
    monkeypatch.setattr(null_residual.analysis, "measure_shard", lambda *a, **k: pytest.fail(again))
    monkeypatch.setattr(head_grams.stored_heads, "measure_shard", lambda *a, **k: pytest.fail(again))
    work(out, last.id, 1, "local", "1")
    for name in ("null_residual.json", "head_grams.json", "head_grams.safetensors"):
        assert (out / "step1" / name).read_bytes() == (whole.out / "step1" / name).read_bytes()
    assert progress.standing(made).all == 2 and progress.standing(made).complete


def test_a_shard_whose_worker_is_killed_between_its_arrays_and_its_record_is_made_again(tmp_path, in_shards):
    model = tiny_checkpoint(tmp_path / "step1", layers=2, tokenizer=False)
    made = planned(out := tmp_path / "out", model, only=("head_grams",), split=True)
    part, other, last = made.elements
    context = multiprocessing.get_context("fork")
    reached = context.Event()
    child = context.Process(target=_stop_before_the_record, args=(out, part.id, reached))
    child.start()
    assert reached.wait(60)
    child.kill()
    child.join()
    assert (part.folder(out) / "head_grams.safetensors").exists()
    assert done.missing(out, part) == {"head_grams": "no record"}
    for element in (part, other, last):
        work(out, element.id, 2, "local", "2")
    assert not any(done.missing(out, element) for element in made.elements)


def _stop_before_the_record(out, id, reached):
    write = records.write_json

    def stop(path, value):
        if path.name == "head_grams.json":
            reached.set()
            time.sleep(60)
        write(path, value)

    records.write_json = stop
    work(out, id, 1, "local", "1")


@pytest.mark.parametrize("name", BOTH)
def test_a_shard_of_another_numeric_class_or_with_other_bytes_is_not_taken_up(name, tmp_path, in_shards):
    model = tiny_checkpoint(tmp_path / "step1", layers=3, tokenizer=False)
    made = planned(out := tmp_path / "out", model, only=(name,), split=True)
    part = made.elements[0]
    work(out, part.id, 1, "local", "1")
    path = part.folder(out) / f"{name}.json"
    record = records.read_json(path)
    kept = {key: value for key, value in record.items() if key not in ("key", "checksum")}
    records.write_record(path, kept, key=record["key"] | {"device_class": "cuda"})
    assert done.missing(out, part) == {name: "another device_class"}
    records.write_record(path, kept | {"shard": {}}, key=record["key"])
    path.write_bytes(path.read_bytes().replace(b'"model":', b'"model" :').replace(b"step1", b"step2"))
    assert "checksum differs" in done.missing(out, part)[name]


def test_a_checkpoint_on_the_hub_is_planned_in_shards_before_it_is_fetched(hub, tmp_path, in_shards, monkeypatch):  # noqa: F811
    monkeypatch.setattr(sources, "revisions", lambda repository: {"main": COMMIT})
    made = planned(out := tmp_path / "out", ID, only=BOTH, split=True)
    assert len(made.elements) == 1 + 2 + 3 and not list((tmp_path / "cache").rglob("*.safetensors"))
    whole = planned(tmp_path / "whole", ID, only=BOTH)
    for sweep in (made, whole):
        for element in sweep.elements:
            work(sweep.out, element.id, 1, "local", "1")
            assert done.missing(sweep.out, element) == {}
    for name in ("null_residual.json", "head_grams.json", "head_grams.safetensors"):
        one, two = (folder / ID.replace("/", "--") / name for folder in (out, whole.out))
        assert one.read_bytes() == two.read_bytes()


def test_heads_are_in_no_shards_where_they_are_not_measured(model, tmp_path, in_shards):
    made = planned(tmp_path, model, only=("head_grams",), families=("v_proj",), split=True)
    assert [element.shard for element in made.elements] == [None]


# --- bad input ----------------------------------------------------------------------------------------------------


def refused(capsys, *words) -> str:
    """The one line with which a command is refused."""
    capsys.readouterr()
    assert cli.main(["sweep", *map(str, words)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


@pytest.fixture
def inline(monkeypatch):
    """Plan in this process: another one would have to be reached through a socket."""
    monkeypatch.setattr("checks.sweep.engines.local.apart", lambda function, *a, **k: function(*a, **k))


def test_an_unknown_engine_is_one_line(capsys):
    assert "there are: local, slurm, dask" in refused(capsys, "m", "--engine", "condor")


def test_an_option_of_another_engine_is_one_line(capsys):
    assert "--partition: an option of --engine slurm" in refused(capsys, "m", "--partition", "gpu")


def test_a_machine_without_slurm_is_one_line(capsys, model, tmp_path, monkeypatch, inline):
    pytest.importorskip("submitit", reason="submitit is not installed (pip install 'fathom-geometry[slurm]')")
    monkeypatch.setenv("PATH", "")
    words = (model, "--engine", "slurm", "--device", "cpu", "--out", tmp_path)
    assert "there is no sbatch here" in refused(capsys, *words)


def test_auto_is_no_device_for_machines_elsewhere(capsys, model, tmp_path, inline):
    assert "--device auto" in refused(capsys, model, "--engine", "slurm", "--out", tmp_path)


def test_two_checkpoints_of_one_name_are_one_line(capsys, model, tmp_path, inline):
    other = tiny_checkpoint(tmp_path / "other" / "step20", layers=2, seed=1, tokenizer=False)
    line = refused(capsys, model, other, "--device", "cpu", "--out", tmp_path / "out")
    assert "two checkpoints would write step20/" in line


def test_the_same_checkpoint_twice_is_one_element(model, tmp_path):
    assert len(planned(tmp_path, model, model).elements) == 1


def test_records_of_another_schema_version_are_one_line_and_stay(capsys, model, tmp_path, inline, monkeypatch):
    path = tmp_path / "step20" / "null_residual.json"
    records.write_json(path, {"schema_version": 0})
    before = path.read_bytes()
    monkeypatch.setattr("checks.sweep.engines.start", lambda *arguments: _NoEngine())
    line = refused(capsys, model, "--device", "cpu", "--out", tmp_path)
    assert "schema version 0" in line and "another --out" in line
    assert path.read_bytes() == before


class _NoEngine:
    name, width, outlives, patience, pause = "none", 1, False, 0.0, 0.0

    def close(self):
        """Nothing was started."""


def test_a_second_driver_is_refused_and_told_of_the_first(capsys, model, tmp_path, inline):
    with lease.take(tmp_path / plan.STATE / "driver.json", {}):
        line = refused(capsys, model, "--device", "cpu", "--out", tmp_path)
    assert f"process {os.getpid()}" in line and "--status" in line


def test_status_of_a_folder_without_a_sweep_is_one_line(capsys, tmp_path):
    assert "no sweep here" in refused(capsys, "--status", "--out", tmp_path)


# --- leases -------------------------------------------------------------------------------------------------------


def _hold(path, ready):
    with lease.take(path, {"who": "child"}):
        ready.set()
        time.sleep(60)


def test_a_lease_is_one_holders_until_it_ends_or_dies(tmp_path):
    path = tmp_path / "lease.json"
    context = multiprocessing.get_context("fork")
    ready = context.Event()
    child = context.Process(target=_hold, args=(path, ready))
    child.start()
    assert ready.wait(30)
    assert lease.read(path).lives and lease.take(path, {}) is None
    child.kill()
    child.join()
    assert lease.read(path).lives is False
    with lease.take(path, {"who": "me"}) as mine:
        assert lease.read(path).facts["who"] == "me"
        mine.end(seconds=1)
    assert lease.read(path).ended and lease.read(path).lives is False


def test_a_silent_lease_from_elsewhere_is_nobodys(tmp_path):
    path = tmp_path / "lease.json"
    elsewhere = {"host": "elsewhere", "boot": "1", "namespace": "1", "pid": 1, "start": "1"}
    records.write_json(path, {"process": elsewhere, "token": "theirs"})
    assert lease.read(path).lives and lease.take(path, {}) is None
    old = time.time() - 2 * lease.STALE
    os.utime(path, (old, old))
    assert lease.read(path).lives is None
    assert lease.take(path, {}) is not None


def test_a_process_number_used_again_is_another_process():
    mine = process.me()
    assert process.alive(mine) is True
    assert process.alive(mine | {"start": "0"}) is False
    assert process.alive(mine | {"boot": "another"}) is None


# --- failures -----------------------------------------------------------------------------------------------------


def failed(kind, attempt, task="t"):
    return Failure(element="e", attempt=attempt, kind=kind, message="", tasks=(task,), engine="local", job="1")


def test_three_attempts_and_no_more():
    two = [failed("lost", 1), failed("io", 2)]
    assert History(two).given_up("t") is None
    assert History([*two, failed("killed", 3)]).given_up("t").attempt == 3


def test_a_deterministic_error_is_not_tried_again():
    for kind in ("input", "error", "class", "differs"):
        assert History([failed(kind, 1)]).given_up("t")
    assert History([failed("error", 1)]).given_up("another") is None


def test_a_full_disk_or_an_interrupt_uses_up_no_attempt():
    assert History([failed("disk", k) for k in range(1, 9)]).given_up("t") is None
    assert History([failed("stopped", k) for k in range(1, 9)]).given_up("t") is None


def test_out_of_memory_doubles_the_memory_and_a_time_limit_the_time():
    history = History([failed("memory", 1), failed("time", 2), failed("killed", 3)])
    assert (history.memory, history.time) == (4, 2)


def test_failures_are_known_by_what_caused_them():
    full = records.CannotWrite("no")
    full.__cause__ = OSError(28, "No space left on device")
    missing = InputError("no config.json")
    missing.__cause__ = FileNotFoundError(2, "not there")
    kinds = [full, missing, MemoryError(), ValueError("x"), OSError(5, "input/output"), records.Differs("x")]
    assert [failures.kind_of(error) for error in kinds] == ["disk", "input", "memory", "error", "io", "differs"]


def test_a_damaged_checkpoint_fails_once_with_its_reason(tmp_path):
    model = tiny_checkpoint(tmp_path / "step1", layers=2, tokenizer=False)
    made = planned(tmp_path / "out", model)
    (model / "config.json").write_text("{")
    work(tmp_path / "out", made.elements[0].id, 1, "local", "1")
    (failure,) = failures.read(made.state / "failures")
    assert failure.kind == "input" and "config.json" in failure.message
    now = progress.standing(made)
    assert [count.failed for count in now.counts] == [1]
    assert "given up after attempt 1 (input)" in progress.why_not(now)[0]
    failures.forget(made.state / "failures", [task.id for task in made.elements[0].tasks.values()])
    assert progress.standing(made).counts[0].missing == 1


# --- staging ------------------------------------------------------------------------------------------------------


def test_a_staged_checkpoint_is_read_from_its_copy_and_gone_afterwards(model, tmp_path):
    (element,) = planned(tmp_path / "out", model).elements
    stage = tmp_path / "stage"
    with staging.staged(element, stage) as folder:
        assert stage in folder.parents
        assert (folder / "model.safetensors").read_bytes() == (model / "model.safetensors").read_bytes()
        with staging.staged(element, stage) as again:
            assert again == folder
        assert folder.exists(), "one user is left"
    assert not folder.exists()


def test_staging_changes_no_byte_of_the_record(model, tmp_path):
    swept(model, tmp_path / "plain")
    made = planned(tmp_path / "staged", model)
    work(tmp_path / "staged", made.elements[0].id, 1, "local", "1", tmp_path / "stage")
    one, two = (tmp_path / out / "step20" / "null_residual.json" for out in ("plain", "staged"))
    assert one.read_bytes() == two.read_bytes()


def test_a_checkpoint_that_changed_since_the_plan_is_not_measured(tmp_path):
    model = tiny_checkpoint(tmp_path / "step1", layers=2, tokenizer=False)
    (element,) = planned(tmp_path / "out", model).elements
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config, indent=7))
    changed = pytest.raises(InputError, match="changed since the sweep was planned")
    with changed, staging.staged(element, tmp_path / "stage"):
        pytest.fail("it was staged")


def test_a_copy_that_differs_from_its_original_is_tried_again_later(model, tmp_path, monkeypatch):
    made = planned(tmp_path / "out", model)
    copyfile = shutil.copyfile

    def torn(origin, copy):
        copyfile(origin, copy)
        copy.write_bytes(copy.read_bytes()[:-1])

    monkeypatch.setattr(staging.shutil, "copyfile", torn)
    work(tmp_path / "out", made.elements[0].id, 1, "local", "1", tmp_path / "stage")
    (failure,) = failures.read(made.state / "failures")
    assert failure.kind == "io" and "differs from the original" in failure.message
    assert not list((tmp_path / "stage").glob("*/*/model.safetensors.*"))


def test_a_stage_without_room_is_a_full_disk_and_not_a_fault_of_the_model(model, tmp_path, monkeypatch):
    made = planned(tmp_path / "out", model)
    monkeypatch.setattr(disk, "SPARE", 1 << 60)
    work(tmp_path / "out", made.elements[0].id, 1, "local", "1", tmp_path / "stage")
    (failure,) = failures.read(made.state / "failures")
    assert failure.kind == "disk" and "GB are free" in failure.message
    assert progress.standing(made).counts[0].missing == 1


def test_the_copy_of_a_worker_that_was_killed_is_cleared(model, tmp_path):
    (element,) = planned(tmp_path / "out", model).elements
    context = multiprocessing.get_context("fork")
    ready = context.Event()
    child = context.Process(target=_stage, args=(element, tmp_path / "stage", ready))
    child.start()
    assert ready.wait(30)
    child.kill()
    child.join()
    assert list((tmp_path / "stage").glob("*/*/model.safetensors"))
    staging.clear(tmp_path / "stage")
    assert not list((tmp_path / "stage").glob("*/*/model.safetensors"))


def _stage(element, stage, ready):
    with staging.staged(element, stage):
        ready.set()
        time.sleep(60)
