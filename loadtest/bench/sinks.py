"""Where the alerts go: a static sink that costs the engine's cores as little as possible, or one that misbehaves.

nginx where it is installed (3 µs an answer, and TLS), otherwise the sink of this project (10 µs); either is a process
of its own on a free loopback port. Results of the two cannot be compared, so the results name it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Literal

import msgspec

from loadtest.bench.figures import Failed
from loadtest.bench.programs import Program, free_port, run_quietly
from loadtest.providers.mixes import MIXES, fault_options

Answers = Literal["ok", "one-percent", "busy"]
"""All accepted; one in a hundred of them busy, a bad gateway, or lost with its connection; or all of them busy."""

START_S: Final = 10.0
_FAULTS: Final = MIXES["one-percent"]

_LOCATIONS: Final[dict[Answers, str]] = {
    "ok": "",
    "busy": """return 200 '{"errcode":-1,"errmsg":"system error"}';""",
    "one-percent": """
      if ($verdict = busy) { return 200 '{"errcode":-1,"errmsg":"system error"}'; }
      if ($verdict = gateway) { return 502; }
      if ($verdict = lost) { return 444; }""",
}
_TLS: Final = "ssl_certificate sink.pem; ssl_certificate_key sink.key; ssl_protocols TLSv1.3;"
_CONFIG: Final = """
worker_processes 1; daemon off; pid nginx.pid; error_log error.log;
events {{ worker_connections 4096; }}
http {{
  access_log off; default_type application/json;
  keepalive_requests 100000000; keepalive_timeout 300s;
  client_body_buffer_size 16k; client_max_body_size 64k;
  client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi;
  scgi_temp_path scgi;
  split_clients "$request_id" $verdict {{ {busy:g}% busy; {gateway:g}% gateway; {lost:g}% lost; * ok; }}
  server {{
    listen 127.0.0.1:{port} backlog=1024{ssl}; {tls}
    location = /cgi-bin/stable_token {{ return 200 '{{"access_token":"{token}","expires_in":7200}}'; }}
    location / {{ {location} return 200 '{{"errcode":0,"errmsg":"ok","msgid":1}}'; }}
  }}
}}
"""


class Sink(msgspec.Struct, frozen=True):
    """A running sink. ``ca_file`` is the authority of its certificate, if it speaks TLS."""

    url: str
    ca_file: Path | None = None


def find_nginx() -> str | None:
    """Where nginx is; its folder is often not in a user's path."""
    return shutil.which("nginx", path=os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin")))


def describe(nginx: str | None) -> str:
    """The name of the static sink, for the results."""
    if nginx is None:
        return "loadtest.sink (Python)"
    command = [nginx, "-v"]
    said = subprocess.run(command, capture_output=True, text=True, timeout=START_S, check=False).stderr  # noqa: S603 - installed
    return said.strip().removeprefix("nginx version: ") or "nginx"


@contextmanager
def running_sink(nginx: str | None, folder: Path, answers: Answers = "ok", *, tls: bool = False) -> Iterator[Sink]:
    """A sink with its files in ``folder``. Raises `Failed` when it does not start, or cannot be had without nginx."""
    folder.mkdir(parents=True, exist_ok=True)
    if nginx is not None:
        with _nginx_sink(nginx, folder, answers, tls) as sink:
            yield sink
    elif tls:
        raise Failed("a sink that speaks TLS needs nginx, which is not installed")
    elif answers == "ok":
        with reporting_sink(folder, None) as sink:
            yield sink
    else:
        faults = fault_options(_FAULTS) if answers == "one-percent" else "busy=1"
        options = ("--listen", "127.0.0.1:0", "--faults", faults)
        with Program("loadtest.providers", *options, folder=folder, log="sink.log") as program:
            yield _announced(program)


@contextmanager
def reporting_sink(folder: Path, receipts_url: str | None) -> Iterator[Sink]:
    """The project's sink; with ``receipts_url`` it reports every message there."""
    folder.mkdir(parents=True, exist_ok=True)
    reports = () if receipts_url is None else ("--receipts-url", receipts_url)
    options = ("--listen", "127.0.0.1:0", *reports)
    with Program("loadtest.sink", *options, folder=folder, log="sink.log") as program:
        yield _announced(program)


def _announced(program: Program) -> Sink:
    before, found, url = program.first_line().partition("listening on ")
    if before or not found:
        raise Failed("the sink did not say where it listens")
    return Sink(url.strip())


@contextmanager
def _nginx_sink(nginx: str, folder: Path, answers: Answers, tls: bool) -> Iterator[Sink]:
    ca_file = _certificate(folder) if tls else None
    port = free_port()
    (folder / "nginx.conf").write_text(
        _CONFIG.format(
            port=port,
            busy=_FAULTS.busy * 100,
            gateway=_FAULTS.bad_gateway * 100,
            lost=_FAULTS.reset * 100,
            ssl=" ssl" if tls else "",
            tls=_TLS if tls else "",
            token="S" * 136,
            location=_LOCATIONS[answers],
        )
    )
    command = [nginx, "-p", str(folder), "-c", "nginx.conf", "-e", "error.log"]
    with (
        (folder / "said").open("wb") as said,
        subprocess.Popen(command, stdout=said, stderr=said) as process,  # noqa: S603 - installed
    ):
        try:
            _wait_for(process, port, folder)
            yield Sink(f"{'https' if tls else 'http'}://127.0.0.1:{port}", ca_file)
        finally:
            process.terminate()  # nginx: at once, its worker too


def _wait_for(process: subprocess.Popen[bytes], port: int, folder: Path) -> None:
    deadline = time.monotonic() + START_S
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.02)
    words = (folder / "said").read_text(errors="replace").strip().rpartition("\n")[2]
    raise Failed(f"nginx did not start: {words or 'it said nothing'}")


def _certificate(folder: Path) -> Path:
    """A certificate for this machine that is its own authority."""
    if shutil.which("openssl") is None:
        raise Failed("a certificate needs the openssl command, which is not installed")
    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2")
    names = ("-subj", "/CN=sink", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", "sink.key", "-out", "sink.pem")
    run_quietly(["openssl", "req", "-x509", *key, *names], folder)
    return folder / "sink.pem"
