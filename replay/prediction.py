"""What would change: the counts of recorded and predicted decisions, side by side. Pure."""

from __future__ import annotations

from collections import Counter
from datetime import date, timedelta
from typing import Any

import msgspec

from ratelimit.quota import china_day
from replay.decided import Decided

MAX_ACCOUNTS = 100_000
"""Accounts whose changed alerts are counted, about 20 MB. Beyond it those with the fewest are let go of, so the counts
of the ten most affected may be a little low; the totals never are."""

SHOWN_ACCOUNTS = 10
WECHAT = frozenset({"wechat", "wechat_service"})
"""What counts for the quota of the account is the template message; the service messages are free of it."""

_EPOCH_DAY = date(1970, 1, 1)


class Affected(msgspec.Struct):
    """One account: how many of its alerts would be decided otherwise, and how many would be told in all."""

    changed: int = 0
    told_recorded: int = 0
    told_predicted: int = 0


class Side:
    """One side of the comparison: what was recorded, or what the draft would do."""

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, str]] = Counter()
        self.sms = 0
        self.wechat_days: Counter[int] = Counter()

    def add(self, decided: Decided, now_ms: int) -> None:
        """Count one alert, accepted at ``now_ms``."""
        told = decided.channel
        self.counts[("sent", told) if decided.state == "send" else (decided.state, decided.rule)] += 1
        if told == "sms":
            self.sms += 1
        elif told == "wechat":
            self.wechat_days[china_day(decided.until or now_ms)] += 1

    def total(self, kind: str) -> int:
        """All of a kind (sent, held, suppressed, folded, expired)."""
        return sum(count for (group, _), count in self.counts.items() if group == kind)


class Prediction:
    """Filled by `whatif`; ``rows`` and ``as_data`` say what came out."""

    def __init__(self) -> None:
        self.recorded, self.predicted = Side(), Side()
        self.events = self.alerts = self.changed = 0
        self.digests = self.digests_predicted = self.gathering = 0
        self.rulesets: Counter[int] = Counter()
        self.accounts: dict[str, Affected] = {}

    def compare(self, account: str, now_ms: int, recorded: Decided, predicted: Decided) -> None:
        """Count one alert of the period on both sides."""
        self.alerts += 1
        self.recorded.add(recorded, now_ms)
        self.predicted.add(predicted, now_ms)
        if recorded == predicted:
            return
        self.changed += 1
        self._affect(account, 1, bool(recorded.channel), bool(predicted.channel))

    def rows(self) -> list[tuple[str, str, int, int]]:
        """(kind, channel or rule, recorded, predicted), the largest first within a kind."""
        rows = []
        for kind in ("sent", "held", "suppressed", "folded", "expired"):
            before, after = self.recorded.counts, self.predicted.counts
            names = {name for group, name in (*before, *after) if group == kind}
            ranked = sorted(names, key=lambda name: (-max(before[kind, name], after[kind, name]), name))
            rows += [(kind, name, before[kind, name], after[kind, name]) for name in ranked]
        return rows

    def days(self) -> list[tuple[str, int, int]]:
        """(day in China, recorded, predicted): template messages of WeChat, which count for its quota."""
        both = sorted(self.recorded.wechat_days.keys() | self.predicted.wechat_days.keys())
        return [
            (
                (_EPOCH_DAY + timedelta(days=day)).isoformat(),
                self.recorded.wechat_days[day],
                self.predicted.wechat_days[day],
            )
            for day in both
        ]

    def most_affected(self) -> list[tuple[str, Affected]]:
        """The accounts with the most changed alerts, up to ten."""
        ranked = sorted(self.accounts.items(), key=lambda item: (-item[1].changed, item[0]))
        return ranked[:SHOWN_ACCOUNTS]

    def as_data(self) -> dict[str, Any]:
        """For ``--json``."""
        data: dict[str, Any] = {"events": self.events, "alerts": self.alerts, "changed": self.changed}
        for kind, name, before, after in self.rows():
            data.setdefault(kind, {})[name] = {"recorded": before, "predicted": after}
        data["digests"] = {"recorded": self.digests, "predicted": self.digests_predicted, "gathering": self.gathering}
        data["sms"] = {"recorded": self.recorded.sms, "predicted": self.predicted.sms}
        data["wechat_per_day"] = [
            {"day": day, "recorded": before, "predicted": after} for day, before, after in self.days()
        ]
        data["accounts"] = [
            {
                "account": account,
                "changed": one.changed,
                "told_recorded": one.told_recorded,
                "told_predicted": one.told_predicted,
            }
            for account, one in self.most_affected()
        ]
        return data

    def _affect(self, account: str, changed: int, recorded: bool, predicted: bool) -> None:
        one = self.accounts.get(account)
        if one is None:
            if len(self.accounts) >= MAX_ACCOUNTS:
                keep = sorted(self.accounts.items(), key=lambda item: -item[1].changed)[: MAX_ACCOUNTS // 2]
                self.accounts = dict(keep)
            one = self.accounts[account] = Affected()
        one.changed += changed
        one.told_recorded += recorded
        one.told_predicted += predicted
