"""Storm rules: bursts of one fingerprint, and hours with far more than usual."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from ratelimit.rules import Decider, Tally, default_rules_text, load_rules
from tests.ratelimit.book_kit import DAY_MS, HOUR_MS, MINUTE_MS, Book, a_recipient, an_event, at, rule

NOW = at("2026-11-28T04:00Z")  # noon in Shanghai
MORNING = datetime(2026, 11, 28, 1, tzinfo=UTC)
BURST = {"fingerprint": '["merchant", "amount"]', "limit": "2", "minutes": "10"}


def test_a_burst_is_held_from_its_limit_on_and_counts_nothing_else() -> None:
    # Given at most 2 of one fingerprint in ten minutes, and a cap
    book = Book(rule("storm", **BURST), rule("cap", limit="9", per='"account"', window='"day"'))
    # When one swipe comes five times
    decisions = [book.one(NOW, event=an_event(id=f"e{number}")) for number in range(5)]
    # Then the first of the day is not looked at, two more may pass, and the others are held for as long as they live
    assert [decision.state for decision in decisions] == ["send", "send", "send", "held", "held"]
    held = decisions[-1]
    assert (held.rule, held.send_ms, held.route) == ("storm", held.expires_at_ms, ("wechat", "sms"))
    assert held.saw == {"counter": 3, "limit": 2, "storm": 1}
    assert (held.increments, held.times) == ((), ())
    assert book.counters["cap|cap|2026-11-28|A1"] == 3
    # And the money has moved five times
    assert book.totals["day|Asia/Shanghai|2026-11-28|CNY|A1"] == (5 * 12_300, 5)
    # And another swipe of the account passes, and the same one in the next ten minutes
    assert book.one(NOW, event=an_event(amount=1)).state == "send"
    assert book.one(NOW + 10 * MINUTE_MS).state == "send"


def test_the_first_of_a_day_are_spared_half_as_many_as_the_limit() -> None:
    # Given at most six in ten minutes, and an account of two recipients in one zone
    book = Book(rule("storm", **BURST | {"limit": "6"}))
    both = [a_recipient(id=1), a_recipient(id=2)]
    # When two other purchases come on a day, and then one again and again
    for number in range(2):
        assert book.one(NOW, event=an_event(id=f"d{number}", amount=1 + number)).state == "send"
    states = [[one.state for one in book.tell(NOW, *both, event=an_event(id=f"e{number}"))] for number in range(10)]
    # Then the first of the burst is the third event of the day, is not looked at either, and six more may pass
    assert states == [["send"] * 2] * 7 + [["held"] * 2] * 3
    assert book.totals["day|Asia/Shanghai|2026-11-28|CNY|A1"] == (10 * 12_300 + 3, 12)


def test_a_limit_of_one_spares_nothing() -> None:
    book = Book(rule("storm", **BURST | {"limit": "1"}))
    assert [book.one(NOW, event=an_event(id=f"e{number}")).state for number in range(3)] == ["send", "held", "held"]


def test_one_in_so_many_of_a_burst_is_told() -> None:
    # Given one in three beyond the limit
    book = Book(rule("storm", sample="3", **BURST))
    states = [book.one(NOW, event=an_event(type="decline")).state for _ in range(9)]
    # Then every third of the storm passes; a decline moves no money and is looked at from the first on
    held = ["held", "held", "send"]
    assert states == ["send", "send", *held, *held, "held"]


def test_a_storm_counts_events_and_not_who_is_told() -> None:
    # Given an account with three recipients, one of whom is told nothing
    book = Book(rule("storm", **BURST))
    told = [a_recipient(id=1, opt_out=("swipe",)), a_recipient(id=2), a_recipient(id=3, timezone="America/New_York")]
    states = [[each.state for each in book.tell(NOW, *told, event=an_event(id=f"e{n}"))] for n in range(4)]
    # Then each event has counted once, and the storm holds back whoever would have been told
    assert states == [["suppressed", "send", "send"]] * 3 + [["suppressed", "held", "held"]]


def test_what_nobody_is_told_is_no_storm() -> None:
    # Given events that end before anybody asks about storms, when many come, then none is counted
    book = Book(rule("storm", **BURST))
    for _ in range(5):
        assert book.one(NOW, a_recipient(openid=None, phone=None)).state == "suppressed"
    assert [key for key in book.counters if key.startswith("storm|")] == []


def test_of_two_storm_rules_the_first_that_holds_decides() -> None:
    # Given two rules, of which the second has the lower limit
    other = BURST | {"fingerprint": '"merchant"', "limit": "1"}
    book = Book(rule("storm", **BURST), rule("storm", id='"shop"', **other))
    rules = [book.one(NOW, event=an_event(id=f"e{n}")).rule for n in range(5)]
    assert rules == ["", "shop", "shop", "storm", "storm"]
    # And the second has counted only what the first let pass
    counted = {key.split("|")[1]: value for key, value in book.counters.items() if key.startswith("storm|")}
    assert counted == {"storm": 4, "shop": 3}


def test_an_ordinary_swipe_reads_no_storm_counter_and_writes_none() -> None:
    # Given a batch of first swipes of the day, by different accounts, and one account that comes twice
    book = Book(rule("storm", **BURST))
    events = [an_event(id=f"e{n}", account=f"A{n % 9}") for n in range(10)]
    book.decide([(event, [book.decider.plan(event, NOW, a_recipient(), NOW)]) for event in events])
    # Then there is one read for all day totals and one for the only storm counter
    assert book.reads == [9, 1]
    assert len([key for key in book.counters if key.startswith("storm|")]) == 1


def test_the_storm_guard_of_the_shipped_rules_leaves_an_ordinary_swipe_on_the_short_path() -> None:
    # Given the shipped rules and a first swipe of the day
    decider = Decider(load_rules(default_rules_text(), "rules.toml"), ("wechat", "sms"))
    plan = decider.plan(an_event(), NOW, a_recipient(), NOW)
    # Then nothing is asked but its day total, and the decision is the planned one itself
    assert (plan.asked, plan.counters) == (None, ())
    tally = Tally(lambda keys: {}, lambda keys: {}, lambda keys: {})
    assert tally.decide_event(an_event(), [plan])[0] is plan.decided
    assert (tally.changed, list(tally.changed_totals)) == ({}, ["day|Asia/Shanghai|2026-11-28|CNY|A1"])


def test_one_transaction_again_and_again_is_a_storm_and_the_same_purchase_again_is_none() -> None:
    # Given the shipped guard, and a machine that sells the same thing to one card every second
    text = default_rules_text()
    guarded = Book(text[text.index("[[rule]]") :])
    bought = [
        guarded.one(NOW + n * 1000, event=an_event(id=f"e{n}", time=MORNING + timedelta(seconds=n))).state
        for n in range(30)
    ]
    # Then every purchase is told
    assert bought == ["send"] * 30
    # When one transaction comes thirty times under new ids, then most of them wait, and one in ten is told
    again = [guarded.one(NOW, event=an_event(id=f"f{n}", time=MORNING + timedelta(days=1))).state for n in range(30)]
    assert again == ["send"] * 10 + (["held"] * 9 + ["send"]) * 2


VOLUME = {"volume_times": "1.5", "at_least": "3", "when": '{ category = "swipe" }'}


def test_an_hour_with_far_more_than_usual_is_held() -> None:
    # Given an hour that had 2 and 3 swipes on two of the last seven days, and 100 on the eighth
    book = Book(rule("storm", **VOLUME))
    for days, number in ((1, 2), (7, 3), (8, 100)):
        book.counters[f"volume|storm|{NOW // HOUR_MS - 24 * days}|"] = number
    # When more come than 1.5 times their mean, which is 3.75
    states = [book.one(NOW, event=an_event(account=f"A{number}")).state for number in range(6)]
    # Then what is beyond four is held
    assert states == ["send"] * 4 + ["held"] * 2
    # And the next hour is its own
    assert book.one(NOW + HOUR_MS).state == "send"


def test_a_small_hour_and_one_without_a_past_are_no_storm() -> None:
    # Given an hour of which nothing is known, when 9 come, then all are told
    book = Book(rule("storm", **VOLUME))
    assert {book.one(NOW).state for _ in range(9)} == {"send"}
    # And the same hour of the next day is measured by it: 13.5 are usual
    states = [book.one(NOW + DAY_MS).state for _ in range(15)]
    assert states == ["send"] * 14 + ["held"]
    # And an hour that has had one swipe may have three
    book.counters = {f"volume|storm|{NOW // HOUR_MS - 24}|": 1}
    assert [book.one(NOW).state for _ in range(4)] == ["send"] * 3 + ["held"]


def test_what_a_storm_holds_is_not_usual_the_next_day() -> None:
    # Given an hour that had 10 swipes yesterday, and one in five beyond 15 that is told
    book = Book(rule("storm", sample="5", **VOLUME))
    book.counters = {f"volume|storm|{NOW // HOUR_MS - 24}|": 10}
    # When 1,000 come, in batches of several and one by one
    decider = book.decider
    states: list[str] = []
    for size in (900, *[1] * 100):
        events = [an_event(id=f"e{len(states) + n}", account=f"A{len(states) + n}") for n in range(size)]
        plans = [(event, [decider.plan(event, NOW, a_recipient(), NOW)]) for event in events]
        states += [each.state for (each,) in book.decide(plans)]
    # Then 15 and every fifth of the others are told
    assert states == ["send"] * 15 + ["held", "held", "held", "held", "send"] * 197
    # And the next day's measure is the mean of what was told: of 10 and 212, and not of 10 and 1,000
    assert book.one(NOW + DAY_MS, event=an_event(id="f")).state == "send"
    book.counters[f"volume|storm|{NOW // HOUR_MS + 24}|"] = 167
    held = book.one(NOW + DAY_MS, event=an_event(id="g"))
    assert (held.state, held.saw) == ("held", {"counter": 167, "limit": 167, "storm": 1})


def test_what_another_storm_rule_holds_is_not_usual_either() -> None:
    # Given a volume rule before one about bursts, and yesterday's hour
    book = Book(rule("storm", id='"hour"', **VOLUME), rule("storm", id='"burst"', **BURST))
    book.counters = {f"volume|hour|{NOW // HOUR_MS - 24}|": 100}
    # When a burst comes of which all but three are held
    rules = [book.one(NOW, event=an_event(id=f"e{number}")).rule for number in range(10)]
    assert rules == [""] * 3 + ["burst"] * 7
    # Then three belong to the hour, and ten have come in it
    kept = {key: value for key, value in book.counters.items() if key.startswith(f"volume|hour|{NOW // HOUR_MS}|")}
    assert kept == {f"volume|hour|{NOW // HOUR_MS}|": 3, f"volume|hour|{NOW // HOUR_MS}|held": 7}


def test_a_storm_of_some_looks_at_those_only() -> None:
    # Given a storm rule for one country
    book = Book(rule("storm", when='{ country = "US" }', **BURST))
    states = [book.one(NOW, event=an_event(country=country)).state for country in ("US", "CN") for _ in range(4)]
    assert states == ["send"] * 3 + ["held"] + ["send"] * 4
