"""Compiles the parts of a template and renders them: at most one call into minijinja for an alert.

Fields that are only text and ``{{ name }}`` or ``{{ name | short(8) }}``, as most are, become one Python format string;
the others of a WeChat part are compiled as one template, whose results are kept where it uses nothing but words.
Between fields stands a separator that no value can hold, so that one regular expression can prove that every field of
the message is within its limits. Only a message that it does not match is looked at field by field, and only there
anything is shortened.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from typing import NamedTuple

import minijinja
import orjson

from templates import filters, grammar
from templates.errors import FieldRefused, RenderFailed, is_panic
from templates.facts import FIELDS, Field, Reader, SwipeFacts
from templates.limits import MAX_SMS_TEXT_UNITS, WECHAT_TYPES, fit, limit_of, type_of
from templates.money import compact
from templates.text import clean, cut, units, without_emoji
from templates.words import NO_AMOUNT, Words, words_for

MAX_FUEL = 2_000
"""Instructions of one rendering. The shipped parts take under 40, and loops over fields well below.
"""

MAX_OUTPUT_CHARS = 4_096
"""Characters of one rendering. The longest alert is under 600 with every value at its maximum."""

UNBOUNDED_FILTERS = ("format", "indent")
"""Of minijinja's own, those that make a gigabyte from a number without using fuel."""

UNBOUNDED_GLOBALS = ("cycler", "debug", "dict", "joiner", "namespace")
"""Of minijinja's own, those that keep something between the turns of a loop, and the one that shows all fields."""

PANICKING_TESTS = ("divisibleby",)
"""Of minijinja's own, those that some values (0) make it panic on. ``grammar.TESTS`` does not have them either."""

SEPARATOR = "\x1f"
"""Between the fields of a part. Values have no control characters, and neither has a template's source."""

MAX_CACHED_TEXTS = 8_192
"""Merchants and cities kept as they are shown, under 4 MB: a few thousand make most of a day's swipes."""

MAX_CACHED_CHARS = 64
"""Of a text that is kept; ISO 8583 gives a merchant 40. What is longer must not fill the memory."""

MAX_CACHED_SCRIPTS = 16_384
"""Results kept of a part's scripts when they use nothing but fields of few values, under 4 MB: 10,000 card tails,
mostly of purchases that are not late.
"""

CUT_EARLY = frozenset({"thing", "short_thing"})
"""Types whose limit does not depend on the value and that take any character."""

_variable = re.compile(r"\{\{ *([a-z_]+)(?: *\| *short\( *([1-9][0-9]?) *\))? *\}\}")

WechatData = dict[str, dict[str, str]]


class TooLong(Exception):
    """What is put into a text is longer than all of it may be."""


def environment() -> minijinja.Environment:
    """A sandbox: no loader, no Python methods, strict about unknown fields, bounded by fuel. It has our filters.

    ``debug`` stays off because minijinja then quotes the values of fields in its errors.
    """
    engine = minijinja.Environment(undefined_behavior="strict", fuel=MAX_FUEL, debug=False, pycompat=False)
    for name in UNBOUNDED_FILTERS:
        engine.remove_filter(name)
    for name in UNBOUNDED_GLOBALS:
        engine.remove_global(name)
    for name in PANICKING_TESTS:
        engine.remove_test(name)
    filters.register(engine)
    return engine


class Format(NamedTuple):
    """A source as a Python format string: ``text`` has a ``%s`` for each of ``names``, and ``rooms`` has the UTF-16
    units to which ``short`` cuts it, or None.
    """

    text: str
    names: tuple[str, ...]
    rooms: tuple[int | None, ...]


def _as_format(text: str) -> Format | None:
    """``在{{ merchant | short(8) }}`` -> ``在%s``, its name and 8; None for all that needs the engine."""
    pieces = _variable.split(text)
    literals, names = pieces[::3], tuple(pieces[1::3])
    rooms = tuple(int(room) if room else None for room in pieces[2::3])
    if any(mark in literal for literal in literals for mark in ("{{", "{%", "{#")) or text.endswith("\n"):
        return None
    if any(room and (name not in FIELDS or FIELDS[name].raw is None) for name, room in zip(names, rooms, strict=True)):
        return None
    return Format("%s".join(literal.replace("%", "%%") for literal in literals), names, rooms)


def _compile(engine: minijinja.Environment, name: str, text: str) -> set[str]:
    """The names that ``text`` uses, once it is checked and compiled. Raises ``minijinja.TemplateError``."""
    try:
        grammar.check_size(text)
        engine.add_template(name, text)
        grammar.check(text)
        return engine.undeclared_variables_in_str(text)
    except BaseException as error:
        if not is_panic(error):
            raise
        raise grammar.Refused("EngineFailed", "the template engine cannot read it", 1) from None


