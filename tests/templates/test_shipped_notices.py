"""The shipped notices, word by word against the files in ``golden``, and what all of them keep to.

After a change that is meant, write the files anew with ``SWIPEBELL_GOLDEN=write`` in the environment and look at their
difference.
"""

from __future__ import annotations

import os
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import msgspec
import pytest

from templates.choose import Chooser
from templates.errors import MissingFact
from templates.library import Library, Template
from templates.limits import SMS_SINGLE_UNITS, check
from templates.text import ELLIPSIS, units
from tests.templates.notice_kit import CASES, EVENTS, LINK, facts_of, reading_of

LIBRARY = Library.load()
GOLDEN = Path(__file__).parent / "golden"
LOCALES = ("zh-CN", "en")

MAX_WECHAT_KEYS = 5
"""Of a category template (docs of the provider: five keywords at most)."""

SIGN_UNITS = 6
"""Of a bank's sign in front of an SMS: 【四个汉字】."""

TWO_PARTS = {"foreign-purchase", "fraud", "offer", "payment", "service"}
"""Whose Chinese SMS has more to say than one part holds: two amounts, a link, two numbers, a text of the bank's."""

every_case = pytest.mark.parametrize(("name", "case"), CASES)
every_locale = pytest.mark.parametrize("locale", LOCALES)


