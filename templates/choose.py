"""Which template tells an event. Pure.

A template says in ``[match]`` which events it is for, or is for those of its category. Of all that match an event the
one with most conditions wins, of equal ones the first by its id; what no other is for is told by ``swipe``. While a
version is rolled out, two of a template stand beside each other, and the account says which of them is meant.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from hashlib import blake2b

from dispatcher.model.event import DIGEST, Event
from templates.template import Match, Template

DEFAULT_TEMPLATE = "swipe"
"""What tells an event that no other template is for."""

CARD_MOVEMENTS = frozenset({"swipe", "fraud"})
"""Categories of templates that tell a movement of a card, which ``swipe`` tells, too, if in fewer words."""

MAX_CACHED_KINDS = 4_096
"""Kinds of event whose answer is remembered, below 1 MB. A day's are a few dozen, but category and type come from
outside; beyond that number all are forgotten and found anew, 10 µs each."""

WHOLE = 100
"""Per cent of accounts."""

Share = tuple[int, int]
"""The places of accounts, from the first up to but not including the second, that a version is for; see `place_of`."""

_Candidate = tuple[Template, Mapping[str, int] | None, Share | None]
"""A template, from which amounts it is meant and for which accounts (None: any)."""

_Answer = tuple[Template, int | None, tuple[_Candidate, ...]]
"""The template, as long as the amount is below that number (None: always, 0: never); else the first of the candidates
that the event fits."""

_Kinds = dict[str, dict[str, _Answer]]
"""By category and type."""


def place_of(account: str, template: str) -> int:
    """The place of an account among 100 for the versions of a template, 0 to 99, the same for good.

    The template is part of it, so that it is not the same people who try every new version first; the version is not,
    so that who has it keeps it while the rest follow.
    """
    digest = blake2b(f"{template}\0{account}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") % WHOLE


def stand_in(template: Template, known: Container[str]) -> str | None:
    """The id of the template that tells at a provider which has to know each template before and knows these: its own,
    ``swipe`` for any movement of a card, or None."""
    if template.id in known:
        return template.id
    return DEFAULT_TEMPLATE if template.category in CARD_MOVEMENTS and DEFAULT_TEMPLATE in known else None


class Chooser:
    """Tells for each event the template, one of ``templates``.

    ``shares`` says by pinned name (``swipe@2``) which accounts a version is for; one that is not in it is for all.
    Raises ``ValueError`` when there is no ``swipe``. Not to be used by two threads at once.
    """

    def __init__(self, templates: Iterable[Template], shares: Mapping[str, Share] = {}) -> None:
        ranked = sorted(templates, key=lambda one: (-_conditions(one), one.id, -one.version))
        self._shares = dict(shares)
        self._fallback: list[_Candidate] = [
            (one, None, self._shares.get(one.pinned)) for one in ranked if one.id == DEFAULT_TEMPLATE
        ]
        if not self._fallback:
            raise ValueError(f"there is no template {DEFAULT_TEMPLATE!r}, which tells what no other is for")
        # It tells the digest's facts, which an event from outside has not, whatever its category.
        self._ranked = [one for one in ranked if one.id != DIGEST]
        digests: list[_Candidate] = [(one, None, self._shares.get(one.pinned)) for one in ranked if one.id == DIGEST]
        self._digest = _answer(digests or self._fallback)
        self._forget()

    def of(self, event: Event) -> Template:
        """The template for this event, the same each time."""
        # Two looks into small dictionaries: a key made of both words would cost as much as all of this.
        status, original = event.status, event.orig_currency
        if event.digest is not None:
            return _first(self._digest[2], event)
        if original is None and (status is None or status == "approved"):
            kinds = self._plain
        else:
            kinds = self._others[
                (status is not None and status.startswith("declined")),
                (original is not None and original != event.currency),
            ]
        try:
            template, floor, candidates = kinds[event.category][event.type]
        except KeyError:
            template, floor, candidates = self._find(kinds, event.category, event.type)
        if floor is None or -floor < event.amount < floor:
            return template
        return _first(candidates, event)

    def _find(self, kinds: _Kinds, category: str, type_: str) -> _Answer:
        declined, foreign = next(flags for flags, others in self._others.items() if others is kinds)
        found = [self._candidate(one) for one in self._ranked if _is_for(one, category, type_, declined, foreign)]
        answer = _answer([*found, *self._fallback])
        if self._cached >= MAX_CACHED_KINDS:
            self._forget()
        self._cached += 1
        self._others[declined, foreign].setdefault(category, {})[type_] = answer
        return answer

    def _forget(self) -> None:
        self._cached = 0
        self._plain: _Kinds = {}
        self._others: dict[tuple[bool, bool], _Kinds] = {
            (False, False): self._plain,
            (False, True): {},
            (True, False): {},
            (True, True): {},
        }

    def _candidate(self, template: Template) -> _Candidate:
        match = template.match
        return template, None if match is None else match.large_from, self._shares.get(template.pinned)


def _first(candidates: tuple[_Candidate, ...], event: Event) -> Template:
    for template, amounts, share in candidates:
        if amounts is not None:
            least = amounts.get(event.currency)
            if least is None or abs(event.amount) < least:
                continue
        if share is None or share[0] <= place_of(event.account, template.id) < share[1]:
            return template
    return candidates[-1][0]


def _answer(candidates: list[_Candidate]) -> _Answer:
    reached: list[_Candidate] = []
    for one in candidates:
        reached.append(one)
        if one[1] is None and one[2] is None:  # for all that come so far
            break
    *before, last = reached
    floor: int | None = None
    if last[2] is not None or any(share is not None for _, _, share in before):
        floor = 0
    elif before:
        floor = min(least for _, amounts, _ in before for least in (amounts or {}).values())
    return last[0], floor, tuple(reached)


def _conditions(template: Template) -> int:
    return 0 if template.match is None else template.match.conditions


def _is_for(template: Template, category: str, type_: str, declined: bool, foreign: bool) -> bool:
    match = template.match or Match()
    return (
        category in (match.category or (template.category,))
        and (match.type is None or type_ in match.type)
        and match.declined in (None, declined)
        and match.foreign in (None, foreign)
    )
