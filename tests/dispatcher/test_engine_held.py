"""The engine and what rules hold: it leaves in its time, or when somebody releases it, or expires."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from dispatcher.ledger.held import HELD_WAIT_MS
from dispatcher.model.consent import ConsentChange
from dispatcher.model.recipient import Consent, ConsentWord, RecipientLine
from replay.explain import tell
from tests.dispatcher.ledger_kit import HOUR_MS, Tell
from tests.dispatcher.test_engine import BUSY, OK, ScriptedChannel, World, swipe

LONG_S = HELD_WAIT_MS // 1000 + 10


async def held(w: World, event: str, *, due_ms: int, owner: int, rule: str = "night") -> None:
    decide = Tell("held", reason=rule, expires_ms=w.now_ms() + 24 * HOUR_MS, due_ms=due_ms)
    await w.ledger.admit([swipe(id=event)], w.now_ms(), owner, decide)


async def test_what_is_held_leaves_when_its_time_has_come(autojump_clock: MockClock) -> None:
    for fenced in (False, True):
        # Given an alert that is held for longer than anybody waits for
        w = World(ScriptedChannel("wechat", [OK], fenced=fenced), None)
        await w.tell()
        async with w.running() as engine:
            await held(w, "e1", due_ms=w.now_ms() + LONG_S * 1000, owner=engine.owner)
            # When somebody waits until nothing is to be done
            await engine.idle()
            # Then that time is not waited for
            assert (w.wechat.tried, (await w.state("e1")).state) == ([], "held")
            await trio.sleep(LONG_S - 1)
            assert w.wechat.tried == []
            # And when it has come the alert leaves at once
            await trio.sleep(1.5)
            alert = await w.state("e1")
            assert (alert.state, len(alert.attempts), len(w.wechat.tried)) == ("delivered", 1, 1)
        assert (await w.ledger.books()).balanced
        await w.ledger.aclose()


async def test_a_short_hold_is_waited_for(autojump_clock: MockClock) -> None:
    # Given a gap of half a minute between two alerts
    w = World(ScriptedChannel("wechat", [OK]), None)
    await w.tell()
    async with w.running() as engine:
        await held(w, "e1", due_ms=w.now_ms() + 30_000, owner=engine.owner, rule="gap")
        await engine.idle()
        # Then whoever waits sees it delivered
        assert (await w.state("e1")).state == "delivered"
    await w.ledger.aclose()


async def test_a_storm_is_sent_when_it_is_released_and_expires_when_it_is_not(autojump_clock: MockClock) -> None:
    # Given two alerts of a storm
    w = World(ScriptedChannel("wechat", [OK]), None)
    await w.tell()
    async with w.running() as engine:
        age = w.now_ms() + LONG_S * 1000
        for event in ("e1", "e2"):
            decide = Tell("held", reason="storm", expires_ms=age, due_ms=age)
            await w.ledger.admit([swipe(id=event)], w.now_ms(), engine.owner, decide)
        # When one of them is released, beside the engine
        first = (await w.state("e1")).id
        assert await w.ledger.release_held("storm", w.now_ms(), "ada", first) == 1
        await trio.sleep(2)
        # Then that one leaves
        assert [(await w.state(event)).state for event in ("e1", "e2")] == ["delivered", "held"]
        # And the other one expires in its time, untold
        await trio.sleep(LONG_S)
        assert [(await w.state(event)).state for event in ("e1", "e2")] == ["delivered", "expired"]
        assert len(w.wechat.tried) == 1
    assert w.meter.ended["expired"] == 1
    assert (await w.ledger.books()).open == 0
    await w.ledger.aclose()


ONLY_WITH_CONSENT = """
version = 1
[[rule]]
id = "yes"
effect = "consent"
category = "promotion"
mode = "opt-in"
[[rule]]
id = "yes-to-wechat"
effect = "consent"
category = "promotion"
channel = "wechat"
mode = "opt-out"
[[rule]]
id = "noon"
effect = "quiet_hours"
from = "11:00"
to = "12:01"
"""
WANTS_IT = RecipientLine(
    account="acc",
    openid="o1",
    phone="+8613800000001",
    consents={"promotion": ConsentWord(given=True, at=datetime(2026, 11, 1, tzinfo=UTC), source="form 17")},
)


async def take_back(w: World, key: str) -> None:
    no = Consent(given=False, at=w.now_ms(), source="call 4711")
    await w.ledger.consent([ConsentChange(account="acc", key=key, consent=no, by="wang")], w.now_ms())


@pytest.mark.parametrize(
    ("said", "state", "reason", "by_wechat", "by_sms"),
    [
        (None, "delivered", None, 1, 0),
        ("service", "delivered", None, 1, 0),
        ("promotion/wechat", "delivered", None, 0, 1),
        ("promotion", "cancelled", "consent-withdrawn", 0, 0),
    ],
)
async def test_who_takes_consent_back_while_an_alert_is_held_is_not_told(
    said: str | None, state: str, reason: str | None, by_wechat: int, by_sms: int, autojump_clock: MockClock
) -> None:
    # Given a promotion that quiet hours hold, to somebody who wants promotions
    w = World(ScriptedChannel("wechat", [OK]), ScriptedChannel("sms", [OK], fenced=True))
    await w.ledger.import_recipients([WANTS_IT], w.now_ms())
    async with w.running(rules=ONLY_WITH_CONSENT) as engine:
        await engine.admit([swipe(category="promotion")])
        assert (await w.state("e1")).state == "held"
        # When they take it back before the alert leaves: all of it, one channel, or that to something else
        if said is not None:
            await take_back(w, said)
        await trio.sleep(70)
        await engine.idle()
    # Then it takes no channel that they closed, and if they closed all it is cancelled
    alert = await w.state("e1")
    assert w.sms is not None
    assert (alert.state, alert.reason) == (state, reason)
    assert (len(w.wechat.tried), len(w.sms.tried)) == (by_wechat, by_sms)
    text = "\n".join(tell(await w.ledger.explain("e1")))  # type: ignore[arg-type]
    sentence = "cancelled because its recipient no longer consented when it was to leave, 2026-11-22"
    assert (sentence in text) is (state == "cancelled")
    assert ("consent promotion: withdrawn" in text and "source call 4711" in text) is (state == "cancelled")
    assert (await w.ledger.books()).balanced
    await w.ledger.aclose()


async def test_a_promotion_is_not_tried_again_after_consent_was_withdrawn(autojump_clock: MockClock) -> None:
    # Given a provider that is busy
    w = World(ScriptedChannel("wechat", [BUSY]), None)
    await w.ledger.import_recipients([WANTS_IT], w.now_ms())
    rules = ONLY_WITH_CONSENT.partition('[[rule]]\nid = "noon"')[0]
    async with w.running(rules=rules) as engine:
        await engine.admit([swipe(category="promotion")])
        await trio.sleep(5)
        # When the recipient takes consent back
        await take_back(w, "promotion")
        tried = len(w.wechat.tried)
        await engine.idle()
    # Then there are no further attempts
    assert (await w.state("e1")).state == "cancelled"
    assert len(w.wechat.tried) == tried > 0
    await w.ledger.aclose()


@pytest.mark.parametrize(("line", "state"), [({"opt_out": ("service",)}, "cancelled"), ({}, "delivered")])
async def test_who_opts_out_while_an_alert_is_held_is_not_told(
    line: dict[str, Any], state: str, autojump_clock: MockClock
) -> None:
    # Given an alert that is held, of a category that no consent rule is about
    w = World(ScriptedChannel("wechat", [OK]), None)
    await w.tell()
    async with w.running() as engine:
        decide = Tell("held", reason="night", expires_ms=w.now_ms() + HOUR_MS, due_ms=w.now_ms() + 30_000)
        await w.ledger.admit([swipe(category="service")], w.now_ms(), engine.owner, decide)
        # When the recipient is imported again, with an opt-out or without
        await w.tell(RecipientLine(account="acc", openid="o1", **line))
        await engine.idle()
    # Then they are told only without it
    assert (await w.state("e1")).state == state
    await w.ledger.aclose()
