"""``swipebell demo``: simulated providers, the engine and a generated day of swipes in one command."""

from __future__ import annotations

import io
import shlex
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO, Final, cast
from zoneinfo import ZoneInfo

import click
import httpx
import msgspec
import trio
from rich.console import Console

from dispatcher.cli.common import load, print_json, print_summary, run_trio
from dispatcher.config import Config
from dispatcher.errors import ConfigurationError, Interrupted
from dispatcher.events import Rejected
from dispatcher.intake.feed import feed
from dispatcher.ledger.api import Ledger
from dispatcher.model.recipient import RecipientLine
from dispatcher.service import service
from dispatcher.summary import Summary, summarize
from loadtest.demo_picks import Picks, ProvidersBook, pick, read_book
from loadtest.demo_screen import Screen, show_samples
from loadtest.demo_world import FAULTS, World, invent_recipients, open_world, running_providers
from loadtest.providers.errors import SettingsTextError
from loadtest.providers.mixes import MIXES, about_receipts, fault_options, parse_mix
from loadtest.traffic import Day, Made, accounts_of, generate

ZONE: Final = "Asia/Shanghai"

MAX_EVENTS: Final = 2_000_000
"""Messages of which the simulated providers keep a record; the file of events is then 600 MB."""
MAX_ACCOUNTS: Final = 1_000_000
"""They are held in memory here, with their recipients: about 1 GB for so many."""

IMPORT_BATCH: Final = 1_000
SHOWN_REJECTIONS: Final = 5
LINES_AT_ONCE: Final = 2_000
"""Most lines of one read of a paced feed: a longer pause must not be caught up at full speed."""
PACE_TICK_S: Final = 0.05
MIN_SLEEP_S: Final = 0.001
"""A paced read sleeps so long at most and at least: to end soon after Ctrl-C, and not to spin on rounding."""
BOOK_TIMEOUT_S: Final = 30.0


class Result(msgspec.Struct):
    """What a demonstration came to."""

    summary: Summary
    made: Made
    book: ProvidersBook
    picks: Picks
    rejected: list[Rejected]


@click.command()
@click.option(
    "--events", type=click.IntRange(1, MAX_EVENTS), default=20_000, show_default=True, help="Lines of the day."
)
@click.option("--accounts", type=click.IntRange(1, MAX_ACCOUNTS), default=2_000, show_default=True, help="Cardholders.")
@click.option(
    "--dir",
    "folder",
    type=click.Path(path_type=Path),
    help="Keep configuration, events and ledger in this folder; each run begins a new ledger.  [default: keep none]",
)
@click.option("--seed", type=int, default=1, show_default=True, help="The same seed gives the same day.")
@click.option("--rate", type=click.FloatRange(1, 1_000_000), help="Events a second.  [default: as fast as it goes]")
@click.option("--faults", metavar="MIX", help=f"{', '.join(MIXES)}; or NAME=P,…  [default: a little of each]")
# For tests: which lines are broken, and whom the faults meet, hangs on the date.
@click.option("--date", type=click.DateTime(["%Y-%m-%d"]), hidden=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout and nothing else.")
def demo(
    events: int,
    accounts: int,
    folder: Path | None,
    seed: int,
    rate: float | None,
    faults: str | None,
    date: datetime | None,
    as_json: bool,
) -> None:
    """Show it all: a generated day of card swipes becomes alerts at simulated providers, and the books balance.

    The providers run as a process of their own and misbehave a little: they are busy, drop connections after they
    have accepted a message, answer slowly, and know users who have unsubscribed. Ends with status 0 when every line
    and every alert is accounted for, and the providers' own record agrees.
    """
    weather = FAULTS if faults is None else _weather(faults)
    yesterday = datetime.now(ZoneInfo(ZONE)) - timedelta(days=1)
    day = Day(accounts=accounts, events=events, seed=seed, date=(date or yesterday).date(), zone=ZONE)
    with ExitStack() as stack:
        where = folder or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="swipebell-demo-")))
        world = stack.enter_context(open_world(where))
        try:
            result: Result = run_trio(_perform, world, day, rate, weather, load)
        except Interrupted:
            kept = f"what it had accepted is in {world.ledger}" if folder else "nothing of it was kept"
            raise Interrupted(f"the demonstration was stopped; {kept}") from None
    agrees, words = compare(result.summary, result.book)
    complete, accounted = account_for(result.summary, result.made)
    if as_json:
        print_json(_as_data(result, day, complete=complete, agrees=agrees))
    else:
        console = _console()
        print_summary(result.summary, console)
        for good, text in ((complete, accounted), (agrees, words)):
            console.print(text, style="green" if good else "bold red", highlight=False)
        _print_more(result, console, world if folder else None)
    if not (result.summary.balanced and agrees and complete):
        sys.exit(1)


