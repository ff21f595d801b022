"""Stand-ins for the tests of the load test: a target that does as it is told, and lines without content."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import trio

from loadtest.load.generator import CHUNK_EVENTS, Generator
from loadtest.load.lines import Chunk
from loadtest.load.schedule import Arrivals
from loadtest.load.tally import Tally


class Numbers:
    """A source whose events are their numbers, and whose alerts' keys are ``k<number>``."""

    def build(self, first: int, times: Sequence[float], epoch: float) -> tuple[bytes, list[str]]:
        numbers = range(first, first + len(times))
        return b"".join(b"%d\n" % number for number in numbers), [f"k{number}" for number in numbers]

    def event_id(self, number: int) -> str:
        return f"e{number}"


class Target:
    """Answers each chunk at once, except while ``stalled`` says so; then it takes none."""

    def __init__(self, stalled: Callable[[float], bool] = lambda _now: False) -> None:
        self.generator: Generator | None = None
        self.tally: Tally | None = None
        self.chunks: list[tuple[float, Chunk]] = []
        self._stalled = stalled

    @property
    def room(self) -> int:
        assert self.generator is not None
        return 0 if self._stalled(self.generator.now) else CHUNK_EVENTS

    def offer(self, chunk: Chunk) -> None:
        assert self.generator is not None
        assert self.tally is not None
        now = self.generator.now
        self.chunks.append((now, chunk))
        self.tally.answer(chunk.first, chunk.count, now, duplicate=0, rejected={})
        keys = [f"k{number}" for number in range(chunk.first, chunk.first + chunk.count)]
        self.tally.show("wechat", keys, [self.tally.epoch + now] * chunk.count)

    async def run(self) -> None:
        await trio.sleep_forever()


def generator_of(times: Sequence[float], target: Target) -> tuple[Generator, Tally]:
    tally = Tally()
    tally.epoch = 1_000_000.0
    generator = Generator(Arrivals(iter(times)), Numbers(), [target], tally)
    target.generator, target.tally = generator, tally
    return generator, tally


class SlowTarget(Target):
    """A target that takes ``share`` of ``rate(now)`` events a second, half a second's worth ahead at most."""

    def __init__(self, rate: Callable[[float], float], share: float) -> None:
        super().__init__()
        self._rate, self._share = rate, share
        self._busy_until = 0.0

    @property
    def room(self) -> int:
        assert self.generator is not None
        now = self.generator.now
        ahead = max(self._busy_until - now, 0.0)
        return int((0.5 - ahead) * self._rate(now) * self._share) if ahead < 0.5 else 0

    def offer(self, chunk: Chunk) -> None:
        assert self.generator is not None
        now = self.generator.now
        self._busy_until = max(self._busy_until, now) + chunk.count / (self._rate(now) * self._share)
        super().offer(chunk)


def chunk_numbers(chunk: Chunk) -> list[int]:
    return list(range(chunk.first, chunk.first + chunk.count))
