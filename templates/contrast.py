"""Colours of a mail's styles, and the contrast between two of them (WCAG 2.2, 1.4.3). Pure."""

from __future__ import annotations

import re

MIN_CONTRAST = 4.5
"""Of text against its ground, WCAG's level AA. It allows 3.0 for large text; a mail's headline is held to 4.5,
too, since a client may show it smaller."""

Rgb = tuple[int, int, int]

_NAMES: dict[str, Rgb] = {
    "black": (0, 0, 0),
    "blue": (0, 0, 255),
    "gray": (128, 128, 128),
    "green": (0, 128, 0),
    "grey": (128, 128, 128),
    "navy": (0, 0, 128),
    "orange": (255, 165, 0),
    "red": (255, 0, 0),
    "silver": (192, 192, 192),
    "white": (255, 255, 255),
    "yellow": (255, 255, 0),
}

_colour = re.compile(
    r"#(?P<hex>[0-9a-f]{6}|[0-9a-f]{3})\b"
    r"|rgba?\(\s*(?P<red>[0-9]{1,3})[\s,]+(?P<green>[0-9]{1,3})[\s,]+(?P<blue>[0-9]{1,3})[^)]*\)"
    rf"|\b(?P<name>{'|'.join(_NAMES)})\b",
    re.IGNORECASE,
)


def colour_in(text: str) -> Rgb | None:
    """The first colour in a value such as ``#fff url(…)``; None when there is none that is plainly written."""
    found = _colour.search(text)
    if found is None:
        return None
    if digits := found["hex"]:
        digits = "".join(digit * 2 for digit in digits) if len(digits) == 3 else digits
        return int(digits[:2], 16), int(digits[2:4], 16), int(digits[4:], 16)
    if name := found["name"]:
        return _NAMES[name.lower()]
    red, green, blue = (min(255, int(found[part])) for part in ("red", "green", "blue"))
    return red, green, blue


def named(colour: Rgb) -> str:
    """As it is written in a style: ``#1f2937``."""
    return "#" + "".join(f"{part:02x}" for part in colour)


def contrast(one: Rgb, other: Rgb) -> float:
    """From 1.0, the same, to 21.0, black on white."""
    light, dark = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def _luminance(colour: Rgb) -> float:
    red, green, blue = (
        part / 255 / 12.92 if part / 255 <= 0.04045 else ((part / 255 + 0.055) / 1.055) ** 2.4 for part in colour
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
