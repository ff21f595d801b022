"""A generated day of card swipes: NDJSON lines in the order of their time, the same ones for the same seed.

Time follows an hourly profile (quiet night, lunch peak, evening peak), merchants and accounts follow Zipf's law,
amounts are lognormal. Among the purchases are refunds, declines and cash, purchases abroad, lines that come twice,
broken lines, and a few card numbers that somebody forgot to mask. ``Made`` counts what went in, so that a run can
be compared with it. Memory does not grow with the number of lines, only with the number of accounts.
"""

from __future__ import annotations

import hashlib
import math
from bisect import bisect_right
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from datetime import date as Date  # noqa: N812 - the field is called date
from datetime import datetime, time, timedelta
from itertools import accumulate
from random import Random
from typing import Any, Final
from zoneinfo import ZoneInfo

import msgspec
import orjson

from loadtest.merchants import ABROAD, AT_HOME, CASH_MACHINES, FEN_PER_MINOR_UNIT, ROUND_TO, Merchant

MINUTES_A_DAY: Final = 1440

HOURLY_WEIGHTS: Final = (
    *(1.2, 0.6, 0.35, 0.25, 0.25, 0.5),
    *(1.4, 3.2, 4.6, 4.4, 4.8, 7.2),
    *(9.6, 6.4, 4.6, 4.4, 4.8, 7.0),
    *(10.2, 9.4, 7.4, 5.4, 3.4, 2.0),
)
"""Swipes in each hour of the day relative to the others; between the middles of the hours it is interpolated."""

STEPS_AN_HOUR: Final = 6

MERCHANT_ZIPF: Final = 0.8
ACCOUNT_ZIPF: Final = 0.5
"""Exponents: a handful of shops has most of the trade, but nobody swipes a whole day long."""

SHARE_ABROAD: Final = 0.03
SHARE_BILLED_AT_HOME: Final = 0.6
"""Of the purchases abroad: these come in CNY with the original amount beside, the others in their own currency."""
SHARE_REFUND: Final = 0.01
SHARE_DECLINE: Final = 0.01
SHARE_CASH: Final = 0.005
SHARE_DUPLICATE: Final = 0.005
SHARE_BROKEN: Final = 0.001
SHARE_UNMASKED: Final = 0.0005

REFUNDABLE: Final = 2_000
"""Purchases that a later refund may belong to: the latest ones, so that memory has a bound."""
REPEAT_WITHIN_LINES: Final = 2_000
"""A line that comes twice does so this many lines later at most: a core system repeats what was not acknowledged."""

TEST_RANGE: Final = "400000"
"""Invented card numbers begin with this; the range is for tests and belongs to no bank."""

DECLINES: Final = ("insufficient funds", "wrong PIN", "card expired", "over the limit")
CASH_AMOUNTS: Final = (20_000, 50_000, 100_000, 100_000, 200_000, 500_000)

_DRAWN_AT_ONCE: Final = 512


class Day(msgspec.Struct, frozen=True, kw_only=True):
    """What to generate: ``events`` lines in all (those that come twice and broken ones included) from ``accounts``
    accounts, over the calendar day ``date`` in the time zone ``zone``."""

    accounts: int
    events: int
    seed: int
    date: Date
    zone: str = "Asia/Shanghai"


class Made(msgspec.Struct, kw_only=True):
    """What went into the lines generated so far: lines = ``good`` + ``duplicate`` + ``broken``.

    ``good`` are lines that must be accepted, ``duplicate`` repeat an earlier good one byte for byte, ``broken`` must
    be rejected (by fault in ``broken_by``). ``types`` counts the good ones by type, ``abroad`` those with a foreign
    currency, ``unmasked`` those with a full card number; ``by_minute`` all lines by the minute of the day.
    """

    good: int = 0
    duplicate: int = 0
    broken: int = 0
    types: Counter[str] = msgspec.field(default_factory=Counter)
    abroad: int = 0
    unmasked: int = 0
    broken_by: Counter[str] = msgspec.field(default_factory=Counter)
    by_minute: list[int] = msgspec.field(default_factory=lambda: [0] * MINUTES_A_DAY)

    @property
    def lines(self) -> int:
        """All of them."""
        return self.good + self.duplicate + self.broken


def generate(day: Day, made: Made) -> Iterator[bytes]:
    """The lines of the day, each with its newline; ``made`` advances as they are taken.

    Raises ``zoneinfo.ZoneInfoNotFoundError`` for an unknown time zone.
    """
    generator = _Generator(day, made)
    for second in generator.seconds():
        yield generator.line(second)


def accounts_of(day: Day) -> list[str]:
    """The names of all accounts of the day, the busiest first. Not every one need have a swipe."""
    return [_account(day.seed, number) for number in range(day.accounts)]