class Source:
    """One piece of template text, compiled, with the fields that it uses."""

    def __init__(self, engine: minijinja.Environment, name: str, text: str, max_chars: int = MAX_OUTPUT_CHARS) -> None:
        """Raises ``minijinja.TemplateError`` for a syntax error, and for what ``grammar`` refuses, with its line."""
        used = _compile(engine, name, text)
        self.name = name
        self.text = text
        self.format = _as_format(text)
        self.unknown = tuple(sorted(used - FIELDS.keys() - engine.globals.keys()))
        self.uses = tuple(field for field in FIELDS if field in used)
        self.money = tuple(field for field in self.uses if FIELDS[field].type == "money")
        self.texts = tuple(field for field in self.uses if FIELDS[field].type == "text")
        self._render = engine.render_template
        self._max_chars = max_chars

    def render(self, values: Mapping[str, str]) -> str:
        """The text for these values. Raises ``RenderFailed``, which names the line and never a value."""
        try:
            text = self._render(self.name, **values)
        except minijinja.TemplateError as error:
            raise RenderFailed(self.name, f"line {error.line}: {error.kind}") from None
        except filters.FilterRefused as refused:
            raise RenderFailed(self.name, str(refused)) from None
        except TooLong:
            raise RenderFailed(self.name, f"more than {self._max_chars} characters of output") from None
        except BaseException as error:
            if not is_panic(error):
                raise
            raise RenderFailed(self.name, "the engine failed on it") from None
        if len(text) > self._max_chars:
            raise RenderFailed(self.name, f"more than {self._max_chars} characters of output")
        return text

    def shortened(self, values: Mapping[str, str], limit: Callable[[str], int]) -> str:
        """Rendered to at most ``limit(text)`` units if that can be done without cutting an amount.

        Tried in this order: amounts without separators; texts cut, a city before its merchant; both; amounts
        as ``--``. May still return a longer text: the caller then cuts or refuses it.
        """
        text = self.render(values)
        if units(text) <= limit(text):
            return text
        if not self.money:
            return self._with_texts_cut(text, values, limit)
        narrow = {**values, **{name: compact(values[name]) for name in self.money}}
        blank = {**values, **{name: values[name] and NO_AMOUNT for name in self.money}}
        for plan, cutting in ((narrow, False), (values, True), (narrow, True), (blank, True)):
            text = self.render(plan)
            if cutting:
                text = self._with_texts_cut(text, plan, limit)
            if units(text) <= limit(text):
                break
        return text

    def _with_texts_cut(self, text: str, values: Mapping[str, str], limit: Callable[[str], int]) -> str:
        shorter = dict(values)
        for name in reversed(self.texts):
            excess = units(text) - limit(text)
            if excess > 0 and shorter[name]:
                shorter[name] = cut(shorter[name], max(1, units(shorter[name]) - excess))
                text = self.render(shorter)
        return text


class _TypedField:
    """One typed key of a part."""

    def __init__(self, key: str, source: Source) -> None:
        self.key = key
        self.kind = type_of(key) or "thing"
        self.source = source
        self._fits = re.compile(WECHAT_TYPES[self.kind].fast).fullmatch

    def readers(self, words: Words) -> list[Reader]:
        """For the names of the source's format, in order."""
        assert self.source.format is not None
        text, names, rooms = self.source.format
        room = limit_of(self.kind, "") - units(text % (("",) * len(names)))
        if len(names) == 1 and self.source.texts and self.kind in CUT_EARLY and room > 1:
            rooms = (min(room, rooms[0] or room),)
        return [
            FIELDS[name].read if room is None else _cutting_reader(FIELDS[name], room, words)
            for name, room in zip(names, rooms, strict=True)
        ]

    def fill(self, values: Mapping[str, str], words: Words) -> str:
        """The field's value, shortened where it must be. Raises ``FieldRefused`` and ``RenderFailed``."""
        text = self.source.render(values)
        if self._fits(text):
            return text
        shown = {name: _as_wechat_shows(name, values[name], words) for name in self.source.uses}
        if WECHAT_TYPES[self.kind].mark is None:
            return fit(self.kind, self.source.render(shown), self.key)
        limit = partial(limit_of, self.kind)
        text = self.source.shortened(shown, limit)
        if self.source.money and units(text) > limit(text):
            raise FieldRefused(self.key, "has no room for its amount")
        return fit(self.kind, text, self.key)


@lru_cache(maxsize=MAX_CACHED_TEXTS)
def _shown_in(room: int, raw: str) -> str:
    return cut(without_emoji(clean(raw)), room)


