"""The stream listener on real sockets: TLS, client certificates, limits, an orderly end."""

from __future__ import annotations

import os
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from dispatcher.config import StreamIntakeConfig
from dispatcher.engine import Engine
from dispatcher.errors import ConfigurationError, PortInUse
from dispatcher.intake import stream, stream_listener
from dispatcher.intake.stream_listener import StreamIntake, tls_context
from dispatcher.listening import inherited_listeners, open_listeners
from tests.certificate_kit import Certificates
from tests.dispatcher.stream_kit import Peer, line, new_world

PATIENCE_S = 60.0
"""A test that waits longer than this for an answer has found a bug."""


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    made = Certificates(tmp_path_factory.mktemp("certificates"))
    made.issue("server", "IP:127.0.0.1")
    return made


@pytest.fixture
def tls(certificates: Certificates) -> dict[str, Path]:
    return {"tls_cert_file": certificates.folder / "server.pem", "tls_key_file": certificates.folder / "server.key"}


class Site:
    """A listener that serves, and connections to it."""

    def __init__(self, engine: Engine, section: StreamIntakeConfig) -> None:
        self.engine = engine
        self.intake = StreamIntake(engine, section)
        self.stop = trio.Event()
        self.stopped = trio.Event()
        self.url = ""
        self._peers: list[Peer] = []

    async def serve(self, listeners: list[trio.SocketListener] | None, *, task_status: trio.TaskStatus[str]) -> None:
        await self.intake.serve(listeners, self.stop.wait, task_status=task_status)
        self.stopped.set()

    async def connect(self, context: ssl.SSLContext | None = None) -> Peer:
        plain = await trio.open_tcp_stream("127.0.0.1", int(self.url.rpartition(":")[2]))
        tls = None if context is None else trio.SSLStream(plain, context, server_hostname="127.0.0.1")
        self._peers.append(Peer(tls or plain))
        return self._peers[-1]

    async def until(self, condition: Callable[[], bool]) -> None:
        while not condition():  # noqa: ASYNC110 - it is other tasks of this loop that make it true
            await trio.sleep(0.01)

    async def close(self) -> None:
        for peer in self._peers:
            await trio.aclose_forcefully(peer.stream)
        self.stop.set()


@asynccontextmanager
async def serving(listeners: list[trio.SocketListener] | None = None, **section: Any) -> AsyncIterator[Site]:
    world = new_world()
    with trio.fail_after(PATIENCE_S):
        async with world.running() as engine, trio.open_nursery() as nursery:
            site = Site(engine, StreamIntakeConfig(**{"listen": "127.0.0.1:0", **section}))
            site.url = await nursery.start(site.serve, listeners)
            yield site
            await site.close()
    world.ledger.store.close()


async def test_events_come_in_over_tcp() -> None:
    async with serving() as site:
        assert site.url.startswith("tcp://127.0.0.1:")
        peer = await site.connect()
        await peer.send(line(1) + line(1) + b"{")
        assert await peer.finish() == {"ack": 3, "accepted": 1, "duplicate": 1, "rejected": [3]}
        await site.until(lambda: site.intake.connections == 0)


async def test_many_connections_at_once_each_get_their_own_acknowledgements() -> None:
    async with serving() as site:
        peers = [await site.connect() for _ in range(50)]
        await site.until(lambda: site.intake.connections == 50)

        async def use(number: int, peer: Peer) -> None:
            for at in range(5):
                await peer.send(line(f"{number}-{at}") * 2)
                await peer.acknowledged(2 * at + 2)

        async with trio.open_nursery() as nursery:
            for number, peer in enumerate(peers):
                nursery.start_soon(use, number, peer)
        for peer in peers:
            assert await peer.finish() == {"ack": 10, "accepted": 5, "duplicate": 5, "rejected": []}


# ---- TLS


