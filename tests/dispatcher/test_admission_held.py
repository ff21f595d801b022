"""From the rule file to the ledger: what is held, marked and counted in one admission is what the next one goes by."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from dispatcher.admission import Admitter
from dispatcher.ledger.api import Admission
from dispatcher.ledger.worker import InlineLedger
from ratelimit.rules import load_rules
from templates.library import Library
from tests.dispatcher.ledger_kit import HOUR_MS, NOW, accepted, alert_story, owner_of, recipient, state_of

# NOW is 10:00 UTC, which is 18:00 in Shanghai, where the recipient is.
NIGHT = '[[rule]]\nid = "night"\neffect = "quiet_hours"\nfrom = "17:30"\nto = "08:00"\n'
GAP = '[[rule]]\nid = "gap"\neffect = "min_gap"\nminutes = 5\nat_gap = "hold"\n'
ROLLING = '[[rule]]\nid = "ten"\neffect = "cap"\nlimit = 10\nper = "account"\nrolling_hours = 1\n'
STORM = (
    '[[rule]]\nid = "burst"\neffect = "storm"\nfingerprint = ["merchant", "amount"]\n'
    "limit = 2\nminutes = 10\nsample = 0\n"
)

LIBRARY = Library.load()
SHANGHAI_8_MS = NOW + 14 * HOUR_MS


class World:
    def __init__(self) -> None:
        self.ledger = InlineLedger()
        self.owner = 0
        self.number = 0

    async def admit(self, rules: str, count: int = 1, *, at_ms: int = NOW, **fields: Any) -> Admission:
        """So many swipes more, decided by a process that knows nothing but the ledger."""
        admitter = Admitter(load_rules("version = 1\n" + rules, "t"), LIBRARY, {"wechat": False, "sms": True})
        first, self.number = self.number, self.number + count
        batch = [accepted(f"e-{number}", **fields) for number in range(first, self.number)]
        return await self.ledger.admit(batch, at_ms, self.owner, admitter)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    made = World()
    made.owner = await owner_of(made.ledger, lease_ms=24 * HOUR_MS)
    await made.ledger.import_recipients([recipient(timezone="Asia/Shanghai")])
    yield made
    assert (await made.ledger.books()).balanced
    await made.ledger.aclose()


async def test_quiet_hours_hold_until_the_morning_of_the_recipient(world: World) -> None:
    admission = await world.admit(NIGHT)
    assert (admission.alerts, admission.held) == ([], {"night": 1})
    story = await alert_story(world.ledger, "e-0")
    assert (story.state, story.reason, story.due_at, story.route) == ("held", "night", SHANGHAI_8_MS, ["wechat", "sms"])
    assert story.day_total == 7261
    (alert,) = await world.ledger.due("wechat", SHANGHAI_8_MS, world.owner, 10, "sending")
    assert alert.event.id == "e-0"


async def test_alerts_that_came_at_once_are_held_one_gap_apart_across_batches(world: World) -> None:
    # Given two batches, decided by two processes
    first = await world.admit(GAP, 3)
    second = await world.admit(GAP, 2)
    # Then one leaves at once, and each of the others five minutes after the one before
    assert (len(first.alerts), first.held, len(second.alerts), second.held) == (1, {"gap": 2}, 0, {"gap": 2})
    due = [(await alert_story(world.ledger, f"e-{number}")).due_at for number in range(5)]
    assert due == [None, *(NOW + gap * 300_000 for gap in range(1, 5))]


async def test_a_rolling_cap_is_exact_across_batches(world: World) -> None:
    # Given thirty swipes within an hour, in batches of three
    sent = [len((await world.admit(ROLLING, 3, at_ms=NOW + batch * 60_000)).alerts) for batch in range(10)]
    # Then ten are told
    assert sent == [3, 3, 3, 1, 0, 0, 0, 0, 0, 0]
    # And when the first ones are an hour old there is room for as many
    assert len((await world.admit(ROLLING, 9, at_ms=NOW + HOUR_MS + 60_000)).alerts) == 6


async def test_a_burst_is_held_for_a_person_and_leaves_when_released(world: World) -> None:
    # Given the same swipe again and again: the first one of the day is not looked at, then two are let through
    admission = await world.admit(STORM, 6)
    assert (len(admission.alerts), admission.held) == (3, {"burst": 3})
    view = (await world.ledger.held("burst")).rules[0]
    assert (view.alerts, view.waiting, view.first_due) == (3, 3, NOW + 24 * HOUR_MS)
    story = await alert_story(world.ledger, "e-5")
    assert story.saw is not None
    assert story.saw["storm"] == 1
    # When somebody releases them
    assert await world.ledger.release_held("burst", NOW + 1, "ada", view.up_to) == 3
    # Then they are due
    assert len(await world.ledger.due("wechat", NOW + 1, world.owner, 10, "sending")) == 3


async def test_a_reversal_takes_back_what_the_night_holds(world: World) -> None:
    await world.admit(NIGHT)
    back = await world.admit(NIGHT, type="reversal", refers_to="e-0", amount=-7261)
    assert (back.alerts, back.held) == ([], {})
    assert [await state_of(world.ledger, event) for event in ("e-0", "e-1")] == ["cancelled", "suppressed"]
