"""The supervisor with workers that are played by the test, under a virtual clock."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from dispatcher.errors import ConfigurationError, LedgerFailed, LedgerUnavailable, SwipebellError, known_error
from dispatcher.fleet.frames import Ask, Failed, FramesBroken, FromWorker, Ready, Report, Stop, ToWorker
from dispatcher.fleet.supervisor import ENDING_S, MAX_SHORT_LIVES, SETTLED_S, Fleet, restart_pause_s
from dispatcher.metrics import Meter

STOP_S = 40.0


class Played:
    """A worker whose words and end are the test's."""

    def __init__(self, index: int) -> None:
        self.index = index
        self.told: list[ToWorker] = []
        self.killed = False
        self.obeys = True
        self.answers: Report | None = None
        self.started_at = trio.current_time()
        self._words, self._hears = trio.open_memory_channel[FromWorker | Exception](math.inf)
        self._status: int | None = None
        self._gone = trio.Event()

    def say(self, frame: FromWorker | Exception) -> None:
        self._words.send_nowait(frame)

    def close(self) -> None:
        """Its end of the socket is closed."""
        self._words.close()

    def die(self, status: int) -> None:
        self.close()
        self._status = status
        self._gone.set()

    async def send(self, frame: ToWorker) -> bool:
        await trio.lowlevel.checkpoint()
        if self._gone.is_set():
            return False
        self.told.append(frame)
        if isinstance(frame, Stop) and self.obeys:
            self.die(0)
        if isinstance(frame, Ask) and self.answers is not None:
            self.say(self.answers)
            await wait_all_tasks_blocked()  # the answer is heard before this returns
        return True

    async def receive(self) -> FromWorker | None:
        try:
            frame = await self._hears.receive()
        except trio.EndOfChannel:
            return None
        if isinstance(frame, Exception):
            raise frame
        return frame

    async def wait(self) -> int:
        await self._gone.wait()
        assert self._status is not None
        return self._status

    def kill(self) -> None:
        self.killed = True
        if not self._gone.is_set():
            self.die(-9)

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


class Stage:
    """A fleet of played workers, in the order in which they were started."""

    def __init__(self, processes: int = 2, *, fail_fast: bool = False, attend: Any = None) -> None:
        self.started: list[Played] = []
        self.fleet = Fleet(self._launch, processes, fail_fast=fail_fast, stop_seconds=STOP_S, attend=attend)
        self.cannot_start = 0
        self._start = trio.Event()

    async def _launch(self, index: int) -> Played:
        await trio.lowlevel.checkpoint()
        if self.cannot_start:
            self.cannot_start -= 1
            raise OSError(24, "Too many open files")
        self.started.append(Played(index))
        self._start.set()
        return self.started[-1]

    async def next_start(self) -> None:
        """Wait until one more is started."""
        self._start = trio.Event()
        await self._start.wait()

    def of(self, index: int) -> Played:
        """The worker that holds this place now."""
        return [one for one in self.started if one.index == index][-1]

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Fleet]:
        async with self.fleet.running():
            await wait_all_tasks_blocked()
            for one in self.started:
                one.say(Ready())
            yield self.fleet


def counted(read: int) -> Report:
    meter = Meter()
    meter.read(read)
    meter.lanes({"wechat": (read, 0)}, 0)
    return Report(meter.totals)


def test_the_pause_before_a_restart_doubles_up_to_ten_seconds() -> None:
    assert [restart_pause_s(n) for n in range(1, 9)] == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0]
    assert restart_pause_s(0) == 0.1
    assert restart_pause_s(10_000) == 10.0


