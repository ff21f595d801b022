"""Strings that want to be more than a name, in every text of an event and in every notice of the library.

Each must come out as itself: cleaned of what hides, shortened where a channel has no room, and without any effect on
what stands around it. What stands around it is known from the same alert with harmless words in its place.
"""

from __future__ import annotations

import json
import unicodedata
from functools import cache
from html import escape
from typing import Any

import msgspec
import pytest

from dispatcher.events import Rejected, decode_event
from templates.facts import SwipeFacts
from templates.library import Template
from templates.preview import preview_of, render_preview
from templates.text import clean, without_emoji
from tests.templates import second_opinion
from tests.templates.injections import INJECTIONS
from tests.templates.library_kit import LOCALES, TEMPLATES, an_event, fitted, with_texts
from tests.templates.second_opinion import Page, seen_in

WORD = "Qzxshop"
"""What stands in a string's place in the alert that it is compared with."""

PAGE_EVERY, MESSAGE_EVERY = 9, 11
"""A page is taken apart, and a mail put together and taken apart, for so many pairs of string and template: that takes
longer than all else. The other pages are compared as text, and taken apart where they differ."""

each_injection = pytest.mark.parametrize("raw", INJECTIONS.values(), ids=INJECTIONS)


def parts_of(channel: str) -> list[tuple[Template, str]]:
    return [
        (template, locale)
        for template in TEMPLATES.values()
        if channel in template.channels or (channel == "card" and template.has_card)
        for locale in LOCALES
    ]


def told(template: Template, raw: str, *, is_seen: bool) -> SwipeFacts:
    """What the template tells, with ``raw`` wherever the core system writes text."""
    return with_texts(fitted(template, an_event(), 1), raw, needed=raw if is_seen else "-")


@cache
def around(channel: str, template: Template, locale: str, is_seen: bool) -> Any:
    """The alert with a harmless word; with none where nothing of the string is seen, so that it says the same."""
    facts = told(template, WORD if is_seen else "", is_seen=is_seen)
    if channel == "wechat":
        return json.loads(template.render_wechat_json(facts, locale))
    if channel == "email":
        words = template.render_email(facts, locale)
        return words, seen_in(words.html)
    return template.render_sms(facts, locale) if channel == "sms" else template.render_card(facts, locale)


def is_told_in(text: str, expected: str, shown: str) -> bool:
    """Whether ``text`` is ``expected`` with ``shown`` for the word, and no more missing than an ellipsis says."""
    whole = expected.replace(WORD, shown)
    if text == whole:
        return True
    at = 0
    for piece in text.split("…"):
        at = whole.find(piece.strip(), at)
        if at < 0:
            return False
    return "…" in text


def test_there_are_a_hundred_of_them_and_more() -> None:
    assert len(set(INJECTIONS.values())) >= 100


@each_injection
def test_what_is_left_of_it_is_itself(raw: str) -> None:
    """Nothing is left but its own characters in their order; of an ordinary string, all."""
    text = clean(raw)
    assert second_opinion.of_text(text) == []
    kept = unicodedata.normalize("NFC", raw)
    ordinary = raw.isprintable() and kept == raw and " ".join(raw.split()) == raw and len(raw) < 500
    if ordinary and not any(unicodedata.category(character)[0] == "M" for character in raw):
        assert text.replace(" ", "") == "".join(kept.split()) or "\u3164" in raw
    rest = iter(kept)
    assert all(
        character in rest for character in unicodedata.normalize("NFC", text.removesuffix("…")) if character != " "
    )


@each_injection
def test_wechat_shows_it_and_nothing_of_what_it_wants(raw: str) -> None:
    shown = without_emoji(clean(raw))
    for template, locale in parts_of("wechat"):
        # Given the alert with the string, and with a harmless word
        expected = around("wechat", template, locale, bool(shown))
        # When it is rendered
        facts = told(template, raw, is_seen=bool(shown))
        text = template.render_wechat_json(facts, locale)
        data = json.loads(text)
        # Then the provider takes it, and its keys and all other words are the same
        at = template.id, locale
        assert second_opinion.of_wechat(text) == [], at
        assert data == template.render_wechat(facts, locale), at
        assert list(data) == list(expected), at
        for key, field in data.items():
            assert is_told_in(field["value"], expected[key]["value"], shown), (*at, key)


@each_injection
def test_an_sms_has_it_on_its_one_line(raw: str) -> None:
    shown = clean(raw)
    for template, locale in parts_of("sms"):
        text = template.render_sms(told(template, raw, is_seen=bool(shown)), locale)
        assert second_opinion.of_sms(text) == [], (template.id, locale)
        assert is_told_in(text, around("sms", template, locale, bool(shown)), shown), (template.id, locale)


