"""The driver's decisions, with an engine that does what the test says."""

import dataclasses

import pytest

from analyses import records
from analyses.errors import InputError
from analyses.null_residual import analysis, shards
from checks import cli
from checks.machine import threads
from checks.sweep import disk, failures, lease, plan, process, progress, worker
from checks.sweep.driver import Driver
from checks.sweep.element import DONE, FAILED, RUNNING, ElementState
from checks.sweep.engine import Busy
from tests.sweep.test_sweep_plan import one_thread, planned  # noqa: F401, the fixture restores torch's threads
from tests.tiny import tiny_checkpoint


class Inline:
    """Runs each job where it is submitted; `refuse` makes it something else than a good engine."""

    name, width, patience, pause = "inline", 2, 0.0, 0.0

    def __init__(self, out, *, lose=0, outlives=False, busy=0):
        self.out, self.lose, self.outlives, self.busy = out, lose, outlives, busy
        self.jobs = []
        self.waiting: set[str] = set()

    def submit(self, jobs):
        if self.busy:
            self.busy -= 1
            raise Busy("the controller does not answer")
        for job in jobs:
            self.jobs.append(job)
            if len(self.jobs) > self.lose:
                worker.work(self.out, job.element, job.attempt, self.name, str(len(self.jobs)))
        return [str(len(self.jobs) - len(jobs) + k + 1) for k in range(len(jobs))]

    def alive(self, jobs):
        return {job: job in self.waiting for job in jobs}

    def cause(self, job):
        return None

    def log(self, job):
        return self.out / f"{job}.err"

    def close(self):
        """Every job has ended."""


@pytest.fixture
def model(tmp_path):
    return tiny_checkpoint(tmp_path / "step1", layers=2, tokenizer=False)


def driven(made, engine):
    said = []
    driver = Driver(made, engine, said.append)
    driver.look()
    driver.run()
    return driver, said


def states(driver):
    return {element.state for element in driver.elements.values()}


def test_what_is_missing_is_made_and_what_is_there_is_not_made_again(model, tmp_path):
    made = planned(tmp_path / "out", model)
    driver, said = driven(made, engine := Inline(made.out))
    assert states(driver) == {DONE} and len(engine.jobs) == 1 and said == [f"{model}: done"]
    driven(made, again := Inline(made.out))
    assert again.jobs == []


def test_a_job_that_vanishes_is_tried_three_times(model, tmp_path):
    made = planned(tmp_path / "out", model)
    driver, said = driven(made, engine := Inline(made.out, lose=99))
    assert states(driver) == {FAILED}
    assert [job.attempt for job in engine.jobs] == [1, 2, 3]
    assert {failure.kind for failure in failures.read(made.state / "failures")} == {"lost"}
    driven(made, again := Inline(made.out))
    assert again.jobs == [], "the count is on the disk: another driver does not begin it again"


def test_of_a_job_that_vanishes_the_failure_names_what_it_printed(model, tmp_path):
    made = planned(tmp_path / "out", model)
    made.out.mkdir(exist_ok=True)
    (made.out / "2.err").write_text("ModuleNotFoundError: No module named 'torch'")
    (made.out / "3.err").touch()  # said nothing
    _, said = driven(made, Inline(made.out, lose=99))
    first, second, third, *_ = (line for line in said if "attempt" in line)
    assert str(made.out / "2.err") in second and ".err" not in first + third


def test_a_job_that_vanishes_once_is_made_up_for(model, tmp_path):
    made = planned(tmp_path / "out", model)
    driver, _ = driven(made, engine := Inline(made.out, lose=1))
    assert states(driver) == {DONE} and [job.attempt for job in engine.jobs] == [1, 2]


def test_out_of_memory_comes_again_with_twice_the_memory(model, tmp_path, monkeypatch):
    made = planned(tmp_path / "out", model)
    measure, calls = analysis.measure, []

    def tight(*arguments, **keywords):
        calls.append(1)
        if len(calls) < 3:
            raise MemoryError("no room for a gram")
        return measure(*arguments, **keywords)

    monkeypatch.setattr(analysis, "measure", tight)
    driver, _ = driven(made, engine := Inline(made.out))
    assert states(driver) == {DONE} and [job.memory for job in engine.jobs] == [1, 2, 4]


def test_an_analysis_that_raises_is_not_tried_again(model, tmp_path, monkeypatch):
    made = planned(tmp_path / "out", model)
    monkeypatch.setattr(analysis, "measure", lambda *a, **k: 1 / 0)
    driver, said = driven(made, engine := Inline(made.out))
    assert states(driver) == {FAILED} and len(engine.jobs) == 1
    assert "failed (error): null_residual: ZeroDivisionError" in said[0]


