"""Recorded swipes through the shipped rules: what the ledger's books say equals a recount from what it stored."""

from __future__ import annotations

import gzip
import itertools
import json
import os
import tomllib
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from dispatcher.admission import Admitter
from dispatcher.events import Accepted, decode_lines
from dispatcher.ledger.sqlite import SqliteStore
from dispatcher.ledger.sqlite_admit import Admitting
from dispatcher.ledger.sqlite_history import history
from dispatcher.model.event import Event
from dispatcher.model.recipient import ConsentWord, Recipient, RecipientLine
from ratelimit.effects import Storm
from ratelimit.rulefile import default_rules_text, load_rules
from replay.memory import Memory
from replay.prediction import Prediction
from replay.whatif import WhatIf, warm_up_ms
from templates.library import Library
from tests.ratelimit.oracle import Oracle

EVENTS = 200_000 if os.environ.get("SWIPEBELL_SOAK") else 5_000
"""In the suite a part of it; `make soak` takes all."""

SOURCES = (("birmingham-2014-2018.ndjson.gz", 0.09), ("sparkov-2023h1.ndjson.gz", 0.91))
"""What is recorded, and which part of the events is taken from it."""

CHANNELS = {"wechat": False, "sms": True}
PART = 1 if EVENTS == 200_000 else 9
"""One account in so many, so that a part of the events is several weeks of it."""

BATCH = 256
BATCH_MS = 3_600_000
"""The longest time in which a batch of recorded swipes came."""

LONGEST_MS = 32 * 24 * BATCH_MS
"""No window of the shipped rules is longer than a month, so a recount need not look further back."""

OTHERS = ("promotion", "service", "statement", "repayment", "broadcast")
"""Categories that a tenth of the swipes are given, for the rules that speak of them."""

ZONES = ("Asia/Shanghai", "America/New_York", "Europe/London", "Pacific/Apia", "No/Where")
JOIN = (
    "SELECT e.seq, e.payload, e.accepted_at, r.card FROM events e JOIN alerts a ON a.id / 16 = e.seq"
    " JOIN recipients r ON r.id = a.recipient ORDER BY a.id"
)


