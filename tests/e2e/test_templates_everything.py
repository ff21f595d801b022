"""Every recorded event in every notice of the library: no provider would refuse one of them.

The judge is not the code that shortens (`templates.limits`) but the field checks of the simulated WeChat, which answer
47003, and what Python's own parsers find in SMS and mail.
"""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Iterator
from itertools import islice
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
"""Every 200th of the 368,068 events; with SWIPEBELL_SOAK=1 each of them (`make soak`)."""

FILES = {"birmingham-2014-2018": 185_908, "sparkov-2023h1": 182_160}
MESSAGE_EVERY = 97
"""A mail is put together and parsed again for so many renderings: it takes twenty times as long as to render it."""

MAX_FAULTS = 20
"""Enough to see what is wrong."""


def events(folder: Path, name: str) -> Iterator[tuple[int, Event]]:
    decode = msgspec.json.Decoder(Event).decode
    with gzip.open(folder / f"{name}.ndjson.gz") as lines:
        for number, line in islice(enumerate(lines), 0, None, EVERY):
            yield number, decode(line)


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
    for number, event in events(shared_data, name):
        step = number // EVERY
        facts = fitted(template, event, step)
        # When every channel renders it in every locale
        for locale in LOCALES:
            try:
                for channel, rendered, found in tell(template, facts, locale):
                    told += 1
                    # Then nothing is refused, and a mail is the same when it is read
                    faults += [f"{event.id} {channel} {locale}: {fault}" for fault in found]
                    if channel == "email" and step % MESSAGE_EVERY == 0:
                        faults += [f"{event.id} mail {locale}: {fault}" for fault in of_message(rendered, locale)]
            except RenderError as error:
                faults.append(f"{event.id} {locale}: {type(error).__name__} {error}")
        if len(faults) > MAX_FAULTS:
            break
    assert not faults, f"{template.pinned}:\n" + "\n".join(faults[:MAX_FAULTS])
    parts = len(template.channels) + template.has_card
    assert told == len(range(0, FILES[name], EVERY)) * len(LOCALES) * parts


@pytest.mark.parametrize("name", FILES)
def test_no_amount_is_ever_cut(shared_data: Path, name: str) -> None:
    """The digits of the event's amount stand whole in every WeChat field that is one."""
    for number, event in events(shared_data, name):
        facts = fitted(TEMPLATES["swipe"], event, number)
        data = json.loads(TEMPLATES["swipe"].render_wechat_json(facts, LOCALES[number % 2]))
        shown = "".join(filter(str.isdigit, data["amount2"]["value"]))
        assert shown == digits_of(facts.event.amount, facts.event.currency), event.id
