"""The send rules against a naive oracle: random lives of rule files, ledgers and processes, through the real admission.

What every alert became in the ledger is what the oracle says, and no cap is exceeded in a recount of what is stored.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import tomllib
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from dispatcher.admission import Admitter
from dispatcher.events import Accepted, decode_event
from dispatcher.ledger import sqlite_admit
from dispatcher.ledger.sqlite import SqliteStore
from dispatcher.ledger.sqlite_admit import Admitting
from dispatcher.model.recipient import Consent, Recipient
from ratelimit.rulefile import load_rules
from templates.library import Library
from tests.ratelimit.machine_kit import LEAPS, MOST_BACK_MS, PEOPLE, rule_lists, starts, swipe_line, swipes, toml
from tests.ratelimit.oracle import Oracle, Said
from tests.ratelimit.oracle_facts import RuleTable, counted_on, length, matches, ms_of, scope, window_of

EXAMPLES, STEPS = (2000, 50) if os.environ.get("SWIPEBELL_HYPOTHESIS") == "deep" else (60, 20)

MEMORY = "/dev/shm"
FENCED = {"wechat": False, "sms": True, "email": True}
LIBRARY = Library.load()
LEASE_MS = 10**12

ALERTS = (
    "SELECT e.id, a.state, a.reason, a.due_at, a.route, e.accepted_at, e.payload, a.recipient, a.ruleset"
    " FROM alerts a JOIN events e ON e.seq = a.id / 16 ORDER BY a.id"
)


class Process:
    """One of those that share the ledger: its connection, and the rules it goes by."""

    def __init__(self, path: str, now: int) -> None:
        self.path = path
        self.rules: list[RuleTable] = []
        self.open(now)

    def open(self, now: int) -> None:
        self.store = SqliteStore(self.path)
        # Nothing is to be learnt from waiting for the disk.
        self.store.connection.execute("PRAGMA synchronous=OFF")
        self.store.begin()
        self.owner = self.store.register("x", now, now + LEASE_MS)
        self.store.commit()

    def prepared(self, batch: list[Accepted], now: int) -> Admitting:
        admitting = Admitting(batch, now, self.owner, self.decide)
        self.store.prepare(admitting)
        return admitting

    def obey(self, text: str, now: int) -> None:
        rules = load_rules(text, "rules.toml")
        self.rules = tomllib.loads(text).get("rule", [])
        self.decide = Admitter(rules, LIBRARY, FENCED)
        self.store.begin()
        self.store.ruleset(rules.version_id, rules.content, now)
        self.store.commit()
        self.version = rules.version_id


class RulesMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(sqlite_admit, "LEAST_PREPARED", 1)  # the few that come here too
        self.folder = Path(tempfile.mkdtemp(prefix="rules-", dir=MEMORY if os.path.isdir(MEMORY) else None))
        self.processes: list[Process] = []
        self.oracle = Oracle(FENCED)
        self.expected: dict[str, list[Said]] = {}
        self.news: list[dict[str, Any]] = []
        self.sent: list[Accepted] = []
        self.people: dict[str, list[Recipient]] = defaultdict(list)
        self.by_version: dict[str, dict[str, RuleTable]] = {}

    def teardown(self) -> None:
        self.patch.undo()
        for process in self.processes:
            process.store.close()
        shutil.rmtree(self.folder)

    @initialize(now=starts, rules=rule_lists)
    def begin(self, now: int, rules: list[dict[str, Any]]) -> None:
        self.now = self.latest = now
        path = str(self.folder / "ledger.db")
        self.processes = [Process(path, now), Process(path, now)]
        store = self.processes[0].store
        store.begin()
        store.import_recipients(PEOPLE, now)
        store.commit()
        for number, one in enumerate(PEOPLE, 1):
            given = {name: getattr(one, name) for name in one.__struct_fields__}
            words = {key: Consent(word.given, ms_of(word.at), word.source) for key, word in one.consents.items()}
            self.people[one.account].append(Recipient(number, **given | {"consents": words}))
        for which in (0, 1):
            self.reload(which, rules)

    # ---- what happens ---------------------------------------------------------------------------------------------

    @rule(which=st.integers(0, 1), rules=rule_lists)
    def reload(self, which: int, rules: list[dict[str, Any]]) -> None:
        process = self.processes[which]
        process.obey(toml(rules), self.now)
        self.by_version[process.version] = {one["id"]: one for one in process.rules}

    @rule(leap=st.sampled_from(LEAPS))
    def time_passes(self, leap: int) -> None:
        self.now += leap
        self.latest = max(self.latest, self.now)

    @rule(corner=starts)
    def time_passes_to_a_corner(self, corner: int) -> None:
        self.now = max(self.now, corner)
        self.latest = max(self.latest, self.now)

    @rule(back=st.integers(0, MOST_BACK_MS))
    def the_clock_jumps_back(self, back: int) -> None:
        self.now = max(self.now - back, self.latest - MOST_BACK_MS)

    @rule(which=st.integers(0, 1), news=st.lists(swipes, min_size=1, max_size=6), again=st.integers(0, 2**16))
    def a_batch(self, which: int, news: list[dict[str, Any]], again: int) -> None:
        batch = self._batch(news)
        if again % 3 == 0 and self.sent:
            batch.insert(again % len(batch), self.sent[again % len(self.sent)])  # a replay
        if again % 7 == 0:
            batch.append(batch[0])
        self._admit(which, batch)

    @rule(which=st.integers(0, 1), news=st.lists(swipes, min_size=2, max_size=8))
    def another_batch(self, which: int, news: list[dict[str, Any]]) -> None:
        # Rules are drawn evenly, and what is decided is what this is about.
        self._admit(which, self._batch(news))

    @rule(which=st.integers(0, 1), back=st.sampled_from([0, 0, 1, MOST_BACK_MS]), again=st.integers(0, 2**16))
    def the_same_under_another_id(self, which: int, back: int, again: int) -> None:
        self.the_clock_jumps_back(back)
        self._admit(which, self._batch([self.news[again % len(self.news)]] if self.news else []))

    @rule(
        which=st.integers(0, 1),
        news=st.lists(swipes, min_size=1, max_size=6),
        meanwhile=st.lists(swipes, min_size=1, max_size=4),
        again=st.booleans(),
    )
    def a_batch_that_another_overtakes(
        self, which: int, news: list[dict[str, Any]], meanwhile: list[dict[str, Any]], *, again: bool
    ) -> None:
        process, batch = self.processes[which], self._batch(news)
        waiting = process.prepared(batch, self.now)
        self._admit(1 - which, batch[:1] if again else self._batch(meanwhile, len(batch)))
        self._admit(which, batch, waiting)

    @rule(which=st.integers(0, 1), drawn=swipes, times=st.integers(2, 5))
    def a_burst(self, which: int, drawn: dict[str, Any], times: int) -> None:
        self._admit(which, self._batch([drawn] * times))

    @rule(which=st.integers(0, 1), news=st.lists(swipes, min_size=1, max_size=4), how=st.booleans())
    def a_crash_before_the_commit(self, which: int, news: list[dict[str, Any]], *, how: bool) -> None:
        process, batch = self.processes[which], self._batch(news)
        waiting = process.prepared(batch, self.now)
        process.store.begin()
        process.store.admit(waiting)
        if how:
            process.store.rollback()
        else:
            rules = process.version
            process.store.close()
            process.open(self.now)
            process.store.ruleset(rules, "", self.now)
        # What was not committed comes again: as if it had never been there.
        self._admit(1 - which if how else which, batch)

    @rule(which=st.integers(0, 1))
    def what_is_over_is_forgotten(self, which: int) -> None:
        store = self.processes[which].store
        store.begin()
        store.forget_counters(self.now)
        store.commit()

    def _batch(self, news: list[dict[str, Any]], after: int = 0) -> list[Accepted]:
        """Events with new ids, ``after`` so many that are not sent yet."""
        batch: list[Accepted] = []
        self.news += news
        for drawn in news:
            answer = decode_event(swipe_line(f"e-{len(self.sent) + after + len(batch)}", drawn, self.now), 1)
            assert isinstance(answer, Accepted), answer
            batch.append(answer)
        return batch

    def _admit(self, which: int, batch: list[Accepted], waiting: Admitting | None = None) -> None:
        process = self.processes[which]
        waiting = waiting or process.prepared(batch, self.now)
        process.store.begin()
        process.store.admit(waiting)
        process.store.commit()
        for one in batch:
            if one.event.id not in self.expected:
                self.sent.append(one)
                self.expected[one.event.id] = self.oracle.event(
                    process.rules, one.event, self.people[one.event.account], self.now
                ) or [Said("suppressed", "no-recipient")]

    # ---- what always holds ----------------------------------------------------------------------------------------

    @invariant()
    def every_alert_is_what_the_oracle_says(self) -> None:
        found: dict[str, list[Said]] = defaultdict(list)
        rows = self.processes[0].store.connection.execute(ALERTS).fetchall() if self.processes else []
        for event_id, state, reason, due, route, accepted_at, *_ in rows:
            if state in ("queued", "sending"):
                found[event_id].append(Said("send", reason, accepted_at, tuple(route.split(","))))
            elif state == "held":
                found[event_id].append(Said("held", reason, due, tuple(route.split(","))))
            else:
                found[event_id].append(Said(state, reason))
        wanted = {
            event_id: [Said("suppressed", one.rule) if one.state == "folded" else one for one in said]
            for event_id, said in self.expected.items()
        }
        assert found.keys() == wanted.keys()
        wrong = [(one, found[one], said) for one, said in wanted.items() if found[one] != said]
        assert not wrong, wrong

    @invariant()
    def no_cap_is_exceeded(self) -> None:
        if not self.processes:
            return
        query = self.processes[0].store.connection.execute
        versions = dict(query("SELECT id, version FROM rulesets").fetchall())
        people = {one.id: one for several in self.people.values() for one in several}
        told: dict[tuple[Any, ...], list[int]] = defaultdict(list)
        calendar: dict[tuple[Any, ...], int] = defaultdict(int)
        for _, state, reason, due, route, accepted_at, payload, recipient, ruleset in query(ALERTS):
            if state not in ("queued", "sending", "held") or (reason or "").startswith("storm"):
                continue
            answer = decode_event(payload.encode(), 1)
            assert isinstance(answer, Accepted)
            to, at = people[recipient], accepted_at if due is None else due
            for one in self.by_version[versions[ruleset]].values():
                if one["effect"] in ("cap", "min_gap", "dedup") and matches(one, answer.event, to):
                    for channel in counted_on(one, route.split(",")):
                        who = (one["id"], *scope(one, answer.event, to, channel))
                        if "window" in one:
                            calendar[(*who, window_of(one, to.timezone, at))] += 1
                        else:
                            told[who].append(at)
        most = {name: one for rules in self.by_version.values() for name, one in rules.items()}
        limits: dict[str, int] = defaultdict(int)
        for rules in self.by_version.values():
            for name, one in rules.items():
                limits[name] = max(limits[name], one.get("limit", 1))
        assert all(number <= limits[who[0]] for who, number in calendar.items())
        for who, moments in told.items():
            moments.sort()
            one, limit = most[who[0]], limits[who[0]]
            span = length(one) or (one["rolling_hours"] * 60 + one.get("rolling_minutes", 0)) * 60_000
            # Of any so many and one, the first and the last are a whole window apart.
            assert all(late - early >= span for early, late in zip(moments, moments[limit:], strict=False))


RulesMachine.TestCase.settings = settings(max_examples=EXAMPLES, stateful_step_count=STEPS, deadline=None)
TestRulesMachine = RulesMachine.TestCase
