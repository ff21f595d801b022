"""What a cardholder reads of several alerts in one message, word by word."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from dispatcher.model.event import DigestFacts, Event
from templates.errors import FieldRefused
from templates.facts import DIGEST_FIELDS, SwipeFacts, context, main_currency
from templates.library import Library, Template, load_template
from templates.limits import MAX_SMS_TEXT_UNITS, check
from templates.text import units

SINCE = datetime(2026, 11, 22, 5, 5, 59, tzinfo=UTC)
UNTIL = datetime(2026, 11, 22, 10, 40, tzinfo=UTC)


@pytest.fixture(scope="session")
def digest() -> Template:
    return Library.load().template("digest")


def facts(**changed: Any) -> SwipeFacts:
    """Five purchases of one afternoon in Shanghai."""
    timezone = changed.pop("timezone", "Asia/Shanghai")
    since, until = changed.pop("since", SINCE), changed.pop("until", UNTIL)
    told: dict[str, Any] = {"role": "primary", "count": 5, "amounts": {"CNY": 12_340}, "rule": "r", "type": "purchase"}
    ends = {"since": int(since.timestamp() * 1000), "until": int(until.timestamp() * 1000)}
    made = DigestFacts(**(told | ends | changed))
    currency = main_currency(made.amounts)
    event = Event(
        id="swipebell:digest:1",
        account="a1",
        amount=made.amounts[currency],
        currency=currency,
        time=until,
        type="digest",
        category="digest",
        digest=made,
    )
    return SwipeFacts(event, timezone)


def wechat(template: Template, of: SwipeFacts, locale: str) -> dict[str, str]:
    data = template.render_wechat(of, locale)
    assert check(data) == []
    return {key: field["value"] for key, field in data.items()}


def test_five_purchases_in_chinese(digest: Template) -> None:
    assert wechat(digest, facts(), "zh-CN") == {
        "time3": "2026年11月22日 13:05~2026年11月22日 18:40",
        "thing1": "另有5笔消费",
        "thing9": "合计 ¥123.40",
    }
    assert (
        digest.render_sms(facts(), "zh-CN") == "您的信用卡另有5笔消费未逐笔通知（11月22日13:05–18:40），合计¥123.40。"
    )
    mail = digest.render_email(facts(), "zh-CN")
    assert mail.subject == "您的信用卡另有5笔消费，合计¥123.40"
    assert mail.text.splitlines()[2:4] == ["时间：11月22日13:05–18:40", "合计：¥123.40"]
    assert "¥123.40" in mail.html
    assert "11月22日13:05–18:40" in mail.html


def test_five_purchases_in_english(digest: Template) -> None:
    assert wechat(digest, facts(), "en") == {
        "time3": "2026-11-22 13:05~2026-11-22 18:40",
        "thing1": "5 purchases",
        "thing9": "¥123.40",
    }
    text = "5 more purchases on your card (22 Nov at 13:05–18:40), ¥123.40 in all."
    assert digest.render_sms(facts(), "en") == text
    assert digest.render_email(facts(), "en").subject == "5 more purchases on your card, ¥123.40 in all"


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"count": 1}, "1 more purchase on your card (22 Nov at 13:05–18:40), ¥123.40 in all."),
        ({"type": ""}, "5 more transactions on your card (22 Nov at 13:05–18:40), ¥123.40 in all."),
        ({"type": "promotion", "amounts": {"CNY": 0}}, "5 more notices on your card (22 Nov at 13:05–18:40)."),
        ({"amounts": {"CNY": -5}}, "5 more purchases on your card (22 Nov at 13:05–18:40), -¥0.05 in all."),
        (
            {"amounts": {"USD": 100, "CNY": 12_340, "EUR": 0}},
            "5 more purchases on your card (22 Nov at 13:05–18:40), ¥123.40 + $1.00 in all.",
        ),
        (
            {"amounts": {"CNY": 1, "USD": 2, "EUR": 3, "KWD": 4}},
            "5 more purchases on your card (22 Nov at 13:05–18:40), €0.03 + $0.02 + ¥0.01 etc. in all.",
        ),
        ({"since": UNTIL}, "5 more purchases on your card (22 Nov at 18:40), ¥123.40 in all."),
        (
            {"timezone": "Europe/London", "since": datetime(2026, 11, 21, 23, 59, tzinfo=UTC)},
            "5 more purchases on your card (21 Nov at 23:59–22 Nov at 10:40), ¥123.40 in all.",
        ),
    ],
)
def test_other_digests(digest: Template, changed: dict[str, Any], said: str) -> None:
    assert digest.render_sms(facts(**changed), "en") == said


@pytest.mark.parametrize("locale", ["zh-CN", "en"])
@pytest.mark.parametrize("count", [1, 10_000])
@pytest.mark.parametrize("type_", ["", "purchase", "decline", "entry", "another"])
@pytest.mark.parametrize(
    "amounts",
    [{"CNY": 0}, {"CNY": -(10**18)}, {"KRW": 10**18, "KWD": 10**18}, {"CNY": 123_456_789_00, "XAF": 5, "SEK": 7}],
)
def test_every_part_keeps_to_its_limits(
    digest: Template, locale: str, count: int, type_: str, amounts: dict[str, int]
) -> None:
    of = facts(count=count, type=type_, amounts=amounts)
    assert wechat(digest, of, locale)["time3"]
    assert digest.render_wechat_json(of, locale)
    assert units(digest.render_sms(of, locale)) <= MAX_SMS_TEXT_UNITS
    assert digest.render_email(of, locale).text


def test_a_bank_s_card_has_the_same_fields(tmp_path: Any) -> None:
    # Given a template of a bank that shows digests as a card with its own picture
    path = tmp_path / "template.toml"
    fields = "".join(
        f'[[fields]]\nname = "{name}"\ntype = "{field.type}"\nexample = "1"\n' for name, field in DIGEST_FIELDS.items()
    )
    parts = "".join(
        f'[sms.{locale}]\ntext = "{{{{ count }}}}"\n[card.{locale}]\ntitle = "{{{{ count }}}} {{{{ members }}}}"\n'
        f'description = "{{{{ period }}}}: {{{{ sums }}}}"\npicture = "https://bank.example/digest.png"\n'
        for locale in ("zh-CN", "en")
    )
    path.write_text(f'id = "digest"\nversion = 2\ncategory = "digest"\n{fields}{parts}', "utf-8")
    card = load_template(path).render_card(facts(), "en")
    assert (card.title, card.description) == ("5 purchases", "22 Nov at 13:05–18:40: ¥123.40")


def test_of_a_swipe_the_fields_of_a_digest_are_refused(digest: Template, make_facts: Any) -> None:
    for render in (digest.render_wechat, digest.render_sms, digest.render_email):
        with pytest.raises(FieldRefused, match="digest"):
            render(make_facts(), "en")


def test_context_has_the_fields_of_a_digest_as_well() -> None:
    assert context(facts(), "en").keys() >= DIGEST_FIELDS.keys()


def test_the_main_currency_is_the_one_of_the_largest_amount() -> None:
    # 500 won are not more than 4.99 dollars for being written with more digits
    assert main_currency({"KRW": 400, "USD": 40_100}) == "USD"
    assert main_currency({"CNY": -500, "USD": 400}) == "CNY"
    assert main_currency({"USD": 5, "CNY": 5}) == "CNY"
    assert main_currency({"CNY": 0}) == "CNY"
