"""`swipebell run` as a bank would use it: events over HTTP, metrics, health, receipts, an orderly end."""

from __future__ import annotations

import gzip
import json
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from loadtest.poster import signature
from tests.e2e.processes_kit import END_S


def event(number: int, **changes: Any) -> dict[str, Any]:
    return {
        "id": f"http-{number}",
        "account": "acc-1",
        "pan": "************0426",
        "amount": 12_345,
        "currency": "CNY",
        "merchant": f"海底捞 {number}",  # no two alike: a burst of one would be a storm
        "time": "2099-01-01T00:00:00+08:00",
        **changes,
    }


def ndjson(*events: dict[str, Any]) -> bytes:
    return b"".join(json.dumps(one).encode() + b"\n" for one in events)


class Running:
    def __init__(self, process: subprocess.Popen[str], intake: str, metrics: str, receipts: str) -> None:
        self.process = process
        self.http = httpx.Client(base_url=intake, timeout=END_S)
        self.metrics = httpx.Client(base_url=metrics, timeout=END_S)
        self.receipts = receipts
        self.log: list[str] = []

    def metric(self, name: str) -> float:
        text = self.metrics.get("/metrics").text
        found = [line.split(" ")[-1] for line in text.splitlines() if line.startswith(name)]
        assert found, f"{name} is not in {text}"
        return sum(map(float, found))


@contextmanager
def serving(site: Any, free_port: Callable[[], int], extra: str = "", **sections: str) -> Iterator[Running]:
    """The service on free ports; stopped by SIGTERM at the end, which must be orderly."""
    intake, metrics, receipts = free_port(), free_port(), free_port()
    config = (site.folder / "swipebell.toml").read_text()
    config += f'[intake.http]\nlisten = "127.0.0.1:{intake}"\n{sections.get("http", "")}\n'
    config += f'[metrics]\nlisten = "127.0.0.1:{metrics}"\n'
    if "receipts" in sections:
        config += f'[receipts]\nlisten = "127.0.0.1:{receipts}"\n{sections["receipts"]}\n'
    (site.folder / "swipebell.toml").write_text(config + extra)
    process = site.start("run")
    running = Running(
        process, f"http://127.0.0.1:{intake}", f"http://127.0.0.1:{metrics}", f"http://127.0.0.1:{receipts}"
    )
    try:
        assert process.stderr is not None
        for text in process.stderr:
            running.log.append(text)
            if '"listening"' in text:
                break
        else:
            pytest.fail("the service ended: " + "".join(running.log))
        yield running
        process.send_signal(signal.SIGTERM)
        _, rest = process.communicate(timeout=END_S)
        running.log.append(rest)
        assert process.returncode == 0, "".join(running.log)
        assert "Traceback" not in "".join(running.log)
    finally:
        running.http.close()
        running.metrics.close()
        if process.poll() is None:
            process.kill()
            process.communicate()


def imported(site: Any, *lines: dict[str, Any]) -> None:
    (site.folder / "r.ndjson").write_bytes(ndjson(*lines))
    site.run("recipients", "import", "r.ndjson")


RECIPIENT = {"account": "acc-1", "openid": "oHTTPtest0000000000000000001", "phone": "+8613800000001"}


def test_events_over_http_become_alerts(site: Any, providers: Callable[..., Any], free_port: Callable[[], int]) -> None:
    # Given a running service
    provider = providers()
    site.configure(provider.url)
    imported(site, RECIPIENT)
    with serving(site, free_port) as running:
        # When events come as NDJSON, as an array, gzipped, twice, and broken
        first = running.http.post("/v1/events", content=ndjson(event(1), event(2)))
        array = running.http.post("/v1/events", content=json.dumps([event(3), event(1), {"id": "x"}]).encode())
        zipped = running.http.post(
            "/v1/events", content=gzip.compress(ndjson(event(4))), headers={"Content-Encoding": "gzip"}
        )
        mixed = running.http.post("/v1/events", content=ndjson(event(5)) + b"{broken\n" + ndjson(event(6, amount=1.5)))
        conflict = running.http.post("/v1/events", content=ndjson(event(7), event(7, amount=1)))

        # Then each answer says what became of every line
        assert (first.status_code, first.json()) == (202, {"accepted": 2, "duplicate": 0, "rejected": []})
        assert array.status_code == 202
        assert (array.json()["accepted"], array.json()["duplicate"]) == (1, 1)
        assert array.json()["rejected"][0]["line"] == 3
        assert array.json()["rejected"][0]["id"] == "x"
        assert zipped.json()["accepted"] == 1
        assert mixed.json()["accepted"] == 1
        assert [one["line"] for one in mixed.json()["rejected"]] == [2, 3]
        assert "amount" in mixed.json()["rejected"][1]["error"]
        assert conflict.json()["accepted"] == 1
        assert "other content" in conflict.json()["rejected"][0]["error"]

        # And what cannot be read at all is 400; of a gzip that is cut off, the whole lines were taken (event 9)
        for body in (b"", b"not json at all", b"[1, 2", gzip.compress(ndjson(event(9)))[:-9]):
            answer = running.http.post("/v1/events", content=body)
            assert answer.status_code == 400, body
            assert answer.json()["error"]

        # And health and metrics say so
        assert running.http.get("/healthz").status_code == 200
        assert running.metrics.get("/healthz").status_code == 200
        assert running.metric('swipebell_events_total{result="accepted"}') == 7
        while running.metric("swipebell_open_alerts"):
            pass  # each look is a request, so this waits for the service and not for time
        assert running.metric('swipebell_alerts_ended_total{state="delivered"}') == 7
        assert provider.book()["wechat"]["delivered"] == 7
    # And nobody's data is in the log
    log = "".join(running.log)
    for private in ("oHTTPtest", "13800000001", "0426", "海底捞", "simulated-secret"):
        assert private not in log


