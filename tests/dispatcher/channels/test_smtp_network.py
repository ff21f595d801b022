"""The mail network against a real mail server, and against servers that are none."""

from __future__ import annotations

import ssl
import time
from pathlib import Path
from typing import Any

import pytest
import trio

from dispatcher.channels.email.session import (
    CERTIFICATE,
    CONNECT,
    MAX_REPLY_BYTES,
    NO_AUTH,
    NO_STARTTLS,
    NOT_SMTP,
    RECEIVE,
    TIMED_OUT,
    TLS,
    Session,
)
from dispatcher.channels.email.smtp import CLOSED_CODE, MAX_CONNECTION_MESSAGES, SmtpNetwork
from dispatcher.model.private import Secret
from dispatcher.network.api import Failure
from tests.certificate_kit import Certificates
from tests.dispatcher.channel_kit import SECRET, shows_nothing_private
from tests.dispatcher.mail_kit import (
    ADDRESS,
    SENDER,
    USER,
    Line,
    a_mail,
    mail_server,
    mailing,
    raw_server,
    settings,
    slowly,
    with_login,
)
from tests.dispatcher.network_kit import PATIENCE_S, Mailbox, ask, ask_one


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("ca"))


# ---- messages that go through -------------------------------------------------------------------------------------


async def test_a_message_is_taken_with_its_envelope() -> None:
    with mail_server() as server:
        async with mailing(server.port) as network:
            response = await ask_one(network, a_mail(body=b"Subject: x\r\n\r\n.a line with a dot\r\n"))
    assert (response.status, response.failure, response.headers) == (250, None, (b"data",))
    assert server.envelopes == [(SENDER, [ADDRESS])]
    assert server.raw[0].endswith(b"\r\n\r\n.a line with a dot\r\n")


async def test_starttls_and_log_in_come_before_the_message(certificates: Certificates) -> None:
    with mail_server(certificates.server_context("m", "IP:127.0.0.1"), require_starttls=True) as server:
        given = {"tls": "starttls", "context": certificates.client_context(), **with_login()}
        async with mailing(server.port, **given) as network:
            response = await ask_one(network, a_mail())
    assert response.status == 250
    assert (server.secured, server.logins) == ([True], [(USER, SECRET)])


async def test_tls_from_the_first_byte(certificates: Certificates) -> None:
    context = certificates.server_context("m", "IP:127.0.0.1")

    def script(line: Line) -> None:
        line.connection = context.wrap_socket(line.connection, server_side=True)
        secured = Line(line.connection)
        secured.until("end")
        secured.say("250 OK")
        secured.hear()
        secured.close()

    with raw_server(script) as port:
        async with mailing(port, tls="implicit", context=certificates.client_context()) as network:
            assert (await ask_one(network, a_mail())).status == 250


async def test_a_connection_is_kept_and_bounded_in_number() -> None:
    with mail_server() as server:
        async with mailing(server.port, connections=3) as network:
            responses = await ask(network, *[a_mail(number) for number in range(30)])
            for number in range(5):
                await ask_one(network, a_mail(number))
    assert [response.status for response in responses] == [250] * 30
    assert {response.request.tag for response in responses} == set(range(30))
    assert 1 <= server.connections <= 3


async def test_a_connection_ends_after_its_share_of_messages() -> None:
    with mail_server() as server:
        async with mailing(server.port) as network:
            await ask(network, *[a_mail(number) for number in range(MAX_CONNECTION_MESSAGES + 1)])
    assert server.connections == 2


async def test_a_kept_connection_that_died_costs_no_message() -> None:
    # Given a server that hangs up after each message
    def script(line: Line) -> None:
        line.until("end")
        line.say("250 OK")

    with raw_server(script, connections=3) as port:
        async with mailing(port) as network:
            responses = [await ask_one(network, a_mail(number)) for number in range(3)]
    assert [response.status for response in responses] == [250] * 3


# ---- refusals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("place", "stage"), [("EHLO", "open"), ("MAIL", "mail"), ("RCPT", "rcpt"), ("DATA", "data")])
async def test_a_refusal_brings_its_code_text_and_place(place: str, stage: str) -> None:
    with mail_server() as server:
        server.say[place] = [f"550 5.7.1 <{ADDRESS}> {SECRET}"]
        async with mailing(server.port) as network:
            refused = await ask_one(network, a_mail(1))
            after = await ask_one(network, a_mail(2))
    assert (refused.status, refused.failure, refused.headers) == (550, None, (stage.encode(),))
    assert refused.body.startswith(b"5.7.1 ")
    assert after.status == 250  # the next message is not held up by it
    assert len(server.taken) == 1
    shows_nothing_private(refused)


async def test_a_refused_log_in_is_the_answer(certificates: Certificates) -> None:
    with mail_server(certificates.server_context("m", "IP:127.0.0.1")) as server:
        server.say["AUTH"] = ["535 5.7.8 no"] * 2  # for PLAIN, then for LOGIN
        given = {"tls": "starttls", "context": certificates.client_context(), **with_login()}
        async with mailing(server.port, **given) as network:
            refused = await ask_one(network, a_mail())
    assert (refused.status, refused.headers, server.taken) == (535, (b"auth",), [])
    shows_nothing_private(refused)


