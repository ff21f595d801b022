"""Every code of the mail table, said by a real server to a real engine."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.channels.base import CONFIGURATION_PAUSE_MS
from dispatcher.channels.email.answers import MAILBOX_PAUSE_MS, TABLE, UNKNOWN_LATER, classify, knows, look_up
from dispatcher.channels.email.session import CERTIFICATE, NO_AUTH, NO_STARTTLS
from dispatcher.channels.table import NOT_IN_TABLE
from dispatcher.delivery import AnswerClass
from dispatcher.ledger.stories import AlertStory
from dispatcher.network.api import Failure
from tests.certificate_kit import Certificates
from tests.dispatcher.channel_kit import no_response_to, response_to, shows_nothing_private
from tests.dispatcher.channels.sequential_kit import ACCOUNT, ENDS_HERE, GOES_ON, MAIL, NEXT, sending
from tests.dispatcher.mail_kit import a_mail, mail_server, raw_server

A = AnswerClass
PASSWORD = "Table-Password-0123456789"
SECTION = """
[channels.email]
host = "127.0.0.1"
port = {port}
sender = "alerts@bank.example"
tls = "starttls"
ca_file = "{ca}"
username = "alerts-user"
secret_file = "password"
connections = 1
"""
PLAIN = '[channels.email]\nhost = "127.0.0.1"\nport = {port}\nsender = "alerts@bank.example"\ntls = "none"\n'

PLACES = {"open": "EHLO", "auth": "AUTH", "mail": "MAIL"}


def said_for(key: str) -> tuple[str, str]:
    """Where a server says the code of a row, and what: it quotes more than it should."""
    chatter = f"<{MAIL}> {PASSWORD} {ACCOUNT}"
    stage, _, code = key.rpartition(" ")
    if stage:
        return PLACES[stage], f"{code} {chatter}"
    if "." in code:
        return "RCPT", f"{code[0]}50 {code.replace('x', '93')} {chatter}"
    return "DATA", f"{code} {chatter}"


def check(key: str, kind: AnswerClass, alert: AlertStory) -> None:
    """The alert took the steps of its class; the second attempt is accepted, and so is everything on the next
    channel."""
    steps = [(attempt.channel, attempt.outcome) for attempt in alert.attempts]
    expected = [("email", str(kind))]
    if kind in GOES_ON:
        expected.append((NEXT, "accepted"))
    elif kind not in ENDS_HERE:
        expected.append(("email", "accepted"))
    assert steps == expected, key
    assert (alert.state, alert.channel) == ("delivered", expected[-1][0]), key
    assert alert.attempts[0].code == key


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("ca"))


async def test_every_code_leads_to_the_step_that_the_table_says(
    certificates: Certificates, tmp_path: Path, mock_clock: trio.testing.MockClock
) -> None:
    context = certificates.server_context("m", "IP:127.0.0.1")
    with mail_server(context, require_starttls=True) as server:
        section = SECTION.format(port=server.port, ca=certificates.ca_file)
        async with sending("email", section, tmp_path, {"password": PASSWORD}) as world:
            for key, row in TABLE.rows.items():
                place, text = said_for(key)
                if place in ("EHLO", "AUTH"):  # said on a new connection only
                    server.hang_up()
                # AUTH is asked for PLAIN and then for LOGIN
                server.say[place] = [text] * (2 if place == "AUTH" else 1)
                check(key, row.kind, await world.send())
                assert not server.say[place], key
            refused = world.refused()
            printed = world.printed()
            counted = Counter(world.meter.outcomes)
    gone = [row.kind is A.RECIPIENT_GONE for row in TABLE.rows.values()]
    assert sum(gone) == sum("email" in one for one in refused) == counted["email", "recipient_gone"]
    assert counted["email", "permanent"] == sum(row.kind is A.PERMANENT for row in TABLE.rows.values())
    assert not world.meter.totals.unknown_codes
    for private in (MAIL, PASSWORD, ACCOUNT, "alerts-user"):
        assert private not in printed


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        ("299 done", A.PERMANENT),
        ("399 hm", A.PERMANENT),
        ("499 later", A.RETRY),
        ("599 never", A.PERMANENT),
    ],
)
async def test_a_code_that_nobody_knows_is_a_failure_with_an_alarm(
    reply: str, kind: AnswerClass, tmp_path: Path, mock_clock: trio.testing.MockClock
) -> None:
    with mail_server() as server:
        async with sending("email", PLAIN.format(port=server.port), tmp_path, {}) as world:
            server.say["DATA"] = [f"{reply} {MAIL}"]
            check(reply[:3], kind, await world.send())
            printed = world.printed()
    assert dict(world.meter.totals.unknown_codes) == {"email": 1}
    alarms = [line for line in world.logs if line["event"] == "unknown_code"]
    assert [(line["channel"], line["code"], line["log_level"]) for line in alarms] == [("email", reply[:3], "error")]
    assert MAIL not in printed


async def test_no_answer_to_the_end_is_unknown_and_sent_again_with_the_same_message_id(
    tmp_path: Path, mock_clock: trio.testing.MockClock
) -> None:
    messages: list[bytes] = []

    def script(line):  # type: ignore[no-untyped-def]
        line.until("DATA")
        line.say("354 go on")
        messages.append(line.hear_message())
        if len(messages) == 2:
            line.say("250 OK")

    with raw_server(script, connections=2) as port:
        async with sending("email", PLAIN.format(port=port), tmp_path, {}) as world:
            alert = await world.send()
    assert [(one.outcome, one.code) for one in alert.attempts] == [("unknown", "network-56"), ("accepted", "250")]
    assert b"\r\nMessage-ID: <" in messages[0]
    assert messages[0] == messages[1]


async def test_an_unknown_outcome_can_be_left_alone(tmp_path: Path, mock_clock: trio.testing.MockClock) -> None:
    section = PLAIN + 'on_unknown = {{ swipe = "leave" }}\n'
    with raw_server(lambda line: line.until("end")) as port:
        async with sending("email", section.format(port=port), tmp_path, {}) as world:
            alert = await world.send()
    assert (alert.state, alert.reason, len(alert.attempts)) == ("failed", "unknown-outcome", 1)


# ---- looking up -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stage", "status", "text", "key"),
    [
        ("rcpt", 550, b"5.1.1 nobody", "5.1.1"),
        ("rcpt", 550, b"5.1.10 null MX", "5.1.10"),
        ("rcpt", 550, b"5.1.19 odd", "550"),
        ("rcpt", 554, b"5.1.1 nobody", "5.1.1"),
        ("rcpt", 550, b"nobody", "550"),
        ("rcpt", 550, b"4.1.1 contradicts itself", "550"),
        ("rcpt", 450, b"4.2.1 slowly", "4.2.x"),
        ("rcpt", 550, b"5.7.26 SPF", "5.7.x"),
        ("mail", 550, b"5.7.1 not this sender", "mail 550"),
        ("mail", 530, b"5.7.0 log in first", "530"),
        ("mail", 552, b"5.3.4 too large", "5.3.x"),
        ("data", 554, b"5.6.0 content", "5.6.x"),
        ("data", 552, b"", "552"),
        ("data", 421, b"4.7.0 rate", "421"),
        ("auth", 454, b"4.7.0 not now", "454"),
        ("auth", 535, b"5.7.8 wrong", "auth 535"),
        ("open", 554, b"no service here", "open 554"),
        ("open", 421, b"busy", "421"),
        ("data", 250, b"2.0.0 queued", "250"),
    ],
)
def test_the_key_that_says_most_counts(stage: str, status: int, text: bytes, key: str) -> None:
    assert look_up(stage, status, text) == (key, TABLE.rows[key])


def test_only_the_end_of_the_message_is_an_acceptance() -> None:
    for stage in ("open", "auth", "mail", "rcpt", ""):
        assert look_up(stage, 250, b"OK") == ("250", NOT_IN_TABLE)


def test_first_digits_are_no_success() -> None:
    assert look_up("data", 298, b"2.0.0 fine") == ("298", NOT_IN_TABLE)
    assert look_up("data", 498, b"") == ("498", UNKNOWN_LATER)
    assert look_up("data", 598, b"") == ("598", NOT_IN_TABLE)


@pytest.mark.parametrize(
    ("code", "name"), [(NO_STARTTLS, "no-starttls"), (NO_AUTH, "no-login"), (CERTIFICATE, "certificate")]
)
def test_what_a_person_has_to_mend_pauses_the_channel(code: int, name: str) -> None:
    answer = classify(no_response_to(a_mail(), Failure.NOT_SENT, code))
    assert (answer.kind, answer.code, answer.pause_ms) == (A.CONFIGURATION, name, CONFIGURATION_PAUSE_MS)
    assert knows(answer.code)
    shows_nothing_private(answer)


def test_the_table_by_hand() -> None:
    # Written down a second time: what the issue asks for by name
    kinds = {
        A.ACCEPTED: "250 251 252",
        A.RECIPIENT_GONE: "5.1.1 5.1.10",
        A.CONFIGURATION: "535 530",
        A.PERMANENT: "5.7.x 552 554",
        A.RETRY: "421 450 451",
        A.THROTTLE: "452 4.7.x",
    }
    for kind, keys in kinds.items():
        assert {TABLE.rows[key].kind for key in keys.split()} == {kind}
    assert TABLE.rows["450"].pause_ms == MAILBOX_PAUSE_MS
    assert not TABLE.rows["550"].retryable


@given(
    stage=st.sampled_from(["open", "auth", "mail", "rcpt", "data", "", "?"]),
    status=st.integers(-1, 1000),
    text=st.binary(max_size=60) | st.from_regex(rb"[245]\.[0-9]{1,4}\.[0-9]{1,4} .{0,9}", fullmatch=True),
)
def test_no_reply_is_taken_for_an_acceptance_that_it_is_not(stage: str, status: int, text: bytes) -> None:
    response = response_to(a_mail(), text + MAIL.encode(), status, headers=(stage.encode(),) if stage else ())
    answer = classify(response)
    if answer.kind is A.ACCEPTED:
        assert (stage, status) in {("data", 250), ("data", 251), ("data", 252)}
    assert len(answer.code) < 16
    assert MAIL not in repr(answer)
    assert knows(answer.code) == (answer.code in TABLE.rows)