def _weather(text: str) -> str:
    """The faults of a mix, as the providers take them."""
    try:
        faults = parse_mix(text)
    except SettingsTextError as error:
        raise ConfigurationError(f"--faults: {error}") from None
    if about_receipts(faults):
        raise ConfigurationError(
            f"--faults {text}: is about delivery reports, and a demonstration waits for none; use `swipebell loadtest`"
        )
    return fault_options(faults)


async def _perform(world: World, day: Day, rate: float | None, weather: str, load: Callable[[Path], Config]) -> Result:
    made, rejected = Made(), list[Rejected]()
    screen = Screen(made)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(screen.show)
        nursery.start_soon(_stop_on_hangup)
        screen.stage = f"inventing {day.events:,} swipes"
        lines = generate(day, made)
        await trio.to_thread.run_sync(world.write_events, lines, abandon_on_cancel=True)
        screen.stage = "starting the simulated providers"
        async with running_providers(world, day.seed, weather) as url:
            config = load(world.prepare(url))
            async with service(config, fail_fast=True) as running:
                screen.stage = "inventing their cardholders"
                recipients = invent_recipients(accounts_of(day), day.seed)
                await _import(running.ledger, recipients)
                screen.watch(running.meter)
                started = trio.current_time()
                with world.events.open("rb") as file:
                    stream = file if rate is None else cast("BinaryIO", PacedLines(file, rate))
                    await feed(running.engine, stream, restamped=False, on_rejected=_keep_first(rejected))
                await running.engine.idle()
                seconds = trio.current_time() - started
                summary = summarize(running.meter, await running.ledger.books(), seconds)
                async with httpx.AsyncClient(base_url=url, timeout=BOOK_TIMEOUT_S, trust_env=False) as client:
                    book = await read_book(client)
                    picks = await pick(client, running.ledger, world.events, recipients)
        nursery.cancel_scope.cancel()
    return Result(summary, made, book, picks, rejected)


async def _import(ledger: Ledger, recipients: list[RecipientLine]) -> None:
    for start in range(0, len(recipients), IMPORT_BATCH):
        await ledger.import_recipients(recipients[start : start + IMPORT_BATCH])


async def _stop_on_hangup() -> None:
    """A closed terminal must not leave the providers behind: they are in a process group of their own."""
    with trio.open_signal_receiver(signal.SIGHUP) as signals:
        async for _ in signals:
            signal.raise_signal(signal.SIGTERM)


def _keep_first(kept: list[Rejected]) -> Callable[[Rejected], None]:
    def keep(rejected: Rejected) -> None:
        if len(kept) < SHOWN_REJECTIONS:
            kept.append(rejected)

    return keep


