"""A template: its file as it is written, and its parts as they are rendered."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Annotated, TypeVar

import msgspec
from msgspec import Meta

from templates.card import Card, CardPart, CardText
from templates.errors import UnknownTemplate
from templates.facts import SwipeFacts
from templates.mail import MailPart, MailWords
from templates.render import SmsPart, WechatData, WechatPart

DEFAULT_LOCALE = "zh-CN"
OTHER_LOCALE = "en"
REQUIRED_LOCALES = (DEFAULT_LOCALE, OTHER_LOCALE)

MAX_CACHED_LOCALES = 64
"""Spellings of locales whose answer a template remembers; recipients' files may hold any."""

_Part = TypeVar("_Part", WechatPart, SmsPart, MailPart, CardPart)


LOCALE_PATTERN = r"^[a-z]{2,3}(-[A-Za-z0-9]{2,8})*\Z"
_ID_PATTERN = r"^[a-z][a-z0-9-]{0,63}\Z"

Locale = Annotated[str, Meta(pattern=LOCALE_PATTERN)]


class FieldLine(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A field that the template uses: its name, its type and what it may look like, in some locales otherwise."""

    name: str
    type: str
    example: Annotated[str, Meta(min_length=1)]
    examples: dict[Locale, Annotated[str, Meta(min_length=1)]] = {}


class SmsText(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An SMS in one locale."""

    text: Annotated[str, Meta(min_length=1)]


class MailText(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An e-mail in one locale; ``html`` is the whole document, or fills the blocks of a layout."""

    subject: Annotated[str, Meta(min_length=1)]
    text: Annotated[str, Meta(min_length=1)]
    html: Annotated[str, Meta(min_length=1)]


Words = Annotated[tuple[Annotated[str, Meta(min_length=1, max_length=64)], ...], Meta(min_length=1)]


class Match(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which events a template is for; all that is given must hold, and of several words one.

    ``declined`` and ``foreign`` are asked of the event as the send rules ask it. ``large_from`` is an amount by
    currency, in minor units; an event in another currency is not large.
    """

    category: Words | None = None
    type: Words | None = None
    declined: bool | None = None
    foreign: bool | None = None
    large_from: Annotated[dict[str, Annotated[int, Meta(ge=1)]], Meta(min_length=1)] | None = None

    @property
    def conditions(self) -> int:
        """How many are given, 1 or more: of two templates that match, the one with more is meant."""
        return sum(getattr(self, name) is not None for name in self.__struct_fields__)


class TemplateFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A template.toml as it is written. ``owner`` answers for it in the bank; ``title`` names the notice in lists.

    Without ``match`` it is for the events of its category.
    """

    id: Annotated[str, Meta(pattern=_ID_PATTERN)]
    version: Annotated[int, Meta(ge=1, le=2**31)]
    category: Annotated[str, Meta(pattern=_ID_PATTERN)]
    fields: Annotated[tuple[FieldLine, ...], Meta(min_length=1)]
    owner: Annotated[str, Meta(max_length=64)] = ""
    title: Annotated[str, Meta(max_length=64)] = ""
    match: Match | None = None
    wechat: dict[Locale, dict[str, str]] = {}
    sms: dict[Locale, SmsText] = {}
    email: dict[Locale, MailText] = {}
    card: dict[Locale, CardText] = {}


def examples_of(fields: tuple[FieldLine, ...], locale: str) -> dict[str, str]:
    """An example for each field, in that locale or the nearest that has its own."""
    found = {}
    for line in fields:
        name = next((name for name in fallbacks(locale) if name in line.examples), None)
        found[line.name] = line.example if name is None else line.examples[name]
    return found


class Template:
    """A template of one version, compiled and checked.

    ``text`` is its file; ``layouts`` holds the text of those that its mails use, by name: together they are all that it
    says.
    ``locales`` are those that are written, by channel and for the card.
    """

    def __init__(
        self,
        file: TemplateFile,
        path: Path,
        text: str,
        layouts: Mapping[str, str],
        wechat: Mapping[str, WechatPart],
        sms: Mapping[str, SmsPart],
        email: Mapping[str, MailPart],
        card: Mapping[str, CardPart],
    ) -> None:
        self.id = file.id
        self.version = file.version
        self.category = file.category
        self.owner = file.owner
        self.title = file.title or file.id
        self.match = file.match
        self.fields = file.fields
        self.path = path
        self.text = text
        self.layouts = layouts
        self.pinned = f"{file.id}@{file.version}"
        by_channel = (("wechat", wechat), ("sms", sms), ("email", email))
        self.channels = frozenset(name for name, parts in by_channel if parts)
        self._wechat = dict(wechat)
        self._sms = dict(sms)
        self._email = dict(email)
        self._card = dict(card)
        self.has_card = bool(card)
        parts = (*by_channel, ("card", card))
        self.locales = {channel: tuple(locales) for channel, locales in parts if locales}

    @property
    def digest(self) -> str:
        """Of what its file says: a comment and a blank line change nothing of it. 32 characters."""
        return _digest(tomllib.loads(self.text))

    @property
    def layouts_digest(self) -> str:
        """Of the layouts that its mails use. 32 characters."""
        return _digest(dict(self.layouts))

    def examples(self, locale: str) -> dict[str, str]:
        """An example for each field of the template, in that locale as far as it has its own."""
        return examples_of(self.fields, locale)

    def render_wechat(self, facts: SwipeFacts, locale: str) -> WechatData:
        """``{"thing5": {"value": …}}``, ready to be the ``data`` of a template message.

        Raises ``FieldRefused`` and ``RenderFailed``, which name no value, and ``UnknownTemplate`` when this
        template has no WeChat part.
        """
        return self._wechat_part(locale).render(facts)

    def render_wechat_json(self, facts: SwipeFacts, locale: str) -> str:
        """``render_wechat`` as JSON text, which is what is sent: a third of the time."""
        return self._wechat_part(locale).render_json(facts)

    def _wechat_part(self, locale: str) -> WechatPart:
        return self._wechat.get(locale) or self._fall_back(self._wechat, "wechat", locale)

    def render_sms(self, facts: SwipeFacts, locale: str) -> str:
        """The text without its sign, at most ``limits.MAX_SMS_TEXT_UNITS`` long. Errors as for
        ``render_wechat``.
        """
        return (self._sms.get(locale) or self._fall_back(self._sms, "sms", locale)).render(facts)

    def render_email(self, facts: SwipeFacts, locale: str) -> MailWords:
        """Subject, text and HTML, values escaped in the last. Errors as for ``render_wechat``."""
        return (self._email.get(locale) or self._fall_back(self._email, "email", locale)).render(facts)

    def render_card(self, facts: SwipeFacts, locale: str) -> Card:
        """The card with a picture, when ``has_card``. Errors as for ``render_wechat``."""
        return (self._card.get(locale) or self._fall_back(self._card, "card", locale)).render(facts)

    def fill_wechat(self, values: Mapping[str, str], locale: str) -> WechatData:
        """The same for given values, one for each field that the part uses: how a preview shows what no event has.
        Errors as for ``render_wechat``, and ``RenderFailed`` where a value is missing.
        """
        return self._wechat_part(locale).fill(values)

    def fill_sms(self, values: Mapping[str, str], locale: str) -> str:
        """See ``fill_wechat``."""
        return (self._sms.get(locale) or self._fall_back(self._sms, "sms", locale)).fill(values)

    def fill_email(self, values: Mapping[str, str], locale: str) -> MailWords:
        """See ``fill_wechat``."""
        return (self._email.get(locale) or self._fall_back(self._email, "email", locale)).fill(values)

    def fill_card(self, values: Mapping[str, str], locale: str) -> Card:
        """See ``fill_wechat``."""
        return (self._card.get(locale) or self._fall_back(self._card, "card", locale)).fill(values)

    def _fall_back(self, parts: dict[str, _Part], channel: str, locale: str) -> _Part:
        if not parts:
            raise UnknownTemplate(f"template {self.pinned} has no {channel} part")
        part = parts[next(name for name in fallbacks(locale) if name in parts)]
        if len(parts) < MAX_CACHED_LOCALES:
            parts[locale] = part
        return part


def _digest(said: object) -> str:
    return blake2b(msgspec.json.encode(said, order="deterministic"), digest_size=16).hexdigest()


def fallbacks(locale: str) -> Iterator[str]:
    """Where to look for a locale's part: ``zh-HK`` -> zh-HK, zh, zh-CN; ``fr-CA`` -> fr-CA, fr, en."""
    yield locale
    language = re.split("[-_]", locale)[0].lower()
    yield language
    yield DEFAULT_LOCALE if language == "zh" else OTHER_LOCALE