async def test_a_dead_worker_is_started_again_ever_later_until_one_has_lived_a_while(autojump_clock: MockClock) -> None:
    # Given two workers
    stage = Stage()
    async with stage.running() as fleet:
        await fleet.all_ready()
        # When the second dies again and again, each time right after its start
        gaps = []
        for _ in range(9):
            died_at = trio.current_time()
            stage.of(1).die(-9)
            await stage.next_start()
            gaps.append(stage.of(1).started_at - died_at)
            stage.of(1).say(Ready())
        # Then the pauses grow to their bound
        assert gaps == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10, 10])
        assert fleet.deaths == 9
        # And when one has lived long enough, the next death counts as the first
        await trio.sleep(SETTLED_S)
        died_at = trio.current_time()
        stage.of(1).die(1)
        await stage.next_start()
        assert stage.of(1).started_at - died_at == pytest.approx(0.1)
        # And the first has never been touched
        assert len([one for one in stage.started if one.index == 0]) == 1


async def test_a_worker_that_cannot_be_started_is_tried_again(autojump_clock: MockClock) -> None:
    stage = Stage()
    async with stage.running() as fleet:
        await fleet.all_ready()
        # Given no descriptor is left when a worker has died
        stage.cannot_start = 5
        stage.of(0).die(1)
        await trio.sleep(20)
        # Then it is started once there is
        assert len(stage.started) == 3


async def test_the_totals_never_go_down_when_a_worker_dies(autojump_clock: MockClock) -> None:
    # Given two workers that have counted
    stage = Stage()
    async with stage.running() as fleet:
        stage.of(0).say(counted(100))
        stage.of(1).say(counted(50))
        await wait_all_tasks_blocked()
        assert fleet.totals().events["read"] == 150
        # When one dies, then what it had told stays, and its lane is gone
        stage.of(1).die(-9)
        await wait_all_tasks_blocked()
        assert fleet.totals().events["read"] == 150
        assert fleet.totals().lanes == {"wechat": (100, 0)}
        # And the counts of the one that replaces it come on top, however often it reports
        await trio.sleep(1)
        stage.of(1).say(Ready())
        for read in (1, 2, 7):
            stage.of(1).say(counted(read))
            await wait_all_tasks_blocked()
            assert fleet.totals().events["read"] == 150 + read
    # And the last report of a worker that was told to stop is taken too
    assert fleet.totals().events["read"] == 157
    assert fleet.totals().lanes == {"wechat": (0, 0)}


async def test_refresh_waits_for_what_the_living_say_now(autojump_clock: MockClock) -> None:
    stage = Stage(3)
    async with stage.running() as fleet:
        await fleet.all_ready()
        # Given one worker that answers, one that is deaf for the moment, and one that dies when asked
        stage.of(0).answers = counted(5)
        stage.of(1).say(counted(2))
        stage.of(2).die(-9)
        before = trio.current_time()
        await fleet.refresh()
        # Then the new word of the first is there, and the last one of the second, after a bounded wait
        assert fleet.totals().events["read"] == 7
        assert 1 <= trio.current_time() - before <= 3
        # And without a deaf one it takes no time
        stage.of(1).answers = counted(3)
        before = trio.current_time()
        await fleet.refresh()
        assert fleet.totals().events["read"] == 8
        assert trio.current_time() == before


async def test_health_says_which_process_is_in_trouble(autojump_clock: MockClock) -> None:
    stage = Stage()
    async with stage.fleet.running() as fleet:
        # Given no worker is ready yet
        await wait_all_tasks_blocked()
        assert fleet.trouble == "no process is ready; the log says why"
        # When one is, then the fleet works
        stage.of(0).say(Ready())
        await wait_all_tasks_blocked()
        assert (fleet.trouble, fleet.ready) == (None, 1)
        # And one that cannot write is named
        stage.of(1).say(Ready())
        stage.of(1).say(Report(Meter().totals, "ledger: the disk is full"))
        await wait_all_tasks_blocked()
        assert fleet.trouble == "process 2: ledger: the disk is full"
        stage.of(1).say(Report(Meter().totals, None))
        await wait_all_tasks_blocked()
        assert fleet.trouble is None
        # And its trouble dies with it
        stage.of(1).say(Report(Meter().totals, "ledger: the disk is full"))
        stage.of(1).die(1)
        await wait_all_tasks_blocked()
        assert (fleet.trouble, fleet.ready) == (None, 1)


