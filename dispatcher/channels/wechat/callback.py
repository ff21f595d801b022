"""What WeChat posts to us: its signature, the delivery event of a template message, what users did. Pure.

Sources: providers.md section 3 (TEMPLATESENDJOBFINISH), 5.1 (signature), 5.2 (the envelope of safe mode) and 5.3
(events and messages). Passive replies are not used: every callback is answered ``success``.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping
from typing import cast
from urllib.parse import parse_qsl
from xml.etree.ElementTree import Element, ParseError

import msgspec
from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring

from dispatcher.model.heard import Heard, Kind

MAX_QUERY_FIELDS = 32
"""A callback has five; a query of thousands is not worth taking apart."""

MAX_DELIVERY_CHARS = 200
"""Of a status: WeChat's have 25."""

KINDS: dict[str, Kind] = {
    "subscribe": "follow",
    "SCAN": "scan",
    "unsubscribe": "unfollow",
    "CLICK": "tap",
    "scancode_push": "tap",
    "scancode_waitmsg": "tap",
    "message": "message",
}
"""Events that say something about the user, and ``message`` for whatever they write. VIEW opens a page and LOCATION
comes by itself: that either opened the customer-service window is not established, so they are thanked for and
forgotten."""

MESSAGES = frozenset({"text", "image", "voice", "video", "shortvideo", "location", "link"})

_OPENID = re.compile(r"[A-Za-z0-9_@.-]{1,128}", re.ASCII)
_SECONDS = re.compile(r"[0-9]{1,11}", re.ASCII)
_ENCRYPT = re.compile(rb"<Encrypt><!\[CDATA\[([A-Za-z0-9+/=]+)\]\]></Encrypt>")

_MSGID = re.compile(r"[0-9]{1,20}", re.ASCII)  # an int64

_BLANK = rb"[ \t\r\n]*+"
_WORD = rb"<!\[CDATA\[[A-Za-z0-9_@.-]++\]\]>"
_EXACT = re.compile(
    rb"<xml>" + _BLANK
    + rb"<ToUserName>" + _WORD + rb"</ToUserName>" + _BLANK
    + rb"<FromUserName>" + _WORD + rb"</FromUserName>" + _BLANK
    + rb"<CreateTime>[0-9]++</CreateTime>" + _BLANK
    + rb"<MsgType><!\[CDATA\[event\]\]></MsgType>" + _BLANK
    + rb"<Event><!\[CDATA\[TEMPLATESENDJOBFINISH\]\]></Event>" + _BLANK
    + rb"<MsgID>([0-9]{1,20})</MsgID>" + _BLANK
    + rb"<Status><!\[CDATA\[([A-Za-z0-9_:. -]{1,200})\]\]></Status>" + _BLANK
    + rb"</xml>" + _BLANK
)  # fmt: skip
"""The event as WeChat writes it, to the letter. It takes 2 µs instead of 25; whatever is not exactly this, is read by
defusedxml, and a test holds the two against each other."""


class UnreadableCallback(ValueError):
    """The sender's fault: not XML, XML that could be used against us, or a delivery event without its parts."""


class Delivery(msgspec.Struct, frozen=True, gc=False):
    """One TEMPLATESENDJOBFINISH: the ``msgid`` of the send, and the status as WeChat wrote it."""

    msgid: str
    status: str


def query_fields(query: str) -> Mapping[str, str]:
    """The fields of a query, decoded; the last of a name counts. Empty when it has more than ``MAX_QUERY_FIELDS``."""
    if query.count("&") >= MAX_QUERY_FIELDS:
        return {}
    if "%" in query or "+" in query:
        return dict(parse_qsl(query, keep_blank_values=True))
    fields = {}  # the common case, at a quarter of the price
    for part in query.split("&"):
        name, _, value = part.partition("=")
        fields[name] = value
    return fields


def signature(token: str, timestamp: str, nonce: str) -> str:
    """WeChat's signature of a callback: SHA-1 (its choice) of the three, sorted and joined."""
    return hashlib.sha1("".join(sorted((token, timestamp, nonce))).encode()).hexdigest()  # noqa: S324


def is_signed(token: str, fields: Mapping[str, str]) -> bool:
    """Whether the query of a callback carries the signature that ``token`` gives; compared in constant time."""
    wanted = signature(token, fields.get("timestamp", ""), fields.get("nonce", ""))
    return hmac.compare_digest(fields.get("signature", "").encode(), wanted.encode())


def encrypted_text(body: bytes) -> str:
    """What stands in ``Encrypt``: of safe mode, and of compat mode beside the plain fields. Empty when there is none.

    Nothing of the body is believed: the text is proved by ``msg_signature``. Raises `UnreadableCallback`.
    """
    exact = _ENCRYPT.search(body)
    if exact is not None:
        return exact[1].decode("ascii")
    return (_root(body).findtext("Encrypt") or "").strip()


def read_callback(body: bytes) -> Delivery | Heard | None:
    """The delivery that a callback reports, or what its user did; None for all that concerns nobody here.

    Raises `UnreadableCallback`.
    """
    exact = _EXACT.fullmatch(body)
    if exact is not None:
        return Delivery(exact[1].decode("ascii"), exact[2].decode("ascii"))
    return read_xml(body)


def read_xml(body: bytes) -> Delivery | Heard | None:
    """As `read_callback`, for any XML: entities, document types and external references are refused."""
    root = _root(body)
    if root.findtext("Event") != "TEMPLATESENDJOBFINISH":
        return _heard(root)
    msgid, status = (root.findtext("MsgID") or "").strip(), root.findtext("Status") or ""
    if not _MSGID.fullmatch(msgid) or not 0 < len(status) <= MAX_DELIVERY_CHARS:
        raise UnreadableCallback("a delivery event without its message or status")
    return Delivery(msgid, status)


def _root(body: bytes) -> Element:
    try:
        return cast("Element", fromstring(body, forbid_dtd=True))
    except (ParseError, DefusedXmlException, ValueError, LookupError):  # the last two: encodings that are none
        raise UnreadableCallback("not XML that is taken here") from None


def _heard(root: Element) -> Heard | None:
    kind = (root.findtext("MsgType") or "").strip()
    did = (root.findtext("Event") or "").strip() if kind == "event" else "message" if kind in MESSAGES else ""
    if did not in KINDS:
        return None
    openid = (root.findtext("FromUserName") or "").strip()
    seconds = (root.findtext("CreateTime") or "").strip()
    if not _OPENID.fullmatch(openid) or not _SECONDS.fullmatch(seconds):
        raise UnreadableCallback("an event or a message without its user or time")
    return Heard(openid, KINDS[did], int(seconds) * 1000)