async def test_events_come_in_over_tls_with_a_token(certificates: Certificates, tls: Any, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("core-token\n")
    async with serving(**tls, token_file=tmp_path / "token") as site:
        assert site.url.startswith("tls://127.0.0.1:")
        peer = await site.connect(certificates.client_context())
        await peer.send(b'{"token":"core-token"}\n' + b"".join(line(number) for number in range(2000)))
        assert (await peer.acknowledged(2000))["accepted"] == 2000
        # And a wrong token is told so before the connection ends
        other = await site.connect(certificates.client_context())
        await other.send(b'{"token":"core-tokem"}\n' + line(1))
        assert "token" in (await other.rest())[0]["error"]
        await site.until(lambda: site.intake.refused == 1)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_client_certificate_is_demanded_where_it_is_configured(
    certificates: Certificates, tls: Any, version: ssl.TLSVersion
) -> None:
    # Given clients with a certificate of the authority, with one of another, and with none
    (certificates.folder / "other").mkdir(exist_ok=True)
    stranger = Certificates(certificates.folder / "other").client_context("stranger")
    stranger.load_verify_locations(certificates.ca_file)
    contexts = [certificates.client_context("core"), stranger, certificates.client_context()]
    async with serving(**tls, client_ca_file=Path(certificates.ca_file)) as site:
        answers = []
        for number, context in enumerate(contexts):
            context.minimum_version = context.maximum_version = version
            peer = await site.connect(context)
            try:
                await peer.send(line(number))
                answers.append(await peer.answer())
            except trio.BrokenResourceError:
                answers.append(None)
            await trio.aclose_forcefully(peer.stream)
        # Then only the first is heard
        assert answers == [{"ack": 1, "accepted": 1, "duplicate": 0, "rejected": []}, None, None]
        await site.until(lambda: site.intake.refused == 2 and not site.intake.connections)


async def test_a_handshake_that_fails_or_never_comes_disturbs_nobody(
    certificates: Certificates, tls: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(**tls) as site:
        good = await site.connect(certificates.client_context())
        await good.send(line(1))
        await good.acknowledged(1)
        monkeypatch.setattr(stream, "OPENING_S", 0.2)
        silent, plain = await site.connect(), await site.connect()
        await plain.send(line(1))
        for peer in (silent, plain):  # neither is said anything that it could not read
            assert b'"' not in await peer.stream.receive_some()
        await good.send(line(2))
        assert (await good.acknowledged(2))["accepted"] == 2
        assert site.intake.refused == 2


def test_certificates_that_cannot_be_used_are_named_with_their_key(tls: Any, tmp_path: Path) -> None:
    (tmp_path / "none.pem").write_text("no certificate")
    broken = StreamIntakeConfig(tls_cert_file=tmp_path / "none.pem", tls_key_file=tls["tls_key_file"])
    with pytest.raises(ConfigurationError, match=r"^intake.stream.tls_cert_file: .*none.pem and tls_key_file .*PEM"):
        tls_context(broken)
    nobody = StreamIntakeConfig(**tls, client_ca_file=tmp_path / "none.pem")
    with pytest.raises(ConfigurationError, match=r"^intake.stream.client_ca_file: .*none.pem holds no certificate"):
        tls_context(nobody)
    assert tls_context(StreamIntakeConfig()) is None


def test_a_key_with_a_password_is_refused_and_not_asked_for(certificates: Certificates, tls: Any) -> None:
    locked = certificates.folder / "locked.key"
    certificates.lock(tls["tls_key_file"], locked)
    with pytest.raises(ConfigurationError, match="without a password"):
        tls_context(StreamIntakeConfig(tls_cert_file=tls["tls_cert_file"], tls_key_file=locked))


# ---- limits and ends


async def test_one_connection_too_many_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_listener, "MAX_CONNECTIONS", 3)
    async with serving() as site:
        peers = [await site.connect() for _ in range(3)]
        await site.until(lambda: site.intake.connections == 3)
        assert "3 connections are open" in (await (await site.connect()).rest())[0]["error"]
        assert (site.intake.refused, site.intake.connections) == (1, 3)
        # And when one of them goes, there is room again
        await peers[0].finish()
        await site.until(lambda: site.intake.connections == 2)
        again = await site.connect()
        await again.send(line(1))
        assert (await again.acknowledged(1))["accepted"] == 1


async def test_descriptors_for_the_ledger_and_the_providers_are_kept_back() -> None:
    assert stream_listener.connections_for(1024, 1024) == (1024, 512)
    assert stream_listener.connections_for(1024, 4096) == (4096, 3584)
    assert stream_listener.connections_for(1024, -1) == (4608, 4096)
    assert stream_listener.connections_for(-1, -1) == (-1, 4096)
    assert stream_listener.connections_for(256, 256) == (256, 1)


async def test_many_connections_read_less_at_a_time() -> None:
    async with serving() as site:
        assert site.intake.read_bytes(1) == 256 * 1024
        assert site.intake.read_bytes(64) == 256 * 1024
        assert site.intake.read_bytes(1000) == 16_777
        assert site.intake.read_bytes(4096) == 4096


async def test_a_silent_connection_is_counted_as_closed_for_idleness() -> None:
    async with serving(idle_seconds=1.0) as site:
        peer = await site.connect()
        assert "nothing came for 1 seconds" in (await peer.rest())[0]["error"]
        await peer.stream.aclose()
        await site.until(lambda: site.intake.closed_idle == 1)


async def test_a_connection_that_is_reset_disturbs_nobody() -> None:
    async with serving() as site:
        for number in range(20):
            raw = socket.create_connection(("127.0.0.1", int(site.url.rpartition(":")[2])))
            raw.sendall(line(number) * (number + 1))
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            raw.close()
        peer = await site.connect()
        await peer.send(line(100))
        assert (await peer.acknowledged(1))["accepted"] == 1
        await site.until(lambda: site.intake.connections == 1)


async def test_a_defect_that_one_connection_meets_does_not_end_the_others() -> None:
    async with serving() as site:
        admit = site.engine.admit

        async def defective(batch: Any) -> Any:
            if batch[0].event.id == "e1":
                raise ZeroDivisionError
            return await admit(batch)

        site.engine.admit = defective  # type: ignore[method-assign]
        good, bad = await site.connect(), await site.connect()
        await bad.send(line(1))
        assert await bad.rest() == []
        await good.send(line(2))
        assert (await good.acknowledged(1))["accepted"] == 1


async def test_told_to_stop_it_ends_every_connection_with_a_word(certificates: Certificates, tls: Any) -> None:
    # Given connections that were used, that are silent, and that are in mid-handshake
    async with serving(**tls) as site:
        used = await site.connect(certificates.client_context())
        await used.send(line(1))
        await used.acknowledged(1)
        handshaking = await site.connect()
        await site.until(lambda: site.intake.connections == 2)
        started = trio.current_time()
        # When it is told to stop
        site.stop.set()
        # Then all is over soon, and who can be told is told
        assert "stopping" in (await used.rest())[0]["error"]
        await used.stream.aclose()
        assert not await handshaking.stream.receive_some()
        await site.stopped.wait()
        assert trio.current_time() - started < stream_listener.STOP_S
        with pytest.raises(OSError, match="all attempts to connect"):
            await site.connect()


async def test_a_listener_can_be_opened_by_one_process_and_used_by_others() -> None:
    # Given a socket that listens, and its descriptor as a child inherits it
    (opened,) = await open_listeners("127.0.0.1:0", "intake.stream.listen")
    inherited = inherited_listeners([os.dup(opened.socket.fileno())])
    opened.socket.close()
    async with serving(inherited) as site:
        peer = await site.connect()
        await peer.send(line(1))
        assert (await peer.acknowledged(1))["accepted"] == 1


async def test_an_address_that_cannot_be_had_is_one_line_that_names_the_key() -> None:
    (taken,) = await open_listeners("127.0.0.1:0", "intake.stream.listen")
    port = taken.socket.getsockname()[1]
    with pytest.raises(PortInUse, match=rf"^intake.stream.listen: 127.0.0.1:{port} is in use by another process; stop"):
        await open_listeners(f"127.0.0.1:{port}", "intake.stream.listen")
    taken.socket.close()
    section = StreamIntakeConfig(listen="192.0.2.1:0", token_file=Path("token"))  # an address that nobody has
    with pytest.raises(PortInUse, match=r"^intake.stream.listen: cannot listen on 192.0.2.1:0: Cannot assign"):
        await open_listeners(section.listen, "intake.stream.listen")
