"""No full card number gets past the door, and nothing that is none is touched."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dispatcher.cards import passes_luhn
from dispatcher.events import (
    Accepted,
    decode_event,
)

# The machine may be busy, and a failure must come again.
REPEATABLE = settings(derandomize=True, deadline=None)

SHARED = Path(os.environ.get("SWIPEBELL_SHARED", Path(__file__).parents[2].parent / "shared"))
VISA = "4111111111111111"
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


# -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "field", "masked"),
    [
        ({"pan": VISA}, "pan", "************1111"),
        ({"pan": "4111 1111 1111 1111"}, "pan", "**** **** **** 1111"),
        ({"pan": "123456789012"}, "pan", "********9012"),
        ({"pan": "1234567890123", "id": "e-1", "city": None}, "pan", "*********0123"),
        ({"pan": VISA, "id": "e4be9b2d1385132500000fed"}, "pan", "************1111"),
        ({"pan": VISA, "note": "back\\slash"}, "pan", "************1111"),
        ({"merchant": f"card {VISA}"}, "merchant", "card ************1111"),
        ({"city": "４１１１１１１１１１１１１１１１"}, "city", "************１１１１"),
        ({"status": f"declined: {VISA}"}, "status", "declined: ************1111"),
    ],
)
def test_a_full_card_number_is_masked_in_event_and_payload_and_accepted(
    changes: dict[str, Any], field: str, masked: str
) -> None:
    answer = accepted(line_with(**changes))
    assert getattr(answer.event, field) == masked
    assert json.loads(answer.payload) == SWIPE | changes | {field: masked}


def test_a_masked_pan_and_the_keys_are_never_altered() -> None:
    for changes in (
        {"pan": "622848******1234"},
        {"id": VISA},
        {"account": VISA},
        {"refers_to": VISA},
        {"amount": int(VISA)},
        {"id": VISA, "account": VISA},
    ):
        line = line_with(**changes)
        assert accepted(line).payload is line


@pytest.mark.parametrize(
    ("merchant", "masked"),
    [
        (VISA, "************1111"),
        (f"x{VISA}", "x************1111"),
        ("5105105105105100", "************5100"),
        ("４１１１ １１１１ １１１１ １１１１", "**** **** **** １１１１"),
    ],
)
def test_a_second_number_beside_a_full_pan_is_masked_too(merchant: str, masked: str) -> None:
    answer = accepted(line_with(pan=VISA, merchant=merchant))
    assert answer.event.pan == "************1111"
    assert answer.event.merchant == masked
    assert json.loads(answer.payload)["merchant"] == masked


def test_an_id_repeated_in_a_merchant_is_masked_there() -> None:
    answer = accepted(line_with(id=VISA, merchant=VISA))
    assert answer.event.id == VISA
    assert answer.event.merchant == "************1111"


def test_an_integer_in_an_unknown_field_becomes_a_masked_string() -> None:
    payload = json.loads(accepted(line_with(card=int(VISA), deep=[{"n": int(VISA)}])).payload)
    assert payload["card"] == "************1111"
    assert payload["deep"] == [{"n": "************1111"}]


def card_number(body: str) -> str:
    return next(body + digit for digit in "0123456789" if passes_luhn(body + digit))


@REPEATABLE
@given(
    number=st.builds(
        lambda first, rest: card_number(first + rest),
        st.sampled_from("234569"),
        st.text("0123456789", min_size=11, max_size=17),
    ),
    place=st.sampled_from(["pan", "merchant", "city", "type", "mcc", "currency", "time", "unknown", "deep", "number"]),
    around=st.sampled_from([("", ""), ("card ", " x"), ("店", "店"), ("12 ", " 34"), ('"', '"'), ("\\", "\\")]),
    escaped=st.booleans(),
    broken=st.booleans(),
)
def test_a_full_card_number_never_gets_past_the_door(
    number: str, place: str, around: tuple[str, str], escaped: bool, broken: bool
) -> None:
    # Given a card number somewhere in a line, plain or escaped, that may be refused for something else
    text = around[0] + number + around[1]
    value: Any = {"deep": {"a": ["b", {"c": text}], number: 1}, "number": int(number)}.get(place, text)
    line = line_with(**{place: value}, **({"amount": 1.5} if broken else {}))
    if escaped:
        written_out = "".join(f"\\u{ord(digit):04x}" for digit in number[:6])
        line = line.replace(number[:6].encode(), written_out.encode())
    # When it is decoded
    answer = decode_event(line, 1)
    # Then what leaves the door does not hold the number
    if isinstance(answer, Accepted):
        seen = answer.payload.decode() + json.dumps(json.loads(answer.payload), ensure_ascii=False)
        seen += str(msgspec.to_builtins(answer.event))
    else:
        seen = f"{answer.error} {answer.field} {answer.id}"
    assert number not in seen


# ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "rows"), [("birmingham-2014-2018.ndjson.gz", 185_908), ("sparkov-2023h1.ndjson.gz", 182_160)]
)
def test_recorded_swipes_pass_untouched(name: str, rows: int) -> None:
    path = SHARED / "data" / name
    if not path.exists():
        pytest.skip(f"{name} is not in the shared folder")
    count = 0
    with gzip.open(path) as lines:
        for line in lines:
            line = line.rstrip(b"\n")
            answer = decode_event(line, 1)
            assert isinstance(answer, Accepted)
            assert answer.payload is line
            count += 1
    assert count == rows
