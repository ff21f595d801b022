"""httpx's API on the network's connections."""

from __future__ import annotations

import gzip
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest
import trio

from dispatcher.network.api import Failure, Request, Response
from dispatcher.network.fake import FakeNetwork
from dispatcher.network.transport import NetworkTransport
from tests.dispatcher.network_kit import (
    POOL,
    Conversation,
    Script,
    Server,
    answers_nothing,
    echo,
    networking,
    read_and_close,
    serving,
)

TOKEN = "TOKEN-0123456789"


@asynccontextmanager
async def calling(script: Script, *, timeout: float = 5.0) -> AsyncIterator[tuple[httpx.AsyncClient, Server]]:
    async with serving(script) as server, networking(4) as network:
        transport = NetworkTransport(network, POOL)
        async with httpx.AsyncClient(transport=transport, base_url=f"{server.url}/base", timeout=timeout) as client:
            yield client, server


async def test_json_goes_both_ways() -> None:
    async with calling(echo) as (client, server):
        response = await client.post("/cgi-bin/token", params={"a": "ü&="}, json={"name": "尾号", "n": 1})
        assert response.status_code == 200
        assert response.json() == {"name": "尾号", "n": 1}
        # And the client's base, query and content type were sent
        (seen,) = server.seen
        assert seen.target == "/base/cgi-bin/token?a=%C3%BC%26%3D"
        assert ("Content-Type", "application/json") in seen.headers
        assert [name for name, *_ in seen.headers].count("Content-Length") == 1
        # And the provider's host is not named twice, nor is a compressed answer asked for
        names = [name.lower() for name, *_ in seen.headers]
        assert names.count("host") == 1
        assert "accept-encoding" not in names


async def test_headers_go_both_ways() -> None:
    async def script(talk: Conversation) -> None:
        while await talk.read() is not None:
            await talk.send(b"HTTP/1.1 103 Early: Hints\r\nLink: </early>\r\n\r\n")
            await talk.answer(
                headers=["Set-Cookie: a=1", "Set-Cookie: b=2", "X-Time: 12:30:59", "X-Empty:", "X-Bytes: \xfc"]
            )

    async with calling(script) as (client, server):
        response = await client.get("/", headers={"X-Ours": "a: b", "X-None": "", "User-Agent": "a bank"})
        assert response.headers.get_list("set-cookie") == ["a=1", "b=2"]
        assert (response.headers["x-time"], response.headers["x-empty"]) == ("12:30:59", "")
        assert response.text == "ok"
        # And what an interim answer said is not taken for the answer's
        assert "link" not in response.headers
        sent = server.seen[0].headers
        assert ("X-Ours", "a: b") in sent
        assert ("X-None:",) in sent
        assert [value for name, *rest in sent if name == "User-Agent" for value in rest] == ["a bank"]


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
async def test_every_method_is_itself(method: str) -> None:
    async def script(talk: Conversation) -> None:
        while (seen := await talk.read()) is not None:
            await talk.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n" + b"ok" * (seen.method != "HEAD"))

    async with calling(script) as (client, server):
        for _ in range(2):
            response = await client.request(method, "/x")
            assert (response.status_code, response.content) == (200, b"" if method == "HEAD" else b"ok")
        assert [seen.method for seen in server.seen] == [method] * 2


async def test_a_refusal_keeps_its_body() -> None:
    async def script(talk: Conversation) -> None:
        while await talk.read() is not None:
            await talk.answer(b'{"error":"no such path"}', status="404 Not Found")

    async with calling(script) as (client, _):
        response = await client.get("/nowhere")
        assert (response.status_code, response.json()) == (404, {"error": "no such path"})


async def test_calls_at_the_same_time_get_their_own_answers() -> None:
    async with calling(echo) as (client, server), trio.open_nursery() as nursery:

        async def call(n: int) -> None:
            assert (await client.post("/", content=b"%d" % n)).content == b"%d" % n

        for n in range(50):
            nursery.start_soon(call, n)
    assert len(server.seen) == 50
    assert server.connections <= 4


