"""Which word of a recipient counts: the narrowest, unless a wider one was taken back later."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.model.recipient import Consent
from ratelimit.consent import consent_key, consent_of


def yes(at: int) -> Consent:
    return Consent(True, at, f"form {at}")


def no(at: int) -> Consent:
    return Consent(False, at, f"call {at}")


@pytest.mark.parametrize(
    ("said", "asked", "counts"),
    [
        # Given nothing said, or said of something else, then nothing counts
        ({}, ("promotion", "sms", "sale"), None),
        ({"service": yes(1), "promotion/wechat": no(2)}, ("promotion", "sms", "sale"), None),
        # Given a word about the category, then it counts for every channel and template of it
        ({"promotion": yes(1)}, ("promotion", "sms", "sale"), yes(1)),
        ({"promotion": yes(1)}, ("promotion", None, None), yes(1)),
        # Given a narrower word, then that counts where it is about, and nowhere else
        ({"promotion": yes(1), "promotion/sms": no(2)}, ("promotion", "sms", None), no(2)),
        ({"promotion": yes(1), "promotion/sms": no(2)}, ("promotion", "wechat", None), yes(1)),
        ({"promotion": yes(1), "promotion/sms": no(2)}, ("promotion", None, None), yes(1)),
        ({"promotion/sms": no(1), "promotion/sms/sale": yes(2)}, ("promotion", "sms", "sale"), yes(2)),
        ({"promotion/sms": no(1), "promotion/sms/sale": yes(2)}, ("promotion", "sms", "gift"), no(1)),
        # Given a narrow no and a later wide yes, then the no stays
        ({"promotion": yes(2), "promotion/sms": no(1)}, ("promotion", "sms", None), no(1)),
        # Given a narrow yes and a later wide no, then the no ends it; an earlier one does not
        ({"promotion": no(2), "promotion/sms": yes(1)}, ("promotion", "sms", None), no(2)),
        ({"promotion": no(1), "promotion/sms": yes(2)}, ("promotion", "sms", None), yes(2)),
        (
            {"promotion": no(3), "promotion/sms": yes(1), "promotion/sms/sale": yes(2)},
            ("promotion", "sms", "sale"),
            no(3),
        ),
        ({"promotion": no(2), "promotion/sms/sale": yes(2)}, ("promotion", "sms", "sale"), no(2)),
        # Given a category that is written like another one's channel, then it reads nothing of that
        ({"promotion/sms": yes(1)}, ("promotion/sms", None, None), None),
    ],
)
def test_the_narrowest_word_counts_unless_a_wider_one_was_taken_back(
    said: dict[str, Consent], asked: tuple[str, str | None, str | None], counts: Consent | None
) -> None:
    assert consent_of(said, *asked) == counts


def test_a_key_says_what_a_word_is_about() -> None:
    assert consent_key("promotion") == "promotion"
    assert consent_key("promotion", "sms") == "promotion/sms"
    assert consent_key("promotion", "sms", "sale") == "promotion/sms/sale"


WORDS = st.builds(Consent, st.booleans(), st.integers(0, 3), st.sampled_from(["form", "call"]))


@given(WORDS, WORDS, WORDS)
def test_of_two_words_one_holds_whichever_is_heard_first(a: Consent, b: Consent, c: Consent) -> None:
    # Exactly one holds, unless both are the same; and never one after the other in a circle
    assert a.outweighs(b) + b.outweighs(a) == (a != b)
    assert not (a.outweighs(b) and b.outweighs(c)) or a.outweighs(c)
    # Of two at one moment it is the no
    if a.at == b.at and a.given and not b.given:
        assert b.outweighs(a)
