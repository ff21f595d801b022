"""Which template tells an event: the one that says most about it, and during a rollout the account's version."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from dispatcher.model.event import DigestFacts, Event
from templates.choose import MAX_CACHED_KINDS, Chooser, place_of
from templates.template import Match, Template, TemplateFile


def template(name: str, own: str = "swipe", version: int = 1, **match: Any) -> Template:
    file = TemplateFile(id=name, version=version, category=own, fields=(), match=Match(**match) if match else None)
    # A chooser looks at what the file says of itself and at no part, so these have none.
    made = Template.__new__(Template)
    made.id, made.version, made.category, made.match = file.id, file.version, file.category, file.match
    made.pinned, made.path = f"{name}@{version}", Path(name)
    return made


def event(**fields: Any) -> Event:
    given: dict[str, Any] = {"id": "e", "account": "a", "amount": 100, "currency": "CNY"}
    return Event(**(given | {"time": datetime(2026, 11, 22, tzinfo=UTC)} | fields))


LIBRARY = [
    template("swipe"),
    template("digest", "digest"),
    template("statement", "statement"),
    template("refund", type=("refund", "credit")),
    template("foreign", type=("purchase",), foreign=True),
    template("decline", declined=True),
    template("declined-cash", declined=True, type=("cash",)),
    template("large", type=("purchase",), large_from={"CNY": 500_000, "USD": 80_000}),
    template("alarm", "fraud", category=("fraud", "suspicion")),
]


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({}, "swipe"),
        ({"category": "unheard-of"}, "swipe"),
        ({"category": "statement"}, "statement"),
        ({"type": "refund"}, "refund"),
        ({"type": "credit", "status": "approved"}, "refund"),
        # Without a category in its [match] a template is for its own
        ({"type": "refund", "category": "statement"}, "statement"),
        ({"type": "refund", "category": "unheard-of"}, "swipe"),
        ({"category": "suspicion"}, "alarm"),
        ({"status": "declined: limit"}, "decline"),
        ({"status": "declined", "type": "cash"}, "declined-cash"),
        ({"status": "pending"}, "swipe"),
        ({"orig_amount": 9, "orig_currency": "EUR"}, "foreign"),
        ({"orig_amount": 100, "orig_currency": "CNY"}, "swipe"),
        # Of two with as many conditions the first by its id
        ({"orig_amount": 9, "orig_currency": "EUR", "amount": 900_000}, "foreign"),
        ({"amount": 499_999}, "swipe"),
        ({"amount": 500_000}, "large"),
        ({"amount": -500_000}, "large"),
        ({"amount": 80_000, "currency": "USD"}, "large"),
        ({"amount": 79_999, "currency": "USD"}, "swipe"),
        ({"amount": 900_000, "currency": "JPY"}, "swipe"),
        # An event from outside has no digest's facts, whatever its category
        ({"category": "digest", "type": "digest"}, "swipe"),
    ],
)
def test_the_template_with_most_conditions_tells_an_event(fields: dict[str, Any], told: str) -> None:
    chooser = Chooser(LIBRARY)
    assert [chooser.of(event(**fields)).id for _ in range(2)] == [told, told]
    assert Chooser(reversed(LIBRARY)).of(event(**fields)).id == told


def test_only_the_event_of_a_digest_is_told_by_the_digest() -> None:
    facts = DigestFacts("primary", 2, {"CNY": 3}, 0, 1, "cap")
    made = event(category="digest", type="digest", digest=facts)
    assert Chooser(LIBRARY).of(made).id == "digest"
    assert Chooser([template("swipe")]).of(made).id == "swipe"


def test_without_swipe_there_is_nothing_to_fall_back_to() -> None:
    with pytest.raises(ValueError, match="there is no template 'swipe'"):
        Chooser([template("statement", "statement")])


def test_categories_from_outside_do_not_fill_the_memory() -> None:
    chooser = Chooser(LIBRARY)
    for number in range(MAX_CACHED_KINDS + 10):
        assert chooser.of(event(category=f"c{number}")).id == "swipe"
    assert chooser._cached == 10
    assert chooser.of(event(type="refund")).id == "refund"


def test_a_version_is_told_to_its_share_of_the_accounts_and_to_the_same_ones_as_the_share_grows() -> None:
    old, new = template("swipe", version=1), template("swipe", version=2)
    accounts = [f"A-{number}" for number in range(5_000)]

    def told(percent: int) -> dict[str, int]:
        chooser = Chooser([old, new], {"swipe@2": (0, percent), "swipe@1": (percent, 100)})
        return {account: chooser.of(event(account=account)).version for account in accounts}

    tenth, half = told(10), told(50)
    assert 400 < Counter(tenth.values())[2] < 600
    assert 2_300 < Counter(half.values())[2] < 2_700
    assert all(half[account] == 2 for account in accounts if tenth[account] == 2)
    assert told(10) == tenth


def test_a_new_template_may_have_no_version_before_it_and_one_rolled_out_its_own_conditions() -> None:
    # Given a refund's first version for a tenth, and a large one's second version that begins lower
    library = [
        template("swipe"),
        template("refund", type=("refund",)),
        template("large", version=1, type=("purchase",), large_from={"CNY": 500}),
        template("large", version=2, type=("purchase",), large_from={"CNY": 50}),
    ]
    shares = {"refund@1": (0, 10), "large@2": (0, 50), "large@1": (50, 100)}
    chooser = Chooser(library, shares)
    for account in (f"A-{number}" for number in range(200)):
        # Then the others are told by what is left
        refund = chooser.of(event(account=account, type="refund"))
        assert refund.id == ("refund" if place_of(account, "refund") < 10 else "swipe")
        # And each account by the conditions of its own version
        small, large = (chooser.of(event(account=account, amount=amount)).pinned for amount in (60, 600))
        assert (small, large) == (("large@2", "large@2") if place_of(account, "large") < 50 else ("swipe@1", "large@1"))


def test_the_place_of_an_account_never_changes() -> None:
    # These numbers are a promise: other ones would tell half of the accounts another version in the middle of a rollout
    assert [place_of(account, "swipe") for account in ("A-1", "A-2", "6225880000000426")] == [0, 32, 36]
