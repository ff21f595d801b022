"""Certificates are verified: a provider that cannot prove its name is sent nothing."""

from __future__ import annotations

import ssl
from functools import partial
from pathlib import Path

import hypercorn.config
import hypercorn.trio
import pytest
import starlette.applications
import starlette.requests
import starlette.responses
import starlette.routing
import trio

from dispatcher.network.api import Failure
from tests.certificate_kit import Certificates
from tests.dispatcher.network_kit import (
    Conversation,
    Mailbox,
    answers_nothing,
    ask_one,
    echo,
    networking,
    post,
    serving,
)


class Servers(Certificates):
    """A certificate authority of our own and two servers' certificates."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.right = self.server_context("right", "IP:127.0.0.1,DNS:localhost")
        self.wrong_name = self.server_context("wrong", "DNS:bank.example")


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Servers:
    return Servers(tmp_path_factory.mktemp("certificates"))


async def test_a_certificate_of_our_authority_is_taken(certificates: Servers) -> None:
    async with serving(echo, certificates.right) as server, networking(2, ca_file=certificates.ca_file) as network:
        for n in range(3):
            response = await ask_one(network, post(server.url, b"%d" % n))
            assert (response.status, response.body, response.failure) == (200, b"%d" % n, None)
            assert response.resends == 0
        assert server.connections == 1


async def test_an_authority_can_come_from_the_environment(
    certificates: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", certificates.ca_file)
    async with serving(echo, certificates.right) as server, networking() as network:
        assert (await ask_one(network, post(server.url))).status == 200


async def test_an_unknown_authority_is_sent_nothing(certificates: Servers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    async with serving(echo, certificates.right) as server, networking() as network:
        response = await ask_one(network, post(server.url))
        assert (response.failure, response.code) == (Failure.NOT_SENT, 60)
        assert server.seen == []


async def test_another_hosts_certificate_is_sent_nothing(certificates: Servers) -> None:
    async with serving(echo, certificates.wrong_name) as server, networking(ca_file=certificates.ca_file) as network:
        response = await ask_one(network, post(server.url))
        assert (response.failure, response.code) == (Failure.NOT_SENT, 60)
        assert server.seen == []


async def test_a_resend_under_tls_is_seen(certificates: Servers) -> None:
    async def dies_at_the_second(talk: Conversation) -> None:
        if talk.number > 0:
            await echo(talk)
        elif (seen := await talk.read()) is not None:
            await talk.answer(seen.body)
            await talk.read()

    server_side = serving(dies_at_the_second, certificates.right)
    async with server_side as server, networking(ca_file=certificates.ca_file) as network:
        responses = [await ask_one(network, post(server.url, b"x" * 400)) for _ in range(3)]
        assert [(response.status, response.resends) for response in responses] == [(200, 0), (200, 1), (200, 0)]


async def test_a_death_under_tls_before_the_answer_leaves_it_open(certificates: Servers) -> None:
    async def read_and_go(talk: Conversation) -> None:
        await talk.read()

    server_side = serving(read_and_go, certificates.right)
    async with server_side as server, networking(ca_file=certificates.ca_file) as network:
        response = await ask_one(network, post(server.url, fresh=True))
        assert (response.failure, len(server.seen)) == (Failure.UNKNOWN, 1)


async def test_tls_towards_a_port_that_speaks_none_sends_nothing() -> None:
    async def speaks_plainly(talk: Conversation) -> None:
        await talk.send(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")

    async def hangs_up(_talk: Conversation) -> None:
        await trio.lowlevel.checkpoint()

    for script in (speaks_plainly, hangs_up, answers_nothing):
        async with serving(script) as server, networking() as network:
            url = server.url.replace("http:", "https:")
            response = await ask_one(network, post(url, timeout_ms=200))
            assert response.failure is Failure.NOT_SENT
            assert response.status == 0


async def test_a_gateway_that_wants_a_certificate_is_shown_ours(certificates: Servers) -> None:
    # Given a server that takes clients of our authority only
    context = certificates.server_context("strict", "IP:127.0.0.1")
    context.load_verify_locations(certificates.ca_file)
    context.verify_mode = ssl.CERT_REQUIRED
    cert, key = certificates.issue("client", "DNS:client")
    async with serving(echo, context) as server:
        # When we show a certificate, then it answers
        shown = {"cert_file": str(cert), "key_file": str(key)}
        async with networking(ca_file=certificates.ca_file, **shown) as network:
            assert (await ask_one(network, post(server.url, b"x"))).body == b"x"
        # When we show none, then it has seen nothing of the request
        async with networking(ca_file=certificates.ca_file) as network:
            assert (await ask_one(network, post(server.url, b"y"))).status == 0
        assert [seen.body for seen in server.seen] == [b"x"]


async def test_http2_is_spoken_where_it_is_wanted_and_offered(certificates: Servers) -> None:
    # Given a server that speaks both
    async def version(request: starlette.requests.Request) -> starlette.responses.Response:
        body = await request.body()
        return starlette.responses.Response(request.scope["http_version"].encode() + b" " + body)

    app = starlette.applications.Starlette(routes=[starlette.routing.Route("/", version, methods=["POST"])])
    config = hypercorn.config.Config()
    cert, key = certificates.issue("both", "IP:127.0.0.1")
    config.bind, config.certfile, config.keyfile = ["127.0.0.1:0"], str(cert), str(key)
    config.errorlog = None
    async with trio.open_nursery() as nursery:
        (url,) = await nursery.start(partial(hypercorn.trio.serve, app, config))
        for http2, spoken in ((True, b"2 "), (False, b"1.1 ")):
            async with networking(8, ca_file=certificates.ca_file, http2=http2) as network:
                # When many requests are sent at once
                mailbox = Mailbox()
                network.submit([post(f"{url}/", b"%d" % n) for n in range(40)], mailbox.deliver)
                responses = await mailbox.all_of(40)
                # Then each has its own answer in the version that was asked for
                assert sorted(one.body for one in responses) == sorted(spoken + b"%d" % n for n in range(40))
                assert {(one.status, one.failure, one.resends) for one in responses} == {(200, None, 0)}
        nursery.cancel_scope.cancel()
