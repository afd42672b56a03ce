"""Hypothesis profiles and the closed network: `ci` is deterministic, `dev` looks for new examples."""

import os

import hypothesis
import pytest
import torch

hypothesis.settings.register_profile("dev", deadline=None, max_examples=30)
hypothesis.settings.register_profile("ci", deadline=None, max_examples=30, derandomize=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "dev")

os.environ["HF_HUB_OFFLINE"] = "1"


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """A test that opens a connection fails at once."""
    import socket

    def refuse(*arguments, **keywords):
        raise AssertionError("a test tried to use the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)
