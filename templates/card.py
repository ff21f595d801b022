"""A card with a title, a description and a picture, as WeChat's customer-service news (providers.md section 4.2)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated

import msgspec
from msgspec import Meta

from templates.errors import FieldRefused
from templates.facts import FIELDS, SwipeFacts
from templates.render import Source
from templates.text import units
from templates.words import words_for

MAX_TITLE_UNITS = 64
MAX_DESCRIPTION_UNITS = 512
"""Ours: the provider states no limit for a card's texts, and a client shows less than this of them."""

PICTURE_FIELD, LINK_FIELD = "{{ picture }}", "{{ link }}"
"""In the place of an address: that of the event (the field of this name)."""

is_https = re.compile(r"https://[^\s]{1,1000}").fullmatch


class CardText(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A card in one locale, as it is written. ``url`` is what a tap opens, by default ``channels.wechat.url``.

    ``picture = "{{ picture }}"`` and ``url = "{{ link }}"`` take the event's own, which may lack them.
    """

    title: Annotated[str, Meta(min_length=1)]
    description: Annotated[str, Meta(min_length=1)]
    picture: Annotated[str, Meta(min_length=1)]
    url: Annotated[str, Meta(min_length=1)] | None = None


class Card(msgspec.Struct, frozen=True, gc=False):
    """A rendered card; ``picture`` is empty when the event was to bring one and has none."""

    title: str
    description: str
    picture: str
    url: str | None

    def __repr__(self) -> str:
        return "<Card ****>"


class CardPart:
    """The card of one locale of a template."""

    def __init__(self, locale: str, title: Source, description: Source, picture: str, url: str | None) -> None:
        self._title, self._description = title, description
        self._picture, self._url = picture, url
        self._words = words_for(locale)
        self._uses = {*title.uses, *description.uses}
        if picture == PICTURE_FIELD:
            self._uses.add("picture")
        if url == LINK_FIELD:
            self._uses.add("link")

    def render(self, facts: SwipeFacts) -> Card:
        """Raises ``FieldRefused`` and ``RenderFailed``."""
        return self.fill({name: FIELDS[name].read(facts, self._words) for name in self._uses})

    def fill(self, values: Mapping[str, str]) -> Card:
        """The card for these values, one for each field that it uses. Errors as ``render``."""
        return Card(
            _filled("title", self._title, values, MAX_TITLE_UNITS),
            _filled("description", self._description, values, MAX_DESCRIPTION_UNITS),
            _given("picture", values) if self._picture == PICTURE_FIELD else self._picture,
            _given("link", values) or None if self._url == LINK_FIELD else self._url,
        )


def _given(name: str, values: Mapping[str, str]) -> str:
    if name not in values:  # a card's file uses the field and does not list it
        raise FieldRefused(name, "is not among the template's fields")
    return values[name]


def _filled(key: str, source: Source, values: Mapping[str, str], limit: int) -> str:
    text = source.shortened(values, lambda _text: limit)
    if units(text) > limit:
        raise FieldRefused(key, f"is longer than {limit} and cannot be shortened")
    if not text.strip():
        raise FieldRefused(key, "is empty")
    return text
