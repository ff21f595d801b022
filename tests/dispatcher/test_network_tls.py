"""Certificates are verified: a provider that cannot prove its name is sent nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from dispatcher.network.api import Failure
from tests.certificate_kit import Certificates
from tests.dispatcher.network_kit import (
    Conversation,
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
