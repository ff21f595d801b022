"""A batch of lines is decoded as its lines would be one by one: the fast way through the door opens it no wider."""

from __future__ import annotations

import gzip
import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dispatcher.events import Accepted, Decoded, Rejected, decode_event, decode_lines
from dispatcher.intake.ndjson import MAX_BATCH_LINES

REPEATABLE = settings(derandomize=True, deadline=None, max_examples=400)

SWIPE: dict[str, Any] = {
    "id": "e-1",
    "account": "A-77",
    "pan": "************5770",
    "amount": 7261,
    "currency": "GBP",
    "merchant": "海底捞",
    "time": "2017-01-03T15:27:27+00:00",
}


def line(**changes: Any) -> bytes:
    return json.dumps(SWIPE | changes, ensure_ascii=False, separators=(",", ":")).encode()


ORDINARY = [line(id=f"e-{n}", amount=n) for n in range(6)]
ODD = [
    line(pan="4111111111111111"),
    line(note="call 4111 1111 1111 1111"),
    line(note="４１１１１１１１１１１１１１１１"),
    line(id="00aa1234567890123456"),
    line(id=" "),
    line(currency="XQQ"),
    line(orig_currency="ZZZ", orig_amount=1),
    line(merchant='a "quoted" one'),
    line(merchant="[brackets]"),
    line(merchant="a\nb"),
    line(extra={"id": 1}),
    line(facts={"due_date": "2026-11-25", "minimum_due_minor": 5000}),
    line(facts={"due_date": "2026-11-25", "limit": 1.5}),
    line(facts={"link": "https://x/4111111111111111"}),
    line(extra=[[1]]),
    line(time="2017-01-03T15:27:27"),
    line(time="0001-01-01T00:00:00+00:00"),
    line(amount=1.5),
    line(amount=10**30),
    line()[:-1] + b',"id":"e-2"}',
    line()[:-1] + b',"x":1,"x":2}',
    line()[:-4],
    line() + line(id="e-9"),
    line() + b" " + line(id="e-9"),
    b"\xef\xbb\xbf" + line(),
    line(merchant="x" * 70_000),
    b"[]",
    b"17",
    b"{}",
    b'{"id":"\xff"}',
    b"[" * 2000,
    b'{"a":"b"' * 3,
]


def one_by_one(lines: list[tuple[int, bytes]]) -> Decoded:
    decoded = Decoded([], [], [])
    for number, raw in lines:
        found = decode_event(raw, number)
        if isinstance(found, Rejected):
            decoded.rejected.append(found)
        else:
            decoded.accepted.append(found)
            decoded.numbers.append(number)
    return decoded


@pytest.mark.parametrize("odd", ODD, ids=[str(n) for n in range(len(ODD))])
def test_one_odd_line_among_ordinary_ones_changes_only_itself(odd: bytes) -> None:
    # Given a batch with one line that the fast way cannot prove to be ordinary
    lines = list(enumerate([*ORDINARY[:3], odd, *ORDINARY[3:]], 11))
    # Then what comes out is what the lines give one by one
    assert decode_lines(lines) == one_by_one(lines)
    # And the ordinary ones are in
    assert {one.event.id for one in decode_lines(lines).accepted} >= {f"e-{n}" for n in range(6)}


@given(st.lists(st.sampled_from(ORDINARY + ODD), max_size=8))
@REPEATABLE
def test_any_mixture_gives_what_its_lines_give_one_by_one(raws: list[bytes]) -> None:
    lines = list(enumerate(raws, 1))
    assert decode_lines(lines) == one_by_one(lines)


@given(st.lists(st.binary(max_size=60).map(lambda raw: raw.replace(b"\n", b"")), min_size=1, max_size=5))
@REPEATABLE
def test_whatever_the_bytes_are_nothing_is_raised(raws: list[bytes]) -> None:
    lines = list(enumerate([*raws, ORDINARY[0]], 1))
    assert decode_lines(lines) == one_by_one(lines)


def test_two_names_missing_from_one_line_do_not_hide_two_too_many_in_another() -> None:
    # Given one line that has a name twice, and others with fewer fields
    doubled = line()[:-1] + b',"merchant":"other"}'
    short = json.dumps({name: value for name, value in SWIPE.items() if name != "merchant"}).encode()
    # When they come together
    decoded = decode_lines([(1, short), (2, doubled), (3, short)])
    # Then the doubled one is found
    assert [(one.line, one.field) for one in decoded.rejected] == [(2, "merchant")]


@pytest.mark.parametrize("name", ["sparkov-2023h1.ndjson.gz", "birmingham-2014-2018.ndjson.gz"])
def test_recorded_lines_come_out_as_one_by_one(name: str, shared_data: Path) -> None:
    # Given recorded transactions in the batches in which a file is read
    with gzip.open(shared_data / name) as file:
        raws = [raw.rstrip(b"\n") for raw in itertools.islice(file, 20 * MAX_BATCH_LINES)]
    for start in range(0, len(raws), MAX_BATCH_LINES):
        lines = list(enumerate(raws[start : start + MAX_BATCH_LINES], start + 1))
        assert decode_lines(lines) == one_by_one(lines)
    # And all of them are events
    assert all(isinstance(decode_event(raw, 1), Accepted) for raw in raws)
