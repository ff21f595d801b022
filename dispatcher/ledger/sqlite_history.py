"""What was accepted and decided, in the order of admission: for what-if. Only reads, and holds up nobody.

Each batch is read in a view of its own, so that a ledger in use can go on cutting its log. What is read of an alert is
what the rules had decided about it; what became of it afterwards (a delivery, a reversal, an expiry in its lane) is
taken back.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import msgspec

from dispatcher.errors import LedgerUnavailable
from dispatcher.ledger.locks import BUSY_SECONDS
from dispatcher.ledger.sql import read_keys
from dispatcher.ledger.sqlite_open import CACHE_KIB, SCHEMA_VERSION, explained
from dispatcher.model.alert import ALERT_ID_BITS
from dispatcher.model.recipient import Consent, Recipient
from ratelimit.rulefile import REVERSED
from ratelimit.rules import SERVICE

BATCH_EVENTS = 512
"""Events read at a time: about 200 KB."""

CLOCK_SLACK_MS = 60_000
"""Sequence numbers go up with the time of acceptance, but two processes may differ by a moment, and a clock that was
set back by more. Events out of order by up to a minute are found."""

DecidedState = Literal["send", "held", "suppressed", "expired", "folded"]

EVENTS = (
    "SELECT seq, id, account, swiped_at, accepted_at, payload FROM events"
    " WHERE seq > ? AND seq <= ? ORDER BY seq LIMIT ?"
)
ALERTS = (
    "SELECT id, recipient, route, state, reason, saw, ruleset, ended_at FROM alerts"
    " WHERE id BETWEEN ? AND ? ORDER BY id"
)
# Both hold few rows in relation to the alerts, so they are not joined but read beside them.
HOLDS = "SELECT alert, rule, until FROM holds WHERE alert BETWEEN ? AND ?"
FOLDS = (
    "SELECT m.alert, d.rule, m.removed FROM digest_members m JOIN digests d ON d.id = m.digest"
    " WHERE m.alert BETWEEN ? AND ?"
)
CARDS = "SELECT card FROM recipients WHERE id IN ({keys})"
WORDS = (
    "SELECT json_array(account, role, key, given, at, source, written_at) FROM consent_log WHERE account IN ({keys})"
)

_card = msgspec.json.Decoder(Recipient)
_saw = msgspec.json.Decoder(dict[str, int])
_word = msgspec.json.Decoder(tuple[str, str, str, int, int, str, int])

Words = dict[tuple[str, str], list[tuple[int, str, Consent]]]
"""What recipients, by account and role, have said of being told: when it was written down, about what, and the word."""


class PastAlert(msgspec.Struct, frozen=True, gc=False):
    """What the rules decided about one alert when its event was accepted.

    ``recipient`` is the card as it was then as far as that is known (see `as_it_was`), None when there was nobody to
    tell. ``rule`` is the rule that decided, empty for ``send``; ``until`` (epoch ms) of a held one is until when.
    ``ruleset`` is the row of the rules in force. ``taken_back``: it was folded, and a reversal took it out of its
    digest again. ``unsure``: a reversal ended it in the transaction that admitted it, so that nobody wrote down whether
    the rules would have sent or held it (it stands as ``send``) or by which rule they would have folded it.
    """

    recipient: Recipient | None
    state: DecidedState
    rule: str
    route: tuple[str, ...]
    until: int | None
    saw: dict[str, int]
    ruleset: int
    taken_back: bool = False
    unsure: bool = False


class PastEvent(msgspec.Struct, frozen=True, gc=False):
    """An accepted event with what was decided; times are epoch ms."""

    seq: int
    id: str
    account: str
    swiped_at: int
    accepted_at: int
    payload: str
    alerts: tuple[PastAlert, ...]

    def __repr__(self) -> str:
        return f"<PastEvent {self.seq}>"


class History:
    """Made by `history`. Raises `LedgerUnavailable` or `LedgerFailed` whenever the file cannot be read."""

    def __init__(self, connection: sqlite3.Connection, path: str) -> None:
        self._connection = connection
        self._path = path

    def first_after(self, moment_ms: int) -> int:
        """The sequence number before the first event that may have been accepted at ``moment_ms`` or later."""
        low, high = self._ends()
        # By halves: of all seqs above `low` the first whose event is late enough; gaps are stepped over.
        while low < high:
            middle = (low + high) // 2
            row = self._rows("SELECT accepted_at FROM events WHERE seq > ? ORDER BY seq LIMIT 1", (middle,))
            if not row or row[0][0] >= moment_ms - CLOCK_SLACK_MS:
                high = middle
            else:
                low = middle + 1
        return low

    def between(self, since_ms: int, until_ms: int) -> Iterator[list[PastEvent]]:
        """The events accepted from ``since_ms`` to before ``until_ms``, in the order of their admission, in batches.
        What is accepted meanwhile is not looked at."""
        seq, last = self.first_after(since_ms), self._ends()[1]
        while True:
            with explained(self._path):
                # One view, so that no alert of these events can change between the two queries.
                self._connection.execute("BEGIN")
                try:
                    events = self._connection.execute(EVENTS, (seq, last, BATCH_EVENTS)).fetchall()
                    batch = self._with_alerts(events) if events else []
                finally:
                    self._connection.execute("COMMIT")
            if not events:
                return
            seq = events[-1][0]
            yield [event for event in batch if since_ms <= event.accepted_at < until_ms]
            if all(event.accepted_at >= until_ms + CLOCK_SLACK_MS for event in batch):
                return

    def count(self, since_ms: int, until_ms: int) -> int:
        """About how many events there are in a period, at once; for showing how far something is."""
        return max(0, self.first_after(until_ms) - self.first_after(since_ms))

    def rulesets(self) -> dict[int, str]:
        """The versions of rules that were ever in force, by row."""
        return dict(self._rows("SELECT id, version FROM rulesets"))

    def in_force_since(self, version: str) -> int | None:
        """When rules of this version were first in force (epoch ms); None: never."""
        found = self._rows("SELECT since FROM rulesets WHERE version=?", (version,))
        return int(found[0][0]) if found else None

    def active_rules(self) -> tuple[str, str] | None:
        """(version, rule file as it was written) of the rules that the ledger says are in force; None: it says none."""
        found = self._rows("SELECT version, content FROM rule_changes WHERE state='active'")
        return found[0] if found else None

    def _ends(self) -> tuple[int, int]:
        first, last = self._rows("SELECT coalesce(min(seq), 1), coalesce(max(seq), 0) FROM events")[0]
        return first - 1, last

    def _rows(self, query: str, parameters: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        with explained(self._path):
            return self._connection.execute(query, parameters).fetchall()

    def _words(self, accounts: Sequence[str]) -> Words:
        words: Words = {}
        for text in read_keys(self._connection, WORDS, accounts):
            account, role, key, given, at, source, written_at = _word.decode(text)
            words.setdefault((account, role), []).append((written_at, key, Consent(bool(given), at, source)))
        return words

    def _with_alerts(self, events: Sequence[tuple[Any, ...]]) -> list[PastEvent]:
        span = (events[0][0] << ALERT_ID_BITS, (events[-1][0] + 1 << ALERT_ID_BITS) - 1)
        rows = self._connection.execute(ALERTS, span).fetchall()
        holds = {alert: (rule, until) for alert, rule, until in self._connection.execute(HOLDS, span)}
        folds = {alert: (rule, removed) for alert, rule, removed in self._connection.execute(FOLDS, span)}
        told = sorted({row[1] for row in rows if row[1] is not None})
        cards = {card.id: card for card in map(_card.decode, read_keys(self._connection, CARDS, told))}
        words = self._words(sorted({card.account for card in cards.values() if card.consents}))
        alerts: dict[int, list[PastAlert]] = {event[0]: [] for event in events}
        accepted = {event[0]: event[4] for event in events}
        for row in rows:
            if (seq := row[0] >> ALERT_ID_BITS) in alerts:
                card = None if row[1] is None else cards.get(row[1])
                if card is not None:
                    card = as_it_was(card, accepted[seq], SERVICE in row[2].split(","), words)
                alerts[seq].append(_as_decided(row, card, holds.get(row[0]), folds.get(row[0]), accepted[seq]))
        return [
            PastEvent(seq, event_id, account, swiped_at, accepted_at, payload, tuple(alerts[seq]))
            for seq, event_id, account, swiped_at, accepted_at, payload in events
        ]


def as_it_was(card: Recipient, at_ms: int, service: bool, words: Words) -> Recipient:
    """The card at ``at_ms`` as far as it can be known: without what providers refused and recipients agreed to later.
    ``service``: whether WeChat took customer-service messages then. What a bank changed by an import (channels, zone,
    minimum) is as it is now, and a refusal that has been lifted or said again since is not known any more."""
    if not (card.refused or card.consents or service or card.service_until_ms):
        return card
    consents: dict[str, Consent] = {}
    for written_at, key, word in words.get((card.account, card.role), ()):
        known = consents.get(key)
        if written_at <= at_ms and (known is None or word.outweighs(known)):
            consents[key] = word
    return msgspec.structs.replace(
        card,
        refused={key: refusal for key, refusal in card.refused.items() if refusal.since < at_ms},
        service_until_ms=at_ms + 1 if service else 0,
        consents=consents,
    )


def _as_decided(
    row: tuple[Any, ...],
    recipient: Recipient | None,
    hold: tuple[str, int] | None,
    fold: tuple[str, str | None] | None,
    accepted_at: int,
) -> PastAlert:
    _, _, route, state, reason, saw, ruleset, ended_at = row
    seen = {} if saw is None else _saw.decode(saw)
    channels = tuple(name for name in route.split(",") if name)
    decided: DecidedState = "send"
    rule, until = "", None
    if hold is not None:
        decided, (rule, until) = "held", hold
    elif fold is not None:
        decided, rule = "folded", fold[0]
    elif state == "suppressed" and reason != REVERSED:
        decided, rule = "suppressed", reason
    elif state == "expired" and "age_seconds" in seen:
        decided, rule = "expired", reason
    taken_back = fold is not None and fold[1] is not None
    at_once = hold is None and fold is None and ended_at == accepted_at
    unsure = at_once and (state == "cancelled" or (state == "suppressed" and reason == REVERSED))
    if unsure and not channels:  # of what was not suppressed only a folded one has none
        decided, rule = "folded", REVERSED
    return PastAlert(recipient, decided, rule, channels, until, seen, ruleset, taken_back, unsure)


@contextmanager
def history(path: str) -> Iterator[History]:
    """Open the ledger at ``path`` for reading. Raises `LedgerUnavailable`: there is none, or it is of another
    version."""
    if not Path(path).exists():
        raise LedgerUnavailable(f"ledger {path}: there is none yet; nothing was ever accepted there")
    where = Path(path).absolute().as_uri() + "?mode=rw"  # a log can only be read by who may write
    with explained(path):
        connection = sqlite3.connect(where, BUSY_SECONDS, isolation_level=None, uri=True)
    try:
        with explained(path):
            connection.execute("PRAGMA query_only=ON")
            connection.execute(f"PRAGMA cache_size=-{CACHE_KIB}")
            version = connection.execute("PRAGMA user_version").fetchall()[0][0]
        if version != SCHEMA_VERSION:
            raise LedgerUnavailable(
                f"ledger {path}: has layout {version}, this Swipebell reads {SCHEMA_VERSION}; "
                "start the service of this version once, or run the version that wrote it"
            )
        yield History(connection, path)
    finally:
        connection.close()
