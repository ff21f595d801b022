"""What the ledger remembers of its decisions, whatever became of the alerts since."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from dispatcher.errors import LedgerUnavailable
from dispatcher.events import Accepted
from dispatcher.ledger import sqlite_history
from dispatcher.ledger.api import Counted, Decisions, Draft
from dispatcher.ledger.sqlite import SqliteStore
from dispatcher.ledger.sqlite_admit import Admitting
from dispatcher.ledger.sqlite_history import CLOCK_SLACK_MS, PastEvent, as_it_was, history
from dispatcher.model.recipient import Consent, Recipient, Refusal
from ratelimit.decision import Fold
from tests.dispatcher.ledger_kit import NOW, accepted, in_halves, recipient, step

HOUR_MS = 3_600_000
LATER = NOW + HOUR_MS


class Filled:
    """A ledger in which each event is decided as the test says."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self.store = SqliteStore(self.path)
        self.store.connection.execute("PRAGMA synchronous=OFF")  # no power fails in here
        self.store.begin()
        self.owner = self.store.register("test", NOW, NOW + 1_000_000_000)
        self.store.import_recipients([recipient()])
        self.store.ruleset("r1", "{}", NOW)
        self.store.commit()

    def admit(self, *events: Accepted, now_ms: int = NOW, **draft: object) -> list[object]:
        """Admit with one decision for all; returns what is leased."""

        @in_halves
        def decide(
            batch: Sequence[Accepted], told: Mapping[str, Sequence[Recipient]], now_ms: int, counted: Counted
        ) -> Decisions:
            given = {"reason": None, "route": ("wechat", "sms"), "expires_ms": LATER, "template": "swipe@1"} | draft
            return Decisions([[Draft(recipient=one, **given) for one in told["A-1"]] for _ in batch], {})

        self.store.begin()
        admission = self.store.admit(Admitting(events, now_ms, self.owner, decide))
        self.store.commit()
        return list(admission.alerts)

    def read(self, since: int = 0, until: int = LATER) -> list[PastEvent]:
        with history(self.path) as past:
            return [event for batch in past.between(since, until) for event in batch]


@pytest.fixture
def filled(tmp_path: Path) -> Iterator[Filled]:
    made = Filled(tmp_path / "ledger.db")
    yield made
    made.store.close()


@pytest.mark.parametrize(
    ("draft", "state", "rule", "route"),
    [
        ({"state": "sending"}, "send", "", ("wechat", "sms")),
        ({"state": "held", "reason": "night", "due_ms": LATER - 1}, "held", "night", ("wechat", "sms")),
        ({"state": "suppressed", "reason": "daily", "route": ()}, "suppressed", "daily", ()),
        (
            {"state": "suppressed", "reason": "many", "route": (), "fold": Fold("many", LATER, None)},
            "folded",
            "many",
            (),
        ),
        ({"state": "expired", "reason": "old", "saw": {"age_seconds": 9}}, "expired", "old", ("wechat", "sms")),
    ],
)
def test_each_kind_of_decision_is_read_as_it_was_made(
    filled: Filled, draft: dict[str, object], state: str, rule: str, route: tuple[str, ...]
) -> None:
    # Given an event that was decided so, When it is read, Then it says so
    filled.admit(accepted("e-1"), **draft)
    ((alert,),) = [event.alerts for event in filled.read()]
    assert (alert.state, alert.rule, alert.route) == (state, rule, route)
    assert alert.until == draft.get("due_ms")


def test_what_became_of_an_alert_is_taken_back(filled: Filled) -> None:
    # Given alerts that were sent: one failed, one expired in its lane, one was delivered
    alerts = filled.admit(*(accepted(f"e-{n}") for n in range(3)), state="sending")
    filled.store.begin()
    filled.store.record(
        [
            step(alerts[0], "failed", reason="permanent", outcome="permanent"),  # type: ignore[arg-type]
            step(alerts[1], "expired", reason="default-expiry"),  # type: ignore[arg-type]
            step(alerts[2], "delivered"),  # type: ignore[arg-type]
        ],
        filled.owner,
    )
    filled.store.commit()
    # When they are read, Then the rules had said of all three that they may go
    assert [event.alerts[0].state for event in filled.read()] == ["send"] * 3


