"""Named mixes of the simulated providers' faults: weather for a load test."""

from __future__ import annotations

from typing import Final

from loadtest.providers.errors import SettingsTextError
from loadtest.providers.faults import Faults, parse_faults

MIXES: Final = {
    "calm": Faults(),
    "ordinary": Faults(busy=0.002, bad_gateway=0.0005, reset=0.0005, slow=0.002, slow_seconds=0.5),
    "busy": Faults(busy=0.05, throttle=0.02, slow=0.01, slow_seconds=1.0),
    "rush-hour": Faults(busy=0.2, bad_gateway=0.02, slow=0.05, slow_seconds=2.0),
    "resets": Faults(reset=0.02),
    "lossy": Faults(bad_gateway=0.05, reset=0.05, slow=0.02, slow_seconds=3.0),
    "one-percent": Faults(busy=0.004, bad_gateway=0.003, reset=0.003),
    "churn": Faults(unsubscribed=0.05, refused=0.02),
}
"""Shares of the requests, for ``churn`` of the users: ``calm`` has none, ``rush-hour`` is a provider out of breath,
``resets`` lose answers after the message was taken, ``lossy`` is a bad line, ``churn`` falls back to SMS. None has the
quota fault: it lasts until midnight."""


def parse_mix(text: str) -> Faults:
    """A mix by name, or ``NAME=P,…``. Raises ``SettingsTextError`` with what is known."""
    text = text.strip()
    if text in MIXES:
        return MIXES[text]
    if "=" not in text:
        raise SettingsTextError(
            f"unknown mix {text!r}; known are {', '.join(MIXES)}; or single faults such as busy=0.01,reset=0.001"
        )
    return parse_faults(text)


def fault_options(faults: Faults) -> str:
    """The faults as the option of ``swipebell providers``."""
    return ",".join(f"{name}={getattr(faults, name):g}" for name in Faults.__struct_fields__)
