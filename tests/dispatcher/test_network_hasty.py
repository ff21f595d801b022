"""A provider that answers before it was asked, and one that answers twice."""

from __future__ import annotations

from dispatcher.network.api import Failure
from tests.dispatcher.network_kit import Conversation, ask, ask_one, networking, post, serving


async def test_an_answer_before_the_request_was_read_leaves_the_outcome_open() -> None:
    # Given a provider that refuses each connection with a 503 without reading what it says
    async def hasty(talk: Conversation) -> None:
        await talk.send(b"HTTP/1.1 503 Later\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}")

    async with serving(hasty) as server, networking(4) as network:
        responses = await ask(network, *(post(server.url, b"x" * 200_000, tag=number) for number in range(20)))
    # Then each has its 503 or is of unknown outcome, and none passes for unsent or accepted
    assert sorted(response.request.tag for response in responses) == list(range(20))
    assert {(response.status, response.failure) for response in responses} <= {(503, None), (0, Failure.UNKNOWN)}


async def test_an_answer_too_many_is_not_the_next_requests() -> None:
    # Given a provider that answers every request twice
    async def twice(talk: Conversation) -> None:
        while (seen := await talk.read()) is not None:
            one = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(seen.body), seen.body)
            await talk.send(one + one)

    async with serving(twice) as server, networking(1) as network:
        for number in range(20):
            body = b"request %d" % number
            # When one request follows the other on the one connection of the pool, then each gets its own answer
            response = await ask_one(network, post(server.url, body))
            assert (response.status, response.body) == (200, body)
    assert len(server.seen) == 20