class Markup(HTMLParser):
    """The tags of a mail with their attributes, what a reader sees, and that every tag closes."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += data


def test_every_shipped_template_has_events_here() -> None:
    assert sorted(EVENTS) == sorted(template.id for template in LIBRARY)


@every_locale
@pytest.mark.parametrize("name", EVENTS)
def test_a_notice_reads_as_it_is_known_to(name: str, locale: str) -> None:
    file = GOLDEN / f"{name}.{locale}.txt"
    reading = reading_of(LIBRARY.template(name), locale)
    if os.environ.get("SWIPEBELL_GOLDEN") == "write":
        GOLDEN.mkdir(exist_ok=True)
        file.write_text(reading, "utf-8")
    assert reading == file.read_text("utf-8")


@every_case
def test_an_event_is_told_by_the_notice_that_is_meant_for_it(name: str, case: str) -> None:
    assert Chooser(LIBRARY).of(EVENTS[name][case]).id == name


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        # A purchase that is large and abroad is told as large, which shows both amounts, too
        ({"amount": 500_000, "orig_amount": 70_000, "orig_currency": "USD"}, "large"),
        ({"amount": 499_999}, "swipe"),
        # What was declined was not large, and not cash either
        ({"amount": 500_000, "status": "declined"}, "decline"),
        ({"type": "cash", "status": "declined"}, "decline"),
        ({"status": "declined", "orig_amount": 500, "orig_currency": "EUR"}, "decline"),
        ({"type": "refund", "status": "declined"}, "swipe"),
        ({"type": "cash", "orig_amount": 500, "orig_currency": "EUR"}, "cash"),
        ({"type": "refund", "orig_amount": 500, "orig_currency": "EUR"}, "refund"),
        # A doubt wins over everything
        ({"category": "fraud", "amount": 900_000, "orig_amount": 500, "orig_currency": "EUR"}, "fraud"),
        ({"category": "fraud", "status": "declined"}, "fraud"),
        ({"type": "entry"}, "swipe"),
        ({"category": "unheard-of"}, "swipe"),
    ],
)
def test_an_event_that_fits_several_is_told_by_the_one_that_says_most(changed: dict[str, Any], told: str) -> None:
    event = msgspec.structs.replace(EVENTS["swipe"]["purchase"], **changed)
    assert Chooser(LIBRARY).of(event).id == told


@pytest.mark.parametrize("late_seconds", [0, 2100, 200_000])
@every_locale
@every_case
def test_wechat_takes_every_field_and_cuts_no_word_of_ours(
    name: str, case: str, locale: str, late_seconds: int
) -> None:
    template = LIBRARY.template(name)
    if "wechat" not in template.channels:
        assert template.category in ("greeting", "promotion")  # which its template messages must not carry
        return
    data = template.render_wechat(facts_of(name, case, late_seconds=late_seconds), locale)
    assert check(data) == []
    assert len(data) <= MAX_WECHAT_KEYS
    cut = {key for key, field in data.items() if ELLIPSIS in field["value"]}
    assert cut <= ({"thing9"} if name == "service" else set())


def test_all_movements_have_the_keys_of_the_swipe() -> None:
    # So a bank sets up one template in the service account's console for all of them
    keys = {
        name: sorted(LIBRARY.template(name).render_wechat(facts_of(name, case), "en"))
        for name, case in CASES
        if LIBRARY.template(name).category in ("swipe", "fraud")
    }
    assert len(keys) == 8
    assert set(map(tuple, keys.values())) == {("amount2", "thing1", "thing5", "thing9", "time3")}


@every_case
def test_a_chinese_sms_is_one_part_where_that_can_be(name: str, case: str) -> None:
    text = LIBRARY.template(name).render_sms(facts_of(name, case), "zh-CN")
    assert units(text) + SIGN_UNITS <= SMS_SINGLE_UNITS * (2 if name in TWO_PARTS else 1)


@every_locale
@every_case
def test_a_mail_says_in_html_what_it_says_in_text(name: str, case: str, locale: str) -> None:
    # Given a mail
    mail = LIBRARY.template(name).render_email(facts_of(name, case, late_seconds=2100), locale)
    seen = Markup(mail.html)
    # Then its tags close, it loads nothing but a picture, and that has words in its place
    assert not seen.open
    assert not {"script", "link", "iframe", "form", "object"} & {tag for tag, _ in seen.tags}
    pictures = [attributes for tag, attributes in seen.tags if tag == "img"]
    assert all(picture["alt"] and (picture["src"] or "").startswith("https://") for picture in pictures)
    assert bool(pictures) == (name in ("greeting", "offer"))
    assert dict(seen.tags)["html"]["lang"] == locale
    # And every number and every link of the text is in it
    links = {attributes["href"] for tag, attributes in seen.tags if tag == "a"}
    for word in re.findall(r"https://\S+|[¥€]?-?[0-9][0-9,.:-]*[0-9]", mail.text):
        assert word in links or word in seen.text, word
    assert "\n\n\n" not in mail.text
    assert "\n" not in mail.subject


@every_locale
@pytest.mark.parametrize("name", ["greeting", "offer", "service"])
def test_a_text_of_the_bank_becomes_no_markup(name: str, locale: str) -> None:
    # Given a title and a text that would break out of a tag or an attribute
    event = next(iter(EVENTS[name].values()))
    hostile = {"title": "\"><script>x</script>' onload='y", "text": "</td><img src=x>{{ link }}"}
    harmless = {"title": "title", "text": "text"}
    tags = []
    for words in (hostile, harmless):
        facts = msgspec.structs.replace(
            facts_of(name, next(iter(EVENTS[name]))),
            event=msgspec.structs.replace(event, facts={**(event.facts or {}), **words}),
        )
        tags.append(
            [(tag, sorted(found)) for tag, found in Markup(template_of(name).render_email(facts, locale).html).tags]
        )
    # Then the mail has the same tags and attributes as with harmless words
    assert tags[0] == tags[1]


def template_of(name: str) -> Template:
    return LIBRARY.template(name)


@every_locale
@pytest.mark.parametrize("case", EVENTS["offer"])
def test_an_offer_always_says_how_to_hear_no_more_of_them(case: str, locale: str) -> None:
    facts = facts_of("offer", case)
    how = str((facts.event.facts or {})["unsubscribe"])
    offer = LIBRARY.template("offer")
    mail = offer.render_email(facts, locale)
    for told in (offer.render_sms(facts, locale), offer.render_card(facts, locale).description, mail.text, mail.html):
        assert how in told
    # And without a way it is not told at all
    mute = msgspec.structs.replace(facts.event, facts={"title": "x", "text": "y"})
    with pytest.raises(MissingFact, match="unsubscribe"):
        offer.render_sms(msgspec.structs.replace(facts, event=mute), locale)


@pytest.mark.parametrize(
    ("name", "missing"),
    [
        ("statement", "period"),
        ("repayment", "statement_amount_minor"),
        ("points", "points_balance"),
        ("limit-change", "old_limit_minor"),
        ("greeting", "title"),
        ("service", "text"),
    ],
)
def test_a_notice_without_its_fact_is_not_told_and_says_which(name: str, missing: str) -> None:
    facts = facts_of(name, next(iter(EVENTS[name])))
    left = {key: value for key, value in (facts.event.facts or {}).items() if key != missing}
    poorer = msgspec.structs.replace(facts, event=msgspec.structs.replace(facts.event, facts=left))
    with pytest.raises(MissingFact, match=missing):
        LIBRARY.template(name).render_sms(poorer, "en")


@every_locale
@pytest.mark.parametrize("name", EVENTS)
def test_the_examples_are_of_the_locale(name: str, locale: str) -> None:
    # Given the examples that a preview shows, when they are English, then no Chinese word is among them
    template = LIBRARY.template(name)
    assert template.owner
    assert template.title != name
    chinese = re.compile("[一-鿿]")
    examples = template.examples(locale)
    assert examples.keys() == {line.name for line in template.fields}
    assert (locale == "zh-CN") or not [value for value in examples.values() if chinese.search(value)]


def test_a_link_keeps_its_ampersand_in_the_mail() -> None:
    mail = LIBRARY.template("statement").render_email(facts_of("statement", "to pay"), "en")
    assert LINK.replace("&", "&amp;") in mail.html
    assert LINK in mail.text


def test_the_docs_list_every_shipped_notice_and_its_channels() -> None:
    page = Path(__file__).parents[2] / "docs" / "templates-library.md"
    table = page.read_text("utf-8").partition("| id |")[2].partition("\n\n")[0]
    rows = [[cell.strip() for cell in line.split("|")] for line in table.splitlines()[2:]]
    listed = {row[1].strip("`"): tuple(cell == "✓" for cell in row[4:8]) for row in rows}
    channels = ("wechat", "card", "sms", "email")
    assert listed == {
        template.id: tuple(
            template.has_card if channel == "card" else channel in template.channels for channel in channels
        )
        for template in LIBRARY
    }
