"""What it costs to put an alert into words: processor time of one rendering, by channel, and of each filter.

The swipe stands for the hot path, and beside it the shipped templates that cost most. Events vary as those of a day do,
so that what the renderer remembers (a merchant as it is shown, a minute as it is written) is met as often as there.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec

from dispatcher.channels.email.message import Sender, build
from dispatcher.model.event import DIGEST, DigestFacts, Event
from loadtest.bench.contest import Bench
from loadtest.bench.figures import Failed, Figures, Kind
from loadtest.bench.stages import BATCH, QUARTILE
from loadtest.bench.swipes import swipes
from templates.errors import RenderError
from templates.facts import SwipeFacts
from templates.filters import FILTERS
from templates.library import DEFAULT_LOCALE, OTHER_LOCALE, Library, Template
from templates.render import Source, environment
from templates.template import Match

EVENTS: Final = 1024
"""Different events of a template: more than a batch, so that no batch is the one before."""

MAILS: Final = 8
"""Mails of a batch: one takes as long as thirty other renderings."""

SENDER: Final = Sender("alerts@bank.example", "招商银行")
WHEN: Final = datetime(2026, 11, 22, 5, 5, tzinfo=UTC)

FILTER_TEXTS: Final = {
    "short": "{{ merchant | short(12) }}",
    "money": "{{ amount_minor | money(currency) }}",
    "local_time": "{{ swiped_at | local_time(timezone) }}",
    "tail": "{{ card | tail }}",
    "mcc_word": "{{ mcc | mcc_word }}",
    "mcc_icon": "{{ mcc | mcc_icon }}",
    "late": "{{ late_seconds | late }}",
}
NO_FILTER: Final = "no filter, the engine alone"
FILTER_VALUES: Final = {
    "merchant": "星巴克南京西路第一百货旗舰店",
    "amount_minor": "123450",
    "currency": "CNY",
    "swiped_at": "2026-11-22T05:05:59+00:00",
    "timezone": "Asia/Shanghai",
    "card": "************0426",
    "mcc": "5814",
    "late_seconds": "2100",
}

NOTICE_FACTS: Final[dict[str, str | int]] = {
    "period": "2026-10",
    "statement_amount_minor": 328_050,
    "minimum_due_minor": 32_805,
    "remaining_minor": 100_000,
    "due_date": "2026-11-25",
    "points": 1_200,
    "points_balance": 12_500,
    "old_limit_minor": 2_000_000,
    "new_limit_minor": 5_000_000,
    "title": "积分规则调整",
    "text": "自2026年12月1日起，信用卡积分规则将有调整，详情请见官网公告。",
    "link": "https://bank.example/n/1",
    "picture": "https://bank.example/p/1.jpg",
    "unsubscribe": "TD",
}
"""What the notices tell that are no card movement."""


class Renderings:
    """Rows for each channel, its swipe and its dearest templates, and a row for each filter."""

    label = "renderings"
    kind: Kind = "render"
    base: str | None = None

    def open(self, bench: Bench, stack: ExitStack) -> None:
        """See `Contestant.open`."""
        self._library = Library.load()

    def measure(self, bench: Bench, number: int) -> Mapping[str, Figures]:
        """See `Contestant.measure`."""
        batches = max(1, bench.sizes.stage_alerts // BATCH)
        found = measure_channels(self._library, batches) | measure_filters(batches)
        return {label: {"cpu_us": microseconds} for label, microseconds in found.items()}


def measure_channels(library: Library, batches: int) -> dict[str, float]:
    """µs of one rendering, by channel: of the swipe, and of the templates that take longest. Raises `Failed`."""
    renderings: dict[str, tuple[int, Callable[[Template, SwipeFacts, str], object]]] = {
        "wechat": (BATCH, Template.render_wechat_json),
        "sms": (BATCH, Template.render_sms),
        "email": (MAILS, _mail),
    }
    found: dict[str, float] = {}
    for channel, (size, render) in renderings.items():
        costs = {
            one.id: _measured(one, render, sample(one), batches, size) for one in library if channel in one.channels
        }
        found[f"{channel}: swipe"] = costs["swipe"]
        if channel == "wechat":
            never_seen = _measured(library.template("swipe"), render, _strangers(batches), batches, size)
            found[f"{channel}: swipe, every merchant for the first time"] = never_seen
        movements = [one.id for one in library if one.category == "swipe" and one.id in costs]
        for of, names in (("movement of a card", movements), ("template", list(costs))):
            dearest = max(names, key=lambda name: costs[name])
            found[f"{channel}, the dearest {of}: {dearest}"] = costs[dearest]
    return found


def measure_filters(batches: int) -> dict[str, float]:
    """µs of a text with one filter and nothing else, and of one without."""
    texts = {NO_FILTER: "{{ merchant }}"} | {f"filter {name}": FILTER_TEXTS[name] for name in FILTERS}
    engine = environment()
    found = {}
    for number, (label, text) in enumerate(texts.items()):
        render = Source(engine, f"bench@{number}/sms.{DEFAULT_LOCALE}/text", text).render
        found[label] = _quartile([_timed(render, [(FILTER_VALUES,)] * BATCH) for _ in range(batches)])
    return found


def sample(template: Template) -> list[SwipeFacts]:
    """A day's events as this template tells them."""
    match, changes = template.match or Match(), dict[str, Any](category=template.category)
    if match.type is not None:
        changes["type"] = match.type[0]
    if match.declined:
        changes["status"] = "declined: insufficient funds"
    if match.foreign:
        changes |= {"orig_amount": 16_000, "orig_currency": "EUR"}
    if template.category == DIGEST:
        began = int(WHEN.timestamp() * 1000)
        changes["digest"] = DigestFacts("primary", 5, {"CNY": 12_340, "EUR": 1_600}, began, began + 9_000_000, "r", "")
    elif template.category not in ("swipe", "fraud"):
        changes["facts"] = NOTICE_FACTS
    least = (match.large_from or {}).get("CNY", 0)
    decode = msgspec.json.Decoder(Event).decode
    events = [decode(line) for line in swipes(EVENTS, accounts=EVENTS, batch="render")]
    return [
        SwipeFacts(
            msgspec.structs.replace(
                one, amount=one.amount + least, time=WHEN + timedelta(seconds=number * 7), **changes
            ),
            day_total_minor=one.amount * 3,
        )
        for number, one in enumerate(events)
    ]


