"""The ledger against a model of plain dictionaries: random lives with repeats, deaths, crashes and late words."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from dispatcher.delivery import held_back
from dispatcher.errors import LeaseLost
from dispatcher.events import Accepted
from dispatcher.ledger import sqlite_admit
from dispatcher.ledger.api import Receipt
from dispatcher.ledger.sqlite_admit import Admitting
from dispatcher.ledger.worker import InlineLedger
from dispatcher.model.alert import ALERT_ID_BITS, Alert, State, Step
from tests.dispatcher.ledger_kit import LEASE_MS, NOW, Tell, accepted, recipient
from tests.dispatcher.ledger_model import (
    ACCOUNTS,
    EVENTS,
    HOLDS,
    REVERSALS,
    ROUTE,
    TURN,
    Modelled,
    some,
    step_of,
    words,
)
from tests.dispatcher.ledger_people import Holds
from tests.dispatcher.ledger_words import Reversals, Words

EXAMPLES, STEPS = (2000, 80) if os.environ.get("SWIPEBELL_HYPOTHESIS") == "deep" else (60, 30)


class LedgerMachine(Words, Reversals, Holds, RuleBasedStateMachine):
    """What every rule does to the ledger it does to the model, and what the ledger answers is what the model says."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(sqlite_admit, "LEAST_PREPARED", 1)  # the few that come here too
        self.folder = Path(tempfile.mkdtemp(prefix="ledger-"))
        self.ledger = self._open()
        self.now = NOW
        self.events: dict[str, Accepted] = {}
        self.alerts: dict[int, Modelled] = {}
        self.ends: dict[int, tuple[Any, ...]] = {}
        self.tries: dict[tuple[int, int, int], tuple[str, str, str]] = {}
        self.counters: Counter[str] = Counter()
        self.messages: dict[tuple[int, int, int], str | None] = {}
        self.early: dict[str, str] = {}
        self.words: dict[tuple[str, str], dict[str, int]] = {}
        self.people: dict[tuple[str, str], str] = {}
        self.refused: dict[tuple[str, str], set[str]] = {}
        self.alive: dict[int, int] = {}
        self.silent: set[int] = set()
        self.unlocked: set[int] = set()
        self.handed: dict[int, dict[int, Alert]] = {}

    def _open(self) -> InlineLedger:
        ledger = InlineLedger(str(self.folder / "ledger.db"))
        # The files are copied from what the system has, so nothing is to be learnt from waiting for the disk.
        ledger.store.connection.execute("PRAGMA synchronous=OFF")
        return ledger

    def teardown(self) -> None:
        self.patch.undo()
        self.ledger.store.close()
        shutil.rmtree(self.folder)

    def _ask(self, call: Callable[..., Any], *arguments: Any) -> Any:
        return trio.run(call, *arguments)

    def _owner(self, which: int) -> int:
        """Mostly one that lives, now and then one whose lease is lost."""
        pool = [owner for owner, until in self.alive.items() if until and which % 8 < 7] or list(self.alive)
        return pool[which % len(pool)]

    def _refused_when_lost(self, owner: int, call: Callable[..., Any], *arguments: Any) -> bool:
        """True, having tried it, when the owner's lease is lost."""
        if self.alive[owner]:
            return False
        with pytest.raises(LeaseLost):
            self._ask(call, *arguments)
        return True

    # ---- processes ------------------------------------------------------------------------------------------------

    @initialize()
    def begin(self) -> None:
        for account, roles in ACCOUNTS.items():
            for role in roles:
                self._import((account, role), "o-1")
        self._start()
        self.admit(EVENTS[:8:2], 0, "sending")
        self.admit(EVENTS[12:13], 0, "night")
        self.admit(EVENTS[14:15], 0, "storm")

    def _start(self) -> None:
        owner = self._ask(self.ledger.register, "x", self.now, self.now + LEASE_MS)
        assert owner not in self.alive
        self.alive[owner], self.handed[owner] = self.now + LEASE_MS, {}

    def _pass(self, ms: int) -> None:
        """Those that are not silent prolong their leases meanwhile."""
        self.now += ms
        for owner, until in self.alive.items():
            if until and owner not in self.silent:
                assert self._ask(self.ledger.heartbeat, owner, self.now + LEASE_MS)
                self.alive[owner] = self.now + LEASE_MS

    @rule(how=st.sampled_from(["moves", "leaves", "is silent", "crashes", "crashes in a commit"]), which=some)
    def somebody(self, how: str, which: int) -> None:
        owner = self._owner(which)
        if how == "moves":
            person = sorted(self.people)[which % len(self.people)]
            self._import(person, f"o-{which % 2}")
        elif how == "leaves":
            self._ask(self.ledger.leave, owner, self.now)
            self._free(owner)
        elif how == "is silent":
            self.silent.add(owner)
            self._pass(LEASE_MS)
        else:
            self._crash(owner, in_transaction=how == "crashes in a commit")
        self._start()
        self._take_over(max(self.alive))

    def _take_over(self, owner: int) -> None:
        dead = [
            other
            for other, until in self.alive.items()
            if other != owner and until and (until <= self.now or other in self.unlocked)
        ]
        freed = sum(not one.ended and one.owner in dead for one in self.alerts.values())
        assert self._ask(self.ledger.take_over, owner, self.now) == freed
        for other in dead:
            self._free(other)

    def _free(self, owner: int) -> None:
        self.alive[owner] = 0
        for alert_id, one in self.alerts.items():
            if one.owner != owner or one.ended:
                continue
            if one.state == "sending":
                one.attempts += 1
                self.tries.setdefault((alert_id, one.attempts, owner), (one.channel, "unknown", "process-died"))
                self.messages.setdefault((alert_id, one.attempts, owner), None)
            one.state = {"sending": "interrupted", "queued": "retrying"}.get(one.state, one.state)
            one.owner, one.due = 0, self.now

    def _crash(self, owner: int, *, in_transaction: bool) -> None:
        """All processes die at once, and the next ones find what the system has of the files."""
        old, before = self.ledger, self.folder
        if in_transaction:
            old.store.begin()
            if self.alive[owner]:
                old.store.admit(Admitting([accepted("lost")], self.now, owner, Tell()))
        self.folder = Path(tempfile.mkdtemp(prefix="ledger-"))
        for name in ("ledger.db", "ledger.db-wal"):
            shutil.copy(before / name, self.folder / name)
        old.store.close()
        shutil.rmtree(before)
        self.ledger = self._open()
        self.unlocked = set(self.alive)

    # ---- admission ------------------------------------------------------------------------------------------------

    @rule(
        batch=st.lists(st.sampled_from(EVENTS + REVERSALS), min_size=1, max_size=6),
        which=some,
        first=st.sampled_from(["sending", "queued", *HOLDS]),
        back=some,
    )
    def admit(self, batch: list[Accepted], which: int, first: str, back: int = 1) -> None:
        owner = self._owner(which)
        if back % 2 == 0:  # of all pairs, few would be drawn by themselves
            batch = [*batch, *self._reversal_of_an_open_event(back)]
        decide = self._decide(first)
        if self._refused_when_lost(owner, self.ledger.admit, batch, self.now, owner, decide):
            return
        admission = self._ask(self.ledger.admit, batch, self.now, owner, decide)
        fresh: list[Accepted] = []
        duplicates: list[int] = []
        conflicts: list[int] = []
        told: list[int] = []
        for position, one in enumerate(batch):
            stands = self.events.get(one.event.id)
            if stands is not None:
                (duplicates if stands.payload == one.payload else conflicts).append(position)
                continue
            fresh.append(one)
            self.events[one.event.id] = one
            self.counters[f"told|{one.event.account}"] += 1
        seqs = {one.event.id: seq for seq, one in enumerate(self.events.values(), 1)}
        for one in fresh:
            told += self._admit_one(seqs[one.event.id], one.event.account, owner, first)
        taken_back = self._reverse({one.event.id: one for one in fresh}, seqs)
        told = [alert_id for alert_id in told if alert_id not in taken_back]
        held = Counter(self.alerts[alert_id].held_by for alert_id in told if self.alerts[alert_id].state == "held")
        assert admission.held == held
        told = [alert_id for alert_id in told if self.alerts[alert_id].state != "held"]
        assert (admission.accepted, admission.duplicates, admission.conflicts) == (len(fresh), duplicates, conflicts)
        assert sum(count for (state, _), count in admission.ended.items() if state == "cancelled") == sum(
            self.alerts[alert_id].state == "cancelled" for alert_id in taken_back
        )
        assert [alert.id for alert in admission.alerts] == told
        self.handed[owner].update((alert.id, alert) for alert in admission.alerts)

    def _admit_one(self, seq: int, account: str, owner: int, first: str) -> list[int]:
        told: list[int] = []
        for place, role in enumerate(ACCOUNTS[account]):
            person, alert_id = (account, role), (seq << ALERT_ID_BITS) + place
            route = tuple(channel for channel in ROUTE if channel not in self.refused[person])
            if route and first in HOLDS:
                told.append(alert_id)
                due = self._held_until(first)
                self.alerts[alert_id] = Modelled(person, "held", 0, ended=False, route=route, due=due, held_by=first)
            elif route:
                told.append(alert_id)
                self.alerts[alert_id] = Modelled(person, first, owner, ended=False, route=route)
            else:
                self.alerts[alert_id] = Modelled(person, "suppressed", 0, ended=True, route=())
        if not ACCOUNTS[account]:
            self.alerts[seq << ALERT_ID_BITS] = Modelled(None, "suppressed", 0, ended=True, route=())
        return told

    def _import(self, person: tuple[str, str], openid: str) -> None:
        done = self._ask(self.ledger.import_recipients, [recipient(*person, openid=openid)])
        before = self.people.get(person)
        assert (done.added, done.changed, done.same) == (before is None, before not in (None, openid), before == openid)
        if before != openid:
            self.people[person], self.refused[person] = openid, set()

    # ---- delivery -------------------------------------------------------------------------------------------------

    @rule(**TURN)
    def a_turn_of_the_lanes(
        self, which: int, ms: int, lease_as: State, fenced: bool, picks: list[tuple[int, str, str, int]]
    ) -> None:
        self._pass(ms)
        owner = self._owner(which)
        for channel in ROUTE:
            self._due(owner, channel, which % 6, lease_as)
        if fenced:
            self._fence(owner)
        self._record(owner, picks)

    @rule(**TURN)
    def another_turn_of_the_lanes(self, **drawn: Any) -> None:
        # Rules are drawn evenly, and most of an alert's life is lanes.
        self.a_turn_of_the_lanes(**drawn)

    def _fence(self, owner: int) -> None:
        ids = sorted(self.alerts)[::2]
        if self._refused_when_lost(owner, self.ledger.fence, ids, owner):
            return
        kept_back = self._ask(self.ledger.fence, ids, owner)
        for alert_id in ids:
            one = self.alerts[alert_id]
            if one.owner == owner and one.state == "queued":
                if one.attempts and self._late_success(alert_id):
                    one.state, one.owner, one.due = "awaiting", 0, 0
                else:
                    one.state = "sending"
        held = {alert_id: (self.alerts[alert_id].owner, self.alerts[alert_id].state) for alert_id in ids}
        may_leave = {alert_id for alert_id, holding in held.items() if holding == (owner, "sending")}
        assert kept_back == [alert_id for alert_id in ids if alert_id not in may_leave]

    def _record(self, owner: int, picks: list[tuple[int, str, str, int]]) -> None:
        mine = self.handed[owner]
        if not mine:
            return
        # Mostly of alerts that this owner holds, now and then of one that it has let go or lost.
        held = [alert_id for alert_id in sorted(mine) if self.alerts[alert_id].owner == owner]
        steps = []
        for place, (pick, kind, msgid, resends) in enumerate(picks):
            pool = held if held and pick % 8 < 7 else sorted(mine)
            alert = mine[pool[(pick + place) % len(pool)]]
            steps.append(step_of(alert, kind, msgid, resends, self.now))
            if steps[-1].keep_lease:
                mine[alert.id] = msgspec.structs.replace(alert, attempts=alert.attempts + 1 + resends)
        answered = self._ask(self.ledger.record, steps, owner)
        held = {
            one.alert.id
            for one in steps
            if self._passes_over(one)
            and self.alerts[one.alert.id].owner == owner
            and not self.alerts[one.alert.id].ended
            and (self._word(one.alert.id) or "").startswith("delivered")
        }
        for one in steps:
            self._apply(held_back(one) if one.alert.id in held and self._passes_over(one) else one, owner)
        waiting = {one.alert.id for one in steps if one.state == "awaiting"} if self.alive[owner] else set()
        early = {alert_id for alert_id in waiting if self._own_word(alert_id)} | (held if self.alive[owner] else set())
        self._lease(sorted(filter(self._waits, early)), owner, "awaiting", answered)

    def _passes_over(self, one: Step) -> bool:
        """Whether the step would ring once more, or end without success, an alert that may have been seen."""
        deadline = one.alert.state == "awaiting" and one.outcome is None and one.state != "delivered"
        refused = one.outcome != "accepted"
        return deadline or (refused and one.alert.position > 0 and one.state in ("failed", "expired"))

    def _apply(self, done: Step, owner: int) -> None:
        alert, one = done.alert, self.alerts[done.alert.id]
        n = alert.attempts
        if done.outcome is not None:
            said = [("unknown", "resent", None)] * done.resends + [(done.outcome, done.code or "", done.msgid)]
            for outcome, code, msgid in said:
                n += 1
                key, told = (alert.id, n, owner), (alert.channel, outcome, code)
                self.messages.setdefault(key, msgid)
                if self.tries.setdefault(key, told)[2] == "process-died":
                    self.tries[key] = (alert.channel, "unknown", f"{outcome}:{code}")
                    self.messages[key] = msgid
        refused = done.refusal is not None and one.person is not None
        # The refusal belongs to the address that was tried, which may have been changed since.
        if refused and done.alert.recipient.openid == self.people[one.person]:
            self.refused[one.person].add(done.refusal)
        if one.owner != owner or one.ended:
            return
        one.msgid = (done.msgid or one.msgid) if done.position == one.position else None
        one.state, one.position, one.due, one.ended = done.state, done.position, done.due_ms, done.ended
        one.attempts, one.owner = n, owner if done.keep_lease else 0

    def _waits(self, alert_id: int) -> bool:
        one = self.alerts[alert_id]
        return one.owner == 0 and one.state == "awaiting"

    def _lease(self, ids: list[int], owner: int, lease_as: str, given: list[Alert]) -> None:
        assert [alert.id for alert in given] == ids
        for alert in given:
            one = self.alerts[alert.id]
            assert (alert.state, alert.attempts, alert.position) == (one.state, one.attempts, one.position)
            assert alert.receipt == self._word(alert.id)
            one.state = lease_as if one.state in ("retrying", "held") else one.state
            one.owner, one.due = owner, None
            self.handed[owner][alert.id] = alert

    def _due(self, owner: int, channel: str, limit: int, lease_as: State) -> None:
        arguments = (channel, self.now, owner, limit, lease_as)
        if self._refused_when_lost(owner, self.ledger.due, *arguments):
            return
        ready = sorted(
            (one.due, alert_id)
            for alert_id, one in self.alerts.items()
            if one.owner == 0 and one.channel == channel and one.due is not None and one.due <= self.now
        )
        given = self._ask(self.ledger.due, *arguments)
        self._lease([alert_id for _, alert_id in ready[:limit]], owner, lease_as, given)

    @rule(which=some, said=st.lists(words, min_size=1, max_size=4))
    def receipts(self, which: int, said: list[Receipt]) -> None:
        owner = self._owner(which)
        if self._refused_when_lost(owner, self.ledger.receipts, said, self.now, owner):
            return
        found = self._ask(self.ledger.receipts, said, self.now, owner)
        last = {(word.channel, word.msgid): word for word in said}
        for word in said:
            self.words.setdefault((word.channel, word.msgid), {}).setdefault(word.status, self.now)
        about = {
            alert_id: last[one.channel, one.msgid or ""]
            for alert_id, one in sorted(self.alerts.items())
            if self._waits(alert_id) and (one.channel, one.msgid or "") in last
        }
        assert [word for _, word in found] == list(about.values())
        self._lease(list(about), owner, "awaiting", [alert for alert, _ in found])

    # ---- what always holds ----------------------------------------------------------------------------------------

    @invariant()
    def the_ledger_holds_what_the_model_holds(self) -> None:
        query = self.ledger.store.connection.execute
        rows = query(
            "SELECT id, state, owner, due_at, attempts, channel, msgid, ended_at IS NOT NULL FROM alerts ORDER BY id"
        ).fetchall()
        assert rows == [
            (alert_id, one.state, one.owner, one.due, one.attempts, one.channel, one.msgid, int(one.ended))
            for alert_id, one in sorted(self.alerts.items())
        ]
        # The attempt that was accepted stands in its alert.
        tries = query(
            "SELECT alert, n, owner, channel, outcome, code FROM attempts UNION ALL"
            " SELECT id, attempts, answered_to, channel, 'accepted', code FROM alerts WHERE answered_at IS NOT NULL"
        ).fetchall()
        assert sorted(tries) == sorted((*key, *said) for key, said in self.tries.items())
        counters = query("SELECT k.name || c.who, c.value FROM counters c JOIN counter_kinds k ON k.id = c.kind")
        assert dict(counters.fetchall()) == self.counters
        payloads = dict(query("SELECT id, payload FROM events").fetchall())
        assert payloads == {event_id: one.payload.decode() for event_id, one in self.events.items()}

    @invariant()
    def nothing_is_lost(self) -> None:
        books = self.ledger.store.books()
        ended = sum(one.ended for one in self.alerts.values())
        assert books.balanced
        assert books.events == len(self.events)
        assert books.open == self.ledger.store.open_count() == len(self.alerts) - ended
        later = sum(one.state == "held" and (one.due or 0) > self.now for one in self.alerts.values())
        assert self.ledger.store.open_count(self.now) == books.open - later
        assert books.known_doubles == self._doubles()
        assert books.states == Counter(one.state for one in self.alerts.values())
        assert books.unknown_attempts == sum(outcome == "unknown" for _, outcome, _ in self.tries.values())
        # Each open alert is held by somebody who will be missed, or will be looked at.
        stuck = self.ledger.store.connection.execute(
            "SELECT id FROM alerts WHERE ended_at IS NULL AND NOT (owner = 0 AND due_at IS NOT NULL)"
            " AND owner NOT IN (SELECT id FROM processes WHERE alive_until > 0)"
        ).fetchall()
        assert stuck == []

    @invariant()
    def no_alert_ends_twice(self) -> None:
        rows = self.ledger.store.connection.execute(
            "SELECT id, state, reason, ended_at FROM alerts WHERE ended_at IS NOT NULL"
        ).fetchall()
        ends = {row[0]: row[1:] for row in rows}
        assert self.ends.items() <= ends.items()
        self.ends = ends


LedgerMachine.TestCase.settings = settings(max_examples=EXAMPLES, stateful_step_count=STEPS, deadline=None)
TestLedgerMachine = LedgerMachine.TestCase
