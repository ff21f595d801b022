"""`swipebell send` to real mail and webhook servers: configuration, recipients, two processes, the books."""

from __future__ import annotations

import base64
import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from dispatcher.channels.webhook.signing import SigningKey, verify
from dispatcher.model.private import Secret
from tests.certificate_kit import Certificates
from tests.dispatcher.mail_kit import mail_server

PASSWORD = "simulated-secret"  # what `Site` writes into its file
WEBHOOK_SECRET = "whsec_" + base64.b64encode(b"0123456789abcdefghijklmnopqrstuv").decode()


def write_events(site: Any, count: int) -> Path:
    lines = [
        {"id": f"e-{n}", "account": f"acc-{n}", "pan": "************0426", "amount": 12_300 + n, "currency": "CNY"}
        | {"merchant": "海底捞", "time": "2026-11-22T10:00:00+08:00"}
        for n in range(count)
    ]
    file: Path = site.folder / "events.ndjson"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return file


def import_people(site: Any, count: int, channels: list[str]) -> None:
    file = site.folder / "people.ndjson"
    people = [{"account": f"acc-{n}", "email": f"holder{n}@example.com", "channels": channels} for n in range(count)]
    file.write_text("".join(json.dumps(person) + "\n" for person in people))
    site.run("recipients", "import", str(file))


@pytest.mark.parametrize("processes", [1, 2])
def test_alerts_go_out_as_mail(site: Any, tmp_path: Path, free_port: Callable[[], int], processes: int) -> None:
    # Given a mail server that wants TLS and a log-in, and that knows one of the mailboxes no more
    certificates = Certificates(tmp_path)
    with mail_server(certificates.server_context("m", "IP:127.0.0.1"), require_starttls=True) as server:
        server.say["RCPT"] = ["550 5.1.1 no such user", "451 4.3.0 later"]
        (site.folder / "swipebell.toml").write_text(
            f'[channels.email]\nhost = "127.0.0.1"\nport = {server.port}\nusername = "alerts"\n'
            f'secret_file = "secret"\nsender = "alerts@bank.example"\nsender_name = "招商银行"\n'
            f'ca_file = "{certificates.ca_file}"\nrate_per_second = 500\nconnections = 4\n'
            f'[metrics]\nlisten = "127.0.0.1:{free_port()}"\n[retry]\nbase_seconds = 0.05\n'
        )
        import_people(site, 40, ["email"])
        # When
        summary = site.send(write_events(site, 40), "--processes", str(processes))
    # Then all but that one have their mail, once, in the recipient's language
    assert summary["balanced"] is True
    assert (summary["alerts"]["delivered"], summary["alerts"]["failed"]) == (39, 1)
    assert summary["by_channel"]["email"] == {"attempts": 41, "delivered": 39}
    to = Counter(mail["To"] for mail in server.taken)
    assert len(to) == 39
    assert set(to.values()) == {1}
    assert len({mail["Message-ID"] for mail in server.taken}) == 39
    assert server.taken[0]["Subject"].startswith("消费 ¥123.")
    assert set(server.logins) == {("alerts", PASSWORD)}
    assert all(server.secured)
    assert server.connections <= 4


def test_a_wrong_password_ends_the_command_in_one_line(site: Any, tmp_path: Path) -> None:
    certificates = Certificates(tmp_path)
    with mail_server(certificates.server_context("m", "IP:127.0.0.1")) as server:
        server.say["AUTH"] = ["535 5.7.8 wrong"] * 100
        (site.folder / "swipebell.toml").write_text(
            f'[channels.email]\nhost = "127.0.0.1"\nport = {server.port}\nusername = "alerts"\n'
            f'secret_file = "secret"\nsender = "alerts@bank.example"\nca_file = "{certificates.ca_file}"\n'
        )
        import_people(site, 1, ["email"])
        _, err = site.run("send", str(write_events(site, 1)), "--restamp", "--json", status=2)
    assert "channel email: the provider refuses this account or secret (code auth 535)" in err
    assert PASSWORD not in err
    assert "holder0" not in err


@contextmanager
def receiver(statuses: list[int]) -> Iterator[tuple[str, list[tuple[dict[str, str], bytes]]]]:
    """A webhook receiver that answers with the statuses in turn, then with 200."""
    seen: list[tuple[dict[str, str], bytes]] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            seen.append(({name.lower(): value for name, value in self.headers.items()}, body))
            self.send_response(statuses.pop(0) if statuses else 200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *arguments: object) -> None: ...

    class Server(ThreadingHTTPServer):
        block_on_close = False

    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/alerts", seen
        finally:
            server.shutdown()
            thread.join()


def test_alerts_go_out_as_signed_posts(site: Any) -> None:
    (site.folder / "hook").write_text(WEBHOOK_SECRET)
    with receiver([503, 429, 400]) as (url, seen):
        (site.folder / "swipebell.toml").write_text(
            f'[channels.webhook]\nurl = "{url}"\nsecret_file = "hook"\n[retry]\nbase_seconds = 0.05\n'
        )
        import_people(site, 30, ["webhook"])
        summary = site.send(write_events(site, 30))
    assert summary["balanced"] is True
    assert (summary["alerts"]["delivered"], summary["alerts"]["failed"]) == (29, 1)
    assert summary["by_channel"]["webhook"] == {"attempts": 32, "delivered": 29}
    key = SigningKey(Secret(WEBHOOK_SECRET))
    ids = Counter(verify([key], headers, body, float(headers["webhook-timestamp"])) for headers, body in seen)
    assert sorted(ids.values()) == [1] * 28 + [2] * 2
