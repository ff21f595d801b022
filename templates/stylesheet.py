"""The little of CSS that mails use: styles of a tag, and rules of a style sheet, in light and in dark mode. Pure.

A selector is made of tags, classes and ids, also one below another; what else there is (``:hover``, ``>``) is left out.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec

_comment = re.compile(r"/\*.*?\*/", re.DOTALL)
_dark = re.compile(r"prefers-color-scheme\s*:\s*dark", re.IGNORECASE)
_simple = re.compile(r"^(?P<tag>[a-z][a-z0-9]*|\*)?(?P<rest>(?:[.#][A-Za-z_-][A-Za-z0-9_-]*)*)$")
_mark = re.compile(r"[.#][A-Za-z_-][A-Za-z0-9_-]*")

Style = dict[str, str]


class Element(msgspec.Struct, frozen=True):
    """What a selector can ask of a tag. ``marks`` are its classes and its id: ``{".card", "#top"}``."""

    tag: str
    marks: frozenset[str]


class _Compound(msgspec.Struct, frozen=True):
    tag: str | None
    marks: frozenset[str]

    def fits(self, element: Element) -> bool:
        return (self.tag is None or self.tag == element.tag) and self.marks <= element.marks


class _Rule(msgspec.Struct, frozen=True):
    path: tuple[_Compound, ...]
    style: Style
    dark: bool

    @property
    def weight(self) -> tuple[int, int, int]:
        marks = [mark for compound in self.path for mark in compound.marks]
        ids = sum(mark.startswith("#") for mark in marks)
        return ids, len(marks) - ids, sum(compound.tag is not None for compound in self.path)

    def fits(self, elements: Sequence[Element]) -> bool:
        *above, last = self.path
        if not last.fits(elements[-1]):
            return False
        left = iter(elements[:-1])
        return all(any(compound.fits(element) for element in left) for compound in above)


def style_of(text: str) -> Style:
    """``color:#fff;padding:0`` -> properties in lower case; the last of two wins unless the first is ``!important``."""
    style: Style = {}
    for declaration in text.split(";"):
        name, _, value = declaration.partition(":")
        name, value = name.strip().lower(), value.strip().lower()
        if name and value and not (is_important(style.get(name, "")) and not is_important(value)):
            style[name] = value
    return style


def is_important(value: str) -> bool:
    """True for ``#fff !important``."""
    return value.replace(" ", "").endswith("!important")


class Stylesheet:
    """The rules of a mail's ``<style>`` elements."""

    def __init__(self, text: str) -> None:
        self._rules: list[_Rule] = []
        self._read(_comment.sub("", text), dark=False)
        self._rules.sort(key=lambda rule: rule.weight)
        self.has_dark = any(rule.dark for rule in self._rules)

    def style(self, elements: Sequence[Element], own: Style, *, dark: bool) -> Style:
        """The style of the last of ``elements``, which stands inside of the others; ``own`` is its attribute's."""
        plain: Style = {}
        forced: Style = {}
        for rule in self._rules:
            if (dark or not rule.dark) and rule.fits(elements):
                for name, value in rule.style.items():
                    (forced if is_important(value) else plain)[name] = value
        important = {name: value for name, value in own.items() if is_important(value)}
        return plain | own | forced | important

    def _read(self, text: str, *, dark: bool) -> None:
        at = 0
        while (opened := text.find("{", at)) >= 0:
            head = text[at:opened].strip()
            closed = _end_of_block(text, opened)
            body = text[opened + 1 : closed]
            if not head.startswith("@"):
                self._add(head, body, dark=dark)
            elif head.startswith("@media") and _dark.search(head):
                self._read(body, dark=True)
            at = closed + 1

    def _add(self, selectors: str, body: str, *, dark: bool) -> None:
        style = style_of(body)
        for selector in selectors.split(","):
            path = [_compound(part) for part in selector.split()]
            if path and None not in path:
                self._rules.append(_Rule(tuple(one for one in path if one is not None), style, dark))


def _compound(text: str) -> _Compound | None:
    found = _simple.match(text)
    if found is None:
        return None
    tag = found["tag"]
    return _Compound(None if tag in (None, "*") else tag, frozenset(_mark.findall(found["rest"])))


def _end_of_block(text: str, opened: int) -> int:
    depth = 0
    for at in range(opened, len(text)):
        depth += (text[at] == "{") - (text[at] == "}")
        if depth == 0:
            return at
    return len(text)
