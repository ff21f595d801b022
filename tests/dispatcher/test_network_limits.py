"""The network's end, a defect in it, and much of everything at once."""

from __future__ import annotations

import os
import resource
import socket
import statistics
import threading
import time
from collections import Counter
from collections.abc import Iterator

import pytest
import trio

from dispatcher.httpd import Answer, serve_http
from dispatcher.network import curl
from dispatcher.network.api import Failure, PoolSettings, Response
from dispatcher.network.curl import CurlNetwork
from tests.dispatcher.network_kit import (
    PATIENCE_S,
    POOL,
    Mailbox,
    answers_nothing,
    ask_one,
    echo,
    networking,
    post,
    serving,
)


async def test_closing_answers_everything_once() -> None:
    # Given five requests on the wire and ten that wait for a connection
    async with serving(answers_nothing) as server:
        before = open_descriptors()
        network = CurlNetwork({POOL: PoolSettings(connections=5)})
        mailbox = Mailbox()
        network.submit([post(f"{server.url}/{n}", tag=n) for n in range(15)], mailbox.deliver)
        with trio.fail_after(PATIENCE_S):
            while len(server.seen) < 5:
                await trio.lowlevel.checkpoint()
        network.submit([post(server.url, tag=15)], mailbox.deliver)
        # When it is closed, even by a task that is being cancelled
        with trio.CancelScope() as scope:
            scope.cancel()
            await network.aclose()
        # Then each has exactly one response, and only those on the wire are open
        assert sorted(response.request.tag for response in mailbox.responses) == list(range(16))
        failures = Counter(response.failure for response in mailbox.responses)
        assert failures == {Failure.UNKNOWN: 5, Failure.NOT_SENT: 11}
        # And it takes no more, and may be closed again
        with pytest.raises(RuntimeError, match="the network is closed"):
            network.submit([post(server.url)], mailbox.deliver)
        await network.aclose()
        assert len(mailbox.responses) == 16
        # And leaves nothing behind but the server's ends, which close in their time
        with trio.fail_after(PATIENCE_S):
            while open_descriptors() > before:
                await trio.lowlevel.checkpoint()
        assert not network._thread.is_alive()


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


async def test_a_defect_in_the_network_thread_leaves_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a network whose thread will meet a bug
    raised: list[threading.ExceptHookArgs] = []
    monkeypatch.setattr(threading, "excepthook", raised.append)
    async with serving(answers_nothing) as server:
        network = CurlNetwork({POOL: PoolSettings(connections=2)})
        mailbox = Mailbox()
        network.submit([post(server.url, tag=n) for n in range(3)], mailbox.deliver)
        with trio.fail_after(PATIENCE_S):
            while len(server.seen) < 2:
                await trio.lowlevel.checkpoint()
        monkeypatch.setattr(network, "_start_waiting", lambda _active: 1 / 0)
        network.submit([post(server.url, tag=3)], mailbox.deliver)
        # When it happens, then every request has its response all the same, the next is refused, and it is not silent
        assert sorted(response.request.tag for response in await mailbox.all_of(4)) == [0, 1, 2, 3]
        with pytest.raises(RuntimeError, match="the network is closed"):
            network.submit([post(server.url)], mailbox.deliver)
        await network.aclose()
    assert [args.exc_type for args in raised] == [ZeroDivisionError]


async def test_a_flood_is_taken_in_bounded_memory_and_time() -> None:
    # Given 20,000 small requests handed over at once
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    url = f"http://127.0.0.1:{listener.socket.getsockname()[1]}/"
    answer = Answer(b"{}")
    counts: Counter[tuple[int, Failure | None]] = Counter()
    done = trio.Event()

    def count(responses: list[Response]) -> None:
        counts.update((response.status, response.failure) for response in responses)
        if counts.total() >= 20_000:
            done.set()

    async with trio.open_nursery() as nursery, networking(32) as network:
        nursery.start_soon(serve_http, lambda _request: answer, [listener])
        await ask_one(network, post(url))
        before_kib = peak_kib()
        started = time.perf_counter()
        for _ in range(200):
            network.submit([post(url) for _ in range(100)], count)
        with trio.fail_after(30):
            await done.wait()
        # Then all are answered, in seconds, and what they cost is about their own size
        assert counts == {(200, None): 20_000}
        assert time.perf_counter() - started < 20
        assert peak_kib() - before_kib < 64 * 1024
        nursery.cancel_scope.cancel()


def peak_kib() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


SELECT_SETSIZE = 1024
"""Of glibc's select()."""


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    """Every descriptor that select() could hold is taken."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = SELECT_SETSIZE + 256
    if hard != resource.RLIM_INFINITY and hard < wanted:
        pytest.skip(f"needs {wanted} file descriptors, and this process may have {hard}")
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    taken: list[int] = []
    while not taken or taken[-1] < SELECT_SETSIZE:
        taken.append(os.open(os.devnull, os.O_RDONLY))
    yield
    for descriptor in taken:
        os.close(descriptor)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_descriptors_that_select_cannot_hold_are_no_slower(many_descriptors: None) -> None:
    # Given that every new socket has a number above 1,024
    async with serving(echo) as server, networking(4) as network:
        took = []
        # When requests follow each other on fresh and on kept connections
        for n in range(10):
            started = time.perf_counter()
            response = await ask_one(network, post(server.url, b"%d" % n * 2_000, fresh=n % 2 == 0))
            took.append(time.perf_counter() - started)
            assert (response.status, response.body) == (200, b"%d" % n * 2_000)
        # Then they do not wait for a timer (a second each, when their sockets are not watched)
        assert statistics.median(took) < 0.9


async def test_a_sleeping_network_wakes_for_every_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a network that would sleep for ten minutes
    monkeypatch.setattr(curl, "MAX_SLEEP_MS", 600_000)
    async with serving(echo) as server, networking(2) as network:
        # When a batch comes whenever it sleeps, then each is answered
        for n in range(300):
            assert (await ask_one(network, post(server.url, b"%d" % n))).body == b"%d" % n


async def test_a_run_that_forgets_to_close_does_not_hang() -> None:
    # Given a run that ends with a request under way, when its time is up, then the thread ends as well
    networks = []
    listener = socket.create_server(("127.0.0.1", 0))

    async def forgetful() -> None:
        network = CurlNetwork({POOL: PoolSettings(connections=1)})
        networks.append(network)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        network.submit([post(url, timeout_ms=200)], lambda _responses: None)

    with listener:
        await trio.to_thread.run_sync(lambda: trio.run(forgetful))
        with trio.fail_after(PATIENCE_S):
            await trio.to_thread.run_sync(networks[0]._thread.join, abandon_on_cancel=True)


def test_a_request_and_a_response_print_nothing_of_what_they_carry() -> None:
    request = post(
        "https://provider/send?access_token=TOKEN-1",
        b'{"to":"+8613800138000"}',
        headers=("Authorization: Bearer SECRET-1",),
        tag="openid-1",
    )
    response = Response(request, 200, b"+8613800138000", headers=(b"Set-Cookie: SECRET-1",))
    for text in (repr(request), str(request), repr(response), str(response), f"{response!r}", f"{[response]}"):
        assert not [secret for secret in ("TOKEN-1", "13800138000", "SECRET-1", "openid-1") if secret in text]
    assert repr(response) == "<Response 200 from provider>"
    assert repr(Response(request, 0, b"", Failure.UNKNOWN, 28)) == "<Response unknown (28) from provider>"
