"""One runner for the answer tables of all channels.

`run_table` takes a `Case`: a channel, its section of the configuration, its table and how its provider says a code. It
puts every code of the table through a real engine, a real ledger on disk and the real network to a real server on the
loopback interface, one alert a code, all at once; then `check_table` looks at each alert's attempts, end and channel,
at the counters, and at everything that was logged, counted or written down, in which no address, account or secret may
stand. A code that the table does not have, and the failures that no provider documents, go the same way.

Time is virtual and stands still but for the jumps made here, always when nothing is under way: so a pause of an hour
costs some milliseconds.

A provider that does not speak HTTP brings its own ``serve`` (an async context manager that gives the base URL and asks
``Script.code_for`` what to say to each message), and its ``says`` is not used.
"""

from __future__ import annotations

import json
import re
import sqlite3
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import unquote

import pytest
import structlog
import trio
import trio.testing
from prometheus_client import generate_latest

from dispatcher.admission import Admitter
from dispatcher.channels.build import make_channels, pools_of
from dispatcher.channels.table import AnswerTable, Row
from dispatcher.config import EngineConfig
from dispatcher.config_load import load_config
from dispatcher.delivery import AnswerClass
from dispatcher.engine import Engine
from dispatcher.events import Accepted, Rejected, decode_event
from dispatcher.httpd import Answer, Request, serve_http
from dispatcher.ledger.stories import AlertStory
from dispatcher.ledger.worker import InlineLedger
from dispatcher.metrics import Meter
from dispatcher.model.heard import Heard
from dispatcher.model.recipient import Recipient, RecipientLine
from dispatcher.network.curl import CurlNetwork
from dispatcher.recorder import RECORD_GATHER_S
from ratelimit.breaker import Breaker
from ratelimit.pacing import Pacer
from ratelimit.rules import load_rules
from templates.library import Library
from tests.dispatcher.channels.next_channel import NEXT, PATIENT, NextChannel, taking_everything

NOON_MS = 1_795_320_000_000  # 2026-11-22 04:00 UTC, noon in Shanghai
SECRET = "Runner-Secret-0123456789abcdef"
JUMP_S = 30.0
PATIENCE_S = 60.0
"""Real seconds for one table; more is a defect."""

MARK = re.compile(r"139000(\d{5})")
"""Stands in the account and in every address of a recipient; its number says which code the alert is for."""

A = AnswerClass
TRIES = {
    A.ACCEPTED: 1,
    A.REFRESH_TOKEN: 2,
    A.THROTTLE: 2,
    A.RETRY: 2,
    A.CONFIGURATION: 2,
    A.RECIPIENT_GONE: 1,
    A.OPTED_OUT: 1,
    A.PERMANENT: 1,
    A.QUOTA: 1,
}
"""Attempts on the channel when the provider accepts the second one; UNKNOWN is by `Case.resends_unknown`."""
GOES_ON = frozenset({A.RECIPIENT_GONE, A.OPTED_OUT, A.PERMANENT, A.QUOTA})

TRANSPORT = {
    "http-502": A.UNKNOWN,
    "http-302": A.UNKNOWN,
    "http-401": A.CONFIGURATION,
    "http-429": A.THROTTLE,
    "http-400": A.PERMANENT,
    "unreadable": A.UNKNOWN,
    "network-": A.UNKNOWN,
}
"""What comes in place of a provider's answer, and its class: for channels over HTTP."""

REFUSED = Recipient.__struct_fields__.index("refused")
"""Where a recipient's card keeps what providers refused."""

WINDOW = Recipient.__struct_fields__.index("service_until_ms")
"""Where it keeps until when customer-service messages may come."""


@dataclass(frozen=True)
class Case:
    """One channel under test.

    ``section`` is TOML with ``{url}`` for the server and ``{secret_file}`` for the file with `SECRET`. ``says`` gives
    the provider's answer for a code; it should quote what it was sent, as providers do. ``accepted`` is the code of
    acceptance, ``unheard`` a well-formed one that the table does not have. ``other`` answers what carries no mark (a
    request for a token). ``transport`` False leaves `TRANSPORT` out.

    ``lists`` is the channel that the recipients list, where that is another one; it is then what follows a refusal.
    ``window`` True gives everybody an open window for customer-service messages: whoever is gone loses the window and
    nothing else, and after an unknown outcome the alert goes past ``lists`` to the next channel.
    """

    channel: str
    section: str
    table: AnswerTable
    says: Callable[[str, Request], Answer]
    accepted: str
    unheard: str
    resends_unknown: bool
    other: Callable[[Request], Answer] = lambda request: Answer(b"", 404)
    serve: Callable[[Script], AbstractAsyncContextManager[str]] | None = None
    transport: bool = True
    private: tuple[str, ...] = ()
    lists: str | None = None
    window: bool = False


