"""What happens to an event after the door: a new time, a comparison; and arrays of them before it."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from dispatcher.events import (
    Accepted,
    Rejected,
    UnreadableBody,
    decode_event,
    epoch_ms,
    restamp,
    same_content,
    split_array,
)

SWIPE: dict[str, Any] = {
    "id": "e-1",
    "account": "A-77",
    "pan": "************5770",
    "amount": 7261,
    "currency": "GBP",
    "merchant": "shell kings 587",
    "mcc": None,
    "time": "2017-01-03T15:27:27+00:00",
}


def line_with(**changes: Any) -> bytes:
    return json.dumps(SWIPE | changes, ensure_ascii=False).encode()


def accepted(raw: bytes) -> Accepted:
    answer = decode_event(raw, 1)
    assert isinstance(answer, Accepted), answer
    return answer


def rejected(raw: bytes) -> Rejected:
    answer = decode_event(raw, 7)
    assert isinstance(answer, Rejected), answer
    assert answer.line == 7
    return answer


# -------------------------------------------------------------------------


def test_restamp_changes_the_events_time_and_not_the_payload() -> None:
    before = accepted(line_with())
    now = datetime(2030, 1, 1, tzinfo=UTC)
    (after,) = restamp([before], now)
    assert after.event.time == now
    assert after.event.id == before.event.id
    assert after.payload is before.payload


def test_restamp_makes_no_two_of_a_batch_one_moment() -> None:
    now = datetime(2030, 1, 1, tzinfo=UTC)
    after = restamp([accepted(line_with(id=f"e{n}")) for n in range(3)], now)
    assert [one.event.time for one in after] == [now - timedelta(milliseconds=age) for age in (2, 1, 0)]
    assert [one.swiped_ms for one in after] == [epoch_ms(one.event.time) for one in after]


def test_restamp_wants_a_zone() -> None:
    with pytest.raises(ValueError, match="zone"):
        restamp([accepted(line_with())], datetime(2030, 1, 1))  # noqa: DTZ001


@pytest.mark.parametrize(
    ("changes", "same"),
    [
        ({}, True),
        ({"unknown": 1}, True),
        ({"time": "2017-01-03T23:27:27+08:00"}, True),
        ({"category": "swipe"}, True),
        ({"amount": 7262}, False),
        ({"merchant": "shell"}, False),
    ],
)
def test_contents_are_the_same_if_the_known_fields_are(changes: dict[str, Any], same: bool) -> None:
    a, b = accepted(line_with()).payload, accepted(line_with(**changes)).payload
    assert same_content(a, b) is same
    assert same_content(b, a) is same


def test_a_payload_that_no_longer_decodes_is_the_same_only_byte_by_byte() -> None:
    assert same_content(b"{}", b"{}")
    assert not same_content(b"{}", line_with())


def test_an_array_is_split_into_its_items() -> None:
    body = b"\xef\xbb\xbf [" + line_with() + b" , 5, [1],\n" + line_with(id="e-2") + b"]\n"
    items = list(split_array(body))
    assert [type(decode_event(item, i)).__name__ for i, item in enumerate(items, 1)] == [
        "Accepted",
        "Rejected",
        "Rejected",
        "Accepted",
    ]
    assert items[0] == line_with()


def test_a_bad_item_spoils_only_itself() -> None:
    bad = line_with(merchant="@").replace(b"@", b"\xff")
    items = list(split_array(b"[" + bad + b"," + line_with() + b"]"))
    assert rejected(items[0]).error == "not UTF-8"
    assert accepted(items[1])


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"", "the body is not valid JSON"),
        (b"[1,2", "the body is not valid JSON"),
        (b"[1] x", "the body is not valid JSON"),
        (b"nonsense", "the body is not valid JSON"),
        (b'{"id":"4111111111111111"}', "the body is not a JSON array"),
        (b'"x"', "the body is not a JSON array"),
        (b"[" * 10_000 + b"]" * 10_000, "the body is nested deeper than 16 levels"),
    ],
)
def test_a_body_that_is_no_array_is_unreadable(body: bytes, error: str) -> None:
    with pytest.raises(UnreadableBody) as caught:
        split_array(body)
    assert str(caught.value) == error


def test_a_flat_array_of_thousands_is_not_deep() -> None:
    assert len(list(split_array(b"[" + b",".join([b"[]"] * 5000) + b"]"))) == 5000
