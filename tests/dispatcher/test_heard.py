"""What follows from what WeChat users did: in any order, any number of times, the same recipient."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.model.heard import WINDOW_MS, Heard, Kind, after_hearing
from dispatcher.model.recipient import Recipient, Refusal

T = 1_704_103_200_000
HOUR_MS = 3_600_000
OPENID = "oA-secret"
TO = Recipient(7, "A-1", openid=OPENID)

KINDS: list[Kind] = ["follow", "scan", "unfollow", "message", "tap"]
facts = st.lists(
    st.builds(Heard, st.just(OPENID), st.sampled_from(KINDS), st.integers(0, 6).map(lambda second: T + second * 1000)),
    max_size=8,
)


@pytest.mark.parametrize(
    ("kind", "window_ms"),
    [("message", 48 * HOUR_MS), ("tap", 60_000), ("follow", 60_000), ("scan", 60_000), ("unfollow", 0)],
)
def test_the_window_that_each_deed_opens(kind: Kind, window_ms: int) -> None:
    after = after_hearing(TO, [Heard(OPENID, kind, T)])
    assert after.service_until_ms == (T + window_ms if window_ms else 0)
    assert ("wechat" in after.refused) is (kind == "unfollow")
    assert window_ms == WINDOW_MS[kind]


def test_an_old_unfollow_does_not_win_over_a_newer_follow() -> None:
    after = after_hearing(TO, [Heard(OPENID, "follow", T + 1000)])
    assert after_hearing(after, [Heard(OPENID, "unfollow", T)]) is after
    gone = after_hearing(after, [Heard(OPENID, "unfollow", T + 2000)])
    assert gone.refused["wechat"] == Refusal("unsubscribe", T + 2000)


def test_a_follow_opens_what_an_answer_closed_and_leaves_what_the_cardholder_refused() -> None:
    closed = Recipient(
        7,
        "A-1",
        openid=OPENID,
        refused={"wechat": Refusal("43004", T + 400), "wechat/swipe": Refusal("43101", T), "sms": Refusal("3", T)},
    )
    # Also when the answer came in the same second, and not when it came later
    assert set(after_hearing(closed, [Heard(OPENID, "follow", T)]).refused) == {"wechat/swipe", "sms"}
    assert "wechat" in after_hearing(closed, [Heard(OPENID, "follow", T - 1000)]).refused


@given(facts, st.data())
def test_any_order_and_any_repetition_give_the_same(heard: list[Heard], data: st.DataObject) -> None:
    # Given the facts as they happened
    once = _one_by_one(TO, heard)
    # When they come in another order, some again, in batches or one by one
    again = data.draw(
        st.permutations(heard + data.draw(st.lists(st.sampled_from(heard), max_size=3) if heard else st.just([])))
    )
    assert _one_by_one(TO, again) == once
    assert after_hearing(TO, again) == once
    assert after_hearing(once, again) is once
    # Then the last follow or unfollow decides, and of one second the follow
    ends = [(fact.at_ms, fact.kind == "follow") for fact in heard if fact.kind in ("follow", "unfollow")]
    assert ("wechat" in once.refused) is (bool(ends) and not max(ends)[1])


def test_a_fact_shows_no_openid() -> None:
    assert OPENID not in repr(Heard(OPENID, "follow", T))


def _one_by_one(to: Recipient, heard: Sequence[Heard]) -> Recipient:
    for fact in heard:
        to = after_hearing(to, [fact])
    return to
