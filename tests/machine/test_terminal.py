"""What a command prints cannot end it in a traceback, wherever it is printed."""

import argparse
import os
import subprocess
import sys
from pathlib import Path

import pytest

from checks.options import say

ROOT = Path(__file__).parents[2]
FATHOM = [sys.executable, "-m", "checks.cli"]


def run(words: list[str], **given) -> subprocess.CompletedProcess:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": ""} | given.pop("env", {})
    return subprocess.run([*FATHOM, *words], stderr=subprocess.PIPE, env=environment, text=True, **given)


def test_a_reader_that_leaves_ends_a_command_without_a_word():
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as stream:
        ended = run(["--help"], stdout=stream)
    assert (ended.returncode, ended.stderr) == (141, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no full device")
def test_a_full_output_is_one_line():
    with open("/dev/full", "w") as stream:
        ended = run(["--help"], stdout=stream)
    assert ended.returncode == 2 and ended.stderr.count("\n") == 1 and "cannot be written" in ended.stderr


def test_what_an_ascii_terminal_cannot_show_is_escaped():
    ended = run(["report", "nowhere-é-→"], stdout=subprocess.PIPE, env={"PYTHONIOENCODING": "ascii"})
    assert ended.returncode == 2 and "nowhere-\\xe9-\\u2192" in ended.stderr and "Traceback" not in ended.stderr


def test_what_a_received_record_says_moves_no_cursor(capsys):
    say(argparse.Namespace(quiet=False))("\n\x1b[2Jm\x07: \u202eholds\nforged line")
    assert capsys.readouterr().out == "\n\\x1b[2Jm\\x07: \\u202eholds\\nforged line\n"
