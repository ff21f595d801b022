"""Reads a template from its file and checks it whole, so that no alert finds its mistakes.

One walk serves two readers: the engine's library, which stops at the first mistake, and ``lint``, which wants all of
them. So every mistake is told to a ``Report``, and what follows it goes on as well as it can.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

import minijinja

from dispatcher.model.currency import EXPONENTS
from templates import grammar
from templates.card import LINK_FIELD, PICTURE_FIELD, CardPart, CardText, is_https
from templates.errors import FieldRefused, RenderError, RenderFailed, TemplateError
from templates.facts import FIELDS
from templates.layouts import FOLDER_NAME, SHIPPED, check_name, load_layouts, page_environment, used_layouts
from templates.limits import WECHAT_TYPES, type_of
from templates.mail import MAX_MAIL_CHARS, MailPart
from templates.places import Places
from templates.reading import MAX_FILE_BYTES, decode, read_text
from templates.remedies import line_in, problem_of, remedy_for, remedy_of
from templates.render import MAX_OUTPUT_CHARS, SmsPart, Source, WechatPart, environment
from templates.template import DEFAULT_LOCALE, REQUIRED_LOCALES, MailText, SmsText, Template, TemplateFile, examples_of

__all__ = ["FILE_NAME", "MAX_FILE_BYTES", "Loader", "load_folder", "load_template", "same_id", "template_files"]

FILE_NAME = "template.toml"

MAX_TEMPLATES = 1_000
"""Folders of a library: far above a bank's notices; more is a wrong path, such as a home folder."""

MAX_CACHED_LAYOUTS = 64
"""Texts of layouts that are looked at once for all templates: 2 MB at most."""

Report = Callable[[TemplateError], None]
"""Is told a mistake. It may raise, and then the reading ends."""

Part = WechatPart | SmsPart | MailPart | CardPart
_Part = TypeVar("_Part", WechatPart, SmsPart, MailPart, CardPart)

_unseen = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]").search
"""Control characters, and those that turn the direction of what follows; a line break is none."""


def load_folder(
    folder: Path,
    layouts: Mapping[str, str],
    load: Callable[[Path, Mapping[str, str]], Template] | None = None,
) -> dict[str, Template]:
    """The templates of a library's folder by id; ``TemplateError`` for the first mistake. ``load`` is ``load_template``
    unless told otherwise."""
    found: dict[str, Template] = {}
    for path in template_files(folder):
        template = (load or load_template)(path, layouts)
        if template.id in found:
            raise same_id(template, found[template.id])
        found[template.id] = template
    return found


def template_files(folder: Path) -> list[Path]:
    """The files of a library's folder, also those that are not there or cannot be read: a template that fell silent
    without a word would be worse than the mistake. Raises ``TemplateError``."""
    try:
        with os.scandir(folder) as entries:
            files = sorted(folder / entry.name / FILE_NAME for entry in entries if _is_template(entry))
    except (FileNotFoundError, NotADirectoryError):
        raise TemplateError(folder, "the library", "is not a folder", "create it or correct [templates] path") from None
    except OSError as error:
        problem = f"cannot be looked into ({error.strerror})"
        raise TemplateError(folder, "the library", problem, "check its rights") from None
    for file in files:
        check_name(file.parent)
    if len(files) > MAX_TEMPLATES:
        raise TemplateError(folder, "the library", f"has more than {MAX_TEMPLATES} templates", "split it")
    return files


def _is_template(entry: os.DirEntry[str]) -> bool:
    """Whether it is a template's folder, or a link that should lead to one. What tools hide there (``.git``) is one if
    it holds the file."""
    try:
        if entry.name.startswith("."):
            return entry.is_dir() and os.path.lexists(Path(entry.path, FILE_NAME))
        return entry.name != FOLDER_NAME and (entry.is_dir() or (entry.is_symlink() and not os.path.exists(entry.path)))
    except OSError:  # a link that leads round in circles, or where nobody may look
        return True


def same_id(template: Template, other: Template) -> TemplateError:
    """What is said of two templates of one folder with one id."""
    line = Places(template.text).key("", "id")
    problem = f"{template.id!r} is also the id of {other.path}"
    return TemplateError(template.path, "id", problem, "give one of them another id", line)


