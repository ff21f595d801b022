"""A request that libcurl sends again by itself, and requests that it must not send again."""

from __future__ import annotations

import random

import pytest
import trio

from dispatcher.network.api import Failure
from tests.dispatcher.network_kit import (
    Conversation,
    Script,
    Seen,
    ask,
    ask_one,
    echo,
    networking,
    post,
    read_and_reset,
    serving,
)


def dies_at_the_second(kind: str) -> Script:
    """Connection 0 answers one request and dies with the second one; the others answer."""

    async def script(talk: Conversation) -> None:
        if talk.number > 0:
            await echo(talk)
            return
        if (seen := await talk.read()) is not None:
            await talk.answer(seen.body)
        await talk.read()
        if kind == "reset":
            talk.reset()

    return script


@pytest.mark.parametrize("kind", ["close", "reset"])
@pytest.mark.parametrize("body_size", [0, 10, 400, 5_000, 200_000])
@pytest.mark.parametrize("url_size", [30, 600])
@pytest.mark.parametrize("header_count", [0, 1, 60])
async def test_a_request_that_libcurl_sent_twice_is_seen(
    kind: str, body_size: int, url_size: int, header_count: int
) -> None:
    async with serving(dies_at_the_second(kind)) as server, networking() as network:
        url = f"{server.url}/".ljust(url_size, "u")
        headers = tuple(f"X-{n}: {'v' * (n % 7)}" for n in range(header_count))
        requests = [post(url, b"b" * body_size, headers=headers, tag=n) for n in range(3)]
        # Given a connection that was used before, when it dies with the request and before the answer
        responses = [await ask_one(network, request) for request in requests]
        # Then libcurl sent that request again and we know
        assert [response.resends for response in responses] == [0, 1, 0]
        assert [response.status for response in responses] == [200] * 3
        assert [seen.connection for seen in server.seen] == [0, 0, 1, 1]


async def test_a_resend_that_dies_as_well_counts_both() -> None:
    async def script(talk: Conversation) -> None:
        await talk.read()
        if talk.number == 0:
            await talk.answer()
            await talk.read()

    async with serving(script) as server, networking() as network:
        await ask_one(network, post(server.url))
        response = await ask_one(network, post(server.url))
        assert (response.failure, response.resends) == (Failure.UNKNOWN, 1)
        assert len(server.seen) == 3


async def test_a_resend_that_finds_no_connection_was_still_sent_once() -> None:
    # Given a provider that goes away with the second request of a connection
    seen: list[Seen] = []
    with trio.socket.socket() as listener:
        await listener.bind(("127.0.0.1", 0))
        listener.listen()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/"

        async def answer_one_and_go() -> None:
            raw = trio.SocketStream((await listener.accept())[0])
            talk = Conversation(0, raw, raw, seen)
            await talk.read()
            await talk.answer()
            await talk.read()
            listener.close()
            talk.close()

        async with trio.open_nursery() as nursery, networking() as network:
            nursery.start_soon(answer_one_and_go)
            await ask_one(network, post(url))
            response = await ask_one(network, post(url))
    # Then it is not taken for one that never left, although its last error is a refused connection
    assert (response.failure, response.code, response.resends) == (Failure.UNKNOWN, 7, 0)
    assert len(seen) == 2


async def test_ordinary_requests_of_any_size_are_never_taken_for_resent() -> None:
    draw = random.Random(8)
    async with serving(echo) as server, networking(8) as network:
        requests = [
            post(
                f"{server.url}/" + "u" * draw.choice([0, 1, 30, 200, 1500]),
                draw.randbytes(int(2 ** draw.uniform(0, 13)) - 1),
                headers=tuple(f"X-{n}: {'v' * draw.randrange(40)}" for n in range(draw.choice([0, 1, 2, 30]))),
                method=draw.choice(["POST", "POST", "POST", "PUT", "DELETE"]),
            )
            for _ in range(2_000)
        ]
        responses = await ask(network, *requests)
        assert {(response.status, response.resends) for response in responses} == {(200, 0)}
        assert len(server.seen) == 2_000


async def test_a_fresh_request_has_a_connection_of_its_own_and_is_never_sent_twice() -> None:
    # Given a connection that could be used again
    async with serving(echo) as server, networking() as network:
        assert (await ask_one(network, post(server.url))).status == 200
        # When fresh requests follow, then each opens its own and closes it
        for _ in range(3):
            assert (await ask_one(network, post(server.url, fresh=True))).status == 200
        assert [seen.connection for seen in server.seen] == [0, 1, 2, 3]

    # And none is left for others
    async with serving(echo) as server, networking() as network:
        for fresh in (True, False, False):
            assert (await ask_one(network, post(server.url, fresh=fresh))).status == 200
        assert [seen.connection for seen in server.seen] == [0, 1, 1]

    # And when one dies after another, then none is sent again
    async with serving(read_and_reset) as server, networking() as network:
        responses = [await ask_one(network, post(server.url, b"%d" % n, fresh=True)) for n in range(5)]
        assert {(response.failure, response.resends) for response in responses} == {(Failure.UNKNOWN, 0)}
        assert [seen.body for seen in server.seen] == [b"0", b"1", b"2", b"3", b"4"]
