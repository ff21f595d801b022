"""`run --processes`: several processes as one service, and what happens when one of them dies."""

from __future__ import annotations

import itertools
import os
import signal
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.processes_kit import (
    END_S,
    Feed,
    alive,
    established,
    fail_writes,
    key_of,
    line,
    owned,
    owners,
    serving,
    until,
    with_error,
    written,
)


@pytest.fixture(autouse=True)
def needs_proc() -> None:
    if not Path(f"/proc/{os.getpid()}/task").exists():
        pytest.skip("no /proc here, so nobody tells which processes a supervisor has started")


def test_one_address_answers_for_all_processes(
    site: Any, providers: Callable[..., Any], free_port: Callable[[], int]
) -> None:
    # Given a service of two processes
    provider = providers()
    site.configure(provider.url, sms=False)
    site.recipients_for(written(site, 200))
    (site.folder / "token").write_text("scrape-me")
    with serving(site, free_port) as service:
        # When many connections bring events, then both processes have some, and /metrics knows all of them
        for number in range(0, 200, 4):
            service.post(*map(line, range(number, number + 4)))
        until(lambda: not service.scrape()["swipebell_open_alerts"], "the last alert")
        samples = service.scrape()
        assert samples['swipebell_events_total{result="accepted"}'] == 200
        assert samples['swipebell_alerts_ended_total{state="delivered"}'] == 200
        assert samples["swipebell_delivery_latency_seconds_count"] == 200
        assert samples["swipebell_swipe_to_acceptance_seconds_count"] == 200
        assert samples['swipebell_lane_queued_alerts{channel="wechat"}'] == 0
        assert samples["swipebell_processes_ready"] == 2
        assert service.metrics.get("/healthz").json() == {"status": "ok", "processes": {"wanted": 2, "ready": 2}}
        assert service.http.get("/healthz").status_code == 200
        assert provider.book()["wechat"]["delivered"] == 200

        # When one process is killed, then no sum goes down, and another takes its place
        survivor, victim = service.workers
        os.kill(victim, signal.SIGKILL)
        seen = [service.scrape()]
        until(lambda: seen.append(service.scrape()) or seen[-1]["swipebell_process_deaths_total"] == 1, "the death")
        until(lambda: seen.append(service.scrape()) or seen[-1]["swipebell_processes_ready"] == 2, "the new process")
        for number in range(200, 220):
            service.post(line(number))
            seen.append(service.scrape())
        until(lambda: not service.scrape()["swipebell_open_alerts"], "the last alert")
        seen.append(service.scrape())
        sums = [name for name in samples if "_total" in name or name.endswith(("_count", "_sum"))]
        assert len(sums) > 8
        for before, after in itertools.pairwise(seen):
            assert [name for name in sums if after[name] < before[name]] == []
        assert seen[-1]['swipebell_events_total{result="accepted"}'] == 220
        assert seen[-1]['swipebell_alerts_ended_total{state="delivered"}'] == 220
        assert seen[-1]["swipebell_process_deaths_total"] == 1
        assert survivor in service.workers
        # And all end in good order
        log = service.end()
        assert service.process.returncode == 0, log
    assert "Traceback" not in log
    assert "店铺" not in log


def test_connections_that_stay_open_are_shared_too(
    site: Any, providers: Callable[..., Any], free_port: Callable[[], int]
) -> None:
    # Given a service of two processes with a stream listener
    provider = providers()
    site.configure(provider.url, sms=False)
    site.recipients_for(written(site, 600))
    stream = free_port()
    with (
        serving(site, free_port, f'[intake.stream]\nlisten = "127.0.0.1:{stream}"\n') as service,
        ExitStack() as open_ones,
    ):
        # When sixty connections are opened, bring ten lines each, and stay
        for number in range(60):
            feed = open_ones.enter_context(closing(Feed(stream)))
            feed.send(*map(line, range(number * 10, number * 10 + 10)))
        # Then each process has its part of them
        counts = [established(pid, stream) for pid in service.workers]
        assert sum(counts) == 60
        assert min(counts) >= 12, counts
        # And all are delivered and counted
        until(lambda: not service.scrape()["swipebell_open_alerts"], "the last alert")
        assert service.scrape()['swipebell_alerts_ended_total{state="delivered"}'] == 600
        assert provider.book()["wechat"]["delivered"] == 600
        service.end()
        assert service.process.returncode == 0


def test_metrics_want_their_token(site: Any, providers: Callable[..., Any], free_port: Callable[[], int]) -> None:
    site.configure(providers().url, sms=False)
    (site.folder / "token").write_text("scrape-me")
    (site.folder / "token").chmod(0o600)
    with serving(site, free_port, 'token_file = "token"\n') as service:
        assert service.metrics.get("/metrics").status_code == 401
        with_token = service.metrics.get("/metrics", headers={"Authorization": "Bearer scrape-me"})
        assert with_token.status_code == 200
        service.end()
        assert service.process.returncode == 0


