"""The e-mail channel: what is sent, to whom, and how it is configured."""

from __future__ import annotations

import email
from datetime import UTC, datetime
from email.message import EmailMessage
from email.policy import default
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dispatcher.channels.base import CannotPrepare
from dispatcher.channels.build import open_network
from dispatcher.channels.email.channel import EmailChannel
from dispatcher.channels.email.message import BadAddress, Sender, build, checked_address
from dispatcher.config import Config
from dispatcher.config_channels import ChannelsConfig, EmailConfig
from dispatcher.config_load import load_config
from dispatcher.errors import ConfigurationError
from dispatcher.fleet.share import check_processes, share_of
from dispatcher.network.api import Failure, Request, Response
from dispatcher.network.routes import RoutedNetwork
from ratelimit.retry import RetryPolicy
from templates.library import Library
from templates.mail import MailWords
from tests.dispatcher.channel_kit import PHONE, an_alert, shows_nothing_private
from tests.dispatcher.mail_kit import ADDRESS, SENDER, mail_server
from tests.dispatcher.network_kit import Mailbox, ask_one

LIBRARY = Library.load(None)
TO_MAIL = {"email": ADDRESS, "locale": "en"}


def a_channel(**settings: Any) -> EmailChannel:
    config = EmailConfig(**({"host": "mail.bank.example", "sender": SENDER} | settings))
    return EmailChannel(config, LIBRARY, RetryPolicy())


def read(request: Request) -> EmailMessage:
    assert request.body is not None
    parsed = email.message_from_bytes(request.body, policy=default)
    assert isinstance(parsed, EmailMessage)
    assert not parsed.defects
    return parsed


def prepared(channel: EmailChannel | None = None, **fields: Any) -> Request:
    given_recipient = TO_MAIL | fields.pop("recipient", {})
    return (channel or a_channel()).prepare(an_alert(route=("email",), recipient=given_recipient, **fields))


# ---- what is sent ---------------------------------------------------------------------------------------------------


async def test_a_message_has_its_headers_a_text_and_an_html_part() -> None:
    channel = a_channel(sender_name="招商银行", timeout_seconds=2.5)
    await channel.ready()
    request = prepared(channel, event={"merchant": "Käse & <b>Wein</b>"})
    assert (request.pool, request.url, request.timeout_ms) == ("email", f"mailto:{ADDRESS}", 2_500)
    message = read(request)
    alert = an_alert()
    assert message["From"].addresses[0].display_name == "招商银行"
    assert message["From"].addresses[0].addr_spec == SENDER
    assert message["To"] == ADDRESS
    assert message["Subject"] == "Purchase £72.61 on card 5770: Käse & <b>Wein</b>"
    assert message["Message-ID"] == f"<{alert.key}@bank.example>"
    assert message["Date"].datetime == datetime(2024, 1, 1, 10, 0, tzinfo=UTC)
    assert message["Auto-Submitted"] == "auto-generated"
    assert message["Content-Language"] == "en"
    assert message.get_content_type() == "multipart/alternative"
    text, html = message.iter_parts()
    assert (text.get_content_type(), html.get_content_type()) == ("text/plain", "text/html")
    assert "Merchant: Käse & <b>Wein</b>\n" in text.get_content()  # type: ignore[attr-defined]
    assert "Käse &amp; &lt;b&gt;Wein&lt;/b&gt;" in html.get_content()  # type: ignore[attr-defined]
    shows_nothing_private(request)


def test_the_bytes_are_what_every_server_takes() -> None:
    body = prepared(event={"merchant": "招商" * 200}, recipient={"locale": "zh-CN"}).body
    assert body is not None
    assert body.isascii()
    lines = body.split(b"\r\n")
    assert max(map(len, lines)) <= 998
    assert b"\n" not in body.replace(b"\r\n", b"")
    assert b"\r" not in body.replace(b"\r\n", b"")


def test_every_attempt_is_the_same_bytes_and_every_alert_has_an_id_of_its_own() -> None:
    first = prepared()
    again = prepared(attempts=3, state="retrying")
    other = prepared(event={"id": "e-2"})
    assert first.body == again.body
    assert read(first)["Message-ID"] == read(again)["Message-ID"] != read(other)["Message-ID"]


def test_a_late_alert_says_so() -> None:
    late = read(prepared(late_seconds=7_200)).get_body(("plain",))
    in_time = read(prepared()).get_body(("plain",))
    assert late is not None
    assert in_time is not None
    assert "2 hr late" in late.get_content()
    assert "late" not in in_time.get_content()


