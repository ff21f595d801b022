"""The engine that a load test brings along: simulated providers and ``swipebell run`` as processes in one folder."""

from __future__ import annotations

import math
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from itertools import islice
from pathlib import Path
from random import Random
from typing import Final

import httpx
import msgspec
import trio

from dispatcher.errors import SwipebellError
from dispatcher.ledger.worker import ThreadedLedger
from dispatcher.model.recipient import RecipientLine
from dispatcher.synth import synthesize
from loadtest import children
from loadtest.folder import CONFIG_NAME, LEDGER_NAME, claimed_folder, private_file, told_as_ours, write_private
from loadtest.load.machine import ProcessTree
from loadtest.providers.faults import Faults
from loadtest.providers.mixes import fault_options
from loadtest.providers.settings import DEFAULT_APPID, DEFAULT_SECRET

MARK: Final = "# Written by `swipebell loadtest`, and written anew by the next one in this folder."

IMPORT_BATCH: Final = 4096
"""Recipients of one commit: 60 ms of the ledger's time."""

START_S: Final = 60.0
"""How long the engine may take to answer after its start: interpreters, imports, the first token."""
STOP_S: Final = 45.0
"""How long it may drain after SIGTERM (``drain_seconds`` is 30), then it is killed."""
LOOK_S: Final = 0.05

MIN_CONNECTIONS: Final = 64
MAX_CONNECTIONS: Final = 1024
HELD_S: Final = 0.03
"""What an alert holds a connection for besides the provider's latency, at a guess: with twice as many connections as
that needs, the number of connections is not what is measured."""

_CONFIG: Final = """\
{mark}
# Simulated providers listened at {url} while it ran.

[ledger]
url = "sqlite:///{ledger}"

[intake.http]
listen = "127.0.0.1:{http}"

[intake.stream]
listen = "127.0.0.1:{stream}"

[metrics]
listen = "127.0.0.1:{metrics}"

[channels.wechat]
appid = "{appid}"
secret_file = "secret"
base_url = "{url}"
rate_per_second = {rate}
daily_quota = 1000000000
connections = {connections}

[channels.sms]
base_url = "{url}/sms"
secret_file = "secret"
sign = "示例银行"
rate_per_second = {rate}
connections = {sms_connections}

[log]
level = "warning"
"""

RECEIPTS_DEADLINE_S: Final = 5
_RECEIPTS: Final = f"""
[receipts]
listen = "127.0.0.1:{{port}}"
deadline_seconds = {RECEIPTS_DEADLINE_S}
"""
"""Twice what the providers' reports take here (0.1 to 2 s): a load test has no minutes to wait for a lost one."""
RECEIPTS_DELAY: Final = ("0.1", "2")


class Site(msgspec.Struct, frozen=True, kw_only=True):
    """What to bring along. ``peak`` is the highest rate of arrivals a second, ``latency_s`` the provider's,
    ``provider_rate`` what the engine is told the provider takes a second."""

    folder: Path
    processes: int
    peak: float
    latency_s: float
    provider_rate: int
    faults: Faults
    seed: int
    receipts_port: int | None = None
    """Where the engine listens for delivery reports; None: it does not wait for any."""

    @property
    def config(self) -> Path:
        """Its configuration."""
        return self.folder / CONFIG_NAME

    @property
    def ledger(self) -> Path:
        """Its ledger."""
        return self.folder / LEDGER_NAME

    @property
    def connections(self) -> int:
        """Connections to the provider, of each process."""
        wanted = math.ceil(2 * self.peak * (self.latency_s + HELD_S))
        return min(max(wanted, MIN_CONNECTIONS), MAX_CONNECTIONS)


@contextmanager
def claimed_site(folder: Path) -> Iterator[None]:
    """Take the folder; see `claimed_folder`."""
    with claimed_folder(folder, mark=MARK, command="swipebell loadtest", run="load test"):
        yield


@asynccontextmanager
async def running_providers(site: Site) -> AsyncIterator[str]:
    """The simulated providers; gives their URL."""
    log_path = site.folder / "providers.log"
    with told_as_ours(site.folder):
        log = private_file(log_path)
    options = ["--latency", f"{site.latency_s:g}", "--faults", fault_options(site.faults), "--seed", str(site.seed)]
    if site.receipts_port is not None:
        at = f"http://127.0.0.1:{site.receipts_port}"
        options += ["--receipts-url", f"{at}/wechat", "--sms-receipts-url", f"{at}/sms"]
        options += ["--receipts-delay", *RECEIPTS_DELAY]
    with log:
        async with children.running_providers(log, log_path, options) as url:
            yield url


async def import_accounts(site: Site, accounts: Iterable[str], progress: Callable[[int], None]) -> int:
    """Invent a recipient for each account and put them into the ledger; returns how many.

    ``progress`` is told the number so far. Cancelled between two batches, it leaves the ones before.
    """
    ledger = ThreadedLedger(str(site.ledger))
    count = 0
    names = iter(accounts)
    try:
        while True:
            batch = await trio.to_thread.run_sync(_recipients, names, site.seed)
            if not batch:
                return count
            await ledger.import_recipients(batch)
            count += len(batch)
            progress(count)
    finally:
        with trio.CancelScope(shield=True):
            await ledger.aclose()