def test_what_a_dead_process_held_is_taken_over_within_ten_seconds(
    site: Any, providers: Callable[..., Any], free_port: Callable[[], int]
) -> None:
    # Given a service whose two processes hold alerts that their lanes will send for a long time
    provider = providers()
    site.configure(provider.url, sms=False)
    config = site.folder / "swipebell.toml"
    config.write_text(config.read_text().replace("rate_per_second = 50000", "rate_per_second = 40"))
    site.recipients_for(written(site, 150))
    stream = free_port()
    with (
        serving(site, free_port, f'[intake.stream]\nlisten = "127.0.0.1:{stream}"\n') as service,
        ExitStack() as open_ones,
    ):
        feeds = []
        while not all(established(pid, stream) for pid in service.workers):
            feeds.append(open_ones.enter_context(closing(Feed(stream))))
            feeds[-1].send(line(len(feeds)))
        assert len(feeds) < 20
        for place, feed in enumerate(feeds):
            feed.send(*map(line, range(20 + place, 150, len(feeds))))
        held = dict(owned(site))
        assert len(held) == 2, held
        # When one is killed
        victim = service.workers[0]
        os.kill(victim, signal.SIGKILL)
        dead = next(owner for owner, name in owners(site).items() if name.endswith(f":{victim}"))
        # Then soon none of its alerts is leased to it any more
        seconds = until(lambda: dead not in dict(owned(site)), "the take-over")
        assert seconds < 10
        # And all are delivered
        until(lambda: not service.scrape()["swipebell_open_alerts"], "the last alert")
        sent = {key_of(number) for number in (*range(1, len(feeds) + 1), *range(20, 150))}
        assert provider.book()["wechat"]["delivered"] == len(sent)
        assert {m["client_msg_id"] for m in provider.messages("wechat")} == sent
        service.end()
        assert service.process.returncode == 0


def test_sigterm_drains_all_processes(site: Any, providers: Callable[..., Any], free_port: Callable[[], int]) -> None:
    # Given two processes with alerts in flight at a slow provider, and more waiting
    provider = providers("--latency", "0.5")
    site.configure(provider.url, sms=False)
    site.recipients_for(written(site, 200))
    with serving(site, free_port) as service:
        for start in range(0, 200, 20):
            service.post(*map(line, range(start, start + 20)))
        # When the supervisor is told to stop
        log = service.end()
        assert service.process.returncode == 0, log
    assert '"worker_ended"' not in log
    # Then every answer that was under way was taken, and the rest was given back untouched
    events = site.folder / "none.ndjson"
    events.write_text("")
    summary = site.send(events, "--processes", "2")
    assert summary["ledger"]["alerts"]["delivered"] == 200
    assert summary["ledger"]["unknown_attempts"] == 0
    assert provider.book()["wechat"]["requests"] == 200


def test_a_second_signal_does_not_wait_for_the_drain(
    site: Any, providers: Callable[..., Any], free_port: Callable[[], int]
) -> None:
    # Given alerts in flight at a provider that answers in half a minute
    provider = providers("--latency", "30")
    site.configure(provider.url, sms=False)
    config = site.folder / "swipebell.toml"
    config.write_text(config.read_text().replace("connections = 32", "connections = 32\ntimeout_seconds = 60"))
    site.recipients_for(written(site, 4))
    with serving(site, free_port) as service:
        service.post(*map(line, range(4)))
        until(lambda: provider.book()["wechat"]["requests"] == 4, "the requests")
        workers = service.workers
        service.process.send_signal(signal.SIGTERM)
        assert service.process.stderr is not None
        until(lambda: '"stopping"' in service.process.stderr.readline(), "the first signal")  # type: ignore[union-attr]
        # When the operator insists
        started = time.monotonic()
        log = service.end(signal.SIGINT)
        # Then it ends without the answers
        assert time.monotonic() - started < 5
    assert '"killing"' in log
    assert not any(map(alive, workers))


def test_workers_end_by_themselves_when_the_supervisor_is_killed(
    site: Any, providers: Callable[..., Any], free_port: Callable[[], int]
) -> None:
    # Given a service with alerts in flight
    provider = providers("--latency", "0.3")
    site.configure(provider.url, sms=False)
    site.recipients_for(written(site, 100))
    with serving(site, free_port) as service:
        for start in range(0, 100, 10):
            service.post(*map(line, range(start, start + 10)))
        workers = service.workers
        # When the supervisor is killed
        service.process.kill()
        service.process.communicate()
        until(lambda: not any(map(alive, workers)), "the workers' end")
        port = service.http.base_url.port
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port or 0), timeout=END_S)
    # Then they had drained: nothing is lost, nothing is of unknown outcome
    (site.folder / "none.ndjson").write_text("")
    summary = site.send("none.ndjson")
    assert summary["ledger"]["alerts"]["delivered"] == 100
    assert summary["ledger"]["unknown_attempts"] == 0


def test_one_whose_disk_fails_stops_all(site: Any, providers: Callable[..., Any], free_port: Callable[[], int]) -> None:
    # Given a service
    site.configure(providers().url, sms=False)
    site.recipients_for(written(site, 200))
    with serving(site, free_port) as service:
        service.post(*map(line, range(10)))
        until(lambda: not service.scrape()["swipebell_open_alerts"], "the first alerts")
        workers = service.workers
        # When for one of its processes every write to the ledger's log fails from now on
        victim = workers[0]
        fail_writes(victim, beyond=(site.folder / "ledger.db-wal").stat().st_size)
        for number in range(10, 200):
            with_error(service, line(number))
            if service.process.poll() is not None:
                break
        _, rest = service.process.communicate(timeout=END_S)
    # Then both end, with the reason in one line and the exit status of a failure
    assert service.process.returncode == 1, rest
    last = rest.splitlines()[-1]
    assert last.startswith(f"swipebell: ledger {site.folder}/ledger.db: the disk failed (SQLITE_IOERR")
    assert rest.count("swipebell: ledger") == 1
    assert not any(map(alive, workers))
