"""A whole run against a target of the test's own."""

from __future__ import annotations

import pytest
import trio

from loadtest.load import http_sender
from loadtest.load.plan import Load, Plan, Target, plan_rate
from loadtest.load.run import Seen, perform
from tests.loadtest.test_load_senders import answer, listening

SEED = 1
EVENTS = 20
SCHEDULE_S = 0.1
CONNECTIONS = 40
NOTHING_LEFT_S = 0.4
"""After the last arrival has come the run looks in vain for more to hand out, twice."""


class OutOfBreath:
    """Refuses so many events once they are all there, all at one moment, and takes everything after them."""

    def __init__(self, events: int) -> None:
        self.refused = self.taken = 0
        self._missing = events
        self._all_there = trio.Event()

    async def __call__(self, stream: trio.SocketStream) -> None:
        data = b""
        while more := await stream.receive_some():
            data += more
            head, separator, body = data.partition(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0] or 0)
            if separator and len(body) == length:
                data = b""
                await stream.send_all(await self._answer(body.count(b"\n")))

    async def _answer(self, events: int) -> bytes:
        if not events:
            return answer("400 Bad Request")
        if self._missing > 0:
            self._missing -= events
            if self._missing <= 0:
                self._all_there.set()
            await self._all_there.wait()
            await trio.sleep(NOTHING_LEFT_S)
            self.refused += events
            return answer("429 Too Many Requests", b"{}", b"Retry-After: 0")
        self.taken += events
        return answer("202 Accepted", b'{"accepted":%d}' % events)


async def test_what_is_refused_when_nothing_is_left_to_hand_out_is_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    # Given senders that give back what they cannot get rid of, and a target that refuses all of it when the last
    # arrival is on its way
    monkeypatch.setattr(http_sender, "FRESH_S", 0.0)
    load = plan_rate(str(EVENTS / SCHEDULE_S), SCHEDULE_S)
    target = OutOfBreath(len(list(load.times(SEED))))
    async with listening(target) as port:
        # When it is loaded
        seen = await run_against(port, load)
    # Then everything is sent in the end, and nobody gave up
    assert target.refused == len(seen.tally.scheduled) > 0
    assert (seen.tally.waiting, seen.tally.unanswered, seen.settled) == (0, 0, True)
    assert seen.tally.accepted == target.taken == target.refused


async def run_against(port: int, load: Load) -> Seen:
    plan = Plan(
        load=load,
        seed=SEED,
        accounts=10,
        assertions=[],
        scenario={},
        settle_s=60.0,
        target=Target(f"http://127.0.0.1:{port}", stream=False),
        connections=CONNECTIONS,
    )
    with trio.fail_after(90):
        return await perform(plan)
