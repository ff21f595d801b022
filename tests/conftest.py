"""What every test may use: where real input lies, and what Hypothesis may spend."""

from __future__ import annotations

import importlib
import os
import pkgutil
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio.testing
from hypothesis import settings

import dispatcher
import loadtest
import ratelimit
import replay
import templates

# Hypothesis tries the constants of our modules, too, of those that have been imported by then: which these are must not
# hang on what another worker happens to run, or what it has found is not found again.
for package in (dispatcher, loadtest, ratelimit, replay, templates):
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        if not module.name.endswith(".__main__"):
            importlib.import_module(module.name)

settings.register_profile("suite", deadline=None, derandomize=True)
settings.register_profile("deep", deadline=None, max_examples=2000)
settings.load_profile(os.environ.get("SWIPEBELL_HYPOTHESIS", "suite"))

SHARED = Path(os.environ.get("SWIPEBELL_SHARED", Path(__file__).parents[1].parent / "shared"))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real input; skips, with the reason, where it is missing."""
    folder = SHARED / "data"
    if not folder.is_dir():
        pytest.skip(f"no real input at {folder}; set SWIPEBELL_SHARED to the folder that holds data/")
    return folder


@pytest.fixture
def socket_clock() -> trio.testing.MockClock:
    """Virtual time for tests with real sockets: it jumps when nothing has happened for 10 ms of real time.

    Under load the kernel may deliver bytes on the loopback later than at once, and pytest-trio's ``autojump_clock``
    would have let hours pass by then.
    """
    return trio.testing.MockClock(autojump_threshold=0.01)


@pytest.fixture
def unused_port() -> Iterator[int]:
    """A port on which nobody listens, nor can before the test's end."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        yield holder.getsockname()[1]
