"""The scenario file of ``swipebell rules test``: its format, and messages that name the scenario and the key. Pure."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from datetime import datetime
from difflib import get_close_matches
from typing import Any, Literal, get_args

import msgspec

from dispatcher.events import Accepted, Rejected, decode_event, epoch_ms
from dispatcher.model.event import Event
from dispatcher.model.recipient import ChannelName, Consent, Recipient, RecipientLine
from dispatcher.recipients import decode_recipient
from replay.errors import ScenarioError
from replay.times import is_moment, moment_of, read_moment

MAX_SCENARIOS = 1_000
"""Of one file: as many as a person can keep an eye on, several times over."""

MAX_EVENTS = 10_000
"""Of one scenario, repeats counted: it tests a volume rule of a small bank in a second or two."""

ExpectedState = Literal["send", "held", "suppressed", "expired", "folded"]

ALL_CHANNELS: tuple[str, ...] = get_args(ChannelName)

DEFAULTS: Mapping[str, Any] = {"amount": 0, "currency": "CNY", "type": "purchase", "category": "swipe"}

_FILE_KEYS = ("rules", "channels", "recipient", "scenario")
_SCENARIO_KEYS = ("name", "recipient", "event")
_FIELDS = tuple(Event.__struct_fields__)
_OWN_KEYS = ("at", "repeat", "every_seconds", "expect")
_EXPECT_KEYS = ("state", "rule", "route", "until", "role")
_encode = msgspec.json.Encoder().encode


class Expected(msgspec.Struct, frozen=True):
    """What one event's alerts are to be: those of ``role``, or all of them. None: whatever it is."""

    state: ExpectedState
    rule: str | None = None
    route: tuple[str, ...] | None = None
    until_ms: int | None = None
    role: str | None = None


class Happening(msgspec.Struct, frozen=True):
    """One table ``[[scenario.event]]``: ``events`` are its repeats, each with the clock (epoch ms) at which it comes.
    ``place`` counts from 1."""

    place: int
    events: tuple[tuple[int, Accepted], ...]
    expected: tuple[Expected, ...]


class Scenario(msgspec.Struct, frozen=True):
    """What happens, in this order, from counters at zero; and to whom."""

    name: str
    recipients: tuple[Recipient, ...]
    happenings: tuple[Happening, ...]


class ScenarioFile(msgspec.Struct, frozen=True):
    """``rules`` is the file of rules as it is written there, None: the configuration's. ``channels`` None: the
    configuration's, or all."""

    rules: str | None
    channels: tuple[str, ...] | None
    scenarios: tuple[Scenario, ...]


def load_scenarios(text: str, source: str) -> ScenarioFile:
    """Decode a scenario file; ``source`` is its name for messages. Raises `ScenarioError` for whatever is not
    understood completely."""
    try:
        document = tomllib.loads(text)
    # ValueError: TOML errors, and an integer of thousands of digits.
    except (ValueError, RecursionError) as error:
        raise ScenarioError(source, f"not TOML: {error}") from None
    _refuse_unknown(source, "", document, _FILE_KEYS)
    rules = document.get("rules")
    if rules is not None and not isinstance(rules, str):
        raise ScenarioError(source, "must be the name of a rule file", key="rules")
    channels = document.get("channels")
    if channels is not None:
        channels = _words(source, "", "channels", channels, ALL_CHANNELS)
    people = _recipients(source, "", document)
    tables = _tables(source, "", document, "scenario")
    if not tables:
        raise ScenarioError(source, "is missing; nothing would be tested", key="scenario")
    if len(tables) > MAX_SCENARIOS:
        raise ScenarioError(source, f"{len(tables)} scenarios; at most {MAX_SCENARIOS} are allowed", key="scenario")
    scenarios: dict[str, Scenario] = {}
    for place, table in enumerate(tables, 1):
        scenario = _scenario(source, place, table, people)
        if scenario.name in scenarios:
            raise ScenarioError(source, "two scenarios have this name", where=_called(scenario.name), key="name")
        scenarios[scenario.name] = scenario
    return ScenarioFile(rules, channels, tuple(scenarios.values()))


