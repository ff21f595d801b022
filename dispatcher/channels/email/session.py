"""One connection to a mail server: open it, hand over messages, end it.

On smtplib, which is kept with Python, knows the dialogue, the extensions and the ways to log in, and blocks: it runs in
a thread of its own (see `smtp`). aiosmtplib and the like need asyncio; libcurl speaks SMTP too, but does not tell
whether the end of a message had left, and that decides between a plain retry and an unknown outcome. Three things of
smtplib's are done otherwise here:

- its time-out is for each read, so that a server which sends a byte a second would hold a connection for ever; here a
  whole message has one deadline;
- it reads replies of any number of lines;
- it goes on with what a server said before TLS began (a man in the middle could have said it).
"""

from __future__ import annotations

import contextlib
import re
import smtplib
import socket
import ssl
import time
from enum import StrEnum
from typing import Any

import msgspec

from dispatcher.model.private import Secret

MAX_REPLY_BYTES = 16 * 1024
"""Of one reply, all its lines: RFC 5321 allows a line 512 bytes and the longest real EHLO has about 30 lines."""

READ_BYTES = 4096

CONNECT_TIMEOUT_S = 5.0
"""As for the other channels: a server that takes no connection within 5 s is down, and trying later is free."""

# Reasons, by libcurl's numbers, so that ``network-28`` means the same on every channel.
RESOLVE, CONNECT, NOT_SMTP, TIMED_OUT, TLS, SEND, RECEIVE, CERTIFICATE = 6, 7, 8, 28, 35, 55, 56, 60
NO_STARTTLS, NO_AUTH = 64, 67

_LINE = re.compile(rb"([2-5][0-9]{2})(?:([ -])(.*))?")
_DOTS = re.compile(rb"(?m)^\.")


class Stage(StrEnum):
    """Where in the dialogue a reply came: the same code means other things at other places."""

    OPEN = "open"  # greeting, EHLO, STARTTLS
    AUTH = "auth"
    MAIL = "mail"
    RCPT = "rcpt"
    DATA = "data"  # the DATA command and the end of the message


class SmtpSettings(msgspec.Struct, frozen=True):
    """How to reach a mail server. ``tls``: ``starttls``, ``implicit`` or ``none``; ``hello`` is the name we say."""

    host: str
    port: int
    tls: str
    sender: str
    hello: str
    connections: int
    context: ssl.SSLContext | None
    username: str | None = None
    password: Secret | None = None

    def __repr__(self) -> str:
        return f"<SmtpSettings {self.tls}>"


class Refused(Exception):
    """The server answered, and the answer is its last word about this message. Not for a broken connection."""

    def __init__(self, stage: Stage, status: int, text: bytes) -> None:
        super().__init__(f"{stage} {status}")  # without the text: servers repeat addresses
        self.stage = stage
        self.status = status
        self.text = text


class Broken(Exception):
    """There is no connection (any more), or none that we may use; ``code`` is one of the reasons above."""

    def __init__(self, code: int) -> None:
        super().__init__(f"reason {code}")
        self.code = code


class _Dialogue(smtplib.SMTP):
    """smtplib's client with a deadline for all that it reads and sends, and bounded replies."""

    def __init__(self, hello: str) -> None:
        super().__init__(local_hostname=hello)
        self.sock: Any = None  # smtplib makes it with its first connection
        self.deadline = 0.0
        self.pending = b""
        self.aborted = False

    def remaining(self) -> float:
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise Broken(TIMED_OUT)
        if self.aborted:
            raise Broken(RECEIVE)
        return left

    def send(self, s: Any) -> None:
        """See smtplib. Raises `Broken`; then at least the last byte of ``s`` has not left."""
        if self.sock is None:
            raise Broken(SEND)
        try:
            self.sock.settimeout(self.remaining())
            self.sock.sendall(s.encode("ascii") if isinstance(s, str) else s)
        except TimeoutError:
            raise Broken(TIMED_OUT) from None
        except OSError:
            raise Broken(SEND) from None

    def getreply(self) -> tuple[int, bytes]:
        """See smtplib. Raises `Broken`."""
        texts: list[bytes] = []
        read = 0
        while True:
            line = self._line()
            read += len(line)
            found = _LINE.fullmatch(line.rstrip(b"\r\n"))
            if found is None or read > MAX_REPLY_BYTES:
                raise Broken(NOT_SMTP)
            texts.append((found[3] or b"").strip())
            if found[2] != b"-":
                return int(found[1]), b"\n".join(texts)

    def _line(self) -> bytes:
        while b"\n" not in self.pending:
            if len(self.pending) > MAX_REPLY_BYTES:
                raise Broken(NOT_SMTP)
            if self.sock is None:
                raise Broken(RECEIVE)
            try:
                self.sock.settimeout(self.remaining())
                more = self.sock.recv(READ_BYTES)
            except TimeoutError:
                raise Broken(TIMED_OUT) from None
            except OSError:
                raise Broken(RECEIVE) from None
            if not more:
                raise Broken(RECEIVE)
            self.pending += more
        line, newline, self.pending = self.pending.partition(b"\n")
        return line + newline

    def secure(self, context: ssl.SSLContext, host: str) -> None:
        """Begin TLS and forget what was said before (RFC 3207 section 4.2)."""
        if self.pending:  # sent before TLS to be read as if it came after it
            raise Broken(NOT_SMTP)
        try:
            # In two steps, so that `abort` finds the new socket and not the one that it was made of.
            self.sock = context.wrap_socket(self.sock, server_hostname=host, do_handshake_on_connect=False)
            self.sock.settimeout(self.remaining())
            self.sock.do_handshake()
        except ssl.SSLCertVerificationError:
            raise Broken(CERTIFICATE) from None
        except TimeoutError:
            raise Broken(TIMED_OUT) from None
        except (OSError, ValueError):
            raise Broken(TLS) from None
        self.esmtp_features = {}
        self.ehlo_resp = None
        self.does_esmtp = False


