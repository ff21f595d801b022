"""The hot path's HTTP server: answers in order, now or later, and an orderly end."""

from __future__ import annotations

import socket

import pytest
import trio

from dispatcher.httpd import Answer, Deferred, Limits, Request, answer_all, serve_http
from dispatcher.httpd.reader import Reader
from tests.dispatcher.httpd_kit import Desk, get, path_back, post, read_all, read_bodies, serving, talk


async def test_promised_answers_leave_in_the_order_of_pipelined_requests() -> None:
    desk = Desk()
    async with serving(desk) as served, await served.connect() as stream:
        # Given four requests in one write
        await stream.send_all(b"".join(get(f"/{number}") for number in range(4)))
        await desk.has(4)
        # When the later ones are answered first, then nothing leaves before its turn
        desk.give(3, 1)
        await trio.testing.wait_all_tasks_blocked()
        desk.give(0)
        assert await read_bodies(stream, 2) == [b"/0", b"/1"]
        desk.give(2)
        assert await read_bodies(stream, 2) == [b"/2", b"/3"]


async def test_an_answer_at_once_does_not_overtake_a_promised_one() -> None:
    desk = Desk()

    def handler(request: Request) -> Answer | Deferred:
        return desk(request) if request.path == "/later" else path_back(request)

    async with serving(handler) as served, await served.connect() as stream:
        await stream.send_all(get("/now") + get("/later") + get("/after"))
        assert await read_bodies(stream, 1) == [b"/now"]
        desk.give(0)
        assert await read_bodies(stream, 2) == [b"/later", b"/after"]


async def test_one_batch_answers_many_connections() -> None:
    desk = Desk()
    async with serving(desk) as served:
        streams = [await served.connect() for _ in range(20)]
        for number, stream in enumerate(streams):
            await stream.send_all(get(f"/{number}"))
            await desk.has(number + 1)
        desk.give(*reversed(range(20)))
        for number, stream in enumerate(streams):
            assert await read_bodies(stream, 1) == [b"/%d" % number]


async def test_a_promise_may_be_kept_before_the_handler_returns() -> None:
    def handler(_request: Request) -> Deferred:
        deferred = Deferred()
        answer_all([(deferred, Answer(b"early"))])
        return deferred

    async with serving(handler) as served, await served.connect() as stream:
        await stream.send_all(get("/"))
        assert await read_bodies(stream, 1) == [b"early"]


async def test_a_request_is_not_answered_twice() -> None:
    desk = Desk()
    async with serving(desk) as served, await served.connect() as stream:
        await stream.send_all(get("/once"))
        await desk.has(1)
        desk.give(0)
        with pytest.raises(RuntimeError, match="answered twice"):
            desk.give(0)
        assert await read_bodies(stream, 1) == [b"/once"]


async def test_a_client_that_has_gone_costs_the_others_nothing() -> None:
    # Given two clients that are owed an answer, of whom one resets its connection and one closes it
    desk = Desk()
    async with serving(desk) as served, await served.connect() as stays:
        for number, gone in enumerate([await served.connect(), await served.connect()]):
            await gone.send_all(get("/gone"))
            await desk.has(number + 1)
            if number:
                gone.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
            await gone.aclose()
        await stays.send_all(get("/stays"))
        await desk.has(3)
        # When all three are answered in one batch, then the third has its answer
        desk.give(0, 1, 2)
        assert await read_bodies(stays, 1) == [b"/stays"]


async def test_a_client_that_has_said_all_still_gets_its_answers() -> None:
    desk = Desk()
    async with serving(desk) as served, await served.connect() as stream:
        await stream.send_all(get("/1") + get("/2") + b"GET /half")
        await stream.send_eof()
        await desk.has(2)
        desk.give(0)
        await trio.testing.wait_all_tasks_blocked()
        desk.give(1)
        answers = await read_all(stream)
    assert answers.count(b"200 OK") == 2
    assert answers.endswith(b"/2")


async def test_more_is_not_read_from_a_client_than_may_wait() -> None:
    # Given that two requests of a connection may wait
    desk = Desk()
    async with serving(desk, Limits(pipelined=2)) as served, await served.connect() as stream:
        # When five come at once, then the handler has two
        await stream.send_all(b"".join(get(f"/{number}") for number in range(5)))
        await desk.has(2)
        await trio.testing.wait_all_tasks_blocked()
        assert desk.paths == ["/0", "/1"]
        # And each answer lets in another
        desk.give(0)
        assert desk.paths == ["/0", "/1", "/2"]
        desk.give(1, 2)
        desk.give(3, 4)
        assert await read_bodies(stream, 5) == [b"/0", b"/1", b"/2", b"/3", b"/4"]
        # And the connection goes on
        await stream.send_all(get("/5"))
        await desk.has(6)
        desk.give(5)
        assert await read_bodies(stream, 1) == [b"/5"]


