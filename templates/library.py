"""The template library: a folder a template, checked whole when it is loaded, so that no alert finds its
mistakes.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, TypeVar

import minijinja
import msgspec
from msgspec import Meta

from templates.card import Card, CardPart, CardText
from templates.errors import RenderError, TemplateError, UnknownTemplate
from templates.facts import FIELDS, SwipeFacts
from templates.limits import WECHAT_TYPES, type_of
from templates.mail import MAX_MAIL_CHARS, MailPart, MailWords
from templates.render import MAX_OUTPUT_CHARS, SmsPart, Source, WechatData, WechatPart, environment

SHIPPED = Path(__file__).parent / "library"
FILE_NAME = "template.toml"
DEFAULT_LOCALE = "zh-CN"
OTHER_LOCALE = "en"
REQUIRED_LOCALES = (DEFAULT_LOCALE, OTHER_LOCALE)

MAX_TEMPLATES = 1_000
"""Folders of a library: far above a bank's notices; more is a wrong path, such as a home folder."""

MAX_FILE_BYTES = 65_536
"""Of one template.toml: all parts of a template in ten locales take a tenth of it."""

MAX_CACHED_LOCALES = 64
"""Spellings of locales whose answer a template remembers; recipients' files may hold any."""

_Part = TypeVar("_Part", WechatPart, SmsPart, MailPart, CardPart)