@dataclass
class Script:
    """What to say to which alert: the code that its number stands for first, acceptance afterwards."""

    case: Case
    codes: list[str]
    seen: Counter[int] = field(default_factory=Counter)

    def code_for(self, text: str) -> str | None:
        """The code for a request in which ``text`` occurs; None when it carries no mark."""
        found = MARK.search(text)
        if found is None:
            return None
        number = int(found[1])
        self.seen[number] += 1
        return self.codes[number] if self.seen[number] == 1 else self.case.accepted

    def answer(self, request: Request) -> Answer:
        """The HTTP server's handler."""
        code = self.code_for(unquote(f"{request.path}?{request.query} ") + request.body.decode("utf-8", "replace"))
        if code is None:
            return self.case.other(request)
        if code == "unreadable":
            return Answer(b"<html>the proxy is having lunch</html>", content_type="text/html")
        if code == "network-":
            return Answer(b"", reset=True)
        if code in TRANSPORT:
            return Answer(b"<html>no</html>", status=int(code.removeprefix("http-")), content_type="text/html")
        return self.case.says(code, request)


@dataclass
class Outcome:
    """What is left when all alerts have ended."""

    case: Case
    codes: list[str]
    stories: list[AlertStory]
    refused: list[dict[str, Any]]
    open_windows: list[bool]
    meter: Meter
    logs: list[Any]
    texts: dict[str, str]


@asynccontextmanager
async def serving(script: Script) -> AsyncIterator[str]:
    """The provider over HTTP."""
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    url = f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}"
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(serve_http, script.answer, listeners, limits=PATIENT))
        yield url
        nursery.cancel_scope.cancel()


async def run_table(case: Case, folder: Path, clock: trio.testing.MockClock) -> Outcome:
    """Send every code; returns when every alert has ended. ``clock`` must stand still by itself."""
    codes = [*case.table.rows, case.unheard, *(TRANSPORT if case.transport else ())]
    script = Script(case, codes)
    with structlog.testing.capture_logs() as logs:
        async with (case.serve or serving)(script) as url, taking_everything() as next_url:
            ledger = InlineLedger(str(folder / "ledger.db"))
            meter = Meter()
            try:
                await _deliver_all(case, url, next_url, folder, clock, ledger, meter, len(codes))
                stories = [(await ledger.explain(f"e{number}")) for number in range(len(codes))]
                texts = {"stories": repr(stories), "metrics": generate_latest(meter.registry).decode()}
            finally:
                await ledger.aclose()
    with sqlite3.connect(folder / "ledger.db") as connection:
        cards = [json.loads(row[0]) for row in connection.execute("SELECT card FROM recipients ORDER BY id")]
    alerts = [story.alerts[0] for story in stories if story is not None]
    texts["attempts"] = repr([alert.attempts for alert in alerts]) + repr([alert.reason for alert in alerts])
    del texts["stories"]  # a story holds the event as it came, its account too: it is shown to whoever asks for it
    windows = [card[WINDOW] > 0 for card in cards]
    return Outcome(case, codes, alerts, [card[REFUSED] for card in cards], windows, meter, logs, texts)


async def _deliver_all(
    case: Case,
    url: str,
    next_url: str,
    folder: Path,
    clock: trio.testing.MockClock,
    ledger: InlineLedger,
    meter: Meter,
    count: int,
) -> None:
    (folder / "secret").write_text(SECRET)
    (folder / "secret").chmod(0o600)
    file = folder / "swipebell.toml"
    file.write_text(case.section.format(url=url, secret_file="secret"))
    config = load_config(file, {})
    library = Library.load()
    pools = pools_of(config)
    network = CurlNetwork(pools | {NEXT: next(iter(pools.values()))})
    ruleset = load_rules("version = 1\n", "test")

    def now_ms() -> int:
        return NOON_MS + int(trio.current_time() * 1000) % 10**10

    try:
        made = make_channels(config, library, network, {})
        channels = {**made, NEXT: NextChannel(next_url)}
        people = [_recipient(case, number) for number in range(count)]
        await ledger.import_recipients(people)
        if case.window:
            await ledger.heard([Heard(one.openid or "", "message", NOON_MS) for one in people])
        admitter = Admitter(ruleset, library, {name: channel.fenced for name, channel in channels.items()})
        engine = Engine(
            # Without a drain: its time would stand still, too, and a failed test hang.
            config=EngineConfig(lease_seconds=300.0, drain_seconds=0.0),
            ledger=ledger,
            network=network,
            channels={name: (channel, Pacer(100_000)) for name, channel in channels.items()},
            decide=admitter,
            rules=admitter.in_force,
            ruleset=(ruleset.version_id, ruleset.content),
            meter=meter,
            now_ms=now_ms,
            random=Random(1),
        )
        for lane in engine.lanes.values():
            # Every failure of a table at once looks like an outage, which has tests of its own (test_engine_outage.py).
            lane.gate.breaker = StaysClosed()
            lane.tick = lambda: None  # type: ignore[method-assign]
        async with engine.running():
            await engine.admit([_swipe(number) for number in range(count)])
            await _until_all_have_ended(engine, ledger, clock)
    finally:
        await network.aclose()


class StaysClosed(Breaker):
    """Lets everything out, whatever the answers are."""

    def answered(self, now: float, succeeded: int, failed: int) -> None:
        pass


