"""The part of the template language that alerts have: fields, filters, ``if``, ``for`` over a range, layouts. Pure.

minijinja bounds how many steps a template takes, but not how large a text one step makes: ``{{ "x" * 10**10 }}`` is two
steps and ten gigabytes, and so are a few ``set`` that each double the last. So what can make much from little is
refused when a template is compiled, with its line: multiplication, every statement but these, every loop but one over
``range(…)``, and every filter that is not in ``FILTERS``. What is left makes at most the template's own length times
the steps that the fuel allows. A layout has macros and ``set`` besides; what it joins it has to write, and what is
written is measured (``layouts.page_environment``).
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import minijinja

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

MAX_CODE_CHARS = 1_000
"""Of one ``{{ … }}`` or ``{% … %}``; the longest shipped one has 150. The compiler calls itself for every operator of
an expression, and ends the process, without an error, somewhere above ten thousand."""

TESTS = frozenset({"defined", "endingwith", "even", "odd", "startingwith", "undefined"})
"""After ``is``. Each takes any value: one that some value makes the engine panic on would end the service."""

MAX_DEPTH = 32
"""Blocks inside of each other, for the same reason."""

_too_long = re.compile(r"\{[{%](?:(?![}%]\}).){" + f"{MAX_CODE_CHARS}}}", re.DOTALL)
_nesting = re.compile(r"\{%[-+]?\s*(?:(end)|(?:if|for|block|macro|filter|with|call|autoescape)\b)")

_STRING = r"\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*'"
_blocks = re.compile(
    rf"""
    \{{\#.*?\#\}}
    | \{{%[-+]?\s*raw\s*[-+]?%\}} .*? \{{%[-+]?\s*endraw\s*[-+]?%\}}
    | \{{\{{[-+]? (?P<expression> (?: {_STRING} | [^"'] )*? ) [-+]?\}}\}}
    | \{{%[-+]? (?P<statement> (?: {_STRING} | [^"'] )*? ) [-+]?%\}}
    """,
    re.VERBOSE | re.DOTALL,
)
_strings = re.compile(_STRING, re.DOTALL)
_filter = re.compile(r"\|\s*(\w+)")
_joined = re.compile(r"[~+]|(?<![\w'\])}])\s*[\[{][^\]}]*\b[A-Za-z_]").search
"""In a layout: what joins texts without writing them, and a list or table that holds anything but texts as written."""
_range = re.compile(r"\brange\b").search
_loop = re.compile(r"for\s+\w+\s+in\s+range\s*\([\w\s,+-]*\)").fullmatch


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


def check_size(text: str) -> None:
    """Raises ``Refused`` for what may not even be compiled. What no brace ends counts, too."""
    if found := _too_long.search(text):
        line = text.count("\n", 0, found.start()) + 1
        raise Refused("TooLong", f"an expression has over {MAX_CODE_CHARS:,} characters", line)
    depth = 0
    for found in _nesting.finditer(text):
        depth += -1 if found[1] else 1
        if depth > MAX_DEPTH:
            line = text.count("\n", 0, found.start()) + 1
            raise Refused("TooDeep", f"over {MAX_DEPTH} blocks inside of each other", line)


def filters_of(text: str) -> Iterator[tuple[str, int]]:
    """The filters that a template text uses, each with its line, which counts from 1."""
    for code, line, _ in _code(text):
        for found in _filter.finditer(code):
            yield found[1], line + code.count("\n", 0, found.start())


def _code(text: str) -> Iterator[tuple[str, int, bool]]:
    """What stands inside of the braces, strings emptied; the line where it begins; whether it is a statement."""
    for block in _blocks.finditer(text):
        kind = block.lastgroup
        if kind is not None:
            code = _strings.sub(lambda found: "''" + "\n" * found[0].count("\n"), block[kind])
            yield code, text.count("\n", 0, block.start(kind)) + 1, kind == "statement"


def check(text: str, statements: frozenset[str] = STATEMENTS) -> None:
    """Raises ``Refused`` for the first thing in a template text (its syntax is right) that alerts do not have.

    ``statements`` are the words that may begin one: ``LAYOUT_STATEMENTS`` for a layout.
    """
    for code, line, is_statement in _code(text):
        bare = code.strip()
        if is_statement:
            word = re.match(r"\w*", bare)
            if word is None or word[0] not in statements:
                known = ", ".join(sorted(name for name in statements if not name.startswith("end")))
                raise Refused("UnknownStatement", f"there is no such statement here; there are {known}", line)
            if word[0] == "for" and _loop(bare) is None:
                raise Refused("UnknownLoop", "a loop is over range(…), as in for i in range(3)", line)
        if _range(code) and not (is_statement and _loop(bare)):
            raise Refused("UnknownFunction", "range(…) is for loops only: written out it is as long as it likes", line)
        if "set" in statements and _joined(code):
            raise Refused(
                "UnknownOperator", "a layout puts texts together by writing them after each other: no ~ + [ ] { }", line
            )
        if ("{" in code or "}" in code) and not (is_statement and "set" in statements):
            # The engine reads on behind braces that close a table, where nothing here would look.
            raise Refused("UnknownOperator", "an expression has no { } of its own: write if and else", line)
        if "*" in code:
            raise Refused("UnknownOperator", "* is not available: what it makes has no limit", line)
    for name, line in filters_of(text):
        if name not in FILTERS:
            raise Refused(
                "UnknownFilter", f"filter {name[:40]} is unknown; there are {', '.join(sorted(FILTERS))}", line
            )
