"""Digests that the draft of a what-if gathers, and which of them the record has told. Pure.

The record says when a digest left, which is a moment after it was due. So a digest of the draft that was really told is
told again at that moment, and only one that was not is told when it is due.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator

import msgspec

from dispatcher.events import Accepted
from dispatcher.ledger.sqlite_history import PastAlert
from dispatcher.model.event import DIGEST, DigestFacts, Event
from dispatcher.model.recipient import Recipient
from ratelimit.decision import Fold
from replay.times import moment_of

PATIENCE_MS = 10 * 60_000
"""How long after it was due the record may tell a digest: the service looks every few seconds, and may have been
restarted."""

_Key = tuple[str, str, str]


class _Gathering(msgspec.Struct):
    """``due_ms`` None: it comes from before the period, and only the record knows. ``category`` is that of all members,
    empty when they are of several."""

    recipient: Recipient
    due_ms: int | None
    members: int
    category: str
    closed: bool = False
    told: bool = False


class PendingDigests:
    """By account, role and rule, as the ledger gathers them; several of one kind when the record is late."""

    def __init__(self) -> None:
        self._open: dict[_Key, list[_Gathering]] = {}
        # (due, which, key, it): once for each that the draft gathers, and once more when it closes before its time.
        self._due: list[tuple[int, int, _Key, _Gathering]] = []
        self._made = 0

    def __len__(self) -> int:
        """Those of the draft that are still gathering, or wait to be told."""
        return sum(one.due_ms is not None for several in self._open.values() for one in several)

    def fold(self, account: str, category: str, recipient: Recipient, fold: Fold, now_ms: int) -> None:
        """The draft folds an alert of this recipient and category."""
        key = (account, recipient.role, fold.rule)
        several = self._open.setdefault(key, [])
        last = several[-1] if several else None
        # As in the ledger: until somebody takes it, one that is due takes members.
        if last is None or last.closed:
            last = _Gathering(recipient, fold.due_ms, 0, category)
            several.append(last)
            self._remember(key, last, fold.due_ms)
        last.members += 1
        if last.category != category:
            last.category = ""
        if fold.count is not None and last.members >= fold.count:
            last.closed = True
            last.due_ms = now_ms
            self._remember(key, last, now_ms)

    def fold_recorded(self, account: str, alert: PastAlert) -> None:
        """An alert was folded before the period."""
        if alert.recipient is not None:
            several = self._open.setdefault((account, alert.recipient.role, alert.rule), [])
            if not several:
                several.append(_Gathering(alert.recipient, None, 0, ""))
            several[-1].members += 1

    def told(self, account: str, digest: DigestFacts) -> DigestFacts | None:
        """The record tells a digest. If the draft has gathered one like it, that is thereby told: its facts, with the
        category of what the draft has folded, where it knows all of that. None: it has gathered none."""
        key = (account, digest.role, digest.rule)
        if key not in self._open:
            return None
        one = self._open[key][0]
        self._take_out(key, one)
        return digest if one.due_ms is None else msgspec.structs.replace(digest, category=one.category)

    def overdue(self, now_ms: int) -> Iterator[tuple[int, Accepted, Recipient]]:
        """Take out those that the record should have told by now: when they were due, the event, and for whom."""
        while self._due and self._due[0][0] + PATIENCE_MS <= now_ms:
            due_ms, _, key, one = heapq.heappop(self._due)
            if one.told:
                continue
            self._take_out(key, one)
            event = Event(
                id="what-if:digest",
                account=key[0],
                amount=0,
                currency="CNY",
                time=moment_of(due_ms),
                type=DIGEST,
                category=DIGEST,
                digest=DigestFacts(key[1], one.members, {}, due_ms, due_ms, key[2], category=one.category),
            )
            yield due_ms, Accepted(event, b"", due_ms), one.recipient

    def _remember(self, key: _Key, one: _Gathering, due_ms: int) -> None:
        self._made += 1
        heapq.heappush(self._due, (due_ms, self._made, key, one))

    def _take_out(self, key: _Key, one: _Gathering) -> None:
        one.told = True
        left = [other for other in self._open[key] if other is not one]
        if left:
            self._open[key] = left
        else:
            del self._open[key]
