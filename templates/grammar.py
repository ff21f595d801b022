"""The part of the template language that alerts have: fields, filters, ``if``, ``for`` over a range, layouts. Pure.

minijinja bounds how many steps a template takes, but not how large a text one step makes: ``{{ "x" * 10**10 }}`` is two
steps and ten gigabytes, and so are a few ``set`` that each double the last. So what can make much from little is
refused when a template is compiled, with its line: multiplication, every statement but these, every loop but one over
``range(…)``, every filter and test but those named here, and every list that holds more than texts as written. What is
left makes at most the template's own length times the steps that the fuel allows. A layout has macros and ``set``
besides; what it joins it has to write, and what is written is measured (``layouts.page_environment``).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from templates.scan import Code, Refused, Token, codes, line_at

__all__ = ["FILTERS", "LAYOUT_STATEMENTS", "STATEMENTS", "TESTS", "Refused", "check", "check_size", "filters_of"]

STATEMENTS = frozenset({"if", "elif", "else", "endif", "for", "endfor", "block", "endblock", "extends", "from"})
LAYOUT_STATEMENTS = STATEMENTS | {"macro", "endmacro", "set", "endset"}

BUILT_IN_FILTERS = frozenset(
    {"abs", "capitalize", "count", "d", "default", "e", "escape", "first", "int", "last", "length", "lower", "round"}
    | {"safe", "string", "title", "trim", "upper", "urlencode"}
)
"""Of minijinja's own, those whose output is hardly longer than their input. ``safe`` and ``escape`` change nothing that
matters: the values of a mail's HTML are escaped before the template sees them."""

OUR_FILTERS = frozenset({"late", "local_time", "mcc_icon", "mcc_word", "money", "short", "tail"})
"""See ``templates.filters``."""

FILTERS = BUILT_IN_FILTERS | OUR_FILTERS
LAYOUT_FILTERS = FILTERS - {"urlencode"}
"""What ``urlencode`` makes of its own output is longer each time, and a layout can give it that a thousand times."""

TESTS = frozenset({"defined", "endingwith", "even", "odd", "startingwith", "undefined"})
"""After ``is``. Each takes any value: one that some value makes the engine panic on would end the service."""

MAX_DEPTH = 32
"""Blocks inside of each other; the engine's compiler calls itself for each."""

_NESTING = frozenset({"if", "for", "block", "macro", "filter", "with", "call", "autoescape"})
_OPERATORS = frozenset({"and", "else", "if", "in", "is", "not", "or"})
"""Words behind which something begins: a bracket there is no call."""
_CONSTANTS = frozenset({"true", "false", "none", "True", "False", "None"})

_escaped = re.compile(r"(?<!\\)(?:\\\\)*\\[^n\"'\\]").search
_layout_name = re.compile(r"([\"'])[a-z][a-z0-9-]{0,63}\1").fullmatch


def check_size(text: str) -> None:
    """Raises ``Refused`` for what may not even be compiled, and for what the engine might read otherwise than we do."""
    depth = 0
    for code in codes(text):
        word = _word(code)
        depth += (word in _NESTING) - (word[:3] == "end" and word[3:] in _NESTING)
        if depth > MAX_DEPTH:
            line = line_at(text, code.start)
            raise Refused("TooDeep", f"over {MAX_DEPTH} blocks inside of each other", line)


def filters_of(text: str) -> Iterator[tuple[str, int]]:
    """The filters that a template text uses, each with its line, which counts from 1."""
    for code in codes(text):
        for bar, name in zip(code.tokens, code.tokens[1:], strict=False):
            if bar.text == "|":
                yield name.text, line_at(text, name.at)


def check(text: str, statements: frozenset[str] = STATEMENTS) -> None:
    """Raises ``Refused`` for the first thing in a template text (its syntax is right) that alerts do not have.

    ``statements`` are the words that may begin one: ``LAYOUT_STATEMENTS`` for a layout.
    """
    for code in codes(text):
        try:
            _check(code, statements)
        except _Found as found:
            at = code.start if found.token is None else found.token.at
            raise Refused(found.kind, found.detail, line_at(text, at)) from None


class _Found(Exception):
    """What is refused in one piece of code; by ``check`` with its line."""

    def __init__(self, kind: str, detail: str, token: Token | None = None) -> None:
        super().__init__(kind)
        self.kind, self.detail, self.token = kind, detail, token


def _word(code: Code) -> str:
    """What a statement begins with; empty for an expression."""
    return code.tokens[0].text if code.is_statement and code.tokens else ""


def _check(code: Code, statements: frozenset[str]) -> None:
    is_layout = "set" in statements
    filters = LAYOUT_FILTERS if is_layout else FILTERS
    if code.is_statement:
        word = _word(code)
        if word not in statements:
            known = ", ".join(sorted(name for name in statements if not name.startswith("end")))
            raise _Found("UnknownStatement", f"there is no such statement here; there are {known}")
        _SHAPES.get(word, _any)(code.tokens[1:])
        if word == "for":
            return
    for token, following in zip(code.tokens, [*code.tokens[1:], None], strict=True):
        if token.kind == "name" and token.text == "range":
            detail = "range(…) is for loops only: written out it is as long as it likes"
            raise _Found("UnknownFunction", detail, token)
        if token.kind == "string" and (escape := _escaped(token.text)):
            detail = f"{escape[0][-2:]} could hide a control character; there are only \\n, \\\\ and quotes"
            raise _Found("UnknownEscape", detail, token)
        if token.kind != "sign":
            continue
        if is_layout and token.text in ("~", "+"):
            raise _Found("UnknownOperator", _WRITTEN, token)
        if token.text in ("{", "}") and not (is_layout and code.is_statement):
            raise _Found("UnknownOperator", "an expression has no { } of its own: write if and else", token)
        if token.text in ("*", "**"):
            raise _Found("UnknownOperator", "* is not available: what it makes has no limit", token)
        if token.text == "|" and (following is None or following.text not in filters):
            name = following.text[:40] if following else ""
            there = ", ".join(sorted(filters))
            raise _Found("UnknownFilter", f"filter {name} is unknown; there are {there}", following)
    _check_tests(code.tokens)
    _check_lists(code, is_layout=is_layout)