def _account(seed: int, number: int) -> str:
    return f"A{seed}-{number:06}"


def luhn_digit(digits: str) -> int:
    """The check digit of ISO/IEC 7812-1 annex B that belongs behind these digits."""
    total = sum(map(int, digits[-2::-2])) + sum(sum(divmod(2 * int(digit), 10)) for digit in digits[-1::-2])
    return -total % 10


class _Zipf:
    """Draws items so that the one at rank n has the weight 1 / n ** exponent."""

    def __init__(self, random: Random, items: Sequence[Any], exponent: float) -> None:
        self._random = random
        self._items = items
        self._sums = list(accumulate((rank + 1) ** -exponent for rank in range(len(items))))
        self._drawn: list[Any] = []

    def draw(self) -> Any:
        if not self._drawn:
            # A block at a time: `choices` has its price per call.
            self._drawn = self._random.choices(self._items, cum_weights=self._sums, k=_DRAWN_AT_ONCE)
        return self._drawn.pop()


class _Generator:
    def __init__(self, day: Day, made: Made) -> None:
        self._day = day
        self._made = made
        self._random = random = Random(f"traffic/{day.seed}/{day.date}")  # noqa: S311 - repeatable is the point
        self._zone = ZoneInfo(day.zone)
        self._begins = datetime.combine(day.date, time(), self._zone).timestamp()
        ends = datetime.combine(day.date + timedelta(days=1), time(), self._zone).timestamp()
        self._length = ends - self._begins  # 23 or 25 hours where clocks are put forward or back
        # Where it is cheap there is a queue: the further down the ranks, the dearer the shop tends to be.
        ranked = sorted(AT_HOME, key=lambda one: random.random() * one.median**0.5)
        self._at_home = _Zipf(random, ranked, MERCHANT_ZIPF)
        self._abroad = _Zipf(random, random.sample(ABROAD, len(ABROAD)), MERCHANT_ZIPF)
        self._accounts = _Zipf(random, range(day.accounts), ACCOUNT_ZIPF)
        self._cards: dict[str, str] = {}
        self._prefix = f"s{day.seed}-{day.date:%Y%m%d}-e"
        self._numbered = 0
        self._refundable: deque[dict[str, Any]] = deque(maxlen=REFUNDABLE)
        self._to_repeat: deque[tuple[int, bytes]] = deque()

    def seconds(self) -> Iterator[int]:
        """Epoch seconds of every line, rising: sorted draws from the profile, made one after the other."""
        day = self._day
        sums = [0.0, *accumulate(ordinary_hours())]
        total, steps = sums[-1], len(sums) - 1
        left_over = 1.0
        for left in range(day.events, 0, -1):
            # The smallest of `left` uniform draws from what is left over of the day (order statistics).
            left_over *= self._random.random() ** (1 / left)
            weight = (1.0 - left_over) * total
            step = min(bisect_right(sums, weight) - 1, steps - 1)
            share = (step + (weight - sums[step]) / (sums[step + 1] - sums[step])) / steps
            self._made.by_minute[min(int(share * MINUTES_A_DAY), MINUTES_A_DAY - 1)] += 1
            yield int(self._begins + min(share * self._length, self._length - 1))

    def line(self, second: int) -> bytes:
        """The next line: one that was there before, a broken one, or a good one."""
        made, random = self._made, self._random
        position = made.lines
        if self._to_repeat and self._to_repeat[0][0] <= position:
            made.duplicate += 1
            return self._to_repeat.popleft()[1]
        kind = random.random()
        self._numbered += 1
        event = self._event(second)
        if kind < SHARE_BROKEN:
            name, spoil = _FAULTS[made.broken % len(_FAULTS)]
            made.broken += 1
            made.broken_by[name] += 1
            return spoil(event) + b"\n"
        line = orjson.dumps(event) + b"\n"
        self._count(event)
        if kind < SHARE_BROKEN + SHARE_DUPLICATE:
            # In the order of their turn, so that the first in the queue is the next one due.
            before = self._to_repeat[-1][0] if self._to_repeat else 0
            self._to_repeat.append((max(before, position + random.randint(1, REPEAT_WITHIN_LINES)), line))
        return line

    def _count(self, event: dict[str, Any]) -> None:
        made = self._made
        made.good += 1
        made.types[event["type"]] += 1
        made.abroad += event["currency"] != "CNY" or "orig_currency" in event
        masked = event["pan"].startswith("*")
        made.unmasked += not masked
        if masked and event["type"] == "purchase":
            self._refundable.append(event)

    def _event(self, second: int) -> dict[str, Any]:
        random = self._random
        draw = random.random()
        if draw < SHARE_REFUND and self._refundable:
            return self._refund(second)
        event = self._head(second)
        draw -= SHARE_REFUND
        if 0 <= draw < SHARE_CASH:
            machine = random.choice(CASH_MACHINES)
            return self._filled(event, machine, random.choice(CASH_AMOUNTS), "cash")
        away = random.random() < SHARE_ABROAD
        merchant: Merchant = (self._abroad if away else self._at_home).draw()
        amount = _amount(random, merchant)
        if SHARE_CASH <= draw < SHARE_CASH + SHARE_DECLINE:
            event["status"] = f"declined: {random.choice(DECLINES)}"
            return self._filled(event, merchant, amount, "decline")
        self._filled(event, merchant, amount, "purchase")
        if away and random.random() < SHARE_BILLED_AT_HOME:
            billed = max(1, round(amount * FEN_PER_MINOR_UNIT[merchant.currency]))
            event |= {
                "amount": billed,
                "currency": "CNY",
                "orig_amount": amount,
                "orig_currency": merchant.currency,
            }
        if random.random() < SHARE_UNMASKED:
            event["pan"] = self._card(event["account"])
        return event

    def _head(self, second: int) -> dict[str, Any]:
        number: int = self._accounts.draw()
        account = _account(self._day.seed, number)
        return {
            "id": self._next_id(),
            "account": account,
            "pan": "*" * 12 + self._card(account)[-4:],
            "time": datetime.fromtimestamp(second, self._zone).isoformat(),
            "status": "approved",
        }

    def _filled(self, event: dict[str, Any], merchant: Merchant, amount: int, kind: str) -> dict[str, Any]:
        event["amount"] = amount
        event["currency"] = merchant.currency
        event["merchant"] = merchant.name
        event["mcc"] = merchant.mcc
        event["city"] = merchant.city
        event["country"] = merchant.country
        event["type"] = kind
        return event

    def _refund(self, second: int) -> dict[str, Any]:
        """Of an earlier purchase, whole or in part."""
        purchase = self._random.choice(self._refundable)
        share = 1.0 if self._random.random() < 0.8 else self._random.uniform(0.1, 0.9)
        refund = {
            **purchase,
            "id": self._next_id(),
            "time": datetime.fromtimestamp(second, self._zone).isoformat(),
            "type": "refund",
            "amount": -max(1, int(purchase["amount"] * share)),
            "refers_to": purchase["id"],
        }
        if "orig_amount" in purchase:
            refund["orig_amount"] = -max(1, int(purchase["orig_amount"] * share))
        return refund

    def _next_id(self) -> str:
        return f"{self._prefix}{self._numbered:06}"

    def _card(self, account: str) -> str:
        """The full number of the account's invented card."""
        card = self._cards.get(account)
        if card is None:
            digest = hashlib.blake2b(account.encode(), digest_size=8).digest()
            digits = f"{TEST_RANGE}{int.from_bytes(digest, 'big') % 10**9:09}"
            card = self._cards[account] = f"{digits}{luhn_digit(digits)}"
        return card