async def test_stopping_tells_all_and_waits_for_their_last_words(autojump_clock: MockClock) -> None:
    stage = Stage()
    slow: Played
    async with trio.open_nursery() as nursery:
        async with stage.running() as fleet:
            await fleet.all_ready()
            # Given one worker that takes ten seconds for its drain
            slow = stage.of(1)
            slow.obeys = False

            async def drain() -> None:
                await trio.sleep(10)
                slow.say(counted(70))
                slow.die(0)

            nursery.start_soon(drain)
        # When the fleet is left, then it waited for both, and has heard what the drain brought
        assert trio.current_time() == pytest.approx(10, abs=1)
    assert [type(frame) for frame in slow.told] == [Stop]
    assert not slow.killed
    assert fleet.totals().events["read"] == 70
    assert fleet.deaths == 0
    assert len(stage.started) == 2


@pytest.mark.parametrize("second_signal", [False, True])
async def test_a_worker_that_does_not_stop_is_killed(autojump_clock: MockClock, second_signal: bool) -> None:
    stage = Stage()
    async with trio.open_nursery() as nursery, stage.running() as fleet:
        await fleet.all_ready()
        stage.of(0).obeys = False
        if second_signal:

            async def impatient() -> None:
                await trio.sleep(3)
                fleet.kill()

            nursery.start_soon(impatient)
    # Then it is killed when its time is over, or at once when the operator insists; the other is not
    assert trio.current_time() == pytest.approx(3 if second_signal else STOP_S, abs=0.5)
    assert (stage.of(0).killed, stage.of(1).killed) == (True, False)


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("LedgerFailed", LedgerFailed),
        ("ConfigurationError", ConfigurationError),
        ("ChannelMisconfigured", ConfigurationError),
    ],
)
async def test_one_that_cannot_keep_its_promise_ends_all(
    autojump_clock: MockClock, kind: str, error: type[SwipebellError]
) -> None:
    # Given two workers, one of which ends by an error that the next would meet too
    stage = Stage()
    with pytest.raises(BaseExceptionGroup) as ended:
        async with stage.running() as fleet:
            await fleet.all_ready()
            stage.of(1).say(Failed(kind, "ledger x: the disk failed"))
            stage.of(1).die(1)
            await trio.sleep_forever()
    # Then the fleet ends with the same words, after the other was told to stop
    known = known_error(ended.value)
    assert type(known) is error
    assert str(known) == "ledger x: the disk failed"
    assert [type(frame) for frame in stage.of(0).told] == [Stop]
    assert len(stage.started) == 2


async def test_a_lost_lease_is_no_reason_to_end_all(autojump_clock: MockClock) -> None:
    stage = Stage(fail_fast=True)
    async with stage.running() as fleet:
        await fleet.all_ready()
        stage.of(1).say(Failed("LeaseLost", "another process took over"))
        stage.of(1).die(1)
        await trio.sleep(1)
        assert len(stage.started) == 3


@pytest.mark.parametrize("fail_fast", [True, False])
async def test_a_ledger_that_cannot_write_ends_a_send_and_not_a_service(
    autojump_clock: MockClock, fail_fast: bool
) -> None:
    # Given a fleet that worked
    stage = Stage(fail_fast=fail_fast)
    known = None
    try:
        async with stage.running() as fleet:
            await fleet.all_ready()
            # When a worker ends because the ledger cannot write
            stage.of(1).say(Failed("LedgerUnavailable", "the disk is full"))
            stage.of(1).die(1)
            await trio.sleep(1)
    except BaseExceptionGroup as group:
        known = known_error(group)
    # Then `send` says so and ends, and `run` starts it again
    if fail_fast:
        assert isinstance(known, LedgerUnavailable)
        assert len(stage.started) == 2
    else:
        assert known is None
        assert len(stage.started) == 3