async def test_421_ends_the_connection() -> None:
    with mail_server() as server:
        server.say["RCPT"] = ["421 4.3.2 closing"]
        async with mailing(server.port) as network:
            assert (await ask_one(network, a_mail(1))).status == 421
            assert (await ask_one(network, a_mail(2))).status == 250
    assert server.connections == 2


# ---- what a person has to mend ------------------------------------------------------------------------------------


async def test_nothing_leaves_in_the_clear_where_tls_is_demanded(certificates: Certificates) -> None:
    with mail_server() as server:
        given = {"tls": "starttls", "context": certificates.client_context(), **with_login()}
        async with mailing(server.port, **given) as network:
            response = await ask_one(network, a_mail())
    assert (response.failure, response.code) == (Failure.NOT_SENT, NO_STARTTLS)
    assert (server.taken, server.logins) == ([], [])


@pytest.mark.parametrize("names", ["IP:127.0.0.9", None])
async def test_a_certificate_that_is_not_the_servers_is_refused(
    certificates: Certificates, tmp_path: Path, names: str | None
) -> None:
    theirs = certificates if names else Certificates(tmp_path)
    with mail_server(theirs.server_context("other", names or "IP:127.0.0.1")) as server:
        async with mailing(server.port, tls="starttls", context=certificates.client_context()) as network:
            response = await ask_one(network, a_mail())
    assert (response.failure, response.code, server.taken) == (Failure.NOT_SENT, CERTIFICATE, [])


async def test_no_way_to_log_in_that_both_know() -> None:
    with mail_server() as server:  # AUTH is offered under TLS only
        async with mailing(server.port, **with_login()) as network:
            response = await ask_one(network, a_mail())
    assert (response.failure, response.code) == (Failure.NOT_SENT, NO_AUTH)


async def test_what_was_said_before_tls_is_not_believed(certificates: Certificates) -> None:
    # Given somebody on the line who adds a reply of their own to the last one in the clear
    def script(line: Line) -> None:
        line.say("220 mail.test")
        line.hear()
        line.say("250-mail.test\r\n250 STARTTLS")
        line.hear()
        line.say("220 go on\r\n250 forged")
        line.hear()

    with raw_server(script) as port:
        async with mailing(port, tls="starttls", context=certificates.client_context()) as network:
            response = await ask_one(network, a_mail())
    assert (response.failure, response.code) == (Failure.NOT_SENT, NOT_SMTP)


# ---- no answer ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", ["greeting", "EHLO", "MAIL", "RCPT", "DATA"])
async def test_hanging_up_before_the_end_of_the_message_is_a_plain_retry(stage: str) -> None:
    with raw_server(lambda line: line.until(stage)) as port:
        async with mailing(port) as network:
            response = await ask_one(network, a_mail())
    assert (response.failure, response.code) == (Failure.NOT_SENT, RECEIVE)


async def test_hanging_up_in_the_middle_of_the_message_is_a_plain_retry() -> None:
    def script(line: Line) -> None:
        line.until("DATA")
        line.say("354 go on")
        line.connection.recv(1000)

    with raw_server(script) as port:
        async with mailing(port) as network:
            response = await ask_one(network, a_mail(body=b"Subject: x\r\n\r\n" + b"x" * 20_000_000))
    assert response.failure is Failure.NOT_SENT


async def test_hanging_up_after_the_end_of_the_message_is_of_unknown_outcome() -> None:
    with raw_server(lambda line: line.until("end")) as port:
        async with mailing(port) as network:
            response = await ask_one(network, a_mail())
    assert (response.failure, response.code) == (Failure.UNKNOWN, RECEIVE)
    shows_nothing_private(response)


async def test_nobody_there_is_a_plain_retry(unused_port: int) -> None:
    async with mailing(unused_port) as network:
        response = await ask_one(network, a_mail())
    assert (response.failure, response.code) == (Failure.NOT_SENT, CONNECT)


@pytest.mark.parametrize(("stage", "failure"), [("greeting", Failure.NOT_SENT), ("end", Failure.UNKNOWN)])
async def test_a_byte_now_and_then_does_not_hold_a_connection(stage: str, failure: Failure) -> None:
    # Given a server that says something each 50 ms, so that no single read ever times out
    def script(line: Line) -> None:
        line.until(stage)
        slowly(line, b"220-" + b"x" * 400)

    with raw_server(script) as port:
        async with mailing(port) as network:
            before = time.monotonic()
            response = await ask_one(network, a_mail(timeout_ms=1_500))
            took = time.monotonic() - before
    assert (response.failure, response.code) == (failure, TIMED_OUT)
    assert took < 10


