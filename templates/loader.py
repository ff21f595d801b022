"""Reads a template from its file and checks it whole, so that no alert finds its mistakes."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import minijinja
import msgspec

from dispatcher.model.currency import EXPONENTS
from templates.card import CardPart, CardText
from templates.errors import RenderError, TemplateError
from templates.facts import FIELDS
from templates.layouts import SHIPPED, add_layouts, load_layouts, used_layouts
from templates.limits import WECHAT_TYPES, type_of
from templates.mail import MAX_MAIL_CHARS, MailPart
from templates.render import MAX_OUTPUT_CHARS, SmsPart, Source, WechatPart, environment
from templates.template import DEFAULT_LOCALE, REQUIRED_LOCALES, MailText, SmsText, Template, TemplateFile, examples_of

FILE_NAME = "template.toml"

MAX_TEMPLATES = 1_000
"""Folders of a library: far above a bank's notices; more is a wrong path, such as a home folder."""

MAX_FILE_BYTES = 65_536
"""Of one template.toml: all parts of a template in ten locales take a tenth of it."""


def load_folder(
    folder: Path,
    layouts: Mapping[str, str],
    load: Callable[[Path, Mapping[str, str]], Template] | None = None,
) -> dict[str, Template]:
    """The templates of a library's folder by id; ``TemplateError`` for the first mistake. ``load`` is ``load_template``
    unless told otherwise."""
    if not folder.is_dir():
        raise TemplateError(folder, "the library", "is not a folder", "create it or correct [templates] path")
    files = sorted(folder.glob(f"*/{FILE_NAME}"))
    if len(files) > MAX_TEMPLATES:
        raise TemplateError(folder, "the library", f"has more than {MAX_TEMPLATES} templates", "split it")
    found: dict[str, Template] = {}
    for path in files:
        template = (load or load_template)(path, layouts)
        if template.id in found:
            other = found[template.id].path
            raise TemplateError(path, "id", f"{template.id!r} is also the id of {other}", "give one of them another id")
        found[template.id] = template
    return found


def load_template(path: Path, layouts: Mapping[str, str] | None = None) -> Template:
    """One template from its file, compiled, checked and tried with its examples; or ``TemplateError``.

    ``layouts`` are by default the shipped ones and those beside the template's folder.
    """
    if layouts is None:
        layouts = load_layouts(SHIPPED) | load_layouts(path.parent.parent)
    return _Loader(path, layouts, read_template(path)).load()


def compile_template(text: str, layouts: Mapping[str, str], path: Path) -> Template:
    """A template from its text and the layouts that it uses, as they were kept; else as ``load_template``. ``path`` is
    how errors name it."""
    return _Loader(path, layouts, text).load()


def read_template(path: Path) -> str:
    """The text of a template's file, or ``TemplateError``."""
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise TemplateError(path, "the file", f"is over {MAX_FILE_BYTES} bytes", "shorten it")
        return path.read_text("utf-8")
    except OSError as error:
        raise TemplateError(path, "the file", f"cannot be read ({error.strerror})", "check its rights") from None
    except UnicodeDecodeError:
        raise TemplateError(path, "the file", "is not UTF-8", "save it as UTF-8") from None


