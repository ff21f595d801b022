"""A text message with its sign in front, and whether it is short enough. Pure.

providers.md section 6.3: the sign with its 【】 counts, and 500 UTF-16 units are the most. The limits themselves and
the number of parts (``segments``) stand in ``templates.limits``, which also shortens what the renderer makes.
"""

from __future__ import annotations

from templates.limits import MAX_SMS_UNITS
from templates.text import units


def with_sign(text: str, sign: str) -> str:
    """The message as the phone shows it: a sign that comes without its brackets gets them."""
    if not sign:
        return text
    return f"{sign}{text}" if sign.startswith("【") else f"【{sign}】{text}"


def fits(text: str, sign: str) -> bool:
    """Whether text and sign are together within the most that any vendor takes."""
    return units(with_sign(text, sign)) <= MAX_SMS_UNITS
