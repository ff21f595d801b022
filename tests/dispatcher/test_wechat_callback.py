"""WeChat's callbacks, without a server: the signature, the delivery event, and XML that means harm."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.channels.wechat.callback import (
    _EXACT,
    Delivery,
    UnreadableCallback,
    is_signed,
    query_fields,
    read_callback,
    read_xml,
    signature,
)

DOCUMENTED = b"""<xml><ToUserName><![CDATA[gh_7f083739789a]]></ToUserName>
<FromUserName><![CDATA[oia2TjuEGTNoeX76QEjQNrcURxG8]]></FromUserName><CreateTime>1395658920</CreateTime>
<MsgType><![CDATA[event]]></MsgType><Event><![CDATA[TEMPLATESENDJOBFINISH]]></Event>
<MsgID>200163836</MsgID><Status><![CDATA[success]]></Status></xml>"""


# ---- the signature ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("timestamp", "nonce", "expected"),
    [
        ("1714037059", "486452656", "899cf89e464efb63f54ddac96b0a0a235f53aa78"),
        ("1714036504", "1514711492", "f464b24fc39322e44b38aa78f5edd27bd1441696"),
    ],
)
def test_the_signature_is_the_one_of_the_documentation(timestamp: str, nonce: str, expected: str) -> None:
    assert signature("AAAAA", timestamp, nonce) == expected
    fields = {"signature": expected, "timestamp": timestamp, "nonce": nonce}
    assert is_signed("AAAAA", fields)
    for changed in ({"signature": expected.upper()}, {"signature": ""}, {"signature": "ü"}, {"nonce": "1"}):
        assert not is_signed("AAAAA", {**fields, **changed})
    assert not is_signed("AAAAB", fields)
    assert not is_signed("AAAAA", {})


def test_a_query_is_taken_apart_as_a_browser_would_write_it() -> None:
    assert query_fields("") == {"": ""}
    assert query_fields("a=1&b=&c&a=2") == {"a": "2", "b": "", "c": ""}
    assert query_fields("echostr=%E6%88%91+a%26b&x=1=2") == {"echostr": "我 a&b", "x": "1=2"}
    assert query_fields("a=1&" * 10_000) == {}


# ---- the delivery event -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", ["success", "failed:user block", "failed: system failed", "failed:freq limit"])
def test_each_status_of_the_documentation_is_read_by_both_readers_alike(status: str) -> None:
    body = DOCUMENTED.replace(b"success", status.encode())
    assert _EXACT.fullmatch(body)
    assert read_callback(body) == read_xml(body) == Delivery("200163836", status)


def test_what_is_written_in_another_way_is_read_all_the_same() -> None:
    # Compat mode has an Encrypt beside the plain fields; the order, blanks and CDATA are nobody's promise.
    compat = DOCUMENTED.replace(b"</xml>", b"<Encrypt><![CDATA[abc]]></Encrypt></xml>")
    other = (
        b'<?xml version="1.0" encoding="utf-8"?>\n<!-- x --><xml a="b">\n <Status>failed:user block</Status>'
        b"<Event>TEMPLATE<![CDATA[SENDJOBFINISH]]></Event> <MsgID>\n 3557254367693750277 </MsgID></xml>"
    )
    assert read_callback(compat) == Delivery("200163836", "success")
    assert read_callback(other) == Delivery("3557254367693750277", "failed:user block")


@pytest.mark.parametrize(
    "body",
    [
        b"<xml><MsgType><![CDATA[news]]></MsgType><Content>hi</Content><MsgId>1</MsgId></xml>",
        DOCUMENTED.replace(b"TEMPLATESENDJOBFINISH", b"MASSSENDJOBFINISH"),
        DOCUMENTED.replace(b"Event>", b"event>"),
        b"<xml/>",
        b"<html><xml><Event>TEMPLATESENDJOBFINISH</Event></xml></html>",
    ],
)
def test_other_events_and_messages_are_none_of_ours(body: bytes) -> None:
    assert read_callback(body) is None


ENTITY = b'<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa">%b]><xml><Event>&a;</Event></xml>'


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff\xfe",
        b"not xml",
        DOCUMENTED[:-1],
        DOCUMENTED + b"x",
        DOCUMENTED.replace(b"200163836", b""),
        DOCUMENTED.replace(b"200163836", b"+8613800000001"),
        DOCUMENTED.replace(b"200163836", b"9" * 21),
        DOCUMENTED.replace(b"200163836", "２００".encode()),
        DOCUMENTED.replace(b"success", b"x" * 201),
        DOCUMENTED.replace(b"<Status><![CDATA[success]]></Status>", b""),
        DOCUMENTED.replace(b"success", b"\xff"),
        DOCUMENTED.replace(b"success", b"\x00"),
        b'<?xml version="1.0" encoding="nope"?><xml/>',
        b"<!DOCTYPE xml><xml/>",
        ENTITY % b"",
        ENTITY % b"".join(b'<!ENTITY a%d "%b">' % (n, b"&a;" * 50) for n in range(50)),
        b'<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]><xml><Event>&a;</Event></xml>',
        b'<!DOCTYPE x SYSTEM "http://127.0.0.1:1/x.dtd"><xml/>',
        b"<a>" * 20_000,
    ],
)
def test_what_is_broken_or_means_harm_is_refused_and_not_quoted(body: bytes) -> None:
    with pytest.raises(UnreadableCallback) as caught:
        read_callback(body)
    assert str(caught.value) in ("not XML that is taken here", "a delivery event without its message or status")
    assert caught.value.__context__ is None or caught.value.__suppress_context__


# ---- the short way and the judge ----------------------------------------------------------------------------------

PIECES = re.findall(rb"<!\[CDATA\[|\]\]>|</?[A-Za-z]+>|[^<\]]+", DOCUMENTED)
assert b"".join(PIECES) == DOCUMENTED

ODD_PIECES = (
    b" |\n|\x0b|\x0c|\x00|]]>|<![CDATA[|&amp;|&|<|<!-- -->|<?x?>|-1|failed: system failed|</xml>|\xc3\xbc|\xff|"
)
ODD = st.sampled_from([*ODD_PIECES.split(b"|"), b"9" * 20, b"9" * 21, b"<MsgID>1</MsgID>"])


@st.composite
def nearly_documented(draw: st.DrawFn) -> bytes:
    """The documented event with a few pieces changed, doubled, dropped, or put elsewhere."""
    pieces = list(PIECES)
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(pieces) - 1))
        what = draw(st.sampled_from(["odd", "replace", "drop", "double", "swap"]))
        if what == "odd":
            pieces.insert(at, draw(ODD))
        elif what == "replace":
            pieces[at] = draw(ODD | st.binary(max_size=6))
        elif what == "drop" and len(pieces) > 1:
            del pieces[at]
        elif what == "double":
            pieces.insert(at, pieces[at])
        else:
            other = draw(st.integers(0, len(pieces) - 1))
            pieces[at], pieces[other] = pieces[other], pieces[at]
    return b"".join(pieces)


def outcome(read: object, body: bytes) -> object:
    try:
        return read(body)  # type: ignore[operator]
    except UnreadableCallback:
        return UnreadableCallback


@given(nearly_documented())
def test_the_short_way_and_the_judge_agree(body: bytes) -> None:
    assert outcome(read_callback, body) == outcome(read_xml, body)


@given(st.from_regex(_EXACT, fullmatch=True))
def test_whatever_takes_the_short_way_means_the_same_to_the_judge(body: bytes) -> None:
    delivery = read_callback(body)
    assert isinstance(delivery, Delivery)
    assert delivery == outcome(read_xml, body)
