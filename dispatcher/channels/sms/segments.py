"""How long a text message is: UTF-16 units with the sign in front, and the parts that they are billed as. Pure.

providers.md section 6.3: the sign with its 【】 counts; up to 70 units are one part, a longer text has 67 in each, and
500 are the most. The limits themselves stand in ``templates.limits``, which also shortens what the renderer makes.
"""

from __future__ import annotations

from templates.limits import MAX_SMS_UNITS, SMS_PART_UNITS, SMS_SINGLE_UNITS
from templates.text import units


def with_sign(text: str, sign: str) -> str:
    """The message as the phone shows it: a sign that comes without its brackets gets them."""
    if not sign:
        return text
    return f"{sign}{text}" if sign.startswith("【") else f"【{sign}】{text}"


def segments(message: str) -> int:
    """Parts of a message (sign included); 0 for an empty one. A character outside the BMP, two units, is never split
    between two parts, so such a message can need one more than its length says."""
    if units(message) <= SMS_SINGLE_UNITS:
        return int(bool(message))
    parts, room = 1, SMS_PART_UNITS
    for character in message:
        width = 2 if character > "\uffff" else 1
        if width > room:
            parts, room = parts + 1, SMS_PART_UNITS
        room -= width
    return parts


def fits(text: str, sign: str) -> bool:
    """Whether text and sign are together within the most that any vendor takes."""
    return units(with_sign(text, sign)) <= MAX_SMS_UNITS
