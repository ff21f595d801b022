"""A ledger filled by the code that decides in production, over some weeks of made-up traffic."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from dispatcher.admission import Admitter
from dispatcher.digests import as_event
from dispatcher.events import Accepted
from dispatcher.ledger.api import Admission
from dispatcher.ledger.sqlite import SqliteStore
from dispatcher.ledger.sqlite_admit import Admitting
from dispatcher.ledger.sqlite_history import history
from dispatcher.model.event import Event
from dispatcher.model.recipient import RecipientLine
from ratelimit.effects import Storm
from ratelimit.rules import Rules, load_rules
from replay.memory import Memory
from replay.prediction import Prediction
from replay.whatif import RecordedBrownOut, WhatIf, warm_up_ms
from templates.library import Library
from tests.dispatcher.ledger_kit import accepted_line

LIBRARY = Library.load()
CHANNELS = {"wechat": False, "sms": True, "wechat_service": False}
START = datetime(2026, 10, 20, 4, tzinfo=UTC)
"""Before the nights on which clocks go back, in Europe and in America."""

ZONES = ("America/New_York", "Asia/Shanghai")


def ms(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)


class Bank:
    """A ledger and the rules that are in force for it."""

    def __init__(self, path: Path, rules: str, brownouts: Mapping[str, RecordedBrownOut] | None = None) -> None:
        self.path = str(path)
        self.brownouts = dict(brownouts or {})
        self.store = SqliteStore(self.path)
        self.store.begin()
        self.owner = self.store.register("test", 0, ms(START) + 10**11)
        self.store.commit()
        self.put_in_force(rules)

    def put_in_force(self, rules: str) -> None:
        self.rules = load_rules(rules, "t")
        self.admitter = Admitter(self.rules, LIBRARY, CHANNELS, self.brownouts)
        self.store.begin()
        self.store.ruleset(self.rules.version_id, self.rules.content, ms(START))
        self.store.commit()

    def recipients(self, *lines: RecipientLine) -> None:
        self.store.begin()
        self.store.import_recipients(lines)
        self.store.commit()

    def admit(self, moment: datetime, *events: Accepted) -> Admission:
        self.tell_digests(ms(moment))
        return self._admit(ms(moment), events)

    def tell_digests(self, now_ms: int) -> None:
        """Tell those that were due by now, each most of a second after that."""
        query = "SELECT min(due_at) FROM digests WHERE state IN ('open', 'closing')"
        while (due_ms := self.store.connection.execute(query).fetchall()[0][0]) is not None and due_ms < now_ms:
            told_ms = due_ms + 700
            self.store.begin()
            due = self.store.take_digests(told_ms, self.owner, 100)
            self.store.commit()
            self._admit(told_ms, [as_event(digest, told_ms) for digest in due])
            self.store.begin()
            self.store.digests_sent([digest.id for digest in due])
            self.store.commit()

    def _admit(self, now_ms: int, events: Sequence[Accepted]) -> Admission:
        self.store.begin()
        admission = self.store.admit(Admitting(events, now_ms, self.owner, self.admitter))
        self.store.commit()
        return admission

    def what_if(self, draft: str | Rules, since: datetime, until: datetime) -> Prediction:
        rules = load_rules(draft, "draft") if isinstance(draft, str) else draft
        brownouts = {name: RecordedBrownOut(one.terms) for name, one in self.brownouts.items()}
        memory = Memory(day_totals=any(isinstance(rule, Storm) for rule in rules.rule))
        run = WhatIf(Admitter(rules, LIBRARY, CHANNELS, brownouts), memory, brownouts)
        with history(self.path) as past:
            return run.run(past, ms(since), ms(until), warm_up_ms(rules.rule))


def people(count: int) -> list[RecipientLine]:
    """Accounts in two zones; every fourth has a supplementary card, whose recipient lives in the other one."""
    lines = []
    for number in range(count):
        account = f"A-{number}"
        lines.append(
            RecipientLine(account=account, timezone=ZONES[number % 2], openid=f"o-{number}", phone="+8613800138000")
        )
        if number % 4 == 0:
            zone = ZONES[1 - number % 2]
            lines.append(RecipientLine(account=account, role="child", timezone=zone, openid=f"c-{number}"))
    return lines


def event(number: int, moment: datetime, account: str, **fields: object) -> Accepted:
    given = {
        "id": f"e-{number}",
        "account": account,
        "amount": 5000,
        "currency": "CNY",
        "time": moment.isoformat(),
        "type": "purchase",
        "merchant": f"m-{number % 3}",
    }
    return accepted_line(json.dumps(given | fields).encode())


def traffic(count: int, accounts: int, days: float, seed: int = 1) -> Iterable[tuple[datetime, Sequence[Accepted]]]:
    """Batches of events over ``days``: bursts and pauses, three categories, some swipes told late, some taken back."""
    rng = random.Random(seed)
    number = 0
    told: list[Event] = []
    moments = sorted(rng.uniform(0, days * 86_400) for _ in range(count // 4))
    for seconds in moments:
        moment = START + timedelta(milliseconds=round(seconds * 1000))
        batch = []
        before = number - 1
        for _ in range(rng.randint(1, 7)):
            account = f"A-{min(rng.randrange(accounts), rng.randrange(accounts))}"
            late = timedelta(hours=rng.choice([0, 0, 0, 0, 0, 0, 0, 1, 30, 80]))
            fields: dict[str, object] = {
                "amount": rng.choice([990, 5000, 12_000, 12_000, 40_000]),
                "category": rng.choice(["swipe", "swipe", "swipe", "swipe", "service", "promotion"]),
            }
            if before >= 0 and rng.random() < 0.1:
                back = told[before]
                account = back.account
                fields |= {"type": "reversal", "refers_to": back.id, "amount": -back.amount}
            batch.append(event(number, moment - late, account, **fields))
            told.append(batch[-1].event)
            number += 1
        yield moment, batch
