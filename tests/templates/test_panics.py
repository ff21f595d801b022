"""A defect inside of the engine, which is written in Rust, is no ``Exception`` there; here it is a failed rendering."""

from __future__ import annotations

import minijinja
import pytest

from templates import grammar, render
from templates.errors import RenderFailed
from templates.grammar import Refused
from templates.render import Source, environment


@pytest.fixture
def _panicking(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one known way to make minijinja 3 panic, which templates do not have."""
    monkeypatch.setattr(render, "PANICKING_TESTS", ())
    monkeypatch.setattr(grammar, "TESTS", grammar.TESTS | {"divisibleby"})


@pytest.mark.usefixtures("_panicking")
def test_a_panic_fails_its_rendering_and_the_engine_goes_on() -> None:
    # Given a part on which the engine panics for one card, and another part of the same engine
    engine = environment()
    source = Source(engine, "x", "{% if 10 is divisibleby(tail|int(7)) %}!{% endif %}")
    other = Source(engine, "other", "{{ merchant }}!")
    # When that card's alert is rendered
    with pytest.raises(RenderFailed) as caught:
        source.render({"tail": "0000"})
    # Then it has failed without the value, and the next card and the other part are as ever
    assert str(caught.value) == "x: the engine failed on it"
    assert source.render({"tail": "0003"}) == ""
    assert other.render({"merchant": "m"}) == "m!"


def test_a_panic_of_the_compiler_refuses_the_template(monkeypatch: pytest.MonkeyPatch) -> None:
    panic = type("PanicException", (BaseException,), {})

    class Defect(minijinja.Environment):
        def undeclared_variables_in_str(self, *_: object) -> set[str]:
            raise panic

    with pytest.raises(Refused, match="EngineFailed"):
        Source(Defect(), "x", "{{ merchant }}")


def test_what_ends_the_service_on_purpose_still_does() -> None:
    # Given a filter during which the operator presses Ctrl-C
    engine = environment()

    def interrupted(_value: object) -> str:
        raise KeyboardInterrupt

    engine.add_filter("upper", interrupted)
    # Then that is no failed rendering
    with pytest.raises(KeyboardInterrupt):
        Source(engine, "x", "{{ merchant | upper }}").render({"merchant": "m"})


@pytest.mark.parametrize("test", ["divisibleby(0)", "divisibleby 0", "not divisibleby(0)"])
def test_no_template_asks_what_can_panic(test: str) -> None:
    with pytest.raises(Refused, match="UnknownTest"):
        Source(environment(), "x", f"{{% if 10 is {test} %}}{{% endif %}}")
    # And were the grammar to let it through, the sandbox does not have it
    with pytest.raises(minijinja.TemplateError, match="unknown test"):
        environment().render_str(f"{{{{ 10 is {test} }}}}")