def recorded(folder: Path) -> Iterator[bytes]:
    """Real swipes by their time, some of them in another category or currency."""
    for name, part in SOURCES:
        with gzip.open(folder / name, "rb") as stream:
            mine = (event for event in map(json.loads, stream) if zlib.crc32(event["account"].encode()) % PART == 0)
            events = list(itertools.islice(mine, round(EVENTS * part)))
        for event in sorted(events, key=lambda event: datetime.fromisoformat(event["time"])):
            lot = zlib.crc32(event["id"].encode())
            if lot % 10 == 0:
                event["category"] = OTHERS[lot // 10 % len(OTHERS)]
            if lot % 3 == 0:
                event["currency"] = "CNY"
            yield json.dumps(event).encode()


def in_batches(folder: Path) -> Iterator[list[Accepted]]:
    batch: list[Accepted] = []
    for one in decode_lines(list(enumerate(recorded(folder), 1))).accepted:
        if batch and (len(batch) == BATCH or not 0 <= one.swiped_ms - batch[0].swiped_ms < BATCH_MS):
            yield batch
            batch = []
        batch.append(one)
    yield batch


def somebody(account: str) -> Iterator[RecipientLine]:
    """One or two recipients of an account, with wishes of their own."""
    lot = zlib.crc32(account.encode())
    for place, role in enumerate(("primary", "second")[: 2 if lot % 7 == 0 else 1]):
        word = ConsentWord(lot % 2 == 0, datetime(2012, 1, 1, tzinfo=UTC), "form")
        yield RecipientLine(
            account=account,
            role=role,
            openid=None if lot % 11 == 0 else f"o-{account}-{role}",
            phone="+8613800000000",
            timezone=ZONES[(lot // 3 + place) % len(ZONES)],
            channels=("sms", "wechat") if lot % 5 == 0 else ("wechat", "sms"),
            min_amount={"sms": {"CNY": 20_000}} if lot % 13 == 0 else {},
            opt_out=("broadcast",) if lot % 17 == 0 else (),
            consents={"promotion": word} if lot % 3 else {},
        )


class Told:
    """A ledger with all that was recorded, decided by the shipped rules as it came."""

    def __init__(self, folder: Path, data: Path) -> None:
        self.path = folder / "ledger.db"
        self.rules = load_rules(default_rules_text(), "default_rules.toml")
        self.store = SqliteStore(str(self.path))
        self.store.connection.execute("PRAGMA synchronous=OFF")  # no power fails in a test
        decide = Admitter(self.rules, Library.load(), CHANNELS)
        self.moments: list[int] = []
        known: set[str] = set()
        owner = 0
        for batch in in_batches(data):
            now = max(one.swiped_ms for one in batch)
            self.store.begin()
            if not owner:
                self.store.ruleset(self.rules.version_id, self.rules.content, now)
                owner = self.store.register("recount", now, 2**60)
            new = {one.event.account for one in batch} - known
            known |= new
            self.store.import_recipients([line for one in sorted(new) for line in somebody(one)], now)
            self.store.admit(Admitting(batch, now, owner, decide))
            self.store.commit()
            self.moments.append(now)


def recount(told: Told) -> Counter[tuple[str, str | None]]:
    """How many alerts end up how and why, worked out again from the stored events and cards, account by account."""
    rules: list[dict[str, Any]] = tomllib.loads(default_rules_text())["rule"]
    oracles: dict[str, Oracle] = defaultdict(lambda: Oracle(CHANNELS))
    counts: Counter[tuple[str, str | None]] = Counter()
    rows = told.store.connection.execute(JOIN)
    for _, several in itertools.groupby(rows, key=lambda row: row[0]):
        _, payloads, times, cards = zip(*several, strict=True)
        event = msgspec.json.decode(payloads[0], type=Event)
        people = [msgspec.json.decode(card, type=Recipient) for card in cards]
        oracle = oracles[event.account]
        while oracle.past and times[0] - oracle.past[0].at > LONGEST_MS:
            del oracle.past[0]
        for said in oracle.event(rules, event, people, times[0]):
            counts["suppressed" if said.state == "folded" else said.state, said.rule] += 1
    return counts


def what_if(told: Told, since_ms: int) -> Prediction:
    """What the unchanged rules would do to the events from ``since_ms`` on."""
    admitter = Admitter(told.rules, Library.load(), CHANNELS)
    memory = Memory(day_totals=any(isinstance(rule, Storm) for rule in told.rules.rule))
    with history(str(told.path)) as past:
        return WhatIf(admitter, memory, {}).run(past, since_ms, told.moments[-1] + 1, warm_up_ms(told.rules.rule))


def test_the_books_equal_a_recount_and_what_if_predicts_what_happened(tmp_path: Path, shared_data: Path) -> None:
    # Given recorded swipes, some of them in the categories that the shipped rules speak of
    told = Told(tmp_path, shared_data)

    # When their alerts are counted from the ledger's rows, and worked out again from the events and the cards alone
    rows = told.store.connection.execute("SELECT state, reason FROM alerts").fetchall()
    found = Counter(("send" if state in ("queued", "sending") else state, reason) for state, reason in rows)
    again = recount(told)

    # Then both are the same, rule by rule, and so are the books
    assert found == again
    books = told.store.books()
    assert books.balanced
    assert books.events == EVENTS
    assert books.suppressed_by == {reason: count for (state, reason), count in again.items() if state == "suppressed"}
    told.store.close()

    # And the unchanged rules would do the same again, to all of it and to its second half
    whole, half = (what_if(told, since) for since in (told.moments[0], told.moments[len(told.moments) // 2]))
    assert whole.changed == half.changed == 0
    assert whole.predicted.counts == whole.recorded.counts
    assert half.predicted.counts == half.recorded.counts
    assert 0 < half.alerts < whole.alerts == len(rows)
    kept_back = {key: count for key, count in whole.predicted.counts.items() if key[0] != "sent"}
    assert kept_back == {key: count for key, count in again.items() if key[0] != "send"}
