"""Where code begins and ends in a template text: exactly where the engine says so, or the text is refused unseen."""

from __future__ import annotations

import time
from contextlib import suppress

import minijinja
import pytest
from hypothesis import given
from hypothesis import strategies as st

from templates.grammar import LAYOUT_STATEMENTS, Refused, check, check_size
from templates.render import environment
from templates.scan import codes

MINUSES, TILDES = "-" * 20_000 + "1", "~".join("1" * 20_000)
"""Each ends the process when the engine compiles it: it would be no use to try."""

LONG = {
    "an end in a string": f'{{{{ "}}}}" == {MINUSES} }}}}',
    "an end in a string with single quotes": f"{{{{ '}}}}' == {MINUSES} }}}}",
    "the other end in a string": f'{{{{ "%}}" ~ {TILDES} }}}}',
    "an end behind an escaped quote": f'{{{{ "\\"}}}}" ~ {TILDES} }}}}',
    "an end in a string of a statement": f'{{% if "}}}}" == {MINUSES} %}}x{{% endif %}}',
    "its own end in a string of a statement": f'{{% if "%}}" == {MINUSES} %}}x{{% endif %}}',
    "an expression's end in a statement": f'{{% if {{"a":{{"b":1}}}} == {MINUSES} %}}x{{% endif %}}',
    "an end that closes tables": f'{{{{ {{"a":{{"b":1}}}} ~ {TILDES} }}}}',
    "an end inside of a list": f'{{{{ [{{"a":{{}}}}] == {MINUSES} }}}}',
    "a statement's end in brackets": f"{{% if (4 %{{}}}} == {MINUSES}) %}}x{{% endif %}}",
    "what begins like a comment": f'{{{{ "{{#" ~ {TILDES} }}}}',
    "what raw does not hide": f'{{% raw %}}{{{{ "{{% endraw %}}{{{{ "}}}}" ~ {TILDES} }}}}',
    "a blank that only Python has before raw": f"{{%\u3000raw %}}{{{{ {TILDES} }}}}{{% endraw %}}",
    "a blank that only Python has in endraw": f"{{% raw %}}{{%\x1fendraw %}}{{#{{% endraw %}}{{{{ {TILDES} }}}}#}}",
    "what comes behind a comment": f"{{# #}}{{{{ {TILDES} }}}}",
    "what trims": f"{{{{- {TILDES} -}}}}",
    "only blanks": "{{ " + " " * 20_000 + "1 }}",
    "a long string": "{{ '" + "x" * 20_000 + "' }}",
}


@pytest.mark.parametrize("text", LONG.values(), ids=LONG)
def test_no_end_that_the_engine_does_not_see_makes_a_long_expression_short(text: str) -> None:
    with pytest.raises(Refused) as caught:
        check_size(text)
    assert caught.value.kind in ("TooLong", "SyntaxError")
    assert caught.value.line == 1


@pytest.mark.parametrize(
    "text",
    [
        "{# old: {{ city" + " and more" * 200 + " #}",
        "{# {% if city %} #}" * 40,
        "{% raw %}{{ " + "x" * 2_000 + "{% if city %}" * 40 + "{% endraw %}",
        "{{ merchant }}" + "x" * 2_000 + "}}",
        "{% if city == '{% if x %}' %}x{% endif %}" * 40,
        '{{ "}}" }}{{ \'%}\' }}{% if "{#" %}{% endif %}',
        "{% if city %}{% endif %}" * 100,
    ],
)
def test_what_no_code_is_counts_for_nothing(text: str) -> None:
    check_size(text)
    environment().add_template("x", text)


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("a\n{{ city", 2, "{{ is not closed"),
        ("a\n{% if city }}", 2, "} closes nothing"),
        ("a\n{{ city\n | upper('x }}", 3, "a string is not closed"),
        ("{# a", 1, "a comment is not closed by #}"),
        ("{% raw %}a{% end raw %}", 1, "raw is not closed by endraw"),
        ("{{ (city }}", 1, "} closes nothing"),
        ("{{ (city] }}", 1, "] closes nothing"),
        ("\n{{ 商户 }}", 2, "'商' cannot stand here outside of quotes"),
        ("{{ a\u202eb }}", 1, r"'\u202e' cannot stand here outside of quotes"),
        ("{{ 1_000 }}", 1, "a number is written in digits"),
        ("{% if 1or[city] %}{% endif %}", 1, "a number is written in digits"),
    ],
)
def test_what_does_not_end_or_cannot_be_read_is_told_with_its_line(text: str, line: int, says: str) -> None:
    with pytest.raises(Refused) as caught:
        check_size(text)
    assert (caught.value.kind, caught.value.line) == ("SyntaxError", line)
    assert says in caught.value.detail


