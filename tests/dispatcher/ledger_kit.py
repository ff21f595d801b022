"""What the ledger's tests share: the backends, events as the door lets them in, and stand-ins for rules and lanes."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import trio
from trio.testing import wait_all_tasks_blocked

from dispatcher.delivery import ENDED
from dispatcher.events import Accepted, decode_event
from dispatcher.ledger.api import Counted, Decide, Decisions, Draft, Ledger, Receipt
from dispatcher.ledger.stories import AlertStory
from dispatcher.ledger.worker import InlineLedger, ThreadedLedger
from dispatcher.model.alert import Alert, State, Step
from dispatcher.model.recipient import Recipient, RecipientLine
from ratelimit.decision import DayTotal

NOW = 1_704_103_200_000
"""2024-01-01T10:00:00Z, in ms."""

LEASE_MS = 20_000
HOUR_MS = 3_600_000


async def _in_memory(_folder: Path) -> Ledger:
    return InlineLedger(":memory:")


async def _in_file(folder: Path) -> Ledger:
    return InlineLedger(str(folder / "inline.db"))


async def _with_thread(folder: Path) -> Ledger:
    return ThreadedLedger(str(folder / "threaded.db"))


BACKENDS: dict[str, Callable[[Path], Awaitable[Ledger]]] = {
    "memory": _in_memory,
    "file": _in_file,
    "thread": _with_thread,
}
"""Every backend keeps what the conformance tests say. A new one is added here and nowhere else."""


def line(event_id: str, **fields: Any) -> bytes:
    event = {
        "id": event_id,
        "account": "A-1",
        "pan": "************5770",
        "amount": 7261,
        "currency": "GBP",
        "merchant": "shell kings 587",
        "time": "2024-01-01T10:00:00+00:00",
        "type": "purchase",
    }
    return json.dumps(event | fields, ensure_ascii=False).encode()


def accepted(event_id: str, **fields: Any) -> Accepted:
    """An event as the door gives it to the ledger."""
    return accepted_line(line(event_id, **fields))


def accepted_line(raw: bytes) -> Accepted:
    answer = decode_event(raw, 1)
    assert isinstance(answer, Accepted), answer
    return answer


def recipient(account: str = "A-1", role: str = "primary", **fields: Any) -> RecipientLine:
    given: dict[str, Any] = {"openid": f"o-{account}-{role}", "phone": "+8613800138000"}
    return RecipientLine(account=account, role=role, **(given | fields))


def receipt(channel: str, msgid: str, status: str = "delivered") -> Receipt:
    return Receipt(channel, msgid, status)


class Tell:
    """Stands in for the send rules: everybody is told, on every channel of theirs that nobody refused.

    Counts the events of each account under ``told|<account>``. ``asked`` holds the ids it was asked about. ``due_ms``
    is until when those in the state ``held`` are held.
    """

    def __init__(
        self,
        state: State = "sending",
        *,
        reason: str | None = None,
        expires_ms: int = NOW + HOUR_MS,
        due_ms: int | None = None,
        ruleset: str = "",
    ) -> None:
        self.state = state
        self.reason = reason
        self.expires_ms = expires_ms
        self.due_ms = due_ms
        self.ruleset = ruleset
        self.asked: list[str] = []
        self.told: dict[str, Sequence[Recipient]] = {}

    def __call__(
        self, batch: Sequence[Accepted], recipients: Mapping[str, Sequence[Recipient]], now_ms: int
    ) -> Callable[[Counted], Decisions]:
        return partial(self.decide, batch, recipients, now_ms)

    def decide(
        self,
        batch: Sequence[Accepted],
        recipients: Mapping[str, Sequence[Recipient]],
        now_ms: int,
        counted: Counted,
    ) -> Decisions:
        """All of it."""
        self.asked += [one.event.id for one in batch]
        self.told.update(recipients)
        news = Counter(f"told|{one.event.account}" for one in batch)
        before = counted.counters(list(news))
        return Decisions(
            [[self._draft(one) for one in recipients.get(event.event.account, ())] or [NOBODY] for event in batch],
            {key: (before.get(key, 0) + count, now_ms + HOUR_MS) for key, count in news.items()},
            ruleset=self.ruleset,
        )

    def _draft(self, to: Recipient) -> Draft:
        route = tuple(channel for channel in to.channels if channel not in to.refused)
        if not route:
            return Draft(to, "suppressed", "recipient-gone", (), self.expires_ms, "swipe@1")
        saw = {"amount": 7261, "threshold/sms": 10_000}
        return Draft(to, self.state, self.reason, route, self.expires_ms, "swipe@1", saw, -42, self.due_ms)


def in_halves(decide: Callable[..., Decisions]) -> Decide:
    """Rules that do everything in the second half of a decision."""
    return lambda batch, told, now_ms: partial(decide, batch, told, now_ms)


NOBODY = Draft(None, "suppressed", "no-recipient", (), NOW, "swipe@1")


def step(alert: Alert, state: State, **fields: Any) -> Step:
    """A step after an attempt, unless ``outcome`` is None; ``at_ms`` is now."""
    given: dict[str, Any] = {
        "position": alert.position,
        "reason": None,
        "due_ms": None,
        "at_ms": NOW,
        "outcome": "accepted",
        "code": "0",
        "took_ms": 5,
    }
    if state == "retrying":
        given |= {"outcome": "retry", "code": "-1", "due_ms": NOW}
    elif state == "awaiting":
        given |= {"due_ms": NOW + HOUR_MS}
    elif state in ("expired", "cancelled"):
        given |= {"outcome": None, "code": None}
    return Step(alert=alert, state=state, ended=state in ENDED, **(given | fields))


async def owner_of(ledger: Ledger, name: str = "here", now_ms: int = NOW, lease_ms: int = LEASE_MS) -> int:
    return await ledger.register(name, now_ms, now_ms + lease_ms)


async def admitted(
    ledger: Ledger, owner: int, *events: Accepted, decide: Tell | None = None, to: Iterable[RecipientLine] = ()
) -> list[Alert]:
    """Alerts of these events, leased to ``owner``; their accounts have ``to`` as recipients, or one each."""
    lines = list(to) or [recipient(account) for account in dict.fromkeys(one.event.account for one in events)]
    await ledger.import_recipients(lines)
    return (await ledger.admit(events, NOW, owner, decide or Tell())).alerts


async def alert_story(ledger: Ledger, event_id: str = "e-1", place: int = 0) -> AlertStory:
    story = await ledger.explain(event_id)
    assert story is not None, f"{event_id} was never accepted"
    return story.alerts[place]


async def state_of(ledger: Ledger, event_id: str = "e-1", place: int = 0) -> State:
    return (await alert_story(ledger, event_id, place)).state


async def attempts_of(ledger: Ledger, event_id: str = "e-1", place: int = 0) -> list[tuple[int, str, str, str | None]]:
    """(number, channel, outcome, code) of each attempt."""
    story = await alert_story(ledger, event_id, place)
    return [(one.n, one.channel, one.outcome, one.code) for one in story.attempts]


class _Seen(Exception):
    def __init__(self, value: Any) -> None:
        self.value = value


async def counted(ledger: Ledger, owner: int, key: str) -> int:
    """A counter as the rules would see it; 0 when there is none. Leaves no trace."""
    found: int = await _peeked(ledger, owner, lambda counted: counted.counters([key]).get(key, 0))
    return found


async def total_of(ledger: Ledger, owner: int, key: str) -> DayTotal | None:
    """A day's total as the rules would see it. Leaves no trace."""
    found: DayTotal | None = await _peeked(ledger, owner, lambda counted: counted.totals([key]).get(key))
    return found


