"""An interrupted run goes on where it stopped, and leaves nothing half-made wherever it stops."""

import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from analyses import records, registry
from analyses.errors import InputError
from analyses.forward.inputs import Settings
from analyses.run.measure import measure
from checks import cli
from tests.tiny import tiny_checkpoint

ROOT = Path(__file__).parents[2]
KILLS = 12  # moments at which a run is ended
WEIGHTS = ("null_residual", "head_grams")  # quick, and the second has arrays beside its record


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("models") / "tiny", layers=2)


def fathom(*arguments: object) -> int:
    return cli.main([str(argument) for argument in arguments])


def reasons(tiny: Path, out: Path, **settings) -> dict[str, str]:
    return dict(measure(str(tiny), out, Settings(device="cpu", **settings)).renewed)


def record_bytes(folder: Path) -> dict[str, bytes]:
    """The bytes of every whole record and of its arrays; raises InputError on one that is not whole."""
    found = {}
    for name in registry.NAMES:
        if (path := folder / f"{name}.json").exists():
            record = records.read_record(path)
            found |= {file: (folder / file).read_bytes() for file in (path.name, *record.get("arrays", ()))}
    return found


def test_what_is_up_to_date_is_not_run_again_and_what_is_not_says_why(tiny, tmp_path):
    assert reasons(tiny, tmp_path) == dict.fromkeys(registry.NAMES, "not measured yet")
    assert reasons(tiny, tmp_path) == {}
    assert reasons(tiny, tmp_path, dtype="bfloat16") == {
        "attention_stats": "dtype changed",
        "schedule_fit": "dtype changed",
        "head_geometry": "dtype changed",
        "delta_svd": "dtype changed",
        "residual_stream": "dtype changed",
    }
    (tmp_path / "tiny" / "attention_stats.json").unlink()
    assert reasons(tiny, tmp_path, dtype="bfloat16") == {
        "attention_stats": "not measured yet",
        "schedule_fit": "it reads attention_stats",
        "head_geometry": "it reads attention_stats",
        "residual_stream": "it reads attention_stats",
    }


def test_an_analysis_that_failed_is_tried_again_and_so_is_what_reads_it(tiny, tmp_path, monkeypatch):
    def crash(*arguments, **keywords):
        raise MemoryError("no room")

    with monkeypatch.context() as patch:
        patch.setattr("analyses.attention_stats.analysis.measure", crash)
        reasons(tiny, tmp_path)
    assert reasons(tiny, tmp_path) == {
        "attention_stats": "it failed the last time",
        "schedule_fit": "it reads attention_stats",
        "head_geometry": "it reads attention_stats",
        "residual_stream": "it reads attention_stats",
    }
    assert reasons(tiny, tmp_path) == {}
    reasons(tiny, tmp_path / "unharmed")
    assert record_bytes(tmp_path / "tiny") == record_bytes(tmp_path / "unharmed" / "tiny")


def test_asking_for_one_analysis_measures_what_it_reads(tiny, tmp_path):
    assert set(reasons(tiny, tmp_path, only=("head_geometry",))) == {"attention_stats", "head_geometry"}


def test_records_of_two_runs_never_stand_side_by_side(tiny, tmp_path):
    run = ("run", tiny, "--out", tmp_path, "--quiet", "--device", "cpu")
    assert fathom(*run) == 0
    assert fathom(*run, "--only", "null_residual", "--seed", 1) == 0
    judged = records.read_json(tmp_path / "tiny" / "gates.json")
    for claim in [*judged["claims"], *judged["stored"]]:
        other = any(not finding["path"].startswith("null_residual.") for finding in claim["findings"])
        told = claim["verdict"] == "undecided" and "another run" in (claim["verdict_reason"] or "")
        assert told == other, claim["id"]
    assert "another run" in (tmp_path / "tiny" / "report.html").read_text()
    assert fathom(*run) == 0
    assert "another run" not in (tmp_path / "tiny" / "report.html").read_text()


