"""The two ways to send: what is acknowledged, refused, pushed back, and sent again after a break."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from dispatcher.errors import ConfigurationError, SwipebellError
from dispatcher.model.private import Secret
from loadtest.load import http_sender, stream_sender
from loadtest.load.http_sender import HttpSender, check_http
from loadtest.load.lines import Chunk
from loadtest.load.stream_sender import StreamSender, check_stream
from loadtest.load.tally import Tally
from loadtest.load.window import LEAST
from tests.loadtest.load_kit import Numbers

Handler = Callable[[trio.SocketStream], Awaitable[None]]
TOKEN = Secret("t-o-k")


@asynccontextmanager
async def listening(handler: Handler) -> AsyncIterator[int]:
    """A peer on a free port that treats each connection as ``handler`` says."""
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, handler, listeners)
        yield listeners[0].socket.getsockname()[1]
        nursery.cancel_scope.cancel()


def tally_of(count: int) -> Tally:
    tally = Tally()
    tally.arrive([0.0] * count)
    tally.build([f"k{number}" for number in range(count)])
    return tally


def chunk(first: int, count: int) -> Chunk:
    return Chunk(first, count, Numbers().build(first, [0.0] * count, 0.0)[0])


async def until(condition: Callable[[], bool]) -> None:
    with trio.fail_after(60):
        while not condition():  # noqa: ASYNC110 - what is waited for happens in another task's sockets
            await trio.sleep(0.005)


def ack(line: int, accepted: int, duplicate: int = 0, rejected: list[dict[str, Any]] | None = None) -> bytes:
    answer = {"ack": line, "accepted": accepted, "duplicate": duplicate, "rejected": rejected or []}
    return json.dumps(answer).encode() + b"\n"


async def lines_of(stream: trio.SocketStream, count: int) -> list[bytes]:
    """Read until there are so many lines."""
    data = b""
    while data.count(b"\n") < count:
        more = await stream.receive_some()
        assert more, "the sender closed"
        data += more
    return data.splitlines()


class TestStream:
    async def test_acknowledgements_may_cut_through_chunks_and_name_refused_lines(self) -> None:
        async def peer(stream: trio.SocketStream) -> None:
            await lines_of(stream, 10)
            await stream.send_all(ack(3, 3))
            await stream.send_all(ack(8, 3, 1, [{"line": 6, "id": None, "error": "field amount: missing"}])[:20])
            await stream.send_all(ack(8, 3, 1, [{"line": 6, "id": None, "error": "field amount: missing"}])[20:])

        tally = tally_of(10)
        async with listening(peer) as port, trio.open_nursery() as nursery:
            sender = StreamSender("127.0.0.1", port, None, tally, lambda: 1.0)
            nursery.start_soon(sender.run)
            await until(lambda: sender.room > 0)
            sender.offer(chunk(0, 5))
            sender.offer(chunk(5, 5))
            await until(lambda: tally.answered == 8)
            nursery.cancel_scope.cancel()
        # Line 6 of the connection is event number 5
        assert (tally.accepted, tally.duplicate, tally.rejected) == (6, 1, 1)
        assert list(tally.acked) == [1, 1, 1, 1, 1, 0, 1, 1, 0, 0]
        assert tally.rejections == ["event 6: field amount: missing"]
        assert tally.acknowledged.at(100) == pytest.approx(1000, rel=0.01)

    async def test_after_a_break_it_goes_on_behind_the_last_acknowledged_line(self) -> None:
        received: list[list[bytes]] = []

        async def peer(stream: trio.SocketStream) -> None:
            if not received:
                received.append(await lines_of(stream, 6))
                await stream.send_all(ack(2, 2))
                await stream.aclose()
                return
            # The four others; two of them had been accepted, and their acknowledgement was lost
            received.append(await lines_of(stream, 4))
            await stream.send_all(ack(4, 2, 2))
            await trio.sleep_forever()

        tally = tally_of(6)
        async with listening(peer) as port, trio.open_nursery() as nursery:
            sender = StreamSender("127.0.0.1", port, None, tally, lambda: 1.0)
            nursery.start_soon(sender.run)
            await until(lambda: sender.room > 0)
            sender.offer(chunk(0, 6))
            await until(lambda: tally.answered == 6)
            nursery.cancel_scope.cancel()
        assert received == [[b"0", b"1", b"2", b"3", b"4", b"5"], [b"2", b"3", b"4", b"5"]]
        # What was sent again and recognised is accepted, not a duplicate
        assert (tally.accepted, tally.duplicate, sender.reconnected) == (6, 0, 1)

    async def test_a_peer_that_resets_the_connection_is_just_another_break(self) -> None:
        breaks = 0

        async def peer(stream: trio.SocketStream) -> None:
            nonlocal breaks
            breaks += 1
            if breaks < 3:
                stream.setsockopt(1, 13, b"\x01\0\0\0\0\0\0\0")  # SO_LINGER: closing sends a reset
                await stream.receive_some()
                await stream.aclose()
                return
            await lines_of(stream, 1)
            await stream.send_all(ack(1, 1))
            await trio.sleep_forever()

        tally = tally_of(1)
        async with listening(peer) as port, trio.open_nursery() as nursery:
            sender = StreamSender("127.0.0.1", port, None, tally, lambda: 1.0)
            nursery.start_soon(sender.run)
            await until(lambda: sender.room > 0)
            sender.offer(chunk(0, 1))
            await until(lambda: tally.accepted == 1)
            nursery.cancel_scope.cancel()
        assert breaks == 3

    async def test_a_peer_that_acknowledges_nothing_gets_no_more_than_the_window(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(stream_sender, "WINDOW_EVENTS", 10)

        async def peer(_stream: trio.SocketStream) -> None:
            await trio.sleep_forever()

        async with listening(peer) as port, trio.open_nursery() as nursery:
            sender = StreamSender("127.0.0.1", port, None, tally_of(20), lambda: 1.0)
            assert not sender.room
            nursery.start_soon(sender.run)
            await until(lambda: sender.room > 0)
            sender.offer(chunk(0, 9))
            assert sender.room
            sender.offer(chunk(9, 1))
            assert not sender.room
            nursery.cancel_scope.cancel()

    async def test_a_large_chunk_leaves_while_a_slow_reader_reads(self) -> None:
        async def peer(stream: trio.SocketStream) -> None:
            await trio.sleep(0.05)
            await lines_of(stream, 200_000)
            await stream.send_all(ack(200_000, 200_000))

        tally = tally_of(200_000)
        async with listening(peer) as port, trio.open_nursery() as nursery:
            sender = StreamSender("127.0.0.1", port, None, tally, lambda: 1.0)
            nursery.start_soon(sender.run)
            await until(lambda: sender.room > 0)
            body = b"x" * 60 + b"\n"
            sender.offer(Chunk(0, 200_000, body * 200_000))
            assert not sender.room
            await until(lambda: tally.accepted == 200_000)
            nursery.cancel_scope.cancel()

    async def test_the_token_is_the_first_line_and_is_not_counted(self) -> None:
        first: list[bytes] = []

        async def peer(stream: trio.SocketStream) -> None:
            first.extend(await lines_of(stream, 2))
            await stream.send_all(ack(1, 1))
            await trio.sleep_forever()

        tally = tally_of(1)
        async with listening(peer) as port, trio.open_nursery() as nursery:
            sender = StreamSender("127.0.0.1", port, TOKEN, tally, lambda: 1.0)
            nursery.start_soon(sender.run)
            await until(lambda: sender._socket is not None)
            sender.offer(chunk(0, 1))
            await until(lambda: tally.accepted == 1)
            nursery.cancel_scope.cancel()
        assert first == [b'{"token":"t-o-k"}', b"0"]

    @pytest.mark.parametrize(
        ("said", "error", "words"),
        [
            (b'{"error":"the first line is not the token","ack":0}\n', ConfigurationError, "--token-file"),
            (b"HTTP/1.1 400 Bad Request\r\n\r\n", SwipebellError, "not as Swipebell's stream intake"),
            (b"", SwipebellError, "not as Swipebell's stream intake"),
        ],
    )
    async def test_who_is_not_our_intake_is_told_apart_before_the_run(
        self, said: bytes, error: type[SwipebellError], words: str
    ) -> None:
        async def peer(stream: trio.SocketStream) -> None:
            await stream.receive_some()
            if said:
                await stream.send_all(said)
            await stream.aclose()

        async with listening(peer) as port:
            with pytest.raises(error, match=words):
                await check_stream("127.0.0.1", port, None)

    async def test_nobody_there_is_one_line(self) -> None:
        with pytest.raises(SwipebellError, match=r"tcp://127.0.0.1:1: cannot be reached \(connection refused\)"):
            await check_stream("127.0.0.1", 1, None)


def http_peer(*answers: bytes, requests: list[bytes]) -> Handler:
    """Answers each request with the next of ``answers``; an empty one closes the connection instead."""
    left = list(answers)

    async def peer(stream: trio.SocketStream) -> None:
        data = b""
        while True:
            more = await stream.receive_some()
            if not more:
                return
            data += more
            head, separator, body = data.partition(b"\r\n\r\n")
            length = next(
                (int(line[15:]) for line in head.lower().split(b"\r\n") if line[:15] == b"content-length:"), 0
            )
            if not separator or len(body) < length:
                continue
            requests.append(data)
            data = b""
            answer = left.pop(0)
            if not answer:
                await stream.aclose()
                return
            await stream.send_all(answer)

    return peer


def answer(status: str, body: bytes = b"{}", *headers: bytes) -> bytes:
    fields = b"".join(header + b"\r\n" for header in headers)
    return b"HTTP/1.1 %b\r\n%bContent-Length: %d\r\n\r\n%b" % (status.encode(), fields, len(body), body)


class TestHttp:
    async def test_a_429_is_push_back_and_the_whole_body_is_sent_again(self) -> None:
        requests: list[bytes] = []
        peer = http_peer(
            answer("429 Too Many Requests", b"{}", b"Retry-After: 0"),
            b"",
            answer("202 Accepted", b'{"accepted":1,"duplicate":1,"rejected":[{"line":3,"id":null,"error":"bad"}]}'),
            requests=requests,
        )
        tally = tally_of(3)
        async with listening(peer) as port, trio.open_nursery() as nursery:
            sender = HttpSender(f"http://127.0.0.1:{port}", TOKEN, tally, lambda: 2.0)
            nursery.start_soon(sender.run)
            await until(lambda: sender.room > 0)
            sender.offer(chunk(0, 3))
            assert not sender.room
            await until(lambda: sender.room > 0)
            nursery.cancel_scope.cancel()
        assert [one.partition(b"\r\n\r\n")[2] for one in requests] == [b"0\n1\n2\n"] * 3
        assert all(b"Bearer t-o-k" in one for one in requests)
        assert tally.pushed_back == 3
        assert (tally.accepted, tally.duplicate, tally.rejected, sender.reconnected) == (2, 0, 1, 1)

    async def test_a_body_that_is_refused_is_counted_as_rejected_and_not_sent_for_ever(self) -> None:
        requests: list[bytes] = []
        refusal = answer("403 Forbidden", b'{"error":"this client may not"}')
        accepted = answer("202 Accepted", b'{"accepted":2}')
        peer = http_peer(*[refusal] * http_sender.REFUSED_TRIES, accepted, requests=requests)
        tally = tally_of(5)
        async with listening(peer) as port, trio.open_nursery() as nursery:
            sender = HttpSender(f"http://127.0.0.1:{port}", None, tally, lambda: 2.0)
            nursery.start_soon(sender.run)
            await until(lambda: sender.room > 0)
            sender.offer(chunk(0, 3))
            await until(lambda: sender.room > 0)
            # Then the next one is sent all the same
            sender.offer(chunk(3, 2))
            await until(lambda: sender.room > 0)
            nursery.cancel_scope.cancel()
        assert len(requests) == http_sender.REFUSED_TRIES + 1
        assert (tally.accepted, tally.rejected, tally.refused_whole, tally.unanswered) == (2, 3, 3, 0)
        assert tally.rejections[0] == "event 1: HTTP 403: this client may not"

    @pytest.mark.parametrize("status", ["408 Request Timeout", "500 Internal Server Error", "503 Service Unavailable"])
    async def test_what_may_go_better_next_time_is_tried_again(self, status: str) -> None:
        again = [answer(status, b"{}", b"Retry-After: 0")] * (http_sender.REFUSED_TRIES + 1)
        peer = http_peer(*again, answer("202 Accepted", b'{"accepted":1}'), requests=[])
        tally = tally_of(1)
        async with listening(peer) as port, trio.open_nursery() as nursery:
            sender = HttpSender(f"http://127.0.0.1:{port}", None, tally, lambda: 2.0)
            nursery.start_soon(sender.run)
            await until(lambda: sender.room > 0)
            sender.offer(chunk(0, 1))
            await until(lambda: tally.answered == 1)
            nursery.cancel_scope.cancel()
        assert (tally.accepted, tally.rejected) == (1, 0)

    async def test_a_chunk_that_meets_429_when_it_is_no_longer_fresh_makes_room_for_newer_ones(self) -> None:
        requests: list[bytes] = []
        busy = answer("429 Too Many Requests", b"{}", b"Retry-After: 0")
        peer = http_peer(busy, busy, answer("202 Accepted", b'{"accepted":1}'), requests=requests)
        tally, kept = tally_of(2), list[Chunk]()
        tally.scheduled[1] = 9.0
        async with listening(peer) as port, trio.open_nursery() as nursery:
            sender = HttpSender(f"http://127.0.0.1:{port}", None, tally, lambda: 10.0, kept.append)
            nursery.start_soon(sender.run)
            await until(lambda: sender.room > 0)
            # Given one that was due ten seconds ago, and one of a second ago
            sender.offer(chunk(0, 1))
            await until(lambda: sender.room > 0)
            sender.offer(chunk(1, 1))
            await until(lambda: tally.accepted == 1)
            nursery.cancel_scope.cancel()
        # Then the first is handed back, marked as sent before, and the second sent until it is taken
        assert [(one.first, one.again) for one in kept] == [(0, True)]
        assert len(requests) == 3
        assert tally.pushed_back == 2

    @pytest.mark.parametrize("status", ["429 Too Many Requests", "503 Service Unavailable", "403 Forbidden"])
    async def test_only_what_was_taken_lets_the_next_bodies_grow(self, status: str) -> None:
        # Given a sender whose answers were slow, and a target that refuses at once
        refusals = [answer(status, b"{}", b"Retry-After: 0")] * http_sender.REFUSED_TRIES
        peer = http_peer(*refusals, answer("202 Accepted", b'{"accepted":2}'), requests=[])
        tally, kept = tally_of(5), list[Chunk]()
        async with listening(peer) as port, trio.open_nursery() as nursery:
            sender = HttpSender(f"http://127.0.0.1:{port}", None, tally, lambda: 10.0, kept.append)
            sender._window.size = LEAST
            nursery.start_soon(sender.run)
            while not tally.rejected and len(kept) < http_sender.REFUSED_TRIES:
                await until(lambda: sender.room > 0)
                # Then it does not send more at a time
                assert sender.room == LEAST
                sender.offer(chunk(0, 3))
                await until(lambda: sender.room > 0)
            # And when one is taken, it does
            assert sender.room == LEAST
            sender.offer(chunk(3, 2))
            await until(lambda: sender.room > 0)
            assert sender.room == LEAST + 2
            nursery.cancel_scope.cancel()

    @pytest.mark.parametrize(
        ("status", "token", "error", "words"),
        [
            ("401 Unauthorized", None, ConfigurationError, "wants a token .401.; name the file"),
            ("401 Unauthorized", TOKEN, ConfigurationError, "does not take this token"),
            ("404 Not Found", None, SwipebellError, "answers 404"),
        ],
    )
    async def test_a_target_that_will_not_have_us_is_one_line_before_the_run(
        self, status: str, token: Secret | None, error: type[SwipebellError], words: str
    ) -> None:
        async with listening(http_peer(answer(status), requests=[])) as port:
            with pytest.raises(error, match=words) as raised:
                await check_http(f"http://127.0.0.1:{port}", token)
        assert raised.value.exit_status == (2 if error is ConfigurationError else 1)

    async def test_an_intake_that_says_that_nothing_was_in_it_will_do(self) -> None:
        async with listening(http_peer(answer("400 Bad Request"), requests=[])) as port:
            await check_http(f"http://127.0.0.1:{port}", None)