@settings(max_examples=25)  # the parser of the test takes 100 ms a message
@given(merchant=st.text(max_size=80), name=st.text(st.characters(exclude_categories=["C", "Z"]), max_size=20))
def test_no_value_becomes_a_header(merchant: str, name: str) -> None:
    message = read(
        prepared(a_channel(sender_name=name), event={"merchant": merchant + "\r\nBcc: x@y.example\r\n\r\nhi"})
    )
    assert message.keys() == [
        "Content-Type",
        "MIME-Version",
        "From",
        "To",
        "Subject",
        "Date",
        "Message-ID",
        "Auto-Submitted",
        "X-Auto-Response-Suppress",
        "Content-Language",
    ]
    assert len(list(message.iter_parts())) == 2
    assert message["To"].addresses[0].addr_spec == ADDRESS


def test_a_subject_with_a_line_break_is_no_header() -> None:
    words = MailWords("one\r\nBcc: x@y.example", "text", "html")
    with pytest.raises(ValueError, match="Subject is not a header"):
        build(Sender(SENDER), ADDRESS, words, "key", datetime(2024, 1, 1, tzinfo=UTC), "en")


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"recipient": {"email": None}}, "no-email"),
        ({"recipient": {"email": "two words@x.example"}}, "bad-address"),
        ({"template": "gone@1"}, "template:UnknownTemplate"),
        ({"event": {"currency": "ZZZ"}}, "template-field:amount"),
    ],
)
def test_what_cannot_be_sent_says_why_without_the_address(fields: dict[str, Any], code: str) -> None:
    with pytest.raises(CannotPrepare) as caught:
        prepared(**fields)
    assert caught.value.code == code
    shows_nothing_private(caught.value)


# ---- addresses ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "wire"),
    [
        ("li.lei@example.com", "li.lei@example.com"),
        ("o'neill+cards=1@mail.example", "o'neill+cards=1@mail.example"),
        ("li@münchen.example", "li@xn--mnchen-3ya.example"),
        ("li@银行.中国", "li@xn--jn2a72x.xn--fiqs8s"),
        ("li@localhost", "li@localhost"),
    ],
)
def test_an_address_goes_on_the_wire(address: str, wire: str) -> None:
    assert checked_address(address) == wire


@pytest.mark.parametrize(
    "address",
    [
        "",
        "@",
        "li@",
        "@example.com",
        "li",
        ".li@example.com",
        "l..i@example.com",
        '"li lei"@example.com',
        "李@example.com",
        "li@ex ample.com",
        "li@-example.com",
        "li@example..com",
        "li@[127.0.0.1]",
        "li@example.com>\r\nRCPT TO:<x@y.example",
        "li@example.com\n",
        "li\0@example.com",
        "a@b@example.com",
        "x" * 65 + "@example.com",
        "li@" + "x" * 64 + ".example",
        "li@" + ".".join(["x" * 60] * 5),
        "li@" + "ü" * 300 + ".example",
    ],
)
def test_what_is_no_address_is_refused_without_repeating_it(address: str) -> None:
    with pytest.raises(BadAddress) as caught:
        checked_address(address)
    assert str(caught.value) == "not a mail address"


@given(st.text(max_size=60))
def test_no_text_makes_a_second_command(text: str) -> None:
    try:
        wire = checked_address(text)
    except BadAddress:
        return
    assert wire.isascii()
    assert not set(wire) & set('\r\n\0 <>"\\,;:()[]')
    assert wire.count("@") == 1


# ---- policy ---------------------------------------------------------------------------------------------------------


def test_an_unknown_outcome_is_sent_again_unless_the_category_says_otherwise() -> None:
    channel = a_channel(on_unknown={"digest": "leave"})
    said = {name: channel.policy(an_alert(event={"category": name})) for name in ("swipe", "digest", "other")}
    assert {name: policy.resend_unknown for name, policy in said.items()} == {
        "swipe": True,
        "digest": False,
        "other": True,
    }
    # Nobody reports later whether a mail came, so acceptance is the last word
    assert {policy.receipt_ms for policy in said.values()} == {None}
    assert channel.fenced


# ---- the network ----------------------------------------------------------------------------------------------------


def config_of(port: int, **settings: Any) -> Config:
    section = EmailConfig(**({"host": "127.0.0.1", "port": port, "sender": SENDER, "tls": "none"} | settings))
    return Config(channels=ChannelsConfig(email=section))


