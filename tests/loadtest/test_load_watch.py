"""What is seen from outside: the providers' book, the engine's metrics and processes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest
import trio

from dispatcher.errors import SwipebellError
from loadtest.load.machine import ProcessTree, machine
from loadtest.load.tally import Tally
from loadtest.load.watch import BookWatch, Metrics
from loadtest.providers.errors import SettingsTextError
from loadtest.providers.faults import Faults, parse_faults
from loadtest.providers.mixes import MIXES, fault_options, parse_mix
from loadtest.providers.server import Providers, serve_providers
from loadtest.providers.settings import ProviderSettings


@asynccontextmanager
async def serving(settings: ProviderSettings) -> AsyncIterator[tuple[str, Providers]]:
    providers = Providers(settings)
    async with trio.open_nursery() as nursery:

        async def serve(task_status: trio.TaskStatus[int]) -> None:
            await serve_providers(settings, providers=providers, task_status=task_status)

        yield f"http://127.0.0.1:{await nursery.start(serve)}", providers
        nursery.cancel_scope.cancel()


async def test_the_book_gives_keys_and_when_their_answers_left() -> None:
    # Given a provider that takes 20 ms, with one message of each channel, and one without a key
    async with serving(ProviderSettings(latency_seconds=0.02)) as (url, providers):
        book = providers.book
        book.deliver_wechat(openid="o1", client_msg_id="k0", msgid=1, data={"a": "b"}, now=1000.5)
        book.deliver_wechat(openid="o2", client_msg_id=None, msgid=2, data={"a": "b"}, now=1000.6)
        book.deliver_sms(message_id="k1", to="+86", text="x", now=1000.75)
        async with httpx.AsyncClient(base_url=url, trust_env=False) as client:
            wechat = await client.get("/_book/keys")
            rest = await client.get("/_book/keys", params={"offset": 2})
            sms = await client.get("/_book/keys", params={"channel": "sms", "limit": 1})
            bad = await client.get("/_book/keys", params={"channel": "fax"})
    assert wechat.text.split() == ["k0", "1000.5200", "-", "1000.6200"]
    assert rest.text == ""
    assert sms.text.split() == ["k1", "1000.7700"]
    assert bad.status_code == 400


async def test_new_messages_are_matched_page_by_page_behind_what_was_there_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("loadtest.load.watch.PAGE_ROWS", 4)
    async with serving(ProviderSettings()) as (url, providers):
        for number in range(3):
            providers.book.deliver_wechat(openid="o", client_msg_id=f"old{number}", msgid=number, data={}, now=1.0)
        tally = Tally(exclusive=False)
        watch = BookWatch(url, tally, lambda: 7.0)
        await watch.start()
        tally.arrive([0.0] * 10)
        tally.build([f"k{number}" for number in range(10)])
        for number in range(9):
            providers.book.deliver_wechat(openid="o", client_msg_id=f"k{number}", msgid=9, data={}, now=2.0)
        providers.book.deliver_sms(message_id="k9", to="+86", text="x", now=3.0)
        await watch.look()
        await watch.look()
        await watch.aclose()
    assert dict(tally.shown_by) == {"wechat": 9, "sms": 1}
    assert (tally.foreign, tally.shown_twice, tally.pending, tally.seen_until) == (0, 0, {}, 7.0)
    assert tally.delivered.at(100) == pytest.approx(3000, rel=0.01)


async def test_what_is_no_book_is_one_line() -> None:
    watch = BookWatch("http://127.0.0.1:1", Tally(), lambda: 0.0)
    with pytest.raises(SwipebellError, match="no simulated providers answer there; start them"):
        await watch.start()
    await watch.aclose()


def metrics(attempts: int, unknown: int, delivered: int, open_alerts: int) -> str:
    return (
        "# HELP swipebell_attempts_total Answers\n# TYPE swipebell_attempts_total counter\n"
        f'swipebell_attempts_total{{channel="wechat",outcome="accepted"}} {attempts}.0\n'
        f'swipebell_attempts_total{{channel="wechat",outcome="unknown"}} {unknown}.0\n'
        f'swipebell_attempts_created{{channel="wechat",outcome="unknown"}} 1.7e+09\n'
        f'swipebell_alerts_ended_total{{state="delivered"}} {delivered}.0\n'
        f"swipebell_open_alerts {open_alerts}.0\npython_info 1\n"
    )


def test_counters_of_a_process_that_began_anew_go_on() -> None:
    said = Metrics()
    said.take(metrics(100, 3, 90, 10))
    said.take(metrics(150, 4, 140, 12))
    # The process was killed; the next one counts from 0
    said.take(metrics(20, 1, 15, 2))
    assert said.attempts["wechat"] == 154 + 21
    assert dict(said.retries) == {"no answer": 5}
    assert (said.ended["delivered"], said.open, said.answers) == (155, 2, True)


def test_a_process_tree_knows_its_processor_time_and_its_largest_member() -> None:
    # Given a process with a child that works and holds memory
    child = "x = bytearray(60 * 2**20)\nwhile True: pass"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    with subprocess.Popen([sys.executable, "-c", parent], process_group=0) as process:
        tree = ProcessTree(process.pid)
        try:
            give_up_at = time.monotonic() + 30
            while time.monotonic() < give_up_at:
                usage = tree.usage()
                if usage is not None and usage.largest_mb > 60:
                    break
            assert usage is not None
            assert usage.largest_mb > 60
            assert usage.processes == 2
            (worker,) = tree.workers()
            assert worker != process.pid
            # Over a while in which the child has used processor time, that time is seen
            used = 0.0
            while time.monotonic() < give_up_at:
                more = tree.usage()
                assert more is not None
                used += more.cores
                if used:
                    break
            assert used > 0
        finally:
            os.killpg(process.pid, 9)
    assert tree.usage() is None


def test_the_machine_is_described() -> None:
    found = machine()
    assert int(found["cores"]) >= 1
    assert found["swipebell"]


@pytest.mark.parametrize("name", sorted(MIXES))
def test_a_mix_goes_to_the_providers_as_it_is(name: str) -> None:
    assert parse_faults(fault_options(parse_mix(name))) == MIXES[name]


def test_single_faults_and_unknown_mixes() -> None:
    assert parse_mix("busy=0.5,reset=0.1") == Faults(busy=0.5, reset=0.1)
    with pytest.raises(SettingsTextError, match="known are calm, ordinary, busy"):
        parse_mix("stormy")


async def test_two_looks_at_a_time_take_a_message_once() -> None:
    # Given a book with two messages of this run
    async with serving(ProviderSettings()) as (url, providers):
        tally = Tally()
        watch = BookWatch(url, tally, trio.current_time)
        await watch.start()
        tally.arrive([0.0, 0.0])
        tally.build(["k0", "k1"])
        for number in range(2):
            providers.book.deliver_wechat(
                openid="o", client_msg_id=f"k{number}", msgid=number, data={"a": "b"}, now=1000.0
            )
        # When the last look of a run meets one of those that are made all the time
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch.look)
            nursery.start_soon(watch.look)
        await watch.aclose()
    # Then each message is seen once
    assert (tally.shown, tally.shown_twice) == (2, 0)
