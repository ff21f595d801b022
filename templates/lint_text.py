"""Looks at a template's texts as they are written: what an author forgets, and what a provider would refuse."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator

from templates.facts import FIELDS
from templates.findings import Finding, Severity
from templates.limits import type_of
from templates.loader import Loader
from templates.mail_places import UNSAFE_REMEDY, marked, unsafe_places
from templates.template import DEFAULT_LOCALE, TemplateFile

MAX_WECHAT_KEYS = 5
"""Of a category template, the only kind that WeChat still gives out (providers.md 2.2)."""

PROMOTION = "promotion"

FIELD_TYPES = {"amount": ("money",), "time": ("time",), "date": ("time",)}
"""Which fields a typed key can show, for types that say so; the examples try the others."""

_code = re.compile(r"\{\{.*?\}\}|\{%.*?%\}|\{#.*?#\}", re.DOTALL)
_remark = re.compile(r"\{#.*?#\}", re.DOTALL)
_markup = re.compile(r"<style.*?</style>|<!--.*?-->|<[^>]*>", re.DOTALL | re.IGNORECASE)
_chinese = re.compile("[\u3400-\u4dbf\u4e00-\u9fff]")
_words = re.compile(r"[A-Za-z]{2,}")
_only_field = re.compile(r"\s*\{\{\s*([a-z_]+)\s*\}\}\s*").fullmatch
_leaving = re.compile("拒收|退订|unsubscribe", re.IGNORECASE)
_tag = re.compile(r"</?[a-z][^>]*>|&[a-z]+;", re.IGNORECASE)

FEW_WORDS = 3
"""So many Latin words in a Chinese text may be names; more are a text that was not translated."""


_Found = Iterator[tuple[str, str, str, Severity]]
_Text = tuple[str, str, str, str]
"""Table, locale, key and what is written."""


def check_text(loader: Loader, found: Callable[[Finding], None]) -> None:
    """Tells ``found`` of all that can be seen without rendering anything."""
    file = loader.file
    assert file is not None

    def tell(where: str, what: str, remedy: str, severity: Severity, line: int | None = None) -> None:
        if line is None:
            table, _, key = where.lstrip("[").rstrip("]").partition("] ")
            line = loader.places.key(table, key) or loader.places.table(table)
            line = line or loader.places.first_table(table.partition(".")[0])
        found(Finding(str(loader.path), line, where, what, remedy, severity))

    whole = [one for one in _texts(file) if (one[0], one[2]) in loader.sources]
    for finding in (*_keys(file), *_parts(file), *_translations(whole), *_subjects(file), *_unsubscribe(file)):
        tell(*finding)
    for table, _, key, text in whole:
        if key == "html":
            for position, place in unsafe_places(marked(text), styles=False):
                line_number = loader.places.inside(table, key, position)
                tell(f"[{table}] {key}", f"a field stands {place}", UNSAFE_REMEDY, "error", line_number)
    for number, line in enumerate(file.fields):
        if line.name in FIELDS and line.name not in _used(loader, file):
            where = f"[[fields]] {line.name}"
            tell(where, "is used in no part", "remove it", "warning", loader.places.table(f"fields[{number}]"))


def _keys(file: TemplateFile) -> _Found:
    for locale, keys in file.wechat.items():
        if len(keys) > MAX_WECHAT_KEYS:
            what = f"has {len(keys)} keys, and a template of WeChat's has at most {MAX_WECHAT_KEYS}"
            yield f"[wechat.{locale}]", what, f"remove {len(keys) - MAX_WECHAT_KEYS}", "error"
        for key, text in keys.items():
            types = FIELD_TYPES.get(type_of(key) or "")
            only = _only_field(text)
            field = FIELDS.get(only[1]) if only else None
            if types and field and only and field.type not in types:
                what = f"is a key of type {type_of(key)} and shows {only[1]!r}, which is a {field.type}"
                remedy = f"show a field of type {types[0]}, or name the key thing and a number"
                yield f"[wechat.{locale}] {key}", what, remedy, "error"


def _texts(file: TemplateFile) -> Iterator[_Text]:
    """Everything that is written for a reader."""
    for locale, keys in file.wechat.items():
        for key, text in keys.items():
            yield f"wechat.{locale}", locale, key, text
    for locale, sms in file.sms.items():
        yield f"sms.{locale}", locale, "text", sms.text
    for locale, mail in file.email.items():
        yield f"email.{locale}", locale, "subject", mail.subject
        yield f"email.{locale}", locale, "text", mail.text
        yield f"email.{locale}", locale, "html", mail.html
    for locale, card in file.card.items():
        yield f"card.{locale}", locale, "title", card.title
        yield f"card.{locale}", locale, "description", card.description


def _parts(file: TemplateFile) -> _Found:
    parts = {"wechat": set(file.wechat), "sms": set(file.sms), "email": set(file.email), "card": set(file.card)}
    everywhere = set().union(*parts.values())
    for channel, locales in parts.items():
        for locale in sorted(everywhere - locales) if locales else ():
            if locale not in (DEFAULT_LOCALE, "en"):  # these are errors of the loader
                what = "is missing, though another channel has this locale"
                yield f"[{channel}.{locale}]", what, "translate the part", "warning"


def _translations(texts: Iterable[_Text]) -> _Found:
    for table, locale, key, written in texts:
        text = _code.sub(" ", written)
        text = _markup.sub(" ", text) if key == "html" else text
        where = f"[{table}] {key}"
        if not locale.startswith(("zh", "ja")) and _chinese.search(text):
            yield where, f"is Chinese in the locale {locale}", "translate it", "warning"
        if locale.startswith("zh") and not _chinese.search(text) and len(_words.findall(text)) > FEW_WORDS:
            yield where, f"has no Chinese in the locale {locale}", "translate it", "warning"


def _subjects(file: TemplateFile) -> _Found:
    for locale, mail in file.email.items():
        where = f"[email.{locale}] subject"
        if "\n" in mail.subject.strip():
            yield where, "has a line break, and a header is one line", "write it on one line", "error"
        if _tag.search(_code.sub("", mail.subject)):
            yield where, "has markup, which a subject shows as it is written", "write plain text", "error"


def _unsubscribe(file: TemplateFile) -> _Found:
    told = file.match.category if file.match is not None and file.match.category else ()
    if PROMOTION not in (file.category, *told):
        return
    parts = {f"sms.{locale}": part.text for locale, part in file.sms.items()}
    parts |= {f"email.{locale}": part.text for locale, part in file.email.items()}
    for table, text in parts.items():
        if not _leaving.search(_remark.sub("", text)):
            remedy = "end with {{ unsubscribe }}"
            yield f"[{table}] text", "is a promotion and does not say how to leave (拒收请回复R)", remedy, "error"


def _used(loader: Loader, file: TemplateFile) -> set[str]:
    used = {name for source in loader.sources.values() for name in source.uses}
    for card in file.card.values():
        used |= {found[1] for text in (card.picture, card.url or "") if (found := _only_field(text))}
    return used
