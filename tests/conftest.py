"""Hypothesis profiles and the closed network: `ci` is deterministic, `dev` looks for new examples."""

import functools
import importlib.metadata
import os
import socket
from collections.abc import Callable
from pathlib import Path

import hypothesis
import pytest

# One numeric thread for a worker and for what it starts: on arrays this small more only wait for each other, busily.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch  # noqa: E402
from filelock import FileLock  # noqa: E402

hypothesis.settings.register_profile("dev", deadline=None, max_examples=30)
hypothesis.settings.register_profile("ci", deadline=None, max_examples=30, derandomize=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "dev")

os.environ["HF_HUB_OFFLINE"] = "1"
# What is installed stays as it is while tests run; each run asks for it a hundred times, and parses it anew.
importlib.metadata.version = functools.cache(importlib.metadata.version)
ORIGINAL_CONNECT = socket.socket.connect

QUICK = ("analyses", "checks", "fathom")  # doctests
QUICK += tuple(f"tests/{name}" for name in ("test_floors", "test_records", "test_shapes", "figures", "tables"))
QUICK += tuple(f"tests/claims/test_{name}" for name in ("gate", "judge", "verdicts", "decidable", "published"))
QUICK += tuple(f"tests/numerics/test_{name}" for name in ("entries", "intervals", "pvalues", "quadrature", "spectra"))
QUICK += ("tests/delta_svd", "tests/head_geometry", "tests/weight_spectra", "tests/schedule_fit/test_schedule_fit")
QUICK += ("tests/schedule_fit/test_nist", "tests/null_residual/test_scales", "tests/null_residual/test_alignment")
QUICK += tuple(f"tests/weights/test_{name}" for name in ("planes", "recognise", "layouts"))
"""What takes a minute together on two cores: the mathematics, the judging and the drawing, without whole runs."""


def pytest_addoption(parser):
    parser.addoption("--need-browser", action="store_true", help="fail, rather than skip, where there is no browser")
    parser.addoption("--screenshots", type=Path, metavar="FOLDER", help="keep pictures of the pages here")


def pytest_collection_modifyitems(items):
    for item in items:
        if item.nodeid.startswith(QUICK):
            item.add_marker("quick")


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """A test that opens a connection fails at once."""
    def refuse(*arguments, **keywords):
        raise AssertionError("a test tried to use the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture
def loopback(no_network, monkeypatch):
    """Connections to this machine are let through; those that leave it still fail."""
    def connect(self, address):
        assert address[0] in ("127.0.0.1", "::1"), f"a test tried to reach {address}"
        return ORIGINAL_CONNECT(self, address)

    monkeypatch.setattr(socket.socket, "connect", connect)


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture(scope="session")
def made_once(tmp_path_factory) -> Callable[[str, Callable[[Path], object]], Path]:
    """(name, what fills a folder) → the folder, filled by the first worker that asks for it and read by all."""
    root = tmp_path_factory.getbasetemp()
    root = root.parent if "PYTEST_XDIST_WORKER" in os.environ else root

    def made(name: str, make: Callable[[Path], object]) -> Path:
        folder, filled = root / f"once-{name}", root / f"once-{name}.filled"
        with FileLock(root / f"once-{name}.lock"):
            if not filled.exists():
                folder.mkdir()
                make(folder)
                filled.touch()
        return folder

    return made


@pytest.fixture(scope="session")
def measured_result(made_once) -> Path:
    """The folder of a tiny Llama of four layers, measured by every analysis, judged and rendered once for all tests."""
    from checks.cli import main
    from tests.few_draws import few_draws
    from tests.tiny import tiny_checkpoint

    def make(root: Path) -> None:
        model = tiny_checkpoint(root / "model", layers=4)
        with few_draws():
            assert main(["run", str(model), "--out", str(root / "out"), "--quiet"]) in (0, 1)

    return made_once("measured", make) / "out" / "model"
