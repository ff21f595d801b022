"""The commands `swipebell rules …`, in process."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from dispatcher.cli.main import commands
from dispatcher.errors import ConfigurationError, LedgerUnavailable
from dispatcher.ledger.sqlite import SqliteStore
from dispatcher.rules_file import MAX_RULES_BYTES
from ratelimit.rules import load_rules
from tests.replay.whatif_kit import START, Bank, event, people, traffic

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
RULES = """
version = 1
[[rule]]
id = "daily"
effect = "cap"
limit = {limit}
per = "account"
window = "day"
"""


def run(*arguments: object, catch: bool = False) -> Result:
    """The command's end; an error of ours is raised, as `main` would get it, unless ``catch``."""
    result = CliRunner().invoke(commands, ["rules", *map(str, arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit) and not catch:
        raise result.exception
    return result


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a configuration, rules that allow three a day, and a ledger that was filled with them."""
    bank = Bank(tmp_path / "ledger.db", RULES.format(limit=3))
    bank.recipients(*people(4))
    for moment, batch in traffic(60, 4, 3):
        bank.admit(moment, *batch)
    bank.store.close()
    (tmp_path / "rules.toml").write_text(RULES.format(limit=3))
    (tmp_path / "secret").write_text("s3cret")
    (tmp_path / "swipebell.toml").write_text(
        '[rules]\nfile = "rules.toml"\n[channels.wechat]\nappid = "wx"\nsecret_file = "secret"\n'
        '[channels.sms]\nvendor = "generic"\nbase_url = "http://127.0.0.1:1"\nsecret_file = "secret"\n'
    )
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_example_of_the_documentation_passes() -> None:
    # Given the rules and scenarios that the documentation shows, When they are checked and tested, Then all is well
    assert run("check", EXAMPLES / "rules.toml").exit_code == 0
    result = run("test", EXAMPLES / "rules-test.toml")
    assert result.exit_code == 0, result.output
    assert "FAIL" not in result.output
    assert "7 scenarios, all pass" in result.output


def test_check_says_the_rules_and_their_warnings(tmp_path: Path) -> None:
    # Given a file with a rule that can never match
    rules = tmp_path / "rules.toml"
    rules.write_text(
        RULES.format(limit=3) + 'when = { currency = "CNY", amount_from = 500, amount_below = 500 }\n', "utf-8"
    )
    result = run("check", rules)
    # Then it may be put in force, and the warning names the rule
    assert result.exit_code == 0
    assert "at most 3 a day per account" in result.output
    assert re.search(r"warning: .*daily", result.output)
    assert "1 rule, 1 warning" in result.output
    # And the same for a program
    data = json.loads(run("check", rules, "--json").output)
    assert (data["ok"], [rule["id"] for rule in data["rules"]], len(data["warnings"])) == (True, ["daily"], 1)


def test_check_names_file_rule_and_key(tmp_path: Path) -> None:
    rules = tmp_path / "rules.toml"
    rules.write_text(RULES.format(limit=0))
    with pytest.raises(ConfigurationError, match=r"rules.toml: rule daily: .*limit") as caught:
        run("check", rules)
    assert caught.value.exit_status == 2
    with pytest.raises(ConfigurationError, match=r"none\.toml: no such file"):
        run("check", tmp_path / "none.toml")


def test_check_reads_a_file_as_the_service_does(tmp_path: Path) -> None:
    # Given a file of an editor that begins with a byte order mark, which the service takes
    rules = tmp_path / "rules.toml"
    rules.write_text(RULES.format(limit=3), "utf-8-sig")
    assert run("check", rules).exit_code == 0
    # And one that is too large for it
    rules.write_text(RULES.format(limit=3) + "#" * MAX_RULES_BYTES)
    with pytest.raises(ConfigurationError, match=r"rules\.toml: is over 1,048,576 bytes"):
        run("check", rules)


def test_show_says_what_is_in_force_and_since_when(site: Path) -> None:
    result = run("show")
    assert "daily  at most 3 a day per account, by the recipient's calendar; further ones are not sent" in result.output
    assert f"first in force {START.isoformat(sep=' ')}" in result.output
    data = json.loads(run("show", "--config", site / "swipebell.toml", "--json").output)
    assert data["since"] == START.isoformat()
    assert data["file"].endswith("rules.toml")


def test_show_goes_by_the_ledger_and_says_when_the_file_differs(site: Path) -> None:
    # Given a service that has taken other rules than those of the file
    other = (site / "rules.toml").read_text().replace("limit = 3", "limit = 4")
    version = load_rules(other, "other").version_id
    store = SqliteStore(str(site / "ledger.db"))
    store.begin()
    store.connection.execute(
        "INSERT INTO rule_changes (version, content, state, proposed_by, proposed_at, decided_at)"
        " VALUES (?, ?, 'active', 'ada', 1, 2)",
        (version, other),
    )
    store.commit()
    store.close()
    # When the rules in force are shown, then they are the ledger's
    result = run("show")
    assert "daily  at most 4 a day per account" in result.output
    assert f"version {version}, nothing was decided by them yet" in result.output
    assert "rules.toml: version" in result.output
    assert "not in force; see swipebell rules history" in result.output


def test_show_says_what_is_in_force_also_when_the_file_is_broken(site: Path) -> None:
    # Given a service that runs by the rules of its ledger, and a file that somebody has broken since
    text = (site / "rules.toml").read_text()
    (site / "rules.toml").write_text(text.replace("limit = 3", "limit = 0"))
    # When nothing is in force yet, then the file's fault is all that can be said
    with pytest.raises(ConfigurationError, match=r"rules\.toml: rule daily: limit: "):
        run("show")
    store = SqliteStore(str(site / "ledger.db"))
    store.begin()
    store.connection.execute(
        "INSERT INTO rule_changes (version, content, state, proposed_by, proposed_at, decided_at)"
        " VALUES (?, ?, 'active', 'ada', 1, 2)",
        (load_rules(text, "t").version_id, text),
    )
    store.commit()
    store.close()
    # When the ledger knows what is in force, then that is shown, and what is wrong with the file
    result = run("show")
    assert result.exit_code == 0
    assert "daily  at most 3 a day per account" in result.output
    fault = re.search(r"^the file cannot be put in force: (.*rules\.toml: rule daily: limit: .*)$", result.output, re.M)
    assert fault
    assert json.loads(run("show", "--json").output)["file_error"] == fault[1]


def test_show_without_a_configuration_shows_the_shipped_rules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = run("show")
    assert "sms-from-100" in result.output
    assert "the shipped rules: version" in result.output
    assert "nothing was decided by them yet" in result.output


SCENARIO = """
[[recipient]]
account = "a1"
timezone = "America/New_York"
channels = ["wechat"]
openid = "o1"

[[scenario]]
name = "the fourth of a day is not told"
  [[scenario.event]]
  at = 2026-11-01T10:00:00-05:00
  repeat = 3
  expect = { state = "send", route = ["wechat"] }
  [[scenario.event]]
  at = 2026-11-01T23:59:59-05:00
  expect = { state = "suppressed", rule = "daily" }
  [[scenario.event]]
  at = 2026-11-02T00:00:00-05:00
  expect = { state = "send" }
"""


def test_scenarios_use_the_rules_in_force_unless_they_name_others(site: Path) -> None:
    # Given scenarios without rules of their own, in a folder with a configuration
    (site / "test.toml").write_text(SCENARIO)
    result = run("test", "test.toml")
    # Then those in force decide
    assert result.exit_code == 0, result.output
    # And when the file names others, those do, and what fails is told with what was decided and why
    (site / "other.toml").write_text(RULES.format(limit=4))
    (site / "test.toml").write_text('rules = "other.toml"\n' + SCENARIO)
    result = run("test", "test.toml")
    assert result.exit_code == 1
    assert "FAIL  the fourth of a day is not told" in result.output
    assert "expected: suppressed by daily; decided: send on wechat" in result.output
    assert "1 scenario, 1 failed" in result.output
    data = json.loads(run("test", "test.toml", "--json").output)
    assert data["failed"] == 1
    failed = [check for check in data["scenarios"][0]["checks"] if not check["passed"]]
    assert [check["event"] for check in failed] == [2]
    assert "allowed on wechat" in failed[0]["why"]


def test_an_expectation_for_a_role_that_nobody_has_fails(site: Path) -> None:
    (site / "test.toml").write_text(SCENARIO.replace('state = "send" }', 'state = "send", role = "child" }'))
    result = run("test", "test.toml")
    assert result.exit_code == 1
    assert "the account has no recipient of role child" in result.output


def test_a_scenario_that_is_not_understood_is_an_error_of_its_author(site: Path) -> None:
    (site / "test.toml").write_text('[[scenario]]\nname = "empty"\n')
    with pytest.raises(ConfigurationError, match=r"test\.toml: scenario 'empty': names no event"):
        run("test", "test.toml")


def period() -> tuple[str, ...]:
    return ("--since", START.isoformat(), "--until", (START + timedelta(days=4)).isoformat())


def test_what_if_with_the_rules_in_force_changes_nothing(site: Path) -> None:
    result = run("what-if", "rules.toml", *period())
    assert result.exit_code == 0
    assert "every alert would be decided as it was" in result.output
    assert "accounts most affected" not in result.output


def test_what_if_tells_what_would_change(site: Path) -> None:
    # Given a draft that allows one a day
    (site / "draft.toml").write_text(RULES.format(limit=1))
    # When it is predicted, once for people and once for programs
    text = run("what-if", "draft.toml", *period()).output
    data = json.loads(run("what-if", "draft.toml", *period(), "--sms-cost", "0.1", "--json").output)
    # Then the numbers agree with each other
    daily, sent = data["suppressed"]["daily"], data["sent"]["wechat"]
    assert daily["predicted"] > daily["recorded"]
    assert sent["predicted"] - sent["recorded"] == daily["recorded"] - daily["predicted"]
    assert data["changed"] == daily["predicted"] - daily["recorded"]
    assert sum(day["predicted"] for day in data["wechat_per_day"]) == sent["predicted"]
    assert data["accounts"][0]["account"].startswith("A-")
    assert data["sms"]["cost_cny"] == {"recorded": 0.0, "predicted": 0.0}
    # And the table has them
    row = next(line for line in text.splitlines() if "daily" in line and "suppressed" in line)
    assert row.split()[-3:] == [str(daily["recorded"]), str(daily["predicted"]), f"+{data['changed']}"]
    assert f"{data['changed']:,} alerts would be decided otherwise" in text
    assert "template messages of WeChat by day in China of 100,000" in text


def test_what_if_does_not_touch_the_ledger(site: Path) -> None:
    before = (site / "ledger.db").read_bytes()
    run("what-if", "rules.toml", *period())
    assert (site / "ledger.db").read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--since", "yesterday"), "'yesterday' is not understood; allowed is a time with a zone"),
        (("--since", "-7d", "--until", "-8d"), "--until: is not after --since"),
    ],
)
def test_what_if_refuses_a_period_that_is_none(site: Path, arguments: tuple[str, ...], said: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(said)):
        run("what-if", "rules.toml", *arguments)


def test_what_if_without_a_ledger_says_so(site: Path) -> None:
    (site / "ledger.db").unlink()
    with pytest.raises(LedgerUnavailable, match="there is none yet"):
        run("what-if", "rules.toml", "--since", "-7d")


def test_a_period_without_events_says_so(site: Path) -> None:
    result = run("what-if", "rules.toml", "--since", "2020-01-01", "--until", "2020-01-02")
    assert "nothing was accepted in this period" in result.output


def test_the_group_lists_its_commands() -> None:
    result = CliRunner().invoke(commands, ["rules", "--help"])
    assert result.exit_code == 0
    assert {"check", "show", "test", "what-if"} <= set(re.findall(r"^  ([a-z-]+) ", result.output, re.MULTILINE))


def test_other_versions_in_force_are_named(site: Path) -> None:
    # Given rules that changed during the period
    bank = Bank(site / "ledger.db", RULES.format(limit=2))
    moment = START + timedelta(days=3.5)
    bank.admit(moment, event(9999, moment, "A-1"))
    bank.store.close()
    text = run("what-if", "rules.toml", *period()).output
    assert "the rules changed inside the period: " in text
    assert "(1 alert)" in text
