"""The words that facts become, for each language. A new language is a new entry here and parts in the
templates.
"""

from __future__ import annotations

import msgspec

KINDS = ("purchase", "refund", "reversal", "cash", "fee", "decline", "entry", "credit", "other")
"""What happened, as the words know it. ``credit`` is money back that is not a refund, ``other`` an unknown
type.
"""


class Words(msgspec.Struct, frozen=True, kw_only=True):
    """A language's words. ``kinds`` names what happened, ``actions`` is what stands before the amount in a
    sentence.
    """

    language: str
    babel: str
    kinds: dict[str, str]
    actions: dict[str, str]
    unknown_merchant: str


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
)


def words_for(locale: str) -> Words:
    """Chinese for every ``zh-…``, English for everybody else."""
    return _ZH if locale[:2].lower() == "zh" else _EN
