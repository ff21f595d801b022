"""What a preview page shows of one case on one channel, as plain values: the page's template only lays them out.

Pure. A part that the provider would refuse, or that fails, becomes a sentence in its place, so that the author sees it
where the alert would have been.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from templates.card import MAX_DESCRIPTION_UNITS, MAX_TITLE_UNITS
from templates.errors import RenderError
from templates.facts import FIELDS
from templates.limits import (
    MAX_AMOUNT_DIGITS,
    MAX_SMS_UNITS,
    SMS_PART_UNITS,
    SMS_SINGLE_UNITS,
    check,
    limit_of,
    segments,
    type_of,
)
from templates.mail import MAX_SUBJECT_UNITS
from templates.money import compact
from templates.preview_cases import Case, Values
from templates.preview_labels import Labels, in_order, is_chinese
from templates.template import Template
from templates.text import ELLIPSIS, units, without_emoji
from templates.words import NO_AMOUNT

SCHEMES: Final = ("light", "dark")

PLACEHOLDER: Final = (
    "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' width='600' height='240' viewBox='0 0 600 240'%3E"
    "%3Crect width='600' height='240' fill='%2390a4b8'/%3E%3Ccircle cx='455' cy='72' r='26' fill='%23f4e3b2'/%3E"
    "%3Cpath d='M0 240 170 96l112 96 84-64 234 112z' fill='%236d8299'/%3E%3C/svg%3E"
)
"""Stands for the pictures of a mail: the page asks the network for nothing."""

_names = re.compile(r"\{\{-? *([a-z_]+)").findall
_picture = re.compile(r"(<img\b[^>]*?\bsrc\s*=\s*)(\"[^\"]*\"|'[^']*'|[^\s>]+)", re.IGNORECASE)
_asks_dark = re.compile(r"\(\s*prefers-color-scheme\s*:\s*dark\s*\)", re.IGNORECASE)
_dark = re.compile(r"prefers-color-scheme\s*:\s*dark|color-scheme[^;\"'>]*\bdark", re.IGNORECASE)


def sources_of(template: Template) -> dict[str, Any]:
    """The template's file as it is written, to show its text beside what it becomes; empty when it is gone."""
    try:
        return tomllib.loads(template.path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def channel_views(template: Template, case: Case, locale: str, sources: Mapping[str, Any], sign: str) -> dict[str, Any]:
    """All channels of one case in one locale, and what was shortened on which."""
    values = case.values[locale]
    shown: dict[str, Any] = {"locale": locale, "wechat": None, "sms": None, "email": None, "card": None}
    if "wechat" in template.channels:
        shown["wechat"] = _or_refused(lambda: _wechat(template, case, locale, sources))
    if template.has_card:
        shown["card"] = _or_refused(lambda: _card(template, case, locale, sources))
    if "sms" in template.channels:
        shown["sms"] = _or_refused(lambda: _sms(template, case, locale, sources, sign))
    if "email" in template.channels:
        shown["email"] = _or_refused(lambda: _email(template, case, locale, sources))
    shown["shortened"] = [
        {"channel": name, "what": what}
        for channel, name in (("wechat", "WeChat"), ("card", "card"), ("sms", "SMS"), ("email", "mail subject"))
        if shown[channel] and not shown[channel]["refused"]
        for what in dict.fromkeys(_shortened(values, shown[channel]["texts"]))
    ]
    return shown


def _or_refused(view: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    try:
        return {"refused": None} | view()
    except RenderError as error:
        return {"refused": str(error)}


def _wechat(template: Template, case: Case, locale: str, sources: Mapping[str, Any]) -> dict[str, Any]:
    if case.facts is not None:
        data = template.render_wechat(case.facts, locale)
    else:
        data = template.fill_wechat(case.values[locale], locale)
    written = _of_locale(sources, "wechat", locale)
    labels = Labels(locale)
    rows = [_typed(key, data[key]["value"], str(written.get(key, "")), labels) for key in in_order(data, written)]
    return {"rows": rows, "problems": check(data), "texts": [(row["source"], row["value"]) for row in rows]}


def _typed(key: str, value: str, source: str, labels: Labels) -> dict[str, Any]:
    kind = type_of(key) or ""
    used, limit = units(value), limit_of(kind, value)
    if kind == "amount":
        used, limit = sum(character.isdigit() or character == "," for character in value), MAX_AMOUNT_DIGITS
    return {
        "key": key,
        "type": kind,
        "label": labels.label(source, kind),
        "value": value,
        "source": source,
        "used": used,
        "limit": limit,
        "unit": "digits" if kind == "amount" else "",
        "percent": min(100, round(100 * used / limit)),
    }


def _of_locale(sources: Mapping[str, Any], channel: str, locale: str) -> Mapping[str, Any]:
    parts = sources.get(channel) or {}
    found: Mapping[str, Any] = parts.get(locale) or next(
        (part for name, part in parts.items() if is_chinese(name) == is_chinese(locale)), {}
    )
    return found


def _card(template: Template, case: Case, locale: str, sources: Mapping[str, Any]) -> dict[str, Any]:
    written = _of_locale(sources, "card", locale)
    if case.facts is not None:
        card = template.render_card(case.facts, locale)
    else:
        card = template.fill_card(case.values[locale], locale)
    return {
        "title": card.title,
        "description": card.description,
        "picture": card.picture,
        "url": card.url,
        "meters": [
            _meter("title", units(card.title), MAX_TITLE_UNITS),
            _meter("description", units(card.description), MAX_DESCRIPTION_UNITS),
        ],
        "texts": [(written.get("title", ""), card.title), (written.get("description", ""), card.description)],
    }


def _meter(name: str, used: int, limit: int) -> dict[str, Any]:
    return {"name": name, "used": used, "limit": limit, "percent": min(100, round(100 * used / limit))}


def _sms(template: Template, case: Case, locale: str, sources: Mapping[str, Any], sign: str) -> dict[str, Any]:
    written = _of_locale(sources, "sms", locale)
    if case.facts is not None:
        text = template.render_sms(case.facts, locale)
    else:
        text = template.fill_sms(case.values[locale], locale)
    whole = sign + text
    used, parts = units(whole), segments(whole)
    room = SMS_SINGLE_UNITS if parts == 1 else parts * SMS_PART_UNITS
    size = room // parts
    return {
        "sign": sign,
        "text": text,
        "used": used,
        "limit": MAX_SMS_UNITS,
        "parts": parts,
        "room": room,
        "blocks": [round(100 * max(0, min(size, used - number * size)) / size) for number in range(parts)],
        "texts": [(written.get("text", ""), text)],
    }


def _email(template: Template, case: Case, locale: str, sources: Mapping[str, Any]) -> dict[str, Any]:
    written = _of_locale(sources, "email", locale)
    if case.facts is not None:
        mail = template.render_email(case.facts, locale)
    else:
        mail = template.fill_email(case.values[locale], locale)
    pictures = len(_picture.findall(mail.html))
    return {
        "subject": mail.subject,
        "meter": _meter("subject", units(mail.subject), MAX_SUBJECT_UNITS),
        "text": mail.text,
        "with_pictures": {scheme: drawn(in_scheme(mail.html, scheme)) for scheme in SCHEMES},
        "without_pictures": {scheme: blank(in_scheme(mail.html, scheme)) for scheme in SCHEMES},
        "pictures": pictures,
        "bytes": len(mail.html.encode()),
        "has_dark": _dark.search(mail.html) is not None,
        "texts": [(written.get("subject", ""), mail.subject)],
    }


def in_scheme(html: str, scheme: str) -> str:
    """The mail as a program in the light or the dark shows it, whatever the browser of the preview is set to.

    A mail that has no colours for the dark is left as it is.
    """
    if not _dark.search(html):
        return html
    html = _asks_dark.sub("all" if scheme == "dark" else "not all", html)
    return f"{html}<style>:root {{ color-scheme: {scheme} !important }}</style>"


def drawn(html: str) -> str:
    """The mail with a drawing in the place of each picture."""
    return _picture.sub(rf'\1"{PLACEHOLDER}"', html)


def blank(html: str) -> str:
    """The mail as it is before its pictures are loaded."""
    return _picture.sub(r'\1""', html)


def _shortened(values: Values, texts: list[tuple[str, str]]) -> Iterator[str]:
    """What each text shows less of than the fields in its source have: seen from outside, whatever made it shorter.

    A text whose source is not known is only looked at for its end.
    """
    for source, text in texts:
        told = False
        for name in dict.fromkeys(_names(source)):
            value = values.get(name, "")
            if name not in FIELDS or not value or value in text:
                continue
            how = _less_money(name, value, text) if FIELDS[name].type == "money" else _less_text(name, value, text)
            if how:
                told = True
                yield how
        if text.endswith((ELLIPSIS, "...")) and not told:
            yield "the end of a field cut"


def _less_money(name: str, value: str, text: str) -> str | None:
    if compact(value) in text:
        return f"{name} without its separators"
    return f"{name} left out: no room for it" if NO_AMOUNT in text else None


def _less_text(name: str, value: str, text: str) -> str | None:
    kept = _kept(value, text)
    return f"{name} cut from {units(value)} to {kept} characters" if kept else None


def _kept(value: str, text: str) -> int:
    """How much of ``value`` stands in ``text`` in front of an ellipsis; 0 when nothing was cut."""
    for mark in (ELLIPSIS, "..."):
        at = text.find(mark)
        while at >= 0:
            for start in range(max(0, at - len(value)), at):
                part = text[start:at]
                if value.startswith(part) or without_emoji(value).startswith(part):
                    return units(part)
            at = text.find(mark, at + 1)
    return 0
