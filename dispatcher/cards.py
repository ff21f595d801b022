"""Card numbers are masked at the door, before anything is stored.

Two speeds. ``may_hold_card`` looks at the raw bytes of a line and costs under a microsecond; nearly every
line ends there. ``mask_line`` reads the line token by token and rewrites only the strings and integers that
hold a card number, so that all other bytes stay as the core system sent them.

A card number (ISO/IEC 7812) is 13 to 19 digits that pass the Luhn check and begin with 2-6 or 9. Written with
single blanks or dashes it still is one, and so it is in fullwidth or any other script's digits. Digits that
touch a Latin letter are not one: hexadecimal ids hold long runs of digits. Chinese text does not count as
touching, because it is written without blanks.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import NamedTuple

MIN_CARD_DIGITS, MAX_CARD_DIGITS = 13, 19
MIN_PAN_DIGITS = 12
"""In the field that is *meant* for a card number, twelve digits are masked too (Maestro), without a Luhn
check."""

SHOWN_DIGITS = 4
"""PCI DSS 3.4 allows the last four to be kept; the cardholder knows the card by them."""

_FIRST_DIGITS = frozenset("234569")

# Blanks, dashes and invisible characters that a person or a word processor puts between the groups of a
# number.
_OTHER_SEPARATORS = "\u00a0\u00ad\u1680\u2000-\u200d\u2010-\u2015\u202f\u205f\u2060\u2212\u3000\ufe58\ufe63\uff0d\ufeff"
_RUN = re.compile(rf"\d(?:[ \-{_OTHER_SEPARATORS}]?\d){{{MIN_PAN_DIGITS - 1},}}")
_PAN_RUN = re.compile(rf"\d(?:[^\w*]{{0,2}}\d){{{MIN_PAN_DIGITS - 1},}}")
_NAME_RUN = re.compile(r"\d(?:\W?\d){6,}")
_NOT_A_DIGIT = re.compile(r"\D+")
_GROUP = re.compile(r"\d+")
_DISGUISE = re.compile(rf"[\d{_OTHER_SEPARATORS}]")

_BONES = bytes.maketrans(b"123456789{", b"000000000[")
_ASCII = bytes(range(128))
LONG_NUMBER = b"0" * MIN_CARD_DIGITS
"""In a ``skeleton``: digits enough for a card number."""

_DOUBLED = {str(digit): sum(divmod(2 * digit, 10)) for digit in range(10)}

_TOKEN = re.compile(
    rb"""
    (?P<string> "(?:[^"\\]++|\\.)*+" ) (?P<colon> \s*+: )?
    | (?P<open> [{\[] )
    | (?P<close> [}\]] )
    | (?P<number> -?\d[\d.eE+-]* )
    """,
    re.VERBOSE | re.DOTALL,
)
_INTEGER = re.compile(rb"-?\d{13,19}(?:\.0*)?")


class MaskedLine(NamedTuple):
    """``line`` is the same object when nothing was masked; ``renamed``: a field's *name* held a number."""

    line: bytes
    renamed: bool


def skeleton(line: bytes) -> bytes:
    """The line without blanks and dashes, every digit as ``0`` and every opening bracket as ``[``.

    One cheap pass that makes long numbers, names and nesting countable.
    """
    return line.translate(_BONES, b" -\t\r\n")


def bones_by_line(chunk: bytes) -> tuple[bytes, bool]:
    """The ``skeleton`` of several lines of valid UTF-8, which keeps their newlines, and whether none of them can hold a
    card number but by ``LONG_NUMBER``."""
    bones = chunk.translate(_BONES, b" -\t\r")
    if bones.isascii():
        return bones, True
    return bones, _DISGUISE.search(bones.translate(None, _ASCII).decode("utf-8", "ignore")) is None


def may_hold_card(bones: bytes) -> bool:
    """Whether a line with this ``skeleton``, valid UTF-8, ``\\u`` escapes aside, might hold a card number.

    Never False for a line that does; rarely True for one that does not (ids with long runs of digits). The
    twelve digits that count as a number in ``pan`` are not looked for.
    """
    if LONG_NUMBER in bones:
        return True
    if bones.isascii():
        return False
    return _DISGUISE.search(bones.translate(None, _ASCII).decode("utf-8", "ignore")) is not None


def ascii_digits(text: str) -> str:
    """The digits of ``text`` alone, as 0-9 whatever their script."""
    digits = _NOT_A_DIGIT.sub("", text)
    return digits if digits.isascii() else "".join(str(int(char)) for char in digits)


def unmasked_number(pan: str) -> str | None:
    """The digits of a ``pan`` that nobody has masked yet, or None."""
    found = _PAN_RUN.search(pan)
    return None if found is None else ascii_digits(found[0])


def mask_pan(pan: str) -> str:
    """``pan`` with runs of 12 or more digits masked but for the last four; a masked one stays as it was."""
    if len(pan) >= MIN_PAN_DIGITS and pan.isdecimal():
        return "*" * (len(pan) - SHOWN_DIGITS) + pan[-SHOWN_DIGITS:]
    return _PAN_RUN.sub(lambda found: _hide_all_but_tail(found[0]), pan)