def _cutting_reader(field: Field, room: int, words: Words) -> Reader:
    """Reads a text straight into ``room`` units, so that a long merchant, as one in four is, costs no more."""
    raw_of = field.raw
    assert raw_of is not None
    missing = cut(field.missing(words), room) if field.missing else ""

    def read(facts: SwipeFacts, _words: Words) -> str:
        raw = raw_of(facts)
        if not raw:
            return missing
        shown = _shown_in(room, raw) if len(raw) <= MAX_CACHED_CHARS else _shown_in.__wrapped__(room, raw)
        return shown or missing

    return read


def _as_wechat_shows(name: str, value: str, words: Words) -> str:
    shown = without_emoji(value)
    missing = FIELDS[name].missing
    return missing(words) if missing is not None and not shown else shown


class WechatPart:
    """The typed keys of one locale of a template."""

    def __init__(self, engine: minijinja.Environment, name: str, locale: str, keys: Mapping[str, Source]) -> None:
        """``keys`` holds typed keys only (``type_of`` knows each), compiled by the same ``engine``."""
        fields = [_TypedField(key, source) for key, source in keys.items()]
        formats = [field.source.format[0] for field in fields if field.source.format]
        scripts = [field for field in fields if not field.source.format]
        self._fields = sorted(fields, key=lambda field: field.source.format is None)
        self._words = words_for(locale)
        self._format = SEPARATOR.join(formats) + SEPARATOR * bool(formats and scripts)
        self._format_readers = [
            reader for field in fields if field.source.format for reader in field.readers(self._words)
        ]
        self._script = Source(engine, name, SEPARATOR.join(field.source.text for field in scripts))
        self._script_readers = [FIELDS[name].read for name in self._script.uses]
        self._run: Callable[[tuple[str, ...]], str] = self._run_script
        if all(FIELDS[name].few for name in self._script.uses):
            self._run = lru_cache(maxsize=MAX_CACHED_SCRIPTS)(self._run_script)
        self._has_script = bool(scripts)
        self._keys = [field.key for field in self._fields]
        self._json = "{" + ",".join(f'"{key}":{{"value":"%s"}}' for key in self._keys) + "}"
        self._fits = re.compile(
            SEPARATOR.join(f"(?:{WECHAT_TYPES[field.kind].fast})" for field in self._fields)
        ).fullmatch

    def render(self, facts: SwipeFacts) -> WechatData:
        """``{"thing5": {"value": …}}``. Raises ``FieldRefused`` and ``RenderFailed``."""
        text = self._text(facts)
        if text is None:
            return self._filled(facts)
        data: WechatData = {}
        for key, value in zip(self._keys, text.split(SEPARATOR)):  # noqa: B905 - the check costs 3 % of a rendering
            data[key] = {"value": value}
        return data

    def render_json(self, facts: SwipeFacts) -> str:
        """The same as JSON text. Errors as for ``render``."""
        text = self._text(facts)
        if text is None or '"' in text or "\\" in text:
            return orjson.dumps(self.render(facts)).decode()
        # Nothing in it needs an escape: a text that is within its limits has no control characters.
        return self._json % tuple(text.split(SEPARATOR))

    def _text(self, facts: SwipeFacts) -> str | None:
        """All fields, separated; None when one of them may be beyond its limits."""
        words = self._words
        text = self._format % tuple([read(facts, words) for read in self._format_readers])
        if self._has_script:
            text += self._run(tuple([read(facts, words) for read in self._script_readers]))
        return text if self._fits(text) else None

    def _filled(self, facts: SwipeFacts) -> WechatData:
        uses = {name for field in self._fields for name in field.source.uses}
        return self.fill({name: FIELDS[name].read(facts, self._words) for name in uses})

    def _run_script(self, values: tuple[str, ...]) -> str:
        return self._script.render(dict(zip(self._script.uses, values, strict=True)))

    def fill_together(self, values: Mapping[str, str]) -> None:
        """Runs what an alert runs for all keys at once, to see that it can. Raises ``RenderFailed``."""
        self._script.render({name: values[name] for name in self._script.uses})

    def fill(self, values: Mapping[str, str]) -> WechatData:
        """The same from given values, one for each field that the part uses, without the short cut."""
        return {field.key: {"value": field.fill(values, self._words)} for field in self._fields}


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

    def fill(self, values: Mapping[str, str]) -> str:
        """The text for these values, one for each field that the part uses. Errors as ``render``."""
        text = self._source.shortened(values, lambda _text: MAX_SMS_TEXT_UNITS)
        if units(text) > MAX_SMS_TEXT_UNITS:
            raise FieldRefused("text", f"is longer than {MAX_SMS_TEXT_UNITS} and cannot be shortened")
        if not text.strip():
            raise FieldRefused("text", "is empty")
        return text