def ordinary_hours() -> Iterator[float]:
    """The hourly weights in smaller steps, rising and falling evenly from the middle of an hour to the next."""
    for step in range(24 * STEPS_AN_HOUR):
        hour, part = divmod((step + 0.5) / STEPS_AN_HOUR - 0.5, 1.0)
        before, after = HOURLY_WEIGHTS[int(hour) % 24], HOURLY_WEIGHTS[(int(hour) + 1) % 24]
        yield before + (after - before) * part


def _amount(random: Random, merchant: Merchant) -> int:
    minor = merchant.median * math.exp(random.gauss(0.0, merchant.sigma))
    step = ROUND_TO[merchant.currency]
    return max(step, round(minor / step) * step)


def _cut_short(event: dict[str, Any]) -> bytes:
    line = orjson.dumps(event)
    return line[: len(line) // 2]


def _without_id(event: dict[str, Any]) -> bytes:
    return orjson.dumps({name: value for name, value in event.items() if name != "id"})


def _unknown_currency(event: dict[str, Any]) -> bytes:
    return orjson.dumps({**event, "currency": "XQQ"})


def _without_zone(event: dict[str, Any]) -> bytes:
    return orjson.dumps({**event, "time": event["time"][: len("2026-01-01T00:00:00")]})


def _fractional_amount(event: dict[str, Any]) -> bytes:
    return orjson.dumps({**event, "amount": event["amount"] + 0.5})


_FAULTS: Final[tuple[tuple[str, Callable[[dict[str, Any]], bytes]], ...]] = (
    ("not-json", _cut_short),
    ("missing-id", _without_id),
    ("unknown-currency", _unknown_currency),
    ("time-without-zone", _without_zone),
    ("fractional-amount", _fractional_amount),
)
"""Taken in turn, so that a day with five broken lines shows each of them once."""
