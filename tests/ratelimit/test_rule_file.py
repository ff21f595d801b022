"""The rule file: the shipped one, its version, and a message for everything that can be wrong with it."""

from __future__ import annotations

import pytest

from ratelimit.effects import Cap, ConsentRule, Digest, ExpireAfter, Priority, Storm
from ratelimit.errors import RulesError
from ratelimit.match import may_match
from ratelimit.rulefile import MAX_RULES, default_rules_text, load_content, load_rules

CAP = '[[rule]]\nid = "daily-cap"\neffect = "cap"\nlimit = 20\nper = "account"\nwindow = "day"\n'
AGE = '[[rule]]\nid = "age"\neffect = "expire_after"\ncategory = "swipe"\n'
EFFECTS = "min_amount, cap, min_gap, dedup, quiet_hours, consent, expire_after, route, priority, storm"
MINIMUM = '[[rule]]\nid = "sms"\neffect = "min_amount"\nchannel = "sms"\n'


def test_the_shipped_rules_are_those_that_a_card_business_starts_from() -> None:
    # Given the shipped file, when it is loaded
    rules = load_rules(default_rules_text(), "default_rules.toml")
    # Then swipes have a minimum on SMS, an age and a storm guard, and no other rule can match them
    swipes = [rule.id for rule in rules.rule if may_match(rule.when, "swipe", "purchase", "CNY")]
    assert swipes == ["sms-from-100", "swipe-expiry", "storm-guard", "promotion-consent"]
    assert [rule.category for rule in rules.rule if isinstance(rule, ConsentRule)] == ["promotion"]
    # And nothing in it is in vain
    assert rules.warnings == ()


def test_the_commented_examples_of_the_shipped_rules_are_right_once_uncommented() -> None:
    # Given the shipped file with its examples uncommented
    head, examples = default_rules_text().split("# ---- Examples")
    blocks = [block.replace("# ", "") for block in examples.split("\n\n") if "# [[rule]]" in block]
    blocks = [block[block.index("[[rule]]") :].replace("\n#\n", "\n") for block in blocks]
    # When it is loaded, then they are there
    rules = load_rules(head + "\n".join(blocks), "rules.toml")
    cap, priority, storm = rules.rule[-3:]
    assert cap == Cap(
        id="daily-cap", limit=20, per=("account",), window="day", at_cap="digest", digest=Digest(at="20:00")
    )
    assert isinstance(priority, Priority)
    assert isinstance(storm, Storm)
    assert storm.volume_times == 5.0
    assert rules.warnings == ()


ALL_EFFECTS = """
[[rule]]
id = "a"
effect = "cap"
limit = 3
per = ["recipient", "category"]
rolling_hours = 24
channel = "sms"
at_cap = "digest"
digest = { after_minutes = 60, count = 20 }
when = { category = "swipe", currency = ["CNY"], amount_from = 1, mcc = "58xx", declined = false, locale = "zh" }
[[rule]]
id = "b"
effect = "min_gap"
minutes = 1
at_gap = "hold"
[[rule]]
id = "c"
effect = "dedup"
hours = 1
fingerprint = "merchant"
[[rule]]
id = "d"
effect = "quiet_hours"
from = "22:00"
to = "08:00"
days = "sat"
[[rule]]
id = "e"
effect = "consent"
category = "promotion"
channel = "sms"
template = "sale"
mode = "opt-out"
[[rule]]
id = "f"
effect = "route"
when = { category = ["swipe"] }
channels = ["wechat", "sms"]
deadline_seconds = 30
[[rule]]
id = "g"
effect = "priority"
when = { type = "fraud" }
[[rule]]
id = "h"
effect = "storm"
fingerprint = ["merchant"]
limit = 5
minutes = 10
[[rule]]
id = "i"
effect = "expire_after"
category = "swipe"
hours = 1
say_late_minutes = 5
[[rule]]
id = "j"
effect = "min_amount"
channel = "sms"
amounts = { USD = 1, CNY = 2 }
"""


def test_the_canonical_form_is_read_back_as_the_same_rules() -> None:
    # Given a file with every effect, when what the ledger keeps of it is read again
    rules = load_rules(f"version = 1{ALL_EFFECTS}", "rules.toml")
    again = load_content(rules.content, "the ledger")
    # Then it is the same
    assert (again.rule, again.content, again.version_id) == (rules.rule, rules.content, rules.version_id)
    # And a word may be written as a list, and what has its default left out or not, with the same version
    other = ALL_EFFECTS.replace('"swipe", currency', '["swipe"], currency').replace('days = "sat"', 'days = ["sat"]')
    other = other.replace("rolling_hours = 24", "rolling_hours = 24\nrolling_minutes = 0").replace(
        "5\nmin", "5\nsample=0\nmin"
    )
    assert load_rules(f"version = 1{other}", "rules.toml").version_id == rules.version_id


