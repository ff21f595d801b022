"""Logs: one JSON object a line, and never a personal datum, wherever somebody put it."""

from __future__ import annotations

import io
import json
import logging
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.errors import ConfigurationError
from dispatcher.logs import MAX_READ_CHARS, MAX_TEXT_CHARS, configure_logs, get_logger, mask, mask_text
from dispatcher.model.private import OpenId, Phone, Secret

OPENID = "oABCD1234efgh5678IJKL_mn-opQ"
PHONE = "+8613800138000"
CARD = "6222021234567890123"
EMAIL = "zhang.san@example.com"
HEX_SECRET = "5e4c0ffee5e4c0ffee5e4c0ffee5e4c0"
PERSONAL = [
    OPENID,
    "o" + "abcdefghijklmnopqrstuvwxyz_",
    PHONE,
    "13800138000",
    "+86 138 0013 8000",
    "+1 (415) 555-2671",
    "%2B8613800138000",
    "+6591234",
    "00000000-0000-4000-a000-013800138000",
    CARD,
    "4111111111111111",
    "4111 1111 1111 1111",
    "4111-1111-1111-1111",
    EMAIL,
    "a%40b.example",
    "张三@例子.中国",
]
WRAPPERS: list[tuple[str, Any]] = [
    ("value", lambda text: text),
    ("sentence", lambda text: f"send to {text}, refused"),
    ("json", lambda text: json.dumps({"to": text})),
    ("url", lambda text: f"https://h/send?to={text}&x=1"),
    ("list", lambda text: ["x", [text]]),
    ("key", lambda text: {text: 1}),
    ("deep", lambda text: {"a": {"b": ({"c": text},)}}),
    ("set", lambda text: {text}),
    ("path", lambda text: Path("/var") / text),
    ("exception", lambda text: ValueError(f"bad: {text}")),
    ("enum", lambda text: Enum("Kind", {"A": text}).A),  # type: ignore[attr-defined]
    ("object", lambda text: SimpleNamespace(to=text)),
    ("bytes", lambda text: text.encode()),
]


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    stream = io.StringIO()
    configure_logs("debug", stream)
    yield stream
    root.handlers[:] = handlers
    root.setLevel(level)
    for name in ("httpx", "httpcore", "hypercorn"):
        logging.getLogger(name).setLevel(logging.NOTSET)
    structlog.reset_defaults()


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    text = stream.getvalue()
    assert text == "" or text.endswith("\n")
    return [json.loads(line) for line in text.splitlines()]


def test_a_line_is_one_json_object_with_time_level_logger_and_event(stream):
    get_logger("dispatcher.engine").info("batch admitted", accepted=256)
    (line,) = lines(stream)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", line.pop("time"))
    assert line == {
        "level": "info",
        "logger": "dispatcher.engine",
        "event": "batch admitted",
        "accepted": 256,
    }


def test_lines_below_the_level_are_not_written():
    stream = io.StringIO()
    configure_logs("warning", stream)
    get_logger("x").info("quiet")
    get_logger("x").warning("loud")
    assert [line["event"] for line in lines(stream)] == ["loud"]
    structlog.reset_defaults()


def test_numbers_codes_ids_and_words_stay(stream):
    # Given what an operator needs to see
    facts = {
        "alert": 2**62 + 12345,
        "errcode": 43004,
        "errmsg": "require subscribe rid: 5f0a1b2c-3d4e5f60-718293a4",
        "accepted": 20_000,
        "seconds": 0.125,
        "ok": True,
        "nothing": None,
        "rule": "sms-from-100-yuan",
        "module": "dispatcher.channels.wechat.token",
        "what": "the_breaker_of_this_channel_has_opened",
        "listen": "127.0.0.1:8080",
        "at": "2017-01-03T15:27:27.123456+00:00",
        "client_msg_id": "f3a1c0ffee5e4c0ffee5e4c0ffee5e4c",
        "uuid": "550e8400-e29b-41d4-a716-4466554400ff",
        "merchant": "shell kings 587",
        "counts": [1, 2, 3],
    }
    # When
    get_logger("x").info("provider answered 43004", **facts)
    # Then
    (line,) = lines(stream)
    assert {key: line[key] for key in facts} == facts
    assert line["event"] == "provider answered 43004"


