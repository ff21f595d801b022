"""What WeChat posts to us: its signature, and the delivery event of a template message. Pure.

Sources: providers.md section 3 (TEMPLATESENDJOBFINISH) and 5.1 (signature). Plain mode.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping
from urllib.parse import parse_qsl
from xml.etree.ElementTree import ParseError

import msgspec
from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring

MAX_QUERY_FIELDS = 32
"""A callback has five; a query of thousands is not worth taking apart."""

MAX_DELIVERY_CHARS = 200
"""Of a status: WeChat's have 25."""

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


def read_callback(body: bytes) -> Delivery | None:
    """The delivery that a callback reports; None for every other event and message. Raises `UnreadableCallback`."""
    exact = _EXACT.fullmatch(body)
    if exact is not None:
        return Delivery(exact[1].decode("ascii"), exact[2].decode("ascii"))
    return read_xml(body)


def read_xml(body: bytes) -> Delivery | None:
    """As `read_callback`, for any XML: entities, document types and external references are refused."""
    try:
        root = fromstring(body, forbid_dtd=True)
    except (ParseError, DefusedXmlException, ValueError, LookupError):  # the last two: encodings that are none
        raise UnreadableCallback("not XML that is taken here") from None
    if root.findtext("Event") != "TEMPLATESENDJOBFINISH":
        return None
    msgid, status = (root.findtext("MsgID") or "").strip(), root.findtext("Status") or ""
    if not _MSGID.fullmatch(msgid) or not 0 < len(status) <= MAX_DELIVERY_CHARS:
        raise UnreadableCallback("a delivery event without its message or status")
    return Delivery(msgid, status)