@pytest.mark.parametrize("content", ["", "[]", "{}", "nonsense", '{"version": 1, "rule": [{"id": "a"}]}'])
def test_what_is_no_canonical_form_is_refused(content: str) -> None:
    with pytest.raises(RulesError, match=r"^the ledger: "):
        load_content(content, "the ledger")


def test_a_file_of_the_first_release_keeps_its_version() -> None:
    # Given the effects of the first release, as it wrote them down
    text = f"version = 1\n{AGE}minutes = 90\n{MINIMUM}amounts = {{ USD = 5, CNY = 10000 }}"
    # Then the canonical form has no key that was unknown then
    assert load_rules(text, "rules.toml").content == (
        '{"rule":[{"effect":"expire_after","id":"age","category":"swipe","hours":0,"minutes":90,"seconds":0},'
        '{"effect":"min_amount","id":"sms","channel":"sms","amounts":{"CNY":10000,"USD":5}}],"version":1}'
    )


def test_hours_minutes_and_seconds_add_up() -> None:
    # Given an age in three units
    rules = load_rules(f"version = 1\n{AGE}hours = 1\nminutes = 2\nseconds = 3", "rules.toml")
    # When it is asked for, then it is their sum
    (rule,) = rules.rule
    assert isinstance(rule, ExpireAfter)
    assert rule.total_seconds == 3723


def test_the_version_follows_the_content_and_not_the_layout() -> None:
    # Given one rule written in two ways, and the same with another limit
    one = load_rules(f"version = 1\n{CAP}", "a.toml")
    same = load_rules(
        'version=1 # same\n[[rule]]\nwindow="day"\nper="account"\nlimit=20\neffect="cap"\nid="daily-cap"',
        "b.toml",
    )
    other = load_rules(f"version = 1\n{CAP.replace('20', '21')}", "a.toml")
    # Then the version is that of the content: stored decisions depend on these digits staying as they are
    assert one.version_id == same.version_id == "a28da4c224fe"
    assert other.version_id != one.version_id
    assert one.content == same.content


def test_no_rules_are_rules_too() -> None:
    # Given a file without rules, when it is loaded, then nothing is restricted
    assert load_rules("version = 1", "rules.toml").rule == ()