def test_a_token_is_wanted_where_one_is_configured(
    site: Any, providers: Callable[..., Any], free_port: Callable[[], int]
) -> None:
    site.configure(providers().url)
    (site.folder / "token").write_text("core-token")
    with serving(site, free_port, http='token_file = "token"') as running:
        without = running.http.post("/v1/events", content=ndjson(event(1)))
        bearers = [{"Authorization": f"Bearer {token}"} for token in ("nope", "core-token")]
        wrong, right = (running.http.post("/v1/events", content=ndjson(event(1)), headers=one) for one in bearers)
    assert [without.status_code, wrong.status_code, right.status_code] == [401, 401, 202]


def test_a_body_over_the_limit_is_413_also_when_it_hides_in_gzip(
    site: Any, providers: Callable[..., Any], free_port: Callable[[], int]
) -> None:
    site.configure(providers().url)
    with serving(site, free_port, http="max_body_bytes = 65536") as running:
        plain = running.http.post("/v1/events", content=ndjson(*(event(n) for n in range(2000))))
        bomb = running.http.post("/v1/events", content=gzip.compress(b" " * 50_000_000))
        fine = running.http.post("/v1/events", content=ndjson(event(1)))
    assert [plain.status_code, bomb.status_code, fine.status_code] == [413, 413, 202]


def test_full_lanes_answer_429_and_lose_nothing(
    site: Any, providers: Callable[..., Any], free_port: Callable[[], int]
) -> None:
    # Given a provider that is slow, and a lane of four places with eight in flight
    provider = providers("--latency", "1.5")
    site.configure(provider.url)
    imported(site, RECIPIENT)
    small = "\n[engine]\nlane_capacity = 4\nbatch_events = 4\nin_flight = 8\n"
    with serving(site, free_port, extra=small) as running:
        # When far more comes than it can send
        answer = running.http.post("/v1/events", content=ndjson(*(event(n) for n in range(30))))
        # Then the sender is told to come again, and what was accepted before that stands
        assert answer.status_code == 429
        assert int(answer.headers["retry-after"]) >= 1
        assert 0 < answer.json()["accepted"] < 30
        total = answer.json()["accepted"]
        while total < 30:
            again = running.http.post("/v1/events", content=ndjson(*(event(n) for n in range(30))))
            total += again.json()["accepted"]
        while running.metric("swipebell_open_alerts"):
            pass
        assert provider.book()["wechat"]["delivered"] == 30


def test_receipts_have_the_last_word(site: Any, providers: Callable[..., Any], free_port: Callable[[], int]) -> None:
    # Given a service that waits for receipts, and a provider that sends them, one in three a failure
    (site.folder / "receipts-token").write_text("receipt-token")
    port_holder: dict[str, str] = {}

    def fixed() -> int:
        port = free_port()
        port_holder["last"] = str(port)
        return port

    intake, metrics, receipts = fixed(), fixed(), fixed()
    ports = iter((intake, metrics, receipts))
    provider = providers(
        *("--receipts-url", f"http://127.0.0.1:{receipts}/wechat"),
        *("--sms-receipts-url", f"http://127.0.0.1:{receipts}/sms"),
        *("--receipts-token", "receipt-token", "--receipts-delay", "0.0", "0.2", "--receipts-twice", "0.2"),
        *("--receipts-status", "success=2,user-block=1"),
    )
    site.configure(provider.url)
    imported(site, RECIPIENT)
    section = 'token_file = "receipts-token"'
    with serving(site, lambda: next(ports), receipts=section) as running:
        # When swipes are accepted by WeChat
        running.http.post("/v1/events", content=ndjson(*(event(n) for n in range(90))))
        while running.metric("swipebell_open_alerts"):
            pass
        # Then those with a good receipt are delivered there, and the others went to SMS
        book = provider.book()
        assert book["wechat"]["delivered"] == 90
        assert 10 < book["sms"]["delivered"] < 50
        name = 'swipebell_alerts_ended_total{state="%s"}'
        ended = [running.metric(name % state) for state in ("delivered", "failed")]
        assert sum(ended) == 90
        assert ended[1] == book["sms"]["delivered"] - (ended[0] - (90 - book["sms"]["delivered"]))
        # And a receipt for a message that nobody sent is thanked for, twice too, and changes nothing
        stamp, nonce = str(int(time.time())), "486452656"
        query = f"signature={signature('receipt-token', stamp, nonce)}&timestamp={stamp}&nonce={nonce}"
        body = b"<xml><Event>TEMPLATESENDJOBFINISH</Event><MsgID>404</MsgID><Status>success</Status></xml>"
        for _ in range(2):
            unknown = httpx.post(f"{running.receipts}/wechat?{query}", content=body)
            assert (unknown.status_code, unknown.text) == (200, "success")
        assert [running.metric(name % state) for state in ("delivered", "failed")] == ended
        # And a callback without the right signature is refused
        forged = httpx.post(f"{running.receipts}/wechat?signature=00&timestamp=1&nonce=2", content=b"<xml/>")
        assert forged.status_code == 401


