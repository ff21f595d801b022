"""Each rule of a file as one sentence that a product owner can check against what was meant. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from dispatcher.model.currency import exponent
from ratelimit.effects import (
    DIGEST_AT,
    Cap,
    ConsentRule,
    Dedup,
    Digest,
    ExpireAfter,
    MinAmount,
    MinGap,
    Priority,
    QuietHours,
    Route,
    Rule,
    Storm,
    When,
)

_DAYS = {
    "mon": "Monday",
    "tue": "Tuesday",
    "wed": "Wednesday",
    "thu": "Thursday",
    "fri": "Friday",
    "sat": "Saturday",
    "sun": "Sunday",
}


def say(rule: Rule) -> str:
    """The rule in one sentence, without its id. Amounts are in whole units of their currency."""
    match rule:
        case MinAmount():
            amounts = ", ".join(_money(amount, code) for code, amount in sorted(rule.amounts.items()))
            return f"on {rule.channel} from {amounts}{_of(rule.when)}; other currencies have no minimum"
        case ExpireAfter():
            late = "" if rule.say_late_minutes is None else f"; says that it is late after {rule.say_late_minutes} min"
            age = _duration(rule.total_seconds)
            return f"{_those(rule.when, rule.category)} are not sent later than {age} after the swipe{late}"
        case Cap():
            where = f" on {rule.channel}" if rule.channel is not None else ""
            if rule.window is not None:
                often, by = f"a {rule.window}", ", by the recipient's calendar"
            else:
                often, by = f"in any {_duration(rule.rolling_seconds)}", ""
            head = f"at most {rule.limit:,} {often} {_per(rule.per)}{where}{_of(rule.when)}{by}"
            return f"{head}; {_further(rule.at_cap, rule.digest)}"
        case MinGap():
            where = f" on {rule.channel}" if rule.channel is not None else ""
            head = f"at least {_duration(rule.total_seconds)} between two {_per(rule.per)}{where}{_of(rule.when)}"
            return f"{head}; {_further(rule.at_gap, rule.digest)}"
        case Dedup():
            same = _list(rule.fingerprint, "and")
            return f"only one in {_duration(rule.total_seconds)} of those{_of(rule.when)} with the same {same}"
        case QuietHours():
            return _quiet(rule)
        case ConsentRule():
            return _consent(rule)
        case Route():
            wait = "" if rule.deadline_seconds is None else f"; each waits {_duration(rule.deadline_seconds)}"
            channels = ", then ".join(rule.channels)
            return f"{_those(rule.when)} go on {channels}, as far as the recipient has them{wait}"
        case Priority():
            return f"{_those(rule.when)} go first, and may use the reserve of the quota"
        case Storm():
            return _storm(rule)


def _quiet(rule: QuietHours) -> str:
    days = f" beginning on {_list([_DAYS[day] for day in rule.days], 'or')}" if rule.days else ""
    does = {
        "hold": f"are held until {rule.end}",
        "suppress": "are not sent",
        "pass": "are sent, whatever later rules of quiet hours say",
    }[rule.then]
    return f"from {rule.start} to {rule.end} by the recipient's clock{days}, {_those(rule.when)} {does}"


def _consent(rule: ConsentRule) -> str:
    who = "only with the recipient's consent" if rule.mode == "opt-in" else "unless the recipient has objected"
    where = "" if rule.channel is None else f" on {rule.channel}"
    with_template = "" if rule.template is None else f" by template {rule.template}"
    return f"{_those(rule.when, rule.category)} are sent{where}{with_template} {who}"


def _storm(rule: Storm) -> str:
    told = f"one in {rule.sample:,} of the rest is told" if rule.sample else "none of the rest is told"
    rest = f"; the rest is held until somebody releases it, {told}"
    if rule.volume_times is not None:
        usual = f"more than {rule.volume_times:g} times what is usual at that hour"
        return f"when an hour has {usual} and at least {rule.at_least or 0:,} events{_of(rule.when)}{rest}"
    same = _list(rule.fingerprint, "and")
    events = f"{rule.limit or 0:,} events{_of(rule.when)}"
    spared = (rule.limit or 0) // 2
    first = f" (not counting the first {spared:,} of its day)" if spared else ""
    return f"after {events} with the same {same} for one account{first} in {rule.minutes or 0} min{rest}"


def _further(at_limit: str, digest: Digest | None) -> str:
    if at_limit == "hold":
        return "further ones are held"
    if at_limit == "suppress":
        return "further ones are not sent"
    digest = digest or Digest()
    if digest.after_minutes is not None:
        when = f"{digest.after_minutes} min after the first of them"
    else:
        when = f"at {digest.at or DIGEST_AT} by the recipient's clock"
    count = "" if digest.count is None else f", or as soon as there are {digest.count}"
    return f"further ones are told together {when}{count}"


def _per(scopes: Sequence[str]) -> str:
    return f"per {_list(scopes, 'and')}"


def _those(when: When, category: str | None = None) -> str:
    of = _of(when, category)
    return f"those{of}" if of else "all"


def _of(when: When, category: str | None = None) -> str:
    """Which alerts a rule is about, with a blank before it; empty: all of them."""
    parts = []
    categories = tuple(dict.fromkeys((*(() if category is None else (category,)), *when.category)))
    for name, words in (
        ("category", categories),
        ("type", when.type),
        ("currency", when.currency),
        ("country", when.country),
        ("MCC", when.mcc),
    ):
        if words:
            parts.append(f"of {name} {_list(words, 'or')}")
    currency = when.currency[0] if len(when.currency) == 1 else None
    if when.amount_from is not None:
        parts.append(f"from {_money(when.amount_from, currency)}")
    if when.amount_below is not None:
        parts.append(f"below {_money(when.amount_below, currency)}")
    if when.declined is not None:
        parts.append("that were declined" if when.declined else "that were not declined")
    if when.foreign is not None:
        parts.append("in a foreign currency" if when.foreign else "in the card's own currency")
    if when.role:
        parts.append(f"for {_list(when.role, 'or')}")
    if when.locale:
        parts.append(f"in the language {_list(when.locale, 'or')}")
    return "".join(f" {part}" for part in parts)


def _money(amount: int, code: str | None) -> str:
    if code is None:
        return f"{amount} minor units"
    digits = exponent(code)
    whole, part = divmod(amount, 10**digits)
    return f"{whole:,}.{part:0{digits}d} {code}" if digits else f"{whole:,} {code}"


def _duration(seconds: int) -> str:
    days, rest = divmod(seconds, 86_400)
    hours, rest = divmod(rest, 3_600)
    minutes, rest = divmod(rest, 60)
    named = ((days, "day" if days == 1 else "days"), (hours, "h"), (minutes, "min"), (rest, "s"))
    return " ".join(f"{value} {unit}" for value, unit in named if value)


def _list(words: Iterable[str], last: str) -> str:
    *first, final = words
    return f"{', '.join(first)} {last} {final}" if first else final
