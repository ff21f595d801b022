"""A folder in which an engine is measured: its configuration, its ledger, and what it is fed with."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any, Final

import msgspec

from loadtest.bench.figures import Failed
from loadtest.bench.programs import Finished, Program, free_port, wait_for_port
from loadtest.bench.sinks import Sink
from loadtest.fill import fill
from loadtest.providers.settings import DEFAULT_APPID, DEFAULT_SECRET

CONNECTIONS: Final = 64
START_S: Final = 60.0
"""An engine's start on a busy machine: interpreters, imports, the first token."""
SEND_S: Final = 600.0
"""Far longer than any `send` of the bench takes."""
RECEIPTS_TOKEN: Final = "simulated-token"  # noqa: S105 - what our own sink signs with
LEDGER_FILES: Final = ("ledger.db", "ledger.db-wal", "ledger.db-shm", "ledger.db.owners")

_CONFIG: Final = """\
[intake.http]
listen = "127.0.0.1:{http}"
[intake.stream]
listen = "127.0.0.1:{stream}"
[metrics]
listen = "127.0.0.1:{metrics}"
[channels.wechat]
base_url = "{url}"
appid = "{appid}"
secret_file = "secret"
rate_per_second = 100000
daily_quota = 1000000000
connections = {connections}
{ca_file}
[log]
level = "warning"
"""


class Site:
    """One such folder, with free ports for all listeners. ``receipts_url`` is where WeChat would post receipts."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ledger = folder / "ledger.db"
        self.http_port, self.stream_port, self.metrics_port, self._receipts_port = (free_port() for _ in range(4))
        self.receipts_url = f"http://127.0.0.1:{self._receipts_port}/wechat"
        folder.mkdir(parents=True, exist_ok=True)

    def configure(self, sink: Sink, *, receipts: bool = False, more: str = "") -> None:
        """Write the configuration; ``more`` is added to it."""
        self._write_secret("secret", DEFAULT_SECRET.reveal())
        text = _CONFIG.format(
            http=self.http_port,
            stream=self.stream_port,
            metrics=self.metrics_port,
            url=sink.url,
            appid=DEFAULT_APPID,
            connections=CONNECTIONS,
            ca_file="" if sink.ca_file is None else f'ca_file = "{sink.ca_file}"',
        )
        if receipts:
            self._write_secret("token", RECEIPTS_TOKEN)
            text += f'[receipts]\nlisten = "127.0.0.1:{self._receipts_port}"\ntoken_file = "token"\n'
        (self.folder / "swipebell.toml").write_text(text + more)

    def _write_secret(self, name: str, text: str) -> None:
        path = self.folder / name
        path.write_text(text)
        path.chmod(0o600)

    def take_ledger(self, template: Path) -> None:
        """Begin with a copy of a ledger that nobody has open."""
        self.drop_ledger()
        shutil.copyfile(template, self.ledger)
        self.ledger.chmod(0o600)

    def drop_ledger(self) -> None:
        """Begin without one."""
        for name in LEDGER_FILES:
            (self.folder / name).unlink(missing_ok=True)

    def send(self, events: Path, processes: int) -> tuple[dict[str, Any], Finished]:
        """`swipebell send` of a file; its summary and what it cost.

        Raises `Failed` unless every event that it read was delivered and the books balance.
        """
        options = ("send", str(events), "--restamp", "--json", "--processes", str(processes))
        with Program("dispatcher", *options, folder=self.folder) as program:
            finished = program.finish(SEND_S)
            if finished.status:
                raise Failed(f"send ended with status {finished.status}: {program.last_words()}")
        summary: dict[str, Any] = msgspec.json.decode(finished.output)
        read, delivered = summary["events"]["read"], summary["alerts"]["delivered"]
        if not summary["balanced"] or delivered != read:
            raise Failed(f"of {read:,} events {delivered:,} were delivered, balanced: {summary['balanced']}")
        return summary, finished

    def run(self, processes: int) -> Program:
        """`swipebell run`, to be entered; then `wait_until_ready`."""
        return Program("dispatcher", "run", "--processes", str(processes), folder=self.folder)

    def wait_until_ready(self, engine: Program) -> None:
        """Until it listens everywhere. Raises `Failed`."""
        for port in (self.metrics_port, self.http_port, self.stream_port):
            wait_for_port(port, engine, START_S)


class Ledgers:
    """Ledgers to begin with, each made once: recipients of so many accounts, perhaps with past alerts."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def empty(self, accounts: int) -> Path:
        """Recipients and nothing else."""
        return self.filled(accounts, 0)

    def filled(self, accounts: int, alerts: int) -> Path:
        """With past alerts as well; ten million of them take minutes."""
        path = self._folder / f"{accounts}-{alerts}.db"
        if not path.exists():
            self._folder.mkdir(parents=True, exist_ok=True)
            fill(path, recipients=accounts, alerts=alerts, now_ms=time.time_ns() // 1_000_000, progress=_silent)
            path.with_name(path.name + ".owners").unlink(missing_ok=True)
        return path


def _silent(_what: str, _done: int, _all: int) -> None:
    pass
