"""Compiles the parts of a template and renders them: one call into minijinja for an alert.

All fields of a WeChat part are compiled as one template with a separator between them that no value can hold,
and one regular expression both splits the result and proves that every field is within its limits. Only a
message that it does not match is looked at field by field, and only there anything is shortened.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import partial

import minijinja

from templates.errors import FieldRefused, RenderFailed
from templates.facts import FIELDS, SwipeFacts
from templates.limits import MAX_SMS_TEXT_UNITS, WECHAT_TYPES, fit, limit_of, type_of
from templates.money import compact
from templates.text import cut, units, without_emoji
from templates.words import NO_AMOUNT, Words, words_for

MAX_FUEL = 2_000
"""Instructions of one rendering. The shipped parts take under 40, and loops over fields well below.
"""

MAX_OUTPUT_CHARS = 4_096
"""Characters of one rendering. The longest alert is under 600 with every value at its maximum."""

SEPARATOR = "\x1f"
"""Between the fields of a part. Values have no control characters, and neither has a template's source."""

WechatData = dict[str, dict[str, str]]


def environment() -> minijinja.Environment:
    """A sandbox: no loader, no Python methods, strict about unknown fields, bounded by fuel.

    ``debug`` stays off because minijinja then quotes the values of fields in its errors.
    """
    return minijinja.Environment(undefined_behavior="strict", fuel=MAX_FUEL, debug=False, pycompat=False)


class Source:
    """One piece of template text, compiled, with the fields that it uses."""

    def __init__(self, engine: minijinja.Environment, name: str, text: str) -> None:
        """Raises ``minijinja.TemplateError`` for a syntax error, with its line."""
        engine.add_template(name, text)
        used = engine.undeclared_variables_in_str(text)
        self.name = name
        self.text = text
        self.unknown = tuple(sorted(used - FIELDS.keys()))
        self.uses = tuple(field for field in FIELDS if field in used)
        self.money = tuple(field for field in self.uses if FIELDS[field].type == "money")
        self.texts = tuple(field for field in self.uses if FIELDS[field].type == "text")
        self._render = engine.render_template

    def render(self, values: Mapping[str, str]) -> str:
        """The text for these values. Raises ``RenderFailed``, which names the line and never a value."""
        try:
            text = self._render(self.name, **values)
        except minijinja.TemplateError as error:
            raise RenderFailed(self.name, f"line {error.line}: {error.kind}") from None
        if len(text) > MAX_OUTPUT_CHARS:
            raise RenderFailed(self.name, f"more than {MAX_OUTPUT_CHARS} characters of output")
        return text

    def shortened(self, values: Mapping[str, str], limit: Callable[[str], int]) -> str:
        """Rendered to at most ``limit(text)`` units if that can be done without cutting an amount.

        Tried in this order: amounts without separators; texts cut, a city before its merchant; both; amounts
        as ``--``. May still return a longer text: the caller then cuts or refuses it.
        """
        text = self.render(values)
        if units(text) <= limit(text):
            return text
        narrow = {**values, **{name: compact(values[name]) for name in self.money}}
        blank = {**values, **{name: values[name] and NO_AMOUNT for name in self.money}}
        plans = (
            [(narrow, False), (values, True), (narrow, True), (blank, True)]
            if self.money
            else [(values, True)]
        )
        for plan, cutting in plans:
            text = self._with_texts_cut(plan, limit) if cutting else self.render(plan)
            if units(text) <= limit(text):
                break
        return text

    def _with_texts_cut(self, values: Mapping[str, str], limit: Callable[[str], int]) -> str:
        shorter = dict(values)
        text = self.render(shorter)
        for name in reversed(self.texts):
            excess = units(text) - limit(text)
            if excess > 0 and shorter[name]:
                shorter[name] = cut(shorter[name], max(1, units(shorter[name]) - excess))
                text = self.render(shorter)
        return text