def test_a_send_takes_its_receipts_itself(
    site: Any, providers: Callable[..., Any], free_port: Callable[[], int]
) -> None:
    # Given a configuration that waits for receipts, and a provider that sends them
    port = free_port()
    (site.folder / "token").write_text("receipt-token")
    provider = providers(
        *("--receipts-url", f"http://127.0.0.1:{port}/wechat", "--receipts-token", "receipt-token"),
        *("--receipts-delay", "0.0", "0.1"),
    )
    section = f'[receipts]\nlisten = "127.0.0.1:{port}"\ntoken_file = "token"\n'
    site.configure(provider.url, sms=False, extra=section)
    imported(site, RECIPIENT)
    # When a file is sent, then its alerts are delivered by the provider's last word
    (site.folder / "e.ndjson").write_bytes(ndjson(*(event(number) for number in range(20))))
    summary = site.send("e.ndjson")
    assert summary["alerts"]["delivered"] == 20
    story = json.loads(site.run("explain", "http-3", "--json")[0])
    assert story["alerts"][0]["receipts"][0]["status"] == "delivered"


def test_a_hostile_body_does_not_stop_the_others(
    site: Any, providers: Callable[..., Any], free_port: Callable[[], int]
) -> None:
    # Given a small gzip of many lines that are no events, two gzips in one body, and a byte order mark
    site.configure(providers().url)
    imported(site, RECIPIENT)
    bomb = gzip.compress(b"x\n" * 1_500_000)
    members = gzip.compress(ndjson(event(1))) + gzip.compress(ndjson(event(2)))
    marked = b"\xef\xbb\xbf" + json.dumps([event(3)]).encode()
    with serving(site, free_port) as running:
        answers = [running.http.post("/v1/events", content=body) for body in (bomb, members, members + b"rest", marked)]
        assert running.http.get("/healthz").status_code == 200
    # Then the bomb is refused early, every member is read, and what follows them is not passed over in silence
    assert [answer.status_code for answer in answers] == [400, 202, 400, 202]
    assert len(answers[0].content) < 200_000
    assert answers[1].json()["accepted"] == 2


def test_sigterm_gives_back_what_was_not_sent(
    site: Any, providers: Callable[..., Any], free_port: Callable[[], int]
) -> None:
    # Given a lane that sends five a second, and fifty swipes accepted
    provider = providers()
    site.configure(provider.url)
    config = (site.folder / "swipebell.toml").read_text().replace("rate_per_second = 50000", "rate_per_second = 5")
    (site.folder / "swipebell.toml").write_text(config)
    imported(site, RECIPIENT)
    with serving(site, free_port) as running:
        assert running.http.post("/v1/events", content=ndjson(*(event(n) for n in range(50)))).status_code == 202
        # When it is told to stop
    # Then the rest is still there for the next start, which sends each exactly once, none of unknown outcome
    (site.folder / "swipebell.toml").write_text(config.replace("rate_per_second = 5\n", "rate_per_second = 50000\n"))
    (site.folder / "none.ndjson").write_text("")
    summary = site.send("none.ndjson")
    assert summary["ledger"]["alerts"]["delivered"] == 50
    assert summary["ledger"]["unknown_attempts"] == 0
    assert provider.book()["wechat"]["requests"] == 50


def test_a_port_in_use_is_one_line_that_says_what_to_do(
    site: Any, providers: Callable[..., Any], free_port: Callable[[], int]
) -> None:
    site.configure(providers().url)
    with serving(site, free_port):
        _, err = site.run("run", status=1)
    assert "metrics.listen" in err or "intake.http.listen" in err
    assert "in use" in err
