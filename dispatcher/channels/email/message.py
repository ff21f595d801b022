"""An alert as an e-mail: headers, a plain text and an HTML part. Pure; the same alert gives the same bytes."""

from __future__ import annotations

import re
from datetime import datetime
from email.header import Header
from email.mime.multipart import MIMEMultipart
from email.mime.text import MIMEText
from email.policy import compat32
from email.utils import format_datetime, formataddr
from functools import cached_property

from templates.mail import MailWords

_POLICY = compat32.clone(linesep="\r\n", cte_type="7bit")

MAX_ADDRESS_CHARS = 254
"""RFC 5321 section 4.5.3.1.3: a path has 256 octets, of which the brackets take two."""

MAX_LOCAL_CHARS = 64

_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
_local = re.compile(rf"{_ATOM}(?:\.{_ATOM})*").fullmatch
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_domain = re.compile(rf"{_LABEL}(?:\.{_LABEL})*").fullmatch


class BadAddress(ValueError):
    """Not an address that any mail server would take. The text does not repeat it."""

    def __init__(self) -> None:
        super().__init__("not a mail address")


# Printable ASCII, and line breaks only where the next line begins with a blank: then it is the same header.
_header = re.compile(r"[\x20-\x7e]+(?:\r\n[ \t][\x20-\x7e]+)*").fullmatch


class Sender:
    """Who alerts come from."""

    def __init__(self, address: str, name: str = "") -> None:
        self.address = address
        self.name = name

    @cached_property
    def header(self) -> str:
        """The From header; a name in other letters as RFC 2047 words."""
        return formataddr((self.name, self.address), "utf-8")

    @property
    def domain(self) -> str:
        """Behind the @; Message-IDs are made in it."""
        return self.address.rpartition("@")[2]


def checked_address(text: str) -> str:
    """The address as it goes on the wire, a domain in other letters as IDNA. Raises `BadAddress`.

    Local parts in other letters or in quotes are refused: they need SMTPUTF8 all the way to the mailbox, or are
    somebody's attempt to write a second command or header.
    """
    local, at, domain = text.rpartition("@")
    if not at or len(local) > MAX_LOCAL_CHARS or not _local(local):
        raise BadAddress
    try:
        wire = domain if domain.isascii() else domain.encode("idna").decode("ascii")
    except UnicodeError:
        raise BadAddress from None
    if not _domain(wire) or len(local) + 1 + len(wire) > MAX_ADDRESS_CHARS:
        raise BadAddress
    return f"{local}@{wire}"


def message_id(key: str, sender: Sender) -> str:
    """The same for every attempt, so that mailboxes which look at it show a resend once."""
    return f"<{key}@{sender.domain}>"


def build(sender: Sender, to: str, words: MailWords, key: str, when: datetime, locale: str) -> bytes:
    """The message with CRLF line ends, in 7 bits. ``to`` has been through `checked_address`; ``when`` is the swipe's.

    Raises ValueError for a value that is no header, a line break in a subject, say.
    """
    # The older half of Python's email: the newer one parses every header that it is given, 5 ms a message in the one
    # thread that all channels share, against 0.8.
    message = MIMEMultipart("alternative", boundary=f"=_{key}")  # email's own boundary is drawn anew each time
    headers = {
        "From": sender.header,
        "To": to,
        "Subject": _encoded(words.subject),
        "Date": format_datetime(when),
        "Message-ID": message_id(key, sender),
        # RFC 3834, and the header that Exchange looks at: no holiday notice is to answer an alert.
        "Auto-Submitted": "auto-generated",
        "X-Auto-Response-Suppress": "All",
        "Content-Language": locale,
    }
    for name, value in headers.items():
        if not _header(value):
            raise ValueError(f"{name} is not a header")
        message[name] = value
    message.attach(MIMEText(words.text, "plain", "utf-8"))
    message.attach(MIMEText(words.html, "html", "utf-8"))
    return message.as_bytes(policy=_POLICY)


def _encoded(text: str) -> str:
    """As RFC 2047 words, folded, where it is not ASCII or holds what a mailbox would take for such a word."""
    return (
        text
        if text.isascii() and "=?" not in text
        else Header(text, "utf-8", header_name="Subject").encode(linesep="\r\n")
    )
