"""The rule file: its format, and messages that name the rule and the key.

Pure: the text is an argument. Only ``default_rules_text`` reads a file, the one shipped in this package. What each
effect may say is in `effects`, what is wrong with one that can be read in `rulecheck`.
"""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Iterable
from difflib import get_close_matches
from importlib import resources
from typing import Any, get_args

import msgspec

from dispatcher.model.recipient import ChannelName
from ratelimit.effects import (
    KINDS,
    MAX_EXPIRE_AFTER_SECONDS,
    AtLimit,
    Cap,
    Day,
    ExpireAfter,
    Field,
    Kind,
    MinAmount,
    QuietHours,
    Rule,
    Scope,
    When,
)
from ratelimit.errors import RulesError
from ratelimit.rulecheck import WORD_KEYS, Fault, check, check_amounts, check_time, check_when, never_deciding, repeated

__all__ = [
    "MAX_EXPIRE_AFTER_SECONDS",
    "Cap",
    "ExpireAfter",
    "MinAmount",
    "Rule",
    "Rules",
    "default_rules_text",
    "load_content",
    "load_rules",
]

FORMAT_VERSION = 1

MAX_RULES = 256
"""Rules of one file. Each costs time in every decision; a bank's own file has a few dozen."""

DEFAULT_EXPIRE_AFTER_SECONDS = 24 * 3600
"""Age limit of a category without an ``expire_after`` rule: after a day the cardholder has seen it
elsewhere."""

NO_CHANNEL = "no-channel"
NO_ADDRESS = "no-address"
RECIPIENT_GONE = "recipient-gone"
NO_RECIPIENT = "no-recipient"
RECIPIENT_MIN_AMOUNT = "recipient-min-amount"
OPT_OUT = "opt-out"
DEFAULT_EXPIRY = "default-expiry"
REVERSED = "reversed-before-sending"

BROWN_OUT = "brown-out"
BROWN_OUT_DIGEST = "brown-out-digest"

RESERVED_IDS = frozenset(
    {
        BROWN_OUT,
        BROWN_OUT_DIGEST,
        NO_CHANNEL,
        NO_ADDRESS,
        RECIPIENT_GONE,
        NO_RECIPIENT,
        RECIPIENT_MIN_AMOUNT,
        OPT_OUT,
        DEFAULT_EXPIRY,
        REVERSED,
    }
)
"""Reasons that come from no rule file: a rule of that name could not be told from them in the books."""

_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")
_PATH = re.compile(r"(?P<what>.*?)(?: - at `\$\.?(?P<path>[^`]*)`)?", re.DOTALL)

_CHOICES: dict[str, tuple[str, ...]] = {
    "channel": get_args(ChannelName),
    "channels": get_args(ChannelName),
    "per": get_args(Scope),
    "window": ("day", "week", "month"),
    "at_cap": get_args(AtLimit),
    "at_gap": get_args(AtLimit),
    "then": ("hold", "suppress", "pass"),
    "mode": ("opt-in", "opt-out"),
    "fingerprint": get_args(Field),
    "days": get_args(Day),
}
_LISTS = ("per", "channels", "fingerprint", "days")

_FIRST_FORM: dict[Kind, frozenset[str]] = {
    MinAmount: frozenset({"effect", "id", "channel", "amounts"}),
    ExpireAfter: frozenset({"effect", "id", "category", "hours", "minutes", "seconds"}),
    Cap: frozenset({"effect", "id", "limit", "per", "window"}),
}
"""Keys that the canonical form of these effects has always written down. All others are left out where they have their
default, so that a file of the first release keeps its version."""


class Rules(msgspec.Struct, frozen=True):
    """The rules of one file, in its order. Made by ``load_rules`` only.

    ``content`` is their canonical JSON: equal for files that differ in comments, blanks or the order of keys.
    ``version_id`` is the first 12 hex digits of its SHA-256, stored with each decision. ``warnings`` are sentences
    about rules that are understood but can never decide anything.
    """

    rule: tuple[Rule, ...]
    content: str
    version_id: str
    warnings: tuple[str, ...] = ()


def default_rules_text() -> str:
    """The shipped rule file, annotated."""
    return resources.files("ratelimit").joinpath("default_rules.toml").read_text(encoding="utf-8")


def load_rules(text: str, source: str) -> Rules:
    """Decode a rule file. ``source`` is its name for messages.

    Raises `RulesError` for whatever is not understood completely: unknown keys, effects, channels and currencies, two
    rules with one id, two ages for one category, contradictory times, numbers out of range. What is understood but can
    never decide anything is a sentence in ``Rules.warnings``.
    """
    try:
        document = tomllib.loads(text)
    # ValueError: TOML errors, and an integer of thousands of digits.
    except (ValueError, RecursionError) as error:
        raise RulesError(source, f"not TOML: {error}") from None
    return _load(document, source)


def load_content(content: str, source: str) -> Rules:
    """The rules again from ``Rules.content``, as the ledger keeps it. Raises `RulesError`."""
    try:
        document = msgspec.json.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise RulesError(source, "not the canonical form of rules") from None
    return _load(document if isinstance(document, dict) else {}, source)


