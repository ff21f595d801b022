"""The e-mail part of a template: subject, plain text and HTML.

Nothing but the subject is shortened: a mail has room. In the HTML every value is escaped before the template sees it,
so that no filter or block of a template, ``safe`` included, can let a merchant's name in as markup.
"""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

import msgspec

from templates.errors import FieldRefused
from templates.facts import FIELDS, SwipeFacts
from templates.render import Source
from templates.text import units
from templates.words import words_for

MAX_SUBJECT_UNITS = 120
"""UTF-16 units of a subject. Phones show about 40, and a header line has 998 bytes, which is 240 Chinese characters
once they are encoded (RFC 5322 section 2.1.1)."""

MAX_MAIL_CHARS = 32_768
"""Characters of one rendering of text or HTML. The shipped HTML has 3,000, and each value at its longest (512,
escaped six times that) 3,000 more."""


class MailWords(msgspec.Struct, frozen=True):
    """What a mail says. ``subject`` is one line without control characters."""

    subject: str
    text: str
    html: str

    def __repr__(self) -> str:
        return "<MailWords ****>"


class MailPart:
    """The mail of one locale of a template."""

    def __init__(self, locale: str, subject: Source, text: Source, html: Source) -> None:
        self._subject, self._text, self._html = subject, text, html
        self._lang = locale
        self._words = words_for(locale)
        self._uses = tuple({name: None for source in (subject, text, html) for name in source.uses})

    def render(self, facts: SwipeFacts) -> MailWords:
        """Raises ``FieldRefused`` and ``RenderFailed``."""
        words = self._words
        return self.fill({name: FIELDS[name].read(facts, words) for name in self._uses})

    def fill(self, values: Mapping[str, str]) -> MailWords:
        """The mail for these values, one for each field that the part uses. Errors as ``render``."""
        # A line break in a subject would begin another header.
        subject = " ".join(self._subject.shortened(values, lambda _text: MAX_SUBJECT_UNITS).split())
        if units(subject) > MAX_SUBJECT_UNITS:
            raise FieldRefused("subject", f"is longer than {MAX_SUBJECT_UNITS} and cannot be shortened")
        text = self._text.render(values).strip()
        html = self._html.render({name: escape(value) for name, value in values.items()} | {"lang": self._lang}).strip()
        for key, content in (("subject", subject), ("text", text), ("html", html)):
            if not content:
                raise FieldRefused(key, "is empty")
        return MailWords(subject, text, html)