BROKEN_FILES = [
    ("version = ", "not TOML: Invalid value (at end of document)"),
    (f"version = 1\nx = {'[' * 5000}", "not TOML: maximum recursion depth exceeded"),
    ("", "version: is missing; this release reads version = 1"),
    ("version = 2", "version: 2 is not known; this release reads version = 1"),
    ("version = true", "version: True is not known; this release reads version = 1"),
    ("version = 1\nrules = []", "key 'rules' is not known; did you mean 'rule'?"),
    ("version = 1\n[rule]\nid = 'a'", "rule: must be a list of tables, each headed [[rule]]"),
    ("version = 1\nrule = [1]", "rule: must be a list of tables, each headed [[rule]]"),
    ("version = 1\n" + "[[rule]]\n" * (MAX_RULES + 1), "rule: 257 rules; at most 256 are allowed"),
]
BAD_ID = "must be 1 to 64 lower case letters, digits and dashes"
NO_TABLE = "must be a table of currencies and amounts, such as { CNY = 10000 }"
NO_AMOUNT = "must be a whole number of minor units, 0 or more"
NO_AGE = "hours, minutes and seconds must add up to 1 … 2678400 seconds"
BROKEN_RULES = [
    (f"{CAP}[[rule]]\neffect = 'cap'", "rule number 2: id: is missing"),
    ("[[rule]]\nid = 'Über'", f"rule number 1: id: 'Über' {BAD_ID}"),
    ('[[rule]]\nid = "a\\nb"', f"rule number 1: id: 'a\\nb' {BAD_ID}"),
    ("[[rule]]\nid = 5", f"rule number 1: id: 5 {BAD_ID}"),
    (
        "[[rule]]\nid = 'opt-out'",
        "rule number 1: id: 'opt-out' is a reason of Swipebell's own; choose another",
    ),
    (f"{CAP}{CAP}", "rule daily-cap: id: two rules have this id"),
    ("[[rule]]\nid = 'a'", f"rule a: effect: is missing; one of {EFFECTS}"),
    ("[[rule]]\nid = 'a'\neffect = 'caps'", "rule a: effect: 'caps' is not known; did you mean 'cap'?"),
    ("[[rule]]\nid = 'a'\neffect = ['cap']", "rule a: effect: ['cap'] is not known; did you mean 'cap'?"),
    ("[[rule]]\nid = 'a'\neffect = 'zzz'", f"rule a: effect: 'zzz' is not known; allowed: {EFFECTS}"),
    (f"{CAP}limits = 3", "rule daily-cap: key 'limits' is not known; did you mean 'limit'?"),
    (CAP.replace("limit = 20", ""), "rule daily-cap: limit: is missing"),
    (CAP.replace("20", "0"), "rule daily-cap: limit: expected int >= 1"),
    (CAP.replace("20", "-3"), "rule daily-cap: limit: expected int >= 1"),
    (CAP.replace("20", "20.0"), "rule daily-cap: limit: expected int, got float"),
    (CAP.replace("20", "true"), "rule daily-cap: limit: expected int, got bool"),
    (CAP.replace("account", "acount"), "rule daily-cap: per: 'acount' is not known; did you mean 'account'?"),
    (CAP.replace('"day"', '"year"'), "rule daily-cap: window: 'year' is not known; allowed: day, week, month"),
    (CAP.replace('"day"', "['day']"), "rule daily-cap: window: ['day'] is not known; did you mean 'day'?"),
    (MINIMUM, "rule sms: amounts: is missing"),
    (f"{MINIMUM}amounts = {{}}", f"rule sms: amounts: {NO_TABLE}"),
    (f"{MINIMUM}amounts = 10000", f"rule sms: amounts: {NO_TABLE}"),
    (
        f"{MINIMUM}amounts = {{ RMB = 1 }}",
        "rule sms: amounts.RMB: is not a currency of ISO 4217",
    ),
    (f"{MINIMUM}amounts = {{ 'yuan' = 1 }}", "rule sms: amounts.'yuan': is not a currency of ISO 4217"),
    (f"{MINIMUM}amounts = {{ CNY = -1 }}", f"rule sms: amounts.CNY: -1 {NO_AMOUNT}"),
    (f"{MINIMUM}amounts = {{ CNY = 100.0 }}", f"rule sms: amounts.CNY: 100.0 {NO_AMOUNT}"),
    (f"{MINIMUM}amounts = {{ CNY = true }}", f"rule sms: amounts.CNY: True {NO_AMOUNT}"),
    (f"{MINIMUM}amounts = {{ CNY = {2**63} }}", f"rule sms: amounts.CNY: {2**63} {NO_AMOUNT}"),
    (
        MINIMUM.replace('"sms"\n', '"wechta"\n').replace('id = "wechta"', 'id = "w"') + "amounts = { CNY = 1 }",
        "rule w: channel: 'wechta' is not known; did you mean 'wechat'?",
    ),
    (AGE, f"rule age: {NO_AGE}"),
    (f"{AGE}hours = 745", f"rule age: {NO_AGE}"),
    (f"{AGE}hours = -1", "rule age: hours: expected int >= 0"),
    (
        f"{AGE}days = 1",
        "rule age: key 'days' is not known; allowed: effect, id, category, hours, minutes, seconds, say_late_minutes, "
        "when",
    ),
    (
        f"{AGE}hours = 1\n" + AGE.replace('"age"', '"later"') + "hours = 2",
        "rule later: category: 'swipe' already expires by rule age",
    ),
]


@pytest.mark.parametrize(("text", "message"), BROKEN_FILES + [(f"version = 1\n{t}", m) for t, m in BROKEN_RULES])
def test_a_broken_file_is_refused_with_a_message_that_says_where(text: str, message: str) -> None:
    # Given a broken rule file, when it is loaded
    with pytest.raises(RulesError) as caught:
        load_rules(text, "rules.toml")
    # Then the message names the file, the rule and the key, on one line
    said = str(caught.value)
    if message.startswith("not TOML: max"):
        said = said[: len(f"rules.toml: {message}")]  # the rest depends on the interpreter
    assert said == f"rules.toml: {message}"
    assert said.isprintable()
    assert caught.value.source == "rules.toml"


def test_a_number_of_ten_thousand_digits_is_refused() -> None:
    # Given a number that Python itself refuses to read, when it is loaded, then it is an error of the file
    with pytest.raises(RulesError, match=r"^rules\.toml: not TOML: "):
        load_rules(f"version = {'9' * 10_000}", "rules.toml")
