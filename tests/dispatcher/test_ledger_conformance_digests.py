"""What every ledger keeps, fifth part: every folded alert is in one digest, which is told once."""

from __future__ import annotations

from typing import Any

import pytest

from dispatcher.digests import as_event
from dispatcher.events import Accepted
from dispatcher.ledger.api import Draft, Ledger
from dispatcher.ledger.digests import DigestBooks, DueDigest
from dispatcher.ledger.worker import InlineLedger
from dispatcher.model.recipient import Recipient
from ratelimit.rules import Fold
from tests.dispatcher.ledger_kit import HOUR_MS, NOW, Tell, accepted, alert_story, owner_of, recipient, state_of

DUE = NOW + HOUR_MS
LIMIT = 100


class Folding(Tell):
    """Rules that fold every alert: into the digest of ``rule``, at once full with ``count`` members."""

    def __init__(self, rule: str = "evening", count: int | None = None, due_ms: int = DUE) -> None:
        super().__init__("suppressed", reason=rule)
        self.fold = Fold(rule, due_ms, count)

    def _draft(self, to: Recipient) -> Draft:
        return Draft(to, "suppressed", self.reason, (), self.expires_ms, "swipe@1", {"counter": 3}, fold=self.fold)


async def folded(ledger: Ledger, owner: int, *events: Accepted, now_ms: int = NOW, **how: Any) -> None:
    admission = await ledger.admit(events, now_ms, owner, Folding(**how))
    assert (admission.accepted, admission.alerts) == (len(events), [])


async def told(ledger: Ledger, owner: int, due: list[DueDigest], now_ms: int = DUE) -> None:
    """What `dispatcher.digests.Digests` does with them."""
    await ledger.admit([as_event(digest, now_ms) for digest in due], now_ms, owner, Tell())
    assert await ledger.digests_sent([digest.id for digest in due]) == len(due)


async def digests(ledger: Ledger) -> DigestBooks:
    books = await ledger.books()
    assert books.balanced
    return books.digests


@pytest.fixture
async def owner(ledger: Ledger) -> int:
    await ledger.import_recipients([recipient(), recipient("A-2")])
    return await owner_of(ledger)


async def test_alerts_of_one_recipient_become_one_digest_when_it_is_due(ledger: Ledger, owner: int) -> None:
    # Given five purchases, one in another currency and one declined, folded in three batches
    await folded(ledger, owner, accepted("e-1", amount=100), accepted("e-2", amount=200))
    await folded(ledger, owner, accepted("e-3", amount=-50, time="2024-01-01T09:00:00Z"), due_ms=DUE + HOUR_MS)
    await folded(ledger, owner, accepted("e-4", amount=7, currency="EUR"), now_ms=NOW + 1)
    await folded(ledger, owner, accepted("e-5", amount=999, status="declined: no funds"), now_ms=NOW + 1)
    # Then nothing is due before its first member's time
    assert await ledger.take_digests(DUE - 1, owner, LIMIT) == []
    # When it is due
    due = await ledger.take_digests(DUE, owner, LIMIT)
    # Then it says what it holds
    assert due == [
        DueDigest(
            id=1,
            event="swipebell:digest:1",
            account="A-1",
            role="primary",
            rule="evening",
            count=5,
            amounts={"EUR": 7, "GBP": 250},
            since=NOW - HOUR_MS,
            until=NOW,
            type="purchase",
            category="swipe",
        )
    ]
    assert await ledger.open_count() == 1
    # And once it is told, every member is accounted for
    await told(ledger, owner, due)
    assert await digests(ledger) == DigestBooks(folded=5, states={"sent": 1})
    assert await ledger.take_digests(DUE, owner, LIMIT) == []


@pytest.mark.parametrize(
    ("categories", "category"),
    [(("promotion", "promotion"), "promotion"), (("promotion", "service"), ""), (("promotion", "swipe"), "")],
)
async def test_a_digest_has_the_category_that_all_its_members_have(
    ledger: Ledger, owner: int, categories: tuple[str, str], category: str
) -> None:
    for number, one in enumerate(categories):
        await folded(ledger, owner, accepted(f"e-{number}", **({} if one == "swipe" else {"category": one})))
    (due,) = await ledger.take_digests(DUE, owner, LIMIT)
    assert due.category == category