async def _peeked(ledger: Ledger, owner: int, look: Callable[[Counted], object]) -> Any:
    @in_halves
    def peek(batch: object, told: object, now_ms: int, counted: Counted) -> Decisions:
        raise _Seen(look(counted))

    try:
        await ledger.admit([accepted("never admitted")], NOW, owner, peek)
    except _Seen as seen:
        return seen.value
    raise AssertionError("the rules were not asked")


HELD_S = 60
"""Longest that the ledger's thread is held; a test that needs it has hung."""


class Held:
    """Rules that hold the ledger's thread in the middle of a commit, until they are let go."""

    def __init__(self) -> None:
        self.entered, self.let_go = threading.Event(), threading.Event()

    def __call__(self, *arguments: Any) -> Callable[[Counted], Decisions]:
        return partial(self._decide, *arguments)

    def _decide(self, *arguments: Any) -> Decisions:
        self.entered.set()
        assert self.let_go.wait(HELD_S)
        return Tell().decide(*arguments)


class Commits:
    """A ledger with its thread, its owner, and how many calls each of its commits had."""

    def __init__(self, path: str) -> None:
        self.sizes: list[int] = []
        self.seconds: list[float] = []
        self.ledger = ThreadedLedger(path, self._observe)

    def _observe(self, calls: int, seconds: float) -> None:
        self.sizes.append(calls)
        self.seconds.append(seconds)

    @asynccontextmanager
    async def in_one_commit(self, owner: int, event: str = "held") -> AsyncIterator[trio.Nursery]:
        """Calls started in the nursery all arrive while one commit is going on, that of ``event``."""
        held = Held()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.ledger.admit, [accepted(event)], NOW, owner, held)
            await trio.to_thread.run_sync(held.entered.wait)
            yield nursery
            await wait_all_tasks_blocked()
            held.let_go.set()


Told = list[tuple[str, Any]]


async def tell(told: Told, name: str, call: Callable[[], Awaitable[Any]]) -> None:
    """Run the call and write down what came of it."""
    try:
        told.append((name, await call()))
    except Exception as error:  # noqa: BLE001 - it is what the test looks at
        told.append((name, error))
