"""The rule file: its format, and messages that name the rule and the key.

Pure: the text is an argument. Only ``default_rules_text`` reads a file, the one shipped in this package.
"""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Iterable
from difflib import get_close_matches
from importlib import resources
from typing import Annotated, Any, Literal, get_args

import msgspec
from msgspec import Meta

from dispatcher.model.currency import is_known
from dispatcher.model.event import MAX_INT64
from dispatcher.model.recipient import ChannelName
from ratelimit.errors import RulesError

FORMAT_VERSION = 1

MAX_RULES = 256
"""Rules of one file. Each costs time in every decision; a bank's own file has a few dozen."""

MAX_EXPIRE_AFTER_SECONDS = 31 * 24 * 3600
"""A month: an alert that is older tells nobody anything, and a slipped digit should not keep one open for
years."""

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
_CODE = re.compile(r"[A-Z]{3}")
_PATH = re.compile(r"(?P<what>.*?)(?: - at `\$\.?(?P<path>[^`]*)`)?", re.DOTALL)

Whole = Annotated[int, Meta(ge=0, le=MAX_EXPIRE_AFTER_SECONDS)]


class MinAmount(msgspec.Struct, frozen=True, tag_field="effect", tag="min_amount", forbid_unknown_fields=True):
    """Leave ``channel`` out below an amount; ``amounts`` maps a currency to minor units."""

    id: str
    channel: ChannelName
    amounts: dict[str, int]


class ExpireAfter(msgspec.Struct, frozen=True, tag_field="effect", tag="expire_after", forbid_unknown_fields=True):
    """Do not send alerts of ``category`` that are older than the sum of hours, minutes and seconds."""

    id: str
    category: Annotated[str, Meta(min_length=1, max_length=64)]
    hours: Whole = 0
    minutes: Whole = 0
    seconds: Whole = 0

    @property
    def total_seconds(self) -> int:
        """The age limit in seconds."""
        return (self.hours * 60 + self.minutes) * 60 + self.seconds


class Cap(msgspec.Struct, frozen=True, tag_field="effect", tag="cap", forbid_unknown_fields=True):
    """At most ``limit`` alerts for an account in a calendar day of the recipient's time zone."""

    id: str
    limit: Annotated[int, Meta(ge=1, le=MAX_INT64)]
    per: Literal["account"]
    window: Literal["day"]


Rule = MinAmount | ExpireAfter | Cap

_KINDS: dict[str, type[MinAmount] | type[ExpireAfter] | type[Cap]] = {
    "min_amount": MinAmount,
    "expire_after": ExpireAfter,
    "cap": Cap,
}
_CHOICES: dict[str, tuple[str, ...]] = {
    "channel": get_args(ChannelName),
    "per": ("account",),
    "window": ("day",),
}


class Rules(msgspec.Struct, frozen=True):
    """The rules of one file, in its order. Made by ``load_rules`` only.

    ``content`` is their canonical JSON: equal for files that differ in comments, blanks or the order of keys.
    ``version_id`` is the first 12 hex digits of its SHA-256, stored with each decision.
    """

    rule: tuple[Rule, ...]
    content: str
    version_id: str


def default_rules_text() -> str:
    """The shipped rule file, annotated."""
    return resources.files("ratelimit").joinpath("default_rules.toml").read_text(encoding="utf-8")


def load_rules(text: str, source: str) -> Rules:
    """Decode a rule file. ``source`` is its name for messages.

    Raises `RulesError` for whatever is not understood completely: unknown keys, effects, channels and
    currencies, two rules with one id, two ages for one category, numbers out of range.
    """
    try:
        document = tomllib.loads(text)
    # ValueError: TOML errors, and an integer of thousands of digits.
    except (ValueError, RecursionError) as error:
        raise RulesError(source, f"not TOML: {error}") from None
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
    _refuse_repeated(source, rules)
    content = msgspec.json.encode({"version": FORMAT_VERSION, "rule": rules}, order="deterministic")
    return Rules(rules, content.decode(), hashlib.sha256(content).hexdigest()[:12])


def _rule(source: str, place: int, table: dict[str, Any]) -> Rule:
    name = _id(source, place, table)
    effect = table.get("effect")
    if effect is None:
        raise RulesError(source, f"is missing; one of {_listed(_KINDS)}", rule=name, key="effect")
    if not isinstance(effect, str) or effect not in _KINDS:
        message = f"{effect!r} is not known{_nearest(effect, _KINDS)}"
        raise RulesError(source, message, rule=name, key="effect")
    kind = _KINDS[effect]
    fields = msgspec.structs.fields(kind)
    _refuse_unknown(source, name, table, ("effect", *(field.name for field in fields)))
    for field in fields:
        if field.required and field.name not in table:
            raise RulesError(source, "is missing", rule=name, key=field.name)
    for key, allowed in _CHOICES.items():
        if key in table and table[key] not in allowed:
            raise RulesError(source, f"{table[key]!r} is not known{_nearest(table[key], allowed)}", rule=name, key=key)
    if kind is MinAmount:
        _check_amounts(source, name, table["amounts"])
    try:
        rule = msgspec.convert(table, kind)
    except msgspec.ValidationError as error:
        found = _PATH.fullmatch(str(error))
        what, path = (found["what"], found["path"]) if found else (str(error), None)
        raise RulesError(source, what.replace("`", "").lower(), rule=name, key=path) from None
    if isinstance(rule, ExpireAfter) and not 1 <= rule.total_seconds <= MAX_EXPIRE_AFTER_SECONDS:
        message = f"hours, minutes and seconds must add up to 1 … {MAX_EXPIRE_AFTER_SECONDS} seconds"
        raise RulesError(source, message, rule=name)
    return rule


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


def _check_amounts(source: str, name: str, amounts: object) -> None:
    if not isinstance(amounts, dict) or not amounts:
        message = "must be a table of currencies and amounts, such as { CNY = 10000 }"
        raise RulesError(source, message, rule=name, key="amounts")
    for code, amount in amounts.items():
        key = f"amounts.{code if _CODE.fullmatch(code) else repr(code)}"
        if not _CODE.fullmatch(code) or not is_known(code):
            # No nearest one here: of three hundred codes of three letters it is mostly a wrong one.
            raise RulesError(source, "is not a currency of ISO 4217", rule=name, key=key)
        if type(amount) is not int or not 0 <= amount <= MAX_INT64:
            message = f"{amount!r} must be a whole number of minor units, 0 or more"
            raise RulesError(source, message, rule=name, key=key)


def _refuse_unknown(source: str, rule: str | None, table: dict[str, Any], known: Iterable[str]) -> None:
    known = tuple(known)
    for key in table:
        if key not in known:
            raise RulesError(source, f"key {key!r} is not known{_nearest(key, known)}", rule=rule)


def _refuse_repeated(source: str, rules: tuple[Rule, ...]) -> None:
    ids: set[str] = set()
    expiries: dict[str, str] = {}
    for rule in rules:
        if rule.id in ids:
            raise RulesError(source, "two rules have this id", rule=rule.id, key="id")
        ids.add(rule.id)
        if isinstance(rule, ExpireAfter):
            other = expiries.setdefault(rule.category, rule.id)
            if other != rule.id:
                message = f"{rule.category!r} already expires by rule {other}"
                raise RulesError(source, message, rule=rule.id, key="category")


def _nearest(word: object, known: Iterable[str]) -> str:
    near = get_close_matches(str(word), list(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; allowed: {_listed(known)}"


def _listed(words: Iterable[str]) -> str:
    return ", ".join(words)
