"""Which rules an alert matches, asked in two steps so that most alerts pay for neither.

Category, type and currency have few values and settle most rules: what is left of a file for one combination of them
is remembered. Only what else a ``when`` says (amount, country, recipient …) is asked of each alert. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from dispatcher.model.event import Event
from dispatcher.model.recipient import Recipient
from ratelimit.effects import When

Test = Callable[[Event, Recipient], bool]


def is_declined(event: Event) -> bool:
    """Whether the event's status says that it was declined."""
    return event.status is not None and event.status[:8].lower() == "declined"


def is_foreign(event: Event) -> bool:
    """Whether the purchase was made in another currency than the account's."""
    return event.orig_currency is not None and event.orig_currency != event.currency


def may_match(when: When, category: str, kind: str, currency: str) -> bool:
    """Whether an event of this category, type and currency may match; the rest is up to `rest_of`."""
    return (
        (not when.category or category in when.category)
        and (not when.type or kind in when.type)
        and (not when.currency or currency in when.currency)
    )


def rest_of(when: When) -> Test | None:
    """The test of everything that `may_match` does not look at; None when that is nothing."""
    tests: list[Test] = []
    if when.amount_from is not None or when.amount_below is not None:
        tests.append(_amount(when.amount_from, when.amount_below))
    if when.country:
        countries = frozenset(when.country)
        tests.append(lambda event, _recipient: event.country in countries)
    if when.mcc:
        prefixes = tuple(code.rstrip("x") for code in when.mcc)
        tests.append(lambda event, _recipient: event.mcc is not None and event.mcc.startswith(prefixes))
    if when.declined is not None:
        declined = when.declined
        tests.append(lambda event, _recipient: is_declined(event) is declined)
    if when.foreign is not None:
        foreign = when.foreign
        tests.append(lambda event, _recipient: is_foreign(event) is foreign)
    if when.role:
        roles = frozenset(when.role)
        tests.append(lambda _event, recipient: recipient.role in roles)
    if when.locale:
        locales, starts = frozenset(when.locale), tuple(f"{word}-" for word in when.locale)
        tests.append(lambda _event, recipient: recipient.locale in locales or recipient.locale.startswith(starts))
    return _all(tests)


def _amount(least: int | None, below: int | None) -> Test:
    low = 0 if least is None else least
    if below is None:
        return lambda event, _recipient: abs(event.amount) >= low
    return lambda event, _recipient: low <= abs(event.amount) < below


def _all(tests: Sequence[Test]) -> Test | None:
    if not tests:
        return None
    if len(tests) == 1:
        return tests[0]
    return lambda event, recipient: all(test(event, recipient) for test in tests)
