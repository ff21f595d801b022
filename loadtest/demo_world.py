"""What the demonstration stands on: its folder, its configuration, its cardholders and the simulated providers."""

from __future__ import annotations

import fcntl
import hashlib
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import BinaryIO, Final

import msgspec
import trio

from dispatcher.errors import ConfigurationError, SwipebellError
from dispatcher.model.recipient import RecipientLine
from dispatcher.synth import synthesize
from loadtest.providers.settings import DEFAULT_APPID, DEFAULT_SECRET

FAULTS: Final = (
    "busy=0.01,bad_gateway=0.003,reset=0.004,slow=0.004,slow_seconds=0.3"  # each a share of the requests
    ",unsubscribed=0.02,refused=0.01"  # of the users
)
"""No quota fault: it lasts until midnight, and the demonstration has to end."""

LATENCY_S: Final = 0.004
SMS_SIGN: Final = "示例银行"

MARK: Final = "# Written by `swipebell demo`, and written anew by the next one in this folder."
"""First line of our configuration: without it a folder belongs to somebody, and nothing in it is touched."""

START_S: Final = 30.0
STOP_S: Final = 5.0
"""How long the providers may take to start (an interpreter and its imports on a busy machine) and to stop."""
FIRST_LINE_BYTES: Final = 1024
SHOWN_LOG_BYTES: Final = 4096

SHARE_UNKNOWN: Final = 0.03
SHARE_SMS_ONLY: Final = 0.05
SHARE_TWO_CARDS: Final = 0.08
"""Of the accounts: nobody to tell; a recipient without WeChat; a second cardholder. All others have one recipient who
is reached by WeChat first and by SMS."""

_CONFIG: Final = """\
{mark}
# Simulated providers listened at {url} while it ran.

[ledger]
url = "sqlite:///ledger.db"

[rules]
file = "rules.toml"

[channels.wechat]
appid = "{appid}"
secret_file = "secret"
base_url = "{url}"
rate_per_second = 50000
connections = 64

[channels.sms]
base_url = "{url}/sms"
secret_file = "secret"
sign = "{sign}"
rate_per_second = 5000
connections = 16

[engine]
# Small lanes: as fast as the file is read, what waits in them is the latency.
batch_events = 128
lane_capacity = 512
in_flight = 256

[retry]
# Short, so that the demonstration ends quickly; the default begins at half a second.
base_seconds = 0.15
cap_seconds = 2.0

[log]
level = "error"
"""

_RULES: Final = """\
# The rules of the demonstration: the shipped ones, but a swipe of yesterday is not yet too old to be told.

version = 1

[[rule]]
id = "sms-from-100"
effect = "min_amount"
channel = "sms"
amounts = { CNY = 10000 }

[[rule]]
id = "swipe-expiry"
effect = "expire_after"
category = "swipe"
hours = 72
"""


class World:
    """The folder of a demonstration; made by ``open_world``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = folder / "swipebell.toml"
        self.events = folder / "events.ndjson"
        self.ledger = folder / "ledger.db"
        self.log = folder / "providers.log"

    def prepare(self, url: str) -> Path:
        """Write the configuration for providers at ``url``; returns its path."""
        with _told_as_ours(self.folder):
            _write_private(self.folder / "secret", DEFAULT_SECRET.reveal())
            _write_private(self.folder / "rules.toml", _RULES)
            _write_private(self.config, _CONFIG.format(mark=MARK, url=url, appid=DEFAULT_APPID, sign=SMS_SIGN))
        return self.config

    def write_events(self, lines: Iterator[bytes]) -> None:
        """Write the day's lines to ``events``. Blocks."""
        # Some of the lines hold (invented) full card numbers, as a careless core system's would.
        with _told_as_ours(self.folder), _private(self.events) as file:
            file.writelines(lines)


