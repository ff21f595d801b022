"""A running engine and its templates: an alert keeps its version for good, and a failing one fails that alert alone."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from dispatcher.engine import Engine
from dispatcher.errors import LedgerUnavailable
from dispatcher.ledger.people import Person
from dispatcher.ledger.template_changes import Approve, Rollback
from dispatcher.ledger.worker import InlineLedger
from dispatcher.model.recipient import RecipientLine
from replay.explain import moment, tell
from templates.choose import place_of
from tests.dispatcher.template_kit import Folder, Process
from tests.dispatcher.test_engine import swipe
from tests.dispatcher.wechat_kit import EVENING_MS, World

SMS = "/sms"
WECHAT = "/cgi-bin/message/template/send"


class Bank:
    """A folder of templates, a ledger, and engines that come and go."""

    def __init__(self, tmp_path: Path) -> None:
        self.folder = Folder(tmp_path / "templates")
        self.approval = False
        self._folder = tmp_path
        self._world: World | None = None

    @property
    def world(self) -> World:
        """The platform; made inside of trio, whose clock it has."""
        if self._world is None:
            self._world = World(self._folder)
        return self._world

    @asynccontextmanager
    async def engine(self, *, watched: bool = False) -> AsyncIterator[Engine]:
        """A process with the folder's templates as they are now; ``watched``: it follows their changes."""
        ledger = InlineLedger(self.world.path)
        process = Process(self.folder.path, ledger, approval=self.approval)
        library = await process.watch.first(strict=True)
        async with self.world.engine(sms=True, templates=library) as (engine, _, _), trio.open_nursery() as nursery:
            if watched:
                nursery.start_soon(process.watch.run, self.world.admitter.tell_by)
            yield engine
            nursery.cancel_scope.cancel()
        await ledger.aclose()

    async def ask(self, operation: Any) -> Any:
        ledger = InlineLedger(self.world.path)
        try:
            return await operation(ledger)
        finally:
            await ledger.aclose()

    async def tell(self, *accounts: str, **fields: Any) -> None:
        people = [
            RecipientLine(account=account, openid=f"o-{account}", phone="+8613800000001", **fields)
            for account in accounts
        ]
        await self.ask(lambda ledger: ledger.import_recipients(people))

    async def stories(self, *event_ids: str) -> list[Any]:
        """The alert of each event."""

        async def read(ledger: InlineLedger) -> list[Any]:
            found = [await ledger.explain(event_id) for event_id in event_ids]
            return [one.alerts[0] for one in found if one is not None]

        stories: list[Any] = await self.ask(read)
        assert len(stories) == len(event_ids)
        return stories

    async def story(self, event_id: str) -> Any:
        return (await self.stories(event_id))[0]

    def said(self, path: str = WECHAT) -> list[str]:
        """What was sent on a channel, in order."""
        bodies = [json.loads(body) for sent, body in self.world.sent if sent == path]
        return [body["text"] if path == SMS else body["data"]["thing5"]["value"] for body in bodies]


@pytest.fixture
def bank(tmp_path: Path) -> Bank:
    return Bank(tmp_path)


def event(number: int, **fields: Any) -> Any:
    return swipe(number, EVENING_MS, **fields)


def busy() -> tuple[int, bytes]:
    return 200, b'{"errcode":-1}'


def closed() -> tuple[int, bytes]:
    return 200, b'{"errcode":43101}'


async def test_a_retry_in_another_process_says_what_its_own_version_says(bank: Bank, autojump_clock: Any) -> None:
    # Given an alert that its provider was too busy for, told by the seventh version
    await bank.tell("acc")
    bank.folder.write(version=7, says="seven: {{ merchant }}")
    bank.world.instead[WECHAT] = busy
    async with bank.engine() as engine:
        await engine.admit([event(1)])
        await trio.sleep(0.5)
    # When the process ends, and the next one has the eighth
    bank.folder.write(version=8, says="eight: {{ merchant }}")
    bank.world.instead.clear()
    bank.world.sent.clear()
    async with bank.engine() as engine:
        await engine.admit([event(2)])
        await engine.idle()
    # Then the old alert still says what it was to say, and the new one what is said now
    assert sorted(bank.said()) == ["eight: shop 2", "seven: shop 1"]
    first, second = await bank.story("e1"), await bank.story("e2")
    assert [(one.state, one.template) for one in (first, second)] == [
        ("delivered", "swipe@7"),
        ("delivered", "swipe@8"),
    ]


