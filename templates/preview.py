"""A template as the cardholder will see it, as one HTML page that needs nothing else; and a page of all templates.

The page (preview.html) is rendered with every value escaped. A mail is shown in a frame without scripts, so its markup
stays its own. The page's content security policy allows its own small script by its hash and no request at all, and the
frames inherit it: pictures of a mail are stood in for, and what else it would load is not loaded.
"""

from __future__ import annotations

import hashlib
from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files
from typing import Any, Final

import minijinja
import msgspec

from templates.facts import SwipeFacts, kind_of, zone
from templates.findings import Finding
from templates.library import DEFAULT_LOCALE, OTHER_LOCALE
from templates.preview_cases import Case, cases_of, sample
from templates.preview_labels import around, title_of
from templates.preview_view import PLACEHOLDER, SCHEMES, channel_views, sources_of
from templates.template import Template

BOTH_LOCALES: Final = (DEFAULT_LOCALE, OTHER_LOCALE)

MAX_LOCALES: Final = 4
"""Side by side on one page: more would be too narrow to look at, and the page's switches are made for four."""

MAX_MAIL_HEIGHT_PX: Final = 6_000
"""Of a mail's frame: four times what the longest values make of a shipped one."""


class Look(msgspec.Struct, frozen=True, kw_only=True):
    """What a preview takes from outside of the template: names, and the sign in front of an SMS with its brackets."""

    account: str = "示例银行信用卡"
    sign: str = "【示例银行】"
    sender: str = "alerts@bank.example"


class Preview(msgspec.Struct, frozen=True, kw_only=True):
    """All that one page shows. ``index`` is the address of the page of all templates, when there is one."""

    template: Template
    cases: list[Case]
    locales: Sequence[str]
    look: Look
    findings: Sequence[Finding] = ()
    linted: bool = False
    index: str | None = None


def preview_of(
    template: Template,
    *,
    locales: Sequence[str] = BOTH_LOCALES,
    look: Look | None = None,
    facts: SwipeFacts | None = None,
    findings: Sequence[Finding] | None = None,
    index: str | None = None,
) -> Preview:
    """What to show of a template; ``facts`` of a real event come first. ``findings`` None: nobody has linted it.

    Raises ``ValueError`` for no locale or more than `MAX_LOCALES`.
    """
    if not 1 <= len(locales) <= MAX_LOCALES:
        raise ValueError(f"a preview shows 1 to {MAX_LOCALES} locales, not {len(locales)}")
    return Preview(
        template=template,
        cases=cases_of(template, locales, facts),
        locales=locales,
        look=look or Look(),
        findings=findings or (),
        linted=findings is not None,
        index=index,
    )


def render_preview(preview: Preview) -> str:
    """The page as text. Values may hold anything."""
    return _rendered("preview.html", title=preview.template.pinned, **_page(preview))


def render_index(previews: Sequence[Preview], addresses: Sequence[str]) -> str:
    """The page of all templates, each with a link to the address of its own page, by category."""
    by_category: dict[str, list[dict[str, Any]]] = {}
    ordered = sorted(zip(previews, addresses, strict=True), key=lambda pair: pair[0].template.id)
    for preview, address in ordered:
        by_category.setdefault(preview.template.category, []).append(_tile(preview, address))
    # Card movements first: they are what the library is for, and most of it.
    groups = sorted(by_category.items(), key=lambda group: (-len(group[1]), group[0]))
    return _rendered(
        "preview_index.html",
        title="Templates",
        groups=[{"name": name, "tiles": tiles} for name, tiles in groups],
        count=len(previews),
        locales=_locale_rows(previews[0].locales if previews else BOTH_LOCALES),
        errors=sum(one.severity == "error" for preview in previews for one in preview.findings),
        linted=any(preview.linted for preview in previews),
        look=previews[0].look if previews else Look(),
        picture=PLACEHOLDER,
    )


def _rendered(name: str, **values: Any) -> str:
    style, script = _piece("preview.css"), _piece("preview.js")
    engine = minijinja.Environment(undefined_behavior="strict", trim_blocks=True, lstrip_blocks=True)
    for piece in ("preview.html", "preview_index.html", "preview_parts.html"):
        engine.add_template(piece, _piece(piece))
    page = engine.render_template(
        name,
        style=style,
        script=script,
        script_hash="sha256-" + b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        schemes=SCHEMES,
        **_printable(msgspec.to_builtins(values, enc_hook=str)),
    )
    assert isinstance(page, str)
    return page


def _piece(name: str) -> str:
    return files("templates").joinpath(name).read_text(encoding="utf-8")


def _printable(value: Any) -> Any:
    """Without lone surrogates, which an event may hold and UTF-8 cannot."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode("utf-8")
    if isinstance(value, dict):
        return {_printable(key): _printable(inner) for key, inner in value.items()}
    return [_printable(inner) for inner in value] if isinstance(value, (list, tuple)) else value


def _page(preview: Preview) -> dict[str, Any]:
    template = preview.template
    sources = sources_of(template)
    return {
        "template": _about(template),
        "index": preview.index,
        "findings": [_finding(one) for one in preview.findings],
        "linted": preview.linted,
        "look": preview.look,
        "picture": PLACEHOLDER,
        "max_height": MAX_MAIL_HEIGHT_PX,
        "locales": _locale_rows(preview.locales),
        "fields": template.fields,
        "cases": [
            {
                "id": case.id,
                "title": case.title,
                "note": case.note,
                "views": [_view(preview, case, locale, sources) for locale in preview.locales],
            }
            for case in preview.cases
        ],
    }


def _finding(one: Finding) -> dict[str, Any]:
    at = "" if one.line is None else f"line {one.line}: "
    return {"level": one.severity, "text": f"{at}{one.where}: {one.what}; {one.remedy}"}


def _about(template: Template) -> dict[str, Any]:
    order = ("wechat", "sms", "email")
    channels = [name for name in order if name in template.channels] + ["card"] * template.has_card
    return {
        "id": template.id,
        "pinned": template.pinned,
        "version": template.version,
        "category": template.category,
        "owner": template.owner,
        "title": template.title,
        "channels": channels,
    }


def _locale_rows(locales: Iterable[str]) -> list[dict[str, Any]]:
    names = {"zh-CN": "简体中文", "zh-HK": "繁體中文（香港）", "zh-TW": "繁體中文", "en": "English"}
    return [{"id": locale, "name": names.get(locale, locale)} for locale in locales]


def _view(preview: Preview, case: Case, locale: str, sources: Mapping[str, Any]) -> dict[str, Any]:
    facts = case.facts or sample(preview.template, locale)
    words = {
        "words": around(locale),
        "heading": title_of(preview.template, kind_of(facts.event), locale),
        "clock": f"{facts.event.time.astimezone(zone(facts.timezone)):%H:%M}",
    }
    return channel_views(preview.template, case, locale, sources, preview.look.sign) | words


def _tile(preview: Preview, address: str) -> dict[str, Any]:
    template = preview.template
    first = preview.cases[0]
    sources = sources_of(template)
    return _about(template) | {
        "address": address,
        "views": [_view(preview, first, locale, sources) for locale in preview.locales],
        "linted": preview.linted,
        "errors": sum(one.severity == "error" for one in preview.findings),
        "warnings": sum(one.severity == "warning" for one in preview.findings),
    }
