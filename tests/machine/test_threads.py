"""How many threads a measurement takes."""

import json

import pytest
import torch

from checks.cli import main
from checks.machine.threads import COUNTS, NARROW, for_stream, threads
from tests.tiny import tiny_checkpoint


@pytest.fixture
def unsaid(monkeypatch):
    for name in COUNTS:
        monkeypatch.delenv(name, raising=False)


def test_a_narrow_model_takes_one_thread_and_a_wide_one_all(unsaid):
    assert (for_stream(NARROW - 1, 8), for_stream(NARROW, 8)) == (1, 8)


@pytest.mark.parametrize("name", COUNTS)
def test_what_the_environment_says_stands(unsaid, monkeypatch, name):
    monkeypatch.setenv(name, "3")
    assert for_stream(64, 3) == 3


def test_a_record_says_with_how_many_threads_it_was_made_and_the_process_has_its_own_again(unsaid, tmp_path):
    folder = tiny_checkpoint(tmp_path / "tiny")
    with threads(2):
        code = main(["measure", str(folder), "--only", "null_residual", "--out", str(tmp_path / "out"), "--quiet"])
        assert code == 0 and torch.get_num_threads() == 2
    record = json.loads((tmp_path / "out" / "tiny" / "null_residual.json").read_text())
    manifest = json.loads((tmp_path / "out" / "tiny" / "manifest.json").read_text())
    assert record["key"]["threads"] == manifest["machine"]["threads"] == 1
