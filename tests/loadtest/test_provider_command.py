"""The simulated providers and the sink as processes of their own."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from click.testing import CliRunner

from dispatcher.channels.wechat.callback import is_signed, read_callback
from loadtest.providers.command import providers_command
from loadtest.sink import sink_command

READY = "listening on http://127.0.0.1:"
PATIENCE_S = 60.0


@contextmanager
def running(module: str, *arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    command = [sys.executable, "-m", module, "--listen", "127.0.0.1:0", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            line = process.stdout.readline().strip()
            assert line.startswith(READY)
            yield process, line.removeprefix("listening on ")
        finally:
            process.kill()


def stopped_by(process: subprocess.Popen[str], number: signal.Signals) -> tuple[int, str, str]:
    process.send_signal(number)
    rest, errors = process.communicate(timeout=PATIENCE_S)
    return process.returncode, rest, errors


def post(url: str, body: object) -> dict[str, object]:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Authorization": "Bearer s3"})
    with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
        found: dict[str, object] = json.load(answer)
        return found


def count(url: str) -> dict[str, Any]:
    with urllib.request.urlopen(f"{url}/_count", timeout=PATIENCE_S) as answer:
        found: dict[str, Any] = json.load(answer)
        return found


def test_the_providers_run_until_they_are_told_to_stop(tmp_path: Path) -> None:
    book = tmp_path / "book.ndjson"
    with running("loadtest.providers", "--secret", "s3", "--book", str(book)) as (process, url):
        sent = {"id": "a1", "to": "+8613800138000", "text": "x"}
        assert post(f"{url}/sms", sent) == {"code": 0, "id": "a1"}
        assert stopped_by(process, signal.SIGTERM) == (0, "", "")
    assert [json.loads(line)["id"] for line in book.read_text().splitlines()] == ["a1"]


def test_the_sink_counts_what_it_accepts() -> None:
    with running("loadtest.sink") as (process, url):
        assert post(f"{url}/anything", {"x": 1}) == {"errcode": 0, "errmsg": "ok", "msgid": 1}
        assert post(f"{url}/cgi-bin/message/template/send?access_token=x", {})["errcode"] == 0
        token = post(f"{url}/cgi-bin/stable_token", {})
        assert len(str(token["access_token"])) == 136
        assert count(url) == {"count": 2}
        # And requests that arrive together or in pieces are counted one by one.
        host, port = url.removeprefix("http://").split(":")
        request = b"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc"
        with socket.create_connection((host, int(port)), timeout=PATIENCE_S) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for piece in (request * 3 + request[:20], request[20:-1], request[-1:]):
                connection.sendall(piece)
            connection.shutdown(socket.SHUT_WR)
            received = b"".join(iter(lambda: connection.recv(65536), b""))
        assert received.count(b'"msgid":1') == 4
        assert stopped_by(process, signal.SIGINT) == (0, "", "")


def test_the_sink_reports_each_message_once_and_signed() -> None:
    # Given a receiver that takes what it is sent
    reports: list[tuple[dict[str, list[str]], bytes]] = []

    class Receiver(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            reports.append((parse_qs(urlsplit(self.path).query), body))
            self.send_response(200)
            self.send_header("Content-Length", "7")
            self.end_headers()
            self.wfile.write(b"success")

        def log_message(self, *_arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        url = f"http://127.0.0.1:{server.server_port}/wechat"
        arguments = ("--receipts-url", url, "--receipts-token", "t0ken", "--receipts-delay", "0.01")
        with running("loadtest.sink", *arguments) as (process, sink):
            # When the sink accepts five messages and hands out a token
            msgids = [post(f"{sink}/cgi-bin/message/template/send", {})["msgid"] for _ in range(5)]
            post(f"{sink}/cgi-bin/stable_token", {})
            deadline = time.monotonic() + PATIENCE_S
            while (counts := count(sink))["receipts"]["posted"] < 5:
                assert time.monotonic() < deadline, counts
            assert stopped_by(process, signal.SIGTERM) == (0, "", "")
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    # Then each has a msgid of its own, and one report, signed and readable for the product
    assert counts == {"count": 5, "receipts": {"planned": 5, "posted": 5, "retried": 0, "given_up": 0}}
    assert len(set(msgids)) == 5
    deliveries = [read_callback(body) for _, body in reports]
    assert {(one.msgid, one.status) for one in deliveries if one is not None} == {(str(n), "success") for n in msgids}
    assert len(reports) == 5
    for query, _ in reports:
        assert is_signed("t0ken", {name: values[-1] for name, values in query.items()})


@pytest.mark.parametrize("command", [providers_command, sink_command])
def test_a_port_in_use_is_one_line(command: object) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        result = CliRunner().invoke(command, ["--listen", address])  # type: ignore[arg-type]
    assert result.exit_code == 1
    assert result.stdout == ""
    assert address in result.stderr
    assert "in use" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_a_book_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    file = tmp_path / "missing" / "book.ndjson"
    result = CliRunner().invoke(providers_command, ["--book", str(file)])
    assert result.exit_code == 1
    assert result.stderr == f"providers: cannot write the book {file}: No such file or directory\n"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--listen", "8080"], "'8080' is not HOST:PORT, such as 127.0.0.1:9000"),
        (["--listen", "127.0.0.1:x"], "is not HOST:PORT"),
        (["--listen", "127.0.0.1:65536"], "is not HOST:PORT"),
        (["--faults", "bsy=1"], "unknown fault 'bsy'; known are busy"),
        (["--receipts-status", "gone=1"], "unknown status 'gone'; known are success"),
        (["--receipts-url", "127.0.0.1:8081"], "does not begin with http://"),
        (["--receipts-delay", "5", "1"], "the earliest must be from 0 to the latest"),
    ],
)
def test_wrong_options_say_what_is_allowed(arguments: list[str], says: str) -> None:
    result = CliRunner().invoke(providers_command, arguments)
    assert result.exit_code == 2
    assert says in result.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--receipts-url", "https://127.0.0.1:1/"], "does not begin with http://"),
        (["--receipts-url", "http://127.0.0.1:1/?a"], "is not http://HOST[:PORT][/PATH]"),
        (["--receipts-connections", "0"], "1<=x<=4096"),
        (["--receipts-delay", "-1"], "0<=x<=3600"),
    ],
)
def test_wrong_options_of_the_sink_say_what_is_allowed(arguments: list[str], says: str) -> None:
    result = CliRunner().invoke(sink_command, arguments)
    assert result.exit_code == 2
    assert says in result.stderr


def test_the_help_names_every_fault_and_every_control() -> None:
    text = CliRunner().invoke(providers_command, ["--help"]).stdout
    for word in ("busy", "throttle", "bad_gateway", "/_book/messages", "/_expire_token", "--receipts-url"):
        assert word in text
