"""The whole vocabulary of templates: what is known about an event, and how each field reads it. Pure.

Every field is a plain string, cleaned of control characters, so that a template sees no object and a value can neither
break out of its field nor be taken for template syntax. ``FIELDS`` holds them all.

A field in the first column comes from what stands in the last: a field of the event, or ``facts.NAME``, which is an
entry of the event's object ``facts`` (strings and whole numbers; amounts in minor units of the event's currency). A
field without ``?`` that the event cannot fill fails the rendering with ``missing-fact NAME``; one with ``?`` is then
empty, to be tested by ``if``.

    field              type   what it says (zh / en)                       from
    -----------------  -----  -------------------------------------------  ------------------------------------------
    time, short_time   time   2026年11月22日 13:05, 11月22日13:05           time, in the recipient's zone
    amount             money  ¥1,234.50, without a minus                   amount, currency
    original?          money  €160.00, of a foreign purchase only          orig_amount, orig_currency
    total              money  net total of the day, or --                  the ledger
    merchant, city?    text   as told, cleaned                             merchant, city
    country?           word   法国 / France                                 country (two letters of ISO 3166)
    tail               word   0426, or ----                                pan
    kind, action       word   消费 / Purchase, Purchase of                  type, status, sign of amount
    special?           word   kind, unless it is an ordinary purchase      as kind
    decline_reason?    word   可用额度不足 / not enough credit available      status ("declined: insufficient funds")
    mcc_word?          word   餐饮 / Restaurant                             mcc
    mcc_icon?          word   an emoji, for mail and preview (no WeChat)   mcc
    late?              time   35分钟 / 35 min                               how late the alert is, if that is said

    count … period            of a digest only: see DIGEST_FIELDS          the digest

    name?              text   how the cardholder is addressed              facts.name
    statement_period   time   2026年10月 / October 2026                     facts.period, "2026-10"
    statement_amount   money  may have a minus (WeChat: then in a thing)   facts.statement_amount_minor
    minimum_due?       money                                               facts.minimum_due_minor
    remaining?         money  still to be paid                             facts.remaining_minor
    available?         money  credit that is left                          facts.available_minor
    due_date           time   2026年11月25日 / 2026-11-25                   facts.due_date, "2026-11-25"
    short_due_date     time   11月25日 / 25 Nov                             facts.due_date
    stage              word   before, on or after: for ``if``              facts.stage, or due_date against time
    stage_word         word   还款提醒 / Payment reminder                   as stage
    days               word   3, never below 0                             facts.days, or due_date against time
    due_in             word   还有3天到期 / due in 3 days, 2 days overdue    as stage and days
    points             word   1,200, or -300                               facts.points
    points_balance     word   12,500                                       facts.points_balance
    points_expiring?   word   800                                          facts.points_expiring
    points_expiry?     time   2026年12月31日 / 2026-12-31                   facts.points_expiry, "2026-12-31"
    old_limit          money                                               facts.old_limit_minor
    new_limit          money                                               facts.new_limit_minor
    limit_change       word   上调, 下调 / raised, lowered                  both limits
    limit_until?       time   last day of a temporary limit                facts.limit_until, "2026-12-31"
    title, text        text   of a service notice, greeting or offer       facts.title, facts.text
    link?, picture?    word   https:// only, told whole                    facts.link, facts.picture
    unsubscribe        word   what to answer to be left alone              facts.unsubscribe
    confirm_word?      word   what to answer if it was me                  facts.confirm_word
    deny_word?         word   what to answer if it was not                 facts.deny_word
    hotline?           word   a telephone number                           facts.hotline

    For filters (templates/filters.py): plain values that are shown through one.
    amount_minor, currency           {{ amount_minor | money(currency) }}
    original_minor?, original_currency?
    swiped_at, timezone              {{ swiped_at | local_time(timezone) }}
    mcc?                             {{ mcc | mcc_word }}, {{ mcc | mcc_icon }}
    card?                            {{ card | tail }}
    late_seconds                     {{ late_seconds | late }}

A payment that was received has its amount in ``amount``. What a template's text may say besides is in ``grammar``.
"""

from __future__ import annotations

from functools import lru_cache