def _load(document: dict[str, Any], source: str) -> Rules:
    _refuse_unknown(source, None, document, ("version", "rule"))
    version = document.get("version")
    if version != FORMAT_VERSION or isinstance(version, (bool, float)):
        said = "is missing" if version is None else f"{version!r} is not known"
        raise RulesError(source, f"{said}; this release reads version = {FORMAT_VERSION}", key="version")
    tables = document.get("rule", [])
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise RulesError(source, "must be a list of tables, each headed [[rule]]", key="rule")
    if len(tables) > MAX_RULES:
        raise RulesError(source, f"{len(tables)} rules; at most {MAX_RULES} are allowed", key="rule")
    rules = tuple(_rule(source, place, table) for place, table in enumerate(tables, 1))
    twice = repeated(rules)
    if twice is not None:
        raise RulesError(source, twice[1].what, rule=twice[0], key=twice[1].key)
    # In the order of the structs, which is the order of the first release.
    content = msgspec.json.encode({"rule": [_plain(rule) for rule in rules], "version": FORMAT_VERSION})
    warnings = tuple(f"{source}: rule {name}: {what}" for name, what in never_deciding(rules))
    return Rules(rules, content.decode(), hashlib.sha256(content).hexdigest()[:12], warnings)


def _plain(rule: Rule) -> dict[str, Any]:
    """A rule as it is written down for its version."""
    kept = _FIRST_FORM.get(type(rule), frozenset(("effect", "id")))
    table: dict[str, Any] = msgspec.to_builtins(rule)
    for field in msgspec.structs.fields(rule):
        name = field.encode_name
        if name not in kept and getattr(rule, field.name) == field.default:
            del table[name]
        elif isinstance(table[name], dict) and name in ("when", "digest"):
            table[name] = {key: value for key, value in table[name].items() if value not in (None, [], ())}
    if isinstance(rule, MinAmount):
        table["amounts"] = dict(sorted(rule.amounts.items()))
    if isinstance(rule, Cap):
        if len(rule.per) == 1:
            table["per"] = rule.per[0]
        if rule.window is None:
            del table["window"]
    return table


def _rule(source: str, place: int, table: dict[str, Any]) -> Rule:
    name = _id(source, place, table)
    effect = table.get("effect")
    if effect is None:
        raise RulesError(source, f"is missing; one of {_listed(KINDS)}", rule=name, key="effect")
    if not isinstance(effect, str) or effect not in KINDS:
        message = f"{effect!r} is not known{_nearest(effect, KINDS)}"
        raise RulesError(source, message, rule=name, key="effect")
    kind = KINDS[effect]
    fields = msgspec.structs.fields(kind)
    _refuse_unknown(source, name, table, ("effect", *(field.encode_name for field in fields)))
    for field in fields:
        if field.required and field.encode_name not in table:
            raise RulesError(source, "is missing", rule=name, key=field.encode_name)
    table = table | {key: _as_list(table[key]) for key in _LISTS if key in table}
    for key, allowed in _CHOICES.items():
        if key in table:
            _check_choice(source, name, key, table[key], allowed)
    if "when" in table:
        table["when"] = _when(source, name, table["when"])
    try:
        if kind is MinAmount:
            check_amounts(table["amounts"])
        if kind is QuietHours:
            check_time("from", table["from"])
            check_time("to", table["to"])
        digest = table.get("digest")
        if isinstance(digest, dict):
            _refuse_unknown(source, name, digest, ("at", "after_minutes", "count"), "digest.")
            if "at" in digest:
                check_time("digest.at", digest["at"])
        rule: Rule = msgspec.convert(table, kind)
        check(rule)
    except Fault as fault:
        raise RulesError(source, fault.what, rule=name, key=fault.key) from None
    except msgspec.ValidationError as error:
        found = _PATH.fullmatch(str(error))
        what, path = (found["what"], found["path"]) if found else (str(error), None)
        raise RulesError(source, what.replace("`", "").lower(), rule=name, key=path) from None
    return rule


def _when(source: str, name: str, given: object) -> dict[str, Any]:
    if not isinstance(given, dict):
        raise RulesError(source, 'must be a table such as { category = "swipe" }', rule=name, key="when")
    _refuse_unknown(source, name, given, [field.name for field in msgspec.structs.fields(When)], "when.")
    table = given | {key: _as_list(given[key]) for key in WORD_KEYS if key in given}
    try:
        check_when(table)
    except Fault as fault:
        raise RulesError(source, fault.what, rule=name, key=fault.key) from None
    return table


def _as_list(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _check_choice(source: str, rule: str, key: str, value: object, allowed: tuple[str, ...]) -> None:
    if key not in _LISTS:
        words: list[object] = [value]
    elif not isinstance(value, list) or not value:
        raise RulesError(source, f"must name at least one of {_listed(allowed)}", rule=rule, key=key)
    else:
        words = value
    for word in words:
        if word not in allowed:
            raise RulesError(source, f"{word!r} is not known{_nearest(word, allowed)}", rule=rule, key=key)
        if words.count(word) > 1:
            raise RulesError(source, f"{word!r} stands there twice", rule=rule, key=key)


def _id(source: str, place: int, table: dict[str, Any]) -> str:
    name = table.get("id")
    number = f"number {place}"
    if name is None:
        raise RulesError(source, "is missing", rule=number, key="id")
    if not isinstance(name, str) or not _ID.fullmatch(name):
        message = f"{name!r} must be 1 to 64 lower case letters, digits and dashes"
        raise RulesError(source, message, rule=number, key="id")
    if name in RESERVED_IDS:
        raise RulesError(source, f"{name!r} is a reason of Swipebell's own; choose another", rule=number, key="id")
    return name


def _refuse_unknown(source: str, rule: str | None, table: dict[str, Any], known: Iterable[str], path: str = "") -> None:
    known = tuple(known)
    for key in table:
        if key not in known:
            raise RulesError(source, f"key {path + key!r} is not known{_nearest(key, known)}", rule=rule)


def _nearest(word: object, known: Iterable[str]) -> str:
    near = get_close_matches(str(word), list(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; allowed: {_listed(known)}"


def _listed(words: Iterable[str]) -> str:
    return ", ".join(words)
