"""Templates that change while `swipebell run` goes on: approved for a part of the accounts, refused, rolled back."""

from __future__ import annotations

import itertools
import signal
import sqlite3
from collections.abc import Callable
from contextlib import closing
from typing import Any

from tests.dispatcher.template_kit import template
from tests.e2e import test_run
from tests.e2e.processes_kit import END_S, until

TEMPLATES = '[templates]\npath = "templates"\napproval = true\n'


def told_by(site: Any) -> list[str]:
    """The versions, in the order of admission."""
    with closing(sqlite3.connect(site.folder / "ledger.db", timeout=END_S)) as connection:
        return [row[0] for row in connection.execute("SELECT template FROM alerts ORDER BY id")]


def states(site: Any) -> dict[int, str]:
    """Of swipe's versions."""
    with closing(sqlite3.connect(site.folder / "ledger.db", timeout=END_S)) as connection:
        return dict(connection.execute("SELECT version, state FROM template_versions WHERE id='swipe'"))


def test_a_running_service_tells_an_approved_version_and_goes_back(
    site: Any, providers: Callable[..., Any], free_port: Callable[[], int]
) -> None:
    # Given a service that asks for approval, with a template of the bank's
    site.configure(providers().url, sms=False, extra=TEMPLATES)
    file = site.folder / "templates" / "swipe" / "template.toml"
    file.parent.mkdir(parents=True)
    file.write_text(template(version=7))
    test_run.imported(site, test_run.RECIPIENT)
    with test_run.serving(site, free_port) as running:
        numbers = itertools.count(1)

        def swiped() -> str:
            running.http.post("/v1/events", content=test_run.ndjson(test_run.event(next(numbers))))
            return told_by(site)[-1]

        assert swiped() == "swipe@7"
        # When another version comes, then it waits
        file.write_text(template(version=8, says="{{ merchant }}!"))
        running.process.send_signal(signal.SIGHUP)
        until(lambda: 8 in states(site), "the proposal")
        assert swiped() == "swipe@7"
        # When it is approved, then it is told
        site.run("templates", "approve", "swipe@8", "--by", "Ben")
        until(lambda: swiped() == "swipe@8", "the service to tell it")
        # And when it is rolled back, the one before
        site.run("templates", "rollback", "swipe", "--by", "Ben")
        until(lambda: swiped() == "swipe@7", "the service to go back")
        # And a version that says something else raises the alarm
        file.write_text(template(version=8, says="{{ merchant }}?"))
        until(lambda: "swipebell_templates_broken 1.0" in running.metrics.get("/metrics").text, "the alarm")
    assert states(site) == {7: "active", 8: "withdrawn"}