from dispatcher.model.currency import UnknownCurrency
from dispatcher.model.event import Event
from templates.countries import country_name
from templates.digest_fields import DIGEST_FIELDS, main_currency
from templates.errors import FieldRefused, MissingFact
from templates.field import Field, FieldType, Reader, SwipeFacts
from templates.mcc import mcc_icon, mcc_word
from templates.moments import DEFAULT_TIMEZONE, MAX_CACHED_ZONES, duration, long_form, short_form, zone
from templates.money import format_money
from templates.notice_fields import NOTICE_FIELDS
from templates.text import clean
from templates.words import KINDS, NO_AMOUNT, NO_TAIL, Words, words_for

__all__ = [
    "DEFAULT_TIMEZONE",
    "DIGEST_FIELDS",
    "FIELDS",
    "MAX_CACHED_ZONES",
    "NOTICE_FIELDS",
    "SWIPE_FIELDS",
    "Field",
    "FieldType",
    "Reader",
    "SwipeFacts",
    "context",
    "kind_of",
    "main_currency",
    "zone",
]

MAX_CACHED_REASONS = 1_024
"""Statuses of declined swipes whose reason is kept; a core system has a few dozen."""

MAX_REASON_CHARS = 120
"""Of a status that is looked at for a reason; a longer one is no reason but a story, and would fill the memory."""

_MONEY_BACK = frozenset({"refund", "reversal", "decline", "entry"})


def kind_of(event: Event) -> str:
    """One of ``words.KINDS``. A declined status wins over the type, and a negative purchase is a refund."""
    if event.status is not None and event.status.startswith("declined"):
        return "decline"
    kind = event.type
    if event.amount < 0 and kind not in _MONEY_BACK:
        return "refund" if kind == "purchase" else "credit"
    return kind if kind in KINDS else "other"


