"""Named mixes of the simulated providers' faults: weather for a test, as data."""

from __future__ import annotations

from typing import Final

from loadtest.providers.errors import SettingsTextError
from loadtest.providers.faults import Faults, parse_faults

MIXES: Final = {
    "calm": Faults(),
    "ordinary": Faults(busy=0.002, bad_gateway=0.0005, reset=0.0005, slow=0.002, slow_seconds=0.5),
    "busy": Faults(busy=0.05, throttle=0.02, slow=0.01, slow_seconds=1.0),
    "rush-hour": Faults(
        busy=0.08, crowded=0.05, minute_limit=0.01, user_limit=0.02, bad_gateway=0.01, slow=0.05, slow_seconds=2.0
    ),
    "token-chaos": Faults(token_seconds=0.7),
    "lost-receipts": Faults(receipt_lost=0.2, receipt_twice=0.05),
    "vendor-down": Faults(down_from=10.0, down_to=30.0),
    "reset-after-accept": Faults(reset=0.2),
    "resets": Faults(reset=0.02),
    "lossy": Faults(bad_gateway=0.05, reset=0.05, slow=0.02, slow_seconds=3.0),
    "one-percent": Faults(busy=0.004, bad_gateway=0.003, reset=0.003),
    "churn": Faults(unsubscribed=0.05, refused=0.02),
}
"""Shares of the requests, for ``churn`` of the users. None has the quota fault: it lasts until midnight."""

ABOUT: Final = {
    "calm": "no faults",
    "ordinary": "a good day: two in a thousand busy, a rare reset",
    "busy": "a provider that asks to be tried later, often",
    "rush-hour": "out of breath: -1, 45011 (the minute's limit), 43117 (this user's), 502, slow answers",
    "token-chaos": "WeChat's tokens die after 0.7 s, with three codes in turn, though 7,200 s were promised",
    "lost-receipts": "one delivery report in five never comes, one in twenty comes twice (needs receipts)",
    "vendor-down": "every call is cut off from 10 s to 30 s after the start (down_from, down_to)",
    "reset-after-accept": "one connection in five is reset after the message was taken: the hard case",
    "resets": "the same for one in fifty",
    "lossy": "a bad line: 502, resets, slow answers",
    "one-percent": "busy, 502 and reset, 1 % together",
    "churn": "5 % of the users have left, 2 % refuse the template: SMS takes over",
}
"""One line about each."""


def parse_mix(text: str) -> Faults:
    """A mix by name, ``NAME=P,…``, or a mix and what is different: ``vendor-down,down_from=2,down_to=4``.

    Raises ``SettingsTextError`` with what is known.
    """
    name, _, rest = text.strip().partition(",")
    name = name.strip()
    if name in MIXES:
        return parse_faults(rest, MIXES[name])
    if name and "=" not in name:
        raise SettingsTextError(
            f"unknown mix {name!r}; known are {', '.join(MIXES)}; or single faults such as busy=0.01,reset=0.001"
        )
    return parse_faults(text)


def fault_options(faults: Faults) -> str:
    """The faults as the option of ``swipebell providers``."""
    return ",".join(f"{name}={getattr(faults, name):g}" for name in Faults.__struct_fields__)


def about_receipts(faults: Faults) -> bool:
    """Whether these faults say nothing unless the engine waits for delivery reports."""
    return faults.receipt_lost > 0.0 or faults.receipt_twice > 0.0
