"""Each rule as a sentence."""

from __future__ import annotations

import pytest

from ratelimit.effects import KINDS
from ratelimit.rules import default_rules_text, load_rules
from replay.rule_sentences import say

SENTENCES = [
    (
        'effect = "min_amount"\nchannel = "sms"\namounts = { CNY = 10000, KRW = 20000 }',
        "on sms from 100.00 CNY, 20,000 KRW; other currencies have no minimum",
    ),
    (
        'effect = "cap"\nlimit = 2\nper = "recipient"\nwindow = "week"\nat_cap = "hold"\n'
        'when = { category = "service" }',
        "at most 2 a week per recipient of category service, by the recipient's calendar; further ones are held",
    ),
    (
        'effect = "cap"\nlimit = 10\nper = ["account", "merchant"]\nrolling_hours = 25\nrolling_minutes = 30\n'
        'channel = "sms"',
        "at most 10 in any 1 day 1 h 30 min per account and merchant on sms; further ones are not sent",
    ),
    (
        'effect = "cap"\nlimit = 5\nper = "account"\nwindow = "day"\nat_cap = "digest"\n'
        'digest = { at = "19:30", count = 20 }',
        "at most 5 a day per account, by the recipient's calendar; further ones are told together at 19:30 by the"
        " recipient's clock, or as soon as there are 20",
    ),
    (
        'effect = "min_gap"\nminutes = 10\nat_gap = "digest"\ndigest = { after_minutes = 60 }\n'
        'when = { type = ["fee", "cash"], declined = false }',
        "at least 10 min between two per recipient of type fee or cash that were not declined; further ones are told"
        " together 60 min after the first of them",
    ),
    (
        'effect = "dedup"\nminutes = 2\nfingerprint = ["merchant", "amount"]',
        "only one in 2 min of those with the same merchant and amount",
    ),
    (
        'effect = "quiet_hours"\nfrom = "22:00"\nto = "08:00"\ndays = ["fri", "sat"]\n'
        'when = { currency = "CNY", amount_below = 50000, role = "primary" }',
        "from 22:00 to 08:00 by the recipient's clock beginning on Friday or Saturday, those of currency CNY below"
        " 500.00 CNY for primary are held until 08:00",
    ),
    (
        'effect = "quiet_hours"\nfrom = "21:00"\nto = "08:00"\nthen = "pass"\nwhen = { category = "fraud" }',
        "from 21:00 to 08:00 by the recipient's clock, those of category fraud are sent, whatever later rules of"
        " quiet hours say",
    ),
    (
        'effect = "consent"\ncategory = "promotion"\nmode = "opt-in"\nchannel = "wechat"',
        "those of category promotion are sent on wechat only with the recipient's consent",
    ),
    (
        'effect = "expire_after"\ncategory = "swipe"\nhours = 24\nsay_late_minutes = 30',
        "those of category swipe are not sent later than 1 day after the swipe; says that it is late after 30 min",
    ),
    (
        'effect = "route"\nwhen = { category = "fraud", foreign = true }\nchannels = ["sms", "wechat"]\n'
        "deadline_seconds = 60",
        "those of category fraud in a foreign currency go on sms, then wechat, as far as the recipient has them; each"
        " waits 1 min",
    ),
    (
        'effect = "priority"\nwhen = { currency = "CNY", amount_from = 500000 }',
        "those of currency CNY from 5,000.00 CNY go first, and may use the reserve of the quota",
    ),
    (
        'effect = "storm"\nfingerprint = ["merchant", "amount"]\nlimit = 5\nminutes = 10\nsample = 100',
        "after 5 events with the same merchant and amount for one account (not counting the first 2 of its day) in 10"
        " min; the rest is held until somebody releases it, one in 100 of the rest is told",
    ),
    (
        'effect = "storm"\nvolume_times = 5.0\nat_least = 10000',
        "when an hour has more than 5 times what is usual at that hour and at least 10,000 events; the rest is held"
        " until somebody releases it, none of the rest is told",
    ),
]


@pytest.mark.parametrize(("rule", "sentence"), SENTENCES)
def test_a_rule_is_said_in_one_sentence(rule: str, sentence: str) -> None:
    # Given a file with this rule, When it is said, Then a product owner reads what it does
    (found,) = load_rules(f'version = 1\n[[rule]]\nid = "one"\n{rule}\n', "t").rule
    assert say(found) == sentence


def test_every_effect_has_its_sentence() -> None:
    # Given the sentences above, Then no effect of the format is missing among them
    said = {rule.split('"')[1] for rule, _ in SENTENCES}
    assert said == KINDS.keys()


def test_the_shipped_rules_can_be_said() -> None:
    for rule in load_rules(default_rules_text(), "shipped").rule:
        assert say(rule).strip() == say(rule)
