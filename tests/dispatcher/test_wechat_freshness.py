"""Which callbacks are new, told again, stale or replayed."""

from __future__ import annotations

import pytest

from dispatcher.channels.wechat import freshness
from dispatcher.channels.wechat.freshness import MAX_AGE_S, Freshness, Verdict, is_fresh

NOW = 1_714_037_059


@pytest.mark.parametrize(
    ("timestamp", "fresh"),
    [
        (str(NOW), True),
        (str(NOW - MAX_AGE_S), True),
        (str(NOW + MAX_AGE_S), True),
        (str(NOW - MAX_AGE_S - 1), False),
        (str(NOW + MAX_AGE_S + 1), False),
        ("", False),
        ("-1", False),
        ("x", False),
        (f"{NOW}.0", False),
        ("١٧١٤٠٣٧٠٥٩", False),
        ("9" * 5000, False),
    ],
)
def test_a_timestamp_is_fresh_for_five_minutes_either_way(timestamp: str, fresh: bool) -> None:
    assert is_fresh(timestamp, NOW) is fresh
    assert (Freshness().look(timestamp, "n", b"x", NOW) is Verdict.NEW) is fresh


def test_a_retry_is_taken_until_the_first_is_durable_and_then_thanked_for() -> None:
    # Given a callback whose answer was lost
    memory = Freshness()
    stamp = str(NOW)
    assert memory.look(stamp, "n", b"body", NOW) is Verdict.NEW
    # When the provider tells it again with the same nonce before it is kept, then it is taken
    assert memory.look(stamp, "n", b"body", NOW) is Verdict.NEW
    # And once it is durable, it is thanked for without effect
    memory.durable(stamp, "n", b"body")
    assert memory.look(stamp, "n", b"body", NOW + 10) is Verdict.AGAIN
    # And with a new nonce or time it is a new one, which the ledger recognises
    assert memory.look(stamp, "m", b"body", NOW) is Verdict.NEW
    assert memory.look(str(NOW + 5), "n", b"body", NOW + 5) is Verdict.NEW


def test_another_body_under_a_known_nonce_is_a_replay() -> None:
    memory = Freshness()
    for durable in (False, True):
        memory.look(str(NOW), "n", b"body", NOW)
        assert memory.look(str(NOW), "n", b"forged", NOW) is Verdict.REPLAYED, durable
        memory.durable(str(NOW), "n", b"body")


def test_a_recording_is_stale_when_its_nonce_may_be_forgotten() -> None:
    memory = Freshness()
    memory.look(str(NOW), "n", b"body", NOW)
    assert memory.look(str(NOW), "n", b"body", NOW + MAX_AGE_S + 1) is Verdict.STALE


def test_the_memory_is_bounded_and_forgets_the_oldest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(freshness, "MAX_NONCES", 4)
    memory = Freshness()
    for number in range(100):
        memory.look(str(NOW), str(number), b"a", NOW)
    assert len(memory._young) + len(memory._old) <= 8
    assert memory.look(str(NOW), "99", b"b", NOW) is Verdict.REPLAYED
    assert memory.look(str(NOW), "0", b"b", NOW) is Verdict.NEW
