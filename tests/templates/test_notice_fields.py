"""Fields of notices that are no card movement: what they say in both languages, and what a missing fact does."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from templates.errors import FieldRefused, MissingFact, RenderFailed, UnknownTemplate, reason_of
from templates.facts import FIELDS, NOTICE_FIELDS, context
from templates.library import Template, load_template
from templates.words import DECLINE_REASONS, STAGES, words_for

NOTICE = """\
id = "notice"
version = 1
category = "service"
{fields}
[wechat.zh-CN]
{wechat}
[wechat.en]
{wechat}
[sms.zh-CN]
text = {text}
[sms.en]
text = {text}
"""


def a_notice(folder: Path, sms: str, wechat: str = 'thing1 = "x"', **examples: str) -> Template:
    """A template that uses these fields."""
    lines = "".join(
        f'[[fields]]\nname = "{name}"\ntype = "{FIELDS[name].type}"\nexample = "{example}"\n'
        for name, example in examples.items()
    )
    path = folder / "notice" / "template.toml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(NOTICE.format(fields=lines, wechat=wechat, text=f'"{sms}"'), "utf-8")
    return load_template(path)


def read(facts: Any, name: str, locale: str = "zh-CN") -> str:
    return FIELDS[name].read(facts, words_for(locale))


@pytest.mark.parametrize(
    ("name", "told", "chinese", "english"),
    [
        ("statement_period", {"period": "2026-10"}, "2026年10月", "October 2026"),
        ("statement_amount", {"statement_amount_minor": 123_450}, "¥1,234.50", "¥1,234.50"),
        ("statement_amount", {"statement_amount_minor": -500}, "-¥5.00", "-¥5.00"),
        ("minimum_due", {"minimum_due_minor": 10_000}, "¥100.00", "¥100.00"),
        ("minimum_due", {}, "", ""),
        ("remaining", {"remaining_minor": 1}, "¥0.01", "¥0.01"),
        ("available", {"available_minor": 0}, "¥0.00", "¥0.00"),
        ("due_date", {"due_date": "2026-11-25"}, "2026年11月25日", "2026-11-25"),
        ("due_date", {"due_date": "2026-01-05"}, "2026年01月05日", "2026-01-05"),
        ("short_due_date", {"due_date": "2026-01-05"}, "1月5日", "5 Jan"),
        ("points", {"points": 1_200}, "1,200", "1,200"),
        ("points", {"points": -300}, "-300", "-300"),
        ("points_balance", {"points_balance": 0}, "0", "0"),
        ("points_expiring", {"points_expiring": 800}, "800", "800"),
        ("points_expiring", {}, "", ""),
        ("points_expiry", {"points_expiry": "2026-12-31"}, "2026年12月31日", "2026-12-31"),
        ("old_limit", {"old_limit_minor": 1_000_000}, "¥10,000.00", "¥10,000.00"),
        ("new_limit", {"new_limit_minor": 2_000_000}, "¥20,000.00", "¥20,000.00"),
        ("limit_change", {"old_limit_minor": 1, "new_limit_minor": 2}, "上调", "raised"),
        ("limit_change", {"old_limit_minor": 2, "new_limit_minor": 1}, "下调", "lowered"),
        ("limit_until", {}, "", ""),
        ("title", {"title": " 国\u202e宝 "}, "国宝", "国宝"),
        ("text", {"text": 7}, "7", "7"),
        ("name", {"name": "张先生"}, "张先生", "张先生"),
        ("name", {}, "", ""),
        ("link", {"link": "https://bank.example/a?b=1&c=%20#d"}, *2 * ("https://bank.example/a?b=1&c=%20#d",)),
        ("link", {}, "", ""),
        ("unsubscribe", {"unsubscribe": "R"}, "R", "R"),
        ("hotline", {"hotline": "+86 400-800-8888"}, "+86 400-800-8888", "+86 400-800-8888"),
        ("confirm_word", {"confirm_word": "1"}, "1", "1"),
        ("deny_word", {}, "", ""),
    ],
)
def test_a_fact_reads_in_both_languages(
    make_facts: Any, name: str, told: dict[str, Any], chinese: str, english: str
) -> None:
    facts = make_facts(facts=told)
    assert (read(facts, name, "zh-CN"), read(facts, name, "en")) == (chinese, english)


@pytest.mark.parametrize(
    ("told", "stage", "chinese", "english", "days"),
    [
        ({"due_date": "2026-11-25"}, "before", "还有3天到期", "due in 3 days", "3"),
        ({"due_date": "2026-11-23"}, "before", "还有1天到期", "due tomorrow", "1"),
        ({"due_date": "2026-11-22"}, "on", "今天到期", "due today", "0"),
        ({"due_date": "2026-11-21"}, "after", "已逾期1天", "1 day overdue", "1"),
        ({"due_date": "2026-11-12"}, "after", "已逾期10天", "10 days overdue", "10"),
        ({"stage": "before", "days": 2}, "before", "还有2天到期", "due in 2 days", "2"),
        ({"stage": "after", "days": 2, "due_date": "2026-11-25"}, "after", "已逾期2天", "2 days overdue", "2"),
        ({"stage": "on"}, "on", "今天到期", "due today", "0"),
        ({"days": -4}, "after", "已逾期4天", "4 days overdue", "4"),
    ],
)
def test_where_a_reminder_stands_is_told_or_counted_from_the_due_date(
    make_facts: Any, told: dict[str, Any], stage: str, chinese: str, english: str, days: str
) -> None:
    # Given a reminder of 22 November, 13:05 in Shanghai
    facts = make_facts(facts=told)
    assert read(facts, "stage") == stage
    assert (read(facts, "due_in"), read(facts, "due_in", "en"), read(facts, "days")) == (chinese, english, days)
    assert read(facts, "stage_word", "en") == words_for("en").stages[stage]


def test_days_are_counted_in_the_recipient_s_zone(make_facts: Any) -> None:
    # Given a reminder at 01:00 of the 23rd in Shanghai, which is the 22nd in London
    late = make_facts(time=datetime(2026, 11, 22, 17, 0, tzinfo=UTC), facts={"due_date": "2026-11-23"})
    assert read(late, "stage") == "on"
    london = make_facts(event=late.event, timezone="Europe/London")
    assert read(london, "stage") == "before"


NEEDED = sorted(name for name, field in NOTICE_FIELDS.items() if not field.optional)


@pytest.mark.parametrize("name", NEEDED)
@pytest.mark.parametrize("told", [None, {}, {"other": 1}])
def test_a_fact_that_is_needed_and_missing_is_named(make_facts: Any, name: str, told: dict[str, Any] | None) -> None:
    with pytest.raises(MissingFact, match=r"^missing-fact [a-z_]+$") as caught:
        read(make_facts(facts=told), name)
    assert reason_of(caught.value) == f"render:missing-fact {caught.value.name}"


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("statement_period", {"period": "October"}),
        ("statement_period", {"period": "2026-13"}),
        ("statement_amount", {"statement_amount_minor": "************1111"}),
        ("due_date", {"due_date": "2026-02-30"}),
        ("due_date", {"due_date": "20261125"}),
        ("due_date", {"due_date": 20261125}),
        ("stage", {"stage": "soon"}),
        ("days", {"stage": "before", "days": 0}),
        ("days", {"days": "3"}),
        ("points", {"points": "many"}),
        ("link", {"link": "http://bank.example/"}),
        ("link", {"link": "javascript:alert(1)"}),
        ("link", {"link": "https://bank.example/\"onload='x'"}),
        ("link", {"link": "https://bank.example/<b>"}),
        ("link", {"link": "https://bank.example/a b"}),
        ("link", {"link": "https://bank.example@evil.example/"}),
        ("link", {"link": "https://bänk.example/"}),
        ("link", {"link": "https://"}),
        ("link", {"link": 5}),
        ("picture", {"picture": "http://bank.example/a.png"}),
        ("hotline", {"hotline": "call us"}),
    ],
)
def test_a_fact_of_the_wrong_shape_is_refused_and_not_repeated(
    make_facts: Any, name: str, told: dict[str, Any]
) -> None:
    with pytest.raises(FieldRefused) as caught:
        read(make_facts(facts=told), name, "en")
    for value in told.values():
        assert isinstance(value, int) or value in STAGES or value not in str(caught.value)
    assert reason_of(caught.value).startswith("template-field:")


def test_the_other_reasons_name_no_value() -> None:
    assert reason_of(RenderFailed("x@1/sms.en/text", "line 1: OutOfFuel")) == (
        "template:RenderFailed sms.en/text, line 1: OutOfFuel"
    )
    assert reason_of(UnknownTemplate("no template")) == "template:UnknownTemplate"


def test_a_template_whose_event_lacks_a_fact_fails_on_every_part(tmp_path: Path, make_facts: Any) -> None:
    notice = a_notice(tmp_path, "到期日{{ due_date }}", 'thing1 = "{{ title }}"', due_date="2026-11-25", title="账单")
    with pytest.raises(MissingFact, match="missing-fact due_date"):
        notice.render_sms(make_facts(), "zh-CN")
    for render in (notice.render_wechat, notice.render_wechat_json):
        with pytest.raises(MissingFact, match="missing-fact title"):
            render(make_facts(facts={"due_date": "2026-11-25"}), "en")
    # And with the facts it is told
    facts = make_facts(facts={"due_date": "2026-11-25", "title": "十" * 30})
    assert notice.render_sms(facts, "zh-CN") == "到期日2026年11月25日"
    assert notice.render_wechat(facts, "zh-CN") == {"thing1": {"value": "十" * 19 + "…"}}


def test_points_fit_a_number_of_wechat_without_their_separators(tmp_path: Path, make_facts: Any) -> None:
    notice = a_notice(tmp_path, "x", 'number1 = "{{ points_balance }}"', points_balance="1,200")
    facts = make_facts(facts={"points_balance": 1_234_567})
    assert notice.render_wechat(facts, "en") == {"number1": {"value": "1234567"}}


def test_a_long_text_is_cut_and_its_amount_and_link_are_whole(tmp_path: Path, make_facts: Any) -> None:
    text = "{{ text }}{{ text }}{{ text }}{{ amount }} {{ link }}"
    notice = a_notice(tmp_path, text, text="x", amount="¥1.00", link="https://bank.example/")
    link = "https://bank.example/" + "x" * 150
    shown = notice.render_sms(make_facts(facts={"text": "字" * 200, "link": link}), "zh-CN")
    assert shown.endswith(f"…¥38.00 {link}")
    assert len(shown) <= 486


@pytest.mark.parametrize(
    ("status", "chinese", "english"),
    [
        ("declined: insufficient funds", "可用额度不足", "not enough credit available"),
        ("declined: Insufficient Balance", "可用额度不足", "not enough credit available"),
        ("declined: wrong PIN", "密码错误", "wrong PIN"),
        ("declined: over the limit", "超出限额", "over a limit"),
        ("declined: card expired", "卡片已过期", "card expired"),
        ("declined: code 7731", "", ""),
        ("declined", "", ""),
        ("declined: insufficient funds" + "!" * 200, "", ""),
        ("approved: wrong PIN once", "", ""),
        (None, "", ""),
    ],
)
def test_a_decline_says_why_in_known_words_only(
    make_facts: Any, status: str | None, chinese: str, english: str
) -> None:
    facts = make_facts(status=status)
    assert (read(facts, "decline_reason"), read(facts, "decline_reason", "en")) == (chinese, english)


def test_every_language_has_a_word_for_every_stage_and_reason() -> None:
    for locale in ("zh-CN", "en"):
        words = words_for(locale)
        assert words.stages.keys() == set(STAGES)
        assert words.declines.keys() == set(DECLINE_REASONS)
        assert all([*words.stages.values(), *words.declines.values()])


@pytest.mark.parametrize(
    ("country", "chinese", "english"),
    [("FR", "法国", "France"), ("CN", "中国", "China"), ("ZZ", "", ""), ("EU", "", ""), ("fr", "", ""), (None, "", "")],
)
def test_a_country_is_named(make_facts: Any, country: str | None, chinese: str, english: str) -> None:
    facts = make_facts(country=country)
    assert (read(facts, "country"), read(facts, "country", "en")) == (chinese, english)


def test_a_card_never_shows_more_than_its_tail(make_facts: Any) -> None:
    assert read(make_facts(pan="622588******0426"), "card") == "****0426"
    assert read(make_facts(pan="none"), "card") == ""


def test_context_leaves_out_what_an_event_lacks(make_facts: Any) -> None:
    values = context(make_facts(facts={"due_date": "2026-11-25"}), "en")
    assert values["due_date"] == "2026-11-25"
    assert "points" not in values
