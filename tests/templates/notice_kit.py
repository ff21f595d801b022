"""Events of every shipped notice, as a core system would write them, and what is read of each."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from dispatcher.model.event import DigestFacts, Event
from templates.facts import SwipeFacts
from templates.template import Template

AT = datetime(2026, 11, 22, 5, 5, 59, tzinfo=UTC)
LINK = "https://bank.example/n/7?a=1&b=2"
BILL: dict[str, Any] = {"period": "2026-10", "statement_amount_minor": 328_050, "due_date": "2026-11-25"}
FESTIVAL = {
    "title": "中秋快乐",
    "text": "月圆人团圆，愿您与家人共度美好中秋。",
    "picture": "https://bank.example/p/1.jpg",
}
OFFER = {
    "title": "周三美食半价",
    "text": "指定餐厅刷卡享五折，最高优惠50元。",
    "picture": "https://bank.example/p/2.jpg",
}


def an_event(**fields: Any) -> Event:
    """A lunch in Shanghai, unless it is said otherwise; ``facts`` make a notice of it."""
    given: dict[str, Any] = {"id": "e1", "account": "a1", "pan": "************0426", "amount": 3800, "currency": "CNY"}
    if "facts" not in fields and fields.get("category", "swipe") in ("swipe", "fraud"):
        given |= {"merchant": "星巴克南京西路店", "city": "上海", "country": "CN", "mcc": "5814"}
    return Event(**(given | {"time": AT} | fields))


def _folded() -> Event:
    ends = {"since": int(AT.timestamp() * 1000), "until": int(AT.timestamp() * 1000) + 9_000_000}
    digest = DigestFacts(role="primary", count=5, amounts={"CNY": 12_340}, rule="r", type="purchase", **ends)
    return an_event(category="digest", type="digest", amount=12_340, digest=digest)


PARIS: dict[str, Any] = {"merchant": "CAFE DE FLORE", "city": "PARIS", "country": "FR"}
EVENTS: dict[str, dict[str, Event]] = {
    "swipe": {"purchase": an_event(), "fee": an_event(type="fee", amount=1000)},
    "foreign-purchase": {
        "in euros": an_event(amount=123_450, orig_amount=16_000, orig_currency="EUR", **PARIS),
        "of an unknown amount": an_event(amount=123_450, orig_currency="EUR", **PARIS),
    },
    "refund": {"refund": an_event(type="refund", amount=-3800)},
    "reversal": {"reversal": an_event(type="reversal", amount=-3800)},
    "decline": {
        "no credit left": an_event(status="declined: insufficient funds"),
        "a reason that is not said": an_event(status="declined: rule 17"),
    },
    "cash": {"cash": an_event(type="cash", amount=200_000, merchant="人民广场自助取款机")},
    "large": {"large": an_event(amount=1_280_000, merchant="苹果南京东路店", mcc="5732")},
    "fraud": {
        "doubted": an_event(category="fraud", amount=699_900),
        "with answers": an_event(
            category="fraud",
            merchant="某网络商城",
            facts={"confirm_word": "Y", "deny_word": "N", "hotline": "4008-000-000"},
        ),
    },
    "digest": {"five": _folded()},
    "statement": {
        "to pay": an_event(category="statement", facts=BILL | {"minimum_due_minor": 32_805, "link": LINK}),
        "overpaid": an_event(category="statement", facts=BILL | {"statement_amount_minor": -5_000}),
    },
    "repayment": {
        "before": an_event(category="repayment", facts=BILL | {"minimum_due_minor": 32_805, "link": LINK}),
        "on the day": an_event(category="repayment", facts=BILL | {"stage": "on"}),
        "after": an_event(
            category="repayment", facts=BILL | {"due_date": "2026-11-20", "remaining_minor": 128_050, "link": LINK}
        ),
    },
    "payment": {
        "all": an_event(category="payment", type="payment", amount=328_050, facts={"available_minor": 2_000_000}),
        "a part": an_event(category="payment", type="payment", amount=200_000, facts={"remaining_minor": 128_050}),
    },
    "points": {
        "earned": an_event(
            category="points",
            facts={"points": 1200, "points_balance": 12500, "points_expiring": 800, "points_expiry": "2026-12-31"},
        ),
        "spent": an_event(category="points", facts={"points": -300, "points_balance": 12200}),
    },
    "limit-change": {
        "for good": an_event(category="limit", facts={"old_limit_minor": 2_000_000, "new_limit_minor": 3_000_000}),
        "for a while": an_event(
            category="limit",
            facts={"old_limit_minor": 3_000_000, "new_limit_minor": 2_000_000, "limit_until": "2026-12-31"},
        ),
    },
    "service": {
        "maintenance": an_event(
            category="service",
            facts={
                "title": "系统维护通知",
                "text": "11月25日0:00至2:00手机银行暂停服务，刷卡不受影响。",
                "link": LINK,
                "hotline": "4008-000-000",
            },
        )
    },
    "greeting": {"festival": an_event(category="greeting", facts=FESTIVAL | {"link": LINK})},
    "offer": {
        "a word to answer": an_event(category="promotion", facts=OFFER | {"unsubscribe": "R"}),
        "a link": an_event(category="promotion", facts=OFFER | {"link": LINK, "unsubscribe": "https://bank.example/u"}),
    },
}
"""By template and case."""

CASES = [(name, case) for name, cases in EVENTS.items() for case in cases]


def facts_of(name: str, case: str, **changed: Any) -> SwipeFacts:
    """The facts of one case, a day total with them."""
    return SwipeFacts(EVENTS[name][case], **({"day_total_minor": 123_450} | changed))


def reading_of(template: Template, locale: str) -> str:
    """What a cardholder reads of a notice's cases in one locale; of a mail its text, since the HTML says the same."""
    lines = []
    for case in EVENTS[template.id]:
        facts = facts_of(template.id, case)
        lines.append(f"===== {case}")
        if "wechat" in template.channels:
            lines.append("--- wechat")
            lines += [f"{key}: {field['value']}" for key, field in template.render_wechat(facts, locale).items()]
        if template.has_card:
            card = template.render_card(facts, locale)
            lines += ["--- card", card.title, card.description, card.picture, card.url or "-"]
        mail = template.render_email(facts, locale)
        lines += ["--- sms", template.render_sms(facts, locale)]
        lines += ["--- email", f"Subject: {mail.subject}", mail.text, ""]
    return "\n".join(lines)
