"""A template that fails on an alert at run time: that alert has its reason and its fallback, and the engine goes on.

Each of these templates is a good one for its examples, so it could be loaded; it fails on one merchant, or on an event
that does not tell what it needs. The real engine, channels and providers (simulated, in virtual time) meet them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dispatcher.ledger.worker import InlineLedger
from dispatcher.model.recipient import RecipientLine
from replay.explain import tell
from templates.facts import SwipeFacts
from templates.library import Library
from templates.template import Template
from tests.dispatcher import wechat_kit
from tests.dispatcher.test_engine import swipe
from tests.dispatcher.wechat_kit import EVENING_MS, World

PERSON = RecipientLine(account="acc", openid="o1", phone="+8613800000001", channels=["wechat", "sms"])

BOMB = "boom"
"""The merchant on which they fail."""

ENDLESS = f"{{% if merchant == '{BOMB}' %}}{{% for i in range(99999) %}}{{{{ i }}}}{{% endfor %}}{{% endif %}}"
NESTED = (
    f"{{% if merchant == '{BOMB}' %}}{{% for i in range(999) %}}{{% for j in range(999) %}}{{% endfor %}}{{% endfor %}}"
    "{% endif %}"
)
FLOOD = f"{{% if merchant == '{BOMB}' %}}{{% for i in range(200) %}}{'x' * 5_000}{{% endfor %}}{{% endif %}}"
"""A megabyte, for few instructions."""

BROKEN = {
    "endless": (ENDLESS, "line 1: OutOfFuel"),
    "nested loops": (NESTED, "line 1: OutOfFuel"),
    "a megabyte": (FLOOD, "more than 4096 characters of output"),
}
every_broken = pytest.mark.parametrize(("broken", "why"), BROKEN.values(), ids=BROKEN)

FILE = """id = "{id}"
version = 1
category = "{id}"
[[fields]]
name = "merchant"
type = "text"
example = "shop"
{fields}
[wechat.zh-CN]
thing1 = "{{{{ merchant }}}}{wechat}"
[wechat.en]
thing1 = "{{{{ merchant }}}}{wechat}"
[sms.zh-CN]
text = "{{{{ merchant }}}}{sms}"
[sms.en]
text = "{{{{ merchant }}}}{sms}"
"""
DUE = '[[fields]]\nname = "due_date"\ntype = "time"\nexample = "2026年11月25日"'


def library(folder: Path, wechat: str = "", sms: str = "", fields: str = "") -> Library:
    """The shipped one and a template of the category ``odd``."""
    (folder / "library" / "odd").mkdir(parents=True)
    text = FILE.format(id="odd", wechat=wechat, sms=sms, fields=fields)
    (folder / "library" / "odd" / "template.toml").write_text(text, "utf-8")
    return Library.load(folder / "library")


Ends = list[tuple[str, str | None, str | None]]


async def ends_of(folder: Path, alerts: list[dict[str, Any]]) -> tuple[Ends, World]:
    """(state, channel, reason) of each alert once the engine is idle, and the providers."""
    world = World(folder)
    ledger = InlineLedger(world.path)
    await ledger.import_recipients([PERSON])
    async with world.engine(sms=True) as (engine, _, _):
        await engine.admit([swipe(number, EVENING_MS, **one) for number, one in enumerate(alerts)])
        await engine.idle()
    stories = [await ledger.explain(f"e{number}") for number in range(len(alerts))]
    await ledger.aclose()
    found = [story.alerts[0] for story in stories if story is not None]
    return [(one.state, one.channel, one.reason) for one in found], world


@every_broken
async def test_what_fails_on_wechat_is_told_by_sms_and_the_others_are_not_touched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str, why: str, autojump_clock: Any
) -> None:
    # Given a template whose WeChat part has no end, or a megabyte, for one merchant
    monkeypatch.setattr(wechat_kit, "LIBRARY", library(tmp_path, wechat=broken))
    # When that merchant's event comes between others, of its own category and of swipes
    others = {"category": "odd", "merchant": "shop"}, {"merchant": "shop"}
    ends, world = await ends_of(tmp_path, [{"category": "odd", "merchant": BOMB}, *others])
    # Then it is told by SMS, and the others on WeChat
    assert ends == [("delivered", "sms", None), ("delivered", "wechat", None), ("delivered", "wechat", None)]
    assert world.book.refused == {}
    # And whoever asks why is told
    ledger = InlineLedger(world.path)
    story = await ledger.explain("e0")
    await ledger.aclose()
    assert story is not None
    (detour,) = story.alerts[0].detours
    assert detour.channel == "wechat"
    assert detour.why.startswith("template:RenderFailed")
    assert why in detour.why
    assert [line for line in tell(story) if detour.why in line]


@every_broken
async def test_what_fails_on_every_channel_has_failed_with_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str, why: str, autojump_clock: Any
) -> None:
    monkeypatch.setattr(wechat_kit, "LIBRARY", library(tmp_path, wechat=broken, sms=broken))
    ends, world = await ends_of(tmp_path, [{"category": "odd", "merchant": BOMB}, {"merchant": "shop"}])
    ((state, channel, reason), other) = ends
    assert (state, channel, other) == ("failed", "sms", ("delivered", "wechat", None))
    assert reason is not None
    assert reason.startswith("template:RenderFailed")
    assert why in reason
    assert BOMB not in reason
    assert world.providers.book.sms.requests == 0


async def test_a_defect_of_a_channel_in_one_alert_s_words_is_that_alert_s_even_as_a_panic(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: Any
) -> None:
    # Given a library in Rust that panics, which is no Exception, while one alert's words are made
    panic = type("PanicException", (BaseException,), {})
    told = Template.render_wechat_json

    def panicking(self: Template, facts: SwipeFacts, locale: str) -> str:
        if facts.event.merchant == BOMB:
            raise panic
        return told(self, facts, locale)

    monkeypatch.setattr(Template, "render_wechat_json", panicking)
    # When that alert leaves beside another
    ends, _ = await ends_of(tmp_path, [{"merchant": BOMB}, {"merchant": "shop"}])
    # Then it is told by SMS, and the engine has told the other
    assert ends == [("delivered", "sms", None), ("delivered", "wechat", None)]


async def test_a_missing_fact_is_named_and_whoever_tells_it_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: Any
) -> None:
    # Given a template whose both parts need a due date
    due = "{{ due_date }}"
    monkeypatch.setattr(wechat_kit, "LIBRARY", library(tmp_path, wechat=due, sms=due, fields=DUE))
    # When three events come: without facts, without this one, and with it
    odd = {"category": "odd", "merchant": "shop"}
    other, told = {"facts": {"name": "Li Lei"}}, {"facts": {"due_date": "2026-11-25"}}
    ends, _ = await ends_of(tmp_path, [odd, odd | other, odd | told])
    # Then the reason names the fact
    assert ends == [("failed", "sms", "render:missing-fact due_date")] * 2 + [("delivered", "wechat", None)]


async def test_a_fact_of_the_wrong_shape_is_named_and_not_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: Any
) -> None:
    due = "{{ due_date }}"
    monkeypatch.setattr(wechat_kit, "LIBRARY", library(tmp_path, wechat=due, sms=due, fields=DUE))
    event = {"category": "odd", "merchant": "shop", "facts": {"due_date": "<b>soon</b>"}}
    ends, _ = await ends_of(tmp_path, [event])
    assert ends == [("failed", "sms", "template-field:due_date")]
