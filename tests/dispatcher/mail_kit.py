"""A real mail server (aiosmtpd, in a thread of its own) that says what a test wants, and one that is none."""

from __future__ import annotations

import asyncio
import email
import socket
import ssl
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from email.message import EmailMessage
from email.policy import default
from typing import Any

from aiosmtpd.smtp import SMTP, AuthResult

from dispatcher.channels.email.session import SmtpSettings
from dispatcher.channels.email.smtp import SmtpNetwork
from dispatcher.model.private import Secret
from dispatcher.network.api import Request
from tests.dispatcher.channel_kit import SECRET
from tests.dispatcher.network_kit import PATIENCE_S

SENDER = "alerts@bank.example"
USER = "alerts"
ADDRESS = "li.lei@example.com"


class MailServer:
    """What it took, and what it is told to say: ``say["RCPT"] = ["550 5.1.1 ..."]`` is for the next RCPT.

    The places are EHLO, AUTH, MAIL, RCPT and DATA (the end of the message). Without a word of the test's it accepts.
    """

    def __init__(self) -> None:
        self.port = 0
        self.say: dict[str, list[str]] = {}
        self.taken: list[EmailMessage] = []
        self.raw: list[bytes] = []
        self.envelopes: list[tuple[str, list[str]]] = []
        self.connections = 0
        self.secured: list[bool] = []
        self.logins: list[tuple[str, str]] = []
        self.protocols: list[Any] = []
        self.loop = asyncio.new_event_loop()

    def hang_up(self) -> None:
        """End all connections."""
        self.loop.call_soon_threadsafe(self._hang_up)

    def _hang_up(self) -> None:
        for protocol in self.protocols:
            if protocol.transport is not None:
                protocol.transport.abort()

    def _word(self, place: str, otherwise: str) -> str:
        words = self.say.get(place)
        return words.pop(0) if words else otherwise

    # aiosmtpd's hooks

    async def handle_EHLO(
        self, server: Any, session: Any, _envelope: Any, hostname: str, lines: list[str]
    ) -> list[str]:
        session.host_name = hostname
        word = self._word("EHLO", "")
        return [word] if word else lines

    async def handle_MAIL(self, _server: Any, _session: Any, envelope: Any, address: str, options: list[str]) -> str:
        word = self._word("MAIL", "250 2.1.0 OK")
        if word.startswith("2"):
            envelope.mail_from = address
            envelope.mail_options.extend(options)
        return word

    async def handle_RCPT(self, _server: Any, _session: Any, envelope: Any, address: str, _options: list[str]) -> str:
        word = self._word("RCPT", "250 2.1.5 OK")
        if word.startswith("2"):
            envelope.rcpt_tos.append(address)
        return word

    async def handle_DATA(self, _server: Any, session: Any, envelope: Any) -> str:
        word = self._word("DATA", "250 2.0.0 OK: queued as A1B2C3")
        if word.startswith("2"):
            self.raw.append(envelope.original_content)
            parsed = email.message_from_bytes(envelope.original_content, policy=default)
            assert isinstance(parsed, EmailMessage)
            self.taken.append(parsed)
            self.envelopes.append((envelope.mail_from, list(envelope.rcpt_tos)))
            self.secured.append(session.ssl is not None)
        return word

    def authenticate(self, _server: Any, _session: Any, _envelope: Any, _mechanism: str, data: Any) -> AuthResult:
        self.logins.append((data.login.decode(), data.password.decode()))
        word = self._word("AUTH", "")
        return AuthResult(success=not word, handled=False, message=word or None)


@contextmanager
def mail_server(tls: ssl.SSLContext | None = None, **options: Any) -> Iterator[MailServer]:
    """Runs it on a free port; ``options`` are aiosmtpd's."""
    server = MailServer()
    ready = threading.Event()
    loop = server.loop
    stops: list[Callable[[], None]] = []

    def accept() -> SMTP:
        server.connections += 1
        server.protocols.append(
            SMTP(server, hostname="mail.test", tls_context=tls, authenticator=server.authenticate, loop=loop, **options)
        )
        protocol: SMTP = server.protocols[-1]
        return protocol

    async def run() -> None:
        listener = await loop.create_server(accept, "127.0.0.1", 0)
        server.port = listener.sockets[0].getsockname()[1]

        def stop() -> None:
            listener.close()
            server._hang_up()
            loop.call_later(0.05, loop.stop)  # the connections' own tasks end first

        stops.append(stop)
        ready.set()

    def work() -> None:
        asyncio.set_event_loop(loop)
        loop.create_task(run())
        loop.run_forever()
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.sleep(0))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()

    thread = threading.Thread(target=work, name="mail server")
    thread.start()
    assert ready.wait(5)
    try:
        yield server
    finally:
        loop.call_soon_threadsafe(stops[0])
        thread.join(5)


Script = Callable[["Line"], None]


class Line:
    """The server's side of one raw connection."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self._file = connection.makefile("rb")

    def say(self, text: str) -> None:
        self.connection.sendall(text.encode() + b"\r\n")

    def hear(self) -> bytes:
        return self._file.readline()

    def hear_message(self) -> bytes:
        lines = []
        while (line := self._file.readline()) not in (b".\r\n", b""):
            lines.append(line)
        return b"".join(lines)

    def until(self, stage: str) -> None:
        """Play a good server up to (and without) the answer to ``stage``: greeting, EHLO, MAIL, RCPT, DATA, end."""
        if stage == "greeting":
            return
        self.say("220 mail.test")
        for place in ("EHLO", "MAIL", "RCPT", "DATA"):
            self.hear()
            if stage == place:
                return
            self.say("354 go on" if place == "DATA" else "250 OK")
        self.hear_message()

    def close(self) -> None:
        self._file.close()
        self.connection.close()


@contextmanager
def raw_server(script: Script, connections: int = 1) -> Iterator[int]:
    """Runs ``script`` for each of so many connections, one after the other, in a thread; the value is the port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(PATIENCE_S)

        def work() -> None:
            for _ in range(connections):
                try:
                    line = Line(listener.accept()[0])
                except OSError:
                    return
                line.connection.settimeout(PATIENCE_S)
                try:
                    script(line)
                except OSError:
                    pass
                finally:
                    line.close()

        thread = threading.Thread(target=work)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.close()
            thread.join(PATIENCE_S + 1)


def settings(port: int, **given: Any) -> SmtpSettings:
    fields: dict[str, Any] = {
        "host": "127.0.0.1",
        "port": port,
        "tls": "none",
        "sender": SENDER,
        "hello": "bank.example",
        "connections": 1,
        "context": None,
    }
    return SmtpSettings(**(fields | given))


@asynccontextmanager
async def mailing(port: int, **given: Any) -> AsyncIterator[SmtpNetwork]:
    network = SmtpNetwork(settings(port, **given))
    try:
        yield network
    finally:
        await network.aclose()


def with_login() -> dict[str, Any]:
    return {"username": USER, "password": Secret(SECRET)}


def a_mail(number: int = 0, *, to: str = ADDRESS, body: bytes = b"", timeout_ms: int = 60_000) -> Request:
    """A message such as the channel makes."""
    message = body or b"Subject: %d\r\nMessage-ID: <%d@bank.example>\r\n\r\nhello\r\n" % (number, number)
    return Request("email", f"mailto:{to}", (), message, tag=number, timeout_ms=timeout_ms)


def slowly(line: Line, text: bytes, every_s: float = 0.05) -> None:
    """A byte at a time."""
    for byte in text:
        line.connection.sendall(bytes([byte]))
        time.sleep(every_s)