def _recipients(names: Iterator[str], seed: int) -> list[RecipientLine]:
    return [synthesize(name, seed) for name in islice(names, IMPORT_BATCH)]


def free_port(held: ExitStack) -> int:
    """A port of the loopback interface that nobody else is given until ``held`` is closed. Until then ours may listen
    there: that takes SO_REUSEADDR, which trio and the supervisor set."""
    holder = held.enter_context(socket.socket())
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    holder.bind(("127.0.0.1", 0))
    port: int = holder.getsockname()[1]
    if sys.platform != "linux":
        # Elsewhere nobody can listen where another socket is bound: such a port was merely free a moment ago.
        holder.close()
    return port


class Engine:
    """``swipebell run`` as a process; made by `running_engine`. ``died`` is set when it ended without being asked. Its
    ports stay its own, even while it is restarted, until ``held`` is closed."""

    def __init__(self, site: Site, providers_url: str, held: ExitStack) -> None:
        self.site = site
        self.http_port, self.stream_port, self.metrics_port = (free_port(held) for _ in range(3))
        self.died = trio.Event()
        self.kills = 0
        self.tree: ProcessTree | None = None
        self._url = providers_url
        self._log_path = site.folder / "engine.log"
        self._process: trio.Process | None = None
        self._restarting = False

    @property
    def metrics_url(self) -> str:
        """Where its metrics answer."""
        return f"http://127.0.0.1:{self.metrics_port}/metrics"

    def write_config(self) -> None:
        """Write its configuration into the folder."""
        site = self.site
        text = _CONFIG.format(
            mark=MARK,
            url=self._url,
            ledger=LEDGER_NAME,
            http=self.http_port,
            stream=self.stream_port,
            metrics=self.metrics_port,
            appid=DEFAULT_APPID,
            rate=site.provider_rate,
            connections=site.connections,
            sms_connections=min(site.connections, MIN_CONNECTIONS),
        )
        if site.receipts_port is not None:
            text += _RECEIPTS.format(port=site.receipts_port)
        with told_as_ours(site.folder):
            write_private(site.folder / "secret", DEFAULT_SECRET.reveal())
            write_private(site.config, text)

    async def start(self) -> None:
        """Start it and wait until it answers. Raises ``SwipebellError`` with its last words."""
        options = ["run", "--config", str(self.site.config)]
        if self.site.processes > 1:
            options += ["--processes", str(self.site.processes)]
        with told_as_ours(self.site.folder):
            log = os.open(self._log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        with os.fdopen(log, "ab") as file:
            self._process = await children.start_child("dispatcher", options, file)
        self.tree = ProcessTree(self._process.pid)
        async with httpx.AsyncClient(timeout=START_S, trust_env=False) as client:
            with trio.move_on_after(START_S):
                while self._process.poll() is None:
                    if await self._answers(client):
                        return
                    await trio.sleep(LOOK_S)
        raise SwipebellError(f"the engine did not start: {children.last_words(self._log_path)}")

    async def _answers(self, client: httpx.AsyncClient) -> bool:
        try:
            stream = await trio.open_tcp_stream("127.0.0.1", self.stream_port)
            await stream.aclose()
            health = await client.get(f"http://127.0.0.1:{self.metrics_port}/healthz")
        except (OSError, httpx.HTTPError):
            return False
        return health.status_code == httpx.codes.OK

    async def watch(self) -> None:
        """Set ``died`` when it ends by itself. Until cancelled, or then."""
        while True:
            process = self._process
            assert process is not None
            await process.wait()
            if not self._restarting and process is self._process:
                self.died.set()
                return
            await trio.sleep(LOOK_S)

    def last_words(self) -> str:
        """How it ended, and the last line that it said."""
        status = None if self._process is None else self._process.poll()
        how = f"killed by {signal.Signals(-status).name}" if status is not None and status < 0 else f"status {status}"
        return f"{how}: {children.last_words(self._log_path)}"

    async def kill_every(self, seconds: float, random: Random, over: Callable[[], bool]) -> None:
        """SIGKILL one of its working processes every so often until it is ``over``. One that nobody restarts, we do."""
        while True:
            await trio.sleep(seconds)
            if over():
                return
            process, tree = self._process, self.tree
            if process is None or tree is None or process.poll() is not None:
                continue
            victim = random.choice(tree.workers())
            self._restarting = victim == process.pid
            self.kills += 1
            os.kill(victim, signal.SIGKILL)
            if self._restarting:
                await process.wait()
                await self.start()
                self._restarting = False

    async def stop(self) -> None:
        """SIGTERM, its drain, and whatever is left of its processes is killed. Not stopped by a cancellation."""
        if self._process is None:
            return
        workers = [] if self.tree is None else self.tree.workers()
        await children.end_child(self._process, STOP_S)
        for pid in workers:
            # A supervisor that had to be killed leaves its processes behind: they are in its group.
            if pid != self._process.pid:
                _kill_in_group(pid, self._process.pid)


def _kill_in_group(pid: int, group: int) -> None:
    try:
        if os.getpgid(pid) == group:
            os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


@asynccontextmanager
async def running_engine(engine: Engine) -> AsyncIterator[None]:
    """Start the engine, watch it, and end it on leaving, whatever happens."""
    engine.write_config()
    try:
        await engine.start()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(engine.watch)
            yield
            nursery.cancel_scope.cancel()
    finally:
        await engine.stop()