@pytest.mark.parametrize("words", [None, Failed("LedgerUnavailable", "the folder does not exist")])
async def test_workers_that_never_become_ready_end_the_start(autojump_clock: MockClock, words: Failed | None) -> None:
    # Given workers that die before any is ready
    stage = Stage()

    async def doom() -> None:
        seen = 0
        while True:
            await trio.sleep(0.01)
            for one in stage.started[seen:]:
                if words is not None:
                    one.say(words)
                one.die(1)
            seen = len(stage.started)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(doom)
        with pytest.raises(BaseExceptionGroup) as ended:
            async with stage.fleet.running() as fleet:
                await fleet.all_ready()
        nursery.cancel_scope.cancel()
    # Then the operator gets an answer instead of an endless start: at once where the reason is known
    known = known_error(ended.value)
    if words is None:
        assert str(known).endswith("ended 3 times before it was ready: the log says why")
        assert len(stage.started) == 6
    else:
        assert str(known) == "the folder does not exist"
        assert len(stage.started) == 2


@pytest.mark.parametrize("fail_fast", [True, False])
async def test_workers_that_die_one_after_the_other_end_a_send_and_not_a_service(
    autojump_clock: MockClock, fail_fast: bool
) -> None:
    # Given a line that kills whoever takes it
    stage = Stage(fail_fast=fail_fast)
    known = None
    try:
        async with stage.running() as fleet:
            await fleet.all_ready()
            for _ in range(MAX_SHORT_LIVES + 2):
                stage.of(0).die(-11)
                await stage.next_start()
                stage.of(0).say(Ready())
    except BaseExceptionGroup as group:
        known = known_error(group)
    if fail_fast:
        assert str(known) == f"process 1 ended {MAX_SHORT_LIVES} times in a row: the log says why"
    else:
        assert known is None
        assert fleet.deaths == MAX_SHORT_LIVES + 2


@pytest.mark.parametrize("why", ["hangs in its exit", "speaks another language"])
async def test_a_worker_that_only_looks_alive_is_killed_and_replaced(autojump_clock: MockClock, why: str) -> None:
    stage = Stage()
    async with stage.running() as fleet:
        await fleet.all_ready()
        one = stage.of(0)
        if why == "hangs in its exit":
            one.close()
        else:
            one.say(FramesBroken("a frame cannot be read"))
        await trio.sleep(ENDING_S + 1)
        assert one.killed
        assert len(stage.started) == 3


async def test_what_attends_a_worker_starts_when_it_is_ready_and_may_outlive_it(autojump_clock: MockClock) -> None:
    # Given something that takes the last acknowledgements after a worker's death
    seen: list[str] = []

    async def attend(worker: Played) -> None:
        seen.append(f"{worker.index} begins")
        await worker.wait()
        await trio.sleep(0.05)
        seen.append(f"{worker.index} has all")

    stage = Stage(1, attend=attend)
    async with stage.fleet.running():
        await wait_all_tasks_blocked()
        assert seen == []
        stage.of(0).say(Ready())
        await wait_all_tasks_blocked()
        stage.of(0).die(-9)
        await trio.sleep(1)
        # Then it was let finish before the next worker came
        assert seen == ["0 begins", "0 has all"]
        assert stage.of(0).started_at >= 0.15
        stage.of(0).say(Ready())
        await wait_all_tasks_blocked()
    assert seen == ["0 begins", "0 has all", "0 begins", "0 has all"]


async def test_what_fails_beside_a_worker_ends_the_fleet_in_good_order(autojump_clock: MockClock) -> None:
    # Given something beside a worker that fails (the file of rejected lines cannot be written, say)
    async def attend(worker: Played) -> None:
        if worker.index == 0:
            raise SwipebellError("no room")
        await worker.wait()

    stage = Stage(attend=attend)
    with pytest.raises(BaseExceptionGroup) as ended:
        async with stage.running():
            await trio.sleep_forever()
    # Then all end; the one beside which it happened is waited for, and killed if it does not go
    assert str(known_error(ended.value)) == "no room"
    assert [type(frame) for frame in stage.of(1).told] == [Stop]
    assert stage.of(0).killed
