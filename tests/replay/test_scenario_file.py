"""The scenario file: what is read, and what is refused by name."""

from __future__ import annotations

import pytest

from replay.errors import ScenarioError
from replay.scenario_file import MAX_EVENTS, load_scenarios
from replay.times import moment_of

GOOD = """
rules = "rules.toml"
[[recipient]]
account = "a1"
timezone = "America/New_York"
channels = ["wechat", "sms"]
openid = "o1"
phone = "+8613800138000"

[[scenario]]
name = "a third notice is held"
  [[scenario.event]]
  at = "2026-11-01T10:00:00-05:00"
  category = "service"
  repeat = 3
  every_seconds = 60
  expect = { state = "held", rule = "twice", until = 2026-11-02T00:00:00-05:00 }
"""


def test_a_file_is_read_with_its_defaults() -> None:
    # When a file is read that leaves out what it does not care for
    found = load_scenarios(GOOD, "s.toml")
    (scenario,) = found.scenarios
    (happening,) = scenario.happenings
    # Then the account is the only one there is, and the repeats are a minute apart, with ids of their own
    events = [accepted.event for _, accepted in happening.events]
    assert [event.account for event in events] == ["a1"] * 3
    assert len({event.id for event in events}) == 3
    assert [moment_of(now_ms).minute for now_ms, _ in happening.events] == [0, 1, 2]
    # And the swipe is as old as its event: not at all
    assert [accepted.swiped_ms for _, accepted in happening.events] == [now_ms for now_ms, _ in happening.events]
    assert (events[0].amount, events[0].currency, events[0].type) == (0, "CNY", "purchase")
    # And a moment may be written with or without quotes
    assert happening.expected[0].until_ms == happening.events[0][0] + 14 * 3_600_000
    assert scenario.recipients[0].openid == "o1"


def test_the_swipe_may_be_older_than_its_event() -> None:
    text = GOOD.replace("repeat = 3", 'time = "2026-11-01T09:00:00-05:00"')
    ((now_ms, accepted),) = load_scenarios(text, "s").scenarios[0].happenings[0].events
    assert now_ms - accepted.swiped_ms == 3_600_000


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("[[scenario]]", "[[scenari]]", "s.toml: key 'scenari' is not known; did you mean 'scenario'?"),
        ("category", "categori", "event 1: key 'categori' is not known; did you mean 'category'?"),
        ("rule =", "ruel =", "event 1: expect: key 'ruel' is not known; did you mean 'rule'?"),
        ("timezone", "time_zone", "recipient 1: key 'time_zone' is not known; did you mean 'timezone'?"),
        (
            "America/New_York",
            "America/New_Yorc",
            "recipient 1: field timezone: unknown time zone; expected a name such as",
        ),
        ('"held"', '"helt"', "expect: state: 'helt' is not known; did you mean 'held'?"),
        ('"held", ', '"send", ', "expect: rule: is given, but no rule decides when it is sent"),
        ('"held", rule = "twice"', '"suppressed"', 'expect: until: is given, but only state = "held" has an end'),
        ("T10:00:00-05:00", "T10:00:00", "event 1: at: is not understood; allowed is a time with a zone such as"),
        ("repeat = 3", "repeat = 0", f"event 1: repeat: 0 must be a whole number, 1 to {MAX_EVENTS}"),
        ("2026-11-01T10:00:00-05:00", "0001-01-01T00:00:00+14:00", "event 1: at: is not understood"),
        (
            "2026-11-01T10:00:00-05:00",
            "9999-12-31T23:59:00Z",
            "event 1: repeat: the last of its repeats is after the year 9999",
        ),
        ("every_seconds = 60", "every_seconds = true", "event 1: every_seconds: True must be a whole number"),
        ('category = "service"', 'currency = "ZZZ"', "event 1: field currency: unknown ISO 4217 code"),
        ('name = "a third notice is held"', "", "scenario number 1: name: is missing"),
        ('rules = "rules.toml"', "rules = 3", "s.toml: rules: must be the name of a rule file"),
        ('rules = "rules.toml"', 'channels = ["wechatt"]', "channels: 'wechatt' is not known; did you mean 'wechat'?"),
    ],
)
def test_a_mistake_is_named_with_its_place(old: str, new: str, said: str) -> None:
    # Given a good file with one mistake in it
    assert old in GOOD
    # When it is read, Then the one line names the place and the remedy
    with pytest.raises(ScenarioError) as caught:
        load_scenarios(GOOD.replace(old, new, 1), "s.toml")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_scenario_that_names_no_event_is_named() -> None:
    with pytest.raises(ScenarioError, match=r"s.toml: scenario 'empty': names no event; add \[\[scenario.event\]\]"):
        load_scenarios(GOOD + '[[scenario]]\nname = "empty"\n', "s.toml")


def test_a_scenario_that_cannot_fail_is_refused() -> None:
    text = GOOD.replace("expect = {", "# expect = {")
    with pytest.raises(ScenarioError, match="none of its events says what it expects, so it could not fail"):
        load_scenarios(text, "s.toml")


def test_two_scenarios_of_one_name_are_refused() -> None:
    again = GOOD[GOOD.index("[[scenario]]") :]
    with pytest.raises(ScenarioError, match="scenario 'a third notice is held': name: two scenarios have this name"):
        load_scenarios(GOOD + again, "s.toml")


def test_an_event_of_one_of_two_accounts_has_to_say_which() -> None:
    other = '[[recipient]]\naccount = "a2"\nopenid = "o2"\n'
    with pytest.raises(ScenarioError, match="event 1: account: is missing; the file has 2 accounts to choose from"):
        load_scenarios(GOOD.replace("[[scenario]]", other + "[[scenario]]", 1), "s.toml")


def test_two_recipients_of_one_role_are_refused() -> None:
    other = '[[recipient]]\naccount = "a1"\nopenid = "o2"\n'
    with pytest.raises(ScenarioError, match="account 'a1' has two of role 'primary'"):
        load_scenarios(GOOD.replace("[[scenario]]", other + "[[scenario]]", 1), "s.toml")


def test_a_file_without_scenarios_or_without_sense_is_refused() -> None:
    with pytest.raises(ScenarioError, match=r"s\.toml: scenario: is missing; nothing would be tested"):
        load_scenarios('rules = "r.toml"', "s.toml")
    with pytest.raises(ScenarioError, match=r"s\.toml: not TOML"):
        load_scenarios("rules = ", "s.toml")


def test_repeats_are_bounded() -> None:
    text = GOOD.replace("repeat = 3", f"repeat = {MAX_EVENTS}") + "  [[scenario.event]]\n  at = 2026-11-01T10:00:00Z\n"
    with pytest.raises(ScenarioError, match=f"more than {MAX_EVENTS} events, repeats counted"):
        load_scenarios(text, "s.toml")


def test_a_phone_number_in_a_mistake_is_not_repeated() -> None:
    with pytest.raises(ScenarioError) as caught:
        load_scenarios(GOOD.replace("+8613800138000", "13800138000"), "s.toml")
    assert "recipient 1: field phone: expected a number in E.164" in str(caught.value)
    assert "13800138000" not in str(caught.value).replace("+8613800000000", "")
