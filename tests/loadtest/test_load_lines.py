"""The lines that a load test sends: valid events, alerts' own keys, the same accounts as were imported."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from dispatcher.errors import ConfigurationError, InputError
from dispatcher.events import Accepted, decode_event
from dispatcher.model.alert import Alert
from dispatcher.model.recipient import Recipient
from loadtest.load.lines import Accounts, SwipeLines, drawn_accounts
from loadtest.load.plan import plan_recording
from loadtest.load.recorded import RecordedLines, scan

EPOCH = 1_790_000_000.0


def accepted(line: bytes) -> Accepted:
    answer = decode_event(line, 1)
    assert isinstance(answer, Accepted), answer
    return answer


def key_of(event: Accepted) -> str:
    recipient = Recipient(id=1, account=event.event.account)
    return Alert(1, event.event, recipient, ("wechat",), 0, 0, "swipe@1", None).key


class TestInvented:
    def test_each_is_an_event_at_its_scheduled_time_with_the_key_of_its_alert(self) -> None:
        times = [0.0, 0.001, 0.9994, 59.5]
        lines = SwipeLines(seed=5, accounts=1000, run="abc")
        body, keys = lines.build(0, times, EPOCH)
        events = [accepted(line) for line in body.splitlines()]
        assert [event.event.time.timestamp() - EPOCH for event in events] == pytest.approx(times, abs=0.0011)
        assert keys == [key_of(event) for event in events]
        assert [event.event.id for event in events] == [lines.event_id(number) for number in range(4)]
        # Nothing in them looks like a card number: they are stored as they were sent
        assert all(event.payload == line for event, line in zip(events, body.splitlines(), strict=True))

    def test_how_they_are_cut_into_batches_changes_nothing(self) -> None:
        times = [number / 100 for number in range(50)]
        whole, keys = SwipeLines(seed=1, accounts=99, run="r").build(0, times, EPOCH)
        again = SwipeLines(seed=1, accounts=99, run="r")
        parts = [again.build(start, times[start : start + 7], EPOCH) for start in range(0, 50, 7)]
        assert b"".join(body for body, _ in parts) == whole
        assert [key for _, found in parts for key in found] == keys

    def test_the_accounts_that_are_imported_are_those_that_swipe(self) -> None:
        body, _ = SwipeLines(seed=3, accounts=10_000_000, run="r").build(0, [0.0] * 500, EPOCH)
        swiped = {json.loads(line)["account"] for line in body.splitlines()}
        assert set(drawn_accounts(3, 10_000_000, 500)) == swiped
        assert swiped < set(drawn_accounts(3, 10_000_000, 600))

    def test_swipes_follow_zipf(self) -> None:
        # Given a million draws among 10,000 accounts with the weights 1/sqrt(rank)
        accounts = Accounts(1, 10_000)
        drawn = Counter(accounts.draw() for _ in range(1_000_000))
        # Then the first hundred have a tenth of them (the integral of 1/sqrt up to 1 %), the first quarter a half
        assert sum(drawn[rank] for rank in range(100)) == pytest.approx(100_000, rel=0.02)
        assert sum(drawn[rank] for rank in range(2500)) == pytest.approx(500_000, rel=0.01)
        assert max(drawn) < 10_000


def write(path: Path, *events: Any) -> str:
    path.write_bytes(b"".join(one if isinstance(one, bytes) else json.dumps(one).encode() + b"\n" for one in events))
    return str(path)


def event(number: int, second: int, **changes: Any) -> dict[str, Any]:
    return {
        "id": f"r{number}",
        "account": f"A{number % 3}",
        "amount": 100,
        "currency": "CNY",
        "time": f"2020-01-01T00:00:{second:02}Z",
        "extra": {"kept": [1, "ä"]},
        **changes,
    }


class TestRecorded:
    def test_a_file_is_known_by_its_times_accounts_and_broken_lines(self, tmp_path: Path) -> None:
        path = write(tmp_path / "e", event(0, 5), b"no json\n", b"\n", event(1, 2), {"id": "x"}, event(2, 9))
        found = scan(path, 1000)
        assert [datetime.fromtimestamp(at, UTC).second for at in found.times] == [2, 5, 9]
        assert list(found.lines) == [1, 4, 6]
        assert list(found.accounts) == ["A0", "A1", "A2"]
        assert (found.broken, [one.line for one in found.shown]) == (2, [2, 5])
        assert list(found.offsets(2.0)) == [0.0, 1.5, 3.5]

    def test_it_is_played_with_the_time_at_which_each_event_is_due_and_nothing_else_changed(
        self, tmp_path: Path
    ) -> None:
        path = tmp_path / "e.gz"
        path.write_bytes(gzip.compress(Path(write(tmp_path / "e", event(0, 5), b"broken\n", event(1, 6))).read_bytes()))
        lines = RecordedLines(scan(str(path), 1000))
        body, keys = lines.build(0, [0.25], EPOCH)
        more, more_keys = lines.build(1, [1.5], EPOCH)
        lines.close()
        events = [accepted(line) for line in (body + more).splitlines()]
        assert [one.event.time.timestamp() - EPOCH for one in events] == [0.25, 1.5]
        assert keys + more_keys == [key_of(one) for one in events]
        assert [json.loads(one.payload)["extra"] for one in events] == [{"kept": [1, "ä"]}] * 2
        assert [lines.event_id(number) for number in range(2)] == ["r0", "r1"]

    def test_a_line_that_comes_twice_is_the_same_event_again(self, tmp_path: Path) -> None:
        path = write(tmp_path / "e", event(0, 5), event(1, 6), event(0, 5))
        lines = RecordedLines(scan(path, 1000))
        body, keys = lines.build(0, [0.0, 1.0, 2.0], EPOCH)
        lines.close()
        first, _, again = body.splitlines()
        assert first == again
        assert keys[2] == ""  # its alert is the first one's

    def test_no_more_than_a_run_can_hold_is_read(self, tmp_path: Path) -> None:
        found = scan(write(tmp_path / "e", *(event(number, number % 60) for number in range(1000))), 10)
        assert (len(found.times), len(found.lines)) == (10, 10)

    def test_at_its_own_times_it_lasts_as_long_as_they_do(self, tmp_path: Path) -> None:
        recording = scan(write(tmp_path / "e", event(0, 0), event(1, 10), event(2, 40)), 1000)
        load = plan_recording(recording, None, None, 10.0)
        assert list(load.times(1)) == [0.0, 1.0, 4.0]
        assert load.seconds == pytest.approx(4.0)
        short = plan_recording(recording, None, 2.0, 10.0)
        assert list(short.times(1)) == [0.0, 1.0]

    def test_at_a_rate_the_end_of_the_file_is_the_end(self, tmp_path: Path) -> None:
        recording = scan(write(tmp_path / "e", *(event(number, 0) for number in range(100))), 1000)
        times = list(plan_recording(recording, "50", None, 1.0).times(1))
        assert len(times) == 100
        assert 1.0 < times[-1] < 4.0

    def test_years_at_their_own_pace_are_refused_with_the_speedup_that_would_do(self, tmp_path: Path) -> None:
        recording = scan(write(tmp_path / "e", event(0, 0), event(1, 0, time="2021-01-01T00:00:00Z")), 1000)
        with pytest.raises(ConfigurationError, match="give a --speedup of 527,040"):
            plan_recording(recording, None, None, 1.0)

    @pytest.mark.parametrize(
        ("content", "words"), [(b"", "it is empty"), (b"x\n{}\n", "2 lines are broken, the first is line 1: not JSON")]
    )
    def test_a_file_without_an_event_is_one_line(self, tmp_path: Path, content: bytes, words: str) -> None:
        with pytest.raises(InputError, match=words):
            scan(write(tmp_path / "e", content), 10)

    def test_real_data_is_played_whole(self, shared_data: Path) -> None:
        recording = scan(str(shared_data / "birmingham-2014-2018.ndjson.gz"), 2_000)
        lines = RecordedLines(recording)
        body, keys = lines.build(0, [0.0] * 2_000, EPOCH)
        lines.close()
        events = [accepted(line) for line in body.splitlines()]
        assert {key_of(one) for one in events} == set(filter(None, keys))
