"""What recipients agreed to, at the door: lines of ``recipients consent --file`` and the ``consents`` of an import.

A source is a bank's own free text: card numbers in it are masked before anything is stored, and it is short.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, get_args

import msgspec
from msgspec import Meta

from dispatcher.cards import mask_text
from dispatcher.events import Rejected, epoch_ms, reject
from dispatcher.model.consent import ConsentChange
from dispatcher.model.recipient import MAX_CONSENTS, MAX_SOURCE_CHARS, ChannelName, Consent, ConsentWord
from dispatcher.strictjson import Fault, decode_object, kind_of, shown_name
from ratelimit.consent import consent_key

MAX_AHEAD_MS = 10 * 60_000
"""How far a word may lie in the future: clocks differ by minutes. One that lay further ahead would outweigh all that
is said until then; mostly it is a local time with the wrong zone."""

MAX_NAME_CHARS = 64
"""Characters of a category's or a template's name, as in the rule file."""

CHANNELS: tuple[str, ...] = get_args(ChannelName)

_NAME = re.compile(rf"(?=.*\S)[^/*\x00-\x1f\x7f-\x9f]{{1,{MAX_NAME_CHARS}}}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_PLACE = re.compile(r".* - at `\$\.([a-z_]+)", re.DOTALL)

_A_NAME = f"a name of 1 to {MAX_NAME_CHARS} characters without / and *"
EXPECTED_KEY = "category, category/channel or category/channel/template, such as promotion/sms"
EXPECTED_CONSENTS = (
    f'an object of at most {MAX_CONSENTS} such as {{"promotion": {{"given": true, "at": "2026-11-01T10:00:00+08:00",'
    f' "source": "form 17"}}}}, sources of 1 to {MAX_SOURCE_CHARS} characters'
)
_EXPECTED = {
    "account": "a string of 1 to 128 characters",
    "role": "a string of 1 to 64 characters",
    "category": _A_NAME,
    "channel": f"one of {', '.join(CHANNELS)}, or null",
    "template": f"{_A_NAME}, or null",
    "given": "true or false",
    "at": "a time with its zone such as 2026-11-01T10:00:00+08:00",
    "source": f"a string of 1 to {MAX_SOURCE_CHARS} characters that says where the word is kept",
}


class ConsentLine(msgspec.Struct, frozen=True, kw_only=True):
    """One line of ``recipients consent --file``."""

    account: Annotated[str, Meta(min_length=1, max_length=128)]
    role: Annotated[str, Meta(min_length=1, max_length=64)] = "primary"
    category: str
    channel: ChannelName | None = None
    template: str | None = None
    given: bool
    at: Annotated[datetime, Meta(tz=True)]
    source: Annotated[str, Meta(min_length=1, max_length=MAX_SOURCE_CHARS)]

    def __repr__(self) -> str:
        return "<ConsentLine ****>"


_KNOWN_FIELDS = frozenset(ConsentLine.__struct_fields__)
_NEEDED = ("account", "category", "given", "at", "source")


class DecodedConsent(msgspec.Struct, frozen=True):
    """A valid line; ``unknown`` are the names of ignored fields, as they may be shown to an operator."""

    change: ConsentChange
    unknown: tuple[str, ...] = ()


def decode_consent(raw: bytes, line: int, *, now_ms: int, by: str) -> DecodedConsent | Rejected:
    """One line without its newline. Whatever the bytes are, no exception comes out.

    The refusal's ``id`` is the account, and its text repeats no value.
    """
    fields: dict[str, Any] | None = None
    try:
        _, fields, _ = decode_object(raw)
        change = change_of(line_of(fields), now_ms=now_ms, by=by)
    except Fault as fault:
        return reject(Fault(fault.field, fault.reason, fault.fields or fields), line, key="account")
    return DecodedConsent(change, tuple(shown_name(name) for name in fields if name not in _KNOWN_FIELDS))


def change_of(line: ConsentLine, *, now_ms: int, by: str) -> ConsentChange:
    """What the line says, ready for the ledger. Raises `Fault`."""
    _check_name("category", line.category)
    if line.template is not None:
        if line.channel is None:
            raise Fault("template", "is about a channel: add its channel")
        _check_name("template", line.template)
    return ConsentChange(
        account=line.account,
        role=line.role,
        key=consent_key(line.category, line.channel, line.template),
        consent=Consent(line.given, _moment(line.at, "at", now_ms), clean_source(line.source, "source")),
        by=by,
    )


def clean_consents(consents: Mapping[str, ConsentWord], now_ms: int | None) -> dict[str, ConsentWord]:
    """The consents of an import line as they may be stored. Raises `Fault` for the field ``consents``."""
    if len(consents) > MAX_CONSENTS:
        raise Fault("consents", f"expected {EXPECTED_CONSENTS}")
    cleaned = {}
    for key, word in consents.items():
        if not is_key(key):
            raise Fault("consents", f"a key is not {EXPECTED_KEY}")
        _moment(word.at, "consents", now_ms)
        cleaned[key] = msgspec.structs.replace(word, source=clean_source(word.source, "consents"))
    return cleaned


def is_key(key: str) -> bool:
    """Whether this says what a consent is about."""
    category, *rest = key.split("/")
    if len(rest) > 2 or (rest and rest[0] not in CHANNELS):
        return False
    return all(map(is_name, (category, *rest[1:])))


def is_name(name: str) -> bool:
    """Whether a category or a template may be called so."""
    return _NAME.fullmatch(name) is not None


def clean_source(source: str, field: str) -> str:
    """The source without card numbers. Raises `Fault` when it says nothing or holds control characters."""
    if not source.strip():
        raise Fault(field, "a source is only blanks")
    if _CONTROL.search(source) is not None:
        raise Fault(field, "a source contains control characters")
    return mask_text(source)


def _check_name(field: str, name: str) -> None:
    if not is_name(name):
        raise Fault(field, f"expected {_EXPECTED[field]}")


def _moment(at: datetime, field: str, now_ms: int | None) -> int:
    moment = epoch_ms(at)
    if now_ms is not None and moment > now_ms + MAX_AHEAD_MS:
        raise Fault(field, "a time lies in the future; check its zone")
    return moment


def line_of(fields: dict[str, Any]) -> ConsentLine:
    """A line's fields in their types. Raises `Fault`."""
    for name in _NEEDED:
        if name not in fields:
            raise Fault(name, "missing", fields)
    try:
        return msgspec.convert(fields, ConsentLine)
    except msgspec.ValidationError as error:
        # msgspec's own text repeats a value that is not in an enumeration, so only its place is used.
        place = _PLACE.match(str(error))
        field = place[1] if place is not None else None
        if field not in _EXPECTED:
            raise Fault(None, "not a valid consent", fields) from None
        value = fields.get(field)
        got = f", got {kind_of(value)}" if not isinstance(value, (str, list, dict)) else ""
        raise Fault(field, f"expected {_EXPECTED[field]}{got}", fields) from None
