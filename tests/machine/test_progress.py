"""A bar on a terminal, with what is left; nothing in a pipe; and work tells every step exactly once."""

import io
import os
import pty
import select
import subprocess
import sys
import time

import pytest
from tqdm import tqdm

from analyses.forward.calibration import Calibration
from analyses.forward.inputs import Settings
from analyses.progress import Count, silent
from analyses.run.suite import analyse, forward_pass
from analyses.weights.checkpoint import open_checkpoint
from checks.cli import main
from checks.machine.progress import EVERY, FORMAT, bars
from tests.tiny import tiny_checkpoint

TEXT = Calibration(name="test", texts=("Down to the sea in ships.", "The deep."), sha256="0" * 64, stream=False)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_bar_is_drawn_seldom_and_wiped_at_the_end():
    terminal = Terminal()
    tick, start = bars(terminal, quiet=False)("work"), time.monotonic()
    for done in range(1, 51):
        time.sleep(0.01)
        tick(done, 50)
    drawn = terminal.getvalue().split("\r")[1:]
    *shown, wiped, after = drawn
    assert 3 <= len(shown) <= 2 + (time.monotonic() - start) / EVERY, "the first, and one in every tenth of a second"
    assert all(text.startswith("work ") and " left" in text and len(text) < 80 for text in shown)
    assert not wiped.strip() and len(wiped) >= len(shown[-1].rstrip()) and after == ""


@pytest.mark.parametrize(("stream", "quiet"), [(io.StringIO(), False), (Terminal(), True)], ids=["pipe", "quiet"])
def test_nothing_is_drawn_where_nobody_looks(stream, quiet):
    tick = bars(stream, quiet=quiet)("work")
    tick(1, 2)
    assert tick is silent and stream.getvalue() == ""


def test_rate_and_remaining_time_are_those_of_the_steps_so_far():
    numbers = {"n": 10, "total": 40, "prefix": "w", "ncols": 80, "ascii": "░█", "bar_format": FORMAT}
    assert tqdm.format_meter(elapsed=5.0, **numbers) == "w ██████░░░░░░░░░░░░░░░░░░ 10/40   2.00it/s  00:15 left"
    assert tqdm.format_meter(elapsed=300.0, **numbers).endswith(" 10/40  30.00s/it  15:00 left")


def test_several_loops_are_one_count():
    told = []
    count = Count(lambda done, of: told.append((done, of)), 5)
    assert list(count.over("abc")) == list("abc")
    count.step()
    count.step()
    assert told == [(i, 5) for i in range(1, 6)]


@pytest.fixture(scope="module", params=["qwen3", "mixtral"])
def checkpoint(request, tmp_path_factory):
    return open_checkpoint(str(tiny_checkpoint(tmp_path_factory.mktemp("progress") / request.param, request.param)))


def test_every_analysis_tells_each_step_once_and_ends_with_the_last(checkpoint):
    settings = Settings(device="cpu")
    analyses = ("null_residual", "head_grams", "attention_stats")
    told: dict[str, list[tuple[int, int]]] = {name: [] for name in ("forward", *analyses, "inspect")}

    def tick(name):
        return lambda done, of: told[name].append((done, of))

    passes = forward_pass(checkpoint, TEXT, settings, ("attention_stats",), tick("forward"))
    for name in analyses:
        analyse(name, checkpoint, passes, settings, None, tick(name))
    checkpoint.inspect(tick("inspect"))
    for name, steps in told.items():
        if name == "head_grams":  # spectra of each layer, then tiles of all products, then each layer's folded heads
            layers = checkpoint.shape.layers
            assert steps[:layers] + steps[-layers:] == [(i, 2 * layers) for i in range(1, 2 * layers + 1)]
            steps = steps[layers:-layers]
        assert steps == [(i, len(steps)) for i in range(1, len(steps) + 1)] and steps, name


def test_a_run_on_a_terminal_shows_a_bar_and_one_in_a_pipe_plain_lines(tmp_path, capsys):
    folder = tiny_checkpoint(tmp_path / "tiny", tokenizer=False)
    measure = ["measure", str(folder), "--only", "null_residual", "--out"]
    capsys.readouterr()
    assert main([*measure, str(tmp_path / "a")]) == 0
    printed = capsys.readouterr()
    assert printed.err == "" and "tiny: null_residual " in printed.out
    assert main([*measure, str(tmp_path / "b"), "--quiet"]) == 0
    assert tuple(capsys.readouterr()) == ("", "")

    reader, writer = pty.openpty()
    command = [sys.executable, "-m", "checks.cli", *measure, str(tmp_path / "c")]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=writer)
    os.close(writer)
    seen, until = b"", time.monotonic() + 60
    while time.monotonic() < until and select.select([reader], [], [], 60)[0]:
        try:
            part = os.read(reader, 4096)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        seen += part
    os.close(reader)
    assert process.wait() == 0
    assert "tiny: null_residual █" in seen.decode() or "tiny: null_residual ░" in seen.decode()
    assert seen.decode().endswith(" \r"), "the last bar is wiped"