async def _until_all_have_ended(engine: Engine, ledger: InlineLedger, clock: trio.testing.MockClock) -> None:
    give_up = time.monotonic() + PATIENCE_S
    while await ledger.open_count():
        assert time.monotonic() < give_up, "alerts stay open"
        await trio.to_thread.run_sync(time.sleep, 0.002)  # real time, for the network
        quiet = not any(lane.in_flight for lane in engine.lanes.values()) and not engine.recorder.busy
        # Even when something is under way some milliseconds pass: outcomes may be gathering before they are written.
        clock.jump(JUMP_S if quiet else RECORD_GATHER_S)


def _recipient(case: Case, number: int) -> RecipientLine:
    mark = f"139000{number:05}"
    return RecipientLine(
        account=f"acct-{mark}",
        openid=f"oRunner-{mark}-OpenId",
        phone=f"+86{mark}",
        email=f"holder{mark}@example.com",
        channels=(case.lists or case.channel, NEXT),  # type: ignore[arg-type]
    )


def _swipe(number: int) -> Accepted:
    at = datetime.fromtimestamp(NOON_MS / 1000, UTC).isoformat()
    event = {"id": f"e{number}", "account": f"acct-139000{number:05}", "pan": "************5770", "amount": 20_000}
    decoded = decode_event(json.dumps(event | {"currency": "CNY", "time": at, "merchant": "shell"}).encode(), number)
    assert not isinstance(decoded, Rejected), decoded
    return decoded


# ---- what must have come of it --------------------------------------------------------------------------------------


def check_table(outcome: Outcome) -> None:
    """Every alert went the way of its code, everything was counted, and nothing private got out."""
    case, table = outcome.case, outcome.case.table
    counted: Counter[tuple[str, str]] = Counter()
    went_on: Counter[str] = Counter()
    for number, code in enumerate(outcome.codes):
        kind = TRANSPORT[code] if code in TRANSPORT else table.row(code).kind
        row = Row(kind) if code in TRANSPORT else table.row(code)
        counted += _check_alert(case, code, row, outcome.stories[number], outcome.refused[number])
        went_on[_next_of(case, kind) or case.channel] += 1
        assert outcome.open_windows[number] is (case.window and kind is not A.RECIPIENT_GONE), code
    meter = outcome.meter
    assert {key: count for key, count in meter.outcomes.items() if key[0] == case.channel} == dict(counted)
    for channel in {NEXT, case.lists or NEXT}:
        assert meter.attempts[channel] == meter.delivered_by[channel] == went_on[channel], channel
    assert dict(meter.totals.unknown_codes) == {case.channel: 1}
    alarms = [line for line in outcome.logs if line["event"] == "unknown_code"]
    assert [(line["channel"], line["log_level"]) for line in alarms] == [(case.channel, "error")]
    check_nothing_private(outcome)


def _check_alert(
    case: Case, code: str, row: Row, alert: AlertStory, refused: dict[str, Any]
) -> Counter[tuple[str, str]]:
    told = [(attempt.channel, attempt.outcome) for attempt in alert.attempts]
    kind = row.kind
    left_alone = kind is A.UNKNOWN and not case.resends_unknown
    tries = 1 if left_alone else TRIES.get(kind, 2)
    expected = [(case.channel, str(kind))] + [(case.channel, "accepted")] * (tries - 1)
    then = _next_of(case, kind)
    if then is not None:
        expected.append((then, "accepted"))
    assert told == expected, (code, told)
    first = alert.attempts[0]
    assert first.code is not None, code
    assert first.code.startswith(code) if code == "network-" else first.code == code
    if tries == 2 and row.pause_ms:
        waited = alert.attempts[1].at - first.at
        # A recipient's pause is kept; the channel's begins short (see dispatcher.delivery)
        assert waited >= (row.pause_ms if row.scope == "recipient" else min(row.pause_ms, 2_000)), code
    end = ("failed", "unknown-outcome") if left_alone and then is None else ("delivered", None)
    assert (alert.state, alert.reason) == end, code
    assert alert.channel == (then or case.channel), code
    gone = set() if case.window else {case.channel}
    wanted = {A.RECIPIENT_GONE: gone, A.OPTED_OUT: {f"{case.channel}/swipe"}}.get(kind, set())
    assert set(refused) == wanted, code
    return Counter(told[:tries])


def _next_of(case: Case, kind: AnswerClass) -> str | None:
    """The channel that an alert goes on to after such an answer."""
    if kind in GOES_ON:
        return case.lists or NEXT
    return NEXT if case.window and kind is A.UNKNOWN else None


def check_nothing_private(outcome: Outcome) -> None:
    """No address, account, secret or token in a log line, a metric or what is kept of the attempts."""
    shown = {**outcome.texts, "logs": "\n".join(map(repr, outcome.logs))}
    for where, text in shown.items():
        assert not MARK.search(text), f"an address or account in the {where}"
        for secret in (SECRET, *outcome.case.private):
            assert secret not in text, f"a secret in the {where}"


@pytest.fixture
def still_clock() -> trio.testing.MockClock:
    """Time that moves only when somebody jumps; import it where `run_table` is used."""
    return trio.testing.MockClock()