async def test_a_new_version_is_told_from_the_next_batch_on_and_a_retry_keeps_its_own(
    bank: Bank, autojump_clock: Any
) -> None:
    await bank.tell("acc")
    bank.folder.write(version=7, says="seven: {{ merchant }}")
    bank.world.instead[WECHAT] = busy
    async with bank.engine(watched=True) as engine:
        await engine.admit([event(1)])
        await trio.sleep(0.5)
        # When the file changes under a running engine
        bank.folder.write(version=8, says="eight: {{ merchant }}")
        await trio.sleep(3)
        await engine.admit([event(2)])
        bank.world.sent.clear()
        bank.world.instead.clear()
        await engine.idle()
    # Then what was decided before says what it was to say
    assert {"seven: shop 1", "eight: shop 2"} == set(bank.said())


async def test_a_version_that_is_not_understood_any_more_fails_its_alert_and_no_other(
    bank: Bank, autojump_clock: Any
) -> None:
    # Given an alert of a version that the next release does not understand
    await bank.tell("acc")
    bank.folder.write(version=7)
    bank.world.instead[WECHAT] = busy
    async with bank.engine() as engine:
        await engine.admit([event(1)])
        await trio.sleep(0.5)
    bank.folder.write(version=8)
    bank.world.instead.clear()

    async def spoil(ledger: InlineLedger) -> None:
        ledger.store.connection.execute("UPDATE template_versions SET content='id = 1' WHERE version=7")

    await bank.ask(spoil)
    # When it comes due there
    async with bank.engine() as engine:
        await engine.admit([event(2)])
        await engine.idle()
    # Then it fails with its reason, on its next channel as well, and the other one is told
    first, second = await bank.story("e1"), await bank.story("e2")
    assert (first.state, first.reason, second.state) == ("failed", "template:BrokenTemplate", "delivered")


async def test_an_alert_that_lacks_a_fact_on_one_channel_is_told_on_the_next(bank: Bank, autojump_clock: Any) -> None:
    # Given a template whose WeChat message needs a fact that its SMS does without
    await bank.tell("acc")
    bank.folder.write("own", category="own", says="{{ merchant }}", wechat="{{ due_date }}")
    async with bank.engine() as engine:
        await engine.admit([event(1, category="own"), event(2, category="own", facts={"due_date": "2026-11-25"})])
        await engine.idle()
    # Then the alert that lacks it is an SMS, and the other a WeChat message
    first, second = await bank.story("e1"), await bank.story("e2")
    assert [(one.state, one.channel) for one in (first, second)] == [("delivered", "sms"), ("delivered", "wechat")]
    assert (bank.said(), bank.said(SMS)) == (["2026年11月25日"], ["shop 1"])
    # And explain says why it left WeChat
    assert [(one.channel, one.why) for one in first.detours] == [("wechat", "render:missing-fact due_date")]


ENDLESS = "{% for a in range(999) %}{% for b in range(999) %}.{% endfor %}{% endfor %}"
HUNGRY = f'{{% if merchant == "endless" %}}{ENDLESS}{{% endif %}}x'


@pytest.mark.parametrize(
    ("says", "fields", "reason"),
    [
        ("{{ due_date }}", {}, "render:missing-fact due_date"),
        ("{{ due_date }}", {"facts": {"due_date": "soon"}}, "template-field:due_date"),
        (HUNGRY, {"merchant": "endless"}, "template:RenderFailed sms.zh-CN/text, line 1: OutOfFuel"),
        ("{{ text }}", {"facts": {"text": " "}}, "template-field:text"),
    ],
)
async def test_an_alert_that_no_channel_can_tell_fails_with_its_reason_and_the_engine_goes_on(
    bank: Bank, autojump_clock: Any, says: str, fields: dict[str, Any], reason: str
) -> None:
    await bank.tell("acc")
    bank.folder.write("own", category="own", says=says)
    async with bank.engine() as engine:
        await engine.admit([event(1, category="own", **fields), event(2)])
        await engine.admit([event(3)])
        await engine.idle()
    first = await bank.story("e1")
    assert (first.state, first.reason, first.attempts) == ("failed", reason, [])
    assert [(await bank.story(name)).state for name in ("e2", "e3")] == ["delivered", "delivered"]