def _strangers(batches: int) -> list[SwipeFacts]:
    """Swipes whose merchants are all different, and too long for their field."""
    decode = msgspec.json.Decoder(Event).decode
    events = (decode(line) for line in swipes(batches * BATCH, accounts=EVENTS, batch="strangers"))
    return [
        SwipeFacts(msgspec.structs.replace(one, merchant=f"{number} 号店 Valamar Hotel Lacroma Reception"))
        for number, one in enumerate(events)
    ]


def _mail(template: Template, facts: SwipeFacts, locale: str) -> object:
    """All of it: the words, and the message that the server is given."""
    return build(SENDER, "li.lei@example.com", template.render_email(facts, locale), "k" * 32, WHEN, locale)


def _measured(
    template: Template,
    render: Callable[[Template, SwipeFacts, str], object],
    facts: Sequence[SwipeFacts],
    batches: int,
    size: int,
) -> float:
    locales = itertools.cycle((DEFAULT_LOCALE, OTHER_LOCALE))
    endless = itertools.cycle(facts)
    try:
        return _quartile(
            [_timed(render, [(template, next(endless), next(locales)) for _ in range(size)]) for _ in range(batches)]
        )
    except RenderError as error:
        raise Failed(f"{template.pinned} cannot tell a sample event: {error}") from None


def _timed(work: Callable[..., object], calls: Sequence[tuple[Any, ...]]) -> float:
    """µs of processor time a call."""
    began = time.process_time()
    for given in calls:
        work(*given)
    return (time.process_time() - began) / len(calls) * 1e6


def _quartile(values: Sequence[float]) -> float:
    return sorted(values)[len(values) // QUARTILE]
