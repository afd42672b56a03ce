"""The driver's decisions, with an engine that does what the test says."""

import functools

import pytest

from analyses import layer_shards, null_residual, records
from analyses.errors import InputError
from checks.sweep import failures, lease, place, plan, room, worker
from checks.sweep.driver import DONE, FAILED, RUNNING, Driver
from checks.sweep.engines import Busy
from tests.test_sweep_plan import one_thread, planned  # noqa: F401, the fixture restores torch's threads
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


@pytest.fixture
def model(tmp_path):
    return tiny_checkpoint(tmp_path / "step1", layers=2, tokenizer=False)


def driven(made, engine):
    said = []
    driver = Driver(made, engine, said.append)
    driver.run()
    return driver, said


def states(driver):
    return {watched.state for watched in driver.watched.values()}


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


def test_a_job_that_vanishes_once_is_made_up_for(model, tmp_path):
    made = planned(tmp_path / "out", model)
    driver, _ = driven(made, engine := Inline(made.out, lose=1))
    assert states(driver) == {DONE} and [job.attempt for job in engine.jobs] == [1, 2]


def test_out_of_memory_comes_again_with_twice_the_memory(model, tmp_path, monkeypatch):
    made = planned(tmp_path / "out", model)
    measure, calls = null_residual.measure, []

    def tight(*arguments, **keywords):
        calls.append(1)
        if len(calls) < 3:
            raise MemoryError("no room for a gram")
        return measure(*arguments, **keywords)

    monkeypatch.setattr(null_residual, "measure", tight)
    driver, _ = driven(made, engine := Inline(made.out))
    assert states(driver) == {DONE} and [job.memory for job in engine.jobs] == [1, 2, 4]


def test_an_analysis_that_raises_is_not_tried_again(model, tmp_path, monkeypatch):
    made = planned(tmp_path / "out", model)
    monkeypatch.setattr(null_residual, "measure", lambda *a, **k: 1 / 0)
    driver, said = driven(made, engine := Inline(made.out))
    assert states(driver) == {FAILED} and len(engine.jobs) == 1
    assert "failed (error): null_residual: ZeroDivisionError" in said[0]


def test_a_full_disk_stops_submission_and_costs_no_attempt(model, tmp_path, monkeypatch):
    made = planned(tmp_path / "out", model)
    with monkeypatch.context() as patch:
        patch.setattr(room, "SPARE", 1 << 60)
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
    facts = {"attempt": 1, "job": "7", "engine": "inline", "driver": place.me() | {"start": "another"}}
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
    facts = {"attempt": 1, "job": "7", "engine": "inline", "driver": place.me() | {"start": "another"}}
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
        seen.append([watched.state for watched in driver.watched.values()])
        if len(seen) == 3:
            held.give_back()
            worker.work(made.out, element.id, 1, "inline", "1")

    monkeypatch.setattr("checks.sweep.driver.time.sleep", nap)
    driver = Driver(made, engine := Inline(made.out), lambda line: None)
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
    missing = Driver._look

    def look(self, watched):
        looks.append(1)
        if len(looks) == 5:
            hidden.rename(made.out / "step1")
        return missing(self, watched)

    monkeypatch.setattr(worker, "work", slow)
    monkeypatch.setattr(Driver, "_look", look)
    driver, _ = driven(made, engine)
    assert states(driver) == {DONE} and len(engine.jobs) == 1
    assert failures.read(made.state / "failures") == []


def test_pieces_come_before_the_whole(tmp_path, monkeypatch):
    model = tiny_checkpoint(tmp_path / "step1", layers=4, tokenizer=False)
    small = functools.partial(layer_shards.layer_shards, limit=1)
    monkeypatch.setattr(layer_shards, "layer_shards", small)
    monkeypatch.setattr(null_residual, "layer_shards", small)
    made = planned(tmp_path / "out", model, split=True)
    driver, _ = driven(made, engine := Inline(made.out))
    assert states(driver) == {DONE}
    assert [job.element for job in engine.jobs] == [element.id for element in made.elements]
    driven(made, again := Inline(made.out))
    assert again.jobs == []


def test_what_the_engine_refuses_for_good_ends_the_sweep(model, tmp_path):
    made = planned(tmp_path / "out", model)
    engine = Inline(made.out)
    engine.submit = lambda jobs: (_ for _ in ()).throw(InputError("--engine slurm: invalid partition"))
    with pytest.raises(InputError, match="invalid partition"):
        driven(made, engine)


def test_the_state_of_a_sweep_names_no_task_twice(model, tmp_path):
    made = planned(tmp_path / "out", model, only=("null_residual", "head_grams"))
    ids = [task.id for element in made.elements for task in element.tasks.values()]
    assert len(set(ids)) == len(ids) == 2
    assert plan.read(made.out) == made