PIECES = st.sampled_from([
    "lang", "lang ", " ", ",", ",", "(", ")", "[", "]", "{", "}", "{{", "}}", "{%", "%}", "{#", "#}", "-", "+", "~",
    "|", ".", ":", "=", "==", "<", '"', "'", '"a"', '"}}"', "'%}'", "\\", "1", "0.5", " if ", " else ", " and ", " or ",
    " not ", " in ", " is ", " odd ", "startingwith(", "upper", "string", "default(", " set a = ", " raw ", "a", "m(",
    "{% raw %}", "{% endraw %}", "{%- endif +%}", " for i in range(3) ", " endfor ", "self.k()", "true", "\x0b", "é",
    "\u3000", "*", "%", "//", "1_0", "loop.cycle(", " with ", " as ", "\n",
])  # fmt: skip


def _joined(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """All that a value can be put into: with and without blanks, with one of itself or two."""
    shapes = st.sampled_from([
        "({}, {})", "({},)", "({})", "[{},{}]", "[{}]", "{{'k': {}, 'l': {}}}", "{}, {}", "0 or{}",
        "0 or {}", "1 and({})", "{}[{}]",
        "1 if 0 else[{},{}]", "1 if 0 else{}", "{}|string", "{} | default({}, true)", "lang|default(({}), {})",
        "{} is startingwith({})", "'x'[{}]", "loop.cycle({}, {})", "({} or {})", "not {}", "{} == {}", "{} in({}, {})",
        "m({}, x={})", "{}[:9]", "{}[0]", "{}.k", "{} ~ {}", "{} + {}",
    ])  # fmt: skip
    return st.tuples(shapes, inner, inner, inner).map(lambda one: one[0].format(*one[1:]))


VALUES = st.recursive(st.sampled_from(["lang", "lang", "'x'", "1"]), _joined, max_leaves=6)


@given(st.lists(PIECES, min_size=1, max_size=24).map("".join))
def test_whatever_the_engine_reads_as_code_has_been_looked_at(text: str) -> None:
    # Given any text of such pieces that is let through and that the engine can compile
    engine = environment()
    try:
        check_size(text)
        engine.add_template("x", text)
    except minijinja.TemplateError:
        return
    # Then there is no name in it that was not among the words that are checked
    seen = {token.text for code in codes(text) for token in code.tokens if token.kind == "name"}
    assert engine.undeclared_variables_in_str(text) <= seen


@given(VALUES)
def test_no_expression_of_a_layout_holds_a_text_twice(expression: str) -> None:
    # Given a value that is put together by any expression of a layout that is let through
    text = f"{{% set a = {expression} %}}{{{{ a }}}}"
    engine = environment()
    try:
        check_size(text)
        engine.add_template("x", text)
        check(text, LAYOUT_STATEMENTS)
        # When it is written
        made = engine.render_template("x", lang="WORD")
    except minijinja.TemplateError:
        return
    # Then nothing is in it twice: what holds itself twice, forty times over, has no end
    assert made.count("WORD") <= 1


@pytest.mark.parametrize("piece", ["{{", '{{"', "{{'\"", '{%"', "{#", '{{ "\\', "{% raw %}", "{%  ", "{{1}}", "{"])
def test_a_file_full_of_what_opens_is_read_at_once(piece: str) -> None:
    text = piece * (65_536 // len(piece))
    began = time.process_time()
    with suppress(Refused):
        check_size(text)
    assert time.process_time() - began < 1
