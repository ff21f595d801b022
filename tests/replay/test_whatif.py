"""What-if: unchanged rules predict what happened, changed ones what a plain recount says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from dispatcher.ledger.api import Admission
from dispatcher.ledger.sqlite_history import history
from dispatcher.model.consent import ConsentChange
from dispatcher.model.heard import Heard
from dispatcher.model.recipient import Consent
from ratelimit.brownout import BrownOutTerms
from ratelimit.rules import load_rules
from replay import prediction as module
from replay.decided import Decided
from replay.prediction import Prediction
from replay.whatif import DAY_MS, HOUR_MS, RecordedBrownOut, warm_up_ms
from tests.dispatcher.ledger_kit import step
from tests.replay.whatif_kit import START, Bank, event, ms, people, traffic

RULES = """
version = 1
[[rule]]
id = "sms-from-100"
effect = "min_amount"
channel = "sms"
amounts = { CNY = 10000 }
[[rule]]
id = "same-twice"
effect = "dedup"
minutes = 30
[[rule]]
id = "night"
effect = "quiet_hours"
from = "22:00"
to = "08:00"
when = { category = ["service", "promotion"] }
[[rule]]
id = "service-gap"
effect = "min_gap"
hours = 6
at_gap = "hold"
when = { category = "service" }
[[rule]]
id = "service-twice-a-week"
effect = "cap"
limit = 2
per = "recipient"
window = "week"
at_cap = "hold"
when = { category = "service" }
[[rule]]
id = "promotion-monthly"
effect = "cap"
limit = 2
per = "recipient"
window = "month"
when = { category = "promotion" }
[[rule]]
id = "ten-in-two-days"
effect = "cap"
limit = 10
per = "account"
rolling_hours = 48
when = { category = "swipe" }
[[rule]]
id = "four-a-day"
effect = "cap"
limit = 4
per = "recipient"
window = "day"
at_cap = "digest"
digest = { at = "20:00", count = 3 }
when = { category = "swipe" }
[[rule]]
id = "sms-three-a-day"
effect = "cap"
limit = 3
per = "account"
rolling_hours = 24
channel = "sms"
[[rule]]
id = "long"
effect = "expire_after"
category = "service"
hours = 72
"""

DAILY = """
version = 1
[[rule]]
id = "daily"
effect = "cap"
limit = {limit}
per = "account"
window = "day"
"""


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bank]:
    """Three weeks of about 700 events for twelve accounts, all rules at work; it is only read."""
    made = Bank(tmp_path_factory.mktemp("bank") / "ledger.db", RULES)
    made.recipients(*people(12))
    for moment, batch in traffic(700, 12, 21):
        made.admit(moment, *batch)
    yield made
    made.store.close()


def recorded(path: str, since: datetime, until: datetime) -> Counter[tuple[str, str]]:
    with history(path) as past:
        alerts = [alert for batch in past.between(ms(since), ms(until)) for event in batch for alert in event.alerts]
    return Counter(("sent", alert.route[0]) if alert.state == "send" else (alert.state, alert.rule) for alert in alerts)


@pytest.mark.parametrize("skipped_days", [0, 0.7, 5, 13.3, 20])
def test_unchanged_rules_predict_exactly_what_happened(bank: Bank, skipped_days: float) -> None:
    # Given a period that begins at once, or in the middle of all windows
    since, until = START + timedelta(days=skipped_days), START + timedelta(days=30)
    # When it is predicted with the rules that were in force
    prediction = bank.what_if(RULES, since, until)
    # Then not one alert differs, and both sides are what stands in the ledger
    assert prediction.changed == 0
    assert prediction.recorded.counts == prediction.predicted.counts == recorded(bank.path, since, until)
    assert prediction.recorded.wechat_days == prediction.predicted.wechat_days
    assert prediction.most_affected() == []
    assert len(prediction.rulesets) == 1


def test_the_traffic_of_these_tests_meets_every_rule(bank: Bank) -> None:
    # Given the whole period, Then each rule has decided something, or the test above would prove little
    counts = recorded(bank.path, START, START + timedelta(days=30))
    decided = {name for _, name in counts}
    assert decided >= {rule.id for rule in bank.rules.rule} - {"sms-from-100", "sms-three-a-day"}
    assert {state for state, _ in counts} == {"sent", "held", "suppressed", "folded", "expired"}
    # And the cap of one channel: some large swipes went by WeChat alone
    with history(bank.path) as past:
        routes = Counter(
            a.route for b in past.between(0, ms(START) * 2) for e in b for a in e.alerts if a.state == "send"
        )
    assert routes["wechat",] > 0
    assert routes["wechat", "sms"] > 0


@pytest.mark.parametrize("limit", [1, 3])
def test_a_changed_cap_differs_by_what_a_plain_loop_counts(bank: Bank, limit: int) -> None:
    # Given a draft with nothing but a cap a day and account
    since, until = START + timedelta(days=3), START + timedelta(days=9)
    prediction = bank.what_if(DAILY.format(limit=limit), since, until)
    # When the events are gone through by hand: what was told before the period counts, then the first of each day
    told: Counter[tuple[str, str]] = Counter()
    counts: Counter[str] = Counter()
    with history(bank.path) as past:
        for batch in past.between(0, ms(until)):
            for one in batch:
                if one.id.startswith("swipebell:digest:"):  # no cap counts it, and the draft folds nothing
                    continue
                for alert in one.alerts:
                    at = one.accepted_at
                    assert alert.recipient is not None
                    if at < ms(since):
                        if alert.state in ("send", "held"):
                            told[one.account, _day(alert.until or at, alert.recipient.timezone)] += 1
                        continue
                    if at - one.swiped_at >= DAY_MS:
                        counts["expired"] += 1
                        continue
                    key = (one.account, _day(at, alert.recipient.timezone))
                    counts["sent" if told[key] < limit else "suppressed"] += 1
                    told[key] += 1
    # Then the prediction says the same
    assert {kind: prediction.predicted.total(kind) for kind in ("sent", "suppressed", "expired")} == dict(counts)
    assert prediction.predicted.total("held") == prediction.predicted.total("folded") == 0
    assert prediction.changed > 0


def _day(at_ms: int, zone: str) -> str:
    return datetime.fromtimestamp(at_ms / 1000, ZoneInfo(zone)).date().isoformat()


def test_without_any_rule_everything_is_told(bank: Bank) -> None:
    # Given a draft that says nothing, When the digests' rule is gone with it, Then everything is sent but what is old
    prediction = bank.what_if("version = 1\n", START, START + timedelta(days=30))
    assert prediction.predicted.total("sent") + prediction.predicted.total("expired") == prediction.alerts
    # And the difference of an account is what it was not told
    for _, one in prediction.most_affected():
        assert one.changed >= one.told_predicted - one.told_recorded


def test_brown_outs_are_as_they_were(tmp_path: Path) -> None:
    # Given a bank whose quota ran low for a while
    brownout = RecordedBrownOut(BrownOutTerms({"CNY": 10_000}, {"CNY": 30_000}, {"CNY": 500_000}, frozenset({"fraud"})))
    bank = Bank(tmp_path / "ledger.db", DAILY.format(limit=4), {"wechat": brownout})
    bank.recipients(*people(4))
    for place, (moment, batch) in enumerate(traffic(120, 4, 3)):
        brownout.level = place // 4 % 4
        bank.admit(moment, *batch)
    # When it is predicted, with the same rules and with none
    same = bank.what_if(DAILY.format(limit=4), START, START + timedelta(days=5))
    none = bank.what_if("version = 1\n", START, START + timedelta(days=5))
    # Then the same alerts were degraded
    degraded = [name for _, name in same.recorded.counts if name.startswith("brown-out")]
    assert degraded
    assert same.changed == 0
    assert none.predicted.counts["suppressed", "brown-out"] == none.recorded.counts["suppressed", "brown-out"]
    bank.store.close()


@pytest.mark.parametrize("then", ["hold", "suppress"])
def test_what_a_reversal_ended_at_once_counts_as_what_the_rules_say(tmp_path: Path, then: str) -> None:
    # Given a purchase at night and its reversal in one batch, so that the ledger only knows that both ended
    rules = (
        f'version = 1\n[[rule]]\nid = "night"\neffect = "quiet_hours"\nfrom = "00:00"\nto = "23:00"\nthen = "{then}"\n'
    )
    bank = Bank(tmp_path / "ledger.db", rules)
    bank.recipients(*people(2))
    bank.admit(START, event(1, START, "A-1"), event(2, START, "A-1", type="reversal", refers_to="e-1", amount=-5000))
    # When both are predicted with the same rules, Then nothing differs, whatever the rules had said
    prediction = bank.what_if(rules, START, START + timedelta(days=1))
    assert prediction.changed == 0
    assert prediction.alerts == 2
    # And rules that would have suppressed them differ, as far as they had not been suppressed
    prediction = bank.what_if(rules.replace(then, "suppress"), START, START + timedelta(days=1))
    assert prediction.changed == (2 if then == "hold" else 0)
    bank.store.close()


def test_a_change_of_the_rules_inside_the_period_is_known(tmp_path: Path) -> None:
    # Given rules that changed after the first day
    bank = Bank(tmp_path / "ledger.db", DAILY.format(limit=1))
    bank.recipients(*people(2))
    for place in range(6):
        if place == 3:
            bank.put_in_force(DAILY.format(limit=2))
        moment = START + timedelta(hours=place)
        bank.admit(moment, event(place, moment, "A-1"))
    # When the first ones are the draft, Then both versions are named, each with its alerts
    prediction = bank.what_if(DAILY.format(limit=1), START, START + timedelta(days=1))
    assert sorted(prediction.rulesets.values()) == [3, 3]
    assert prediction.changed == 1
    ((account, one),) = prediction.most_affected()
    assert (account, one.changed, one.told_recorded, one.told_predicted) == ("A-1", 1, 1, 0)
    bank.store.close()


def test_storms_are_predicted_exactly(tmp_path: Path) -> None:
    # Given a rule against bursts, and an account for which a faulty source rings and rings
    rules = DAILY.format(limit=50) + (
        '[[rule]]\nid = "burst"\neffect = "storm"\nfingerprint = ["merchant", "amount"]\nlimit = 3\nminutes = 60\n'
        "sample = 4\n"
    )
    bank = Bank(tmp_path / "ledger.db", rules)
    bank.recipients(*people(4))
    for number in range(60):
        moment = START + timedelta(minutes=4 * number)
        bank.admit(moment, event(number, moment, f"A-{number % 2}", merchant="m", amount=5000))
    # When the period begins in the middle of the burst
    for hours in (0, 1.5, 2.9):
        prediction = bank.what_if(rules, START + timedelta(hours=hours), START + timedelta(days=1))
        # Then the same events were held, and the same ones passed as samples
        assert prediction.recorded.counts["held", "burst"] > 0
        assert prediction.changed == 0
    bank.store.close()


def test_the_day_of_a_swipe_that_came_late_is_counted_from_its_beginning(tmp_path: Path) -> None:
    # Given a rule against bursts that spares the first five of a day, and an account with six swipes early in it
    rules = (
        'version = 1\n[[rule]]\nid = "burst"\neffect = "storm"\nfingerprint = "merchant"\nlimit = 10\nminutes = 60\n'
    )
    bank = Bank(tmp_path / "ledger.db", rules)
    bank.recipients(*people(2))
    for number in range(6):
        moment = START + timedelta(hours=1, minutes=number)
        bank.admit(moment, event(number, moment, "A-1", merchant=f"m{number}"))
    # And a burst of the same day, hours after them, that came nearly a day late
    late = START + timedelta(hours=10)
    for number in range(6, 22):
        moment = late + timedelta(hours=23, minutes=50, seconds=number)
        bank.admit(moment, event(number, late, "A-1", merchant="m"))
    # When the period begins before the burst: more than a day after the six
    prediction = bank.what_if(rules, late + timedelta(hours=23, minutes=48), START + timedelta(days=3))
    # Then the same ones of the burst are held
    assert prediction.recorded.counts["held", "burst"] == 6
    assert prediction.changed == 0
    bank.store.close()


def test_a_channel_that_was_full_before_the_period_is_not_counted_again(tmp_path: Path) -> None:
    # Given one SMS in any 24 hours: the first swipe took it, so the second, 23 hours later, had WeChat alone
    rules = (
        'version = 1\n[[rule]]\nid = "one-sms"\neffect = "cap"\nlimit = 1\nper = "account"\nrolling_hours = 24\n'
        'channel = "sms"\n'
    )
    bank = Bank(tmp_path / "ledger.db", rules)
    bank.recipients(*people(2))
    for number, hours in enumerate((0, 23, 25)):
        moment = START + timedelta(hours=hours)
        bank.admit(moment, event(number, moment, "A-1"))
    # When a period begins so that only the second one is looked at before it
    prediction = bank.what_if(rules, START + timedelta(hours=24.5), START + timedelta(days=3))
    # Then the third may take SMS, as it did
    assert prediction.changed == 0
    assert prediction.alerts == 1
    bank.store.close()


def test_what_became_of_a_recipient_since_is_not_known_before(tmp_path: Path) -> None:
    # Given a recipient who, hour by hour, agrees to promotions, is refused by WeChat, follows again and writes to the
    # bank
    rules = 'version = 1\n[[rule]]\nid = "agreed"\neffect = "consent"\ncategory = "promotion"\nmode = "opt-in"\n'
    bank = Bank(tmp_path / "ledger.db", rules)
    bank.recipients(*people(2))
    store = bank.store

    def tell(hour: int) -> Admission:
        moment = START + timedelta(hours=hour)
        return bank.admit(moment, event(hour, moment, "A-1", category="promotion"))

    def at(hour: float) -> int:
        return ms(START + timedelta(hours=hour))

    tell(1)
    store.begin()
    store.consent([ConsentChange(account="A-1", key="promotion", consent=Consent(True, at(0), "form 1"))], at(1.5))
    store.commit()
    (alert,) = tell(2).alerts
    gone = {"reason": "recipient-gone", "outcome": "recipient_gone", "code": "43004", "refusal": "wechat"}
    store.begin()
    store.record([step(alert, "failed", at_ms=at(2.5), **gone)], bank.owner)
    store.commit()
    tell(3)
    store.begin()
    store.heard([Heard("o-1", "follow", at(3.5)), Heard("o-1", "message", at(4.5))], at(4.5))
    store.commit()
    tell(5)
    # When all of it is predicted afterwards, Then each event meets the recipient as it was
    with history(bank.path) as past:
        routes = [alert.route for batch in past.between(0, at(99)) for one in batch for alert in one.alerts]
    assert routes == [(), ("wechat", "sms"), ("sms",), ("wechat_service", "wechat", "sms")]
    prediction = bank.what_if(rules, START, START + timedelta(days=1))
    # But for the one between the refusal and the follow, of which the card knows nothing any more
    assert prediction.changed == 1
    assert prediction.predicted.counts["sent", "sms"] == 0
    store.close()


def test_of_very_many_accounts_the_most_affected_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    # Given room for few accounts
    monkeypatch.setattr(module, "MAX_ACCOUNTS", 10)
    prediction = Prediction()
    sent, kept = Decided("send", "", ("wechat",), None), Decided("suppressed", "daily", (), None)
    # When one of many is affected again and again
    for number in range(100):
        prediction.compare(f"A-{number}", 0, sent, kept)
        prediction.compare("B", 0, sent, kept)
    # Then it is the first one named, with all that it was not told, and memory stayed bounded
    assert prediction.most_affected()[0][0] == "B"
    assert prediction.most_affected()[0][1].told_recorded == prediction.most_affected()[0][1].changed == 100
    assert len(prediction.accounts) <= 10
    assert prediction.changed == 200


def test_an_account_without_recipients_stays_one(tmp_path: Path) -> None:
    # Given an event that had nobody to tell, and a recipient who came later
    bank = Bank(tmp_path / "ledger.db", DAILY.format(limit=1))
    bank.admit(START, event(1, START, "A-1"))
    bank.recipients(*people(2))
    later = START + timedelta(hours=1)
    bank.admit(later, event(2, later, "A-1"))
    # Then the later one is not told of the earlier event
    prediction = bank.what_if(DAILY.format(limit=1), START, START + timedelta(days=1))
    assert prediction.predicted.counts == {("suppressed", "no-recipient"): 1, ("sent", "wechat"): 1}
    assert prediction.changed == 0
    bank.store.close()


@pytest.mark.parametrize(
    ("rule", "expected_ms"),
    [
        ('effect = "min_amount"\nchannel = "sms"\namounts = { CNY = 1 }', 0),
        ('effect = "cap"\nlimit = 1\nper = "account"\nwindow = "week"', 7 * DAY_MS + HOUR_MS),
        ('effect = "cap"\nlimit = 1\nper = "account"\nwindow = "month"\nat_cap = "hold"', 32 * DAY_MS + HOUR_MS),
        ('effect = "min_gap"\nhours = 6', 6 * HOUR_MS),
        ('effect = "dedup"\nminutes = 5', 300_000),
        ('effect = "storm"\nvolume_times = 3.0\nat_least = 10', 8 * DAY_MS),
        ('effect = "storm"\nfingerprint = "merchant"\nlimit = 3\nminutes = 5', 2 * DAY_MS + HOUR_MS),
    ],
)
def test_it_begins_to_count_as_early_as_the_longest_window_needs(rule: str, expected_ms: int) -> None:
    rules = load_rules(f'version = 1\n[[rule]]\nid = "one"\n{rule}\n', "t")
    assert warm_up_ms(rules.rule) == expected_ms


def test_the_days_of_the_quota_are_those_of_china(tmp_path: Path) -> None:
    # Given an alert before and one after midnight in China
    bank = Bank(tmp_path / "ledger.db", "version = 1\n")
    bank.recipients(*people(2))
    for number, hour in enumerate((15, 17)):
        moment = START.replace(hour=hour)
        bank.admit(moment, event(number, moment, "A-1"))
    prediction: Prediction = bank.what_if("version = 1\n", START, START + timedelta(days=2))
    assert prediction.days() == [("2026-10-20", 1, 1), ("2026-10-21", 1, 1)]
    bank.store.close()
