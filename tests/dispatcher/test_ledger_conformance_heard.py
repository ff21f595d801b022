"""What every ledger keeps of what WeChat users did."""

from __future__ import annotations

from pathlib import Path

import pytest

from dispatcher.delivery import Answer, AnswerClass, ChannelPolicy, after_answer
from dispatcher.ledger import sqlite_heard
from dispatcher.ledger.api import Ledger
from dispatcher.model.alert import Alert
from dispatcher.model.heard import Heard
from dispatcher.model.recipient import Recipient
from ratelimit.retry import RetryPolicy
from tests.dispatcher.ledger_kit import NOW, Tell, accepted, owner_of, recipient

POLICY = ChannelPolicy(RetryPolicy(), resend_unknown=False, receipt_ms=None)


async def told(ledger: Ledger, account: str = "A-1") -> list[Recipient]:
    """Its recipients, as an admission finds them."""
    tell = Tell()
    told.count += 1  # type: ignore[attr-defined]
    event = accepted(f"look-{told.count}", account=account)  # type: ignore[attr-defined]
    await ledger.admit([event], NOW, await owner_of(ledger), tell)
    return list(tell.told.get(account, ()))


told.count = 0  # type: ignore[attr-defined]


async def test_an_unfollow_and_a_follow_reach_every_recipient_of_the_openid(ledger: Ledger) -> None:
    await ledger.import_recipients(
        [recipient("A-1", openid="o-1"), recipient("A-2", openid="o-1"), recipient("A-3", openid="o-3")]
    )
    assert await ledger.heard([Heard("o-1", "unfollow", NOW), Heard("o-9", "unfollow", NOW)]) == 2
    for account, gone in (("A-1", True), ("A-2", True), ("A-3", False)):
        (one,) = await told(ledger, account)
        assert ("wechat" in one.refused) is gone
    # And again changes nothing
    assert await ledger.heard([Heard("o-1", "unfollow", NOW)]) == 0
    assert await ledger.heard([Heard("o-1", "follow", NOW + 1000)]) == 2
    (one,) = await told(ledger, "A-2")
    assert (one.refused, one.service_until_ms, one.followed_ms) == ({}, NOW + 61_000, NOW + 1000)
    # And the old unfollow, told once more, does not win
    assert await ledger.heard([Heard("o-1", "unfollow", NOW)]) == 0


async def test_nobody_heard_is_nothing(ledger: Ledger) -> None:
    assert await ledger.heard([]) == 0


async def test_a_recipient_with_a_new_openid_is_found_by_it_alone(ledger: Ledger) -> None:
    await ledger.import_recipients([recipient(openid="o-1")])
    await ledger.heard([Heard("o-1", "message", NOW)])
    # An import that changes something else keeps the window
    await ledger.import_recipients([recipient(openid="o-1", phone="+8613900000009")])
    assert (await told(ledger))[0].service_until_ms == NOW + 48 * 3_600_000
    # A new openid is another user
    await ledger.import_recipients([recipient(openid="o-2")])
    assert (await told(ledger))[0].service_until_ms == 0
    assert await ledger.heard([Heard("o-1", "unfollow", NOW)]) == 0
    assert await ledger.heard([Heard("o-2", "unfollow", NOW)]) == 1


async def test_many_are_found_though_they_were_entered_in_goes(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_heard, "OPENIDS_AT_ONCE", 3)
    for number in range(10):
        await ledger.import_recipients([recipient(f"A-{number}", openid=f"o-{number}")])
    assert await ledger.heard([Heard(f"o-{number}", "tap", NOW) for number in range(12)]) == 10


async def test_a_refusal_of_a_service_message_closes_the_window_and_nothing_else(ledger: Ledger) -> None:
    owner = await owner_of(ledger)
    await ledger.import_recipients([recipient(openid="o-1")])
    await ledger.heard([Heard("o-1", "message", NOW - 1000)])
    tell = Tell()
    alert = (await ledger.admit([accepted("e-1")], NOW, owner, tell)).alerts[0]
    await ledger.record([_refused(alert, NOW + 1)], owner)
    (one,) = await told(ledger)
    assert (one.service_until_ms, one.refused) == (0, {})
    # But a window that was opened after the provider's answer stays open
    await ledger.heard([Heard("o-1", "message", NOW + 60_000)])
    again = (await ledger.admit([accepted("e-2")], NOW, owner, tell)).alerts[0]
    await ledger.record([_refused(again, NOW + 2)], owner)
    assert (await told(ledger))[0].service_until_ms > NOW


async def test_an_answer_from_before_the_follow_does_not_make_a_follower_gone(ledger: Ledger) -> None:
    owner = await owner_of(ledger)
    await ledger.import_recipients([recipient(openid="o-1")])
    alert = (await ledger.admit([accepted("e-1")], NOW, owner, Tell())).alerts[0]
    gone = after_answer(alert, Answer(AnswerClass.RECIPIENT_GONE, "43004"), POLICY, NOW, 0.0)
    await ledger.heard([Heard("o-1", "follow", NOW + 5000)])
    await ledger.record([gone], owner)
    assert (await told(ledger))[0].refused == {}


async def test_a_card_of_an_earlier_layout_is_read_and_heard_of(tmp_path: Path) -> None:
    from dispatcher.ledger.worker import InlineLedger

    ledger = InlineLedger(str(tmp_path / "ledger.db"))
    await ledger.import_recipients([recipient(openid="o-1")])
    # Given a card that ends before the new fields
    ledger.store.connection.execute("UPDATE recipients SET card=json_remove(card, '$[14]', '$[13]', '$[12]')")
    assert (await told(ledger))[0].service_until_ms == 0
    assert await ledger.heard([Heard("o-1", "message", NOW)]) == 1
    assert (await told(ledger))[0].service_until_ms > NOW
    await ledger.aclose()


def _refused(alert: Alert, at_ms: int):  # type: ignore[no-untyped-def]
    from msgspec.structs import replace

    on_service = replace(alert, route=("wechat_service", "wechat"), position=0)
    return after_answer(on_service, Answer(AnswerClass.RECIPIENT_GONE, "45015"), POLICY, at_ms, 0.0)


async def test_what_is_heard_of_one_user_says_nothing_of_another_with_the_same_digest(ledger: Ledger) -> None:
    # Given a follower whose openid has the CRC-32 of somebody else's, and whom an answer refused in
    # the second of a follow
    await ledger.import_recipients([recipient(openid="plumless")])
    await ledger.heard([Heard("plumless", "follow", NOW)])
    owner = await owner_of(ledger)
    (alert,) = (await ledger.admit([accepted("e-1")], NOW, owner, Tell())).alerts
    gone = after_answer(alert, Answer(AnswerClass.RECIPIENT_GONE, "43004"), POLICY, NOW + 500, 0.0)
    await ledger.record([gone], owner)
    before = await told(ledger)
    # When the other one writes, then nothing of this one changes
    assert await ledger.heard([Heard("buckeroo", "message", NOW + 1000)]) == 0
    assert await told(ledger) == before