def mask_name(name: str) -> str:
    """A field's name for an error text: no run of seven or more digits survives, whatever it means."""
    return _NAME_RUN.sub(lambda found: re.sub(r"\d", "*", found[0]), name)


def passes_luhn(number: str) -> bool:
    """The check digit of ISO/IEC 7812-1 annex B, over ASCII digits."""
    total = sum(map(int, number[-1::-2])) + sum(_DOUBLED[digit] for digit in number[-2::-2])
    return total % 10 == 0


def looks_like_card(number: str) -> bool:
    """Whether these ASCII digits could be a card number: length, first digit and check digit."""
    return MIN_CARD_DIGITS <= len(number) <= MAX_CARD_DIGITS and number[0] in _FIRST_DIGITS and passes_luhn(number)


def mask_text(text: str, known: str | None = None) -> str:
    """``text`` with every card number masked but for its tail; the same object when there is none.

    ``known`` is a number that is certainly a card's (the line's own ``pan``): it is masked without Luhn
    check, even where it touches letters.
    """
    if len(text) < MIN_PAN_DIGITS:
        return text
    hidden: set[int] = set()
    for run in _RUN.finditer(text):
        hidden |= _places_of_cards(text, run)
        if known is not None:
            hidden |= _places_of_known(run, known)
    if not hidden:
        return text
    return "".join("*" if place in hidden else char for place, char in enumerate(text))


def mask_line(line: bytes, *, keys: frozenset[str], known_fields: frozenset[str], pan_number: str | None) -> MaskedLine:
    """One JSON object, already decoded once without error, with its card numbers masked.

    ``keys`` are the top-level fields that are never altered; integers are left alone in ``known_fields`` (an
    amount is not a card number) and become masked strings elsewhere, where they look like one. ``pan_number``
    is what ``unmasked_number`` found in the line's ``pan``.
    """
    pieces: list[bytes] = []
    copied = 0
    renamed = False
    for change in _changes(line, keys, known_fields, pan_number):
        pieces += (line[copied : change.start], json.dumps(change.text, ensure_ascii=False).encode())
        copied = change.end
        renamed |= change.is_name
    if not pieces:
        return MaskedLine(line, renamed=False)
    return MaskedLine(b"".join((*pieces, line[copied:])), renamed)


class _Change(NamedTuple):
    start: int
    end: int
    text: str
    is_name: bool


def _changes(
    line: bytes, keys: frozenset[str], known_fields: frozenset[str], pan_number: str | None
) -> Iterator[_Change]:
    depth = 0
    field = ""
    for token in _TOKEN.finditer(line):
        kind = token.lastgroup
        if kind == "open":
            depth += 1
        elif kind == "close":
            depth -= 1
        elif kind == "number":
            if depth > 1 or field not in known_fields:
                if _INTEGER.fullmatch(token[0]) is None:
                    continue
                text = token[0].decode()
                masked = mask_text(text, pan_number)
                if masked != text:
                    yield _Change(*token.span(), masked, is_name=False)
        else:
            text = _text_of(token["string"])
            is_name = kind == "colon"
            if depth > 1:
                masked = mask_text(text, pan_number)
            elif is_name:
                field = text
                masked = text if text in known_fields else mask_text(text, pan_number)
            elif field in keys:
                continue
            else:
                masked = mask_pan(text) if field == "pan" else mask_text(text, pan_number)
            if masked != text:
                yield _Change(*token.span("string"), masked, is_name)


def _text_of(token: bytes) -> str:
    if b"\\" in token:
        text = json.loads(token)
        assert isinstance(text, str)
        return text
    return token[1:-1].decode()


def _hide_all_but_tail(run: str) -> str:
    places = [place for place, char in enumerate(run) if char.isdecimal()]
    hidden = set(places[:-SHOWN_DIGITS])
    return "".join("*" if place in hidden else char for place, char in enumerate(run))


def _places_of_cards(text: str, run: re.Match[str]) -> set[int]:
    """Where to write stars. Every window of whole groups is tried: a date may stand before a number.

    The windows' stars are united, so that one that passes Luhn by chance cannot shield a real number.
    """
    groups = [(run.start() + group.start(), group[0]) for group in _GROUP.finditer(run[0])]
    first = 1 if _is_latin_letter(text, run.start() - 1) else 0
    last = len(groups) - (1 if _is_latin_letter(text, run.end()) else 0)
    hidden: set[int] = set()
    for begin in range(first, last):
        number = ""
        places: list[int] = []
        for start, group in groups[begin:last]:
            if len(number) + len(group) > MAX_CARD_DIGITS:
                break
            number += group if group.isascii() else ascii_digits(group)
            places += range(start, start + len(group))
            if looks_like_card(number):
                hidden.update(places[:-SHOWN_DIGITS])
    return hidden


def _places_of_known(run: re.Match[str], known: str) -> set[int]:
    places = [run.start() + place for place, char in enumerate(run[0]) if char.isdecimal()]
    digits = ascii_digits(run[0])
    hidden: set[int] = set()
    at = digits.find(known)
    while at >= 0:
        hidden.update(places[at : at + len(known) - SHOWN_DIGITS])
        at = digits.find(known, at + 1)
    return hidden


def _is_latin_letter(text: str, place: int) -> bool:
    return 0 <= place < len(text) and text[place].isascii() and text[place].isalpha()
