"""What is wrong with a rendering, judged without the code that made it: the simulated provider's field checks, and
Python's own parsers of JSON, mail and HTML."""

from __future__ import annotations

import json
import re
import unicodedata
from datetime import UTC, datetime
from email import policy
from email.message import EmailMessage
from email.parser import BytesParser
from html.parser import HTMLParser
from typing import Final

import msgspec

from dispatcher.channels.email.message import Sender, build
from loadtest.providers.fields import faulty_key
from templates.card import Card
from templates.mail import MailWords

MAX_SMS: Final = 486
"""UTF-16 units: Aliyun takes 500, of which a sign of twelve characters and its brackets take 14."""
MAX_SUBJECT: Final = 120
MAX_MAIL: Final = 32_768
MAX_LINE_BYTES: Final = 998
"""Of a line of a mail's head, RFC 5322 section 2.1.1."""
MAX_MARKS_IN_A_ROW: Final = 3

JOINER: Final = "\u200d"
_CLASS: Final = " -~¡-¬®-ʯА-я\u2010-\u2015‘-”…₠-₿、-〉〜ぁ-ゔァ-ヾ一-鿿가-힣！-～"
_plain: Final = re.compile(f"[{_CLASS}]*").fullmatch
_plain_lines: Final = re.compile(f"[\n{_CLASS}]*").fullmatch

SENDER: Final = Sender("alerts@bank.example", "招商银行")
WHEN: Final = datetime(2026, 11, 22, 5, 5, tzinfo=UTC)
HEADERS: Final = [
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
"""Of a mail of ours, in order: one more would have come out of a value."""


def utf16(text: str) -> int:
    """Length as providers of SMS count it; fails for half a character."""
    return len(text) if text.isascii() else len(text.encode("utf-16-le")) // 2


def of_text(text: str, *, lines: bool = False) -> list[str]:
    """Characters that hide, reorder or pile up. ``lines``: line breaks may be in it."""
    if (_plain_lines if lines else _plain)(text):
        return []  # nearly all
    found = hidden_in(text, lines=lines)
    marks, before = 0, ""
    for character in text:
        marks = marks + 1 if unicodedata.category(character)[0] == "M" else 0
        if marks > MAX_MARKS_IN_A_ROW:
            found.append("marks pile up")
        if character == JOINER and before in ("", " ", JOINER):
            found.append("a joiner that joins nothing")
        before = character
    return found


def hidden_in(text: str, *, lines: bool = False) -> list[str]:
    """Characters that do not print, but for the joiner of emoji and letters."""
    rest = text.replace(JOINER, "")
    if lines:
        rest = rest.replace("\n", "")
    return [] if rest.isprintable() else [f"U+{ord(one):04X} is hidden" for one in rest if not one.isprintable()]


def of_wechat(data: str) -> list[str]:
    """Of the ``data`` of a template message, as JSON text: what the provider would answer 47003 for, and what hides."""
    try:
        parsed = json.loads(data)
    except ValueError as error:
        return [f"is not JSON: {error}"]
    values = {}
    for key, field in parsed.items():
        if list(field) != ["value"] or type(field["value"]) is not str:
            return [f"{key} is not one value"]
        values[key] = field["value"]
    faulty = faulty_key(values)
    found = [] if faulty is None else [f"47003 data.{faulty}.value invalid"]
    return found + [f"{key}: {fault}" for key, value in values.items() for fault in of_text(value)]


def of_sms(text: str) -> list[str]:
    """Of an SMS without its sign."""
    found = of_text(text)
    if not text.strip():
        found.append("is empty")
    if (size := utf16(text)) > MAX_SMS:
        found.append(f"{size} of {MAX_SMS} units")
    return found


def of_mail(words: MailWords) -> list[str]:
    """Of a mail's parts, before they are a message."""
    found = [f"subject: {fault}" for fault in of_text(words.subject)]
    if utf16(words.subject) > MAX_SUBJECT:
        found.append("subject: is too long")
    found += [f"text: {fault}" for fault in of_text(words.text, lines=True)]
    found += [f"html: {fault}" for fault in hidden_in(words.html, lines=True)]
    found += [f"{name}: is too long" for name in ("text", "html") if len(getattr(words, name)) > MAX_MAIL]
    return found + [f"{name}: is empty" for name in ("subject", "text", "html") if not getattr(words, name).strip()]


def of_card(card: Card) -> list[str]:
    """Of a card; it may do without its picture and without a link of its own."""
    found = [
        f"{name}: {fault}" for name in ("title", "description") for fault in of_text(getattr(card, name), lines=True)
    ]
    for name in ("picture", "url"):
        link = getattr(card, name)
        if link and not (link.startswith("https://") and link.isascii() and link.isprintable()):
            found.append(f"{name}: is not an https link")
    return found + [f"{name}: is empty" for name in ("title", "description") if not getattr(card, name).strip()]


def of_message(words: MailWords, locale: str) -> list[str]:
    """Of the whole mail as it goes to the server, read as a mailbox reads it."""
    raw = build(SENDER, "li.lei@example.com", words, "k" * 32, WHEN, locale)
    message = BytesParser(policy=policy.default).parsebytes(raw)
    assert isinstance(message, EmailMessage)
    found = [f"{type(defect).__name__}" for part in message.walk() for defect in part.defects]
    if sorted(message.keys()) != sorted(HEADERS):
        found.append(f"its headers are {list(message)}")
    if (message["To"], message["Subject"]) != ("li.lei@example.com", words.subject):
        found.append("its headers say something else")
    head = raw.partition(b"\r\n\r\n")[0]
    if max(map(len, head.split(b"\r\n"))) > MAX_LINE_BYTES or not raw.isascii():
        found.append("its head is not mail")
    parts = [(part.get_content_type(), part.get_content().rstrip("\n")) for part in message.iter_parts()]
    if parts != [("text/plain", words.text), ("text/html", words.html)]:
        found.append("its parts say something else")
    return found


class Page(msgspec.Struct):
    """A page as a browser takes it: its text, its elements with their attributes, and its scripts."""

    text: str = ""
    elements: list[tuple[str, tuple[tuple[str, str | None], ...]]] = []
    scripts: list[str] = []


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.page = Page()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.page.elements.append((tag, tuple(attrs)))

    def handle_endtag(self, tag: str) -> None:
        self.page.elements.append((f"/{tag}", ()))

    def handle_data(self, data: str) -> None:
        if self.lasttag == "script" and self.cdata_elem == "script":
            self.page.scripts.append(data)
        else:
            self.page.text += data

    def handle_comment(self, data: str) -> None:
        self.page.elements.append(("!--", ()))

    def handle_decl(self, decl: str) -> None:
        self.page.elements.append((f"!{decl}", ()))

    def handle_pi(self, data: str) -> None:
        self.page.elements.append(("?", ()))

    def unknown_decl(self, data: str) -> None:
        self.page.elements.append(("![", ()))


def seen_in(html: str) -> Page:
    """What a browser finds in a mail or page."""
    reader = _Reader()
    reader.feed(html)
    reader.close()
    return reader.page
