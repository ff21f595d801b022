"""Every recorded event in every notice of the library: no provider would refuse one of them.

The judge is not the code that shortens (`templates.limits`) but the field checks of the simulated WeChat, which answer
47003, and what Python's own parsers find in SMS and mail.
"""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import msgspec
import pytest

from dispatcher.model.currency import exponent
from dispatcher.model.event import Event
from templates.errors import RenderError
from tests.templates.library_kit import LOCALES, TEMPLATES, fitted, tell
from tests.templates.second_opinion import of_message

SOAK = bool(os.environ.get("SWIPEBELL_SOAK"))
EVERY = 1 if SOAK else 200
"""Every 200th of the 368,068 events, in the two locales in turn; with SWIPEBELL_SOAK=1 (`make soak`) each in both."""

FILES = {"birmingham-2014-2018": 185_908, "sparkov-2023h1": 182_160}
MESSAGE_EVERY = 97
"""A mail is put together and parsed again for so many renderings: it takes twenty times as long as to render it."""

MAX_FAULTS = 20
"""Enough to see what is wrong."""


def events(folder: Path, name: str) -> Iterator[Event]:
    decode = msgspec.json.Decoder(Event).decode
    with gzip.open(folder / f"{name}.ndjson.gz") as lines:
        for number, line in enumerate(lines):
            if number % EVERY == 0:
                yield decode(line)


sample = cache(lambda folder, name: list(events(folder, name)))
"""The same as a list, read once for all templates; not for a soak, whose events would take 200 MB."""


def digits_of(amount: int, currency: str) -> str:
    """An amount as its digits alone, whatever separates them."""
    return f"{abs(amount):0{exponent(currency) + 1}}"


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("template_id", TEMPLATES)
def test_no_provider_would_refuse_a_recorded_event(shared_data: Path, template_id: str, name: str) -> None:
    # Given a template and the events, each as one that it tells
    template = TEMPLATES[template_id]
    faults: list[str] = []
    told = 0
    for number, event in enumerate((events if SOAK else sample)(shared_data, name)):
        facts = fitted(template, event, number)
        # When every channel renders it
        for locale in LOCALES if SOAK else LOCALES[number % 2 :][:1]:
            try:
                for channel, rendered, found in tell(template, facts, locale):
                    told += 1
                    # Then nothing is refused, and a mail is the same when it is read
                    faults += [f"{event.id} {channel} {locale}: {fault}" for fault in found]
                    if channel == "email" and number % MESSAGE_EVERY == 0:
                        faults += [f"{event.id} mail {locale}: {fault}" for fault in of_message(rendered, locale)]
            except RenderError as error:
                faults.append(f"{event.id} {locale}: {type(error).__name__} {error}")
        if len(faults) > MAX_FAULTS:
            break
    assert not faults, f"{template.pinned}:\n" + "\n".join(faults[:MAX_FAULTS])
    parts = len(template.channels) + template.has_card
    assert told == len(range(0, FILES[name], EVERY)) * parts * (len(LOCALES) if SOAK else 1)


@pytest.mark.parametrize("name", FILES)
def test_no_amount_is_ever_cut(shared_data: Path, name: str) -> None:
    """The digits of the event's amount stand whole in the WeChat field for it."""
    for number, event in enumerate((events if SOAK else sample)(shared_data, name)):
        facts = fitted(TEMPLATES["swipe"], event, number)
        data = json.loads(TEMPLATES["swipe"].render_wechat_json(facts, LOCALES[number % 2]))
        shown = "".join(filter(str.isdigit, data["amount2"]["value"]))
        assert shown == digits_of(facts.event.amount, facts.event.currency), event.id
