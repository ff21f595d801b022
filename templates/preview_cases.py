"""The cases that a preview shows: an ordinary alert, the template's own examples, the longest values, a real event.

Pure. A case is a value for each field of the template in each locale; only a real event has its facts instead. What
the sample event does not know (the due date of a statement, say) is taken from the template's examples.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from dispatcher.model.event import DIGEST, DigestFacts, Event
from templates.errors import RenderError
from templates.facts import FIELDS, SwipeFacts
from templates.library import Template
from templates.text import MAX_TEXT_UNITS, cut, units
from templates.words import KINDS, words_for

SAMPLE_TIME: Final = datetime(2026, 11, 22, 5, 5, 59, tzinfo=UTC)

LONGEST_AMOUNT: Final = 9_999_999_999
"""Minor units: the ten digits that WeChat takes in an amount (limits.MAX_AMOUNT_DIGITS)."""

LONGEST_DELAY_S: Final = 23 * 3600
"""The longest in words that is not yet a day."""

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
    examples = {line.name: line.example for line in template.fields}
    found = [
        Case(
            "typical",
            "An ordinary alert",
            "What most cardholders get, in the words of each language.",
            {locale: _read(examples, [sample(template, locale)], locale) for locale in locales},
        ),
        Case(
            "examples",
            "The template's examples",
            "Every field has a value, as [[fields]] gives it: also the parts that an alert seldom shows.",
            dict.fromkeys(locales, examples),
        ),
        Case(
            "longest",
            "The longest values",
            f"Texts of {MAX_TEXT_UNITS} characters, amounts of ten digits, the longest words: what is shortened, and how.",
            {locale: _read(examples, list(_longest(template, locale)), locale) for locale in locales},
        ),
    ]
    if real is not None:
        note = "As the engine would render it."
        values = {locale: _read({}, [real], locale, list(examples)) for locale in locales}
        found.insert(0, Case("event", "The event", note, values, real))
    return found


def _read(
    examples: Values, facts: Sequence[SwipeFacts], locale: str, names: Sequence[str] | None = None
) -> dict[str, str]:
    """The longest that each field is for these facts; its example where none has it, or nothing at all."""
    words = words_for(locale)
    values: dict[str, str] = {}
    for name in examples if names is None else names:
        read = [text for one in facts if (text := _try(name, one, words)) is not None]
        if read:
            values[name] = max(read, key=units)
        elif name in examples:
            values[name] = examples[name]
    return values


def _try(name: str, facts: SwipeFacts, words: Any) -> str | None:
    try:
        return FIELDS[name].read(facts, words)
    except RenderError:
        return None


def sample(template: Template, locale: str, **changed: Any) -> SwipeFacts:
    """An event that the template could be chosen for: 1,234.50 yuan at a coffee shop, or a digest of five purchases."""
    language = words_for(locale).language
    match = getattr(template, "match", None)
    types = getattr(match, "type", None) or ()
    large_from = getattr(match, "large_from", None) or {}
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
        "type": types[0] if types else "purchase",
        "status": _DECLINED if getattr(match, "declined", None) else None,
    }
    if getattr(match, "foreign", None):
        fields |= {"orig_amount": 16000, "orig_currency": "EUR", "country": "DE"}
    if template.category == DIGEST:
        fields |= {"type": DIGEST, "digest": _digest({"CNY": 12340})}
    known = {name: value for name, value in (fields | changed).items() if name in Event.__struct_fields__}
    return SwipeFacts(event=Event(**known), day_total_minor=246800)


def _digest(amounts: dict[str, int]) -> DigestFacts:
    until = int(SAMPLE_TIME.timestamp() * 1000) + 5 * 3_600_000 + 35 * 60_000
    return DigestFacts("primary", 5, amounts, int(SAMPLE_TIME.timestamp() * 1000), until, "small-purchases", "purchase")


def _longest(template: Template, locale: str) -> Iterator[SwipeFacts]:
    """One sample for each kind of event, since the longest word for what happened is another one in each language."""
    language = words_for(locale).language
    text = cut(_LONG_TEXTS[language] * MAX_TEXT_UNITS, MAX_TEXT_UNITS, "")
    changed: dict[str, Any] = {
        "amount": LONGEST_AMOUNT,
        "merchant": text,
        "city": text,
        "orig_amount": LONGEST_AMOUNT,
        "orig_currency": "KWD",
    }
    if template.category == DIGEST:
        amounts = dict.fromkeys(("CNY", "KWD", "HKD", "EUR"), LONGEST_AMOUNT)
        digest = msgspec.structs.replace(_digest(amounts), count=99_999, since=0, type="decline")
        changed |= {"digest": digest}
    types = getattr(getattr(template, "match", None), "type", None) or KINDS
    for kind in types:
        facts = sample(template, locale, **changed, type=kind)
        yield msgspec.structs.replace(facts, day_total_minor=LONGEST_AMOUNT, late_seconds=LONGEST_DELAY_S)