class _Loader:
    """Turns one file into a template; keeps what an error needs to say where it is."""

    def __init__(self, path: Path, layouts: Mapping[str, str], text: str) -> None:
        self._path = path
        self._text = text
        self._layouts = layouts
        self._engine = environment()
        add_layouts(self._engine, layouts)
        self._file = self._decode()
        self._examples = {line.name: line.example for line in self._file.fields}

    def load(self) -> Template:
        self._check_fields()
        self._check_match()
        if not self._file.wechat and not self._file.sms and not self._file.email:
            raise TemplateError(
                self._path, "the file", "has no part for any channel", "add [wechat.zh-CN] or [sms.zh-CN]"
            )
        wechat = {locale: self._wechat(locale, keys) for locale, keys in self._file.wechat.items()}
        sms = {locale: self._sms(locale, part) for locale, part in self._file.sms.items()}
        email = {locale: self._email(locale, part) for locale, part in self._file.email.items()}
        card = {locale: self._card(locale, part) for locale, part in self._file.card.items()}
        by_part = {"wechat": wechat.keys(), "sms": sms.keys(), "email": email.keys(), "card": card.keys()}
        for channel, locales in by_part.items():
            for locale in REQUIRED_LOCALES:
                if locales and locale not in locales:
                    raise TemplateError(self._path, f"[{channel}.{locale}]", "is missing", "translate the part")
        self._check_same_keys()
        layouts = used_layouts("".join(mail.html for mail in self._file.email.values()), self._layouts)
        return Template(self._file, self._path, self._text, layouts, wechat, sms, email, card)

    def _decode(self) -> TemplateFile:
        try:
            return msgspec.convert(tomllib.loads(self._text), TemplateFile)
        except tomllib.TOMLDecodeError as error:
            raise TemplateError(self._path, "the file", f"is not TOML: {error}", "correct that line") from None
        except msgspec.ValidationError as error:
            problem, _, where = str(error).partition(" - at ")
            raise TemplateError(
                self._path,
                where.strip("`$.") or "the file",
                problem,
                "see library/swipe of the shipped templates",
            ) from None

    def _check_fields(self) -> None:
        for line in self._file.fields:
            known = FIELDS.get(line.name)
            if known is None:
                raise self._unknown_field("[[fields]] name", line.name, FIELDS)
            if line.type != known.type:
                raise TemplateError(
                    self._path,
                    f"[[fields]] {line.name}",
                    f"has type {line.type!r}",
                    f"it is a field of type {known.type!r}",
                )
        if len(self._examples) < len(self._file.fields):
            raise TemplateError(self._path, "[[fields]]", "names a field twice", "remove one of the two")

    def _check_match(self) -> None:
        match = self._file.match
        if match is None:
            return
        line = self._line_of("match", None)
        if not match.conditions:
            raise TemplateError(self._path, "[match]", "has no condition", "add one, or remove the table", line)
        for currency in match.large_from or ():
            if currency not in EXPONENTS:
                raise TemplateError(
                    self._path,
                    "[match] large_from",
                    f"{currency[:8]!r} is no currency",
                    "write its ISO 4217 code, as in { CNY = 500000 }",
                    self._line_of("match", "large_from") or line,
                )

    def _wechat(self, locale: str, keys: Mapping[str, str]) -> WechatPart:
        table = f"wechat.{locale}"
        if not keys:
            raise TemplateError(self._path, f"[{table}]", "is empty", "add its typed keys")
        for key in keys:
            if type_of(key) is None:
                raise TemplateError(
                    self._path,
                    f"[{table}] {key}",
                    "is not a typed key of WeChat",
                    f"a key is a type and a number; types are {', '.join(WECHAT_TYPES)}",
                    self._line_of(table, key),
                )
        sources = {key: self._source(table, key, text) for key, text in keys.items()}
        part = WechatPart(self._engine, f"{self._name}/{table}", locale, sources)
        for values in self._tries(locale):
            self._try(part, values, table)
        return part

    def _sms(self, locale: str, sms: SmsText) -> SmsPart:
        table = f"sms.{locale}"
        part = SmsPart(locale, self._source(table, "text", sms.text))
        for values in self._tries(locale):
            self._try(part, values, table)
        return part

    def _email(self, locale: str, mail: MailText) -> MailPart:
        table = f"email.{locale}"
        subject, text, html = (
            self._source(table, key, getattr(mail, key), limit)
            for key, limit in (("subject", MAX_OUTPUT_CHARS), ("text", MAX_MAIL_CHARS), ("html", MAX_MAIL_CHARS))
        )
        part = MailPart(locale, subject, text, html)
        for values in self._tries(locale):
            self._try(part, values, table)
        return part

    def _card(self, locale: str, card: CardText) -> CardPart:
        table = f"card.{locale}"
        title, description = (self._source(table, key, getattr(card, key)) for key in ("title", "description"))
        part = CardPart(locale, title, description, card.picture, card.url)
        for values in self._tries(locale):
            self._try(part, values, table)
        return part

    @property
    def _name(self) -> str:
        return f"{self._file.id}@{self._file.version}"

    def _source(self, table: str, key: str, text: str, max_chars: int = MAX_OUTPUT_CHARS) -> Source:
        where, line = f"[{table}] {key}", self._line_of(table, key)
        if any(character < " " and character != "\n" for character in text):
            raise TemplateError(self._path, where, "holds a control character", "remove it", line)
        try:
            source = Source(self._engine, f"{self._name}/{table}/{key}", text, max_chars)
        except minijinja.TemplateError as error:
            at = None if line is None else line + (error.line or 1) - 1
            raise TemplateError(
                self._path, where, f"{error.kind}: {error.detail}", "correct the template", at
            ) from None
        for field in source.unknown:
            raise self._unknown_field(where, field, self._examples, line)
        for field in source.uses:
            if field not in self._examples:
                raise self._unknown_field(where, field, self._examples, line)
        return source

    def _tries(self, locale: str) -> Iterator[dict[str, str]]:
        examples = examples_of(self._file.fields, locale)
        yield examples
        yield {name: "" if FIELDS[name].optional else example for name, example in examples.items()}

    def _try(self, part: WechatPart | SmsPart | MailPart | CardPart, values: dict[str, str], table: str) -> None:
        try:
            part.fill(values)
        except RenderError as error:
            raise TemplateError(
                self._path,
                f"[{table}]",
                f"its examples are refused: {error}",
                "correct the template or the examples",
                self._line_of(table, None),
            ) from None

    def _check_same_keys(self) -> None:
        # The locales share one template in WeChat's console, which refuses a message that lacks one of its
        # keys.
        expected = self._file.wechat.get(DEFAULT_LOCALE, {})
        for locale, keys in self._file.wechat.items():
            for key in expected.keys() ^ keys.keys():
                raise TemplateError(
                    self._path,
                    f"[wechat.{locale}] {key}",
                    f"is not in this locale and in {DEFAULT_LOCALE} alike",
                    "give every locale the same keys",
                    self._line_of(f"wechat.{locale}", None),
                )

    def _unknown_field(self, where: str, name: str, known: Iterable[str], line: int | None = None) -> TemplateError:
        names = sorted(known)
        near = difflib.get_close_matches(name, names, 1)
        guess = f"did you mean {near[0]!r}? " if near else ""
        if name in FIELDS:
            guess = f"add it to [[fields]] with type {FIELDS[name].type!r}; "
        return TemplateError(self._path, where, f"unknown field {name!r}", f"{guess}known are {', '.join(names)}", line)

    def _line_of(self, table: str, key: str | None) -> int | None:
        """The line of ``[table]`` or of its ``key``, as far as it is written plainly; for messages only."""
        inside = False
        for number, line in enumerate(self._text.splitlines(), 1):
            bare = line.strip().replace('"', "") if line.lstrip().startswith("[") else line
            if bare.startswith("["):
                inside = bare.startswith(f"[{table}]")
                if inside and key is None:
                    return number
            elif inside and key is not None and re.match(rf'\s*"?{re.escape(key)}"?\s*=', line):
                return number + line.rstrip().endswith(('"""', "'''"))
        return None