async def test_mail_goes_to_the_mail_server_and_the_rest_does_not() -> None:
    with mail_server() as server:
        network = open_network(config_of(server.port), {})
        try:
            answer = await ask_one(network, prepared())
            with pytest.raises(KeyError):
                network.submit([Request("sms", "http://127.0.0.1:1", (), b"")], lambda _: None)
        finally:
            await network.aclose()
    assert answer.status == 250
    assert server.taken[0]["To"] == ADDRESS
    assert server.envelopes == [(SENDER, [ADDRESS])]


async def test_a_mixed_batch_is_answered_by_each_networks_own() -> None:
    class Named:
        def __init__(self, status: int) -> None:
            self.status, self.closed = status, 0

        def submit(self, requests: Any, deliver: Any) -> None:
            deliver([Response(request, self.status, b"") for request in requests])

        async def aclose(self) -> None:
            self.closed += 1

    one, two = Named(1), Named(2)
    network = RoutedNetwork(one, {"email": two})
    mailbox = Mailbox()
    network.submit([Request(pool, "", (), b"") for pool in ("sms", "email", "wechat", "email")], mailbox.deliver)
    assert sorted((r.request.pool, r.status) for r in mailbox.responses) == [
        ("email", 2),
        ("email", 2),
        ("sms", 1),
        ("wechat", 1),
    ]
    await network.aclose()
    assert (one.closed, two.closed) == (1, 1)


async def test_a_server_that_is_not_there_is_not_sent(unused_port: int) -> None:
    network = open_network(config_of(unused_port), {})
    try:
        assert (await ask_one(network, prepared())).failure is Failure.NOT_SENT
    finally:
        await network.aclose()


# ---- configuration --------------------------------------------------------------------------------------------------


def test_a_fleet_divides_the_connections_and_not_the_rate() -> None:
    config = config_of(25, rate_per_second=11, connections=3)
    shares = [share_of(config, index, 2).channels.email for index in range(2)]
    assert [(one.rate_per_second, one.connections) for one in shares if one is not None] == [(11, 2), (11, 1)]
    with pytest.raises(ConfigurationError, match=r"channels\.email\.connections is 3"):
        check_processes(config, 4)


BASE = 'host = "mail.bank.example"\nsender = "alerts@bank.example"\n'


@pytest.mark.parametrize(
    ("section", "why"),
    [
        ('sender = "a@b.example"', r"channels\.email\.host: is missing"),
        ('host = "x"', r"channels\.email\.sender: is missing"),
        ('host = "x"\nsender = "nobody"', r"channels\.email\.sender: allowed is a text that matches"),
        ('host = "x"\nsender = "a@b.example>\\r\\nX: y"', r"channels\.email\.sender: allowed is a text that matches"),
        (BASE + 'tls = "none"', r'channels\.email\.tls: "none" is allowed for a loopback address only'),
        (BASE + 'tls = "maybe"', r"channels\.email\.tls: allowed is"),
        (BASE + 'username = "u"', r"channels\.email\.secret_file: is missing"),
        (BASE + 'username = "u\\n"\nsecret_file = "s"', r"channels\.email\.username: allowed are printable"),
        (BASE + 'secret_file = "s"', r"channels\.email\.username: is missing although there is a secret"),
        (BASE + 'sender_name = "a\\nb"', r"channels\.email\.sender_name: holds a line break"),
        (BASE + "connections = 65", r"channels\.email\.connections: allowed is a whole number from 1 to 64"),
        (BASE + 'password = "hunter2"', r"channels\.email\.password: a secret is never written here"),
        (BASE + 'ca_file = "none"', r"channels\.email\.ca_file: there is no file"),
    ],
)
def test_a_wrong_section_is_refused_in_one_line(section: str, why: str, tmp_path: Path) -> None:
    (tmp_path / "s").write_text("x")
    (tmp_path / "swipebell.toml").write_text(f"[channels.email]\n{section}\n")
    with pytest.raises(ConfigurationError, match=why) as caught:
        load_config(tmp_path / "swipebell.toml", {})
    assert "\n" not in str(caught.value)
    assert "hunter2" not in str(caught.value)


async def test_what_is_no_certificate_or_password_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("not PEM")
    with pytest.raises(ConfigurationError, match=r"channels\.email\.ca_file"):
        open_network(config_of(25, tls="starttls", ca_file=tmp_path / "ca.pem"), {})
    with pytest.raises(ConfigurationError, match="password holds characters") as caught:
        open_network(config_of(25, username="u", secret_env="P"), {"P": "pässwort" + PHONE})
    shows_nothing_private(caught.value)
