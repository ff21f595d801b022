"""Rules that change while `swipebell run` goes on: in every process, and with maker and checker."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from ratelimit.rules import load_rules
from tests.e2e import test_run
from tests.e2e.processes_kit import END_S, line, serving, until, zone_where_it_is_noon

RULES = '[rules]\nfile = "rules.toml"\n'


def capped(limit: int) -> str:
    return f'version = 1\n[[rule]]\nid = "cap"\neffect = "cap"\nlimit = {limit}\nper = "account"\nwindow = "day"\n'


def version_of(limit: int) -> str:
    return load_rules(capped(limit), "test").version_id


def written_rules(site: Any, text: str) -> None:
    """As an editor does that writes beside the file and moves."""
    (site.folder / "rules.new").write_text(text)
    (site.folder / "rules.new").rename(site.folder / "rules.toml")


def decisions(site: Any) -> list[tuple[str, str, str]]:
    """(event, state, version of the rules) in the order of admission."""
    with closing(sqlite3.connect(site.folder / "ledger.db", timeout=END_S)) as connection:
        return connection.execute(
            "SELECT e.id, a.state, r.version FROM alerts a JOIN events e ON e.seq = a.id / 16"
            " JOIN rulesets r ON r.id = a.ruleset ORDER BY a.id"
        ).fetchall()


def test_every_process_of_a_fleet_takes_changed_rules_and_refuses_broken_ones(
    site: Any, providers: Callable[..., Any], free_port: Callable[[], int]
) -> None:
    if not Path(f"/proc/{os.getpid()}/task").exists():
        pytest.skip("no /proc here, so nobody tells which processes a supervisor has started")
    # Given a service of two processes, whose rules let one alert a day through
    site.configure(providers().url, sms=False, extra=RULES)
    written_rules(site, capped(1))
    test_run.imported(site, {"account": "acc-0", "openid": "o-acc-0", "timezone": zone_where_it_is_noon()})
    with serving(site, free_port) as service:

        def deciding(limit: int) -> float:
            return service.scrape().get(f'swipebell_rules_info{{version="{version_of(limit)}"}}', 0)

        until(lambda: deciding(1) == 2, "both processes to tell their rules")
        service.post(line(0), line(97))
        # When the file is broken, then the alarm is raised, and its rules stay in force
        written_rules(site, capped(2).replace('"cap"\nlimit', '"cup"\nlimit'))
        service.process.send_signal(signal.SIGHUP)  # which others take for "end"
        until(lambda: service.scrape().get('swipebell_rules_reloads_total{result="broken"}') == 2, "both to refuse it")
        assert service.scrape()["swipebell_rules_broken"] == 1
        service.post(line(2 * 97))
        # When it is mended, then both decide by the new rules, and the alarm is over
        written_rules(site, capped(2))
        until(lambda: deciding(2) == 2, "both processes to take them")
        until(lambda: not service.scrape()["swipebell_rules_broken"], "the end of the alarm")
        service.post(line(3 * 97), line(4 * 97))
        log = service.end()
    assert service.process.returncode == 0, log
    states = [(event[-3:], state, version) for event, state, version in decisions(site)]
    assert states == [
        ("000", "delivered", version_of(1)),
        ("097", "suppressed", version_of(1)),
        ("194", "suppressed", version_of(1)),
        # Two through by the new rules: their counter is that of the same rule.
        ("291", "delivered", version_of(2)),
        ("388", "suppressed", version_of(2)),
    ]
    broken = [json.loads(one) for one in log.splitlines() if '"rules_broken"' in one]
    assert {(one["rule"], one["key"], one["in_force"]) for one in broken} == {("cap", "effect", version_of(1))}
    assert len(broken) == 2, "one line of each process"


def test_approved_rules_decide_in_the_running_service(
    site: Any, providers: Callable[..., Any], free_port: Callable[[], int]
) -> None:
    # Given a service that asks for approval
    site.configure(providers().url, sms=False, extra=RULES + "approval = true\n")
    written_rules(site, capped(1))
    test_run.imported(site, test_run.RECIPIENT)
    with test_run.serving(site, free_port) as running:

        def swiped(number: int) -> str:
            running.http.post("/v1/events", content=test_run.ndjson(test_run.event(number)))
            return decisions(site)[-1][2]

        def told(sample: str) -> bool:
            return sample in running.metrics.get("/metrics").text

        assert swiped(1) == version_of(1)
        # When the file changes and the service is told to look, then the change only waits
        written_rules(site, capped(2))
        running.process.send_signal(signal.SIGHUP)
        until(lambda: told('swipebell_rules_reloads_total{result="waiting"} 1.0'), "the proposal")
        assert swiped(2) == version_of(1)
        # When somebody else approves it, then it decides
        site.run("rules", "approve", version_of(2), "--by", "Ben")
        until(lambda: told(f'swipebell_rules_info{{version="{version_of(2)}"}} 1.0'), "the new rules")
        assert swiped(3) == version_of(2)
