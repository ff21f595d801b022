"""Recorded events through other send rules: nothing is sent and nothing is written.

The events come in the order of their admission, each at the moment at which it was accepted, to the recipients whom
the ledger had found for it, and through the code that decides in admission. Two things of that time are not decided
again but taken from the record: how far a channel was browned out, and when a digest left.

The draft starts with the counters that the recorded alerts would have left: before the period its rules count what was
really told, at the moment at which it was told, and nothing that was not. So a draft that is equal to the rules of that
time meets the counters that they had met, and predicts what they decided.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

import msgspec

from dispatcher.admission import Admitter
from dispatcher.events import Accepted
from dispatcher.ledger.api import Decisions, Draft
from dispatcher.ledger.sqlite_history import PastAlert, PastEvent
from dispatcher.model.event import OWN_ID_PREFIX, Event
from dispatcher.model.recipient import Recipient
from ratelimit.brownout import BrownOutTerms
from ratelimit.effects import Cap, Dedup, ExpireAfter, MinGap, QuietHours, Rule, Storm
from ratelimit.rulefile import DEFAULT_EXPIRE_AFTER_SECONDS
from ratelimit.rules import SERVICE
from replay.decided import Decided, of_draft, of_record
from replay.memory import Memory
from replay.pending import PendingDigests
from replay.prediction import Prediction
from replay.times import moment_of

DAY_MS = 86_400_000
HOUR_MS = 3_600_000

WINDOWS_MS = {"day": DAY_MS, "week": 7 * DAY_MS, "month": 31 * DAY_MS}
"""The longest that a calendar window may be, but for the hour that a clock may be set back in it."""

VOLUME_MS = 8 * DAY_MS
"""A volume rule looks at the same hour of the last seven days."""

EVENT_KEYS = ("storm|", "volume|")
"""How the keys of counters begin that count events and not what was told."""

_event = msgspec.json.Decoder(Event)


class Past(Protocol):
    """Where the events come from: `dispatcher.ledger.sqlite_history.History`."""

    def between(self, since_ms: int, until_ms: int) -> Iterable[list[PastEvent]]:
        """See `History.between`."""


class RecordedBrownOut:
    """A channel whose quota ran low when the ledger says so: ``level`` is set for each event."""

    def __init__(self, terms: BrownOutTerms) -> None:
        self.terms = terms
        self.level = 0

    def took_away(self, step: str) -> None:
        """See `dispatcher.admission.BrownOut`; there is nobody to be told."""


def warm_up_ms(rules: Sequence[Rule]) -> int:
    """How long before a period the draft has to begin to count, in ms: its longest window, and as much more as an
    alert may have been held into it."""
    longest, holds, counts_days = 0, False, False
    expiry_ms = DEFAULT_EXPIRE_AFTER_SECONDS * 1000
    for rule in rules:
        match rule:
            case Cap():
                window = WINDOWS_MS[rule.window] + HOUR_MS if rule.window is not None else rule.rolling_seconds * 1000
                longest, holds = max(longest, window), holds or rule.at_cap == "hold"
            case MinGap():
                longest, holds = max(longest, rule.total_seconds * 1000), holds or rule.at_gap == "hold"
            case Dedup():
                longest = max(longest, rule.total_seconds * 1000)
            case QuietHours():
                holds = holds or rule.then == "hold"
            case Storm():
                reach = VOLUME_MS if rule.volume_times is not None else (rule.minutes or 0) * 60_000
                longest, counts_days = max(longest, reach), counts_days or rule.volume_times is None
            case ExpireAfter():
                expiry_ms = max(expiry_ms, rule.total_seconds * 1000)
            case _:
                pass
    if counts_days:
        # For the first swipes of a local day, which no storm rule looks at; the latest of them came as old as may be.
        longest = max(longest, DAY_MS + HOUR_MS + expiry_ms)
    return longest + expiry_ms if longest and holds else longest


class WhatIf:
    """One run. ``admitter`` has the draft and ``brownouts`` (by channel); the outcome is in ``prediction``."""

    def __init__(self, admitter: Admitter, memory: Memory, brownouts: Mapping[str, RecordedBrownOut]) -> None:
        self.prediction = Prediction()
        self._admitter = admitter
        self._memory = memory
        self._brownouts = brownouts
        self._pending = PendingDigests()

    def run(
        self, past: Past, since_ms: int, until_ms: int, warm_ms: int, progress: Callable[[int], None] = lambda _: None
    ) -> Prediction:
        """Predict the period; ``progress`` is told how many events were read each time."""
        for batch in past.between(since_ms - warm_ms, until_ms):
            before = [event for event in batch if event.accepted_at < since_ms]
            for event in before:
                self._count(event)
            for group, level in _groups([event for event in batch if event.accepted_at >= since_ms]):
                self._predict(group, level)
            progress(len(batch))
        self._tell_digests(until_ms)
        self.prediction.gathering = len(self._pending)
        return self.prediction

    # ---- before the period ------------------------------------------------------------------------------------

    def _count(self, past: PastEvent) -> None:
        """Count what was told, when it was told, on the channels that it could take; of the others only the event."""
        accepted = accepted_again(past)
        now_ms = past.accepted_at
        told = [as_told(alert) for alert in past.alerts if alert.state == "send"]
        if told:
            self._decide([accepted], told, now_ms, events=False)
        if self._memory.day_totals:  # after what was told, which must not see itself as an event before it
            self._decide([accepted], recipients_of(past.alerts), now_ms, told=False)
        for alert in past.alerts:
            if alert.state == "folded" and not _taken_back(alert):
                self._pending.fold_recorded(past.account, alert)
            elif alert.state == "held" and "storm" not in alert.saw and alert.until is not None:
                self._decide([accepted], [as_told(alert)], alert.until, events=False)
        if accepted.event.digest is not None:
            self._pending.told(past.account, accepted.event.digest)

    # ---- in the period ----------------------------------------------------------------------------------------

    def _predict(self, group: Sequence[PastEvent], level: int) -> None:
        now_ms = group[0].accepted_at
        self._tell_digests(now_ms)
        for brownout in self._brownouts.values():
            brownout.level = level
        prediction = self.prediction
        again = [accepted_again(past) for past in group]
        if (digest := again[0].event.digest) is not None:  # always a group of its own
            prediction.digests += 1
            gathered = self._pending.told(group[0].account, digest)
            if gathered is None:
                return self._without(group[0])
            prediction.digests_predicted += 1
            event = msgspec.structs.replace(again[0].event, digest=gathered)
            again = [Accepted(event, again[0].payload, again[0].swiped_ms)]
        people = {past.account: recipients_of(past.alerts) for past in group}
        drafts = self._decide(again, people, now_ms).drafts
        for past, accepted, decided in zip(group, again, drafts, strict=True):
            prediction.events += 1
            for alert, draft in zip(past.alerts, decided, strict=True):
                prediction.rulesets[alert.ruleset] += 1
                recorded = of_record(alert)
                prediction.compare(past.account, now_ms, recorded, _predicted(draft, alert, recorded))
                if draft.fold is not None and draft.recipient is not None and not _taken_back(alert):
                    self._pending.fold(past.account, accepted.event.category, draft.recipient, draft.fold, now_ms)
        return None

    def _without(self, past: PastEvent) -> None:
        """A digest that was told and that the draft would not have gathered."""
        for alert in past.alerts:
            self.prediction.recorded.add(of_record(alert), past.accepted_at)

    def _tell_digests(self, now_ms: int) -> None:
        """Digests that the draft gathered and of which the record knows nothing: told when they are due."""
        for due_ms, accepted, recipient in self._pending.overdue(now_ms):
            drafts = self._decide([accepted], [recipient], due_ms).drafts
            self.prediction.digests_predicted += 1
            for draft in drafts[0]:
                self.prediction.predicted.add(of_draft(draft), due_ms)

    # ---- both -------------------------------------------------------------------------------------------------

    def _decide(
        self,
        batch: Sequence[Accepted],
        people: Mapping[str, Sequence[Recipient]] | Sequence[Recipient],
        now_ms: int,
        *,
        events: bool = True,
        told: bool = True,
    ) -> Decisions:
        """Decide, and keep what that counts: of ``events``, of what is ``told``, or of both."""
        recipients = people if isinstance(people, Mapping) else {batch[0].event.account: people}
        decisions = self._admitter(batch, recipients, now_ms)(self._memory)
        counters, marks = decisions.counters, decisions.marks
        if not (events and told):
            counters = {key: value for key, value in counters.items() if key.startswith(EVENT_KEYS) is events}
        self._memory.keep(counters, marks if told else {}, decisions.totals if events else {}, now_ms)
        return decisions


def accepted_again(past: PastEvent) -> Accepted:
    """The event as the door gave it to admission."""
    event = _event.decode(past.payload)
    time = moment_of(past.swiped_at)  # what it was decided with, where recorded data got a new one
    return Accepted(msgspec.structs.replace(event, time=time), past.payload.encode(), past.swiped_at)


def recipients_of(alerts: Sequence[PastAlert]) -> list[Recipient]:
    """Whom the ledger had found."""
    return [alert.recipient for alert in alerts if alert.recipient is not None]


def as_told(alert: PastAlert) -> Recipient:
    """The recipient with no other channels than those that this alert could take, as far as they are known."""
    assert alert.recipient is not None
    if not alert.route:
        return alert.recipient
    channels = tuple(channel for channel in alert.route if channel != SERVICE)
    return msgspec.structs.replace(alert.recipient, channels=channels)


def _predicted(draft: Draft, alert: PastAlert, recorded: Decided) -> Decided:
    """What the draft says. Of an alert that a reversal ended at once the ledger only knows that no rule suppressed it,
    so a draft that does not suppress it either has said the same."""
    predicted = of_draft(draft)
    return recorded if alert.unsure and predicted.state in ("send", "held", "folded") else predicted


def _taken_back(alert: PastAlert) -> bool:
    """Whether it is in no digest, although a rule folds it."""
    return alert.taken_back or alert.unsure


def _groups(batch: Sequence[PastEvent]) -> Iterable[tuple[list[PastEvent], int]]:
    """Runs of events that admission may decide together, with the brown-out level of that moment: accepted at the same
    time, and no account with two sets of recipients. A digest's event stands alone."""
    group: list[PastEvent] = []
    level = 0
    accounts: dict[str, list[Recipient]] = {}
    for past in batch:
        people = recipients_of(past.alerts)
        its_level = max((alert.saw.get("brownout", 0) for alert in past.alerts), default=0)
        alone = past.id.startswith(OWN_ID_PREFIX)
        if group and (
            alone
            or group[0].id.startswith(OWN_ID_PREFIX)
            or past.accepted_at != group[0].accepted_at
            or its_level != level
            or accounts.get(past.account, people) != people
        ):
            yield group, level
            group, accounts = [], {}
        group.append(past)
        level = its_level
        accounts[past.account] = people
    if group:
        yield group, level