async def test_each_account_role_and_rule_has_its_own(ledger: Ledger, owner: int) -> None:
    await ledger.import_recipients([recipient(role="second")])
    await folded(ledger, owner, accepted("e-1"), accepted("e-2", account="A-2"))
    await folded(ledger, owner, accepted("e-3"), rule="weekly")
    due = await ledger.take_digests(DUE, owner, LIMIT)
    assert sorted((one.account, one.role, one.rule, one.count) for one in due) == [
        ("A-1", "primary", "evening", 1),
        ("A-1", "primary", "weekly", 1),
        ("A-1", "second", "evening", 1),
        ("A-1", "second", "weekly", 1),
        ("A-2", "primary", "evening", 1),
    ]
    assert len({one.event for one in due}) == 5


@pytest.mark.parametrize("batch", [1, 12])
async def test_a_full_digest_is_due_at_once_and_the_next_one_begins(ledger: Ledger, owner: int, batch: int) -> None:
    # Given a rule that tells by fives, and twelve alerts, one by one or together
    events = [accepted(f"e-{n}", amount=1) for n in range(12)]
    for start in range(0, 12, batch):
        await folded(ledger, owner, *events[start : start + batch], count=5)
    # Then two are due, and two alerts wait for their time
    due = await ledger.take_digests(NOW, owner, LIMIT)
    assert [(one.count, one.amounts) for one in due] == [(5, {"GBP": 5}), (5, {"GBP": 5})]
    assert await digests(ledger) == DigestBooks(folded=12, states={"closing": 2, "open": 1})
    await told(ledger, owner, due, NOW)
    await told(ledger, owner, await ledger.take_digests(DUE, owner, LIMIT))
    assert await digests(ledger) == DigestBooks(folded=12, states={"sent": 3})


async def test_two_processes_take_each_digest_once(ledger: Ledger, owner: int) -> None:
    other = await owner_of(ledger, "there")
    await folded(ledger, owner, *(accepted(f"e-{n}") for n in range(4)), count=1)
    mine = await ledger.take_digests(NOW, owner, 2)
    theirs = await ledger.take_digests(NOW, other, LIMIT)
    assert [one.id for one in mine] == [1, 2]
    assert [one.id for one in theirs] == [3, 4]
    assert await ledger.take_digests(NOW, other, LIMIT) == theirs, "its own, until they are sent"


@pytest.mark.parametrize("admitted", [False, True])
@pytest.mark.parametrize("death", ["leaves", "is taken over"])
async def test_what_a_process_took_and_did_not_close_is_told_once_by_another(
    ledger: Ledger, owner: int, admitted: bool, death: str
) -> None:
    # Given a process that ends before it admitted a digest's event, or after
    dying = await owner_of(ledger, "dying")
    await folded(ledger, owner, accepted("e-1"), accepted("e-2"))
    due = await ledger.take_digests(DUE, dying, LIMIT)
    if admitted:
        await ledger.admit([as_event(one, DUE) for one in due], DUE, dying, Tell())
    if death == "leaves":
        await ledger.leave(dying, DUE)
    else:
        await ledger.heartbeat(owner, DUE + HOUR_MS)
        await ledger.take_over(owner, DUE)
    # When another one looks, after more alerts came
    await folded(ledger, owner, accepted("e-3"), now_ms=DUE)
    again = await ledger.take_digests(DUE, owner, 1)
    # Then it makes the same event of the same members, and there is one of it
    assert again == due
    admission = await ledger.admit([as_event(one, DUE) for one in again], DUE, owner, Tell())
    assert (admission.accepted, len(admission.duplicates)) == ((0, 1) if admitted else (1, 0))
    assert await ledger.digests_sent([1]) == 1
    assert await ledger.digests_sent([1]) == 0
    assert await digests(ledger) == DigestBooks(folded=3, states={"open": 1, "sent": 1})


async def test_a_digest_whose_event_is_not_there_is_not_closed(ledger: Ledger, owner: int) -> None:
    await folded(ledger, owner, accepted("e-1"))
    await ledger.take_digests(DUE, owner, LIMIT)
    assert await ledger.digests_sent([1, 2]) == 0
    assert (await digests(ledger)).states == {"closing": 1}


async def test_what_is_reversed_before_its_digest_leaves_is_not_in_it(ledger: Ledger, owner: int) -> None:
    # Given two folded purchases, and the reversal of one of them
    await folded(ledger, owner, accepted("e-1", amount=100), accepted("e-2", amount=200))
    admission = await ledger.admit([accepted("r", type="reversal", refers_to="e-1", amount=-100)], NOW, owner, Tell())
    # Then neither is told, and the books know why
    assert (admission.alerts, admission.ended) == ([], {("suppressed", "reversed-before-sending"): 1})
    assert await digests(ledger) == DigestBooks(folded=1, removed=1, states={"open": 1})
    story = (await alert_story(ledger, "e-1")).digest
    assert story is not None
    assert (story.id, story.removed) == (1, "r")
    (due,) = await ledger.take_digests(DUE, owner, LIMIT)
    assert (due.count, due.amounts) == (1, {"GBP": 200})


