"""A provider that writes down when each message arrives, and several services started by hand on one ledger."""

from __future__ import annotations

import json
import os
import selectors
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from typing import Any

import httpx

from tests.e2e.processes_kit import END_S

TICK_S = 0.002

STALL_S = 0.02
"""What a recorder that stood still for longer has seen is no measurement: what came meanwhile looks as if it had come
together afterwards. The product itself allows for so much between two requests (`ratelimit.leased.WINDOW_SECONDS`)."""


class Recorder:
    """Answers like WeChat, at once; ``arrivals`` are the times (monotonic) at which sends came, ``longest_stall`` is
    for how long (seconds) it did not look."""

    def __init__(self) -> None:
        self.arrivals: list[float] = []
        self.longest_stall = 0.0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.setblocking(False)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ, bytearray())
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        for key in list(self._selector.get_map().values()):
            key.fileobj.close()  # type: ignore[union-attr]
        self._selector.close()

    def _run(self) -> None:
        with suppress(OSError):  # what comes late here would look as if it had been sent late
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), -15)
        looked = time.monotonic()
        while not self._stop.is_set():
            ready = self._selector.select(TICK_S)
            now = time.monotonic()
            self.longest_stall, looked = max(self.longest_stall, now - looked), now
            for key, _ in ready:
                if key.fileobj is self._listener:
                    connection, _ = self._listener.accept()
                    connection.setblocking(False)
                    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    self._selector.register(connection, selectors.EVENT_READ, bytearray())
                else:
                    self._read(key.fileobj, key.data, now)  # type: ignore[arg-type]

    def _read(self, connection: socket.socket, buffer: bytearray, now: float) -> None:
        try:
            data = connection.recv(65536)
        except ConnectionError:
            data = b""
        if not data:
            self._selector.unregister(connection)
            connection.close()
            return
        buffer += data
        while (end := buffer.find(b"\r\n\r\n")) >= 0:
            head = bytes(buffer[:end]).lower()
            length = 0
            for field in head.split(b"\r\n")[1:]:
                name, _, value = field.partition(b":")
                if name == b"content-length":
                    length = int(value)
            if len(buffer) < end + 4 + length:
                return
            del buffer[: end + 4 + length]
            body: dict[str, Any] = {"access_token": "t" * 64, "expires_in": 7200}
            if b"template/send" in head.split(b"\r\n")[0]:
                self.arrivals.append(now)
                body = {"errcode": 0, "errmsg": "ok", "msgid": len(self.arrivals)}
            content = json.dumps(body).encode()
            connection.sendall(
                b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
                % (len(content), content)
            )


def busiest_second(arrivals: Sequence[float]) -> int:
    """The most arrivals in any half-open second; such a second begins at an arrival."""
    busiest = last = 0
    for first, start in enumerate(arrivals):
        while last < len(arrivals) and arrivals[last] < start + 1.0:
            last += 1
        busiest = max(busiest, last - first)
    return busiest


def within(arrivals: Sequence[float], start: float, end: float) -> list[float]:
    return [one for one in arrivals if start <= one < end]


@contextmanager
def recorder() -> Iterator[Recorder]:
    with closing(Recorder()) as one:
        yield one


class Alone:
    """One ``swipebell run`` that was started by hand."""

    def __init__(self, site: Any, free_port: Callable[[], int], number: int) -> None:
        port = free_port()
        config = site.folder / f"alone{number}.toml"
        text = (site.folder / "swipebell.toml").read_text()
        text += f'[intake.http]\nlisten = "127.0.0.1:{port}"\n[metrics]\nlisten = "127.0.0.1:{free_port()}"\n'
        config.write_text(text)
        self.process: subprocess.Popen[str] = site.start("run", "--config", config.name)
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=END_S)
        self._drain: threading.Thread | None = None

    def until_ready(self) -> None:
        assert self.process.stderr is not None
        told = []
        for line in self.process.stderr:
            told.append(line)
            if '"listening"' in line:
                self._drain = threading.Thread(target=self.process.stderr.read)  # or the pipe is full one day
                self._drain.start()
                return
        raise AssertionError("".join(told))

    def post(self, lines: Sequence[str]) -> None:
        answer = self.http.post("/v1/events", content="\n".join(lines).encode())
        assert answer.status_code == 202, answer.text
        assert answer.json()["accepted"] == len(lines)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def close(self) -> None:
        self.http.close()
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(END_S)
            except subprocess.TimeoutExpired:
                self.kill()
        if self._drain is not None:
            self._drain.join()
        for pipe in (self.process.stdout, self.process.stderr):
            assert pipe is not None
            pipe.close()
