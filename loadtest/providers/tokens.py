"""WeChat's access tokens: two independent credentials, their overlap and their end (providers.md section 1).

Pure: ``now`` is seconds of any clock that only goes forward.
"""

from __future__ import annotations

import secrets
from collections import OrderedDict
from typing import Final

OVERLAP_SECONDS: Final = 300.0
"""The old token works this long beside its successor."""
FORCED_SPACING_SECONDS: Final = 30.0
MAX_REMEMBERED_TOKENS: Final = 256
"""Old tokens told apart as expired (42001) or replaced (40001); older ones are simply unknown (40001)."""
MAX_COUNTED_TOKENS: Final = 100_000
"""Different tokens that are counted as refused, 136 bytes each."""
MIN_TOKEN_CHARS: Final = 16
_TOKEN_BYTES: Final = 102  # 136 characters, the usual length of a real one

_VALID: Final = 0
_NOT_LATEST: Final = 40001
_MALFORMED: Final = 40014
_EXPIRED: Final = 42001
_MISSING: Final = 41001
_DEATHS: Final = (_EXPIRED, _NOT_LATEST, _MALFORMED)


class Tokens:
    """Issues tokens and says of each whether it works."""

    def __init__(self, lifetime_seconds: int) -> None:
        self._lifetime = float(lifetime_seconds)
        # A test with tokens of ten seconds still wants most of that time without an overlap.
        self._overlap = min(OVERLAP_SECONDS, self._lifetime / 2)
        self._expires_at: OrderedDict[str, float] = OrderedDict()
        self._killed: set[str] = set()
        # A test lets tokens die early; each remembers when, and the code that says so.
        self.dies_after_seconds = 0.0
        self._early: dict[str, tuple[float, int]] = {}
        self._refused: set[str] = set()
        self.issued = 0
        self._stable: str | None = None
        self._classic: str | None = None
        self._forced_at: float | None = None

    def stable(self, now: float, *, force_refresh: bool = False) -> tuple[str, int]:
        """The token of ``stable_token`` and its remaining seconds.

        The same one while it has more than the overlap to live, then a new one beside it. A forced refresh
        kills the old one at once, except within 30 s of the one before, which changes nothing.
        """
        forced = force_refresh and (self._forced_at is None or now - self._forced_at >= FORCED_SPACING_SECONDS)
        if forced:
            self._forced_at = now
            if self._stable is not None:
                self._killed.add(self._stable)
        spent = self._stable is None or self._expires_at.get(self._stable, now) - now <= self._overlap
        if self._stable is None or spent or forced or self._died_early(self._stable, now):
            self._stable = self._issue(now)
        return self._stable, max(0, int(self._expires_at[self._stable] - now))

    def classic(self, now: float) -> tuple[str, int]:
        """The token of ``/cgi-bin/token``: always a new one; the one before works for the overlap."""
        previous = self._classic
        if previous is not None and previous in self._expires_at:
            self._expires_at[previous] = min(self._expires_at[previous], now + self._overlap)
        self._classic = self._issue(now)
        return self._classic, int(self._lifetime)

    def reset_counts(self) -> None:
        """Count anew what is issued and refused; the tokens stay as they are."""
        self.issued = 0
        self._refused.clear()

    @property
    def refused(self) -> int:
        """How many different tokens, once issued, a call was refused with."""
        return len(self._refused)

    def verdict(self, token: str, now: float) -> int:
        """0, or the errcode that a call with this token gets."""
        code = self._died_early(token, now) or self._verdict(token, now)
        # Of a service that runs for months the first ones will do: what counts them ends before.
        if code and token in self._expires_at and len(self._refused) < MAX_COUNTED_TOKENS:
            self._refused.add(token)
        return code

    def _died_early(self, token: str, now: float) -> int:
        """The errcode of a token that died before its time, otherwise 0."""
        dies_at, code = self._early.get(token, (now, _VALID))
        return code if now >= dies_at else _VALID

    def _verdict(self, token: str, now: float) -> int:
        expires_at = self._expires_at.get(token)
        if expires_at is not None and now < expires_at and token not in self._killed:
            return _VALID
        if not token:
            return _MISSING
        if len(token) < MIN_TOKEN_CHARS:
            return _MALFORMED
        if expires_at is not None and token not in self._killed:
            return _EXPIRED
        return _NOT_LATEST

    def expire_all(self, now: float) -> None:
        """Let every token be expired from now on."""
        for token, expires_at in self._expires_at.items():
            self._expires_at[token] = min(expires_at, now)
        self._stable = self._classic = None

    def kill(self) -> None:
        """Let the stable token be refused from now on, while ``stable`` goes on giving it out: what a forced refresh
        is for. Not something that WeChat documents."""
        if self._stable is not None:
            self._killed.add(self._stable)

    def _issue(self, now: float) -> str:
        token = secrets.token_urlsafe(_TOKEN_BYTES)
        self._expires_at[token] = now + self._lifetime
        if self.dies_after_seconds > 0.0:
            # What a client is told differs from case to case, and the right step is always the same.
            self._early[token] = (now + self.dies_after_seconds, _DEATHS[self.issued % len(_DEATHS)])
        self.issued += 1
        while len(self._expires_at) > MAX_REMEMBERED_TOKENS:
            oldest, _ = self._expires_at.popitem(last=False)
            self._killed.discard(oldest)
            self._early.pop(oldest, None)
        return token