def _scenario(source: str, place: int, table: dict[str, Any], people: list[RecipientLine]) -> Scenario:
    name = table.get("name")
    if not isinstance(name, str) or not name.strip():
        message = "is missing" if name is None else "must be a text that says what it shows"
        raise ScenarioError(source, message, where=f"scenario number {place}", key="name")
    where = _called(name)
    _refuse_unknown(source, where, table, _SCENARIO_KEYS)
    people = people + _recipients(source, where, table)
    known: set[tuple[str, str]] = set()
    for one in people:
        if (one.account, one.role) in known:
            message = f"account {one.account!r} has two of role {one.role!r}; give one of them another role"
            raise ScenarioError(source, message, where=where, key="recipient")
        known.add((one.account, one.role))
    accounts = list(dict.fromkeys(one.account for one in people))
    tables = _tables(source, where, table, "event")
    if not tables:
        raise ScenarioError(source, "names no event; add [[scenario.event]]", where=where)
    happenings = []
    total = 0
    for number, event in enumerate(tables, 1):
        happening = _happening(source, f"{where}: event {number}", number, event, accounts)
        total += len(happening.events)
        if total > MAX_EVENTS:
            raise ScenarioError(source, f"more than {MAX_EVENTS} events, repeats counted", where=where)
        happenings.append(happening)
    if not any(happening.expected for happening in happenings):
        message = "none of its events says what it expects, so it could not fail; add expect = { … }"
        raise ScenarioError(source, message, where=where)
    return Scenario(name, _numbered(people), tuple(happenings))


def _happening(source: str, where: str, place: int, table: dict[str, Any], accounts: list[str]) -> Happening:
    _refuse_unknown(source, where, table, (*_OWN_KEYS, *_FIELDS))
    at_ms = _moment(source, where, "at", table.get("at"))
    repeat = _whole(source, where, "repeat", table.get("repeat", 1), 1, MAX_EVENTS)
    every_ms = 1000 * _whole(source, where, "every_seconds", table.get("every_seconds", 0), 0, 366 * 86_400)
    if not is_moment(at_ms + (repeat - 1) * every_ms):
        raise ScenarioError(source, "the last of its repeats is after the year 9999", where=where, key="repeat")
    fields = dict(DEFAULTS) | {key: value for key, value in table.items() if key in _FIELDS}
    if "account" not in fields:
        if len(accounts) != 1:
            message = f"is missing; the file has {len(accounts)} accounts to choose from"
            raise ScenarioError(source, message, where=where, key="account")
        fields["account"] = accounts[0]
    swiped_ms = None if "time" not in table else _moment(source, where, "time", table["time"])
    events = []
    for turn in range(repeat):
        now_ms = at_ms + turn * every_ms
        fields["time"] = moment_of(now_ms if swiped_ms is None else swiped_ms).isoformat()
        name = str(table.get("id", f"event-{place}"))
        fields["id"] = name if repeat == 1 else f"{name}-{turn + 1}"
        found = decode_event(_encoded(source, where, fields), place)
        if isinstance(found, Rejected):
            raise ScenarioError(source, found.error, where=where)
        events.append((now_ms, found))
    return Happening(place, tuple(events), _expectations(source, where, table.get("expect")))


def _expectations(source: str, where: str, given: object) -> tuple[Expected, ...]:
    if given is None:
        return ()
    tables: list[Any] = given if isinstance(given, list) else [given]
    if not tables or not all(isinstance(table, dict) for table in tables):
        message = 'must be a table such as { state = "send", route = ["wechat"] }, or a list of such tables'
        raise ScenarioError(source, message, where=where, key="expect")
    return tuple(_expectation(source, f"{where}: expect", table) for table in tables)


