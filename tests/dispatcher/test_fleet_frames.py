"""Frames between supervisor and worker, a worker's share, and the shared sockets."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock, memory_stream_pair

from dispatcher.config import Config, IntakeConfig, LedgerConfig, ReceiptsConfig, StreamIntakeConfig
from dispatcher.config_channels import ChannelsConfig, SmsConfig, WechatConfig
from dispatcher.errors import ConfigurationError, LedgerFailed, PortInUse, SwipebellError, known_error
from dispatcher.fleet.frames import (
    MAX_FRAME_BYTES,
    SEND_S,
    Ask,
    Failed,
    FramesBroken,
    Ready,
    Report,
    Start,
    Stop,
    SupervisorsEnd,
    WorkersEnd,
)
from dispatcher.fleet.share import check_processes, share_of
from dispatcher.fleet.sockets import bind_all, close_all, scheme_of, sections_to_listen, url_of
from dispatcher.metrics import Meter


def a_config(*, rate: int = 200, connections: int = 64) -> Config:
    return Config(
        path=Path("/etc/swipebell/swipebell.toml"),
        ledger=LedgerConfig(url="sqlite:////var/lib/ledger.db"),
        receipts=ReceiptsConfig(listen="127.0.0.1:0", token_file=Path("/etc/token")),
        channels=ChannelsConfig(
            wechat=WechatConfig(
                appid="wx1", secret_file=Path("/etc/secret"), rate_per_second=rate, connections=connections
            ),
            sms=SmsConfig(base_url="http://127.0.0.1:9/sms", on_unknown={"swipe": "resend"}),
        ),
    )


# ---- frames -------------------------------------------------------------------------------------------------------


async def test_every_word_arrives_as_it_was_said() -> None:
    ours, theirs = memory_stream_pair()
    supervisor, worker = SupervisorsEnd(ours), WorkersEnd(theirs)
    # Given what a supervisor says, a whole configuration among it
    start = Start(index=1, processes=3, config=a_config(), listeners={"receipts": 7}, lines=9, restamped=True)
    for frame in (start, Ask(), Stop()):
        assert await supervisor.send(frame)
        assert await worker.receive() == frame
    # And what a worker says
    meter = Meter()
    meter.read(3)
    for word in (Ready(), Failed("LedgerFailed", "the disk failed"), Report(meter.totals, "trouble")):
        assert await worker.send(word)
    assert await supervisor.receive() == Ready()
    assert await supervisor.receive() == Failed("LedgerFailed", "the disk failed")
    report = await supervisor.receive()
    assert isinstance(report, Report)
    assert (report.totals.events, report.trouble) == ({"read": 3}, "trouble")
    # Then nothing more is heard of one that is gone, and it hears nothing
    await worker.aclose()
    assert await supervisor.receive() is None
    assert not await supervisor.send(Ask())


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        ((MAX_FRAME_BYTES + 1).to_bytes(4, "big"), "1,048,58"),
        (b"\0\0\0\x02{}", "cannot be read"),
        (b"\0\0\0\x03\x81\xa1x", "cannot be read"),
    ],
)
async def test_what_is_no_frame_is_not_guessed_at(raw: bytes, words: str) -> None:
    for end in (SupervisorsEnd, WorkersEnd):
        ours, theirs = memory_stream_pair()
        await theirs.send_all(raw)
        with pytest.raises(FramesBroken, match=words):
            await end(ours).receive()


async def test_a_frame_that_is_cut_off_was_never_said() -> None:
    ours, theirs = memory_stream_pair()
    await theirs.send_all(b"\0\0\0\x09\x81")
    await theirs.aclose()
    assert await SupervisorsEnd(ours).receive() is None


async def test_a_cancelled_send_leaves_no_half_frame() -> None:
    # Given two tasks that send, one of which is cancelled as it begins
    ours, theirs = memory_stream_pair()
    worker, supervisor = WorkersEnd(ours), SupervisorsEnd(theirs)
    with trio.CancelScope() as scope:
        scope.cancel()
        await worker.send(Failed("x", "y" * 10_000))
    await worker.send(Ready())
    # Then the other's frame is whole, whether the first was sent or not
    frame = await supervisor.receive()
    if frame != Ready():
        frame = await supervisor.receive()
    assert frame == Ready()


async def test_a_peer_that_does_not_read_is_given_up(autojump_clock: MockClock) -> None:
    ours, _theirs = trio.testing.lockstep_stream_pair()  # a send waits until somebody reads
    worker = WorkersEnd(ours)
    assert not await worker.send(Ready())
    assert trio.current_time() == pytest.approx(SEND_S)
    assert not await worker.send(Ready())


# ---- shares -------------------------------------------------------------------------------------------------------


@given(st.integers(1, 64), st.integers(64, 100_000), st.integers(64, 1024))
def test_the_shares_add_up_to_what_the_provider_allows(processes: int, rate: int, connections: int) -> None:
    config = a_config(rate=rate, connections=connections)
    shares = [share_of(config, index, processes).channels.wechat for index in range(processes)]
    parts = [share.connections for share in shares if share is not None]
    assert sum(parts) == connections
    assert max(parts) - min(parts) <= 1
    # And the rate, which they share by leases, is told to each whole
    assert {share.rate_per_second for share in shares if share is not None} == {rate}
    # And nothing else is another
    assert share_of(config, 0, 1) == config


def test_what_cannot_be_shared_is_refused() -> None:
    config = a_config(rate=3, connections=3)
    check_processes(config, 3)
    with pytest.raises(ConfigurationError) as error:
        check_processes(config, 4)
    assert str(error.value) == (
        "--processes 4: channels.wechat.connections is 3, which cannot be shared by so many; say --processes 3 at most"
    )
    assert error.value.exit_status == 2


# ---- sockets ------------------------------------------------------------------------------------------------------


def test_a_socket_in_use_is_named_and_none_stays_open() -> None:
    # Given one of two ports is taken
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        sections = {"intake.http": "127.0.0.1:0", "receipts": f"127.0.0.1:{port}"}
        with pytest.raises(PortInUse) as error:
            bind_all(sections)
    assert str(error.value) == (
        f"receipts.listen: 127.0.0.1:{port} is in use by another process; stop it or choose another port"
    )
    with pytest.raises(PortInUse, match=r"receipts\.listen: cannot listen on 192\.0\.2\.1:0"):
        bind_all({"receipts": "192.0.2.1:0"})


def test_a_bound_socket_takes_connections_before_any_worker_is_there() -> None:
    bound = bind_all({"intake.http": "127.0.0.1:0"})
    url = url_of(bound["intake.http"], "http")
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=5):
        pass
    close_all(bound.values())
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((host, int(port)), timeout=5)


def test_a_send_listens_for_receipts_only() -> None:
    config = a_config()
    assert sections_to_listen(config, intake=False) == {"receipts": "127.0.0.1:0"}
    assert sections_to_listen(Config(), intake=False) == {}
    assert sections_to_listen(config, intake=True) == {"receipts": "127.0.0.1:0", "intake.http": "127.0.0.1:8080"}
    everything = Config(intake=IntakeConfig(stream=StreamIntakeConfig()))
    assert sections_to_listen(everything, intake=True) == {
        "intake.http": "127.0.0.1:8080",
        "intake.stream": "127.0.0.1:8082",
    }
    assert [scheme_of(everything, name) for name in ("intake.http", "intake.stream")] == ["http", "tcp"]


# ---- errors -------------------------------------------------------------------------------------------------------

A, B = LedgerFailed("a"), SwipebellError("b")


@pytest.mark.parametrize(
    ("error", "known"),
    [
        (A, A),
        (ValueError(), None),
        (BaseExceptionGroup("", [A, B]), A),
        (BaseExceptionGroup("", [BaseExceptionGroup("", [B]), A]), B),
        (BaseExceptionGroup("", [A, ValueError()]), None),
        (BaseExceptionGroup("", [KeyError()]), None),
    ],
)
def test_of_a_group_of_errors_one_is_told_unless_a_defect_is_in_it(error: Any, known: Any) -> None:
    assert known_error(error) is known
