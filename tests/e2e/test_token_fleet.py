"""The access token dies with five hundred alerts in flight: the real engine, one process and four, the real network."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.e2e.processes_kit import END_S, line, until

IN_FLIGHT = 500
EXPIRIES = 3


@pytest.mark.parametrize("processes", [1, 4])
def test_each_expiry_with_five_hundred_alerts_in_flight_leads_to_exactly_one_refresh(
    providers: Callable[..., Any], site: Any, processes: int
) -> None:
    # Given a platform that takes a quarter of a second for an answer, so that hundreds of alerts are always on the wire
    platform = providers("--latency", "0.25")
    site.configure(platform.url, sms=False, extra=f"[engine]\nin_flight = {IN_FLIGHT // processes}\n")
    text = (site.folder / "swipebell.toml").read_text()
    (site.folder / "swipebell.toml").write_text(text.replace("connections = 32", "connections = 512"))
    events = site.folder / "events.ndjson"
    count = 8_000
    events.write_text("".join(line(number) + "\n" for number in range(count)))
    site.recipients_for(events)
    # When its token dies again and again meanwhile
    command = ("send", str(events), "--restamp", "--json")
    with site.start(*command, *(("--processes", str(processes)) if processes > 1 else ())) as process:
        in_flight = []
        for expiry in range(EXPIRIES):
            enough = 1_000 * (expiry + 1)
            until(lambda least=enough: platform.book()["wechat"]["accepted"] >= least, f"{enough} accepted")
            before = platform.book()["wechat"]
            platform.http.post("/_expire_token").raise_for_status()
            # Then those that come to the platform from now on are refused, until there is a new one
            until(lambda before=before: platform.book()["wechat"]["accepted"] > before["accepted"] + 600, "new token")
            in_flight.append(_refused(platform) - _refused_in(before))
        out, err = process.communicate(timeout=END_S * 4)
    assert process.returncode == 0, err
    summary = json.loads(out)
    book = platform.book()["wechat"]
    # Then every alert was delivered once, and there was one fetch at the start and one for each expiry
    assert summary["alerts"]["delivered"] == count
    assert summary["balanced"]
    assert book["delivered"] == count
    assert (book["token_requests"], book["forced_refreshes"]) == (1 + EXPIRIES, 0), (in_flight, err)
    # Not all of the five hundred: those that were accepted and whose answer was on its way stay so.
    assert min(in_flight) >= IN_FLIGHT // 2, in_flight
    assert "wxsimulated" not in err


def _refused_in(book: dict[str, Any]) -> int:
    return sum(int(number) for code, number in book["refused"].items() if code in ("42001", "40001"))


def _refused(platform: Any) -> int:
    return _refused_in(platform.book()["wechat"])
