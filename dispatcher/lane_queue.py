"""A queue in classes: the higher class leaves first, and the lower ones have a small share that is their own."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import chain

from dispatcher.freshness import CLASSES, LATE_TURNS
from dispatcher.model.alert import Alert


class LaneQueue:
    """Alerts by class: class 0 leaves first, in the order in which they joined their class.

    While a class has something to send and a lower one waits, the lower ones together get one place of ``LATE_TURNS``;
    whatever a class does not need is theirs as well. O(1) an alert. Unbounded: who puts in looks at its length first.
    """

    def __init__(self, classes: int = CLASSES) -> None:
        self._classes: tuple[deque[Alert], ...] = tuple(deque() for _ in range(classes))
        self._owed = [0] * classes
        """By class: how many places it took while a lower one waited, since the last that it left to them."""

    def __len__(self) -> int:
        return sum(map(len, self._classes))

    def __iter__(self) -> Iterator[Alert]:
        return chain.from_iterable(self._classes)

    def length(self, number: int) -> int:
        """How many wait in one class."""
        return len(self._classes[number])

    def put(self, alerts: Sequence[Alert], number: int, *, first: bool = False) -> None:
        """Let them join class ``number`` in the order given, behind the others of it or before them."""
        if first:
            self._classes[number].extendleft(reversed(alerts))
        else:
            self._classes[number].extend(alerts)

    def sink(self, number: int, into: int, has_sunk: Callable[[Alert], bool]) -> None:
        """Move the head of class ``number`` to the end of class ``into`` for as long as ``has_sunk`` says so of it."""
        source, target = self._classes[number], self._classes[into]
        while source and has_sunk(source[0]):
            target.append(source.popleft())

    def take(self, count: int) -> list[Alert]:
        """The next ones to leave, at most ``count``."""
        waiting = len(self)
        room = min(count, waiting)
        taken: list[Alert] = []
        for number, queue in enumerate(self._classes):
            if not room:
                break
            behind = waiting - len(queue)
            waiting = behind
            leave = min(len(queue), room)
            if behind:
                leave = self._left_by(number, leave, room, behind)
            popleft = queue.popleft
            taken += [popleft() for _ in range(leave)]
            room -= leave
        return taken

    def sift(self, unwanted: Callable[[Alert], bool]) -> list[Alert]:
        """Take out, from all classes, those of which ``unwanted`` is true."""
        out: list[Alert] = []
        for queue in self._classes:
            for _ in range(len(queue)):
                alert = queue.popleft()
                (out if unwanted(alert) else queue).append(alert)
        return out

    def take_last(self, count: int) -> list[Alert]:
        """Those that would leave last, at most ``count`` (0 or below: none)."""
        out: list[Alert] = []
        for queue in reversed(self._classes):
            while queue and len(out) < count:
                out.append(queue.pop())
        return out

    def _left_by(self, number: int, wanted: int, room: int, behind: int) -> int:
        """How many of ``room`` places class ``number`` takes that wants so many, with ``behind`` in the lower ones."""
        places = self._owed[number] + room
        share = min(places // LATE_TURNS, behind)
        leave = min(wanted, room - share)
        # Who got more than its share because the class did not need it has nothing owing.
        self._owed[number] = places % LATE_TURNS if room - leave == share else 0
        return leave