async def test_a_share_of_the_accounts_is_told_the_version_that_is_rolled_out(bank: Bank, autojump_clock: Any) -> None:
    # Given a version that was approved for a third of the accounts
    accounts = [f"A-{number}" for number in range(60)]
    await bank.tell(*accounts)
    bank.approval = True
    bank.folder.write(version=7, says="seven")
    async with bank.engine():
        pass
    bank.folder.write(version=8, says="eight")
    async with bank.engine():
        pass
    act = Approve(id="swipe", version=8, percent=33, by=Person("Ben"), at_ms=EVENING_MS)
    await bank.ask(lambda ledger: ledger.template_act(act))
    # When each account has two swipes, in two processes
    for run in range(2):
        async with bank.engine() as engine:
            await engine.admit([event(100 * run + n, account=account) for n, account in enumerate(accounts)])
            await engine.idle()
    # Then each is told the version of its place, both times
    expected = ["swipe@8" if place_of(account, "swipe") < 33 else "swipe@7" for account in accounts]
    assert 10 <= expected.count("swipe@8") <= 30
    for run in range(2):
        stories = await bank.stories(*(f"e{100 * run + number}" for number in range(60)))
        assert [one.template for one in stories] == expected
    assert bank.said().count("eight") == 2 * expected.count("swipe@8")


async def test_a_ledger_that_cannot_be_read_just_now_costs_no_alert(bank: Bank, autojump_clock: Any) -> None:
    # Given a retry of another process's version, and a ledger that answers only at the third try
    await bank.tell("acc")
    bank.folder.write(version=7, says="seven")
    bank.world.instead[WECHAT] = busy
    async with bank.engine() as engine:
        await engine.admit([event(1)])
        await trio.sleep(0.5)
    bank.folder.write(version=8, says="eight")
    bank.world.instead.clear()
    bank.world.sent.clear()
    asked = 0
    async with bank.engine() as engine:
        library: Any = engine.lanes["wechat"]._templates
        texts = library._texts

        async def sometimes(names: Any) -> Any:
            nonlocal asked
            asked += 1
            if asked < 3:
                raise LedgerUnavailable("the disk is full")
            return await texts(names)

        library._texts = sometimes
        await engine.idle()
    assert (asked, bank.said(), (await bank.story("e1")).state) == (3, ["seven"], "delivered")


async def test_explain_says_why_an_alert_was_told_by_its_version(bank: Bank, autojump_clock: Any) -> None:
    # Given an account in the tenth that is told the eighth version, and one that is not
    inside = next(name for name in (f"A-{number}" for number in range(99)) if place_of(name, "swipe") < 10)
    outside = next(name for name in (f"A-{number}" for number in range(99)) if place_of(name, "swipe") >= 10)
    await bank.tell(inside, outside)
    bank.approval = True
    bank.folder.write(version=7)
    async with bank.engine() as engine:
        await engine.admit([event(1, account=inside)])
        await engine.idle()
    bank.folder.write(version=8)
    async with bank.engine():
        pass
    now_ms = bank.world.now_ms()
    act = Approve(id="swipe", version=8, percent=10, by=Person("Ben"), at_ms=now_ms)
    await bank.ask(lambda ledger: ledger.template_act(act))
    await trio.sleep(1)
    async with bank.engine() as engine:
        await engine.admit([event(2, account=inside), event(3, account=outside)])
        await engine.idle()
    back = Rollback(id="swipe", by=Person("Cleo"), at_ms=bank.world.now_ms())
    await bank.ask(lambda ledger: ledger.template_act(back))
    await trio.sleep(1)
    async with bank.engine() as engine:
        await engine.admit([event(4, account=inside)])
        await engine.idle()

    async def told(ledger: InlineLedger) -> list[str]:
        stories = [await ledger.explain(f"e{number}") for number in range(1, 5)]
        return [line for one in stories if one is not None for line in tell(one) if "template" in line]

    # Then explain says so, also of what was decided before and after
    first, second, third, fourth = [line.strip().rpartition(", rules ")[0] for line in await bank.ask(told)]
    assert first == "template swipe@7"
    assert second == (
        f"template swipe@8 (rolled out to 10 % of the accounts, this one among them: approve by Ben {moment(now_ms)})"
    )
    assert third == (
        "template swipe@7 (swipe@8 was rolled out to 10 % of the accounts, this one not among them:"
        f" approve by Ben {moment(now_ms)})"
    )
    assert fourth == f"template swipe@7 (rollback by Cleo {moment(back.at_ms)})"
