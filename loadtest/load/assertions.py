"""``--assert``: what must hold at the end of a load test. Pure."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from loadtest.result import Verdict

LATENCIES: Final = ("p50", "p90", "p95", "p99", "p999", "max")
ACK_LATENCIES: Final = tuple(f"ack_{name}" for name in LATENCIES)
COUNTS: Final = (
    *("lost", "duplicates", "unknown", "rejected", "failed", "open", "delivered"),
    *("rate_in", "rate_out", "mb", "pushed_back", "abandoned"),
)
RECOVERY: Final = "recovery"
"""See `loadtest.load.recovery`."""
TIMES: Final = (*LATENCIES, *ACK_LATENCIES, RECOVERY)
METRICS: Final = (*TIMES, *COUNTS)

PERCENTILES: Final = {"p50": 50.0, "p90": 90.0, "p95": 95.0, "p99": 99.0, "p999": 99.9, "max": 100.0}

_OPERATORS: Final[dict[str, Callable[[float, float], bool]]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    ">": operator.gt,
}
_TO_MS: Final = {"us": 0.001, "ms": 1.0, "s": 1000.0}
_SHAPE: Final = re.compile(r"\s*(\w+)\s*(<=|>=|==|!=|<|>)\s*([0-9][0-9_,]*(?:\.[0-9]+)?)\s*([A-Za-z/]*)\s*", re.ASCII)

ALLOWED: Final = (
    "allowed is METRIC OPERATOR VALUE, such as 'p99<200ms' or 'lost==0'; the metrics are"
    f" {', '.join(LATENCIES)} and the same with ack_, {RECOVERY} (value in us, ms or s), {', '.join(COUNTS)};"
    f" the operators {' '.join(_OPERATORS)}"
)


class Assertion(msgspec.Struct, frozen=True):
    """One condition. ``value`` is in ms for a latency or another time."""

    text: str
    metric: str
    symbol: str
    value: float

    def judge(self, measured: Mapping[str, float]) -> Verdict:
        """Whether it holds. What was not measured does not."""
        found = measured.get(self.metric, math.nan)
        if math.isnan(found):
            return Verdict(text=self.text, measured="not measured", holds=False)
        return Verdict(text=self.text, measured=self._shown(found), holds=_OPERATORS[self.symbol](found, self.value))

    def _shown(self, value: float) -> str:
        if math.isinf(value):
            return "never"
        if self.metric in TIMES:
            return f"{value:,.1f} ms" if value < 10_000 else f"{value / 1000:,.2f} s"
        return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.1f}"


def parse_assertion(text: str) -> Assertion:
    """One ``--assert``. Raises ``ValueError`` that says what is wrong and what is allowed."""
    match = _SHAPE.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} cannot be read; {ALLOWED}")
    metric, symbol, number, unit = match.groups()
    value = float(number.replace(",", "").replace("_", ""))
    if metric in TIMES:
        if unit not in _TO_MS:
            what, such = ("a time", "60s") if metric == RECOVERY else ("a latency", "200ms")
            raise ValueError(f"{text!r}: {what} needs its unit, us, ms or s, such as {metric}{symbol}{such}")
        value *= _TO_MS[unit]
    elif metric not in COUNTS:
        raise ValueError(f"{text!r}: unknown metric {metric!r}; {ALLOWED}")
    elif unit.lower() not in {"", {"mb": "mb", "rate_in": "/s", "rate_out": "/s"}.get(metric, "")}:
        raise ValueError(f"{text!r}: {metric} is a number without the unit {unit!r}")
    return Assertion(text.strip(), metric, symbol, value)
