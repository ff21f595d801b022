"""Loading: what a template's author is told about a mistake, and what a broken template may do at run time."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from templates.errors import RenderFailed, TemplateError, UnknownTemplate
from templates.library import MAX_FILE_BYTES, SHIPPED, Library, Template, load_template
from templates.render import Source, environment
from templates.template import Match

GOOD = """\
id = "hello"
version = 3
category = "service"

[[fields]]
name = "merchant"
type = "text"
example = "Starbucks"

[[fields]]
name = "amount"
type = "money"
example = "¥1.00"

[wechat.zh-CN]
thing1 = "在{{ merchant }}"
amount2 = "{{ amount }}"

[wechat.en]
thing1 = "at {{ merchant }}"
amount2 = "{{ amount }}"

[sms.zh-CN]
text = "在{{ merchant }}消费{{ amount }}"

[sms.en]
text = "{{ amount }} at {{ merchant }}"
"""


def write(folder: Path, text: str, name: str = "hello") -> Path:
    path = folder / name / "template.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")
    return path


def test_the_shipped_library_has_the_swipe() -> None:
    library = Library.load()
    swipe = library.template("swipe")
    assert swipe.pinned == "swipe@1"
    assert library.template("swipe@1") is swipe
    assert swipe.channels == {"wechat", "sms", "email"}
    assert "digest" in [template.id for template in library]


def test_an_extra_folder_adds_templates_and_wins_where_both_have_one(tmp_path: Path, make_facts: Any) -> None:
    # Given a bank's own folder with a new template and its own swipe
    write(tmp_path, GOOD)
    write(tmp_path, GOOD.replace('id = "hello"', 'id = "swipe"').replace("version = 3", "version = 8"), "mine")
    # When the library is loaded with it
    library = Library.load(tmp_path)
    # Then both are there, and the bank's swipe has replaced the shipped one
    assert library.template("hello").render_sms(make_facts(), "en") == "¥38.00 at 星巴克南京西路店"
    assert library.template("swipe").pinned == "swipe@8"
    with pytest.raises(UnknownTemplate, match="swipe@1"):
        library.template("swipe@1")


def test_an_unknown_template_or_channel_is_the_caller_s_mistake(tmp_path: Path, make_facts: Any) -> None:
    with pytest.raises(UnknownTemplate, match=r"no template 'nothing'; there are .*digest, digest@1, .*swipe"):
        Library.load().template("nothing")
    template = load_template(write(tmp_path, GOOD[: GOOD.index("[sms.zh-CN]")]))
    assert template.channels == {"wechat"}
    with pytest.raises(UnknownTemplate, match="hello@3 has no sms part"):
        template.render_sms(make_facts(), "en")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("{{ merchant }}", "{{ merchant "), r"hello/template.toml:16: \[wechat.zh-CN\] thing1: SyntaxError"),
        (('"{{ amount }} at {{ merchant }}"', "'''\n\n{% if }%}'''"), r":29: \[sms.en\] text: SyntaxError"),
        (("在{{ merchant }}消费", "{{ merchnat }}"), r"unknown field 'merchnat'; did you mean 'merchant'\?"),
        (("在{{ merchant }}消费", "{{ city }}"), r"add it to \[\[fields\]\] with type 'text'"),
        (('name = "amount"', 'name = "amuont"'), r"unknown field 'amuont'; did you mean 'amount'\?"),
        (('type = "money"', 'type = "text"'), r"\[\[fields\]\] amount: has type 'text'; it is .* 'money'"),
        (('name = "amount"\ntype = "money"', 'name = "merchant"\ntype = "text"'), "names a field twice"),
        (('thing1 = "at', 'thin1 = "at'), r":20: \[wechat.en\] thin1: is not a typed key .* thing, short_thing"),
        (('thing1 = "at', 'first = "at'), r"\[wechat.en\] first: is not a typed key"),
        (("[wechat.en]", "[wechat.fr]"), r"\[wechat.en\]: is missing"),
        (("[sms.zh-CN]", "[sms.zh-HK]"), r"\[sms.zh-CN\]: is missing"),
        (("[sms.en]", "[sms.EN]"), "sms"),
        (('thing1 = "at', 'thing3 = "at'), r"\[wechat.en\] thing[13]: .* same keys"),
        (
            ('amount2 = "{{ amount }}"\n\n[wechat.en]', 'amount2 = "{{ merchant }}"\n\n[wechat.en]'),
            r":17: \[wechat.zh-CN\] amount2: its examples are refused: is not a currency sign",
        ),
        (("在{{ merchant }}消费", "{{ merchant|nofilter }}"), "UnknownFilter"),
        (("在{{ merchant }}消费", "{% for i in range(90000) %}x{% endfor %}"), "OutOfFuel"),
        (("在{{ merchant }}消费", "{{ 'x' * 9000 }}"), r":24: .* UnknownOperator: \* is not"),
        (
            ("在{{ merchant }}消费", "{% for i in range(99) %}" + "x" * 99 + "{% endfor %}"),
            "more than 4096 characters of output",
        ),
        (("在{{ merchant }}消费", "{% include 'x' %}"), "UnknownStatement: there is no such"),
        (("在{{ merchant }}消费", "{{ merchant.__class__ }}"), "UndefinedError"),
        (("在{{ merchant }}消费", "\\u001f"), r"\[sms.zh-CN\] text: holds a control character"),
        (("在{{ merchant }}消费{{ amount }}", " "), "text: .*is empty"),
        (("version = 3", "version = 0"), r"version: Expected `int` >= 1"),
        (("version = 3\n", ""), "missing required field `version`"),
        (("version = 3", "version = 3\nauthor = 5"), "unknown field `author`"),
        (("version = 3", "version = 3\nowner = 5"), "owner: Expected `str`, got `int`"),
        (("[[fields]]", "[match]\n\n[[fields]]"), r":5: \[match\]: has no condition"),
        (("[[fields]]", "[match]\ntypes = ['cash']\n[[fields]]"), "match: .*unknown field `types`"),
        (("[[fields]]", "[match]\ntype = []\n[[fields]]"), "match.type: Expected `array` of length >= 1"),
        (("[[fields]]", "[match]\nlarge_from = { CNY = 0 }\n[[fields]]"), "Expected `int` >= 1"),
        (("[[fields]]", "[match]\nlarge_from = { RMB = 1 }\n[[fields]]"), r":6: .* 'RMB' is no currency; .*ISO 4217"),
        (("version = 3", "version = = 3"), r"is not TOML: .*line 2"),
        (('id = "hello"', 'id = "../x"'), "id: Expected `str` matching"),
    ],
)
def test_a_mistake_is_named_with_its_place_and_remedy(tmp_path: Path, change: tuple[str, str], message: str) -> None:
    # Given one mistake in a good template
    assert change[0] in GOOD
    path = write(tmp_path, GOOD.replace(*change, 1))
    # When the library is loaded, then the author is told
    with pytest.raises(TemplateError, match=message) as caught:
        Library.load(tmp_path)
    assert caught.value.file == path
    assert caught.value.remedy


def test_a_template_says_whose_it_is_and_what_it_is_for(tmp_path: Path) -> None:
    # Given a template with an owner, a title and conditions
    about = """
