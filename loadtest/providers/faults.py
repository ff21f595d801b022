"""Faults that the simulated providers commit on purpose, each with a probability."""

from __future__ import annotations

import hashlib
import random
import struct
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from loadtest.providers.errors import SettingsTextError
from loadtest.providers.latest import Latest

Probability = Annotated[float, Meta(ge=0.0, le=1.0)]

MAX_SPAN_SECONDS: Final = 86_400.0
"""A window that begins or ends later than a day after the start is no fault of this run."""
Seconds = Annotated[float, Meta(ge=0.0, le=MAX_SPAN_SECONDS)]

MAX_SLOW_SECONDS: Final = 600.0
"""Longer than any client waits; more would only keep a test's process alive."""


class Faults(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Shares from 0 to 1 and spans of time in seconds, all 0 unless set. They apply to sends unless it says otherwise.

    - ``busy``: WeChat -1, SMS code 2 (try later); nothing was accepted.
    - ``throttle``: SMS code 1; nothing was accepted. (WeChat's 45011 comes from the configured rate, too.)
    - ``quota``: WeChat 45009.
    - ``unsubscribed``, ``refused``: the share of WeChat *users* who answer 43004 / 43101, always the same.
    - ``bad_gateway``: HTTP 502 before anything was looked at.
    - ``reset``: the connection is reset *after* the message was accepted: the client cannot know.
    - ``slow``: an accepted message whose answer comes ``slow_seconds`` late.
    - ``minute_limit``, ``user_limit``: WeChat 45011, 43117.
    - ``crowded``: WeChat -1 for this share of what comes while 300 or more requests wait for their answer.
    - ``held``: WeChat 40252: the message goes through a review, and WeChat shows it without being asked again.
    - ``receipt_lost``, ``receipt_twice``: delivery reports that never come, or come twice.
    - ``token_seconds``: WeChat's tokens die so soon, whatever was said of their life; 0: they do not.
    - ``down_from``, ``down_to``: between them, from the moment when the faults came into force, every call of
      the provider is cut off, and nothing accepted. ``down_wechat``, ``down_sms``: 1, or 0, which leaves that one up.
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
    minute_limit: Probability = 0.0
    user_limit: Probability = 0.0
    crowded: Probability = 0.0
    held: Probability = 0.0
    receipt_lost: Probability = 0.0
    receipt_twice: Probability = 0.0
    token_seconds: Seconds = 0.0
    down_from: Seconds = 0.0
    down_to: Seconds = 0.0
    down_wechat: Probability = 1.0
    down_sms: Probability = 1.0

    def __post_init__(self) -> None:
        """Raises ``SettingsTextError``."""
        if (self.down_from or self.down_to) and self.down_to <= self.down_from:
            raise SettingsTextError(
                f"fault down_to is {self.down_to:g} s and must be after down_from, {self.down_from:g} s"
            )
        for name in ("down_wechat", "down_sms"):
            if getattr(self, name) not in (0.0, 1.0):
                raise SettingsTextError(f"fault {name} must be 0 or 1, not {getattr(self, name):g}")


CHANCES: Final = (
    "busy",
    "throttle",
    "quota",
    "bad_gateway",
    "reset",
    "slow",
    "minute_limit",
    "user_limit",
    "crowded",
    "held",
)
"""The faults that a request meets or does not. Each has its own four bytes of the draw, by its place here, so that one
more fault in a mix does not change whom the others meet: add new ones at the end, sixteen in all."""

_SPANS: Final = {
    "slow_seconds": MAX_SLOW_SECONDS,
    "token_seconds": MAX_SPAN_SECONDS,
    "down_from": MAX_SPAN_SECONDS,
    "down_to": MAX_SPAN_SECONDS,
}

_EIGHT: Final = struct.Struct(">8I")

NOTHING: Final[frozenset[str]] = frozenset()


def parse_faults(text: str, base: Faults = Faults()) -> Faults:  # noqa: B008 - frozen
    """Faults from ``busy=0.01,reset=0.001``; what is not named is as in ``base``, and an empty text changes nothing.

    Raises ``SettingsTextError`` that names the unknown name or the value out of range, and what is allowed.
    """
    ceilings = {name: _SPANS.get(name, 1.0) for name in Faults.__struct_fields__}
    return msgspec.structs.replace(base, **parse_numbers(text, ceilings, what="fault"))


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


def fractions(seed: int, purpose: str, key: str) -> tuple[float, ...]:
    """Eight numbers in [0, 1) that belong to ``key``, whenever and in whatever order it is asked for."""
    digest = hashlib.blake2b(f"{seed}/{purpose}/{key}".encode(), digest_size=32).digest()
    return tuple(part / 2.0**32 for part in _EIGHT.unpack(digest))


class Dice:
    """Decides which request meets which fault, by seed, message and attempt: not by the order in which they come.

    ``since`` is when the faults come into force, on the clock of ``is_down``.
    """

    def __init__(self, faults: Faults, seed: int, since: float = 0.0) -> None:
        self.faults = faults
        self._seed = seed
        self._since = since
        self._attempts: Latest[str, int] = Latest()
        self._chances = [
            (name, slice(4 * place, 4 * place + 4), int(getattr(faults, name) * 2**32))
            for place, name in enumerate(CHANCES)
            if getattr(faults, name) > 0.0
        ]

    @property
    def rolls(self) -> bool:
        """Whether ``meets`` can give anything."""
        return bool(self._chances)

    def meets(self, key: str) -> frozenset[str]:
        """The faults, of ``CHANCES``, that this message meets at this attempt; calling it makes the attempt."""
        if not self._chances:
            return NOTHING
        attempt = (self._attempts.get(key) or 0) + 1
        self._attempts.put(key, attempt)
        digest = hashlib.blake2b(f"{self._seed}/{attempt}/{key}".encode(), digest_size=64).digest()
        return frozenset(name for name, part, below in self._chances if int.from_bytes(digest[part], "big") < below)

    def is_down(self, channel: str, now: float) -> bool:
        """Whether a call of this provider is cut off now."""
        faults = self.faults
        if not faults.down_to or not faults.down_from <= now - self._since < faults.down_to:
            return False
        return (faults.down_wechat if channel == "wechat" else faults.down_sms) > 0.0

    def has_trait(self, trait: str, user: str, probability: float) -> bool:
        """Whether this user is one of the share ``probability``: always the same answer for the same seed."""
        if probability <= 0.0:
            return False
        digest = hashlib.blake2b(f"{self._seed}/{trait}/{user}".encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big") < probability * 2.0**64
