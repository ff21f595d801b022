"""The network over libcurl against real sockets on the loopback interface."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections import Counter

import pytest

from dispatcher.network.api import MAX_BODY_BYTES, Failure, Response
from tests.dispatcher.network_kit import (
    Conversation,
    Mailbox,
    Script,
    answers_nothing,
    ask,
    ask_one,
    echo,
    networking,
    post,
    read_and_close,
    read_and_reset,
    serving,
)

# ---- answers ------------------------------------------------------------------------------------------------------


async def test_a_batch_is_answered_once_each_over_the_pools_connections() -> None:
    # Given 16 connections, when 500 requests are handed over at once
    async with serving(echo) as server, networking(16) as network:
        requests = [post(f"{server.url}/{n}", b"body %d" % n, tag=n) for n in range(500)]
        responses = await ask(network, *requests)
        # Then each is answered exactly once, with its own body, and connections are used again and again
        assert sorted(response.request.tag for response in responses) == list(range(500))
        for response in responses:
            assert (response.status, response.failure, response.resends) == (200, None, 0)
            assert response.body == response.request.body == b"body %d" % response.request.tag
            assert 0 < response.seconds < 10
        assert len(server.seen) == 500
        assert 1 < server.connections <= 16
        # And the provider saw the method, the path and our headers, and no "Expect"
        for seen in server.seen:
            assert (seen.method, seen.target.encode()[1:]) == ("POST", seen.body.removeprefix(b"body "))
            names = [name for name, *_ in seen.headers]
            assert sorted(names) == ["Accept", "Content-Length", "Content-Type", "Host", "User-Agent"]


async def test_responses_come_in_the_trio_thread_and_a_kept_connection_is_used_again() -> None:
    threads = set()
    async with serving(echo) as server, networking(4) as network:
        mailbox = Mailbox()

        def deliver(responses: list[Response]) -> None:
            threads.add(threading.get_ident())
            mailbox.deliver(responses)

        for n in range(5):
            network.submit([post(f"{server.url}/{n}")], deliver)
            await mailbox.all_of(n + 1)
        assert server.connections == 1
        assert threads == {threading.get_ident()}


@pytest.mark.parametrize("size", [0, 1, 1_000, 100_000, MAX_BODY_BYTES])
async def test_a_chunked_answer_is_put_together(size: int) -> None:
    async def chunked(talk: Conversation) -> None:
        await talk.read()
        await talk.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for start in range(0, size, 65_536):
            part = b"z" * min(65_536, size - start)
            await talk.send(b"%x\r\n%b\r\n" % (len(part), part))
        await talk.send(b"0\r\n\r\n")

    async with serving(chunked) as server, networking() as network:
        response = await ask_one(network, post(server.url))
    assert (response.status, response.failure) == (200, None)
    assert response.body == b"z" * size


async def test_methods_can_alternate_on_one_handle() -> None:
    # Given one connection, when methods follow each other in every order
    methods = ["POST", "GET", "HEAD", "PUT", "GET", "DELETE", "POST", "HEAD", "POST", "PATCH", "HEAD", "GET", "PUT"]

    async def script(talk: Conversation) -> None:
        while (seen := await talk.read()) is not None:
            if seen.method == "HEAD":
                await talk.send(b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n")
            else:
                await talk.answer(seen.body)

    async with serving(script) as server, networking() as network:
        for method in methods:
            body = None if method in ("GET", "HEAD") else method.encode()
            response = await ask_one(network, post(server.url, body, method=method))
            assert (response.status, response.body) == (200, body or b"")
            assert response.resends == 0
        # Then each is what it was asked to be
        assert [seen.method for seen in server.seen] == methods
        assert server.connections == 1


@pytest.mark.parametrize("body", [b"\0", b"\0\0a\0", bytes(range(256)), b"", None])
async def test_a_body_may_hold_any_byte(body: bytes | None) -> None:
    async with serving(echo) as server, networking() as network:
        response = await ask_one(network, post(server.url, body))
        assert response.body == (body or b"")
        assert ("Content-Length", str(len(body or b""))) in server.seen[0].headers


@pytest.mark.parametrize(
    ("status", "header", "seconds"),
    [
        ("429 Too Many Requests", "Retry-After: 7", 7),
        ("503 Service Unavailable", "retry-after: 120", 120),
        ("503 Service Unavailable", "Retry-After: soon", 0),
        ("503 Service Unavailable", "X: y", 0),
        ("200 OK", "Retry-After: 7", 0),
        ("500 Internal Server Error", "Retry-After: 7", 0),
    ],
)
async def test_retry_after_is_read_where_it_means_something(status: str, header: str, seconds: int) -> None:
    async def script(talk: Conversation) -> None:
        while await talk.read() is not None:
            await talk.answer(status=status, headers=[header])

    async with serving(script) as server, networking() as network:
        response = await ask_one(network, post(server.url))
    assert response.status == int(status[:3])
    assert response.retry_after_s == seconds


async def test_a_redirect_is_an_answer_and_not_followed() -> None:
    async with serving(echo) as elsewhere:

        async def redirect(talk: Conversation) -> None:
            while await talk.read() is not None:
                await talk.answer(status="307 Temporary Redirect", headers=[f"Location: {elsewhere.url}/"])

        async with serving(redirect) as server, networking() as network:
            assert (await ask_one(network, post(server.url))).status == 307
        assert elsewhere.connections == 0


async def test_a_proxy_of_the_environment_is_ignored(monkeypatch: pytest.MonkeyPatch, unused_port: int) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{unused_port}")
    async with serving(echo) as server, networking() as network:
        assert (await ask_one(network, post(server.url))).status == 200


async def test_headers_are_sent_as_given_and_line_breaks_never() -> None:
    async with serving(echo) as server, networking() as network:
        headers = ("X-Colon: a:b: c", "X-Empty:", "X-Latin: é", "Content-Type: text/plain")
        assert (await ask_one(network, post(server.url, headers=headers))).status == 200
        sent = server.seen[0].headers
        assert ("X-Colon", "a:b: c") in sent
        assert ("X-Latin", "é") in sent
        assert ("X-Empty:",) in sent
        # When a value would smuggle in a header of its own, then nothing is sent
        for bad in ("X: a\r\nY: b", "X: a\nY: b", "X: a\0b", "X: 中"):
            response = await ask_one(network, post(server.url, headers=(bad,)))
            assert response.failure is Failure.NOT_SENT
        assert len(server.seen) == 1
        # And a request without a content type is not called a form
        assert (await ask_one(network, post(server.url, headers=()))).status == 200
        assert not [pair for pair in server.seen[1].headers if pair[0] == "Content-Type"]


# ---- no answer ----------------------------------------------------------------------------------------------------


async def test_a_refused_connection_means_nothing_was_sent(unused_port: int) -> None:
    async with networking() as network:
        response = await ask_one(network, post(f"http://127.0.0.1:{unused_port}/"))
    assert (response.failure, response.status, response.code) == (Failure.NOT_SENT, 0, 7)


@pytest.mark.parametrize("script", [read_and_close, read_and_reset])
async def test_a_fresh_connection_that_dies_before_the_answer_leaves_it_open(script: Script) -> None:
    async with serving(script) as server, networking() as network:
        response = await ask_one(network, post(server.url))
        assert (response.failure, response.status, response.resends) == (Failure.UNKNOWN, 0, 0)
        assert len(server.seen) == 1


async def test_a_timeout_before_the_answer_leaves_it_open() -> None:
    async with serving(answers_nothing) as server, networking() as network:
        response = await ask_one(network, post(server.url, timeout_ms=1_500))
        assert (response.failure, response.code) == (Failure.UNKNOWN, 28)
        assert 1 < response.seconds < 30
        # And the next one, on a new connection, has its own time
        assert (await ask_one(network, post(server.url, timeout_ms=1_000))).failure is Failure.UNKNOWN
        assert server.connections == 2


@pytest.mark.parametrize("timeout_ms", [0, -1])
async def test_no_timeout_means_at_once_and_not_for_ever(timeout_ms: int) -> None:
    async with serving(answers_nothing) as server, networking() as network:
        response = await ask_one(network, post(server.url, timeout_ms=timeout_ms))
    assert response.code == 28


async def test_a_connection_that_does_not_come_about_in_time_sent_nothing() -> None:
    # Given a listener whose queue is full
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(listener.getsockname())
        async with networking() as network:
            url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
            response = await ask_one(network, post(url, timeout_ms=200))
    assert (response.failure, response.code) == (Failure.NOT_SENT, 28)


@pytest.mark.parametrize(
    "cut",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nnonsense",
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.9\r\n",
        b"\0",
    ],
)
async def test_an_answer_that_is_cut_off_or_is_none_leaves_it_open(cut: bytes) -> None:
    async def script(talk: Conversation) -> None:
        if await talk.read() is not None:
            await talk.send(cut)

    async with serving(script) as server, networking() as network:
        response = await ask_one(network, post(server.url))
        assert (response.failure, response.status) == (Failure.UNKNOWN, 0)
        assert len(server.seen) == 1


async def test_an_answer_that_ends_in_its_headers_has_no_body() -> None:
    # libcurl takes the close for the end of an answer without a length; that it means nothing is the channel's to say
    async def script(talk: Conversation) -> None:
        if await talk.read() is not None:
            await talk.send(b"HTTP/1.1 200 OK\r\nContent-Len")

    async with serving(script) as server, networking() as network:
        response = await ask_one(network, post(server.url))
    assert (response.failure, response.status, response.body) == (None, 200, b"")


@pytest.mark.parametrize("declared", [True, False])
async def test_an_answer_that_is_too_large_is_not_read(declared: bool) -> None:
    sent = 0

    async def endless(talk: Conversation) -> None:
        nonlocal sent
        await talk.read()
        if declared:
            await talk.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (MAX_BODY_BYTES + 1))
        else:
            await talk.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while sent < 64 * MAX_BODY_BYTES:
            await talk.send(b"10000\r\n" + b"z" * 65_536 + b"\r\n")
            sent += 65_536

    async with serving(endless) as server, networking() as network:
        response = await ask_one(network, post(server.url))
    assert (response.failure, response.code) == (Failure.UNKNOWN, 63)
    assert len(response.body) <= MAX_BODY_BYTES
    assert sent < 16 * MAX_BODY_BYTES


@pytest.mark.parametrize(
    "url",
    [
        "",
        "http://",
        "no url at all",
        "http://127.0.0.1:99999/",
        "http://exa mple/",
        "http://127.0.0.1/\r\nX: y",
        "http://127.0.0.1/\0",
        "http://127.0.0.1/?access_token=中",
        "ftp://127.0.0.1/",
        "file:///etc/hostname",
    ],
)
async def test_a_url_that_is_none_fails_alone(url: str) -> None:
    # Given a network that is working, when one URL of a batch cannot be used
    async with serving(echo) as server, networking() as network:
        good = [post(server.url, b"%d" % n) for n in range(3)]
        responses = await ask(network, good[0], post(url), good[1], post(url), good[2])
        # Then that one was not sent, and the others are answered
        by_url = Counter((response.request.url == url, response.failure) for response in responses)
        assert by_url == {(True, Failure.NOT_SENT): 2, (False, None): 3}


async def test_a_pool_that_there_is_not_is_the_callers_error() -> None:
    async with serving(echo) as server, networking() as network:
        with pytest.raises(KeyError, match="nowhere"):
            network.submit([post(server.url), post(server.url, pool="nowhere")], Mailbox().deliver)
        assert (await ask_one(network, post(server.url))).status == 200
        assert len(server.seen) == 1