def test_controls_are_kept_with_the_records_that_they_are_of(tiny, tmp_path, monkeypatch):
    asked = []

    def control(*arguments, parts, **keywords):
        asked.append(parts)
        return {"schema_version": 1, "model": "tiny", "claims": {}}

    monkeypatch.setattr("checks.controls.run.controls", control)
    run = ("measure", tiny, "--out", tmp_path, "--quiet", "--device", "cpu", "--only", "null_residual")
    for more in ((), ("--controls", "all"), ("--controls", "all"), ("--controls", "noise"), ()):
        assert fathom(*run, *more) == 0
    assert len(asked) == 1 and (tmp_path / "tiny" / "controls.json").exists()
    assert fathom(*run, "--seed", 1) == 0
    assert not (tmp_path / "tiny" / "controls.json").exists()
    assert fathom(*run, "--seed", 1, "--controls", "noise") == 0
    assert len(asked) == 2


# One process runs once, which imports everything, and forks each further run: what is killed is a real run, without ten
# seconds of imports. It has one thread, since a pool of threads would not be there in a fork.
# A timer that is not caught ends a process as SIGKILL does; set when a file is opened or renamed, it strikes within
# the write.
RUNNER = """
import json, os, random, resource, signal, sys, time
import checks.cli

def die_at(count, delay):
    left = [count]
    def watch(event, arguments):
        written = event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax")
        if written or event in ("os.rename", "os.remove"):
            left[0] -= 1
            if left[0] == 0:
                signal.setitimer(signal.ITIMER_REAL, delay)
    sys.addaudithook(watch)

checks.cli.main(sys.argv[1:])
for line in sys.stdin:
    asked = json.loads(line)
    begun, pid = time.monotonic(), os.fork()
    if pid == 0:
        os.dup2(os.open(asked["errors"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
        if asked["limit"]:
            resource.setrlimit(resource.RLIMIT_FSIZE, (asked["limit"],) * 2)
        if asked["die_at"]:
            die_at(*asked["die_at"])
        os._exit(checks.cli.main(asked["words"]))
    if asked["kill_after"] is not None:
        time.sleep(asked["kill_after"])
        os.kill(pid, 9)  # not reaped yet, so the number is still its own
    print(os.waitpid(pid, 0)[1], time.monotonic() - begun, flush=True)
"""


