"""The words around an alert that are not the template's: WeChat's labels and titles, and those of a phone.

A cardholder sees the title and the labels of the template in the service account's console, which only its owner can
read; these are likely ones, so that a preview reads as the message will.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from templates.template import Template
from templates.words import words_for

LABELS: Final[dict[str, tuple[str, str]]] = {
    "time": ("交易时间", "Time"),
    "amount": ("交易金额", "Amount"),
    "original": ("原币金额", "Original"),
    "total": ("当日累计", "Day total"),
    "merchant": ("交易商户", "Merchant"),
    "city": ("城市", "City"),
    "tail": ("卡片尾号", "Card"),
    "kind": ("交易类型", "Kind"),
    "special": ("交易类型", "Kind"),
    "count": ("笔数", "Number"),
    "sum": ("合计", "In all"),
    "sums": ("合计", "In all"),
    "span": ("时间", "Time"),
    "period": ("时间", "Time"),
    "due_date": ("到期还款日", "Due date"),
    "statement_amount": ("账单金额", "Statement"),
    "minimum_due": ("最低还款额", "Minimum"),
    "points": ("积分", "Points"),
    "points_balance": ("积分余额", "Balance"),
    "remaining": ("待还金额", "To pay"),
    "available": ("可用额度", "Available"),
    "statement_period": ("账单月份", "Period"),
    "due_in": ("还款期限", "When"),
    "stage_word": ("提醒类型", "Kind"),
    "decline_reason": ("拒绝原因", "Reason"),
    "old_limit": ("原额度", "Old limit"),
    "new_limit": ("新额度", "New limit"),
    "title": ("标题", "Title"),
    "text": ("内容", "Notice"),
}
"""Of a key that holds nothing but fields, by the first of them."""

TYPE_LABELS: Final[dict[str, tuple[tuple[str, str], ...]]] = {
    "time": (("时间", "Time"),),
    "date": (("日期", "Date"),),
    "amount": (("金额", "Amount"),),
    "phrase": (("状态", "Status"),),
    "name": (("姓名", "Name"),),
    "thing": (("说明", "Details"), ("备注", "Note")),
}
"""Of other keys by their type: the first of the message has the first label, and so on; the last is for the rest."""

TITLES: Final[dict[str, str]] = {
    "foreign-purchase": "境外消费提醒",
    "large": "大额消费提醒",
    "digest": "交易汇总提醒",
    "statement": "账单提醒",
    "repayment": "还款提醒",
    "payment": "还款到账通知",
    "points": "积分变动提醒",
    "limit": "额度调整通知",
    "service": "服务通知",
    "greeting": "节日问候",
    "promotion": "优惠活动",
    "fraud": "风险交易提醒",
}
"""In Chinese, by template or by category; another card movement is called by what happened."""

AROUND: Final[dict[bool, dict[str, str]]] = {
    True: {"details": "查看详情", "sms": "短信", "today": "今天", "to": "收件人：我"},
    False: {"details": "View details", "sms": "Text message", "today": "Today", "to": "to me"},
}

_field = re.compile(r"\{\{-? *([a-z_]+)[^{}]*\}\}")
_tag = re.compile(r"\{%.*?%\}")
_word = re.compile(r"\w").search


def is_chinese(locale: str) -> bool:
    """Whether its words are Chinese, as `words_for` has it."""
    return words_for(locale).language == "zh"


def around(locale: str) -> dict[str, str]:
    """The words of the program that shows the alert."""
    return AROUND[is_chinese(locale)]


def title_of(template: Template, kind: str, locale: str) -> str:
    """A likely title of the template message; ``kind`` is one of ``words.KINDS``."""
    kinds = words_for(locale).kinds
    if is_chinese(locale):
        return TITLES.get(template.id) or TITLES.get(template.category) or f"{kinds[kind]}提醒"
    if template.category == "swipe" and template.match is None:
        return kinds[kind]  # the one for every card movement: its own title says no more than that
    return template.title if template.title != template.id else template.title.capitalize()


class Labels:
    """The labels of one message, asked for in the order of its keys."""

    def __init__(self, locale: str) -> None:
        self._at = 0 if is_chinese(locale) else 1
        self._seen: dict[str, int] = {}

    def label(self, source: str, kind: str) -> str:
        """For a key of this type, whose text in the template is ``source`` (empty when that is not known)."""
        bare = _tag.sub("", source)
        first = next((name for name in _field.findall(bare) if name in LABELS), None)
        if first is not None and not _word(_field.sub("", bare)):
            return LABELS[first][self._at]
        choices = TYPE_LABELS.get(kind, TYPE_LABELS["thing"])
        number = self._seen.get(kind, 0)
        self._seen[kind] = number + 1
        return choices[min(number, len(choices) - 1)][self._at]


def in_order(data: Mapping[str, object], written: Mapping[str, object]) -> list[str]:
    """The keys of a message in the order in which the template's file has them, then the others."""
    return [key for key in written if key in data] + [key for key in data if key not in written]
