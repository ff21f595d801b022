"""How much a connection may have under way: little where answers are slow, so that nothing fresh queues behind it."""

from __future__ import annotations

from typing import Final

LEAST: Final = 64
"""Events that may be under way however slow the answers are: 16 connections then hold a thousand, which is a second or
two of a target that takes 600 a second."""

SLOW_S: Final = 0.5
"""An answer that took longer halves the window. An engine that is not full answers within one or two commits."""


class Window:
    """Events without an answer, as TCP would have it: halved when an answer is slow, grown by what is taken in time.

    A fixed number of *events* would be seconds of waiting at a target that has become slow, in front of each new one.
    """

    __slots__ = ("_most", "size")

    def __init__(self, most: int) -> None:
        self._most = most
        self.size = most

    def answered(self, count: int, took_s: float) -> None:
        """``count`` events were taken after so many seconds; 0: there was an answer, and it took none."""
        if took_s > SLOW_S:
            self.size = max(min(LEAST, self._most), self.size // 2)
        else:
            self.size = min(self._most, self.size + count)
