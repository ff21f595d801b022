"""Digests through the engine, in virtual time: folded alerts are told in one message, once, whoever dies meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
import pytest
import trio

from dispatcher.admission import Admitter
from dispatcher.digests import LOOK_S, rules_for_digests
from dispatcher.errors import LedgerUnavailable
from dispatcher.events import Accepted, Rejected, decode_event
from dispatcher.ledger.api import Counted, Decide, Decisions, Draft
from dispatcher.ledger.digests import DigestBooks
from dispatcher.model.alert import Alert
from dispatcher.model.event import OWN_ID_PREFIX
from dispatcher.model.recipient import Recipient, RecipientLine
from dispatcher.network.api import Request
from ratelimit.brownout import BrownOutTerms
from ratelimit.rules import Fold, load_rules
from replay.explain import tell
from templates.facts import SwipeFacts
from tests.dispatcher.test_engine import (
    BUSY,
    LIBRARY,
    NOON_MS,
    OK,
    swipe,
    world,  # noqa: F401 - a fixture
)

EVENING_MS = NOON_MS + 60_000
"""The evening comes early here: the clock looks five times a second, also in virtual time."""


class Folding:
    """The rules in force, but what is told is folded into the digest of ``evening``; digests are left to the rules."""

    def __init__(self, decide: Decide, count: int | None, due_ms: int = EVENING_MS) -> None:
        self._decide = decide
        self._fold = Fold("evening", due_ms, count)

    def __call__(
        self, batch: Sequence[Accepted], recipients: Mapping[str, Sequence[Recipient]], now_ms: int
    ) -> Callable[[Counted], Decisions]:
        decide = self._decide(batch, recipients, now_ms)
        return lambda counted: self._with_folds(batch, decide(counted))

    def _with_folds(self, batch: Sequence[Accepted], decisions: Decisions) -> Decisions:
        for place, accepted in enumerate(batch):
            if accepted.event.digest is None:
                decisions.drafts[place] = [self._folded(draft) for draft in decisions.drafts[place]]
        return decisions

    def _folded(self, draft: Draft) -> Draft:
        return msgspec.structs.replace(draft, state="suppressed", reason="evening", route=(), fold=self._fold)


def folding(engine: Any, count: int | None = None, **how: Any) -> None:
    engine._decide = Folding(engine._decide, count, **how)


def remember_texts(w: Any) -> list[str]:
    """What the channel is given to say."""
    texts: list[str] = []
    prepare = w.wechat.prepare

    def saying(alert: Alert) -> Request:
        facts = SwipeFacts(event=alert.event, timezone=alert.recipient.timezone)
        texts.append(LIBRARY.template(alert.template).render_sms(facts, alert.recipient.locale))
        request: Request = prepare(alert)
        return request

    w.wechat.prepare = saying
    return texts


async def digests(w: Any) -> DigestBooks:
    books = await w.ledger.books()
    assert books.balanced
    return books.digests  # type: ignore[no-any-return]


async def test_five_alerts_are_one_message_as_soon_as_they_are_five(world: Any, autojump_clock: Any) -> None:  # noqa: F811
    # Given a rule that folds by fives
    w = world()
    texts = remember_texts(w)
    await w.tell()
    async with w.running() as engine:
        folding(engine, count=5)
        # When six alerts come
        await engine.admit([swipe(number, amount=2_000 + number) for number in range(6)])
        await engine.idle()
        # Then five of them are told in one message within a second, and the sixth waits
        assert trio.current_time() < 2 * LOOK_S
    assert texts == ["您的信用卡另有5笔消费未逐笔通知（11月22日12:00），合计¥100.10。"]
    assert await digests(w) == DigestBooks(folded=6, states={"open": 1, "sent": 1})
    told = await w.state("swipebell:digest:1")
    assert (told.state, told.role, told.template, told.route) == ("delivered", "primary", "digest@1", ["wechat"])
    # And no event was read, accepted or repeated that did not come from outside
    assert w.meter.events == {"accepted": 6}
    assert w.meter.ended == {"suppressed": 6, "delivered": 1}


async def test_a_digest_leaves_at_its_time(world: Any, autojump_clock: Any) -> None:  # noqa: F811
    w = world()
    await w.tell()
    async with w.running() as engine:
        folding(engine)
        await engine.admit([swipe(1), swipe(2)])
        await trio.sleep(59)
        assert w.wechat.tried == []
        await trio.sleep(2)
        await engine.idle()
    assert len(w.wechat.tried) == 1
    told = await w.state("swipebell:digest:1")
    assert told.attempts[0].at - EVENING_MS < 2_000 * LOOK_S


async def test_a_busy_provider_gets_the_same_text_again(world: Any, autojump_clock: Any) -> None:  # noqa: F811
    # Given a provider that is busy, so that the alert comes back from the ledger
    w = world([BUSY, BUSY, OK])
    texts = remember_texts(w)
    await w.tell()
    async with w.running() as engine:
        folding(engine, count=2)
        await engine.admit([swipe(1), swipe(2, currency="EUR", amount=-50)])
        await engine.idle()
    # Then its facts have come back with it
    assert len(texts) == 3
    assert set(texts) == {"您的信用卡另有2笔消费未逐笔通知（11月22日12:00），合计¥200.00 + -€0.50。"}


@pytest.mark.parametrize("dies", ["before the event", "after the event"])
async def test_a_process_that_dies_on_the_way_leaves_it_to_the_next(
    world: Any,  # noqa: F811
    autojump_clock: Any,
    tmp_path: Any,
    dies: str,
) -> None:
    # Given a process that has taken a digest and cannot write any more
    path = str(tmp_path / "ledger.db")
    dying, heir = world(path=path), world(path=path)
    await dying.tell()
    ledger, admit = dying.ledger, dying.ledger.admit

    async def no_digests(batch: Sequence[Accepted], *arguments: Any) -> Any:
        if batch[0].event.digest is not None:
            raise LedgerUnavailable("the disk is full")
        return await admit(batch, *arguments)

    async def unavailable(*arguments: Any) -> Any:
        raise LedgerUnavailable("the disk is full")

    if dies == "before the event":
        ledger.admit = no_digests
    else:
        ledger.digests_sent = unavailable
    async with dying.running() as engine:
        folding(engine, count=3)
        await engine.admit([swipe(number) for number in range(3)])
        await trio.sleep(5)
    before = (await heir.ledger.books()).digests.states
    # When another one runs
    async with heir.running() as engine:
        await engine.idle()
    # Then the members are told in one message, once
    assert before == {"closing": 1}
    assert len(dying.wechat.tried) + len(heir.wechat.tried) == 1
    assert await digests(heir) == DigestBooks(folded=3, states={"sent": 1})


async def test_two_processes_tell_each_digest_once(world: Any, autojump_clock: Any, tmp_path: Any) -> None:  # noqa: F811
    path = str(tmp_path / "ledger.db")
    one, two = world(path=path), world(path=path)
    await one.tell()
    async with one.running() as first, two.running() as second:
        for engine in (first, second):
            folding(engine, count=2)
        for number in range(0, 40, 2):
            await (first if number % 4 else second).admit([swipe(number), swipe(number + 1)])
            await trio.sleep(0.3)
        await first.idle()
        await second.idle()
    assert len(one.wechat.tried) + len(two.wechat.tried) == 20
    assert await digests(one) == DigestBooks(folded=40, states={"sent": 20})


async def test_only_the_recipient_whose_alerts_were_folded_is_told(world: Any, autojump_clock: Any) -> None:  # noqa: F811
    # Given two recipients of one account, of whom one wants only large amounts
    w = world()
    await w.tell(
        RecipientLine(account="acc", openid="o1", min_amount={"wechat": {"CNY": 1_000_000}}, channels=("wechat",)),
        RecipientLine(account="acc", role="supplementary", openid="o2", opt_out=("digest",)),
    )
    # and rules under which neither the amount nor a cap would let a digest through
    rules = (
        'version = 1\n[[rule]]\nid = "least"\neffect = "min_amount"\nchannel = "wechat"\namounts = { CNY = 900000 }\n'
        '[[rule]]\nid = "daily"\neffect = "cap"\nlimit = 1\nper = "account"\nwindow = "day"\n'
    )
    async with w.running(rules=rules) as engine:
        folding(engine, count=2)
        await engine.admit([swipe(1), swipe(2)])
        await engine.idle()
    stories = [await w.ledger.explain(f"swipebell:digest:{number}") for number in (1, 2)]
    # Then each digest has one alert: told in spite of the amount, and suppressed by the recipient's own wish
    assert [[(alert.role, alert.state, alert.reason) for alert in story.alerts] for story in stories] == [
        [("primary", "delivered", None)],
        [("supplementary", "suppressed", "opt-out")],
    ]
    assert await digests(w) == DigestBooks(folded=4, states={"sent": 2})


async def test_explain_tells_a_member_and_its_digest(world: Any, autojump_clock: Any) -> None:  # noqa: F811
    w = world()
    await w.tell()
    async with w.running() as engine:
        folding(engine, count=2)
        await engine.admit([swipe(number) for number in range(3)])
        await engine.idle()
        await engine.admit([swipe(9, type="reversal", refers_to="e2", amount=-20_000)])
    texts = {event: "\n".join(tell(await w.ledger.explain(event))) for event in ("e0", "e2", "swipebell:digest:1")}
    assert "folded into digest 1 by rule evening, which was delivered by wechat at 2026-11-22 04:00" in texts["e0"]
    assert "folded into digest 2 by rule evening, and taken out of it: event e9 took the swipe back" in texts["e2"]
    assert "digest of 2 alerts folded by rule evening, ¥400.00 in all, for primary" in texts["swipebell:digest:1"]
    assert "members:\n  event e0, alert 16\n  event e1, alert 32" in texts["swipebell:digest:1"]


@pytest.mark.parametrize(
    "fields",
    [
        {"id": f"{OWN_ID_PREFIX}digest:1"},
        {"id": OWN_ID_PREFIX},
        {
            "swipebell:digest": {
                "role": "primary",
                "count": 1,
                "amounts": {"CNY": 1},
                "since": 0,
                "until": 0,
                "rule": "r",
            }
        },
        {"swipebell:digest": "mine"},
    ],
)
def test_no_event_from_outside_passes_for_one_of_ours(fields: dict[str, Any]) -> None:
    event = {"id": "e", "account": "a", "amount": 1, "currency": "CNY", "time": "2026-11-22T04:00:00Z", **fields}
    (name,) = fields
    answer = decode_event(msgspec.json.encode(event), 7)
    assert isinstance(answer, Rejected)
    assert answer.field == name
    assert "Swipebell's own" in answer.error


def test_a_digest_of_the_core_is_an_event_like_any_other() -> None:
    # Given a core that has a category and a field of that name
    event = {"id": "e", "account": "a", "amount": 1, "currency": "CNY", "time": "2026-11-22T04:00:00Z"}
    answer = decode_event(msgspec.json.encode({**event, "category": "digest", "digest": "f00"}), 1)
    assert isinstance(answer, Accepted)
    assert answer.event.digest is None


async def test_such_an_event_is_told_as_a_swipe(world: Any, autojump_clock: Any) -> None:  # noqa: F811
    w = world()
    await w.tell()
    async with w.running() as engine:
        await engine.admit([swipe(1, category="digest")])
        await engine.idle()
    assert (await w.state("e1")).template == "swipe@1"


EVERY_DAY = """
version = 1
[[rule]]
id = "two-a-day"
effect = "cap"
limit = 2
per = "account"
window = "day"
at_cap = "digest"
digest = { after_minutes = 1, count = 3 }
"""


async def test_a_cap_folds_what_it_does_not_let_through(world: Any, autojump_clock: Any) -> None:  # noqa: F811
    # Given a rule of two alerts a day, that folds the others by threes or after a minute
    w = world()
    texts = remember_texts(w)
    await w.tell()
    async with w.running(rules=EVERY_DAY) as engine:
        # When six swipes come
        await engine.admit([swipe(number, amount=1_000 + number) for number in range(6)])
        await engine.idle()
        told_at_once = len(texts)
        await trio.sleep(62)
        await engine.idle()
    # Then two are told by themselves, three in a digest at once, and the last one a minute later
    assert told_at_once == 3
    assert [text[:13] for text in texts[2:]] == ["您的信用卡另有3笔消费未逐", "您的信用卡另有1笔消费未逐"]
    assert await digests(w) == DigestBooks(folded=4, states={"sent": 2})
    books = await w.ledger.books()
    assert (books.states, books.suppressed_by) == ({"delivered": 4, "suppressed": 4}, {"two-a-day": 4})


class LowQuota:
    """A channel whose quota of the day runs low: small swipes are folded."""

    terms = BrownOutTerms({}, {"CNY": 50_000}, {}, frozenset())
    level = 2

    def took_away(self, step: str) -> None:
        assert step == "digest"


async def test_what_a_brown_out_takes_away_is_told_in_a_digest(world: Any, autojump_clock: Any) -> None:  # noqa: F811
    # Given a brown-out, in which three small swipes come and a large one
    w = world()
    texts = remember_texts(w)
    await w.tell()
    rules = load_rules('version = 1\n[[rule]]\nid = "x"\neffect = "expire_after"\ncategory = "x"\nhours = 1\n', "test")
    async with w.running() as engine:
        engine._decide = Admitter(rules, LIBRARY, {"wechat": False}, brownouts={"wechat": LowQuota()})
        await engine.admit([*(swipe(number, amount=100) for number in range(3)), swipe(9, amount=60_000)])
        await engine.idle()
        assert await digests(w) == DigestBooks(folded=3, states={"open": 1})
        # When an hour has passed, and the quota is as low as before
        w.offset_ms += 3_600_000
        await trio.sleep(30)
        await engine.idle()
    # Then they are told in one message, small as their sum is
    assert texts[1:] == ["您的信用卡另有3笔消费未逐笔通知（11月22日12:00），合计¥3.00。"]
    assert (await w.ledger.books()).suppressed_by == {"brown-out-digest": 3}
    assert await digests(w) == DigestBooks(folded=3, states={"sent": 1})


LEFT = """
version = 1
[[rule]]
id = "of-digests"
effect = "cap"
limit = 1
per = "account"
window = "day"
when = { category = "digest" }
[[rule]]
id = "old"
effect = "expire_after"
category = "digest"
hours = 6
[[rule]]
id = "of-everything"
effect = "cap"
limit = 1
per = "account"
window = "day"
"""


def test_a_digest_is_decided_by_what_had_no_say_about_its_members() -> None:
    rules = rules_for_digests(load_rules(LEFT, "test"))
    assert [rule.id for rule in rules.rule] == ["of-digests", "old"]