def load_template(path: Path, layouts: Mapping[str, str] | None = None) -> Template:
    """One template from its file, compiled, checked and tried with its examples; or ``TemplateError``.

    ``layouts`` are by default the shipped ones and those beside the template's folder.
    """
    if layouts is None:
        layouts = load_layouts(SHIPPED) | load_layouts(path.parent.parent)
    return compile_template(read_template(path), layouts, path)


def compile_template(text: str, layouts: Mapping[str, str], path: Path) -> Template:
    """A template from its text and the layouts that it uses, as they were kept; else as ``load_template``. ``path`` is
    how errors name it."""
    template = Loader(path, layouts, _raise, text).load()
    assert template is not None
    return template


def read_template(path: Path) -> str:
    """The text of a template's file, or ``TemplateError``."""

    def wrong(where: str, problem: str, remedy: str, line: int | None = None) -> None:
        raise TemplateError(path, where, problem, remedy, line)

    text = read_text(path, wrong)
    assert text is not None
    return text


def _raise(error: TemplateError) -> None:
    raise error


class Loader:
    """Turns one file into a template; keeps what a message needs to say where it is.

    ``file``, its ``name`` with the version, ``places`` and ``sources`` (by table and key) are there after ``load``, as
    far as they could be read. Without ``text`` the file is read.
    """

    def __init__(self, path: Path, layouts: Mapping[str, str], report: Report, text: str | None = None) -> None:
        self.path = path
        self._text = text
        self.file: TemplateFile | None = None
        self.places = Places("")
        self.sources: dict[tuple[str, str], Source] = {}
        self.engine = environment()
        self._pages = environment()  # until the layouts have been looked at
        self._layouts = layouts
        self._report = report
        self._mistakes = 0
        self.name = ""
        self._examples: dict[str, str] = {}

    def load(self) -> Template | None:
        """The template; None when there was a mistake, which has been reported."""
        if not self._take_layouts():
            return None
        text = read_text(self.path, self._wrong) if self._text is None else self._text
        if text is None:
            return None
        self.places = Places(text)
        file = self.file = decode(text, self.places, self._wrong)
        if file is None:
            return None
        self.name = f"{file.id}@{file.version}"
        self._examples = {line.name: line.example for line in file.fields}
        self._check_fields(file)
        self._check_match(file)
        if not file.wechat and not file.sms and not file.email:
            self._wrong("the file", "has no part for any channel", "add [wechat.zh-CN] or [sms.zh-CN]")
        wechat = {locale: self._wechat(locale, keys) for locale, keys in file.wechat.items()}
        sms = {locale: self._sms(locale, part) for locale, part in file.sms.items()}
        email = {locale: self._email(locale, part) for locale, part in file.email.items()}
        card = {locale: self._card(locale, part) for locale, part in file.card.items()}
        by_part = {"wechat": wechat.keys(), "sms": sms.keys(), "email": email.keys(), "card": card.keys()}
        for channel, locales in by_part.items():
            for locale in REQUIRED_LOCALES:
                if locales and locale not in locales:
                    line = self.places.first_table(channel)
                    self._wrong(f"[{channel}.{locale}]", "is missing", "translate the part", line)
        self._check_same_keys(file)
        if self._mistakes:
            return None
        layouts = used_layouts("".join(mail.html for mail in file.email.values()), self._layouts)
        return Template(file, self.path, text, layouts, _whole(wechat), _whole(sms), _whole(email), _whole(card))

    def _take_layouts(self) -> bool:
        # Those that are kept with a version were looked at by the release that took them, which may have let more pass.
        for name, text in self._layouts.items():
            if refused := _refused_in_layout(text):
                what = f"{refused.kind}: {refused.detail}"
                self._wrong(f"the layout {name}", what, remedy_of(refused.kind), refused.line)
                return False
        try:
            self._pages = page_environment(self._layouts)
        except minijinja.TemplateError as error:
            self._wrong("the layouts", f"{error.kind}: {error.detail}", remedy_of(error.kind))
            return False
        return True

    def _wrong(self, where: str, problem: str, remedy: str, line: int | None = None) -> None:
        self._mistakes += 1
        self._report(TemplateError(self.path, where, problem, remedy, line))

    def _check_fields(self, file: TemplateFile) -> None:
        seen: set[str] = set()
        for number, line in enumerate(file.fields):
            at = self.places.table(f"fields[{number}]")
            known = FIELDS.get(line.name)
            if known is None:
                self._unknown_field("[[fields]] name", line.name, FIELDS, at)
            elif line.type != known.type:
                remedy = f"it is a field of type {known.type!r}"
                self._wrong(f"[[fields]] {line.name}", f"has type {line.type!r}", remedy, at)
            if line.name in seen:
                self._wrong("[[fields]]", f"names a field twice: {line.name}", "remove one of the two", at)
            seen.add(line.name)

    def _check_match(self, file: TemplateFile) -> None:
        if file.match is None:
            return
        line = self.places.table("match")
        if not file.match.conditions:
            self._wrong("[match]", "has no condition", "add one, or remove the table", line)
        for currency in file.match.large_from or ():
            if currency not in EXPONENTS:
                remedy = "write its ISO 4217 code, as in { CNY = 500000 }"
                at = self.places.key("match", "large_from") or line
                self._wrong("[match] large_from", f"{currency[:8]!r} is no currency", remedy, at)

    def _wechat(self, locale: str, keys: Mapping[str, str]) -> WechatPart | None:
        table = f"wechat.{locale}"
        if not keys:
            self._wrong(f"[{table}]", "is empty", "add its typed keys", self.places.table(table))
            return None
        for key in keys:
            if type_of(key) is None:
                self._wrong(
                    f"[{table}] {key}",
                    "is not a typed key of WeChat",
                    f"a key is a type and a number; types are {', '.join(WECHAT_TYPES)}",
                    self.places.key(table, key),
                )
        found = {key: self._source(table, key, text) for key, text in keys.items()}
        sources = {key: source for key, source in found.items() if source is not None and type_of(key) is not None}
        if not sources:
            return None
        before = self._mistakes
        # Key by key, so that one refused key does not hide the next.
        for key, source in sources.items():
            self._try(WechatPart(self.engine, f"{self.name}/{table}", locale, {key: source}), table, locale)
        if len(sources) < len(keys) or before != self._mistakes:
            return None
        return self._whole_wechat(table, locale, sources)

    def _whole_wechat(self, table: str, locale: str, sources: Mapping[str, Source]) -> WechatPart | None:
        """All keys as an alert has them: what is no plain field is one text there, in which two blocks of one name
        are one too many, and which has the fuel and the room of one."""
        try:
            part = WechatPart(self.engine, f"{self.name}/{table}", locale, sources)
        except minijinja.TemplateError as error:
            what = f"its keys cannot be rendered together: {error.kind}: {error.detail}"
            self._wrong(f"[{table}]", what, remedy_of(error.kind), self.places.table(table))
            return None
        for values in self._tries(locale):
            try:
                part.fill_together(values)
            except RenderError as error:
                what = f"its keys cannot be rendered together: {problem_of(error)}"
                self._wrong(f"[{table}]", what, remedy_for(error), self.places.table(table))
                return None
        return part

    def _sms(self, locale: str, sms: SmsText) -> SmsPart | None:
        table = f"sms.{locale}"
        text = self._source(table, "text", sms.text)
        return None if text is None else self._tried(SmsPart(locale, text), "sms", locale)

    def _email(self, locale: str, mail: MailText) -> MailPart | None:
        table = f"email.{locale}"
        subject, text, html = (
            self._source(table, key, getattr(mail, key), limit)
            for key, limit in (("subject", MAX_OUTPUT_CHARS), ("text", MAX_MAIL_CHARS), ("html", MAX_MAIL_CHARS))
        )
        if subject is None or text is None or html is None:
            return None
        return self._tried(MailPart(locale, subject, text, html), "email", locale)

    def _card(self, locale: str, card: CardText) -> CardPart | None:
        table = f"card.{locale}"
        for key, address, field in (("picture", card.picture, PICTURE_FIELD), ("url", card.url, LINK_FIELD)):
            if address is not None and address != field and not is_https(address):
                remedy = f"let it begin with https:// and have no blanks, or write {field}"
                self._wrong(f"[{table}] {key}", "is not an https address", remedy, self.places.key(table, key))
        title, description = (self._source(table, key, getattr(card, key)) for key in ("title", "description"))
        if title is None or description is None:
            return None
        return self._tried(CardPart(locale, title, description, card.picture, card.url), "card", locale)

    def _source(self, table: str, key: str, text: str, max_chars: int = MAX_OUTPUT_CHARS) -> Source | None:
        where, line = f"[{table}] {key}", self.places.key(table, key)
        before = self._mistakes
        if unseen := _unseen(text):
            at = self.places.inside(table, key, unseen.start())
            self._wrong(where, f"holds a control character ({unseen[0]!a})", "remove it", at)
            return None
        try:
            engine = self._pages if key == "html" else self.engine
            source = Source(engine, f"{self.name}/{table}/{key}", text, max_chars)
        except minijinja.TemplateError as error:
            at = self.places.start_of(table, key, error.line or 1)
            self._wrong(where, f"{error.kind}: {error.detail}", remedy_of(error.kind), at)
            return None
        for field in (*source.unknown, *source.uses):
            if field not in self._examples:
                written = re.search(rf"\b{re.escape(field)}\b", text)
                at = line if written is None else self.places.inside(table, key, written.start())
                self._unknown_field(where, field, self._examples, at)
        if before != self._mistakes or not all(field in FIELDS for field in source.uses):
            return None
        self.sources[table, key] = source
        return source

    def _tries(self, locale: str) -> Iterator[dict[str, str]]:
        assert self.file is not None
        examples = examples_of(self.file.fields, locale)
        known = {name: example for name, example in examples.items() if name in FIELDS}
        yield known
        yield {name: "" if FIELDS[name].optional else example for name, example in known.items()}

    def _tried(self, part: _Part, channel: str, locale: str) -> _Part:
        self._try(part, f"{channel}.{locale}", locale)
        return part

    def _try(self, part: Part, table: str, locale: str) -> None:
        for values in self._tries(locale):
            try:
                part.fill(values)
            except RenderError as error:
                where, line = self.place_of(error, table)
                self._wrong(where, f"its examples are refused: {problem_of(error)}", remedy_for(error), line)
                return

    def place_of(self, error: RenderError, table: str) -> tuple[str, int | None]:
        """Where in the file the reason of ``error`` stands, which came from the part in ``table``: ``[sms.en] text``
        and its line."""
        key, within = "", None
        if isinstance(error, FieldRefused):
            key = error.key
        elif isinstance(error, RenderFailed):
            key = error.part.rpartition("/")[2]
            within = line_in(error.reason)
        line = self.places.key(table, key)
        if line is None:
            return f"[{table}]", self.places.table(table)
        return f"[{table}] {key}", line if within is None else self.places.start_of(table, key, int(within[1]))

    def _check_same_keys(self, file: TemplateFile) -> None:
        # The locales share one template in WeChat's console, which refuses a message that lacks one of its
        # keys.
        expected = file.wechat.get(DEFAULT_LOCALE, {})
        for locale, keys in file.wechat.items():
            for key in expected.keys() ^ keys.keys():
                self._wrong(
                    f"[wechat.{locale}] {key}",
                    f"is not in this locale and in {DEFAULT_LOCALE} alike",
                    "give every locale the same keys",
                    self.places.table(f"wechat.{locale}"),
                )

    def _unknown_field(self, where: str, name: str, known: Iterable[str], line: int | None = None) -> None:
        names = sorted(known)
        near = difflib.get_close_matches(name, names, 1)
        guess = f"did you mean {near[0]!r}? " if near else ""
        if name in FIELDS:
            guess = f"add it to [[fields]] with type {FIELDS[name].type!r}; "
        self._wrong(where, f"unknown field {name!r}", f"{guess}known are {', '.join(names)}", line)


@lru_cache(maxsize=MAX_CACHED_LAYOUTS)
def _refused_in_layout(text: str) -> grammar.Refused | None:
    try:
        grammar.check_size(text)
        grammar.check(text, grammar.LAYOUT_STATEMENTS)
    except grammar.Refused as refused:
        return refused
    return None


def _whole(parts: Mapping[str, _Part | None]) -> dict[str, _Part]:
    return {locale: part for locale, part in parts.items() if part is not None}
