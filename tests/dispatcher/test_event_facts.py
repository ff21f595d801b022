"""What a notice tells besides comes through the door in ``facts``: small, plain and without card numbers."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from dispatcher.events import Accepted, Rejected, decode_event, same_content
from dispatcher.model.event import MAX_FACT_CHARS, MAX_FACTS, Event

NOTICE: dict[str, Any] = {
    "id": "s-1",
    "account": "A-77",
    "amount": 0,
    "currency": "CNY",
    "time": "2026-11-05T02:00:00+00:00",
    "type": "statement",
    "category": "statement",
}

STATEMENT = {"period": "2026-10", "statement_amount_minor": 456_789, "due_date": "2026-11-25", "title": "您的账单"}


def line(facts: Any) -> bytes:
    return json.dumps(NOTICE | {"facts": facts}, ensure_ascii=False).encode()


@pytest.mark.parametrize(
    "facts",
    [
        STATEMENT,
        {},
        None,
        {"a" * 40: -(2**63), "b_": 2**63 - 1},
        {"text": "中" * MAX_FACT_CHARS},
        {chr(ord("a") + number): number for number in range(MAX_FACTS)},
    ],
)
def test_facts_are_kept_and_come_back_from_what_is_stored(facts: dict[str, Any] | None) -> None:
    # Given an event with facts
    found = decode_event(line(facts), 1)
    assert isinstance(found, Accepted)
    assert found.event.facts == facts
    # When a retry reads what was stored
    again = msgspec.json.decode(found.payload, type=Event)
    # Then nothing of it is lost
    assert again == found.event


@pytest.mark.parametrize(
    ("facts", "error"),
    [
        ("due soon", "field facts: expected an object or null, got string"),
        ([], "field facts: expected an object or null, got array"),
        ({"due_date": None}, "field facts: due_date: expected a string or an integer, got null"),
        ({"points": 1.5}, "field facts: points: expected a string or an integer, got float"),
        ({"points": True}, "field facts: points: expected a string or an integer, got true"),
        ({"more": {"points": 1}}, "field facts: more: expected a string or an integer, got object"),
        ({"points": 2**63}, "field facts: points: expected an integer, got one beyond 64 bits"),
        ({"text": "x" * (MAX_FACT_CHARS + 1)}, f"field facts: text is longer than {MAX_FACT_CHARS} characters"),
        ({"Text": "x"}, "field facts: has a name that is not 1 to 40 of the characters a-z and _"),
        ({"": "x"}, "field facts: has a name that is not 1 to 40 of the characters a-z and _"),
        ({"a" * 41: "x"}, "field facts: has a name that is not 1 to 40 of the characters a-z and _"),
        ({"a" * number: 1 for number in range(1, MAX_FACTS + 2)}, f"field facts: has more than {MAX_FACTS} entries"),
        ({"text": "a\r\nb"}, "field facts.text: contains NUL, CR or LF"),
    ],
)
def test_facts_that_are_not_small_and_plain_are_refused(facts: Any, error: str) -> None:
    found = decode_event(line(facts), 7)
    assert isinstance(found, Rejected)
    assert (found.id, found.error) == ("s-1", error)


def test_the_same_fact_twice_is_refused() -> None:
    raw = line({"points": 1}).replace(b'{"points": 1}', b'{"points": 1, "points": 2}')
    found = decode_event(raw, 1)
    assert isinstance(found, Rejected)
    assert found.error == "field points: appears more than once"


@pytest.mark.parametrize("number", ["4111111111111111", 4111111111111111, "4111 1111 1111 1111"])
def test_a_card_number_in_a_fact_is_masked_before_it_is_stored(number: str | int) -> None:
    found = decode_event(line({"text": number, "points": 5}), 1)
    assert isinstance(found, Accepted)
    assert found.event.facts is not None
    assert str(found.event.facts["text"]).replace(" ", "") == "************1111"
    assert found.event.facts["points"] == 5
    assert b"4111" not in found.payload


def test_an_event_that_comes_again_with_other_facts_is_another() -> None:
    first, again, other = (line(STATEMENT | changed) for changed in ({}, {}, {"due_date": "2026-11-26"}))
    assert same_content(first, again)
    assert not same_content(first, other)


def test_facts_are_not_in_an_event_s_repr() -> None:
    found = decode_event(line(STATEMENT), 1)
    assert isinstance(found, Accepted)
    assert "456789" not in repr(found) + repr(found.event)


@pytest.mark.parametrize("stored", ["due soon", ["a"], {"Due": {"date": 1}}, {"due_date": None, "points": 1.5}, 7])
def test_an_event_stored_before_facts_were_known_is_still_read(stored: Any) -> None:
    # Given a payload from a time when facts was any field of the core system's own
    event = msgspec.json.decode(line(stored), type=Event)
    # Then it is an event as before, which tells no facts
    assert event.id == "s-1"
    assert (event.fact("due_date"), event.fact("points")) == (None, None)
