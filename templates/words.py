"""The words that facts become, for each language. A new language is a new entry here and parts in the
templates.
"""

from __future__ import annotations

import msgspec

KINDS = ("purchase", "refund", "reversal", "cash", "fee", "decline", "entry", "credit", "other")
"""What happened, as the words know it. ``credit`` is money back that is not a refund, ``other`` an unknown
type.
"""

STAGES = ("before", "on", "after")
"""Where a reminder stands to the day on which a repayment is due."""

DECLINE_REASONS = (
    "insufficient-funds",
    "over-the-limit",
    "wrong-pin",
    "wrong-code",
    "wrong-card",
    "card-expired",
    "card-blocked",
    "suspected-fraud",
    "not-allowed",
    "technical",
)
"""Reasons of a decline that are said; any other may be an internal word of the core system and is not."""


class Words(msgspec.Struct, frozen=True, kw_only=True):
    """A language's words. ``kinds`` names what happened, ``actions`` is what stands before the amount in a
    sentence. ``members`` are the words for one and for several folded alerts, by the type that all have: empty when
    they are of several, ``notice`` for a type without an entry. ``stages`` and ``declines`` name ``STAGES`` and
    ``DECLINE_REASONS``; ``due_in`` and ``overdue`` are for one day and for several.
    """

    language: str
    babel: str
    kinds: dict[str, str]
    actions: dict[str, str]
    unknown_merchant: str
    members: dict[str, tuple[str, str]]
    and_others: str
    stages: dict[str, str]
    due_in: tuple[str, str]
    due_today: str
    overdue: tuple[str, str]
    limit_raised: str
    limit_lowered: str
    declines: dict[str, str]


NO_AMOUNT = "--"
"""Where an amount is not known: two hyphens, since a provider refuses an empty field."""

NO_TAIL = "----"

_ZH = Words(
    language="zh",
    babel="zh_CN",
    kinds={
        "purchase": "消费",
        "refund": "退款",
        "reversal": "交易撤销",
        "cash": "预借现金",
        "fee": "费用",
        "decline": "交易被拒",
        "entry": "账户入账",
        "credit": "款项退回",
        "other": "交易",
    },
    actions={
        "purchase": "消费",
        "refund": "退款",
        "reversal": "撤销交易",
        "cash": "预借现金",
        "fee": "产生费用",
        "decline": "交易被拒，金额",
        "entry": "账户入账",
        "credit": "退回款项",
        "other": "发生交易",
    },
    unknown_merchant="商户未知",
    members={
        "": ("笔交易", "笔交易"),
        "purchase": ("笔消费", "笔消费"),
        "refund": ("笔退款", "笔退款"),
        "reversal": ("笔撤销", "笔撤销"),
        "cash": ("笔取现", "笔取现"),
        "fee": ("笔费用", "笔费用"),
        "decline": ("笔被拒交易", "笔被拒交易"),
        "entry": ("笔入账", "笔入账"),
        "notice": ("条通知", "条通知"),
    },
    and_others="等",
    stages={"before": "还款提醒", "on": "今日还款", "after": "逾期提醒"},
    due_in=("还有{}天到期", "还有{}天到期"),
    due_today="今天到期",
    overdue=("已逾期{}天", "已逾期{}天"),
    limit_raised="上调",
    limit_lowered="下调",
    declines={
        "insufficient-funds": "可用额度不足",
        "over-the-limit": "超出限额",
        "wrong-pin": "密码错误",
        "wrong-code": "安全码错误",
        "wrong-card": "卡片信息有误",
        "card-expired": "卡片已过期",
        "card-blocked": "卡片已停用",
        "suspected-fraud": "疑似风险交易",
        "not-allowed": "不支持该交易",
        "technical": "系统故障",
    },
)

_EN = Words(
    language="en",
    babel="en",
    kinds={
        "purchase": "Purchase",
        "refund": "Refund",
        "reversal": "Reversal",
        "cash": "Cash advance",
        "fee": "Fee",
        "decline": "Declined",
        "entry": "Account entry",
        "credit": "Credit",
        "other": "Transaction",
    },
    actions={
        "purchase": "Purchase of",
        "refund": "Refund of",
        "reversal": "Reversal of",
        "cash": "Cash advance of",
        "fee": "Fee of",
        "decline": "Declined: transaction of",
        "entry": "Account entry of",
        "credit": "Credit of",
        "other": "Transaction of",
    },
    unknown_merchant="unknown merchant",
    members={
        "": ("transaction", "transactions"),
        "purchase": ("purchase", "purchases"),
        "refund": ("refund", "refunds"),
        "reversal": ("reversal", "reversals"),
        "cash": ("cash advance", "cash advances"),
        "fee": ("fee", "fees"),
        "decline": ("decline", "declines"),
        "entry": ("account entry", "account entries"),
        "notice": ("notice", "notices"),
    },
    and_others=" etc.",
    stages={"before": "Payment reminder", "on": "Payment due today", "after": "Payment overdue"},
    due_in=("due tomorrow", "due in {} days"),
    due_today="due today",
    overdue=("1 day overdue", "{} days overdue"),
    limit_raised="raised",
    limit_lowered="lowered",
    declines={
        "insufficient-funds": "not enough credit available",
        "over-the-limit": "over a limit",
        "wrong-pin": "wrong PIN",
        "wrong-code": "wrong security code",
        "wrong-card": "wrong card details",
        "card-expired": "card expired",
        "card-blocked": "card blocked",
        "suspected-fraud": "suspected fraud",
        "not-allowed": "not allowed",
        "technical": "technical fault",
    },
)


def words_for(locale: str) -> Words:
    """Chinese for every ``zh-…``, English for everybody else."""
    return _ZH if locale[:2].lower() == "zh" else _EN
