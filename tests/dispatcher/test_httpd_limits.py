"""What a client may not do to the HTTP server: smuggle, flood, drip, or stay for ever."""

from __future__ import annotations

import errno
import socket

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.httpd import Limits, server
from dispatcher.httpd.reader import Reader
from tests.dispatcher.httpd_kit import Desk, get, path_back, post, read_all, read_bodies, serving, talk

SMALL = Limits(header_bytes=1000, body_bytes=1000)
HOST = b"POST / HTTP/1.1\r\nHost: x\r\n"
CHUNKED = HOST + b"Transfer-Encoding: chunked\r\n\r\n"


def status_of(answer: bytes) -> bytes:
    return answer.partition(b" ")[2][:3]


# ---- smuggling ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "head",
    [
        HOST + b"Content-Length: 3\r\nTransfer-Encoding: chunked",
        HOST + b"Transfer-Encoding: chunked\r\nContent-Length: 3",
        HOST + b"Content-Length: 3\r\nContent-Length: 4",
        HOST + b"Content-Length: 3\r\nContent-Length: 3",
        HOST + b"Content-Length: 3, 3",
        HOST + b"Content-Length: +3",
        HOST + b"Content-Length: -3",
        HOST + b"Content-Length: 0x3",
        HOST + b"Content-Length: 99999999999999999999999999",
        HOST + b"Content-Length : 3",
        HOST + b"X: a\r\n Content-Length: 3",
        HOST + b"X: a\nContent-Length: 3",
        HOST + b"X: a\rContent-Length: 3",
        HOST + b"X: a\x00b",
        HOST + b"Transfer-Encoding: xchunked",
        HOST + b"Transfer-Encoding: identity",
        HOST + b"Transfer-Encoding: chunked, identity",
        HOST + b"Transfer-Encoding: gzip, chunked",
        HOST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
        HOST + b"Transfer-Encoding: \x0bchunked",
        b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked",
        b"POST / HTTP/1.1\r\nContent-Length: 0",
        b"POST / HTTP/1.1\r\nHost: x\r\nHost: y\r\nContent-Length: 0",
        b"GET /\r\n",
        b"GET / HTTP/1.9\r\nHost: x",
        b"PRI * HTTP/2.0\r\n\r\nSM",
    ],
)
async def test_a_request_that_two_servers_could_read_differently_is_refused(head: bytes) -> None:
    # Given a request with a doubtful end, followed by what might be its body or another request
    desk = Desk()
    async with serving(desk) as served:
        for rest in (b"\r\n\r\n0\r\n\r\n" + get("/smuggled"), b"\r\n\r\nabc" + get("/smuggled")):
            answer = await talk(served.port, head + rest)
            # Then it is refused, once, and neither the request nor what follows it reaches the handler
            assert status_of(answer) in (b"400", b"501", b"505")
            assert answer.count(b"HTTP/1.1") == 1
            assert b"Connection: close\r\n" in answer
        assert desk.paths == []


@pytest.mark.parametrize("chunks", [b"3\r\nabcXX0\r\n\r\n", b"-1\r\n", b"fffffffffffffffff\r\n", b"3;a\nb\r\nabc\r\n"])
async def test_chunks_that_are_not_framed_are_refused(chunks: bytes) -> None:
    desk = Desk()
    async with serving(desk) as served:
        assert status_of(await talk(served.port, CHUNKED + chunks)) == b"400"
        assert desk.paths == []


async def test_a_good_request_before_a_bad_one_is_answered_first() -> None:
    desk = Desk()
    async with serving(desk) as served, await served.connect() as stream:
        await stream.send_all(get("/good") + b"garbage\r\n\r\n")
        await desk.has(1)
        desk.give(0)
        answers = await read_all(stream)
    assert [answers.count(b" 200 OK"), answers.count(b" 400 Bad Request")] == [1, 1]
    assert answers.index(b"/good") < answers.index(b" 400 Bad Request")