async def test_what_never_left_is_a_connect_error_and_what_may_have_arrived_a_read_error(unused_port: int) -> None:
    async with calling(read_and_close) as (client, _):
        with pytest.raises(httpx.ReadError, match=r"^no answer \(libcurl \d+\)$"):
            await client.post("/", params={"access_token": TOKEN})
        with pytest.raises(httpx.ConnectError, match=r"^could not connect \(libcurl 7\)$"):
            await client.post(f"http://127.0.0.1:{unused_port}/")


async def test_an_error_names_no_token(unused_port: int) -> None:
    async with calling(read_and_close) as (client, _):
        for url in ("/", f"http://127.0.0.1:{unused_port}/"):
            with pytest.raises(httpx.TransportError) as caught:
                await client.post(url, params={"access_token": TOKEN}, json={"secret": TOKEN})
            assert TOKEN not in f"{caught.value} {caught.value!r} {caught.value.args}"


async def test_the_clients_timeout_holds() -> None:
    async with calling(answers_nothing, timeout=1.0) as (client, _):
        with trio.fail_after(8), pytest.raises(httpx.ReadError, match="libcurl 28"):
            await client.get("/")


async def test_timeouts_of_every_kind_become_a_bounded_one() -> None:
    # Given a network that only notes what it is asked
    async with trio.open_nursery() as nursery:
        network = FakeNetwork(nursery, lambda request: (Response(request, 200, b""), 0.0))
        client = httpx.AsyncClient(transport=NetworkTransport(network, POOL), base_url="http://provider")
        # When calls are made with times of all sizes, or none
        for timeout in (0.0001, 2.5, None, httpx.Timeout(1.0, read=7.0)):
            await client.get("/", timeout=timeout)
        await client.aclose()
    # Then each has an end
    assert [request.timeout_ms for request in network.sent] == [1, 2_500, 10_000, 7_000]


async def test_a_compressed_answer_is_refused_and_not_unpacked() -> None:
    # Given a megabyte that would be a gigabyte
    bomb = gzip.compress(b"\0" * 1_000_000)

    async def script(talk: Conversation) -> None:
        while await talk.read() is not None:
            await talk.answer(bomb, headers=["Content-Encoding: gzip"])

    async with calling(script) as (client, _):
        with pytest.raises(httpx.DecodingError, match="not asked for"):
            await client.get("/")


async def test_a_cancelled_call_leaves_the_connection_usable() -> None:
    given_up_for_long = trio.Event()

    async def slow_once(talk: Conversation) -> None:
        while (seen := await talk.read()) is not None:
            if seen.target.endswith("/slow"):
                await given_up_for_long.wait()
            await talk.answer(seen.target.encode())

    async with calling(slow_once) as (client, server):
        # Given a call that was given up when it had arrived
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.get, "/slow")
            while not server.seen:  # noqa: ASYNC110 - the server tells nobody
                await trio.sleep(0.005)
            nursery.cancel_scope.cancel()
        assert nursery.cancel_scope.cancelled_caught
        # When others follow, and its answer comes among them, then each has its own
        for n in range(8):
            if n == 4:
                given_up_for_long.set()
            assert (await client.get(f"/{n}")).text == f"/base/{n}"
        assert len(server.seen) == 9


async def test_it_works_under_a_mock_clock(autojump_clock: trio.testing.MockClock) -> None:
    def answer(request: Request) -> tuple[Response, float]:
        if request.url.endswith("/down"):
            return Response(request, 0, b"", Failure.NOT_SENT, 7), 5.0
        return Response(request, 200, b"{}", headers=(b"HTTP/1.1 200 OK\r\n", b"A: b\r\n", b"\r\n")), 3.0

    async with trio.open_nursery() as nursery:
        network = FakeNetwork(nursery, answer)
        async with httpx.AsyncClient(transport=NetworkTransport(network, POOL), base_url="http://p") as client:
            response = await client.get("/up")
            assert (response.json(), response.headers["a"]) == ({}, "b")
            assert trio.current_time() == 3.0
            with pytest.raises(httpx.ConnectError):
                await client.get("/down")
            assert trio.current_time() == 8.0
