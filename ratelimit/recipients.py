"""Pauses of single recipients. Pure: time is an argument, a recipient is a number.

A provider that limits one recipient ("too frequently") would refuse the next alert for the same one as well, and may
count the refused ones. So all of them wait together.
"""

from __future__ import annotations

MAX_RECIPIENTS = 10_000
"""Recipients remembered at a time, about 2 MB. Beyond it the oldest is forgotten: its next alert goes out and is, at
worst, refused once more."""

MINUTE_MS = 60_000


class RecipientPauses:
    """Who has to wait until when, and who got how many in the last minute. Times are milliseconds.

    It knows what this process has sent and been told. ``per_minute`` None: no limit of our own.
    """

    def __init__(self, per_minute: int | None = None) -> None:
        self.per_minute = per_minute
        self._paused: dict[int, int] = {}
        self._sent: dict[int, list[int]] = {}

    def __bool__(self) -> bool:
        """Whether anybody may have to wait; False costs no look at each alert."""
        return bool(self._paused) or self.per_minute is not None

    def __len__(self) -> int:
        """How many are remembered, in the fuller of the two tables."""
        return max(len(self._paused), len(self._sent))

    def pause(self, recipient: int, until_ms: int) -> None:
        """Nothing for this one before ``until_ms``."""
        until_ms = max(until_ms, self._paused.pop(recipient, until_ms))
        _make_room(self._paused)
        self._paused[recipient] = until_ms

    def wait_until(self, recipient: int, now_ms: int) -> int:
        """When this one may get the next; ``now_ms`` or earlier: now."""
        until_ms = self._paused.get(recipient, now_ms)
        if until_ms <= now_ms:
            self._paused.pop(recipient, None)
        if self.per_minute is not None:
            times = self._sent.get(recipient)
            if times is not None and len(times) >= self.per_minute:
                until_ms = max(until_ms, times[-self.per_minute] + MINUTE_MS)
        return until_ms

    def sent(self, recipient: int, now_ms: int) -> None:
        """One leaves for this recipient."""
        if self.per_minute is None:
            return
        times = self._sent.pop(recipient, [])
        _make_room(self._sent)
        self._sent[recipient] = [*times[1 - self.per_minute :], now_ms] if self.per_minute > 1 else [now_ms]


def _make_room(table: dict[int, object] | dict[int, int] | dict[int, list[int]]) -> None:
    if len(table) >= MAX_RECIPIENTS:
        del table[next(iter(table))]  # the one that was put in first
