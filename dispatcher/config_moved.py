"""Keys that ``swipebell.toml`` had and that the send rules say now: what to write instead."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, get_args

from dispatcher.model.recipient import ChannelName

_CHANNELS = tuple(get_args(ChannelName))


def refusal(tables: Mapping[str, Any]) -> str | None:
    """Why this file cannot be loaded: it has the section [fallback]. Shows the rule to write; None: it has not."""
    if "fallback" not in tables:
        return None
    section = tables["fallback"] if isinstance(tables["fallback"], dict) else {}
    orders, deadlines = (_table(section.get(key)) for key in ("channels", "deadline_seconds"))
    category = next((name for name in (*orders, *deadlines) if re.fullmatch("[a-z][a-z0-9-]{0,31}", name)), "swipe")
    order = orders.get(category)
    named = [name for name in order if name in _CHANNELS] if isinstance(order, list) else []
    rule = _rule(f"route-{category}", "route", f'category = "{category}"')
    channels = ", ".join(f'"{name}"' for name in named or _CHANNELS)
    rule += f", channels = [{channels}]"
    seconds = deadlines.get(category)
    if isinstance(seconds, int | float) and 0 < seconds < 1e6:
        rule += f", deadline_seconds = {math.ceil(seconds)}"
    return f"fallback: the rules say this now; remove the section and write into rules.toml for each category {rule}"


def warnings(tables: Mapping[str, Any]) -> list[str]:
    """About keys that still count, but only while the rules do not say the same."""
    section = _table(_table(tables.get("channels")).get("wechat"))
    found = []
    for key, name, when in (
        ("reserve_from", "large-amounts", 'currency = "CNY", amount_from = 500000'),
        ("reserve_categories", "fraud-first", 'category = "fraud"'),
    ):
        if key in section:
            rule = _rule(name, "priority", when)
            found.append(
                f"channels.wechat.{key}: counts only while no rule has the effect priority; better write such a rule "
                f"into rules.toml: {rule}"
            )
    return found


def _rule(name: str, effect: str, when: str) -> str:
    return f'(one key a line) [[rule]], id = "{name}", effect = "{effect}", when = {{ {when} }}'


def _table(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
