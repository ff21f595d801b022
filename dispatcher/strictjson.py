"""One line of JSON from outside, read more strictly than any JSON library reads it.

What msgspec lets pass and we do not: nesting that ends in ``RecursionError``, bytes that end in
``UnicodeDecodeError``, duplicate keys (the last would win silently), and NUL, CR or LF inside a string (they
end up in logs, CSV files and SMS gateways). Size and depth are checked before anything is decoded.

Every refusal says which field and why, and never repeats a value: it may be personal.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

import msgspec

from dispatcher.cards import mask_name, skeleton

MAX_LINE_BYTES = 65_536
"""Bytes of one event or recipient line. A typical one has 300; this leaves room for any bank's extra fields,
and 256 such lines, the largest batch, are still only 16 MiB."""

MAX_DEPTH = 16
"""Levels of ``{`` and ``[``. Real events have one or two; recursive decoders fail somewhere above 900."""

MAX_NAME_CHARS = 64
"""Characters of a field's name that are repeated in an error text."""

MAX_INTEGER_DIGITS = 4_300
"""Digits of an integer that Python reads from decimal by default (CVE-2020-10735); msgspec stops there
too."""

_BEYOND_ALL = 1 << 20_000
"""Stands for an integer of more digits: still an ``int``, so that an amount is reported as beyond 64 bits."""


BOM = b"\xef\xbb\xbf"

TOO_LONG = f"line is longer than {MAX_LINE_BYTES:,} bytes"
TOO_DEEP = f"nested deeper than {MAX_DEPTH} levels"

_DECODE = msgspec.json.Decoder().decode
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)', re.DOTALL)
_NOT_BRACKETS = bytes(byte for byte in range(256) if byte not in b"{}[]")
_CONTROL = re.compile(r"[\0\r\n]")

JSON_KINDS: dict[type, str] = {
    str: "string",
    int: "integer",
    float: "float",
    type(None): "null",
    dict: "object",
    list: "array",
}


class Fault(Exception):
    """The line is refused, by the sender's fault. ``fields`` is what was decoded, for the event's id."""

    def __init__(self, field: str | None, reason: str, fields: dict[str, Any] | None = None) -> None:
        super().__init__(reason if field is None else f"field {field}: {reason}")
        self.field = field
        self.reason = reason
        self.fields = fields


def kind_of(value: object) -> str:
    """What JSON calls the value, for an error text: ``float``, ``string``, ``true``, ``null`` …"""
    if isinstance(value, bool):
        return "true" if value else "false"
    return JSON_KINDS[type(value)]


def shown_name(name: str) -> str:
    """A field's name as an error text may repeat it: printable, short, without long runs of digits."""
    masked = mask_name(name)
    printable = "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in masked)
    return printable if len(printable) <= MAX_NAME_CHARS else printable[: MAX_NAME_CHARS - 1] + "…"


def too_deep(raw: bytes, limit: int = MAX_DEPTH) -> bool:
    """Whether brackets outside strings nest deeper than ``limit``. Never recurses; takes any bytes."""
    if raw.count(b"{") + raw.count(b"[") <= limit:
        return False
    depth = 0
    for byte in _STRING.sub(b"", raw).translate(None, _NOT_BRACKETS):
        if byte in b"{[":
            depth += 1
            if depth > limit:
                return True
        else:
            depth -= 1
    return False


def decode_object(raw: bytes) -> tuple[bytes, dict[str, Any], bytes]:
    """The one JSON object of a line without its newline, or ``Fault``; no other exception.

    Returns the line without a byte-order mark, what it says, and its ``skeleton`` (with escapes written out).
    """
    if len(raw) > MAX_LINE_BYTES:
        raise Fault(None, TOO_LONG)
    if raw.startswith(BOM):
        raw = raw[len(BOM) :]
    bones = skeleton(raw)
    if bones.count(b"[") > MAX_DEPTH and too_deep(raw):
        raise Fault(None, TOO_DEEP)
    try:
        fields = _DECODE(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise _why_undecodable(raw, error) from None
    if type(fields) is not dict:
        raise Fault(None, f"expected a JSON object, got {kind_of(fields)}")
    # Without blanks, a quote and a colon are the end of a name and of nothing else, escapes aside. A repeated
    # name is in the text but no longer in the dict.
    names = bones.count(b'":')
    if b"\\" in raw:
        # An escaped backslash before a quote would be miscounted, so that line takes the exact way.
        names = names - bones.count(b'\\":') if b"\\\\" not in raw else -1
        _refuse_control_characters(raw, fields)
        if b"\\u" in raw:
            bones = skeleton(_unescaped(fields))
    if names != len(fields) and names != _count_names(fields):
        refuse_duplicates(raw)
    return raw, fields, bones


def refuse_duplicates(raw: bytes) -> None:
    """Raises ``Fault`` for the first name that an object of this valid JSON text has twice, at any depth."""
    duplicates: list[str] = []

    def note(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        fields = dict(pairs)
        if len(fields) < len(pairs):
            repeated = [name for name, times in Counter(name for name, _ in pairs).items() if times > 1]
            duplicates.extend(repeated)
            for name in repeated:
                del fields[name]  # which of the two was meant is unknown, for the id as well
        return fields

    fields = _tolerant_decoder(note).decode(raw.decode())
    if duplicates:
        raise Fault(shown_name(duplicates[0]), "appears more than once", fields)


def _unescaped(fields: dict[str, Any]) -> bytes:
    try:
        return msgspec.json.encode(fields)
    except OverflowError:  # an integer beyond 64 bits, which the standard library writes
        return json.dumps(fields, ensure_ascii=False).encode()


def _count_names(value: Any) -> int:
    if type(value) is dict:
        return len(value) + sum(map(_count_names, value.values()))
    return sum(map(_count_names, value)) if type(value) is list else 0


def _refuse_control_characters(raw: bytes, fields: dict[str, Any]) -> None:
    # A raw control character is malformed JSON already; these are the only escapes that make one of the
    # three.
    if b"\\n" not in raw and b"\\r" not in raw and b"\\u000" not in raw:
        return
    for path, text, is_name in _strings(fields, ""):
        if _CONTROL.search(text) is not None:
            what = "its name contains" if is_name else "contains"
            raise Fault(path, f"{what} NUL, CR or LF", fields)


def _strings(value: Any, path: str) -> Iterator[tuple[str, str, bool]]:
    if type(value) is dict:
        for name, item in value.items():
            inner = f"{path}.{shown_name(name)}" if path else shown_name(name)
            yield inner, name, True
            yield from _strings(item, inner)
    elif type(value) is list:
        for item in value:
            yield from _strings(item, path)
    elif type(value) is str:
        yield path, value, False


def _why_undecodable(raw: bytes, error: Exception) -> Fault:
    if isinstance(error, RecursionError):
        return Fault(None, TOO_DEEP)
    if isinstance(error, UnicodeDecodeError):
        return Fault(None, "not UTF-8")
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        return Fault(None, "not UTF-8")
    if not text.strip():
        return Fault(None, "not JSON: the line is empty")
    reason = str(error)
    if isinstance(error, msgspec.ValidationError):
        return _which_number(text)
    if "surrogate" in reason or _is_json_to_the_standard_library(text):
        return Fault(None, "not JSON: a \\u escape is half of a surrogate pair")
    if reason == "Input data was truncated":
        return Fault(None, "not JSON: the line ends too early")
    if "trailing" in reason:
        return Fault(None, "not JSON: something follows after the object")
    return Fault(None, "not JSON: " + reason.removeprefix("JSON is malformed: "))


def _is_json_to_the_standard_library(text: str) -> bool:
    """The one difference left is a lone surrogate at the very end, which msgspec takes for a line cut off."""
    if "\\u" not in text:
        return False
    try:
        _tolerant_decoder(None).decode(text)
    except (ValueError, RecursionError):
        return False
    return True


def _which_number(text: str) -> Fault:
    """msgspec names no field for a number out of range in an untyped object; the slow decoder finds it."""
    reason = "number out of range"
    try:
        fields = _tolerant_decoder(None).decode(text)
    except (ValueError, RecursionError):
        return Fault(None, f"not JSON: {reason}")
    if type(fields) is not dict:
        return Fault(None, f"expected a JSON object, got {kind_of(fields)}")
    for name, value in fields.items():
        if _holds_out_of_range(value):
            return Fault(shown_name(name), reason, fields)
    return Fault(None, f"not JSON: {reason}", fields)


def _holds_out_of_range(value: Any) -> bool:
    if type(value) is dict:
        return any(map(_holds_out_of_range, value.values()))
    if type(value) is list:
        return any(map(_holds_out_of_range, value))
    return value is _BEYOND_ALL or (type(value) is float and math.isinf(value))


def _tolerant_decoder(pairs_hook: Any) -> json.JSONDecoder:
    def integer(digits: str) -> int:
        return int(digits) if len(digits) <= MAX_INTEGER_DIGITS else _BEYOND_ALL

    def refuse(_: str) -> None:
        raise ValueError("NaN and Infinity are not JSON")

    return json.JSONDecoder(object_pairs_hook=pairs_hook, parse_int=integer, parse_constant=refuse)