class PacedLines(io.RawIOBase):
    """A stream of lines that gives so many a second and no more. Made for a thread: ``read1`` sleeps."""

    def __init__(
        self,
        lines: BinaryIO,
        per_second: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        super().__init__()
        self._lines = lines
        self._per_second = per_second
        self._clock = clock
        self._sleep = sleep
        self._due = 0.0
        self._at = clock()

    def read1(self, _size: int = -1) -> bytes:
        """The lines whose time has come, at least one; empty at the end."""
        while True:
            now = self._clock()
            self._due = min(self._due + (now - self._at) * self._per_second, float(LINES_AT_ONCE))
            self._at = now
            if self._due >= 1:
                break
            self._sleep(min(PACE_TICK_S, max(MIN_SLEEP_S, (1 - self._due) / self._per_second)))
        lines = [self._lines.readline() for _ in range(int(self._due))]
        self._due -= len(lines)
        return b"".join(lines)


def compare(summary: Summary, book: ProvidersBook) -> tuple[bool, str]:
    """Whether the providers delivered to cardholders exactly what the ledger calls delivered, and that in words.

    A text message whose answer was lost is left alone and ends as ``unknown-outcome``; the gateway may have
    delivered it. WeChat is asked again until it is known.
    """
    ours = {name: summary.by_channel.get(name, {}).get("delivered", 0) for name in ("wechat", "sms")}
    left_alone = summary.failed_by.get("unknown-outcome", 0)
    arrived = book.sms.delivered - ours["sms"]
    total = book.wechat.delivered + book.sms.delivered
    if book.wechat.delivered != ours["wechat"] or not 0 <= arrived <= left_alone:
        return False, (
            f"the providers' own book does NOT agree: they delivered {book.wechat.delivered:,} by WeChat and"
            f" {book.sms.delivered:,} by SMS; the ledger says {ours['wechat']:,} and {ours['sms']:,},"
            f" and {left_alone:,} SMS of unknown outcome"
        )
    words = f"the providers' own book agrees: {total:,} messages"
    if book.wechat.deduplicated:
        words += f"; {book.wechat.deduplicated:,} resent after a lost answer, each recognised by its client_msg_id"
    if left_alone:
        words += f"; {left_alone:,} SMS left as unknown, {arrived:,} of them arrived"
    return True, words


def account_for(summary: Summary, made: Made) -> tuple[bool, str]:
    """Whether each generated line met the end that it was made for, and that in words."""
    events = summary.events
    found = (events["read"], events["accepted"], events["duplicate"], events["rejected"])
    if found == (made.lines, made.good, made.duplicate, made.broken):
        return True, f"every line met its end: {made.good:,} good, {made.duplicate:,} repeated, {made.broken:,} broken"
    return False, (
        f"NOT every line met its end: of {made.lines:,} lines {made.good:,} were good, {made.duplicate:,} repeated and"
        f" {made.broken:,} broken; {found[1]:,} were accepted, {found[2]:,} called duplicate, {found[3]:,} rejected"
    )


def _as_data(result: Result, day: Day, *, complete: bool, agrees: bool) -> dict[str, Any]:
    made = msgspec.to_builtins(result.made)
    del made["by_minute"]
    return {
        **msgspec.to_builtins(result.summary),
        "generated": {**msgspec.to_builtins(day), "lines": result.made.lines, **made, "accounted_for": complete},
        "providers": {**msgspec.to_builtins(result.book), "agree": agrees},
    }


def _console() -> Console:
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A terminal without Unicode shows question marks rather than a traceback.
        sys.stdout.reconfigure(errors="replace")
    return Console()


def _print_more(result: Result, console: Console, world: World | None) -> None:
    if result.rejected:
        console.print()
        console.print("Refused at the door, for example", style="bold")
        for one in sorted(result.rejected, key=lambda each: each.line):
            console.print(f"  line {one.line:,}: {one.error}", highlight=False, markup=False, soft_wrap=True)
    if result.picks.samples:
        console.print()
        console.print("As the cardholder reads them", style="bold")
        show_samples(result.picks.samples, console)
    console.print()
    if world is None:
        console.print("Nothing was kept; with --dir DIR the ledger stays, for swipebell explain.", style="dim")
        return
    console.print(f"The ledger is {world.ledger}. What happened to one alert:", highlight=False, soft_wrap=True)
    for event_id, why in ((result.picks.fell_back, "fell back to SMS"), (result.picks.asked_again, "answer was lost")):
        if event_id is not None:
            words = shlex.join([_own_name(), "explain", event_id, "--config", str(world.config)])
            # Not wrapped, so that it can be copied as one line.
            console.print(f"  # {why}", style="dim", highlight=False)
            console.print(f"  {words}", highlight=False, markup=False, soft_wrap=True)


def _own_name() -> str:
    """What to type for this program: its name where the shell finds it, otherwise the path it was started by."""
    started = Path(sys.argv[0])
    found = shutil.which(started.name)
    if started.name != "swipebell" or (found and Path(found).resolve() == started.resolve()):
        return "swipebell"
    return str(started)