@pytest.mark.parametrize("personal", PERSONAL)
@pytest.mark.parametrize(("name", "wrap"), WRAPPERS, ids=[name for name, _ in WRAPPERS])
def test_nothing_personal_gets_out(stream, personal, name, wrap):
    # Given a personal datum in a value, in the event, as an argument and bound to the logger
    value = wrap(personal)
    log = get_logger("x").bind(bound=value)
    # When
    log.info(f"told {personal}", value=value)
    log.warning("told %s", personal)
    # Then
    written = stream.getvalue()
    decoded = str(lines(stream))
    assert personal not in written
    assert personal not in decoded
    assert personal.strip("+%") not in decoded


@pytest.mark.parametrize("private", [OpenId("tiny"), Phone("+49123"), Secret("short")])
def test_private_types_are_masked_whatever_they_hold(stream, private):
    get_logger("x").info("told", value=private, nested={"a": [private], private: 1})
    (line,) = lines(stream)
    assert line["value"] == "****"
    assert line["nested"]["a"] == ["****"]
    assert private.reveal() not in stream.getvalue()


around = st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), max_size=12)
digits = st.text("0123456789", min_size=11, max_size=19)
phones = st.from_regex(r"\+[1-9][0-9]{6,14}", fullmatch=True)
alphabet = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-"
openids = st.text(alphabet, min_size=24, max_size=24).map(lambda text: f"oQx9{text}")
emails = st.from_regex(r"[a-z0-9.]{1,12}@[a-z0-9]{1,10}\.(com|cn)", fullmatch=True)


@given(before=around, personal=digits | phones | openids | emails, after=around)
def test_what_surrounds_a_personal_datum_does_not_uncover_it(before, personal, after):
    assert personal not in mask_text(before + personal + after)


@given(text=around, number=st.integers(0, 9_999_999))
def test_short_numbers_survive(text, number):
    assert mask_text(f"code {number} given") == f"code {number} given"


@pytest.mark.parametrize(
    "text",
    [
        f"https://api.weixin.qq.com/cgi-bin/token?grant_type=client_credential&secret={HEX_SECRET}&appid=wx1",
        f'{{"access_token": "{HEX_SECRET}"}}',
        f"Authorization: Bearer {HEX_SECRET}",
        f"password={HEX_SECRET}",
    ],
)
def test_secrets_by_their_name_are_masked(text):
    assert HEX_SECRET not in mask_text(text)


@pytest.mark.parametrize(
    "text",
    [
        "swipe@2",
        "waits for approval: swipebell templates approve foreign-purchase@12 --by NAME",
        "template hello@1 of the ledger:1: id: Expected `str`; see hello@2147483648.",
        "hello@3/wechat.zh-CN/thing5, line 1",
        '{"news":["swipe@2","own@1"]}',
    ],
)
def test_versions_of_templates_can_be_read(text):
    assert mask_text(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "zhang@163.com",
        "zhang@12345678901",
        "Zhang@163",
        "z.san@163",
        "+zhang@163",
        "a@163/x",
        "a@1@b.cn",
        "a@163.sms.en",
    ],
)
def test_what_is_not_quite_the_version_of_a_template_is_an_address(text):
    assert mask_text(f"to {text}, refused") == "to ****, refused"


