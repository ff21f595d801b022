"""Faults that the simulated providers commit on purpose, each with a probability."""

from __future__ import annotations

import hashlib
import random
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from loadtest.providers.errors import SettingsTextError

Probability = Annotated[float, Meta(ge=0.0, le=1.0)]

MAX_SLOW_SECONDS: Final = 600.0
"""Longer than any client waits; more would only keep a test's process alive."""


class Faults(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Probabilities from 0 to 1, all 0 unless set. They apply to sends, not to token or quota calls.

    - ``busy``: WeChat -1, SMS code 2 (try later); nothing was accepted.
    - ``throttle``: SMS code 1; nothing was accepted. (WeChat's 45011 comes from the configured rate.)
    - ``quota``: WeChat 45009.
    - ``unsubscribed``, ``refused``: the share of WeChat *users* who answer 43004 / 43101, always the same.
    - ``bad_gateway``: HTTP 502 before anything was looked at.
    - ``reset``: the connection is reset *after* the message was accepted: the client cannot know.
    - ``slow``: an accepted message whose answer comes ``slow_seconds`` late.
    """

    busy: Probability = 0.0
    throttle: Probability = 0.0
    quota: Probability = 0.0
    unsubscribed: Probability = 0.0
    refused: Probability = 0.0
    bad_gateway: Probability = 0.0
    reset: Probability = 0.0
    slow: Probability = 0.0
    slow_seconds: Annotated[float, Meta(ge=0.0, le=MAX_SLOW_SECONDS)] = 1.0


def parse_faults(text: str) -> Faults:
    """Faults from ``busy=0.01,reset=0.001``; an empty text is no faults.

    Raises ``SettingsTextError`` that names the unknown name or the value out of range, and what is allowed.
    """
    return Faults(**parse_numbers(text, {name: _ceiling(name) for name in Faults.__struct_fields__}, what="fault"))


def _ceiling(name: str) -> float:
    return MAX_SLOW_SECONDS if name == "slow_seconds" else 1.0


def parse_numbers(text: str, ceilings: dict[str, float], *, what: str) -> dict[str, float]:
    """``name=number`` pairs separated by commas, each between 0 and the ceiling of its name."""
    found: dict[str, float] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, equals, number = (piece.strip() for piece in part.partition("="))
        if name not in ceilings:
            raise SettingsTextError(f"unknown {what} {name!r}; known are {', '.join(ceilings)}")
        if name in found:
            raise SettingsTextError(f"{what} {name} is given twice")
        try:
            value = float(number)
        except ValueError:
            value = float("nan")
        if not equals or not 0.0 <= value <= ceilings[name]:
            raise SettingsTextError(f"{what} {name} must be a number from 0 to {ceilings[name]:g}, not {number!r}")
        found[name] = value
    return found


def seeded(seed: int, purpose: str) -> random.Random:
    """A generator of its own per purpose, so that drawing for one thing does not shift another's draws."""
    return random.Random(f"{seed}/{purpose}")  # noqa: S311 - faults must repeat with the seed, not be unguessable


class Dice:
    """Decides which request meets a fault; the same seed and order of requests meet the same ones."""

    def __init__(self, faults: Faults, seed: int) -> None:
        self.faults = faults
        self._seed = seed
        self._random = seeded(seed, "faults")

    def falls(self, probability: float) -> bool:
        """One draw. A probability of 0 draws nothing."""
        return probability > 0.0 and self._random.random() < probability

    def has_trait(self, trait: str, user: str, probability: float) -> bool:
        """Whether this user is one of the share ``probability``: always the same answer for the same seed."""
        if probability <= 0.0:
            return False
        digest = hashlib.blake2b(f"{self._seed}/{trait}/{user}".encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big") < probability * 2.0**64
