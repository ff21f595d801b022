"""The real programs as processes: the simulated providers, and the command line with its configuration."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from loadtest.load.world import free_port as find_port
from tests.e2e.processes_kit import COMMAND_S, END_S

PROVIDER_SECRET = "simulated-secret"


class Providers:
    """The simulated providers, on a port of their own."""

    def __init__(self, *options: str) -> None:
        command = [sys.executable, "-m", "loadtest.providers", "--listen", "127.0.0.1:0", *options]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert "listening on " in line, line
        self.url = line.split("listening on ")[1].strip()
        self.http = httpx.Client(base_url=self.url, timeout=30)

    def book(self) -> dict[str, Any]:
        book: dict[str, Any] = self.http.get("/_book").json()
        return book

    def messages(self, channel: str) -> list[dict[str, Any]]:
        lines: list[dict[str, Any]] = []
        while True:
            text = self.http.get("/_book/messages", params={"channel": channel, "offset": len(lines)}).text
            page = [json.loads(line) for line in text.splitlines()]
            if not page:
                return lines
            lines += page

    def stop(self) -> None:
        self.http.close()
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(END_S)
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture
def providers() -> Iterator[Callable[..., Providers]]:
    """Starts simulated providers with the given options; stops them after the test."""
    started: list[Providers] = []

    def start(*options: str) -> Providers:
        started.append(Providers(*options))
        return started[-1]

    yield start
    for one in started:
        one.stop()


class Site:
    """A folder with a configuration, and the command line run in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.secret = folder / "secret"
        self.secret.write_text(PROVIDER_SECRET)
        self.secret.chmod(0o600)

    def configure(
        self, url: str, *, extra: str = "", sms: bool = True, retry_base: float = 0.05, retry_budget: int = 10
    ) -> None:
        text = (
            f'[channels.wechat]\nbase_url = "{url}"\nappid = "wxsimulated000000"\nsecret_file = "secret"\n'
            f"rate_per_second = 50000\nconnections = 32\n[retry]\nbase_seconds = {retry_base}\ncap_seconds = 2\n"
            f"budget_per_second = {retry_budget}\n"
        )
        if sms:
            text += f'[channels.sms]\nbase_url = "{url}/sms"\nsecret_file = "secret"\nrate_per_second = 5000\n'
        (self.folder / "swipebell.toml").write_text(text + extra)

    def start(self, *arguments: str, **options: Any) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "dispatcher", *arguments]
        return subprocess.Popen(
            command,
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "NO_COLOR": "1"},
            **options,
        )

    def run(self, *arguments: str, status: int = 0, **options: Any) -> tuple[str, str]:
        """Run a command to its end; returns (stdout, stderr)."""
        with self.start(*arguments, **options) as process:
            out, err = process.communicate(timeout=COMMAND_S)
        assert process.returncode == status, f"{arguments} ended with {process.returncode}:\n{out}\n{err}"
        assert "Traceback" not in err, err
        return out, err

    def send(self, file: str | Path, *options: str, status: int = 0) -> dict[str, Any]:
        out, _ = self.run("send", str(file), "--restamp", "--json", *options, status=status)
        summary: dict[str, Any] = json.loads(out)
        return summary

    def recipients_for(self, events: Path) -> None:
        self.run("recipients", "synth", "--from", str(events), "recipients.ndjson")
        self.run("recipients", "import", "recipients.ndjson")


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


@pytest.fixture
def free_port() -> Iterator[Callable[[], int]]:
    """Gives ports that nobody else is given before the test's end; the programs may listen there."""
    with ExitStack() as held:
        yield partial(find_port, held)