async def test_the_answer_to_head_has_no_body_and_the_connection_stays_in_step() -> None:
    async with serving(path_back) as served, await served.connect() as stream:
        await stream.send_all(b"HEAD /head HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = await stream.receive_some()
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
        assert answer.endswith(b"Content-Length: 5\r\n\r\n")
        await stream.send_all(get("/get"))
        assert await read_bodies(stream, 1) == [b"/get"]


@pytest.mark.parametrize(
    "request_bytes", [get("/last", "Connection: close"), b"GET /last HTTP/1.0\r\n\r\n"], ids=["close", "1.0"]
)
async def test_a_client_that_wants_one_answer_gets_one_and_the_end(request_bytes: bytes) -> None:
    desk = Desk()
    async with serving(path_back) as served:
        answer = await talk(served.port, request_bytes + get("/more"))
    assert b"Connection: close\r\n" in answer
    assert answer.endswith(b"\r\n\r\n/last")
    async with serving(desk) as served, await served.connect() as stream:
        await stream.send_all(request_bytes)
        await desk.has(1)
        desk.give(0)
        assert (await read_all(stream)).endswith(b"\r\n\r\n/last")


async def test_further_fields_of_an_answer_are_sent() -> None:
    answer = Answer(b"later", status=503, content_type="text/plain", headers=(("Retry-After", "1"),))
    async with serving(lambda _request: answer) as served:
        text = await talk(served.port, get("/", "Connection: close"))
    head = b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain\r\nRetry-After: 1\r\n"
    assert text == head + b"Connection: close\r\nContent-Length: 5\r\n\r\nlater"


async def test_an_answer_larger_than_the_socket_takes_arrives_whole_and_the_next_after_it() -> None:
    # Given a client that is slow to read eight megabytes
    body = b"x" * 8_000_000
    desk = Desk()
    async with serving(desk) as served, await served.connect() as stream:
        await stream.send_all(get("/big") + get("/small"))
        await desk.has(2)
        answer_all([(desk.promised[0][1], Answer(body))])
        await trio.testing.wait_all_tasks_blocked()
        # When the next answer is given while the first is stuck, then both arrive, in order
        desk.give(1)
        assert await read_bodies(stream, 2) == [body, b"/small"]


async def test_a_client_that_takes_nothing_of_its_answer_is_closed(socket_clock: trio.testing.MockClock) -> None:
    async with serving(lambda _request: Answer(b"x" * 20_000_000)) as served, await served.connect() as stream:
        await stream.send_all(get("/"))
        await trio.sleep(Limits().send_seconds + 1)
        with pytest.raises(trio.BrokenResourceError):
            while True:
                await stream.send_all(get("/"))


async def test_a_body_is_asked_for_when_its_turn_has_come() -> None:
    desk = Desk()
    async with serving(desk) as served, await served.connect() as stream:
        waiting = b"POST /2 HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n"
        await stream.send_all(get("/1") + waiting)
        await desk.has(1)
        desk.give(0)
        first = b"HTTP/1.1 200 OK\r\nContent-Type: application/json; charset=utf-8\r\nContent-Length: 2\r\n\r\n/1"
        assert await stream.receive_some() == first + b"HTTP/1.1 100 Continue\r\n\r\n"
        await stream.send_all(b"abc")
        await desk.has(2)
        assert desk.promised[1][0].body == b"abc"


async def test_a_bug_in_the_handler_is_loud() -> None:
    def handler(_request: Request) -> Answer:
        raise ZeroDivisionError

    with pytest.RaisesGroup(pytest.RaisesGroup(ZeroDivisionError)):
        async with serving(handler) as served:
            await talk(served.port, get("/"))


# ---- the end ------------------------------------------------------------------------------------------------------


async def test_a_stop_answers_what_is_in_work_and_closes_what_is_at_rest() -> None:
    desk = Desk()
    async with serving(desk) as served:
        resting, working, reading = [await served.connect() for _ in range(3)]
        # Given a connection at rest, one that waits for its answer, and one in mid-request
        await resting.send_all(get("/rested"))
        await desk.has(1)
        desk.give(0)
        assert await read_bodies(resting, 1) == [b"/rested"]
        await working.send_all(get("/work"))
        await desk.has(2)
        whole = post(b"body", "/read")
        await reading.send_all(whole[:-1])
        await trio.testing.wait_all_tasks_blocked()
        # When the server is told to stop
        served.stop.set()
        # Then the first is closed, nobody new is let in, and the others have their answers, and know it is the last
        assert await read_all(resting) == b""
        with pytest.raises(OSError, match="all attempts to connect"):
            await served.connect()
        await reading.send_all(whole[-1:])
        await desk.has(3)
        assert not served.ended.is_set()
        desk.give(1, 2)
        for stream, body in ((working, b"/work"), (reading, b"/read")):
            answer = await read_all(stream)
            assert b"Connection: close\r\n" in answer
            assert answer.endswith(b"\r\n\r\n" + body)
        await served.ended.wait()


async def test_a_request_that_came_with_the_stop_is_answered() -> None:
    async with serving(path_back) as served, await served.connect() as old, await served.connect() as new:
        await old.send_all(get("/first"))
        assert await read_bodies(old, 1) == [b"/first"]
        # Given two requests in the sockets that the server has not seen when it is told to stop
        old.socket._sock.send(get("/second"))  # type: ignore[attr-defined]
        new.socket._sock.send(get("/third"))  # type: ignore[attr-defined]
        served.stop.set()
        assert (await read_all(old)).endswith(b"\r\n\r\n/second")
        assert (await read_all(new)).endswith(b"\r\n\r\n/third")
        await served.ended.wait()


async def test_a_stop_waits_five_seconds_and_no_longer(socket_clock: trio.testing.MockClock) -> None:
    desk = Desk()
    async with serving(desk) as served, await served.connect() as stream:
        await stream.send_all(get("/never"))
        await desk.has(1)
        started = trio.current_time()
        served.stop.set()
        await served.ended.wait()
        assert trio.current_time() - started == pytest.approx(5.0)
        assert await read_all(stream) == b""
        desk.give(0)  # whoever comes too late does no harm


async def test_a_cancelled_server_closes_everything_at_once() -> None:
    desk = Desk()
    async with serving(desk) as served:
        stream = await trio.open_tcp_stream("127.0.0.1", served.port)
        await stream.send_all(get("/"))
        await desk.has(1)
    assert await read_all(stream) == b""
    await stream.aclose()


async def test_servers_that_share_a_socket_stop_one_by_one() -> None:
    # Given two servers on one listening socket, as processes of one service have it
    (first,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = first.socket.getsockname()[1]
    second = trio.SocketListener(trio.socket.fromfd(first.socket.fileno(), socket.AF_INET, socket.SOCK_STREAM))
    stop = trio.Event()
    async with trio.open_nursery() as nursery:

        async def serve_first() -> None:
            await serve_http(lambda _request: Answer(b"first"), [first], stop=stop.wait)
            ended.set()

        ended = trio.Event()
        nursery.start_soon(serve_first)
        nursery.start_soon(serve_http, lambda _request: Answer(b"second"), [second])
        bodies = {(await talk(port, get("/", "Connection: close")))[-6:] for _ in range(20)}
        assert bodies <= {b"\nfirst", b"second"}
        # When one of them stops, then the other takes every connection
        stop.set()
        await ended.wait()
        for _ in range(20):
            assert (await talk(port, get("/", "Connection: close"))).endswith(b"second")
        nursery.cancel_scope.cancel()


async def test_host_and_the_fields_that_begin_with_x_are_kept_for_the_handler() -> None:
    reader = Reader(Limits())
    head = b"POST /a HTTP/1.1\r\nHost: h:1\r\nX-TC-Timestamp: 7\r\nx-acs-date: d\r\nUser-Agent: u\r\n"
    assert reader.feed(head + b"Content-Length: 0\r\n\r\nGET / HTTP/1.1\r\nHost: other\r\n\r\n") is None
    (first, _), (second, _) = reader.take()
    wanted = ("host", "x-tc-timestamp", "x-acs-date", "user-agent", "content-length")
    assert [first.field(name) for name in wanted] == ["h:1", "7", "d", "", ""]
    assert [second.field(name) for name in wanted] == ["other", "", "", "", ""]