def _expectation(source: str, where: str, table: dict[str, Any]) -> Expected:
    _refuse_unknown(source, where, table, _EXPECT_KEYS)
    state = _word(source, where, "state", table.get("state"), get_args(ExpectedState))
    route = table.get("route")
    if route is not None:
        route = _words(source, where, "route", route, (*ALL_CHANNELS, "wechat_service"))
    for key in ("rule", "role"):
        if key in table and not isinstance(table[key], str):
            raise ScenarioError(source, "must be a text", where=where, key=key)
    if state == "send" and "rule" in table:
        raise ScenarioError(source, "is given, but no rule decides when it is sent", where=where, key="rule")
    until = table.get("until")
    if until is not None:
        if state != "held":
            raise ScenarioError(source, 'is given, but only state = "held" has an end', where=where, key="until")
        until = _moment(source, where, "until", until)
    return Expected(state, table.get("rule"), route, until, table.get("role"))  # type: ignore[arg-type]


def _recipients(source: str, where: str, table: dict[str, Any]) -> list[RecipientLine]:
    found = []
    for place, fields in enumerate(_tables(source, where, table, "recipient"), 1):
        place_in = ": ".join(part for part in (where, f"recipient {place}") if part)
        _refuse_unknown(source, place_in, fields, RecipientLine.__struct_fields__)
        decoded = decode_recipient(_encoded(source, place_in, fields), place)
        if isinstance(decoded, Rejected):
            raise ScenarioError(source, decoded.error, where=place_in)
        found.append(decoded.recipient)
    return found


def _numbered(people: Iterable[RecipientLine]) -> tuple[Recipient, ...]:
    """As the ledger would keep them: in this order."""
    found = []
    for number, line in enumerate(people, 1):
        fields = {name: getattr(line, name) for name in line.__struct_fields__}
        fields["consents"] = {
            key: Consent(word.given, epoch_ms(word.at), word.source) for key, word in line.consents.items()
        }
        found.append(Recipient(number, **fields))
    return tuple(found)


def _tables(source: str, where: str, table: dict[str, Any], key: str) -> list[dict[str, Any]]:
    tables = table.get(key, [])
    if not isinstance(tables, list) or not all(isinstance(one, dict) for one in tables):
        heading = f"[[scenario.{key}]]" if where else f"[[{key}]]"
        raise ScenarioError(source, f"must be a list of tables, each headed {heading}", where=where, key=key)
    return tables


def _moment(source: str, where: str, key: str, value: object) -> int:
    if isinstance(value, datetime):
        value = value.isoformat()
    if isinstance(value, str) and (found := read_moment(value)) is not None:
        return found
    message = "is missing" if value is None else "is not understood"
    allowed = "a time with a zone such as 2026-11-01T10:00:00+08:00"
    raise ScenarioError(source, f"{message}; allowed is {allowed}", where=where, key=key)


def _whole(source: str, where: str, key: str, value: object, least: int, most: int) -> int:
    if type(value) is not int or not least <= value <= most:
        raise ScenarioError(source, f"{value!r} must be a whole number, {least} to {most}", where=where, key=key)
    return value


def _word(source: str, where: str, key: str, value: object, allowed: tuple[str, ...]) -> str:
    if value is None:
        raise ScenarioError(source, f"is missing; one of {', '.join(allowed)}", where=where, key=key)
    if not isinstance(value, str) or value not in allowed:
        raise ScenarioError(source, f"{value!r} is not known{_nearest(value, allowed)}", where=where, key=key)
    return value


def _words(source: str, where: str, key: str, value: object, allowed: tuple[str, ...]) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise ScenarioError(source, f"must be a list of {', '.join(allowed)}", where=where, key=key)
    return tuple(_word(source, where, key, word, allowed) for word in value)


def _encoded(source: str, where: str, fields: dict[str, Any]) -> bytes:
    try:
        return _encode(fields)
    except (TypeError, OverflowError, ValueError):  # an infinite number, an integer beyond JSON's
        raise ScenarioError(source, "holds a value that no event could carry", where=where) from None


def _refuse_unknown(source: str, where: str, table: dict[str, Any], known: Iterable[str]) -> None:
    known = tuple(known)
    for key in table:
        if key not in known:
            raise ScenarioError(source, f"key {key!r} is not known{_nearest(key, known)}", where=where)


def _nearest(word: object, known: Iterable[str]) -> str:
    near = get_close_matches(str(word), list(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; allowed: {', '.join(known)}"


def _called(name: str) -> str:
    return f"scenario {name!r}"