class WechatPart:
    """The typed keys of one locale of a template, in the order of the file."""

    def __init__(
        self, engine: minijinja.Environment, name: str, locale: str, keys: Mapping[str, Source]
    ) -> None:
        """``keys`` holds typed keys only (``type_of`` knows each), compiled by the same ``engine``."""
        self._name = name
        self._whole = Source(engine, name, SEPARATOR.join(source.text for source in keys.values()))
        self._fields = [_TypedField(key, type_of(key) or "thing", source) for key, source in keys.items()]
        self._keys = tuple(keys)
        self._words = words_for(locale)
        self._readers = [(field, FIELDS[field].read) for field in self._whole.uses]
        self._fits = re.compile(
            SEPARATOR.join(f"({WECHAT_TYPES[field.kind].fast})" for field in self._fields)
        ).fullmatch

    def render(self, facts: SwipeFacts) -> WechatData:
        """Raises ``FieldRefused`` and ``RenderFailed``."""
        words = self._words
        return self.fill({name: read(facts, words) for name, read in self._readers})

    def fill(self, values: dict[str, str]) -> WechatData:
        """The fields for these values, one for each name that the part uses. Errors as ``render``."""
        text = self._whole.render(values)
        found = self._fits(text)
        if found is None:
            return self._fill_slowly(text.split(SEPARATOR), values)
        data: WechatData = {}
        for key, value in zip(self._keys, found.groups(), strict=True):
            data[key] = {"value": value}
        return data

    def _fill_slowly(self, texts: list[str], values: dict[str, str]) -> WechatData:
        if len(texts) != len(self._fields):
            raise RenderFailed(self._name, "a field holds the separator of fields")
        data: WechatData = {}
        for field, text in zip(self._fields, texts, strict=True):
            data[field.key] = {"value": text if field.fits(text) else field.shorten(values, self._words)}
        return data


class _TypedField:
    """One typed key of a part, for the messages in which a field does not fit as it is."""

    def __init__(self, key: str, kind: str, source: Source) -> None:
        self.key = key
        self.kind = kind
        self.fits = re.compile(WECHAT_TYPES[kind].fast).fullmatch
        self._source = source

    def shorten(self, values: Mapping[str, str], words: Words) -> str:
        """Raises ``FieldRefused``."""
        shown = {name: _as_wechat_shows(name, values[name], words) for name in self._source.uses}
        limit = partial(limit_of, self.kind)
        if WECHAT_TYPES[self.kind].mark is None:
            return fit(self.kind, self._source.render(shown), self.key)
        text = self._source.shortened(shown, limit)
        if self._source.money and units(text) > limit(text):
            raise FieldRefused(self.key, "has no room for its amount")
        return fit(self.kind, text, self.key)


def _as_wechat_shows(name: str, value: str, words: Words) -> str:
    shown = without_emoji(value)
    missing = FIELDS[name].missing
    return missing(words) if missing is not None and not shown else shown


class SmsPart:
    """The text of one locale of a template, without the sign that the channel puts in front."""

    def __init__(self, locale: str, source: Source) -> None:
        self._source = source
        self._words = words_for(locale)
        self._readers = [(field, FIELDS[field].read) for field in source.uses]

    def render(self, facts: SwipeFacts) -> str:
        """Raises ``FieldRefused`` and ``RenderFailed``."""
        words = self._words
        return self.fill({name: read(facts, words) for name, read in self._readers})

    def fill(self, values: dict[str, str]) -> str:
        """The text for these values, one for each field that the part uses. Errors as ``render``."""
        text = self._source.shortened(values, lambda _text: MAX_SMS_TEXT_UNITS)
        if units(text) > MAX_SMS_TEXT_UNITS:
            raise FieldRefused("text", f"is longer than {MAX_SMS_TEXT_UNITS} and cannot be shortened")
        if not text.strip():
            raise FieldRefused("text", "is empty")
        return text