def _check_tests(tokens: Sequence[Token]) -> None:
    for at, token in enumerate(tokens):
        if token.kind == "name" and token.text == "is":
            behind = [one.text for one in tokens[at + 1 : at + 3]]
            name = behind[-1] if behind[:1] == ["not"] else "".join(behind[:1])
            if name not in TESTS:
                there = ", ".join(sorted(TESTS))
                raise _Found("UnknownTest", f"test {name[:40]} is unknown; behind is there are {there}", token)


_WRITTEN = "a layout puts texts together by writing them after each other: no ~ + [ ] { }"
_LITERAL = "a list holds texts and numbers as they are written, and no fields"


@dataclass
class _Bracket:
    """One that is open. ``holds``: something else than texts and numbers as they are written."""

    sign: str
    is_call: bool = False
    is_subscript: bool = False
    comma: bool = False
    holds: bool = False


def _check_lists(code: Code, *, is_layout: bool) -> None:
    """Refuses every list that holds a value: put into each other, each twice as long as the last, they have no limit.

    A comma makes a list wherever it does not stand between the arguments of a call.
    """
    said = _WRITTEN if is_layout else _LITERAL
    opened = [_Bracket("", is_call=_word(code) == "from")]
    before: Token | None = None
    for number, token in enumerate(code.tokens):
        inner = opened[-1]
        if token.text in ("(", "[", "{") and token.kind == "sign":
            inner.holds = True
            is_statement_s = code.is_statement and number == 1
            after_name = before is not None and before.kind == "name" and before.text not in _OPERATORS
            after = before is not None and (before.text in (")", "]") or (after_name and not is_statement_s))
            after_text = before is not None and (before.kind == "string" or before.text == "}")
            opened.append(
                _Bracket(
                    token.text,
                    is_call=token.text == "(" and after,
                    is_subscript=token.text == "[" and (after or after_text),
                )
            )
        elif token.text in (")", "]", "}") and token.kind == "sign":
            opened.pop()
            makes_list = inner.comma if inner.sign == "(" else True
            if inner.is_call or (inner.is_subscript and not inner.comma):
                makes_list = False
            if makes_list and (inner.holds or inner.is_subscript):
                raise _Found("UnknownOperator", said, token)
        elif token.text == "," and token.kind == "sign":
            inner.comma = True
        elif token.kind == "name" and token.text not in _CONSTANTS:
            inner.holds = True
        before = token
    if opened[0].comma and not opened[0].is_call:
        raise _Found("UnknownOperator", said)


def _any(_rest: Sequence[Token]) -> None:
    pass


def _loop(rest: Sequence[Token]) -> None:
    head, arguments, end = rest[:4], rest[4:-1], rest[-1:]
    plain = all(token.kind in ("name", "number") or token.text in (",", "+", "-") for token in arguments)
    is_loop = len(rest) > 4 and [token.text for token in (*head[1:], *end)] == ["in", "range", "(", ")"]
    if not is_loop or not plain or head[0].kind != "name" or any(token.text == "range" for token in arguments):
        raise _Found("UnknownLoop", "a loop is over range(…), as in for i in range(3)")


def _names_layout(rest: Sequence[Token]) -> None:
    # An alert pins the layouts of its mail with its template, and finds them by the names that are written there.
    if not rest or rest[0].kind != "string" or _layout_name(rest[0].text) is None:
        raise _Found("TemplateNotFound", 'a layout is named by its word in quotes, as in extends "mail"')


def _extends(rest: Sequence[Token]) -> None:
    _names_layout(rest[:1] if len(rest) == 1 else ())


def _from(rest: Sequence[Token]) -> None:
    _names_layout(rest)
    if not all(token.kind == "name" or token.text == "," for token in rest[1:]):
        raise _Found("UnknownStatement", 'macros are taken by their names, as in from "rows" import row, button')


def _names_only(rest: Sequence[Token]) -> None:
    if any(token.kind != "name" for token in rest):
        raise _Found("UnknownStatement", "nothing but a name stands behind it")


def _set(rest: Sequence[Token]) -> None:
    if not rest or rest[0].kind != "name" or (len(rest) > 1 and rest[1].text not in ("=", "|")):
        raise _Found("UnknownStatement", "set gives one name a value: set name = …, or set name … endset")


_SHAPES: dict[str, Callable[[Sequence[Token]], None]] = {
    "for": _loop,
    "extends": _extends,
    "from": _from,
    "block": _names_only,
    "set": _set,
    **dict.fromkeys(("else", "endif", "endfor", "endblock", "endmacro", "endset"), _names_only),
}
