"""What is folded stays what it is: a digest is decided by the rules of its members' category too."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
import trio

from dispatcher.admission import Admitter
from dispatcher.digests import as_event
from dispatcher.ledger.api import Draft
from dispatcher.ledger.digests import DueDigest
from dispatcher.model.recipient import Consent, ConsentWord, Recipient, RecipientLine
from ratelimit.rules import Decider, load_rules
from replay.memory import Memory
from tests.dispatcher.ledger_kit import HOUR_MS
from tests.dispatcher.test_engine import LIBRARY, NOON_MS, OK, ScriptedChannel, World, swipe
from tests.dispatcher.test_engine_held import take_back

NIGHT_MS = NOON_MS + 11 * HOUR_MS
"""23:00 where the recipient is."""

RULES = """
version = 1
[[rule]]
id = "promotion-consent"
effect = "consent"
category = "promotion"
mode = "opt-in"
[[rule]]
id = "promotion-hours"
effect = "quiet_hours"
when = { category = "promotion" }
from = "21:00"
to = "08:00"
[[rule]]
id = "promotion-by-sms"
effect = "route"
when = { category = "promotion" }
channels = ["sms"]
deadline_seconds = 30
[[rule]]
id = "promotion-least"
effect = "min_amount"
when = { category = "promotion" }
channel = "sms"
amounts = { CNY = 1000000 }
[[rule]]
id = "promotion-once"
effect = "cap"
when = { category = ["promotion", "digest"] }
limit = 1
per = "recipient"
window = "day"
at_cap = "digest"
[[rule]]
id = "promotion-age"
effect = "expire_after"
category = "promotion"
hours = 12
[[rule]]
id = "promotion-first"
effect = "priority"
when = { category = "promotion" }
"""
WANTS_IT = {"promotion": Consent(given=True, at=1, source="form 17")}
TO = Recipient(id=1, account="acc", openid="o1", phone="+8613800000001", consents=WANTS_IT)


def a_digest(category: str) -> DueDigest:
    return DueDigest(1, "swipebell:digest:1", "acc", "primary", "r", 2, {"CNY": 300}, 0, 0, "purchase", category)


def decided(category: str, now_ms: int = NOON_MS, rules: str = RULES, **changes: Any) -> Draft:
    admitter = Admitter(load_rules(rules, "t"), LIBRARY, {"wechat": False, "sms": True})
    to = msgspec.structs.replace(TO, **changes)
    batch = [as_event(a_digest(category), now_ms)]
    return admitter(batch, {"acc": [to]}, now_ms)(Memory(day_totals=False)).drafts[0][0]


def test_a_digest_of_one_category_is_told_as_that_category_is() -> None:
    # Given a digest of promotions by day, Then it goes the promotions' way, whatever they are worth, and is not folded
    told = decided("promotion")
    assert (told.state, told.route, told.expires_ms) == ("queued", ("sms",), NOON_MS + 12 * HOUR_MS)
    assert (told.template, told.fold) == ("digest@1", None)
    # And at night it is held, until the morning
    held = decided("promotion", NIGHT_MS)
    assert (held.state, held.reason, held.due_ms) == ("held", "promotion-hours", NIGHT_MS + 9 * HOUR_MS)
    # And who does not want promotions, or no digests, is not told
    assert [
        (draft.state, draft.reason)
        for draft in (
            decided("promotion", consents={}),
            decided("promotion", opt_out=("promotion",)),
            decided("promotion", opt_out=("digest",)),
        )
    ] == [("suppressed", "promotion-consent"), ("suppressed", "opt-out"), ("suppressed", "opt-out")]


@pytest.mark.parametrize("category", ["", "service", "x" * 70_000])
def test_a_digest_of_several_categories_or_another_one_is_not_held_back_by_it(category: str) -> None:
    draft = decided(category, NIGHT_MS, consents={}, opt_out=("promotion",))
    assert (draft.state, draft.route) == ("sending", ("wechat", "sms"))


def test_a_rule_about_digests_holds_whatever_their_members_are() -> None:
    # Given an age and a cap of digests, after those of promotions
    rules = (
        RULES + '[[rule]]\nid = "old"\neffect = "expire_after"\ncategory = "digest"\nhours = 6\n'
        '[[rule]]\nid = "by-day"\neffect = "quiet_hours"\nfrom = "11:00"\nto = "13:00"\n'
        'when = { category = "digest" }\nthen = "suppress"\n'
    )
    for category in ("promotion", ""):
        draft = decided(category, rules=rules)
        assert (draft.state, draft.reason, draft.expires_ms) == ("suppressed", "by-day", NOON_MS + 6 * HOUR_MS)


def test_what_is_asked_after_admission_knows_the_members_category_too() -> None:
    decider = Decider(load_rules(RULES, "t"), ("wechat", "sms"))
    for category, knows in (("promotion", True), ("", False), ("promotion", True)):
        event = as_event(a_digest(category), NOON_MS).event
        assert decider.is_urgent(event, TO) is knows
        assert (decider.deadline_ms(event, TO) == 30_000) is knows
        assert decider.consents(event, msgspec.structs.replace(TO, consents={}), "sms", "digest") is not knows


@pytest.mark.parametrize("withdrawn", [None, "before it is told", "while it is held"])
async def test_promotions_that_were_folded_in_the_evening_are_told_in_the_morning_to_who_still_wants_them(
    withdrawn: str | None, autojump_clock: Any
) -> None:
    # Given a process that was away from the afternoon, when it folded two promotions, till the night
    w = World(ScriptedChannel("wechat", [OK]), ScriptedChannel("sms", [OK], fenced=True))
    assert w.sms is not None
    yes = ConsentWord(given=True, at=datetime(2026, 11, 1, tzinfo=UTC), source="form 17")
    person = RecipientLine(account="acc", openid="o1", phone="+8613800000001", consents={"promotion": yes})
    await w.ledger.import_recipients([person], w.now_ms())
    rules = RULES.replace("CNY = 1000000", "USD = 1")
    async with w.running(rules=rules) as engine:
        await engine.admit([swipe(number, category="promotion") for number in range(3)])
        await engine.idle()
    assert (await w.ledger.books()).digests.states == {"open": 1}
    if withdrawn == "before it is told":
        await take_back(w, "promotion")
    # When it comes back at night
    w.offset_ms = NIGHT_MS - NOON_MS
    async with w.running(rules=rules) as engine:
        await trio.sleep(2)
        # Then nothing is told
        assert len(w.sms.tried) == 1
        told = await w.state("swipebell:digest:1")
        reason = "promotion-hours" if withdrawn != "before it is told" else "promotion-consent"
        assert (told.state == "held", told.reason) == (withdrawn != "before it is told", reason)
        if withdrawn == "while it is held":
            await take_back(w, "promotion")
        # And in the morning whoever still wants it is told
        w.offset_ms += 9 * HOUR_MS
        await trio.sleep(60)
    told = await w.state("swipebell:digest:1")
    ends = {None: "delivered", "before it is told": "suppressed", "while it is held": "cancelled"}
    assert (told.state, len(w.sms.tried)) == (ends[withdrawn], 2 if withdrawn is None else 1)
    assert [entry.key for entry in told.consents] == ([] if withdrawn is None else ["promotion"])
    assert (await w.ledger.books()).balanced
    await w.ledger.aclose()
