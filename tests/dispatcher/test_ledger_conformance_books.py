"""What every ledger keeps, fourth part: the rules in force, the books, the story of an event."""

from __future__ import annotations

from dispatcher.ledger.api import Decisions, Ledger
from tests.dispatcher.ledger_kit import (
    HOUR_MS,
    NOBODY,
    NOW,
    Tell,
    accepted,
    admitted,
    alert_story,
    counted,
    in_halves,
    line,
    owner_of,
    receipt,
    recipient,
    step,
)


async def test_an_alert_tells_which_rules_decided_it(ledger: Ledger) -> None:
    # Given alerts of two rule files, of which the first came back in force
    owner = await owner_of(ledger)
    for number, version in enumerate(["v-a", "v-b", "v-a"]):
        await ledger.ruleset(version, f"# rules {version}", NOW)
        await ledger.admit([accepted(f"e-{number}")], NOW, owner, Tell(ruleset=version))
    # And one of rules that nobody has told the ledger of
    await ledger.admit([accepted("e-3")], NOW, owner, Tell(ruleset="v-c"))

    stories = [await alert_story(ledger, f"e-{number}") for number in range(4)]
    assert [story.ruleset for story in stories] == ["v-a", "v-b", "v-a", ""]


async def test_the_books_of_an_empty_ledger(ledger: Ledger) -> None:
    books = await ledger.books()
    assert (books.events, books.recipients, books.states, books.attempts) == (0, 0, {}, {})
    assert (books.balanced, books.open, books.unknown_attempts) == (True, 0, 0)
    assert await ledger.open_count() == 0


async def test_the_books_tell_every_alert_once(ledger: Ledger) -> None:
    # Given alerts with all kinds of ends
    owner = await owner_of(ledger)
    await ledger.import_recipients([recipient()])
    batch = [accepted(f"e-{number}") for number in range(6)]
    alerts = (await ledger.admit(batch, NOW, owner, Tell())).alerts
    await ledger.record(
        [
            step(alerts[0], "delivered"),
            step(alerts[1], "failed", reason="permanent:40003", outcome="permanent"),
            step(alerts[2], "failed", reason="unknown-outcome", outcome="unknown", resends=2),
            step(alerts[3], "expired"),
            step(alerts[4], "retrying", position=1),
        ],
        owner,
    )
    await ledger.admit([accepted("e-6", account="nobody")], NOW, owner, Tell())

    # Then they add up
    books = await ledger.books()
    assert books.states == {"delivered": 1, "failed": 2, "expired": 1, "retrying": 1, "sending": 1, "suppressed": 1}
    assert (books.events, books.recipients, books.open) == (7, 1, await ledger.open_count()) == (7, 1, 2)
    assert books.failed_by == {"permanent:40003": 1, "unknown-outcome": 1}
    assert books.suppressed_by == {"no-recipient": 1}
    assert books.attempts == {"wechat": 6}
    assert books.unknown_attempts == 3
    assert books.balanced


async def test_the_story_of_an_event(ledger: Ledger) -> None:
    # Given an alert that WeChat took and never delivered, so that it went to SMS
    owner = await owner_of(ledger)
    await ledger.ruleset("v-1", "# rules", NOW)
    (alert,) = await admitted(ledger, owner, accepted("e-1"), decide=Tell(ruleset="v-1"))
    await ledger.record([step(alert, "awaiting", msgid="w-1", at_ms=NOW + 10)], owner)
    ((alert, _),) = await ledger.receipts([receipt("wechat", "w-1", "failed:user-block")], NOW + 20, owner)
    to_sms = step(alert, "retrying", position=1, outcome=None, reason="failed:user-block", due_ms=NOW + 20)
    await ledger.record([to_sms], owner)
    (alert,) = await ledger.due("sms", NOW + 30, owner, 1, "queued")
    await ledger.record([step(alert, "delivered", msgid="s-1", at_ms=NOW + 40, took_ms=7)], owner)
    await ledger.receipts([receipt("sms", "s-1", "delivered")] * 2, NOW + 50, owner)

    # When it is explained, then all of it is told
    story = await ledger.explain("e-1")
    assert story is not None
    assert (story.id, story.account, story.swiped_at, story.accepted_at) == ("e-1", "A-1", NOW, NOW)
    assert story.payload == line("e-1").decode()
    (told,) = story.alerts
    assert (told.role, told.template, told.ruleset) == ("primary", "swipe@1", "v-1")
    assert (told.route, told.channel, told.state, told.reason) == (["wechat", "sms"], "sms", "delivered", None)
    assert (told.saw, told.day_total) == ({"amount": 7261, "threshold/sms": 10_000}, -42)
    assert (told.expires_at, told.due_at, told.ended_at) == (NOW + HOUR_MS, None, NOW + 40)
    assert [(one.n, one.channel, one.at, one.took, one.outcome, one.msgid) for one in told.attempts] == [
        (1, "wechat", NOW + 10, 5, "accepted", "w-1"),
        (2, "sms", NOW + 40, 7, "accepted", "s-1"),
    ]
    assert told.receipts == [
        {"channel": "wechat", "status": "failed:user-block", "at": NOW + 20, "times": 1},
        {"channel": "sms", "status": "delivered", "at": NOW + 50, "times": 2},
    ]


async def test_there_is_no_story_of_what_never_came(ledger: Ledger) -> None:
    assert await ledger.explain("e-1") is None
    assert await ledger.explain("") is None


async def test_counters_go_in_bounded_parts_until_none_is_left(ledger: Ledger) -> None:
    # Given more counters of a day that is over than are dropped at once, and one that is still wanted
    owner = await owner_of(ledger)
    await ledger.import_recipients([recipient("A-1")])
    over = {f"day|over|{number}": (1, NOW) for number in range(2_500)}

    @in_halves
    def decide(batch: object, told: object, now_ms: int, read: object) -> Decisions:
        return Decisions([[NOBODY]], {**over, "day|kept|x": (7, NOW + HOUR_MS)})

    await ledger.admit([accepted("e-1")], NOW, owner, decide)
    # When they are forgotten until there is nothing to forget
    dropped = []
    while not dropped or dropped[-1]:
        dropped.append(await ledger.forget_counters(NOW + 1))
    # Then each call dropped a bounded part, and all that were over are gone
    assert dropped == [2_000, 500, 0]
    assert await counted(ledger, owner, "day|over|1") == 0
    assert await counted(ledger, owner, "day|kept|x") == 7