async def test_a_trailer_is_no_header() -> None:
    desk = Desk()
    async with serving(desk) as served, await served.connect() as stream:
        trailer = b"3\r\nabc\r\n0\r\nAuthorization: Bearer stolen\r\nHost: other\r\n\r\n"
        await stream.send_all(CHUNKED + trailer + get("/next"))
        await desk.has(2)
    assert (desk.promised[0][0].body, desk.promised[0][0].authorization) == (b"abc", "")
    assert desk.paths == ["/", "/next"]


REQUESTS = [
    post(b"first body", "/1?a=b"),
    get("/2", "Authorization: Bearer x", "X-Long: " + "y" * 200),
    CHUNKED + b"5\r\nhello\r\n1;x=y\r\n!\r\n0\r\nX: y\r\n\r\n",
    b"\r\n\r\n" + get("/4"),
]


@given(st.lists(st.sampled_from(REQUESTS), min_size=1, max_size=4), st.lists(st.integers(1, 90), min_size=1))
def test_requests_do_not_depend_on_how_they_are_cut(requests: list[bytes], cuts: list[int]) -> None:
    def taken(*parts: bytes) -> list[tuple[str, str, str, bytes, str, bool]]:
        reader = Reader(Limits())
        for part in parts:
            assert reader.feed(part) is None
        assert not reader.unfinished
        return [(r.method, r.path, r.query, r.body, r.authorization, alive) for r, alive in reader.take()]

    whole = b"".join(requests)
    parts: list[bytes] = []
    at = 0
    while at < len(whole):
        size = cuts[len(parts) % len(cuts)]
        parts.append(whole[at : at + size])
        at += size
    assert len(taken(whole)) == len(requests)
    assert taken(*parts) == taken(whole)


@given(st.lists(st.one_of(st.sampled_from(REQUESTS), st.binary(max_size=200)), max_size=6))
def test_whatever_comes_is_a_request_or_a_refusal(parts: list[bytes]) -> None:
    reader = Reader(SMALL)
    for part in parts:
        if (refusal := reader.feed(part)) is not None:
            assert 400 <= refusal[0] <= 505
            break
    for request, _ in reader.take():
        assert len(request.body) <= SMALL.body_bytes
        assert len(request.path) <= SMALL.header_bytes


# ---- size ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "parts"),
    [
        (b"431", [get("/", "X: " + "y" * 1000)]),
        (b"431", [get("/" + "x" * 1000)]),
        (b"431", [get("/", *(f"X-{n}: y" for n in range(200)))]),
        (b"431", [b"GET / HTTP/1.1\r\nX: ", b"y" * 600, b"y" * 600]),
        (b"431", [b"GET /", b"y" * 600, b"y" * 600]),
        (b"431", [b"GET / HTTP/1.1\r\n", *[b"X: y\r\n" * 20] * 20]),
        (b"413", [HOST + b"Content-Length: 1001\r\nExpect: 100-continue\r\n\r\n"]),
        (b"413", [CHUNKED + b"3e9\r\n" + b"x" * 1001]),
        (b"413", [CHUNKED, b"1f4\r\n" + b"x" * 500 + b"\r\n", b"1f5\r\n" + b"x" * 501 + b"\r\n"]),
        (b"413", [CHUNKED, b"1;" + b"x" * 1200, b"x" * 1200, b"x" * 1200]),
        (b"413", [CHUNKED, b"0\r\nX: ", b"x" * 1200, b"x" * 1200, b"x" * 1200]),
        (b"431", [CHUNKED + b"0\r\n" + b"X: " + b"x" * 1200 + b"\r\n\r\n"]),
    ],
    ids=lambda part: part.decode() if isinstance(part, bytes) else "",
)
async def test_what_is_too_large_is_refused_as_soon_as_it_shows(status: bytes, parts: list[bytes]) -> None:
    desk = Desk()
    async with serving(desk, SMALL) as served:
        assert status_of(await talk(served.port, *parts)) == status
        assert desk.paths == []


async def test_what_just_fits_is_taken() -> None:
    desk = Desk()
    async with serving(desk, SMALL) as served, await served.connect() as stream:
        await stream.send_all(post(b"x" * 1000) + CHUNKED + b"3e8\r\n" + b"y" * 1000 + b"\r\n0\r\n\r\n")
        await stream.send_all(get("/", "X: " + "y" * 900))
        await desk.has(3)
    assert [len(request.body) for request, _ in desk.promised] == [1000, 1000, 0]


