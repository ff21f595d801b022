"""Lines of ``recipients import``: who is told about the swipes of which account."""

from __future__ import annotations

import functools
import re
import zoneinfo
from typing import Any, get_args

import msgspec

from dispatcher.consents import EXPECTED_CONSENTS, clean_consents
from dispatcher.event_checks import check_currency
from dispatcher.events import Rejected, reject
from dispatcher.model.event import MAX_INT64
from dispatcher.model.recipient import ChannelName, ConsentWord, RecipientLine
from dispatcher.strictjson import Fault, decode_object, kind_of, shown_name

_KNOWN_FIELDS = frozenset(RecipientLine.__struct_fields__)
_CHANNELS = frozenset(get_args(ChannelName))
_PLACE = re.compile(r".* - at `(?:key` in `)?\$\.([a-z_]+)", re.DOTALL)

_ADDRESS_OF_CHANNEL = {"wechat": "openid", "sms": "phone", "email": "email"}
"""A webhook is reached at an address of the configuration, so it needs none here."""

_EXPECTED = {
    "account": "a string of 1 to 128 characters",
    "role": "a string of 1 to 64 characters",
    "openid": "a string of 1 to 128 characters, or null",
    "phone": "a number in E.164 such as +8613800000000 without blanks, or null",
    "email": "a mail address of at most 254 characters, or null",
    "locale": "a locale such as zh-CN or en",
    "timezone": "a time zone such as Asia/Shanghai",
    "channels": f"a list of 1 to 8 of {', '.join(sorted(_CHANNELS))}",
    "min_amount": 'an object such as {"sms": {"CNY": 10000}}, amounts in minor units and not negative',
    "opt_out": "a list of strings",
    "consents": EXPECTED_CONSENTS,
}


class DecodedRecipient(msgspec.Struct, frozen=True):
    """A valid line; ``unknown`` are the names of ignored fields, as they may be shown to an operator."""

    recipient: RecipientLine
    unknown: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"<DecodedRecipient, {len(self.unknown)} unknown fields>"


def decode_recipient(raw: bytes, line: int, now_ms: int | None = None) -> DecodedRecipient | Rejected:
    """One line without its newline. Whatever the bytes are, no exception comes out.

    The refusal's ``id`` is the account, and its text repeats no phone, openid or mail address. With ``now_ms`` a
    consent of the future is refused.
    """
    try:
        _, fields, _ = decode_object(raw)
        recipient = _convert(fields)
        _check(recipient, fields)
        if recipient.consents:
            recipient = msgspec.structs.replace(recipient, consents=_consents(recipient, fields, now_ms))
    except Fault as fault:
        return reject(fault, line, key="account")
    return DecodedRecipient(recipient, tuple(shown_name(name) for name in fields if name not in _KNOWN_FIELDS))


def _convert(fields: dict[str, Any]) -> RecipientLine:
    if "account" not in fields:
        raise Fault("account", "missing", fields)
    if isinstance(fields["account"], str) and not fields["account"].strip():
        raise Fault("account", "only blanks" if fields["account"] else "empty", fields)
    try:
        return msgspec.convert(fields, RecipientLine)
    except msgspec.ValidationError as error:
        # msgspec's own text repeats a value that is not in an enumeration, so only its place is used.
        place = _PLACE.match(str(error))
        field = place[1] if place is not None else None
        if field not in _EXPECTED:
            raise Fault(None, "not a valid recipient", fields) from None
        value = fields.get(field)
        got = f", got {kind_of(value)}" if not isinstance(value, (str, list, dict)) else ""
        raise Fault(field, f"expected {_EXPECTED[field]}{got}", fields) from None


def _check(recipient: RecipientLine, fields: dict[str, Any]) -> None:
    if recipient.timezone not in _time_zones():
        raise Fault("timezone", "unknown time zone; expected a name such as Asia/Shanghai", fields)
    if len(set(recipient.channels)) < len(recipient.channels):
        raise Fault("channels", "names a channel twice", fields)
    for by_currency in recipient.min_amount.values():
        for code, amount in by_currency.items():
            if (reason := check_currency(code)) is not None:
                raise Fault("min_amount", reason, fields)
            if amount > MAX_INT64:
                raise Fault("min_amount", "an amount is beyond 64 bits", fields)
    if not any(_is_reachable(recipient, channel) for channel in recipient.channels):
        wanted = " or ".join(_ADDRESS_OF_CHANNEL[channel] for channel in recipient.channels)
        raise Fault("channels", f"no address for any of them; add {wanted}", fields)


def _consents(recipient: RecipientLine, fields: dict[str, Any], now_ms: int | None) -> dict[str, ConsentWord]:
    try:
        return clean_consents(recipient.consents, now_ms)
    except Fault as fault:
        raise Fault(fault.field, fault.reason, fields) from None


def _is_reachable(recipient: RecipientLine, channel: str) -> bool:
    address = _ADDRESS_OF_CHANNEL.get(channel)
    return address is None or getattr(recipient, address) is not None


@functools.cache
def _time_zones() -> frozenset[str]:
    # Reads the whole zone directory (60 ms), so once, and only if a recipient is decoded at all.
    return frozenset(zoneinfo.available_timezones())