class Runner:
    """Runs `fathom` in processes of its own; `errors` is what the last one said."""

    def __init__(self, folder: Path, first: list[object]):
        self.file = folder / "errors.txt"
        self.process = subprocess.Popen(
            [sys.executable, "-c", RUNNER, *map(str, first)],
            cwd=ROOT,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    @property
    def errors(self) -> str:
        return self.file.read_text()

    def run(self, *words: object, **how: object) -> tuple[int, float]:
        """(exit code, or minus the signal; seconds)

        `kill_after` so many seconds, or `die_at` (n, seconds): so long after the n-th file is touched; `limit` of
        bytes in a file.
        """
        asked = {"words": [str(w) for w in words], "errors": str(self.file)}
        asked |= {"limit": 0, "kill_after": None, "die_at": None} | how
        self.process.stdin.write(json.dumps(asked) + "\n")
        self.process.stdin.flush()
        status, seconds = self.process.stdout.readline().split()
        return os.waitstatus_to_exitcode(int(status)), float(seconds)


def command(tiny: Path, seed: int, out: Path) -> list[object]:
    return ["run", tiny, "--out", out, "--seed", seed, "--only", ",".join(WEIGHTS), "--device", "cpu", "--quiet"]


@pytest.fixture(scope="module")
def runner(tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runner")
    made = Runner(folder, command(tiny, 0, folder / "first"))
    yield made
    made.process.stdin.close()
    made.process.wait(60)
    made.process.stdout.close()


def test_killed_at_any_moment_a_run_leaves_old_or_new_records_and_goes_on(tiny, tmp_path, runner):
    whole = {}
    for seed in (0, 1):  # what the two runs leave if nobody kills them
        code, length = runner.run(*command(tiny, seed, tmp_path / str(seed)))
        assert code == 0, runner.errors
        whole[seed] = record_bytes(tmp_path / str(seed) / "tiny")
    assert runner.run(*command(tiny, 0, tmp_path / "out"))[0] == 0
    folder, draw, killed = tmp_path / "out" / "tiny", random.Random(0), 0
    for attempt in range(KILLS):
        seed = 1 - attempt % 2
        if attempt % 4 == 0:
            how = {"kill_after": draw.uniform(0, length)}
        else:  # a record is written within a millisecond or so
            how = {"die_at": (draw.randint(1, 20), draw.choice((1e-6, 1e-4, 5e-4, 1e-3)))}
        killed += runner.run(*command(tiny, seed, tmp_path / "out"), **how)[0] in (-signal.SIGKILL, -signal.SIGALRM)
        # Each file is the old or the new one. A record and arrays that are not of one run are refused by whoever reads.
        found = {name: (folder / name).read_bytes() for name in whole[0]}
        assert all(found[name] in (whole[0][name], whole[1][name]) for name in found)
        if (folder / "manifest.json").exists():  # then it describes what is there
            described = records.read_json(folder / "manifest.json")["records"]
            assert described == {name: json.loads(found[f"{name}.json"])["checksum"] for name in WEIGHTS}
    assert killed > KILLS // 2
    assert runner.run(*command(tiny, 1, tmp_path / "out"))[0] == 0
    assert record_bytes(folder) == whole[1]


@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize("after", [0, 1, 3])
def test_a_full_disk_is_one_line_and_leaves_nothing_half_made(tiny, tmp_path, monkeypatch, capsys, call, after):
    measure(str(tiny), tmp_path, Settings(device="cpu", only=WEIGHTS))
    before = record_bytes(tmp_path / "tiny")
    real, count = getattr(os, call), [0]

    def full(*arguments):
        count[0] += 1
        if count[0] > after:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(*arguments)

    monkeypatch.setattr(os, call, full)
    assert fathom(*command(tiny, 1, tmp_path)) == 2
    monkeypatch.undo()
    error = capsys.readouterr().err
    assert "No space left on device" in error and error.count("\n") == 1
    assert record_bytes(tmp_path / "tiny").keys() == before.keys()
    assert not list((tmp_path / "tiny").glob(".*"))


def test_a_limit_on_file_size_is_one_line(tiny, tmp_path, runner):
    assert runner.run(*command(tiny, 0, tmp_path), limit=4096)[0] == 2
    assert "cannot be written (File too large)" in runner.errors and runner.errors.count("\n") == 1
    assert not list((tmp_path / "tiny").iterdir())


def test_a_leftover_of_a_killed_run_is_removed_when_it_is_old(tmp_path):
    old, new = tmp_path / ".r.json.1.tmp", tmp_path / ".r.json.2.tmp"
    for path in (old, new):
        path.write_text("half")
    os.utime(old, (time.time() - 2 * records.LEFTOVER_AGE,) * 2)
    records.write_json(tmp_path / "r.json", {"x": 1})
    assert not old.exists() and new.exists()


def test_records_are_not_put_among_a_model_s_own_files(tiny, tmp_path):
    shutil.copytree(tiny, tmp_path / "m")
    before = {path.name: path.read_bytes() for path in (tmp_path / "m").iterdir()}
    for source in (tmp_path / "m", tiny):
        (tmp_path / tiny.name).exists() or shutil.copytree(tiny, tmp_path / tiny.name)
        with pytest.raises(InputError, match="holds a model"):
            measure(str(source), tmp_path, Settings(only=("head_grams",)))
    assert before == {path.name: path.read_bytes() for path in (tmp_path / "m").iterdir()}
