"""A whole run against a target of the test's own."""

from __future__ import annotations

import pytest
import trio

from loadtest.load import http_sender
from loadtest.load.plan import Plan, Target, plan_rate
from loadtest.load.run import Seen, perform
from tests.loadtest.test_load_senders import answer, listening

EVENTS = 20
CONNECTIONS = 40
BUSY_S = 0.5


class OutOfBreath:
    """Refuses for a while from the first body on, all at one moment, and takes everything after it."""

    def __init__(self) -> None:
        self.refused = self.taken = 0
        self._well_at = 0.0

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
        self._well_at = self._well_at or trio.current_time() + BUSY_S
        if trio.current_time() < self._well_at:
            await trio.sleep_until(self._well_at)
            self.refused += events
            return answer("429 Too Many Requests", b"{}", b"Retry-After: 0")
        self.taken += events
        return answer("202 Accepted", b'{"accepted":%d}' % events)


async def test_what_is_refused_when_nothing_is_left_to_hand_out_is_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    # Given senders that give back what they cannot get rid of, and a target that refuses all of it when the last
    # arrival is on its way
    monkeypatch.setattr(http_sender, "FRESH_S", 0.0)
    target = OutOfBreath()
    async with listening(target) as port:
        # When it is loaded
        seen = await run_against(port)
    # Then everything is sent in the end, and nobody gave up
    assert target.refused == len(seen.tally.scheduled) > 0
    assert (seen.tally.waiting, seen.tally.unanswered, seen.settled) == (0, 0, True)
    assert seen.tally.accepted == target.taken == target.refused


async def run_against(port: int) -> Seen:
    plan = Plan(
        load=plan_rate(str(EVENTS / (BUSY_S / 5)), BUSY_S / 5),
        seed=1,
        accounts=10,
        assertions=[],
        scenario={},
        settle_s=20.0,
        target=Target(f"http://127.0.0.1:{port}", stream=False),
        connections=CONNECTIONS,
    )
    with trio.fail_after(30):
        return await perform(plan)