def _time(facts: SwipeFacts, words: Words) -> str:
    return long_form(facts.event.time.timestamp() // 60, facts.timezone, words.language)


def _short_time(facts: SwipeFacts, words: Words) -> str:
    return short_form(facts.event.time.timestamp() // 60, facts.timezone, words.language)


def _amount(facts: SwipeFacts, words: Words) -> str:
    event = facts.event
    try:
        return format_money(abs(event.amount), event.currency, words.language)
    except UnknownCurrency:
        raise FieldRefused("amount", "is in an unknown currency") from None


def _original(facts: SwipeFacts, words: Words) -> str:
    event = facts.event
    if event.orig_amount is None or event.orig_currency is None or event.orig_currency == event.currency:
        return ""
    try:
        return format_money(abs(event.orig_amount), event.orig_currency, words.language)
    except UnknownCurrency:  # withdrawn, say: without its exponent the number would be a guess
        return ""


def _total(facts: SwipeFacts, words: Words) -> str:
    total = facts.day_total_minor
    if total is None:
        return NO_AMOUNT
    try:
        return format_money(total, facts.event.currency, words.language)
    except UnknownCurrency:
        return NO_AMOUNT


def _raw_merchant(facts: SwipeFacts) -> str | None:
    return facts.event.merchant


def _merchant(facts: SwipeFacts, words: Words) -> str:
    raw = facts.event.merchant
    return (clean(raw) if raw else "") or words.unknown_merchant


def _raw_city(facts: SwipeFacts) -> str | None:
    return facts.event.city


def _city(facts: SwipeFacts, _words: Words) -> str:
    raw = facts.event.city
    return clean(raw) if raw else ""


def _tail(facts: SwipeFacts, _words: Words) -> str:
    tail = facts.event.pan[-4:] if facts.event.pan else ""
    return tail if len(tail) == 4 and tail.isascii() and tail.isdigit() else NO_TAIL


def _kind(facts: SwipeFacts, words: Words) -> str:
    return words.kinds[kind_of(facts.event)]


def _special(facts: SwipeFacts, words: Words) -> str:
    kind = kind_of(facts.event)
    return "" if kind == "purchase" else words.kinds[kind]


def _action(facts: SwipeFacts, words: Words) -> str:
    return words.actions[kind_of(facts.event)]


def _late(facts: SwipeFacts, words: Words) -> str:
    return duration(facts.late_seconds, words.babel) if facts.late_seconds > 0 else ""


def _country(facts: SwipeFacts, words: Words) -> str:
    return country_name(facts.event.country, words.babel)


_REASONS = {
    "insufficient": "insufficient-funds",
    "balance": "insufficient-funds",
    "limit": "over-the-limit",
    "pin": "wrong-pin",
    "cvv": "wrong-code",
    "cvc": "wrong-code",
    "expir": "card-expired",
    "lost": "card-blocked",
    "stolen": "card-blocked",
    "blocked": "card-blocked",
    "fraud": "suspected-fraud",
    "risk": "suspected-fraud",
    "card number": "wrong-card",
    "not permitted": "not-allowed",
    "not allowed": "not-allowed",
    "technical": "technical",
    "system": "technical",
    "timeout": "technical",
}
"""Part of the core system's reason -> ours; the first that is found wins."""


@lru_cache(maxsize=MAX_CACHED_REASONS)
def _reason_of(status: str) -> str | None:
    said = status.partition(":")[2].casefold()
    return next((reason for part, reason in _REASONS.items() if part in said), None)


def _decline_reason(facts: SwipeFacts, words: Words) -> str:
    status = facts.event.status
    if status is None or not status.startswith("declined") or len(status) > MAX_REASON_CHARS:
        return ""
    reason = _reason_of(status)
    return words.declines[reason] if reason else ""


def _original_minor(facts: SwipeFacts, _words: Words) -> str:
    return "" if facts.event.orig_amount is None else str(facts.event.orig_amount)


def _card(facts: SwipeFacts, _words: Words) -> str:
    """Stars and the last four digits, whatever the core system showed of the number."""
    pan = facts.event.pan
    tail = _tail(facts, words_for("en"))
    return "" if pan is None or tail == NO_TAIL else f"****{tail}"


def _mcc_word(facts: SwipeFacts, words: Words) -> str:
    return mcc_word(facts.event.mcc, words.language)


def _mcc_icon(facts: SwipeFacts, _words: Words) -> str:
    return mcc_icon(facts.event.mcc)


SWIPE_FIELDS: dict[str, Field] = {
    "time": Field("time", _time),
    "short_time": Field("time", _short_time),
    "amount": Field("money", _amount),
    "original": Field("money", _original, optional=True),
    "total": Field("money", _total),
    "merchant": Field("text", _merchant, missing=lambda words: words.unknown_merchant, raw=_raw_merchant),
    "city": Field("text", _city, optional=True, raw=_raw_city),
    "tail": Field("word", _tail, few=True),
    "kind": Field("word", _kind, few=True),
    "special": Field("word", _special, optional=True, few=True),
    "action": Field("word", _action, few=True),
    "late": Field("time", _late, optional=True, few=True),
    "country": Field("word", _country, optional=True, few=True),
    "decline_reason": Field("word", _decline_reason, optional=True, few=True),
    "mcc_word": Field("word", _mcc_word, optional=True, few=True),
    "mcc_icon": Field("word", _mcc_icon, optional=True, few=True),
}
"""``amount`` and ``original`` carry no minus: ``kind`` (or ``action``, the words before an amount in a
sentence) says which way the money went, ``special`` is ``kind`` unless it is an ordinary purchase.
``original`` is the amount in the merchant's own currency, of a foreign purchase only; ``total`` the net total
of the day, or ``--``; ``tail`` the last four digits of the card, or ``----``; ``late`` how late the
alert is, as far as the send rules want that to be said.
"""


PLAIN_FIELDS: dict[str, Field] = {
    "amount_minor": Field("word", lambda facts, _words: str(facts.event.amount)),
    "currency": Field("word", lambda facts, _words: facts.event.currency, few=True),
    "original_minor": Field("word", _original_minor, optional=True),
    "original_currency": Field("word", lambda facts, _words: facts.event.orig_currency or "", optional=True, few=True),
    "swiped_at": Field("word", lambda facts, _words: facts.event.time.isoformat()),
    "timezone": Field("word", lambda facts, _words: clean(facts.timezone), few=True),
    "mcc": Field("word", lambda facts, _words: clean(facts.event.mcc or ""), optional=True),
    "card": Field("word", _card, optional=True),
    "late_seconds": Field("word", lambda facts, _words: str(facts.late_seconds), few=True),
}
"""Values for the filters."""

FIELDS: dict[str, Field] = SWIPE_FIELDS | DIGEST_FIELDS | NOTICE_FIELDS | PLAIN_FIELDS
"""All of them."""


def context(facts: SwipeFacts, locale: str) -> dict[str, str]:
    """Every field that this event has. Raises ``FieldRefused`` for one that it has in a wrong shape."""
    words = words_for(locale)
    found: dict[str, str] = {}
    for name, field in FIELDS.items():
        if name in DIGEST_FIELDS and facts.event.digest is None:
            continue
        try:
            found[name] = field.read(facts, words)
        except MissingFact:
            continue
    return found
