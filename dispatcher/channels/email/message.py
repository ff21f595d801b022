"""An alert as an e-mail: headers, a plain text and an HTML part. Pure; the same alert gives the same bytes."""

from __future__ import annotations

import re
from datetime import datetime
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime

import msgspec

from templates.mail import MailWords

# 7 bits on the wire: not every relay on the way takes eight.
_POLICY = SMTP.clone(cte_type="7bit")

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


class Sender(msgspec.Struct, frozen=True):
    """Who alerts come from."""

    address: str
    name: str = ""

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
    """The message with CRLF line ends. ``to`` has been through `checked_address`; ``when`` is the swipe's time.

    Raises ValueError for a value that is no header, a line break in a subject, say.
    """
    message = EmailMessage(policy=_POLICY)
    message["From"] = Address(display_name=sender.name, addr_spec=sender.address)
    message["To"] = Address(addr_spec=to)
    message["Subject"] = words.subject
    message["Date"] = format_datetime(when)
    message["Message-ID"] = message_id(key, sender)
    # RFC 3834, and the header that Exchange looks at: no holiday notice is to answer an alert.
    message["Auto-Submitted"] = "auto-generated"
    message["X-Auto-Response-Suppress"] = "All"
    message["Content-Language"] = locale
    message.set_content(words.text)
    message.add_alternative(words.html, subtype="html")
    message.set_boundary(f"=_{key}")  # email's own is drawn anew each time
    return message.as_bytes()
