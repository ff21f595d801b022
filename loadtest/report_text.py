"""Numbers as the report shows them."""

from __future__ import annotations

import math
from typing import Final

HOUR_S: Final = 3600


def show_count(value: float) -> str:
    """``1,234,567``"""
    return f"{value:,.0f}"


def show_rate(value: float) -> str:
    """A second: ``0.25``, ``9.5`` or ``12,345``."""
    if value >= 100 or value == round(value):
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 1 else f"{value:.2g}"


def show_ms(value: float) -> str:
    """Milliseconds with three digits, in seconds from 1,000 on: ``0.42 ms``, ``18.2 ms``, ``1.24 s``."""
    if not math.isfinite(value) or value <= 0:
        return "0 ms"
    return f"{_three_digits(value)} ms" if round(value) < 1000 else f"{_three_digits(value / 1000)} s"


def _three_digits(value: float) -> str:
    return f"{value:,.0f}" if value >= 99.95 else f"{float(f'{value:.3g}'):g}"


def show_share(share: float) -> str:
    """Per cent of a whole, ``<0.1 %`` rather than none."""
    return "<0.1 %" if 0 < share < 0.0005 else f"{100 * share:.1f} %"


def show_axis(value: float) -> str:
    """Short enough to stand beside an axis: ``500``, ``2.5k``, ``20k``, ``1.5M``."""
    for unit, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= unit:
            return f"{value / unit:.6g}{letter}"
    return f"{value:.6g}"


def show_duration(seconds: float) -> str:
    """``12.3 s``, ``10 min``, ``10 min 30 s``, ``1 h 5 min``."""
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"


def show_clock(at: float, end: float) -> str:
    """A time from the start: ``9:05`` are minutes and seconds, or hours and minutes in a run of an hour or more."""
    large, small = divmod(round(at), 60) if end < HOUR_S else divmod(round(at / 60), 60)
    return f"{large}:{small:02}"


def clock_unit(end: float) -> str:
    """What ``show_clock`` shows in a run of ``end`` seconds."""
    return "minutes:seconds" if end < HOUR_S else "hours:minutes"