def test_a_reversal_changes_nothing_that_the_rules_had_decided(filled: Filled) -> None:
    # Given a purchase that was held, and its reversal, which cancels it and is suppressed beside it
    filled.admit(accepted("e-1"), state="held", reason="night", due_ms=LATER - 1)
    filled.admit(accepted("e-2", type="reversal", amount=-7261, refers_to="e-1"), state="queued")
    # When both are read, Then the purchase was held and the reversal was to be sent
    first, second = (event.alerts[0] for event in filled.read())
    assert (first.state, first.rule, first.until) == ("held", "night", LATER - 1)
    assert (second.state, second.route) == ("send", ("wechat", "sms"))


def test_the_period_is_found_by_halves_and_its_ends_are_exact(filled: Filled, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given several batches of events, an hour apart, of which two came out of order as two processes may have them
    monkeypatch.setattr(sqlite_history, "BATCH_EVENTS", 16)
    count = 70
    moments = [NOW + n * HOUR_MS for n in range(count)]
    moments[50] = moments[51] + CLOCK_SLACK_MS - 1  # and number 51 comes after it
    for n, moment in enumerate(moments):
        filled.admit(accepted(f"e-{n}"), now_ms=moment, state="sending")
    ends = [(moments[10], moments[20]), (moments[51], moments[60]), (0, moments[-1]), (moments[-1], LATER)]
    for since, until in ends:
        # When a period is read, Then it holds each event accepted in it, in order, and no other
        expected = [f"e-{n}" for n, moment in enumerate(moments) if since <= moment < until]
        assert [event.id for event in filled.read(since, until)] == expected
    with history(filled.path) as past:
        assert past.count(moments[10], moments[20]) == 10


def test_a_card_is_wound_back_to_the_moment_of_the_decision() -> None:
    # Given a recipient who was refused later, and who agreed, then objected, both later and earlier
    card = Recipient(
        1,
        "A-1",
        refused={"wechat": Refusal("43004", NOW + 5), "sms": Refusal("gone", NOW - 5)},
        service_until_ms=NOW + 99 * HOUR_MS,
        consents={"promotion": Consent(False, NOW + 7, "call 2")},
    )
    yes, no = Consent(True, NOW - 7, "form 1"), Consent(False, NOW + 7, "call 2")
    words = {("A-1", "primary"): [(NOW - 7, "promotion", yes), (NOW + 8, "promotion", no)]}
    # When it is wound back to before that
    before = as_it_was(card, NOW, False, words)
    # Then only what was known then is on it
    assert before.refused.keys() == {"sms"}
    assert before.consents == {"promotion": yes}
    assert before.service_until_ms == 0
    # And later all of it
    after = as_it_was(card, NOW + 9, True, words)
    assert (after.refused, after.consents) == (card.refused, {"promotion": no})
    assert after.service_until_ms > NOW + 9


def test_a_word_that_was_written_down_later_did_not_count_before() -> None:
    # Given a consent given on Monday and entered on Tuesday
    word = Consent(True, NOW, "form 1")
    card = Recipient(1, "A-1", consents={"promotion": word})
    words = {("A-1", "primary"): [(NOW + HOUR_MS, "promotion", word)]}
    # Then it did not count in between
    assert as_it_was(card, NOW + 1, False, words).consents == {}
    assert as_it_was(card, NOW + HOUR_MS, False, words).consents == {"promotion": word}


def test_a_plain_card_is_handed_on_as_it_is() -> None:
    card = Recipient(1, "A-1")
    assert as_it_was(card, NOW, False, {}) is card


def test_a_ledger_that_is_not_there_or_of_another_version_is_said(tmp_path: Path, filled: Filled) -> None:
    with pytest.raises(LedgerUnavailable, match="there is none yet"), history(str(tmp_path / "none.db")):
        pass
    assert not (tmp_path / "none.db").exists()
    filled.store.connection.execute("PRAGMA user_version=3")
    with pytest.raises(LedgerUnavailable, match="has layout 3, this Swipebell reads"), history(filled.path):
        pass


def test_reading_writes_nothing(filled: Filled) -> None:
    # Given a ledger that is open elsewhere, When somebody tries to write through the reader, Then it cannot
    with history(filled.path) as past:
        attempt: Callable[[], object] = lambda: past._rows("DELETE FROM events")  # noqa: E731
        with pytest.raises(LedgerUnavailable):
            attempt()


def test_since_when_a_version_is_in_force(filled: Filled) -> None:
    with history(filled.path) as past:
        assert past.in_force_since("r1") == NOW
        assert past.in_force_since("r2") is None
        assert list(past.rulesets().values()) == ["r1"]


def test_an_event_is_not_shown_in_a_traceback(filled: Filled) -> None:
    filled.admit(accepted("e-1", account="A-1"), state="sending")
    assert "A-1" not in repr(filled.read()[0])