def test_a_full_disk_stops_submission_and_costs_no_attempt(model, tmp_path, monkeypatch):
    made = planned(tmp_path / "out", model)
    with monkeypatch.context() as patch:
        patch.setattr(disk, "SPARE", 1 << 60)
        driver, _ = driven(made, engine := Inline(made.out))
    assert engine.jobs == [] and "GB are free" in driver.full
    assert failures.read(made.state / "failures") == []
    assert states(driven(made, Inline(made.out))[0]) == {DONE}


def test_a_disk_that_fills_under_a_worker_costs_no_attempt_either(model, tmp_path, monkeypatch):
    made = planned(tmp_path / "out", model)
    write = records.write_bytes

    def full(path, data):
        if path.parent.name == "step1":
            raise records.CannotWrite(f"{path}: cannot be written") from OSError(28, "No space left on device")
        write(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(records, "write_bytes", full)
        driver, _ = driven(made, Inline(made.out))
    assert driver.full and {f.kind for f in failures.read(made.state / "failures")} == {"disk"}
    driver, _ = driven(made, engine := Inline(made.out))
    assert states(driver) == {DONE} and len(engine.jobs) == 1


def test_a_driver_that_takes_over_waits_for_what_the_engine_still_has(model, tmp_path, monkeypatch):
    made = planned(tmp_path / "out", model)
    (element,) = made.elements
    facts = {"attempt": 1, "job": "7", "engine": "inline", "driver": process.me() | {"start": "another"}}
    records.write_json(made.state / "submitted" / f"{element.id}.json", facts)
    engine = Inline(made.out, outlives=True)
    engine.waiting.add("7")
    naps = []

    def nap(seconds):
        naps.append(seconds)
        if len(naps) == 3:  # now it runs, and ends
            worker.work(made.out, element.id, 1, "inline", "7")
            engine.waiting.clear()

    monkeypatch.setattr("checks.sweep.driver.time.sleep", nap)
    driver, _ = driven(made, engine)
    assert states(driver) == {DONE} and engine.jobs == []


def test_what_waited_in_a_driver_that_died_is_started_again_and_costs_nothing(model, tmp_path):
    made = planned(tmp_path / "out", model)
    facts = {"attempt": 1, "job": "7", "engine": "inline", "driver": process.me() | {"start": "another"}}
    records.write_json(made.state / "submitted" / f"{made.elements[0].id}.json", facts)
    driver, _ = driven(made, engine := Inline(made.out))
    assert states(driver) == {DONE} and [job.attempt for job in engine.jobs] == [1]


def test_an_element_whose_worker_lives_is_left_to_it(model, tmp_path, monkeypatch):
    made = planned(tmp_path / "out", model)
    (element,) = made.elements
    path = made.state / "leases" / f"{element.id}.json"
    held = lease.take(path, {"element": element.id, "attempt": 1, "engine": "inline", "job": "1"})
    seen = []

    def nap(seconds):
        seen.append([element.state for element in driver.elements.values()])
        if len(seen) == 3:
            held.give_back()
            worker.work(made.out, element.id, 1, "inline", "1")

    monkeypatch.setattr("checks.sweep.driver.time.sleep", nap)
    driver = Driver(made, engine := Inline(made.out), lambda line: None)
    driver.look()
    driver.run()
    assert seen[0] == [RUNNING] and engine.jobs == [] and states(driver) == {DONE}


def test_a_controller_that_does_not_answer_is_asked_again(model, tmp_path, monkeypatch):
    monkeypatch.setattr("checks.sweep.driver.LISTING", 0.0)
    made = planned(tmp_path / "out", model)
    driver, said = driven(made, Inline(made.out, busy=2))
    assert states(driver) == {DONE} and sum("asking again" in line for line in said) == 2


def test_a_record_that_shows_late_is_waited_for(model, tmp_path, monkeypatch):
    made = planned(tmp_path / "out", model)
    (element,) = made.elements
    engine = Inline(made.out)
    engine.patience = 60.0
    hidden = made.out / "hidden"
    work = worker.work

    def slow(*arguments):  # a shared file system that shows the records only at the third look
        work(*arguments)
        (made.out / "step1").rename(hidden)

    looks = []
    missing = ElementState.look

    def look(self):
        looks.append(1)
        if len(looks) == 5:
            hidden.rename(made.out / "step1")
        return missing(self)

    monkeypatch.setattr(worker, "work", slow)
    monkeypatch.setattr(ElementState, "look", look)
    driver, _ = driven(made, engine)
    assert states(driver) == {DONE} and len(engine.jobs) == 1
    assert failures.read(made.state / "failures") == []


def test_shards_come_before_the_whole(tmp_path, monkeypatch):
    model = tiny_checkpoint(tmp_path / "step1", layers=4, tokenizer=False)
    monkeypatch.setattr(shards, "SHARD_BYTES", 1)
    made = planned(tmp_path / "out", model, split=True)
    turned = dataclasses.replace(made, elements=made.elements[::-1])  # the whole first, did it not wait
    driver, _ = driven(turned, engine := Inline(made.out))
    assert states(driver) == {DONE}
    assert len(engine.jobs) == 4 and engine.jobs[-1].element == made.elements[-1].id
    assert not list((made.state / "shards").iterdir()), "nobody needs them any more"
    driven(made, again := Inline(made.out))
    assert again.jobs == []


def test_what_the_engine_refuses_for_good_ends_the_sweep(model, tmp_path):
    made = planned(tmp_path / "out", model)
    engine = Inline(made.out)
    engine.submit = lambda jobs: (_ for _ in ()).throw(InputError("--engine slurm: invalid partition"))
    with pytest.raises(InputError, match="invalid partition"):
        driven(made, engine)


# --- the command --------------------------------------------------------------------------------------------------


@pytest.fixture
def sweep(tmp_path, monkeypatch, capsys):
    """`fathom sweep` in this process: what it prints, and its exit code."""
    monkeypatch.setattr("checks.sweep.engines.local.apart", lambda function, *a, **k: function(*a, **k))
    monkeypatch.setattr("checks.sweep.engines.start", lambda name, setup: Inline(setup.out))
    for name in threads.COUNTS:
        monkeypatch.setenv(name, "1")  # restored afterwards: the command sets them

    def run(*words):
        fixed = ("--only", "null_residual", "--device", "cpu", "--out", tmp_path / "out")
        code = cli.main(["sweep", *map(str, (*words, *fixed))])
        return code, capsys.readouterr()

    return run


def test_an_incomplete_sweep_says_what_is_missing_and_what_completes_it(sweep, tmp_path):
    for step in (0, 10):
        tiny_checkpoint(tmp_path / "models" / f"step{step}", layers=2, seed=step, tokenizer=False)
    weights = tmp_path / "models" / "step10" / "model.safetensors"
    sound = weights.read_bytes()
    weights.write_bytes(sound[:-4] + b"\xff\xff\xff\x7f")  # a NaN
    pattern = tmp_path / "models" / "step*"
    code, told = sweep(pattern)
    assert code == 3
    assert "models  done 1  running 0  failed 1  missing 0" in told.out
    assert "given up after attempt 1 (input): tensor" in told.out
    assert "1 of 2 records are missing; fathom" in told.err and told.err.rstrip().endswith("--retry")
    code, told = sweep("--status")
    assert code == 3 and "failed 1" in told.out and "no driver at work" in told.out
    weights.write_bytes(sound)
    code, told = sweep(pattern)
    assert code == 0, "another content is another task, with attempts of its own"
    assert "2 of 2 records, complete" in told.out
    assert "step10/report.html#claim-NR1" in (tmp_path / "out" / "steps.html").read_text()
    assert "step10" in (tmp_path / "out" / "index.html").read_text()


def test_status_from_another_shell_knows_of_the_driver(sweep, model, monkeypatch):
    told = []
    finish = Driver.run

    def watched(self, report):
        told.append(sweep("--status")[1].out)
        finish(self, report)

    monkeypatch.setattr(Driver, "run", watched)
    assert sweep(model)[0] == 0
    assert "missing 1" in told[0] and "0 of 1 records, the first are on their way" in told[0]


def test_the_pace_is_what_this_driver_made(monkeypatch):
    monkeypatch.setattr("checks.sweep.progress.time.time", lambda: 120.0)
    now = progress.Standing((progress.Count("m", done=14, running=2, failed=1, missing=3),), ())
    *_, last = progress.lines(now, {"started": 0.0, "done": 4})
    assert last == "14 of 20 records, 5.0 a minute, about 1 min left"


def test_given_up_is_given_up_until_retry(sweep, model, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(analysis, "measure", lambda *a, **k: 1 / 0)
        assert sweep(model)[0] == 3
    assert sweep(model)[0] == 3
    assert sweep(model, "--retry")[0] == 0


def test_the_state_of_a_sweep_names_no_task_twice(model, tmp_path):
    made = planned(tmp_path / "out", model, only=("null_residual", "head_grams"))
    ids = [task.id for element in made.elements for task in element.tasks.values()]
    assert len(set(ids)) == len(ids) == 2
    assert plan.read(made.out) == made