@each_injection
def test_a_mail_has_it_as_text_and_its_headers_and_elements_are_ours(raw: str) -> None:
    shown = clean(raw)
    turn = list(INJECTIONS.values()).index(raw)
    for number, (template, locale) in enumerate(parts_of("email")):
        at = template.id, locale
        words = template.render_email(told(template, raw, is_seen=bool(shown)), locale)
        plain, expected = around("email", template, locale, bool(shown))
        # Then nothing hides, and subject and text say it
        assert second_opinion.of_mail(words) == [], at
        assert is_told_in(words.subject, plain.subject, shown), at
        assert is_told_in(words.text, plain.text, shown), at
        # And in the page it is text: the same elements with the same attributes stand around it
        if words.html != plain.html.replace(WORD, escape(shown)) or (number + turn) % PAGE_EVERY == 0:
            page = seen_in(words.html)
            assert page.elements == with_word_replaced(expected, shown), at
            assert is_told_in(page.text, expected.text, shown), at
        # And a mailbox finds our headers and no other
        if (number + turn) % MESSAGE_EVERY == 0:
            slim = msgspec.structs.replace(words, text="-", html="-")
            assert second_opinion.of_message(slim, locale) == [], at


def with_word_replaced(page: Page, shown: str) -> list[Any]:
    """An attribute may hold the word (the text of a picture, say), and then holds the string."""
    return [
        (tag, tuple((key, value and value.replace(WORD, shown)) for key, value in attributes))
        for tag, attributes in page.elements
    ]


@each_injection
def test_a_card_has_it_as_text_and_its_links_are_ours(raw: str) -> None:
    shown = clean(raw)
    for template, locale in parts_of("card"):
        card = template.render_card(told(template, raw, is_seen=bool(shown)), locale)
        expected = around("card", template, locale, bool(shown))
        assert second_opinion.of_card(card) == [], (template.id, locale)
        assert (card.picture, card.url) == (expected.picture, expected.url)
        assert is_told_in(card.title, expected.title, shown), (template.id, locale)
        assert is_told_in(card.description, expected.description, shown), (template.id, locale)


@each_injection
def test_the_door_takes_it_or_says_why_not_and_no_card_number_gets_in(raw: str) -> None:
    event = json.loads(msgspec.json.encode(an_event())) | {"merchant": raw, "city": raw}
    decoded = decode_event(json.dumps(event).encode(), 1)
    if isinstance(decoded, Rejected):
        # Only what no merchant has: control characters, half characters, and a line that is too long.
        odd = any(unicodedata.category(character) in ("Cc", "Cs") for character in raw)
        assert odd or len(raw) >= 10_000
        assert raw[:8] not in decoded.error
        return
    text = TEMPLATES["swipe"].render_sms(SwipeFacts(decoded.event), "en")
    assert second_opinion.of_sms(text) == []
    assert "4111111111111111" not in unicodedata.normalize("NFKC", text)


@each_injection
def test_the_preview_page_shows_it_as_text_too(raw: str) -> None:
    """The page and the mails in its frames have no kind of element and no attribute that a harmless word has not."""
    turn = list(INJECTIONS.values()).index(raw)
    place = turn % len(TEMPLATES)
    template, locale = list(TEMPLATES.values())[place], LOCALES[place % len(LOCALES)]
    page = shown_in_preview(template, raw, locale)
    kinds, scripts = harmless_preview(template.id, locale)
    assert kinds_of(page) <= kinds
    assert page.scripts == scripts
    assert second_opinion.hidden_in(page.text.replace("\n", "").replace("\t", "")) == []


def shown_in_preview(template: Template, raw: str, locale: str) -> Page:
    facts = told(template, raw, is_seen=bool(clean(raw)))
    preview = preview_of(template, locales=[locale], facts=facts)
    # The event's case alone: the others are the template's own examples.
    return seen_in(render_preview(msgspec.structs.replace(preview, cases=preview.cases[:1])))


@cache
def harmless_preview(template_id: str, locale: str) -> tuple[set[Any], list[str]]:
    """Of words with and without need to be shortened, and with none."""
    pages = [shown_in_preview(TEMPLATES[template_id], word, locale) for word in (WORD, WORD * 200, "")]
    return set.union(*map(kinds_of, pages)), pages[0].scripts


def kinds_of(page: Page) -> set[Any]:
    """Element and attribute names, of the page and of the pages within it."""
    found: set[Any] = set()
    for tag, attributes in page.elements:
        found.add((tag, *(name for name, _ in attributes)))
        for name, value in attributes:
            if name == "srcdoc":
                found |= {("in a frame", *kind) for kind in kinds_of(seen_in(value or ""))}
    return found
