"""How many messages a vendor lets through to one number. Pure; ``now`` is epoch seconds.

Defaults of providers.md section 6: they are what vendors document for one-time codes, and the strictest that an alert
can meet.
"""

from __future__ import annotations

from collections import deque
from typing import Final

MAX_NUMBERS: Final = 200_000
"""Numbers whose messages are remembered; the one that was not written to for longest is forgotten."""


class Window:
    """At most ``limit`` in ``seconds``: of the calendar (by China's clock) or, ``rolling``, the last so many."""

    def __init__(self, name: str, seconds: int, limit: int, *, rolling: bool = False) -> None:
        self.name = name
        self.seconds = seconds
        self.limit = limit
        self.rolling = rolling

    def full(self, sent: deque[float], now: float) -> bool:
        """Whether one more would be too many."""
        since = now - self.seconds if self.rolling else now - now % self.seconds
        # China's offset is whole hours, so its minutes and hours begin with those of the epoch.
        return sum(at > since if self.rolling else at >= since for at in sent) >= self.limit


class PerNumber:
    """The messages that were accepted for each number, against some windows."""

    def __init__(self, windows: tuple[Window, ...]) -> None:
        self._windows = windows
        self._sent: dict[str, deque[float]] = {}
        self._most = max((window.limit for window in windows), default=0)

    def full(self, number: str, now: float) -> Window | None:
        """The first window that is full for this number."""
        sent = self._sent.get(number)
        if sent is None:
            return None
        return next((window for window in self._windows if window.full(sent, now)), None)

    def accept(self, number: str, now: float) -> None:
        """Count a message that was accepted."""
        if not self._windows:
            return
        sent = self._sent.pop(number, None) or deque(maxlen=self._most)
        sent.append(now)
        self._sent[number] = sent
        if len(self._sent) > MAX_NUMBERS:
            del self._sent[next(iter(self._sent))]


ALIYUN: Final = (
    Window("分钟", 60, 1),
    Window("小时", 3600, 5),
    Window("天", 86_400, 10, rolling=True),
)
"""One, five and ten a minute, hour and day (providers.md section 6.1: minute and hour of the calendar, day rolling)."""

TENCENT: Final = (
    Window("PhoneNumberThirtySecondLimit", 30, 1, rolling=True),
    Window("PhoneNumberDailyLimit", 86_400, 10, rolling=True),
)
"""One in 30 seconds, ten a day (providers.md section 6.2)."""