class FieldLine(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A field that the template uses: its name, its type and what it may look like."""

    name: str
    type: str
    example: Annotated[str, Meta(min_length=1)]


class SmsText(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An SMS in one locale."""

    text: Annotated[str, Meta(min_length=1)]


class MailText(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An e-mail in one locale; ``html`` is the whole document."""

    subject: Annotated[str, Meta(min_length=1)]
    text: Annotated[str, Meta(min_length=1)]
    html: Annotated[str, Meta(min_length=1)]


Locale = Annotated[str, Meta(pattern=r"^[a-z]{2,3}(-[A-Za-z0-9]{2,8})*$")]


class TemplateFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A template.toml as it is written."""

    id: Annotated[str, Meta(pattern=r"^[a-z][a-z0-9-]{0,63}$")]
    version: Annotated[int, Meta(ge=1, le=2**31)]
    category: Annotated[str, Meta(pattern=r"^[a-z][a-z0-9-]{0,63}$")]
    fields: Annotated[tuple[FieldLine, ...], Meta(min_length=1)]
    wechat: dict[Locale, dict[str, str]] = {}
    sms: dict[Locale, SmsText] = {}
    email: dict[Locale, MailText] = {}
    card: dict[Locale, CardText] = {}


class Template:
    """A template of one version, compiled and checked."""

    def __init__(
        self,
        file: TemplateFile,
        path: Path,
        wechat: Mapping[str, WechatPart],
        sms: Mapping[str, SmsPart],
        email: Mapping[str, MailPart],
        card: Mapping[str, CardPart],
    ) -> None:
        self.id = file.id
        self.version = file.version
        self.category = file.category
        self.fields = file.fields
        self.path = path
        self.pinned = f"{file.id}@{file.version}"
        by_channel = (("wechat", wechat), ("sms", sms), ("email", email))
        self.channels = frozenset(name for name, parts in by_channel if parts)
        self._wechat = dict(wechat)
        self._sms = dict(sms)
        self._email = dict(email)
        self._card = dict(card)
        self.has_card = bool(card)

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

    def _fall_back(self, parts: dict[str, _Part], channel: str, locale: str) -> _Part:
        if not parts:
            raise UnknownTemplate(f"template {self.pinned} has no {channel} part")
        part = parts[next(name for name in fallbacks(locale) if name in parts)]
        if len(parts) < MAX_CACHED_LOCALES:
            parts[locale] = part
        return part


def fallbacks(locale: str) -> Iterator[str]:
    """Where to look for a locale's part: ``zh-HK`` -> zh-HK, zh, zh-CN; ``fr-CA`` -> fr-CA, fr, en."""
    yield locale
    language = re.split("[-_]", locale)[0].lower()
    yield language
    yield DEFAULT_LOCALE if language == "zh" else OTHER_LOCALE


class Library:
    """All templates by id. Immutable once loaded; rendering is safe from any thread."""

    def __init__(self, templates: Iterable[Template]) -> None:
        self._by_id = {template.id: template for template in templates}
        self._by_name = self._by_id | {template.pinned: template for template in self._by_id.values()}

    @classmethod
    def load(cls, extra: Path | None = None) -> Library:
        """The shipped templates, and those of ``extra``, which win where an id is in both.

        Raises ``TemplateError`` for the first mistake, naming file, key, line and remedy.
        """
        found = _load_folder(SHIPPED)
        if extra is not None:
            found |= _load_folder(extra)
        return cls(found.values())

    def __iter__(self) -> Iterator[Template]:
        return iter(self._by_id.values())

    def template(self, name: str) -> Template:
        """A template by its id (``swipe``) or pinned (``swipe@1``). Raises ``UnknownTemplate``."""
        try:
            return self._by_name[name]
        except KeyError:
            raise UnknownTemplate(f"no template {name[:80]!r}; there are {', '.join(sorted(self._by_name))}") from None


def _load_folder(folder: Path) -> dict[str, Template]:
    if not folder.is_dir():
        raise TemplateError(folder, "the library", "is not a folder", "create it or correct [templates] path")
    files = sorted(folder.glob(f"*/{FILE_NAME}"))
    if len(files) > MAX_TEMPLATES:
        raise TemplateError(folder, "the library", f"has more than {MAX_TEMPLATES} templates", "split it")
    found: dict[str, Template] = {}
    for path in files:
        template = load_template(path)
        if template.id in found:
            other = found[template.id].path
            raise TemplateError(path, "id", f"{template.id!r} is also the id of {other}", "give one of them another id")
        found[template.id] = template
    return found


def load_template(path: Path) -> Template:
    """One template from its file, compiled, checked and tried with its examples; or ``TemplateError``."""
    return _Loader(path).load()


class _Loader:
    """Turns one file into a template; keeps what an error needs to say where it is."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._engine = environment()
        self._text = self._read()
        self._file = self._decode()
        self._examples = {line.name: line.example for line in self._file.fields}

    def load(self) -> Template:
        self._check_fields()
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
        return Template(self._file, self._path, wechat, sms, email, card)

    def _read(self) -> str:
        try:
            if self._path.stat().st_size > MAX_FILE_BYTES:
                raise TemplateError(self._path, "the file", f"is over {MAX_FILE_BYTES} bytes", "shorten it")
            return self._path.read_text("utf-8")
        except OSError as error:
            raise TemplateError(
                self._path, "the file", f"cannot be read ({error.strerror})", "check its rights"
            ) from None
        except UnicodeDecodeError:
            raise TemplateError(self._path, "the file", "is not UTF-8", "save it as UTF-8") from None

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
        for values in self._tries():
            self._try(part, values, table)
        return part

    def _sms(self, locale: str, sms: SmsText) -> SmsPart:
        table = f"sms.{locale}"
        part = SmsPart(locale, self._source(table, "text", sms.text))
        for values in self._tries():
            self._try(part, values, table)
        return part

    def _email(self, locale: str, mail: MailText) -> MailPart:
        table = f"email.{locale}"
        subject, text, html = (
            self._source(table, key, getattr(mail, key), limit)
            for key, limit in (("subject", MAX_OUTPUT_CHARS), ("text", MAX_MAIL_CHARS), ("html", MAX_MAIL_CHARS))
        )
        part = MailPart(locale, subject, text, html)
        for values in self._tries():
            self._try(part, values, table)
        return part

    def _card(self, locale: str, card: CardText) -> CardPart:
        table = f"card.{locale}"
        title, description = (self._source(table, key, getattr(card, key)) for key in ("title", "description"))
        part = CardPart(locale, title, description, card.picture, card.url)
        for values in self._tries():
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

    def _tries(self) -> Iterator[dict[str, str]]:
        yield self._examples
        yield {name: "" if FIELDS[name].optional else example for name, example in self._examples.items()}

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
