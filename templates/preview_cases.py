"""The cases that a preview shows: an ordinary alert, the template's own examples, the longest values, a real event.

Pure. A case is a value for each field of the template in each locale; only a real event has its facts instead. What
the sample event does not know (the due date of a statement, say) is taken from the template's examples.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from dispatcher.model.event import DIGEST, DigestFacts, Event
from templates.errors import RenderError
from templates.facts import FIELDS, NOTICE_FIELDS, SwipeFacts
from templates.longest import longest_values
from templates.template import Match, Template
from templates.text import MAX_TEXT_UNITS, cut, units
from templates.words import words_for

SAMPLE_TIME: Final = datetime(2026, 11, 22, 5, 5, 59, tzinfo=UTC)

_MERCHANTS: Final = {"zh": "星巴克南京西路店", "en": "Starbucks Nanjing West Road"}
_CITIES: Final = {"zh": "上海", "en": "Shanghai"}
_LONG_TEXTS: Final = {
    "zh": "上海市静安区南京西路步行街第一百货商业中心臻选咖啡烘焙工坊旗舰店",
    "en": "Reserve Coffee Roastery and Tasting Room at the First Department Store on Nanjing West Road, ",
}
_DECLINED: Final = "declined: insufficient funds"

Values = Mapping[str, str]


class Case(msgspec.Struct, frozen=True):
    """One thing to look at. ``values`` by locale, one for each field that could be read; ``facts`` of a real event,
    which is rendered as the engine does it.
    """

    id: str
    title: str
    note: str
    values: Mapping[str, Values]
    facts: SwipeFacts | None = None


def cases_of(template: Template, locales: Sequence[str], real: SwipeFacts | None = None) -> list[Case]:
    """What to show of a template, the real event first."""
    examples = {locale: template.examples(locale) for locale in locales}
    found = [
        Case(
            "typical",
            "An ordinary alert",
            "What most cardholders get, in the words of each language.",
            {locale: _typical(template, examples[locale], locale) for locale in locales},
        ),
        Case(
            "examples",
            "The template's examples",
            "Every field has a value, as [[fields]] gives it: also the parts that an alert seldom shows.",
            examples,
        ),
        Case(
            "longest",
            "The longest values",
            f"Texts of up to {MAX_TEXT_UNITS} characters, amounts of ten digits, the longest words.",
            {locale: _longest(examples[locale], locale) for locale in locales},
        ),
    ]
    if real is not None:
        note = "As the engine would render it."
        values = {locale: _read(examples[locale], real, locale) for locale in locales}
        found.insert(0, Case("event", "The event", note, values, real))
    return found


def _read(names: Iterable[str], facts: SwipeFacts, locale: str) -> dict[str, str]:
    """What each field says of these facts; without those that they do not have."""
    words = words_for(locale)
    values: dict[str, str] = {}
    for name in names:
        with suppress(RenderError):
            values[name] = FIELDS[name].read(facts, words)
    return values


def _typical(template: Template, examples: Values, locale: str) -> dict[str, str]:
    """A sample event's values. What only a notice tells is best known to its author, so that is from the examples."""
    return {**examples, **_read(examples.keys() - NOTICE_FIELDS.keys(), sample(template, locale), locale)}


def sample(template: Template, locale: str) -> SwipeFacts:
    """An event that the template could be chosen for: 1,234.50 yuan at a coffee shop, or a digest of five purchases."""
    language = words_for(locale).language
    match = template.match or Match()
    large_from = match.large_from or {}
    fields: dict[str, Any] = {
        "id": "preview",
        "account": "preview",
        "pan": "************0426",
        "amount": max(123450, large_from.get("CNY", 0) * 5 // 4),
        "currency": "CNY",
        "merchant": _MERCHANTS[language],
        "city": _CITIES[language],
        "country": "CN",
        "mcc": "5814",
        "time": SAMPLE_TIME,
        "category": template.category,
        "type": match.type[0] if match.type else "purchase",
        "status": _DECLINED if match.declined else None,
    }
    if match.foreign:
        fields |= {"orig_amount": 16000, "orig_currency": "EUR", "country": "DE"}
    if template.category == DIGEST:
        fields |= {"type": DIGEST, "digest": _digest()}
    return SwipeFacts(event=Event(**fields), day_total_minor=246800)


def _digest() -> DigestFacts:
    since = int(SAMPLE_TIME.timestamp() * 1000)
    return DigestFacts("primary", 5, {"CNY": 12340}, since, since + 5 * 3_600_000, "small-purchases", "purchase")


def _longest(examples: Values, locale: str) -> dict[str, str]:
    """Each field at its longest, whichever alert has it so; texts as long as theirs, but to be read."""
    readable = _LONG_TEXTS[words_for(locale).language] * MAX_TEXT_UNITS
    longest = dict(examples)
    for tried in longest_values(examples, locale):
        for name, value in tried.values.items():
            if units(value) > units(longest[name]):
                longest[name] = cut(readable, units(value), "") if FIELDS[name].type == "text" else value
    return longest
