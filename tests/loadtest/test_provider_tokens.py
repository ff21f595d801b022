"""Tokens of the simulated platform: overlap, forced refresh and the two independent credentials."""

from loadtest.providers.quota import Bucket, Clearings, Daily
from loadtest.providers.tokens import MAX_REMEMBERED_TOKENS, Tokens


def test_the_stable_token_stays_until_its_last_five_minutes() -> None:
    tokens = Tokens(7200)
    first, lives = tokens.stable(0.0)
    assert lives == 7200
    assert tokens.stable(6899.0) == (first, 301)
    # When the last five minutes begin, then a new one is issued and both work until the old one expires.
    second, lives = tokens.stable(6900.0)
    assert second != first
    assert lives == 7200
    assert tokens.verdict(first, 7199.0) == 0
    assert tokens.verdict(second, 7199.0) == 0
    assert tokens.verdict(first, 7200.0) == 42001
    assert tokens.verdict(second, 7200.0) == 0


def test_a_forced_refresh_kills_the_old_token_but_not_twice_in_thirty_seconds() -> None:
    tokens = Tokens(7200)
    first, _ = tokens.stable(0.0)
    second, _ = tokens.stable(10.0, force_refresh=True)
    assert tokens.verdict(first, 10.0) == 40001
    assert tokens.verdict(second, 10.0) == 0
    assert tokens.stable(39.0, force_refresh=True)[0] == second
    assert tokens.stable(40.0, force_refresh=True)[0] != second
    assert tokens.verdict(second, 40.0) == 40001


def test_the_classic_token_is_new_each_time_and_the_one_before_lives_five_minutes() -> None:
    tokens = Tokens(7200)
    stable, _ = tokens.stable(0.0)
    first, lives = tokens.classic(0.0)
    second, _ = tokens.classic(100.0)
    assert lives == 7200
    assert tokens.verdict(first, 399.0) == 0
    assert tokens.verdict(first, 400.0) == 42001
    assert tokens.verdict(second, 400.0) == 0
    assert tokens.verdict(stable, 400.0) == 0


def test_a_token_that_never_was_is_told_from_one_that_cannot_be() -> None:
    tokens = Tokens(7200)
    assert tokens.verdict("", 0.0) == 41001
    assert tokens.verdict("short", 0.0) == 40014
    assert tokens.verdict("x" * 136, 0.0) == 40001


def test_expiring_all_tokens_lets_the_next_fetch_succeed() -> None:
    tokens = Tokens(7200)
    first, _ = tokens.stable(0.0)
    classic, _ = tokens.classic(0.0)
    tokens.expire_all(1.0)
    assert tokens.verdict(first, 1.0) == tokens.verdict(classic, 1.0) == 42001
    second, lives = tokens.stable(1.0)
    assert (tokens.verdict(second, 1.0), lives) == (0, 7200)


def test_a_short_lifetime_still_has_most_of_it_without_overlap() -> None:
    tokens = Tokens(10)
    first, _ = tokens.stable(0.0)
    assert tokens.stable(4.0)[0] == first
    assert tokens.stable(5.0)[0] != first


def test_old_tokens_are_forgotten_at_a_bound() -> None:
    tokens = Tokens(7200)
    first, _ = tokens.classic(0.0)
    for _ in range(MAX_REMEMBERED_TOKENS):
        tokens.classic(0.0)
    assert tokens.verdict(first, 1.0) == 40001


def test_a_bucket_holds_one_second_of_its_rate() -> None:
    bucket = Bucket(3.0)
    assert [bucket.take(0.0) for _ in range(4)] == [True, True, True, False]
    assert bucket.take(0.34)
    assert not bucket.take(0.34)
    assert [bucket.take(100.0) for _ in range(4)] == [True, True, True, False]
    assert all(Bucket(0.0).take(0.0) for _ in range(1000))


def test_a_day_ends_at_midnight_in_china() -> None:
    # Given 2026-11-22 23:59:59 in China, when the quota is used up, then it is back one second later.
    before_midnight = 1795363199.0
    daily = Daily(2)
    assert [daily.take(before_midnight) for _ in range(3)] == [True, True, False]
    assert daily.used(before_midnight) == 2
    assert daily.take(before_midnight + 1.0)
    assert daily.used(before_midnight + 1.0) == 1


def test_quotas_can_be_cleared_ten_times_a_month() -> None:
    clearings = Clearings()
    assert [clearings.take(0.0) for _ in range(11)] == [True] * 10 + [False]
    assert clearings.take(40 * 86400.0)
