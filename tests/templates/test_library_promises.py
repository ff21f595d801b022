"""What the library promises as a whole: which notices there are, on which channels and in which languages, and that the
proofs beside this file tell each of them an event that it is for."""

from __future__ import annotations

import pytest

from templates.choose import Chooser
from templates.library import SHIPPED
from tests.templates.library_kit import LIBRARY, LOCALES, TEMPLATES, an_event, fitted

NOTICES = {
    "purchase": "swipe",
    "foreign purchase": "foreign-purchase",
    "refund": "refund",
    "reversal correction": "reversal",
    "decline": "decline",
    "cash advance": "cash",
    "large amount": "large",
    "suspected fraud": "fraud",
    "digest": "digest",
    "statement ready": "statement",
    "repayment due (before, on the day, after)": "repayment",
    "payment received": "payment",
    "points": "points",
    "limit change": "limit-change",
    "service notice": "service",
    "culture greeting": "greeting",
    "offer": "offer",
}
"""The notices of a card business, and the template of each."""

ON_A_CARD = {"greeting", "offer"}
"""Which WeChat does not allow in a template message (providers.md 2): they are cards with a picture instead."""


def test_every_notice_of_a_card_business_is_there_and_no_other() -> None:
    assert sorted(TEMPLATES) == sorted(NOTICES.values())
    assert len(NOTICES) == 17
    assert sorted(path.name for path in SHIPPED.iterdir() if (path / "template.toml").exists()) == sorted(TEMPLATES)


@pytest.mark.parametrize("name", NOTICES.values())
def test_each_is_told_on_every_channel_in_both_languages(name: str) -> None:
    template = TEMPLATES[name]
    assert template.channels == {"sms", "email"} | ({"wechat"} if name not in ON_A_CARD else set())
    assert template.has_card == (name in ON_A_CARD)
    # And each language says it in its own words
    facts = fitted(template, an_event(), 1)
    chinese, english = (template.render_sms(facts, locale) for locale in LOCALES)
    assert any("\u4e00" <= character <= "\u9fff" for character in chinese)
    assert chinese != english


@pytest.mark.parametrize("name", NOTICES.values())
def test_each_says_who_answers_for_it_and_what_it_is(name: str) -> None:
    template = TEMPLATES[name]
    assert template.owner
    assert template.title != template.id
    assert all(field.example for field in template.fields)


@pytest.mark.parametrize("name", NOTICES.values())
def test_the_events_of_the_proofs_are_those_that_the_notice_is_for(name: str) -> None:
    """Or they would prove nothing; but the swipe, which tells what no other is for, is proved on all movements."""
    chooser = Chooser(LIBRARY)
    chosen = [chooser.of(fitted(TEMPLATES[name], an_event(amount=100 + number), number).event) for number in range(60)]
    if name == "swipe":
        assert TEMPLATES["swipe"] in chosen
    else:
        assert {template.id for template in chosen} == {name}


def test_repayment_is_told_before_on_and_after_the_day() -> None:
    template = TEMPLATES["repayment"]
    told = {template.render_sms(fitted(template, an_event(), number), "en").split(".")[0] for number in range(40)}
    assert len({text for text in told if "overdue" in text}) > 1
    assert {text for text in told if "today" in text}
    assert len({text for text in told if "due in" in text}) > 1