async def test_a_digest_that_lost_every_member_tells_nothing(ledger: Ledger, owner: int) -> None:
    await folded(ledger, owner, accepted("e-1", amount=100))
    # When its only member is reversed by an event that would have been folded itself
    await folded(ledger, owner, accepted("r", type="reversal", refers_to="e-1", amount=-100))
    assert await ledger.take_digests(DUE, owner, LIMIT) == []
    assert await digests(ledger) == DigestBooks(removed=1, states={"empty": 1})
    # Then the next member opens another one
    await folded(ledger, owner, accepted("e-2"))
    assert [one.id for one in await ledger.take_digests(DUE, owner, LIMIT)] == [2]


async def test_folded_and_reversed_in_one_batch_it_is_cancelled(ledger: Ledger, owner: int) -> None:
    batch = [accepted("e-1", amount=100), accepted("r", type="reversal", refers_to="e-1", amount=-100)]
    await folded(ledger, owner, *batch)
    assert [await state_of(ledger, event) for event in ("e-1", "r")] == ["cancelled", "suppressed"]
    assert await digests(ledger) == DigestBooks()


async def test_what_is_reversed_after_its_digest_was_fixed_is_told_as_a_correction(ledger: Ledger, owner: int) -> None:
    await folded(ledger, owner, accepted("e-1", amount=100))
    await ledger.take_digests(DUE, owner, LIMIT)
    reversal = accepted("r", type="reversal", refers_to="e-1", amount=-100)
    (alert,) = (await ledger.admit([reversal], DUE, owner, Tell())).alerts
    assert alert.event.id == "r"


async def test_no_event_from_outside_takes_a_digest_back(ledger: Ledger, owner: int) -> None:
    await folded(ledger, owner, accepted("e-1", amount=100))
    due = await ledger.take_digests(DUE, owner, LIMIT)
    await ledger.admit([as_event(one, DUE) for one in due], DUE, owner, Tell("queued"))
    reversal = accepted("r", type="reversal", refers_to=due[0].event, amount=-100)
    await ledger.admit([reversal], DUE, owner, Tell())
    assert await state_of(ledger, due[0].event) == "queued"


async def test_amounts_beyond_all_measure_are_counted_and_not_added(ledger: Ledger, owner: int) -> None:
    events = [accepted(f"e-{n}", amount=amount) for n, amount in enumerate([2**63 - 1, -(2**63), 10**14, 1])]
    await folded(ledger, owner, *events)
    (due,) = await ledger.take_digests(DUE, owner, LIMIT)
    assert (due.count, due.amounts) == (4, {"GBP": 10**14 + 1})


async def test_the_story_of_a_member_and_of_its_digest(ledger: Ledger, owner: int) -> None:
    await folded(ledger, owner, *(accepted(f"e-{n}") for n in range(60)))
    due = await ledger.take_digests(DUE, owner, LIMIT)
    before = (await alert_story(ledger, "e-7")).digest
    await told(ledger, owner, due)
    after = (await alert_story(ledger, "e-7")).digest
    assert before is not None
    assert after is not None
    assert (before.state, before.told) == ("closing", None)
    assert (after.state, after.told) == ("sent", ("sending", "wechat", None, None))
    story = await ledger.explain(due[0].event)
    assert story is not None
    assert ([one.event for one in story.members], story.more_members) == ([f"e-{n}" for n in range(50)], 10)


@pytest.mark.parametrize(
    "damage",
    [
        "DELETE FROM digests",
        "DELETE FROM digest_members WHERE alert=(SELECT min(alert) FROM digest_members)",
        "UPDATE digests SET event=event-1",
        "UPDATE alerts SET reason='another' WHERE id=(SELECT min(alert) FROM digest_members)",
        "UPDATE digest_members SET removed='r'",
    ],
)
async def test_the_books_notice_what_is_wrong(damage: str) -> None:
    ledger = InlineLedger()
    await ledger.import_recipients([recipient()])
    owner = await owner_of(ledger)
    await folded(ledger, owner, accepted("e-1"), accepted("e-2"))
    await told(ledger, owner, await ledger.take_digests(DUE, owner, LIMIT))
    assert (await ledger.books()).balanced
    # When somebody damages the file
    ledger.store.connection.execute(damage)
    # Then the books do not balance
    books = await ledger.books()
    assert books.digests.faults > 0
    assert not books.balanced
    await ledger.aclose()