owner = "cards"
title = "Large purchase"
[match]
category = ["swipe"]
declined = false
large_from = { CNY = 500_000 }
"""
    template = load_template(write(tmp_path, GOOD.replace("\n[[fields]]", about + "\n[[fields]]", 1)))
    # Then all of that is known, and what is not given is no condition
    assert (template.owner, template.title) == ("cards", "Large purchase")
    assert template.match == Match(category=("swipe",), declined=False, large_from={"CNY": 500_000})
    assert template.match.conditions == 3
    # And a template that says nothing of it is listed by its id, for the events of its category
    plain = load_template(write(tmp_path, GOOD))
    assert (plain.owner, plain.title, plain.match) == ("", "hello", None)


def test_two_templates_of_one_folder_cannot_share_an_id(tmp_path: Path) -> None:
    first, second = write(tmp_path, GOOD, "a"), write(tmp_path, GOOD, "b")
    with pytest.raises(TemplateError) as caught:
        Library.load(tmp_path)
    assert str(first) in str(caught.value)
    assert str(second) in str(caught.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(TemplateError, match="is not a folder"):
        Library.load(tmp_path / "nowhere")
    path = write(tmp_path, GOOD)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(TemplateError, match="is not UTF-8"):
        Library.load(tmp_path)
    path.write_text("#" * (MAX_FILE_BYTES + 1))
    with pytest.raises(TemplateError, match="is over 65536 bytes"):
        Library.load(tmp_path)
    path.unlink()
    path.mkdir()
    with pytest.raises(TemplateError, match="is not a regular file"):
        Library.load(tmp_path)
    path.rmdir()
    os.mkfifo(path)  # to read it would never end
    with pytest.raises(TemplateError, match="is not a regular file"):
        Library.load(tmp_path)


def test_a_template_without_parts_says_what_to_add(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD[: GOOD.index("[wechat.zh-CN]")])
    with pytest.raises(TemplateError, match=r"no part for any channel; add \[wechat.zh-CN\]"):
        load_template(path)
    path = write(tmp_path, GOOD[: GOOD.index("[wechat.zh-CN]")] + "[wechat.en]\n")
    with pytest.raises(TemplateError, match=r"\[wechat.en\]: is empty"):
        load_template(path)


def test_a_template_that_fails_at_run_time_fails_its_alert_and_quotes_nobody(tmp_path: Path, make_facts: Any) -> None:
    # Given a template that only fails for one merchant, in a way no example shows
    loop = "{% if merchant == 'Loop' %}{% for i in range(90000) %}{{ merchant }}{% endfor %}{% endif %}x"
    template = load_template(write(tmp_path, GOOD.replace("在{{ merchant }}消费", loop)))
    assert template.render_sms(make_facts(), "zh-CN") == "x¥38.00"
    # When it meets that merchant, then the alert fails with place and kind, and others go on
    with pytest.raises(RenderFailed) as caught:
        template.render_sms(make_facts(merchant="Loop"), "zh-CN")
    assert str(caught.value) == "hello@3/sms.zh-CN/text: line 1: OutOfFuel"
    assert caught.value.__cause__ is None
    assert template.render_sms(make_facts(), "zh-CN") == "x¥38.00"


def test_text_around_a_merchant_leaves_it_less_room_and_is_never_cut(tmp_path: Path, make_facts: Any) -> None:
    source = GOOD.replace('"在{{ merchant }}"', '"100% 在{{ merchant }}{{ amount }}消费"')
    template = load_template(write(tmp_path, source))

    def shown(**changed: Any) -> str:
        return template.render_wechat(make_facts(**changed), "zh-CN")["thing1"]["value"]

    assert shown(merchant="麦当劳") == "100% 在麦当劳¥38.00消费"
    assert shown(merchant="麦当劳北京东路店") == "100% 在麦当劳北京…¥38.00消费"
    assert shown(merchant="麦", amount=123456789) == "100% 在麦¥1234567.89消费"
    assert template.render_wechat(make_facts(merchant="x" * 30), "en")["thing1"]["value"] == "at " + "x" * 16 + "…"


@pytest.mark.parametrize(
    "text",
    [
        "{{ merchant }}",
        "{{merchant}} {{ amount }}",
        "100% {{ merchant }} %s",
        "a }} b",
        "{{ merchant }}\n",
        "{{ merchant }}\n\n",
        "\n{{ merchant }}",
        "{{ merchant|upper }}",
        "{{- merchant -}} x",
        "{# note #}{{ merchant }}",
        "{% raw %}{{ merchant }}{% endraw %}",
        "plain",
        "",
    ],
)
def test_the_format_of_a_source_says_the_same_as_the_engine(text: str) -> None:
    source = Source(environment(), "x", text)
    values = {"merchant": "{{ <M> %s", "amount": "¥1.00"}
    if source.format:
        pattern, names, _ = source.format
        assert pattern % tuple(values[name] for name in names) == source.render(values)
    else:
        assert "{" in text
        assert text != "{{ merchant }}"


def test_the_engine_shows_a_template_no_python(swipe: Template) -> None:
    engine = environment()
    for text in ("{{ ''.__class__ }}", "{{ debug() }}", "{{ 'x'|format(1) }}", "{{ self }}"):
        with pytest.raises(Exception, match=r"Undefined|Unknown|undefined|unknown") as caught:
            engine.render_str(text)
        assert type(caught.value).__name__ == "TemplateError"


def test_the_shipped_folder_is_inside_of_the_package() -> None:
    assert (SHIPPED / "swipe" / "template.toml").is_file()
