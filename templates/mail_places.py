"""Where a field may not stand in a mail's HTML: there a value could say more than its words. Pure.

A value is escaped, which makes it harmless between tags and inside of quotes. Nowhere else: in a tag without quotes a
blank begins another attribute, and a style sheet, a script and an ``on…`` attribute are languages of their own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from templates.scan import codes

MARK = "\ue0f5"
"""Stands where a field does. It is of the private use area, which no value has (``text.clean``)."""

UNSAFE_REMEDY = 'write it between tags, or into an attribute in quotes, as in title="{{ field }}"'

_tag = re.compile(r"</?([A-Za-z\ue0f5][^\s/>]*+)").match
_attribute = re.compile(
    r"""[\s/]*+(?P<name>[^\s=>/]++|=)(?:\s*+=\s*+(?:"(?P<double>[^"]*+)"|'(?P<single>[^']*+)'|(?P<bare>[^\s>]*+)))?"""
).match
_remark = re.compile(r"\{#.*?#\}", re.DOTALL)
_LANGUAGES = {"style": "in a style sheet", "script": "in a script"}


def unsafe_places(html: str, *, styles: bool) -> Iterator[tuple[int, str]]:
    """Each place with a ``MARK`` in ``html`` where no field may stand: its position, and where that is.

    ``styles``: in a ``style`` attribute, too.
    """
    at = 0
    while (at := html.find("<", at)) >= 0:
        if html.startswith("<!--", at):
            end = html.find("-->", at)
            at = len(html) if end < 0 else end + 3
            continue
        if (tag := _tag(html, at)) is None:
            at += 1
            continue
        if MARK in tag[1]:
            yield tag.start(1), "in the name of a tag"
        at = tag.end()
        while (one := _attribute(html, at)) is not None:
            at = one.end()
            if where := _unsafe_attribute(one, styles=styles):
                yield one.start() + one[0].index(MARK), where
        if tag[0][1] != "/" and (language := _LANGUAGES.get(tag[1].lower())) is not None:
            ended = re.compile(f"</{tag[1]}", re.IGNORECASE).search(html, at)
            end = len(html) if ended is None else ended.start()
            if (found := html.find(MARK, at, end)) >= 0:
                yield found, language
            at = end


def _unsafe_attribute(one: re.Match[str], *, styles: bool) -> str:
    """Where its mark stands; empty when that is harmless."""
    if MARK not in one[0]:
        return ""
    if MARK in one["name"] or MARK in (one["bare"] or ""):
        return "in a tag without quotes around it"
    name = one["name"].lower()
    if name.startswith("on") or name == "srcdoc" or (styles and name == "style"):
        return f"in the attribute {name[:20]}"
    return ""


def marked(text: str) -> str:
    """A template's HTML with a mark in the place of each field, and blanks for all that is no HTML: of the same length,
    so that positions are those of ``text``."""
    made, at = [], 0
    for code in codes(text):
        between = _remark.sub(lambda remark: " " * len(remark[0]), text[at : code.start])
        made += [between, (" " if code.is_statement else MARK) * (code.end - code.start)]
        at = code.end
    return "".join(made) + text[at:]