class Session:
    """See the module. Used by one thread; only `abort` may come from another."""

    def __init__(self, settings: SmtpSettings) -> None:
        self._settings = settings
        self._dialogue = _Dialogue(settings.hello)
        self.messages = 0
        self.used_at = time.monotonic()

    def open(self, deadline: float) -> None:
        """Connect, begin TLS, log in; ``deadline`` is of `time.monotonic`. Raises `Broken` and `Refused`."""
        settings, dialogue = self._settings, self._dialogue
        dialogue.deadline = deadline
        try:
            dialogue.sock = socket.create_connection(
                (settings.host, settings.port), timeout=min(CONNECT_TIMEOUT_S, dialogue.remaining())
            )
        except socket.gaierror:
            raise Broken(RESOLVE) from None
        except TimeoutError:
            raise Broken(TIMED_OUT) from None
        except OSError:
            raise Broken(CONNECT) from None
        if settings.tls == "implicit":
            assert settings.context is not None
            dialogue.secure(settings.context, settings.host)
        self._expect(Stage.OPEN, 220, dialogue.getreply())
        self._expect(Stage.OPEN, 250, dialogue.ehlo())
        if settings.tls == "starttls":
            if not dialogue.has_extn("starttls"):
                raise Broken(NO_STARTTLS)
            assert settings.context is not None
            self._expect(Stage.OPEN, 220, dialogue.docmd("STARTTLS"))
            dialogue.secure(settings.context, settings.host)
            self._expect(Stage.OPEN, 250, dialogue.ehlo())
        if settings.username is not None and settings.password is not None:
            self._log_in(settings.username, settings.password)

    def _log_in(self, username: str, password: Secret) -> None:
        try:
            self._dialogue.login(username, password.reveal())
        except smtplib.SMTPAuthenticationError as error:
            text = error.smtp_error if isinstance(error.smtp_error, bytes) else b""
            raise Refused(Stage.AUTH, error.smtp_code, text) from None
        except (smtplib.SMTPException, ValueError):  # no mechanism that both know; a challenge that is not base64
            raise Broken(NO_AUTH) from None

    def still_there(self, deadline: float) -> bool:
        """Whether a connection that was idle can be used: RSET is answered. Nothing of a message leaves."""
        self._dialogue.deadline = deadline
        try:
            return self._dialogue.docmd("RSET")[0] == 250
        except Broken:
            return False

    def hand_over(self, recipient: str, message: bytes, deadline: float) -> None:
        """Send one message up to its end; the server's word about it comes from `verdict`.

        When this raises `Broken` or `Refused` the server cannot have the whole message, so it was not sent.
        """
        dialogue = self._dialogue
        dialogue.deadline = deadline
        self.messages += 1
        size = (f"size={len(message)}",) if dialogue.has_extn("size") else ()
        self._expect(Stage.MAIL, 250, dialogue.mail(self._settings.sender, size))
        code, text = dialogue.rcpt(recipient)
        if code not in (250, 251, 252):  # 251 and 252: it will be forwarded, or at least tried (RFC 5321 section 4.2.3)
            raise Refused(Stage.RCPT, code, text)
        self._expect(Stage.DATA, 354, dialogue.docmd("DATA"))
        end = b".\r\n" if message.endswith(b"\r\n") else b"\r\n.\r\n"
        # A message counts only with its last dot. Where sending fails, at least the end was not handed to the system,
        # or (TLS) not as a whole record.
        dialogue.send(_DOTS.sub(b"..", message) + end)

    def verdict(self) -> tuple[int, bytes]:
        """The reply to the end of the message. When this raises `Broken`, nobody knows what became of it."""
        reply = self._dialogue.getreply()
        self.used_at = time.monotonic()
        return reply

    def _expect(self, stage: Stage, wanted: int, reply: tuple[int, bytes]) -> None:
        if reply[0] != wanted:
            raise Refused(stage, *reply)

    def quit(self, deadline: float) -> None:
        """End it politely, then in any case."""
        self._dialogue.deadline = deadline
        try:
            self._dialogue.docmd("QUIT")
        except Broken:
            pass
        finally:
            self.close()

    def close(self) -> None:
        """Let go of the socket."""
        sock, self._dialogue.sock = self._dialogue.sock, None
        if sock is not None:
            sock.close()

    def abort(self) -> None:
        """From another thread: whoever waits for this connection stops waiting."""
        self._dialogue.aborted = True
        sock = self._dialogue.sock
        if sock is not None:
            # Not TLS's own shutdown, which would change the object that the other thread is reading from.
            with contextlib.suppress(OSError):  # it has ended already
                socket.socket.shutdown(sock, socket.SHUT_RDWR)
