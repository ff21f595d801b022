"""Which signed callbacks are new, which are told again, and which are somebody's recording. Pure: the time is given.

A signature of WeChat proves who made it, and neither when nor (in plain mode) about what: the body is not in it. So:

- **Stale**: WeChat gives up after three tries of five seconds (providers.md section 3), so an honest callback is
  seconds old. The bound is five minutes on both sides, which leaves clocks that are wrong by minutes working.
- **A retry** is WeChat's own: the answer to the first try was late or lost. It carries the same body, with a new
  timestamp and nonce or with the old ones (which is not documented). With new ones it is a new callback, and what it
  says has no second effect in the ledger. With the old ones and the same body it is answered ``success`` again when
  the first is durable, and is taken like the first when that is not known: refusing it would lose a receipt.
- **A replay** is an old timestamp and nonce with *another* body. It is refused. In safe mode, whose signature is over
  the body, the nonce that is looked at here has that signature in it, so that only what was signed as it is can be new.

What is remembered is bounded and belongs to one process. A nonce that was forgotten, or that another process saw, is
taken for new. With the same body that does no harm, for receipts and inbound events are idempotent in the ledger. In
plain mode it would let whoever has recorded a signed query say something else with it, for five minutes; safe mode
signs the body, so there it cannot happen.
"""

from __future__ import annotations

from enum import Enum, auto

MAX_AGE_S = 300
"""How far a timestamp may be from our clock, either way."""

MAX_NONCES = 32_768
"""Remembered in each of two halves, about 5 MB each: at 5,000 receipts a second the last 6 to 13 s of them, which holds
a retry of five seconds, and at a hundred a second all of the five minutes."""


class Verdict(Enum):
    """What to do with a callback whose signature is right."""

    NEW = auto()
    """Take it. Also what is told again while it is not known whether the first was kept."""
    AGAIN = auto()
    """It is durable: say ``success`` and do nothing."""
    STALE = auto()
    REPLAYED = auto()


class Freshness:
    """The memory of one listener. Not for more than one thread."""

    def __init__(self) -> None:
        # Two generations: when the younger is full it becomes the older, and what was in that is forgotten.
        self._young: dict[tuple[str, str], tuple[int, bool]] = {}
        self._old: dict[tuple[str, str], tuple[int, bool]] = {}

    def look(self, timestamp: str, nonce: str, body: bytes, now_s: float) -> Verdict:
        """What a callback is, and remember it. ``timestamp`` is epoch seconds as text."""
        if not is_fresh(timestamp, now_s):
            return Verdict.STALE
        key = (timestamp, nonce)
        # Python's own hash is keyed with a secret of this process, so nobody can make two bodies of one value.
        digest = hash(body)
        known = self._young.get(key) or self._old.get(key)
        if known is None:
            self._put(key, digest, False)
            return Verdict.NEW
        if known[0] != digest:
            return Verdict.REPLAYED
        return Verdict.AGAIN if known[1] else Verdict.NEW

    def durable(self, timestamp: str, nonce: str, body: bytes) -> None:
        """What this callback said is in the ledger (or there was nothing to keep)."""
        self._put((timestamp, nonce), hash(body), True)

    def _put(self, key: tuple[str, str], digest: int, durable: bool) -> None:
        if len(self._young) >= MAX_NONCES:
            self._old, self._young = self._young, {}
        self._young[key] = digest, durable


def is_fresh(timestamp: str, now_s: float) -> bool:
    """Whether a timestamp is within ``MAX_AGE_S`` of now. Anything but plain digits is not."""
    if not (timestamp.isascii() and timestamp.isdigit() and len(timestamp) <= 12):
        return False
    return abs(int(timestamp) - now_s) <= MAX_AGE_S