@contextmanager
def open_world(folder: Path) -> Iterator[World]:
    """Take a folder for one demonstration and remove what an earlier one has left of its ledger.

    Raises ``ConfigurationError`` when it holds a configuration or a ledger that no demonstration wrote (nothing is
    touched then), when another demonstration runs in it, and when it cannot be written.
    """
    world = World(folder)
    with _told_as_ours(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ConfigurationError(f"--dir {folder}: another demonstration runs there; name another folder") from None
        if (world.config.exists() or world.ledger.exists()) and not _is_ours(world.config):
            raise ConfigurationError(
                f"--dir {folder}: holds a configuration or a ledger that `swipebell demo` did not write, and the"
                " demonstration would overwrite it; name another folder"
            )
        with _told_as_ours(folder):
            # First the mark, so that an interrupted run leaves a folder that the next one knows for its own.
            _write_private(world.config, MARK + "\n")
            for suffix in ("", "-wal", "-shm", ".owners"):
                world.ledger.with_name(world.ledger.name + suffix).unlink(missing_ok=True)
        yield world
    finally:
        os.close(lock)


def _is_ours(config: Path) -> bool:
    try:
        with config.open("rb") as file:
            return file.read(len(MARK.encode())) == MARK.encode()
    except OSError:
        return False


@contextmanager
def _told_as_ours(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ConfigurationError(f"--dir {folder}: {error.strerror}; name a folder that can be written") from None


def _private(path: Path) -> BinaryIO:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    os.fchmod(descriptor, 0o600)  # it may have been there before, with other rights
    return os.fdopen(descriptor, "wb")


def _write_private(path: Path, text: str) -> None:
    with _private(path) as file:
        file.write(text.encode())


def invent_recipients(accounts: Sequence[str], seed: int) -> list[RecipientLine]:
    """Who is told about the swipes of these accounts; the same for the same seed."""
    lines = []
    for account in accounts:
        digest = hashlib.blake2b(f"{seed}/mix/{account}".encode(), digest_size=8).digest()
        draw = int.from_bytes(digest, "big") / 2**64
        if draw < SHARE_UNKNOWN:
            continue
        line = synthesize(account, seed)
        if draw < SHARE_UNKNOWN + SHARE_SMS_ONLY:
            line = msgspec.structs.replace(line, openid=None, channels=("sms",))
        lines.append(line)
        if draw >= 1.0 - SHARE_TWO_CARDS:
            other = synthesize(f"{account}/supplementary", seed)
            lines.append(msgspec.structs.replace(other, account=account, role="supplementary"))
    return lines


@asynccontextmanager
async def running_providers(world: World, seed: int) -> AsyncIterator[str]:
    """The simulated providers as a process of their own; gives their URL.

    They are stopped on leaving, whatever happens. Raises ``SwipebellError`` with their last words when they do not
    start, and when they end by themselves (the body is cancelled then: it would only try again and again).
    """
    command = [sys.executable, "-P", "-m", "loadtest.providers", "--listen", "127.0.0.1:0"]
    command += ["--faults", FAULTS, "--latency", str(LATENCY_S), "--seed", str(seed)]
    with _told_as_ours(world.folder):
        log = _private(world.log)
    with log:
        # In a process group of their own: Ctrl-C is for us, and they are stopped once the engine is.
        process = await trio.lowlevel.open_process(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, process_group=0
        )

    async def watch() -> None:
        await process.wait()
        raise SwipebellError(f"the simulated providers ended: {_last_words(world.log)}")

    try:
        url = await _address(process)
        if url is None:
            raise SwipebellError(f"the simulated providers did not start: {_last_words(world.log)}")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch)
            yield url
            nursery.cancel_scope.cancel()
    finally:
        with trio.CancelScope(shield=True):
            process.terminate()
            with trio.move_on_after(STOP_S):
                await process.wait()
            process.kill()
            await process.wait()
            if process.stdout is not None:
                await process.stdout.aclose()


async def _address(process: trio.Process) -> str | None:
    assert process.stdout is not None
    said = b""
    with trio.move_on_after(START_S):
        while b"\n" not in said and len(said) < FIRST_LINE_BYTES:
            more = await process.stdout.receive_some(FIRST_LINE_BYTES)
            if not more:
                break
            said += more
    first, newline, _ = said.decode(errors="replace").partition("\n")
    before, _, url = first.partition("listening on ")
    return url if newline and not before and url else None


def _last_words(log: Path) -> str:
    try:
        said = log.read_text(errors="replace")[-SHOWN_LOG_BYTES:].strip()
    except OSError:
        said = ""
    return said.rpartition("\n")[2] or "they said nothing"
