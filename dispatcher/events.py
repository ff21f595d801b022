"""The door: bytes from the core system become an ``Event``, or a refusal that says which field and why.

A refusal never repeats a value, because a value may be personal. What is stored is the line as it was given,
with its card numbers masked; fields that we do not know stay in it.

This is the hot path. ``decode_lines`` takes a batch of ordinary lines through in a few C calls for all of them
together, and gives every line that is not ordinary to ``decode_event``, which decodes it once, converts it once and
looks at it in a few C calls. Everything that names a fault happens after one of those says no.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import compress, repeat
from typing import Any, cast

import msgspec

from dispatcher.cards import (
    LONG_NUMBER,
    SHOWN_DIGITS,
    ascii_digits,
    bones_by_line,
    mask_line,
    mask_pan,
    mask_text,
    may_hold_card,
    skeleton,
    unmasked_number,
)
from dispatcher.event_checks import CHECKS, OWN_FIELD, REQUIRED, check_facts
from dispatcher.model.currency import EXPONENTS
from dispatcher.model.event import MAX_ID_CHARS, OWN_ID_PREFIX, Event
from dispatcher.strictjson import (
    BOM,
    MAX_DEPTH,
    MAX_LINE_BYTES,
    TOO_DEEP,
    Fault,
    decode_object,
    refuse_duplicates,
    too_deep,
)

_KNOWN_FIELDS = frozenset(Event.__struct_encode_fields__) - {OWN_FIELD}
_KEYS = frozenset({"id", "account", "refers_to"})
"""Never altered: the core system says them again elsewhere (``refers_to`` is another event's id)."""


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_DECODE_EVENT = msgspec.json.Decoder(Event).decode
_DECODE_ARRAY = msgspec.json.Decoder(list[msgspec.Raw]).decode
_DECODE_LINES = msgspec.json.Decoder().decode_lines
_UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


class Accepted(msgspec.Struct, frozen=True, gc=False):
    """A valid event. ``payload`` is the JSON text to store: the line as given, card numbers masked. ``swiped_ms`` is
    the event's time (or its restamp) in epoch milliseconds."""

    event: Event
    payload: bytes
    swiped_ms: int

    def __repr__(self) -> str:
        return f"<Accepted, payload of {len(self.payload)} bytes>"


class Rejected(msgspec.Struct, frozen=True):
    """A line that is not an event. ``line`` counts from 1 in its file or body.

    ``id`` is there when the line had a usable one (a string of at most 128 characters without control
    characters), masked if it looks like a card number. ``error`` is one line that names the field and the
    reason but no value.
    """

    line: int
    id: str | None
    field: str | None
    error: str


class UnreadableBody(ValueError):
    """A request body cannot be split into events; the sender's fault. The message repeats none of it."""


class Decoded(msgspec.Struct):
    """A batch at the door: ``numbers[i]`` is the line of ``accepted[i]``."""

    accepted: list[Accepted]
    numbers: list[int]
    rejected: list[Rejected]


def decode_lines(lines: Sequence[tuple[int, bytes]]) -> Decoded:
    """Numbered lines without their newlines, each as ``decode_event`` would take it, in order."""
    ordinary = _ordinary([raw for _, raw in lines])
    decoded = Decoded([], [number for number, _ in lines], [])
    if ordinary is not None and None not in ordinary:
        decoded.accepted = cast("list[Accepted]", ordinary)
        return decoded
    decoded.numbers.clear()
    for (number, raw), known in zip(lines, ordinary or repeat(None), strict=False):
        found = decode_event(raw, number) if known is None else known
        if isinstance(found, Rejected):
            decoded.rejected.append(found)
        else:
            decoded.accepted.append(found)
            decoded.numbers.append(number)
    return decoded


def _ordinary(raws: list[bytes]) -> list[Accepted | None] | None:
    """The lines of a batch in which nothing is odd, decoded together; None in the place of one that has to be looked
    at by itself, and None for all when the batch as a whole cannot be proved to be ordinary.

    Ordinary: flat objects without escapes, no name twice, all fields of their types, no card number in sight. What is
    proved for the batch by counting (as many brackets as lines, as many names as the dicts have) holds for each line,
    since no line can have fewer than its share.
    """
    chunk = b"\n".join(raws)
    if b"\\" in chunk or not raws or max(map(len, raws)) > MAX_LINE_BYTES:
        return None
    bones, no_disguise = bones_by_line(chunk)
    if bones.count(b"[") != len(raws):
        return _flat_ones(raws, bones)
    try:
        tables = _DECODE_LINES(chunk)
        events = msgspec.convert(tables, list[Event])
    except _UNREADABLE:
        return None
    if len(events) != len(raws) or sum(map(len, tables)) != bones.count(b'":'):
        return None
    found: list[Accepted | None] = []
    for raw, bone, event in zip(raws, bones.split(b"\n"), events, strict=True):
        pan = event.pan
        odd = (
            not no_disguise
            or (LONG_NUMBER in bone and _still_may_hold_card(raw, event))
            or (pan is not None and len(pan.strip("*")) > SHOWN_DIGITS)
            or _needs_a_look(event)
        )
        found.append(None if odd else Accepted(event, raw, epoch_ms(event.time)))
    return found


def _flat_ones(raws: list[bytes], bones: bytes) -> list[Accepted | None] | None:
    """As ``_ordinary`` for the flat lines of a batch: a few events with ``facts`` must not slow down all others."""
    flat = [bone.count(b"[") == 1 for bone in bones.split(b"\n")]
    if len(flat) != len(raws) or not any(flat) or all(flat):
        return None
    decoded = _ordinary(list(compress(raws, flat)))
    if decoded is None:
        return None
    rest = iter(decoded)
    return [next(rest) if is_flat else None for is_flat in flat]


def epoch_ms(time: datetime) -> int:
    """A time with a zone in epoch milliseconds, rounded down. Exact: a float of seconds loses one at times."""
    since = time - _EPOCH
    return since.days * 86_400_000 + since.seconds * 1000 + since.microseconds // 1000


def _needs_a_look(event: Event) -> bool:
    """Whether a converted event may still have a fault that its types do not say."""
    return (
        event.currency not in EXPONENTS
        or (event.orig_currency is not None and event.orig_currency not in EXPONENTS)
        or event.id.isspace()
        or event.account.isspace()
        or not 1 < event.time.year < 9999
        or event.id.startswith(OWN_ID_PREFIX)
        or event.digest is not None
        or (event.facts is not None and check_facts(event.facts) is not None)
    )


def _accepted(event: Event, payload: bytes) -> Accepted:
    return Accepted(event, payload, epoch_ms(event.time))


def decode_event(raw: bytes, line: int) -> Accepted | Rejected:
    """One line without its newline. Whatever the bytes are, no exception comes out."""
    try:
        raw, fields, bones = decode_object(raw)
    except Fault as fault:
        return reject(_sharpened(fault), line)
    try:
        event = msgspec.convert(fields, Event)
    except msgspec.ValidationError:
        return reject(_first_fault(fields), line)
    if _needs_a_look(event) and (found := _find_fault(fields)) is not None:
        return reject(found, line)
    pan = event.pan
    # "************5770" is what almost every pan looks like: nothing is left to mask.
    number = unmasked_number(pan) if pan is not None and len(pan.strip("*")) > SHOWN_DIGITS else None
    if number is not None or (may_hold_card(bones) and _still_may_hold_card(raw, event)):
        try:
            return _masked(raw, fields, event, number)
        except Fault as fault:
            return reject(fault, line)
    return _accepted(event, raw)


def reject(fault: Fault, line: int, key: str = "id") -> Rejected:
    """The refusal to report for a line; ``key`` is the field whose value tells the sender which one."""
    return Rejected(line, _shown_id(fault.fields, key), fault.field, str(fault))


def restamp(batch: Sequence[Accepted], now: datetime) -> list[Accepted]:
    """The same events as if they had happened ``now`` (with a zone): recorded data would be long expired.

    The payload stays as given: it is what is compared when the id comes again, and ``now`` always differs.
    """
    if now.tzinfo is None:
        raise ValueError("restamp needs a time with a zone")
    now_ms = epoch_ms(now)
    replace = msgspec.structs.replace
    return [Accepted(replace(one.event, time=now), one.payload, now_ms) for one in batch]


def same_content(a_payload: bytes, b_payload: bytes) -> bool:
    """Whether two stored payloads agree in all known fields; times are compared as moments."""
    if a_payload == b_payload:
        return True
    try:
        return _DECODE_EVENT(a_payload) == _DECODE_EVENT(b_payload)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        # Stored by a version whose fields were others: bytes are all there is to compare.
        return False


def split_array(body: bytes) -> Iterator[bytes]:
    """The items of a JSON array, each still as its own JSON text for ``decode_event``.

    The body is read at once, so its size must have been limited by the caller. Raises ``UnreadableBody``,
    before the first item, if it is not an array.
    """
    if body.startswith(BOM):
        body = body[len(BOM) :]
    # The items are checked one by one; this check is only against a body that would end in RecursionError.
    if too_deep(body, MAX_DEPTH + 1):
        raise UnreadableBody(f"the body is {TOO_DEEP}")
    try:
        items = _DECODE_ARRAY(body)
    except msgspec.ValidationError:
        raise UnreadableBody("the body is not a JSON array") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise UnreadableBody("the body is not valid JSON") from None
    return map(bytes, items)


def _still_may_hold_card(raw: bytes, event: Event) -> bool:
    # Hexadecimal ids with long runs of digits are most of the false alarms. Each is taken out once, whole: a
    # field that repeats it leaves one of the two in.
    if b"\\u" in raw:
        return True
    for key in (event.id, event.account):
        raw = raw.replace(b'"%b"' % key.encode(), b'""', 1)
    return may_hold_card(skeleton(raw))


def _masked(raw: bytes, fields: dict[str, Any], event: Event, number: str | None) -> Accepted:
    if number is not None:
        for key in ("account", "id", "refers_to"):
            value = fields.get(key)
            if value is not None and number in ascii_digits(value):
                raise Fault(key, "repeats the full card number of pan; send a token instead", fields)
        if (answer := _with_pan_masked(raw, event, number)) is not None:
            return answer
    masked = mask_line(raw, keys=_KEYS, known_fields=_KNOWN_FIELDS, pan_number=number)
    if masked.line is raw:
        return _accepted(event, raw)
    if masked.renamed:
        refuse_duplicates(masked.line)
    return _accepted(_DECODE_EVENT(masked.line), masked.line)


def _with_pan_masked(raw: bytes, event: Event, number: str) -> Accepted | None:
    """The short way for a core that masks no pan at all; None if more than the pan may need masking."""
    assert event.pan is not None
    masked_pan = mask_pan(event.pan)
    given, masked = (b'"%b"' % pan.encode() for pan in (event.pan, masked_pan))
    if b"\\" in raw or raw.count(given) != 1:
        return None
    payload = raw.replace(given, masked)
    if number.encode() in payload.translate(None, b" -"):
        return None
    answer = _accepted(msgspec.structs.replace(event, pan=masked_pan), payload)
    if may_hold_card(skeleton(payload)) and _still_may_hold_card(payload, answer.event):
        return None
    return answer


def _shown_id(fields: dict[str, Any] | None, key: str) -> str | None:
    value = None if fields is None else fields.get(key)
    if type(value) is not str or not 0 < len(value) <= MAX_ID_CHARS or not value.isprintable():
        return None
    pan = fields.get("pan") if fields is not None else None
    number = unmasked_number(pan) if type(pan) is str else None
    if number is not None and number in ascii_digits(value):
        return None
    return mask_text(value)


def _sharpened(fault: Fault) -> Fault:
    """A number out of range in a field that we know is reported as that field's own fault."""
    if fault.fields is not None and fault.reason == "number out of range" and fault.field in _KNOWN_FIELDS:
        return _find_fault(fault.fields, only=fault.field) or fault
    return fault


def _first_fault(fields: dict[str, Any]) -> Fault:
    return _find_fault(fields) or Fault(None, "not a valid event", fields)


def _find_fault(fields: dict[str, Any], only: str | None = None) -> Fault | None:
    for name, check in CHECKS:
        if only is not None and name != only:
            continue
        if name in fields:
            reason = check(fields[name])
        elif name in REQUIRED:
            reason = "missing"
        else:
            continue
        if reason is not None:
            return Fault(name, reason, fields)
    return None