# ---- time ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "start",
    [b"", b"GET /", HOST + b"Content-Length: 900\r\n\r\n", CHUNKED + b"384\r\n"],
    ids=["blank lines", "header", "body", "chunk"],
)
async def test_a_client_that_drips_is_closed_in_time(socket_clock: trio.testing.MockClock, start: bytes) -> None:
    # Given a client that sends a byte every 0.9 seconds, and never what would complete its request
    async with serving(path_back) as served, await served.connect() as stream:
        started = trio.current_time()
        await stream.send_all(start)
        answer: list[bytes] = []

        async def drip() -> None:
            while True:
                await trio.sleep(0.9)  # never at the instant of the close
                await stream.send_all(b"\n" if not start else b"x")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(drip)
            answer.append(await stream.receive_some())
            nursery.cancel_scope.cancel()
        # Then it is closed in ten seconds, however busy it was, and is told why when it had begun a request
        assert 10.0 <= trio.current_time() - started <= 12.0
        assert status_of(answer[0]) == (b"408" if start else b"")


async def test_a_connection_may_rest_for_a_while(socket_clock: trio.testing.MockClock) -> None:
    async with serving(path_back, Limits(idle_seconds=8.0)) as served, await served.connect() as stream:
        for number in range(3):
            await stream.send_all(get(f"/{number}"))
            assert await read_bodies(stream, 1) == [b"/%d" % number]
            await trio.sleep(6.5)
        started = trio.current_time()
        assert await stream.receive_some() == b""
        assert 1.0 <= trio.current_time() - started <= 3.0


async def test_a_connection_that_is_owed_an_answer_is_not_at_rest(socket_clock: trio.testing.MockClock) -> None:
    desk = Desk()
    limits = Limits(idle_seconds=8.0)
    async with serving(desk, limits) as served, await served.connect() as stream:
        await stream.send_all(get("/late"))
        await trio.sleep(20.0)
        desk.give(0)
        assert await read_bodies(stream, 1) == [b"/late"]
        # And its rest begins with the answer
        await trio.sleep(6.5)
        await stream.send_all(get("/again"))
        await desk.has(2)


# ---- numbers ------------------------------------------------------------------------------------------------------


async def test_connections_over_the_limit_are_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a server for two clients, that tells one more at a time why it is refused
    monkeypatch.setattr(server, "REFUSED_AT_ONCE", 1)
    async with serving(path_back, Limits(connections=2)) as served:
        first, second = await served.connect(), await served.connect()
        for stream in (first, second):
            await stream.send_all(get("/in"))
            assert await read_bodies(stream, 1) == [b"/in"]
        told = await served.connect()
        assert status_of(await told.receive_some()) == b"503"
        # When yet another comes while that one lingers, then it is closed without a word
        async with await served.connect() as silent:
            assert await read_all(silent) == b""
        await told.aclose()
        # And when one of the two leaves, there is room for another
        await first.aclose()
        await trio.testing.wait_all_tasks_blocked()
        async with await served.connect() as third:
            await third.send_all(get("/third"))
            assert await read_bodies(third, 1) == [b"/third"]


async def test_a_lack_of_descriptors_is_waited_out(
    socket_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a system that has no descriptor left for a while
    accept, failures = socket.socket.accept, iter([errno.EMFILE, errno.ECONNABORTED, errno.ENFILE])

    def accept_or_fail(sock: socket.socket) -> object:
        if (code := next(failures, None)) is not None:
            raise OSError(code, "as the test wants it")
        return accept(sock)

    monkeypatch.setattr(socket.socket, "accept", accept_or_fail)
    async with serving(path_back) as served:
        started = trio.current_time()
        assert (await talk(served.port, get("/", "Connection: close"))).endswith(b"/")
        # Then it accepts again after a pause each time, and a client that has gone again costs none
        assert trio.current_time() - started == pytest.approx(0.2)