def test_a_datum_at_the_cut_of_a_long_text_does_not_show_its_beginning():
    for offset in range(-14, 2):
        text = "x " * ((MAX_TEXT_CHARS + offset) // 2) + PHONE
        assert "+861" not in mask_text(text)
        assert len(mask_text(text)) <= MAX_TEXT_CHARS


def test_a_text_too_long_to_search_is_left_out():
    assert mask_text("1" * (MAX_READ_CHARS + 1)) == f"<text of {MAX_READ_CHARS + 1} characters>"


def test_values_that_json_cannot_hold_do_not_break_the_line(stream):
    itself: list[Any] = []
    itself.append(itself)
    get_logger("x").info(
        "odd",
        itself=itself,
        many=list(range(100_000)),
        surrogate="a\udcffb",
        huge=10**30,
        inf=float("inf"),
        moment=datetime(2017, 1, 3, tzinfo=UTC),
        breaks="a\nb",
    )
    (line,) = lines(stream)
    assert line["surrogate"] == "a?b"
    assert len(line["many"]) == 64
    assert line["breaks"] == "a\nb"
    assert line["moment"] == "2017-01-03T00:00:00+00:00"


# Exceptions


def fail(error: BaseException) -> None:
    account_of = PHONE  # a local, which must not be shown
    raise error from LookupError(f"no recipient {account_of}")


@pytest.mark.parametrize("personal", [*PERSONAL, "张三"])
@pytest.mark.parametrize(
    "make", [lambda text: KeyError(text), lambda text: ValueError(f"can't read {text!r} today"), OSError]
)
def test_an_exception_shows_type_and_place_but_no_value(stream, personal, make):
    # When
    try:
        fail(ExceptionGroup("two", [make(f"'{personal}'"), RuntimeError("plain words 43004")]))
    except ExceptionGroup:
        get_logger("x").exception("batch failed")
    # Then
    (line,) = lines(stream)
    shown = line["exception"]
    assert personal not in str(line)
    assert PHONE not in str(line)
    assert shown["type"] == "ExceptionGroup"
    assert re.fullmatch(r".*test_logs:\d+ fail", shown["at"][-1])
    assert shown["cause"]["type"] == "LookupError"
    assert shown["members"][1]["message"] == "plain words 43004"


def test_our_own_errors_keep_their_quoted_advice(stream):
    error = ConfigurationError('intake.http.listen: allowed is "HOST:PORT"')
    get_logger("x").error("stopped", exc_info=error)
    (line,) = lines(stream)
    assert line["exception"]["message"] == 'intake.http.listen: allowed is "HOST:PORT"'


def test_an_exception_that_cannot_be_printed_is_still_reported(stream):
    class BrokenError(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no")

    get_logger("x").error("stopped", exc_info=BrokenError())
    assert lines(stream)[0]["exception"]["message"] == "****"


def test_a_chain_of_causes_ends(stream):
    first, second = ValueError("a"), ValueError("b")
    first.__cause__, second.__cause__ = second, first
    assert str(mask(first)).count("ValueError") == 8


# Libraries


def test_httpx_does_not_log_the_access_token(stream):
    transport = httpx.MockTransport(lambda request: httpx.Response(200))
    with httpx.Client(transport=transport) as client:
        client.get(f"https://api.weixin.qq.com/send?access_token={HEX_SECRET}")
    assert stream.getvalue() == ""


def test_a_library_that_sets_its_own_level_is_still_held_to_warnings(stream):
    library = logging.getLogger("some.library")
    library.setLevel(logging.DEBUG)
    library.info("GET https://h/?access_token=abc")
    library.setLevel(logging.NOTSET)
    assert stream.getvalue() == ""


def test_warnings_of_libraries_are_masked(stream):
    # When
    logging.getLogger("some.library").warning("could not post to %s for '张三'", PHONE)
    try:
        raise KeyError(OPENID)
    except KeyError:
        logging.getLogger("some.library").exception("failed")
    # Then
    first, second = lines(stream)
    assert (first["level"], first["logger"]) == ("warning", "some.library")
    assert first["event"] == "could not post to **** for ****"
    assert (second["level"], second["exception"]["type"]) == ("error", "KeyError")
    assert OPENID not in stream.getvalue()


def test_a_library_whose_arguments_do_not_fit_is_still_reported(stream):
    record = logging.makeLogRecord({"name": "lib", "levelno": 40, "msg": "two %s %s", "args": (PHONE,)})
    (handler,) = [h for h in logging.getLogger().handlers if type(h).__module__ == "dispatcher.logs"]
    handler.handle(record)
    (line,) = lines(stream)
    assert (line["level"], line["event"]) == ("error", "a message whose arguments do not fit")


def test_configuring_twice_writes_each_line_once(stream):
    again = io.StringIO()
    configure_logs("info", again)
    logging.getLogger("some.library").warning("once")
    assert stream.getvalue() == ""
    assert len(lines(again)) == 1


def test_a_stream_that_is_gone_does_not_stop_the_program(stream):
    stream.close()
    get_logger("x").error("nobody reads this")


def test_before_it_is_configured_warnings_go_to_stderr_masked(capsys):
    structlog.reset_defaults()
    log = get_logger("x")
    log.info("quiet")
    log.warning("loud", phone=PHONE)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert json.loads(captured.err)["phone"] == "****"
    structlog.reset_defaults()
