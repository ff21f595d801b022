"""Lines about consent: each is a word for the ledger or a refusal that repeats no value."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dispatcher.consents import MAX_AHEAD_MS, DecodedConsent, decode_consent, is_key
from dispatcher.events import Rejected
from dispatcher.model.consent import ConsentChange
from dispatcher.model.recipient import MAX_CONSENTS, MAX_SOURCE_CHARS, Consent
from dispatcher.recipients import DecodedRecipient, decode_recipient

REPEATABLE = settings(derandomize=True, deadline=None)

NOW = 1_793_600_000_000  # 2026-11-02T06:13:20Z
SAID = "2026-11-01T10:00:00+08:00"
SAID_MS = 1_793_498_400_000
CARD = "4111 1111 1111 1111"
LINE: dict[str, Any] = {
    "account": "A-77",
    "category": "promotion",
    "channel": "sms",
    "given": True,
    "at": SAID,
    "source": "branch form 17",
}


def line_with(**changes: Any) -> bytes:
    return json.dumps({name: value for name, value in (LINE | changes).items() if value != "left out"}).encode()


def decoded(raw: bytes) -> DecodedConsent:
    answer = decode_consent(raw, 1, now_ms=NOW, by="li")
    assert isinstance(answer, DecodedConsent), answer
    return answer


def rejected(raw: bytes) -> Rejected:
    answer = decode_consent(raw, 7, now_ms=NOW, by="li")
    assert isinstance(answer, Rejected), answer
    assert answer.line == 7
    return answer


def test_a_whole_line_is_read() -> None:
    word = Consent(True, SAID_MS, "branch form 17")
    assert decoded(line_with()).change == ConsentChange(account="A-77", key="promotion/sms", consent=word, by="li")
    other = decoded(line_with(role="spouse", channel=None, template=None, given=False)).change
    assert (other.role, other.key, other.consent.given) == ("spouse", "promotion", False)
    assert decoded(line_with(template="sale")).change.key == "promotion/sms/sale"
    assert decoded(line_with(branch="Pudong")).unknown == ("branch",)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        *(({name: "left out"}, name) for name in ("account", "category", "given", "at", "source")),
        ({"account": ""}, "account"),
        ({"role": 5}, "role"),
        ({"category": "promotion/sms"}, "category"),
        ({"category": "*"}, "category"),
        ({"category": "  "}, "category"),
        ({"category": "x" * 65}, "category"),
        ({"channel": "fax"}, "channel"),
        ({"template": "sale", "channel": None}, "template"),
        ({"template": "a/b"}, "template"),
        ({"given": "yes"}, "given"),
        ({"given": 1}, "given"),
        ({"at": "2026-10-31T10:00:00"}, "at"),
        ({"at": "yesterday"}, "at"),
        ({"at": 1_793_498_400}, "at"),
        ({"at": "2026-11-02T14:13:20Z"}, "at"),
        ({"source": " \t"}, "source"),
        ({"source": ""}, "source"),
        ({"source": "form \x1b[31m17"}, "source"),
        ({"source": "x" * (MAX_SOURCE_CHARS + 1)}, "source"),
    ],
)
def test_a_broken_line_is_refused_by_its_field(changes: dict[str, Any], field: str) -> None:
    refusal = rejected(line_with(**changes))
    assert refusal.field == field
    assert refusal.error.startswith(f"field {field}: ")
    # And what was in it is not said
    for value in changes.values():
        assert not isinstance(value, str) or len(value) < 4 or value not in refusal.error


def test_a_word_may_lie_as_far_ahead_as_clocks_differ() -> None:
    at_most = "2026-11-02T06:23:20Z"
    assert decoded(line_with(at=at_most)).change.consent.at == NOW + MAX_AHEAD_MS
    assert "check its zone" in rejected(line_with(at="2026-11-02T06:23:20.001Z")).error


def test_a_card_number_in_a_source_is_masked() -> None:
    assert decoded(line_with(source=f"call about {CARD}")).change.consent.source == "call about **** **** **** 1111"
    recipient = {"account": "A-77", "openid": "o-1", "consents": {"promotion": _word(source=f"card {CARD}")}}
    answer = decode_recipient(json.dumps(recipient).encode(), 1, NOW)
    assert isinstance(answer, DecodedRecipient)
    assert answer.recipient.consents["promotion"].source == "card **** **** **** 1111"


def test_a_word_shows_no_account() -> None:
    assert "A-77" not in repr(decoded(line_with())) + repr(decoded(line_with()).change)


@pytest.mark.parametrize(
    "consents",
    [
        {"promotion/fax": {}},
        {"promotion/sms/sale/x": {}},
        {"/sms": {}},
        {"": {}},
        {"promotion//sale": {}},
        {"*/wechat": {}},
        {"promotion": {"at": "2026-11-01T10:00:00"}},
        {"promotion": {"at": "2026-11-03T10:00:00Z"}},
        {"promotion": {"source": "\x07"}},
        {"promotion": {"source": None}},
        {"promotion": {"by": "li"}},
        {f"c{number}": {} for number in range(MAX_CONSENTS + 1)},
        ["promotion"],
    ],
)
def test_broken_consents_of_a_recipient_are_refused_with_the_line(consents: Any) -> None:
    if isinstance(consents, dict):
        consents = {key: _word(**changes) for key, changes in consents.items()}
    answer = decode_recipient(json.dumps({"account": "A-77", "openid": "o-1", "consents": consents}).encode(), 3, NOW)
    assert isinstance(answer, Rejected)
    assert (answer.id, answer.field) == ("A-77", "consents")


@REPEATABLE
@given(st.binary(max_size=80) | st.dictionaries(st.sampled_from([*LINE, "role", "x"]), st.text() | st.none()))
def test_whatever_comes_is_a_word_or_a_refusal(junk: bytes | dict[str, Any]) -> None:
    raw = junk if isinstance(junk, bytes) else json.dumps(LINE | junk).encode()
    answer = decode_consent(raw, 1, now_ms=NOW, by="")
    if isinstance(answer, DecodedConsent):
        assert is_key(answer.change.key)


def _word(**changes: Any) -> dict[str, Any]:
    return {"given": True, "at": SAID, "source": "form 17"} | changes