@pytest.mark.parametrize(("stage", "failure"), [("greeting", Failure.NOT_SENT), ("end", Failure.UNKNOWN)])
@pytest.mark.parametrize(
    "text",
    [
        b"HTTP/1.1 200 OK\r\n\r\n<html>",
        b"\x16\x03\x01\x02\x00\x01\x00\r\n",
        b"250OK\r\n",
        b"999 OK\r\n",
        b"25\r\n",
        b"\r\n",
        b"250-\xff\xfe\r\n+250 OK\r\n",
        b"220-" + b"x" * MAX_REPLY_BYTES * 4,
        b"220-more\r\n" * (MAX_REPLY_BYTES // 4),
    ],
    ids=["http", "tls", "no-blank", "999", "two", "empty", "broken", "endless-line", "endless-lines"],
)
async def test_what_is_not_smtp_is_not_taken_for_an_answer(text: bytes, stage: str, failure: Failure) -> None:
    def script(line: Line) -> None:
        line.until(stage)
        line.connection.sendall(text)
        line.hear()

    with raw_server(script) as port:
        async with mailing(port) as network:
            response = await ask_one(network, a_mail())
    assert (response.failure, response.code) == (failure, NOT_SMTP)


# ---- the end --------------------------------------------------------------------------------------------------------


async def test_closing_answers_everything_once_and_soon() -> None:
    # Given one message whose end has left and that gets no answer, and two that wait for the connection
    reached = trio.Event()
    token = trio.lowlevel.current_trio_token()

    def script(line: Line) -> None:
        line.until("end")
        token.run_sync_soon(reached.set)
        line.hear()

    with raw_server(script) as port:
        network = SmtpNetwork(settings(port))
        mailbox = Mailbox()
        network.submit([a_mail(number, timeout_ms=60_000) for number in range(3)], mailbox.deliver)
        with trio.fail_after(PATIENCE_S):
            await reached.wait()
        before = time.monotonic()
        await network.aclose()
        took = time.monotonic() - before
    failures = {response.request.tag: response.failure for response in mailbox.responses}
    assert failures == {0: Failure.UNKNOWN, 1: Failure.NOT_SENT, 2: Failure.NOT_SENT}
    assert len(mailbox.responses) == 3
    assert {response.code for response in mailbox.responses} == {CLOSED_CODE}
    assert took < 5.5
    with pytest.raises(RuntimeError):
        network.submit([a_mail()], mailbox.deliver)
    await network.aclose()


async def test_a_defect_in_one_message_fails_that_message(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    true = Session.hand_over

    def once_broken(self: Session, *arguments: Any) -> None:
        calls.append(arguments)
        if len(calls) == 1:
            raise ZeroDivisionError
        true(self, *arguments)

    monkeypatch.setattr(Session, "hand_over", once_broken)
    with mail_server() as server:
        async with mailing(server.port) as network:
            first = await ask_one(network, a_mail(1))
            second = await ask_one(network, a_mail(2))
    assert (first.failure, second.status) == (Failure.NOT_SENT, 250)


def test_settings_show_no_password() -> None:
    given = settings(25, context=ssl.create_default_context(), username=USER, password=Secret(SECRET))
    shows_nothing_private(given)


async def test_a_server_that_is_silent_under_tls_holds_nobody(certificates: Certificates) -> None:
    def script(line: Line) -> None:
        line.say("220 mail.test")
        line.hear()
        line.say("250-mail.test\r\n250 STARTTLS")
        line.hear()
        line.say("220 go on")
        while line.connection.recv(4096):
            pass

    with raw_server(script) as port:
        async with mailing(port, tls="starttls", context=certificates.client_context()) as network:
            response = await ask_one(network, a_mail(timeout_ms=300))
    assert (response.failure, response.code) == (Failure.NOT_SENT, TIMED_OUT)


async def test_a_server_that_does_not_speak_tls_holds_nobody(certificates: Certificates) -> None:
    with raw_server(lambda line: line.say("220 mail.test")) as port:
        async with mailing(port, tls="implicit", context=certificates.client_context()) as network:
            response = await ask_one(network, a_mail())
    assert (response.failure, response.code) == (Failure.NOT_SENT, TLS)


async def test_a_password_never_leaves_before_tls(certificates: Certificates) -> None:
    # Given a server whose word for STARTTLS is a refusal, and which offers AUTH in the clear
    heard: list[bytes] = []

    def script(line: Line) -> None:
        line.say("220 mail.test")
        heard.append(line.hear())
        line.say("250-mail.test\r\n250-AUTH PLAIN LOGIN\r\n250 STARTTLS")
        heard.append(line.hear())
        line.say("454 4.7.0 TLS not available")
        heard.append(line.hear())

    with raw_server(script) as port:
        given = {"tls": "starttls", "context": certificates.client_context(), **with_login()}
        async with mailing(port, **given) as network:
            response = await ask_one(network, a_mail())
    assert (response.status, response.headers) == (454, (b"open",))
    assert heard == [b"ehlo bank.example\r\n", b"STARTTLS\r\n", b""]
