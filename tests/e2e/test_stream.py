"""A core system on one open connection: the client of docs/stream.md against the real service, killed in mid-stream."""

from __future__ import annotations

import json
import re
import signal
import socket
import sqlite3
import subprocess
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.certificate_kit import Certificates
from tests.e2e.processes_kit import END_S
from tests.e2e.test_kill import line

EVENTS = 30_000
KILLED_AT = (1_000, 8_000, 16_000)
"""The engine is killed when its ledger holds so many events."""

PAGE = Path(__file__).parents[2] / "docs" / "stream.md"

Connect = Callable[[], socket.socket]


@pytest.fixture(scope="module")
def client() -> Callable[[list[bytes], Connect], None]:
    """The client as the page shows it."""
    (code,) = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text("utf-8"), re.DOTALL | re.MULTILINE)
    names: dict[str, Any] = {}
    exec(compile(code, str(PAGE), "exec"), names)
    send: Callable[[list[bytes], Connect], None] = names["send"]
    return send


def started(site: Any) -> tuple[subprocess.Popen[str], str]:
    """The service, and where its stream listener is."""
    process = site.start("run")
    assert process.stderr is not None
    log = []
    for text in process.stderr:
        log.append(text)
        if '"listening"' in text:
            return process, json.loads(text)["intake_stream"]
    pytest.fail("the service ended: " + "".join(log))


def admitted(site: Any) -> int:
    with closing(sqlite3.connect(site.folder / "ledger.db", timeout=END_S)) as connection:
        count: int = connection.execute("SELECT coalesce(max(seq), 0) FROM events").fetchone()[0]
        return count


@contextmanager
def serving(site: Any) -> Iterator[str]:
    """The service until the end of the block, when SIGTERM has to end it well; gives its stream listener's URL."""
    process, url = started(site)
    try:
        yield url
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=END_S)
        assert process.returncode == 0, log
        assert "Traceback" not in log
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()


def stream_section(port: int = 0, more: str = "") -> str:
    free = "".join(f'[{section}]\nlisten = "127.0.0.1:0"\n' for section in ("metrics", "intake.http"))
    return f'{free}[intake.stream]\nlisten = "127.0.0.1:{port}"\n{more}[engine]\nlease_seconds = 1.0\n'


def test_an_engine_killed_in_mid_stream_loses_nothing_and_doubles_nothing(
    site: Any, providers: Callable[..., Any], free_port: Callable[[], int], client: Any
) -> None:
    # Given a service with a stream listener, and a core that keeps one connection to it
    file = site.folder / "events.ndjson"
    lines = [line(number).replace("2026-11-22T10", "2099-11-22T10") + "\n" for number in range(EVENTS)]
    file.write_text("".join(lines))
    provider = providers("--latency", "0.002")
    port = free_port()
    site.configure(provider.url, extra=stream_section(port))
    site.recipients_for(file)
    connections = []

    def connect() -> socket.socket:
        connections.append(socket.create_connection(("127.0.0.1", port), timeout=60))
        return connections[-1]

    core = threading.Thread(target=client, args=([one.encode() for one in lines], connect), daemon=True)

    # When the engine is killed three times while the core writes, and started again
    for number, moment in enumerate(KILLED_AT):
        process, _ = started(site)
        if number == 0:
            core.start()
        while admitted(site) < moment:  # each look is a query, so this waits for the engine and not for time
            assert process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL
    with serving(site):
        core.join(60)
        assert not core.is_alive()
    # (the test is worth something only if each kill did hit the stream)
    assert len(connections) == 1 + len(KILLED_AT)

    # Then, when all is sent, every event is in the ledger once and its alert was delivered once
    (site.folder / "none.ndjson").write_text("")
    summary = site.send("none.ndjson")
    assert summary["balanced"] is True
    with closing(sqlite3.connect(site.folder / "ledger.db")) as connection:
        ids = [row[0] for row in connection.execute("SELECT id FROM events ORDER BY id")]
        ended = connection.execute("SELECT state, count(*) FROM alerts GROUP BY state").fetchall()
    assert ids == [f"kill-{number:06}" for number in range(EVENTS)]
    assert ended == [("delivered", EVENTS)]
    # And each was shown once, whatever the provider was sent again after an answer that nobody saw
    shown = Counter(message["client_msg_id"] for message in provider.messages("wechat"))
    assert len(shown) == EVENTS
    assert set(shown.values()) == {1}


def test_a_core_with_a_certificate_and_a_token_is_heard_and_no_other(
    site: Any, providers: Callable[..., Any], client: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    # Given a listener that demands a certificate of the bank's authority, and a token
    certificates = Certificates(site.folder)
    certificates.issue("server", "IP:127.0.0.1")
    (site.folder / "stream-token").write_text("core-token")
    (site.folder / "stream-token").chmod(0o600)
    tls = 'tls_cert_file = "server.pem"\ntls_key_file = "server.key"\nclient_ca_file = "ca.pem"\n'
    site.configure(providers().url, extra=stream_section(more=f'{tls}token_file = "stream-token"\n'))
    lines = [(line(number) + "\n").encode() for number in range(5_000)]
    with serving(site) as url:
        assert url.startswith("tls://127.0.0.1:")
        port = int(url.rpartition(":")[2])

        def connected(context: Any, token: str) -> Any:
            plain = socket.create_connection(("127.0.0.1", port), timeout=60)
            secure = context.wrap_socket(plain, server_hostname="127.0.0.1")
            secure.sendall(json.dumps({"token": token}).encode() + b"\n")
            return secure

        # When the core writes, one of its lines broken
        core = certificates.client_context("core")
        client([*lines, b"{broken\n"], lambda: connected(core, "core-token"))
        assert "line 5001 was refused: not JSON" in capsys.readouterr().out

        # Then another token is refused in words, another certificate in the handshake
        with connected(core, "other-token") as connection, connection.makefile("rb") as answers:
            assert "token" in json.loads(answers.readline())["error"]
        assert answer_to(lambda: connected(certificates.client_context(), "core-token"), lines[0]) == b""
    with closing(sqlite3.connect(site.folder / "ledger.db")) as connection:
        assert connection.execute("SELECT count(*) FROM events").fetchone() == (5_000,)


def answer_to(connect: Connect, sent: bytes) -> bytes:
    """The first byte that comes back; none when the connection ends, in whatever words."""
    try:
        with connect() as connection:
            connection.sendall(sent)
            return connection.recv(1)
    except OSError:
        return b""


def test_what_cannot_be_served_is_one_line_that_says_what_to_do(
    site: Any, providers: Callable[..., Any], free_port: Callable[[], int]
) -> None:
    url = providers().url
    port = free_port()
    site.configure(url, extra=stream_section(port))
    with socket.create_server(("127.0.0.1", port)):
        _, err = site.run("run", status=1)
    assert f"swipebell: intake.stream.listen: 127.0.0.1:{port} is in use by another process" in err
    # And a certificate that is none is named with its key
    (site.folder / "none.pem").write_text("none")
    files = 'tls_cert_file = "none.pem"\ntls_key_file = "none.pem"\n'
    site.configure(url, extra=stream_section(more=files))
    _, err = site.run("run", status=2)
    assert "swipebell: intake.stream.tls_cert_file: " in err
