"""What the tests of the send rules share: events, recipients, and a ledger that is two dictionaries."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from dispatcher.model.event import Event
from dispatcher.model.recipient import Recipient
from ratelimit.decision import DayTotal
from ratelimit.rules import Decider, Decision, Plan, Tally, load_rules
from ratelimit.tally import keys_of

MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS
DAY_MS = 24 * HOUR_MS


def at(text: str) -> int:
    """Epoch ms of an ISO time."""
    return round((datetime.fromisoformat(text) - datetime(1970, 1, 1, tzinfo=UTC)) / timedelta(milliseconds=1))


def an_event(**changes: Any) -> Event:
    given: dict[str, Any] = {
        "id": "e1",
        "account": "A1",
        "amount": 12_300,
        "currency": "CNY",
        "time": datetime(2026, 1, 1, 8, tzinfo=UTC),
        "merchant": "tea house",
    }
    return Event(**(given | changes))


def a_recipient(**changes: Any) -> Recipient:
    given: dict[str, Any] = {"id": 1, "account": "A1", "openid": "o-1", "phone": "+8613800000000"}
    return Recipient(**(given | changes))


def rule(effect: str, **keys: str) -> str:
    """A rule as TOML; its id is the effect unless given. Values are TOML too."""
    given = {"id": f'"{effect.replace("_", "-")}"', "effect": f'"{effect}"'} | keys
    return "[[rule]]\n" + "".join(f"{key.rstrip('_')} = {value}\n" for key, value in given.items())


class Book:
    """Rules in force, and counters and marks that outlive each batch."""

    def __init__(self, *rules: str, channels: Sequence[str] = ("wechat", "sms")) -> None:
        self.rules = load_rules("version = 1\n" + "".join(rules), "rules.toml")
        self.channels = channels
        self.decider = Decider(self.rules, channels)
        self.counters: dict[str, int] = {}
        self.marks: dict[str, tuple[int, ...]] = {}
        self.totals: dict[str, DayTotal] = {}
        self.reads: list[int] = []

    def tell(
        self,
        now_ms: int,
        *recipients: Recipient,
        event: Event | None = None,
        swiped_ms: int | None = None,
        template: str | None = None,
    ) -> list[Decision]:
        """Decide one event, as a batch of its own."""
        event = event or an_event()
        told = recipients or (a_recipient(),)
        swiped_ms = now_ms if swiped_ms is None else swiped_ms
        plans = [self.decider.plan(event, swiped_ms, each, now_ms, template) for each in told]
        return self.decide([(event, plans)])[0]

    def one(self, now_ms: int, recipient: Recipient | None = None, **given: Any) -> Decision:
        """Decide one event with one recipient."""
        (decision,) = self.tell(now_ms, recipient or a_recipient(), **given)
        return decision

    def decide(self, planned: Sequence[tuple[Event, list[Plan]]], *, prefetch: bool = True) -> list[list[Decision]]:
        """Decide a batch and keep what it counts."""
        tally = Tally(self._read, self._read_marks, self._read_totals)
        if prefetch:
            tally.prefetch(keys_of([plans for _, plans in planned]))
        decisions = [tally.decide_event(event, plans) for event, plans in planned]
        self.counters.update((key, value) for key, (value, _) in tally.changed.items())
        self.marks.update((key, times) for key, (times, _) in tally.changed_marks.items())
        self.totals.update((key, (total, events)) for key, (total, events, _) in tally.changed_totals.items())
        return decisions

    def _read(self, keys: Sequence[str]) -> dict[str, int]:
        self.reads.append(len(keys))
        return {key: self.counters[key] for key in keys if key in self.counters}

    def _read_totals(self, keys: Sequence[str]) -> dict[str, DayTotal]:
        self.reads.append(len(keys))
        return {key: self.totals[key] for key in keys if key in self.totals}

    def _read_marks(self, keys: Sequence[str]) -> dict[str, tuple[int, ...]]:
        return {key: self.marks[key] for key in keys if key in self.marks}
