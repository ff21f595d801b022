"""The e-mail part of templates."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from templates.errors import FieldRefused, RenderError, TemplateError, UnknownTemplate
from templates.library import Library, Template, load_template
from templates.mail import MAX_SUBJECT_UNITS
from templates.text import units

MINIMAL = """
id = "other"
version = 1
category = "other"
[[fields]]
name = "merchant"
type = "text"
example = "shop"
[[fields]]
name = "amount"
type = "money"
example = "¥1.00"
[email.zh-CN]
subject = '''{subject}'''
text = '''{text}'''
html = '''{html}'''
[email.en]
subject = '''{subject}'''
text = '''{text}'''
html = '''{html}'''
"""


def a_template(folder: Path, **parts: str) -> Template:
    (folder / "other").mkdir(exist_ok=True)
    file = folder / "other" / "template.toml"
    given_parts = {"subject": "{{ merchant }}", "text": "{{ merchant }}", "html": "<p>{{ merchant }}</p>"} | parts
    file.write_text(MINIMAL.format(**given_parts), "utf-8")
    return load_template(file)


class Reading(HTMLParser):
    """What a reader sees, and which tags there are."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.text = ""
        self.tags: list[str] = []
        self.open: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_a_purchase_in_full(swipe: Template, make_facts: Any) -> None:
    words = swipe.render_email(make_facts(), "zh-CN")
    assert words.subject == "消费 ¥38.00（尾号0426）星巴克南京西路店"
    assert words.text == (
        "您尾号0426的信用卡有一笔交易：消费\n\n金额：¥38.00\n商户：星巴克南京西路店，上海\n"
        "时间：2026年11月22日 13:05\n当日累计：¥1,234.50\n\n如非本人操作，请立即致电卡片背面的客服电话。"
    )
    words = swipe.render_email(make_facts(orig_amount=16000, orig_currency="EUR", late_seconds=7200), "en")
    assert words.subject == "Purchase ¥38.00 on card 0426: 星巴克南京西路店"
    assert "Amount: ¥38.00 (€160.00)\n" in words.text
    assert "This notice is about 2 hr late." in words.text


@pytest.mark.parametrize("locale", ["zh-CN", "en"])
def test_the_html_says_what_the_text_says_in_tags_that_close(swipe: Template, make_facts: Any, locale: str) -> None:
    facts = make_facts(orig_amount=16000, orig_currency="EUR", late_seconds=7200)
    seen = Reading(swipe.render_email(facts, locale).html)
    assert not seen.open
    for word in ("¥38.00", "€160.00", "星巴克南京西路店", "上海", "¥1,234.50", "0426", "13:05"):
        assert word in seen.text
    # Nothing is loaded from anywhere: no picture that tells when somebody reads
    assert not {"img", "script", "link", "iframe"} & set(seen.tags)


@pytest.mark.parametrize("locale", ["zh-CN", "en"])
@given(
    merchant=st.text(max_size=60)
    | st.sampled_from(["<script>x</script>", "'\"><img src=x>", "&lt;b&gt;", "{{ amount }}"])
)
def test_no_merchant_becomes_markup(swipe: Template, make_facts: Any, locale: str, merchant: str) -> None:
    plain = Reading(swipe.render_email(make_facts(), locale).html)
    hostile = swipe.render_email(make_facts(merchant=merchant), locale)
    seen = Reading(hostile.html)
    assert seen.tags == plain.tags
    assert "\n" not in hostile.subject
    assert "\r" not in hostile.subject


def test_a_template_cannot_undo_the_escaping(tmp_path: Path, make_facts: Any) -> None:
    html = "{{ merchant|safe }}{{ merchant|short(3)|safe }}"
    words = a_template(tmp_path, html=html).render_email(make_facts(merchant="<b>&"), "en")
    assert words.html == "&lt;b&gt;&amp;&lt;b…"
    assert (words.subject, words.text) == ("<b>&", "<b>&")
    with pytest.raises(TemplateError, match="UnknownStatement: there is no such statement"):
        a_template(tmp_path, html="{% autoescape false %}{{ merchant }}{% endautoescape %}")


def test_a_long_subject_loses_its_merchant_and_never_a_digit(swipe: Template, make_facts: Any) -> None:
    facts = make_facts(merchant="商" * 400, amount=99_999_999_999_999)
    for locale in ("zh-CN", "en"):
        words = swipe.render_email(facts, locale)
        assert units(words.subject) <= MAX_SUBJECT_UNITS
        assert "¥999,999,999,999.99" in words.subject
        assert words.subject.endswith("…")
        assert "商" * 400 in words.text


def test_a_subject_that_cannot_be_shortened_is_refused(tmp_path: Path, make_facts: Any) -> None:
    with pytest.raises(TemplateError, match=r"subject: .*is longer than"):
        a_template(tmp_path, subject="x" * (MAX_SUBJECT_UNITS + 1))
    template = a_template(tmp_path, subject="x" * 118 + "{{ merchant }}")
    assert units(template.render_email(make_facts(), "en").subject) <= MAX_SUBJECT_UNITS


def test_a_subject_is_one_line(tmp_path: Path, make_facts: Any) -> None:
    words = a_template(tmp_path, subject="{{ merchant }}\nBcc: x@y.example").render_email(make_facts(), "en")
    assert words.subject == "星巴克南京西路店 Bcc: x@y.example"


@pytest.mark.parametrize(
    ("parts", "why"),
    [
        ({"html": "{{ colour }}"}, r"\[email.zh-CN\] html: unknown field 'colour'"),
        ({"text": "{{ city }}"}, r"\[email.zh-CN\] text: unknown field 'city'; add it"),
        ({"subject": "{{ merchant"}, r"\[email.zh-CN\] subject: "),
        ({"text": " \n "}, "text: .*is empty"),
        ({"html": "{% for i in range(9999) %}x{% endfor %}"}, "OutOfFuel"),
    ],
)
def test_an_authors_mistake_is_found_when_it_is_loaded(tmp_path: Path, parts: dict[str, str], why: str) -> None:
    with pytest.raises(TemplateError, match=why):
        a_template(tmp_path, **parts)


def test_every_locale_has_a_translation(tmp_path: Path) -> None:
    a_template(tmp_path)
    file = tmp_path / "other" / "template.toml"
    file.write_text(file.read_text("utf-8").replace("[email.en]", "[email.fr]"), "utf-8")
    with pytest.raises(TemplateError, match=r"\[email.en\]: is missing"):
        load_template(file)


def test_a_template_without_a_mail_says_so(tmp_path: Path, make_facts: Any) -> None:
    template = a_template(tmp_path)
    with pytest.raises(UnknownTemplate, match="has no sms part"):
        template.render_sms(make_facts(), "en")
    assert template.channels == {"email"}


def test_an_unknown_currency_is_refused_and_nothing_is_printed(swipe: Template, make_facts: Any) -> None:
    with pytest.raises(RenderError) as caught:
        swipe.render_email(make_facts(currency="ZZZ"), "en")
    assert isinstance(caught.value, FieldRefused)
    assert repr(swipe.render_email(make_facts(), "en")) == "<MailWords ****>"


def test_all_shipped_templates_have_a_mail() -> None:
    assert all("email" in template.channels for template in Library.load())
