"""Text from outside made safe to show, measured as providers measure it, and cut where a reader would cut it.

Lengths are UTF-16 units: that is what an SMS pays for, and the stricter reading of WeChat's "characters".
"""

from __future__ import annotations

import re
import unicodedata

MAX_RAW_CHARS = 2048
"""Characters of a value that are looked at at all. ISO 8583 gives a merchant 40; the rest is an attack on our
time.
"""

MAX_TEXT_UNITS = 512
"""UTF-16 units of a cleaned value: above the longest SMS, so that the channel's own limit decides how much is
shown.
"""

MAX_MARKS = 3
"""Combining marks on one letter. Vietnamese and Thai need two, pointed Hebrew three; more is zalgo."""

ELLIPSIS = "…"

PLAIN = (
    r"!-~\u00a1-\u00ac\u00ae-\u02ff\u0370-\u0373\u0391-\u03a1\u03a3-\u03a9\u03b1-\u03c9\u0400-\u0481\u2010-\u2015\u2018-\u201f\u2022"
    r"\u2026\u20a0-\u20bf\u3001-\u3029\u3041-\u3094\u30a1-\u30fe\u4e00-\u9fff\uac00-\ud7a3\uff01-\uff5e\uffe0-\uffe6"
)
"""Inside of a regular expression's class: characters that are visible, one unit, no emoji and join with
nothing.

It may miss harmless ones (they take the slow path), but must never hold a harmful one.
"""

_plain = re.compile(f"[{PLAIN}]+(?: [{PLAIN}]+)*").fullmatch

_simple = re.compile(f"[ {PLAIN}]*").fullmatch

_emoji = re.compile(
    "[\u200d\u20e3\u231a-\u231b\u2328\u23cf\u23e9-\u23f3\u23f8-\u23fa\u25aa-\u25ab\u25b6\u25c0\u25fb-\u25fe\u2600-\u27bf"
    "\u2934-\u2935\u2b05-\u2b07\u2b1b-\u2b1c\u2b50\u2b55\u3030\u303d\u3297\u3299\ufe00-\ufe0f"
    "\U0001f000-\U0001fbff\U000e0000-\U000e0fff]+"
)

ZERO_WIDTH_JOINER = "\u200d"

INVISIBLE = frozenset("\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0")
"""Letters and symbols by category that draw nothing: a merchant of these would look empty."""

_DROPPED = frozenset({"Cc", "Cf", "Cs", "Co", "Cn"})


def units(text: str) -> int:
    """Length in UTF-16 units: a character outside the BMP counts two."""
    return len(text) if text.isascii() else len(text.encode("utf-16-le", "surrogatepass")) // 2


def clean(raw: str) -> str:
    """``raw`` on one line, without what hides, reorders or piles up; may be empty. At most
    ``MAX_TEXT_UNITS``.

    Control characters, bidirectional and other format characters, lone surrogates, private and unassigned
    code points are removed, line breaks and blanks of any kind become single blanks, and combining marks stop
    at ``MAX_MARKS``. Emoji stay. Markup and template syntax are left as they are: values are never
    interpreted.
    """
    if len(raw) <= MAX_TEXT_UNITS and _plain(raw):
        return raw
    kept: list[str] = []
    marks = MAX_MARKS
    for character in raw[:MAX_RAW_CHARS]:
        if character.isspace() or character in INVISIBLE:
            kept.append(" ")
            marks = MAX_MARKS
            continue
        category = unicodedata.category(character)
        if category[0] == "M":
            marks += 1
            if marks <= MAX_MARKS:
                kept.append(character)
        elif category not in _DROPPED:
            kept.append(character)
            marks = 0
        elif character == ZERO_WIDTH_JOINER and marks < MAX_MARKS:
            # It builds family emoji and Indic letters; alone or in a row it would only hide something.
            kept.append(character)
            marks = MAX_MARKS
    text = " ".join(unicodedata.normalize("NFC", "".join(kept)).split())
    return cut(text.rstrip(ZERO_WIDTH_JOINER), MAX_TEXT_UNITS)


def has_emoji(text: str) -> bool:
    """True if WeChat would take something out of ``text`` by itself."""
    return _emoji.search(text) is not None


def without_emoji(text: str) -> str:
    """``text`` as WeChat shows it since May 2023 (providers.md 2.2): without emoji; may be empty."""
    return text if text.isascii() else " ".join(_emoji.sub("", text).split())


_LINKERS = frozenset("\u094d\u09cd\u0acd\u0b4d\u0c4d\u0d4d")
"""Viramas after which the next consonant is drawn into the same sign (UAX 29, rule GB9c)."""

_TRAILING = frozenset("\u0e33\u0eb3\uff9e\uff9f")
"""Letters by category that belong to the one before: Thai and Lao am, the voice marks of narrow Katakana."""


def _joins(before: str, character: str, flag_open: bool) -> bool:
    """True if ``character`` belongs to ``before``: the rules of UAX 29 that alerts can meet."""
    if before == ZERO_WIDTH_JOINER or character == ZERO_WIDTH_JOINER:
        return True
    if unicodedata.category(character)[0] == "M" or "\U0001f3fb" <= character <= "\U0001f3ff":
        return True
    if "\u1160" <= character <= "\u11ff" or "\ud7b0" <= character <= "\ud7fb" or character in _TRAILING:
        return True
    if before in _LINKERS and "\u0900" <= character <= "\u0d7f" and unicodedata.category(character) == "Lo":
        return True
    return flag_open and "\U0001f1e6" <= character <= "\U0001f1ff"


def graphemes(text: str) -> list[str]:
    """``text`` in pieces that a reader sees as one character each; joined they are ``text`` again."""
    pieces: list[str] = []
    flag_open = False
    for character in text:
        if pieces and _joins(pieces[-1][-1], character, flag_open):
            pieces[-1] += character
            flag_open = False
        else:
            pieces.append(character)
            flag_open = "\U0001f1e6" <= character <= "\U0001f1ff"
    return pieces


def cut(text: str, limit: int, ellipsis: str = ELLIPSIS) -> str:
    """``text`` in at most ``limit`` UTF-16 units, shortened from its end by whole graphemes; the ellipsis
    counts.
    """
    if units(text) <= limit:
        return text
    room = limit - units(ellipsis)
    if _simple(text, 0, room + 1):
        return text[:room].rstrip() + ellipsis
    kept: list[str] = []
    for piece in graphemes(text):
        room -= units(piece)
        if room < 0:
            break
        kept.append(piece)
    return "".join(kept).rstrip() + ellipsis


def columns(text: str) -> int:
    """Columns that ``text`` takes on a screen: two for a wide or fullwidth character or an emoji, else one each."""
    return len(text) if text.isascii() else sum(map(_columns_of, graphemes(text)))


def _columns_of(grapheme: str) -> int:
    if "\ufe0f" in grapheme or "\U0001f1e6" <= grapheme[0] <= "\U0001f1ff":
        return 2
    return 2 if any(unicodedata.east_asian_width(character) in "WF" for character in grapheme) else 1


def cut_to_columns(text: str, limit: int, ellipsis: str = ELLIPSIS) -> str:
    """As ``cut``, but ``limit`` is in ``columns``."""
    if columns(text) <= limit:
        return text
    room = limit - columns(ellipsis)
    kept: list[str] = []
    for piece in graphemes(text):
        room -= _columns_of(piece)
        if room < 0:
            break
        kept.append(piece)
    return "".join(kept).rstrip() + ellipsis
