"""Takes a template text apart as minijinja does: what is code, where it ends, and the words and signs in it. Pure.

It has to come to the engine's own end of each ``{{ … }}``, or something could hide behind what only looks like one. So
strings are read whole, an end counts only where no bracket is open (the engine reads on where one is), and a character
that the engine might read otherwise is refused. It runs before the engine sees the text: the engine's compiler calls
itself for every operator of an expression, and ends the process, without an error, somewhere above ten thousand.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal, NamedTuple, cast

import minijinja

MAX_CODE_CHARS = 1_000
"""Of one ``{{ … }}`` or ``{% … %}``; the longest shipped one has 150."""

_BLANK = r"[ \t\n\f\r]"
"""The engine's blanks. Python's ``\\s`` knows more, and what is blank to one of the two only would hide an end."""

_opening = re.compile(r"\{[{%#]").search
_raw = re.compile(rf"\{{%[-+]?{_BLANK}*raw{_BLANK}*[-+]?%\}}").match
_end_of_raw = re.compile(rf"\{{%[-+]?{_BLANK}*endraw{_BLANK}*[-+]?%\}}").search
_token = re.compile(
    rf"""
    (?P<blank> {_BLANK}+ )
    | (?P<string> "(?:[^"\\]|\\.)*+" | '(?:[^'\\]|\\.)*+' )
    | (?P<name> [A-Za-z_][A-Za-z0-9_]*+ )
    | (?P<number> [0-9]++(?:\.[0-9]++)?(?![A-Za-z0-9_.]) )
    | (?P<sign> == | != | <= | >= | // | \*\* | [-+*/%<>=|~.,:()\[\]{{}}] )
    """,
    re.VERBOSE | re.DOTALL,
).match
_CLOSES = {")": "(", "]": "[", "}": "{"}

Kind = Literal["string", "name", "number", "sign"]


class Refused(minijinja.TemplateError):
    """A template uses what alerts do not have. ``kind``, ``detail`` and ``line`` are as in a syntax error."""

    def __init__(self, kind: str, detail: str, line: int) -> None:
        super().__init__(f"{kind}: {detail}")
        self._said = (kind, detail, line)

    @property
    def kind(self) -> str:
        return self._said[0]

    @property
    def detail(self) -> str:
        return self._said[1]

    @property
    def line(self) -> int:
        return self._said[2]


class Token(NamedTuple):
    """A word or a sign of the code, as it is written, and where."""

    kind: Kind
    text: str
    at: int


class Code(NamedTuple):
    """What stands in one pair of ``{{ }}``, or of ``{% %}``: ``end`` is behind it."""

    is_statement: bool
    tokens: list[Token]
    start: int
    end: int


def line_at(text: str, position: int) -> int:
    """From 1."""
    return text.count("\n", 0, position) + 1


def codes(text: str) -> Iterator[Code]:
    """All code of a template text, comments and ``raw`` left out. Raises ``Refused``."""
    at = 0
    while found := _opening(text, at):
        start = found.start()
        if text[start + 1] == "#":
            end = text.find("#}", start + 2)
            if end < 0:
                raise Refused("SyntaxError", "a comment is not closed by #}", line_at(text, start))
            at = end + 2
        elif raw := _raw(text, start):
            end_of_raw = _end_of_raw(text, raw.end())
            if end_of_raw is None:
                raise Refused("SyntaxError", "raw is not closed by endraw", line_at(text, start))
            at = end_of_raw.end()
        else:
            code = _code(text, start)
            yield code
            at = code.end


def _code(text: str, start: int) -> Code:
    is_statement = text[start + 1] == "%"
    end = "%}" if is_statement else "}}"
    at = start + 2 + (text[start + 2 : start + 3] in ("-", "+"))  # these trim the blanks around it
    tokens: list[Token] = []
    opened: list[str] = []
    while opened or not text.startswith(end, at):
        found = _token(text, at)
        if found is None:
            raise _unreadable(text, start, at)
        at = found.end()
        if at - start > MAX_CODE_CHARS:
            raise _too_long(text, start)
        if found.lastgroup == "blank":
            continue
        token = Token(cast(Kind, found.lastgroup), found[0], found.start())
        if token.text in ("(", "[", "{"):
            opened.append(token.text)
        elif token.text in _CLOSES and (not opened or opened.pop() != _CLOSES[token.text]):
            raise Refused("SyntaxError", f"{token.text} closes nothing", line_at(text, token.at))
        tokens.append(token)
    if tokens and tokens[-1].text in ("-", "+") and tokens[-1].at == at - 1:
        tokens.pop()
    return Code(is_statement, tokens, start, at + 2)


def _unreadable(text: str, start: int, at: int) -> Refused:
    if at < len(text) and text[at] not in "\"'":
        problem = f"{text[at]!r} cannot stand here outside of quotes"
        if text[at].isdigit():
            problem = "a number is written in digits, with a point at most"
        return Refused("SyntaxError", problem, line_at(text, at))
    if len(text) - start > MAX_CODE_CHARS:
        return _too_long(text, start)
    what = "a string" if at < len(text) else text[start : start + 2]
    return Refused("SyntaxError", f"{what} is not closed", line_at(text, min(at, len(text) - 1)))


def _too_long(text: str, start: int) -> Refused:
    return Refused("TooLong", f"an expression has over {MAX_CODE_CHARS:,} characters", line_at(text, start))
