"""The commands `swipebell templates …` of a template's author, in process."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from dispatcher.cli.main import commands
from dispatcher.errors import ConfigurationError, InputError
from templates.loader import load_template
from tests.templates.lint_kit import GOOD, write

EVENT = (
    '{"id":"e1","account":"a","pan":"6222020000000426","amount":7261,"currency":"GBP",'
    '"merchant":"shell kings 587","time":"2017-01-03T15:27:27+00:00"}'
)
STARTER_RENDERINGS = 2 * 3 * 2
"""Cases, channels and locales of the annotated template."""


def run(*arguments: object, given: str | None = None) -> Result:
    """The command's end; an error of ours is raised, as `main` would get it."""
    result = CliRunner().invoke(commands, ["templates", *map(str, arguments)], input=given)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with one event, whose configuration names the folder ``ours`` of templates."""
    (tmp_path / "swipebell.toml").write_text('[templates]\npath = "ours"\n')
    (tmp_path / "ours").mkdir()
    (tmp_path / "event.json").write_text(EVENT)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_walk_of_an_author_from_new_to_golden(site: Path) -> None:
    # Given a new template
    wrote = run("new", "hello", "--category", "greeting-card").output
    assert "ours/hello/template.toml; it is told for: category greeting-card" in wrote
    # When it is linted, tested and written, Then it is clean, differs for want of files, and then is as it was
    assert run("lint", "hello").output.splitlines()[-1] == "1 template: 0 errors, 0 warnings"
    first = run("test")
    assert first.exit_code == 1
    assert f"{STARTER_RENDERINGS} renderings, {STARTER_RENDERINGS} differ" in first.output
    assert run("test", "--update").exit_code == 0
    assert run("test", "ours/hello").output == f"{STARTER_RENDERINGS} renderings, all as they were\n"
    # And when one word of it changes, Then that is shown as a diff, once for each case
    path = site / "ours" / "hello" / "template.toml"
    path.write_text(path.read_text("utf-8").replace("Card {{ tail }}: ", "Your card {{ tail }}: "), "utf-8")
    changed = run("test")
    assert changed.exit_code == 1
    assert "\n-Card 0426: ¥1,234.50" in changed.output
    assert "\n+Your card 0426: ¥1,234.50" in changed.output
    data = json.loads(run("test", "--json").output)
    assert (data["renderings"], data["differ"], data["updated"]) == (STARTER_RENDERINGS, 2, False)


def test_events_beside_the_template_are_cases_and_the_files_can_be_elsewhere(site: Path) -> None:
    write(site / "ours", GOOD)
    golden = site / "kept" / "hello"
    golden.mkdir(parents=True)
    (golden / "fuel.event.json").write_text(EVENT)
    run("test", "ours", "--golden", "kept", "--update")
    assert (golden / "fuel.sms.en.txt").read_text("utf-8") == "£72.61 at shell kings 587\n"
    assert not (site / "ours" / "hello" / "golden").exists()
    (golden / "fuel.event.json").write_text("{}")
    with pytest.raises(InputError, match=r"fuel\.event\.json: .*give one event"):
        run("test", "ours", "--golden", "kept")


def test_a_copy_of_a_shipped_template_has_its_own_name_and_category(site: Path) -> None:
    # Given nothing of ours, When swipe is copied, Then the copy loads and takes no event away from swipe
    run("new", "our-swipe", "--from", "swipe")
    template = load_template(site / "ours" / "our-swipe" / "template.toml")
    assert (template.pinned, template.category, template.title) == ("our-swipe@1", "our-swipe", "Our swipe")


def test_new_overwrites_nothing_and_wants_a_word(site: Path) -> None:
    path = write(site / "ours", GOOD)
    with pytest.raises(ConfigurationError, match=r"ours/hello exists already, and nothing is overwritten"):
        run("new", "hello")
    assert path.read_text("utf-8") == GOOD
    with pytest.raises(ConfigurationError, match=r"the id 'Hello' must be a word of a-z"):
        run("new", "Hello")
    with pytest.raises(ConfigurationError, match=r"--category '../x' must be a word"):
        run("new", "other", "--category", "../x")
    with pytest.raises(ConfigurationError, match="no template 'nothing'"):
        run("new", "other", "--from", "nothing")
    (site / "file").write_text("")
    with pytest.raises(ConfigurationError, match="cannot be written: Not a directory"):
        run("new", "other", "--path", "file")


def test_list_says_what_there_is_and_where_from(site: Path) -> None:
    write(site / "ours", GOOD.replace('category = "branch"', 'category = "branch"\nowner = "cards"'))
    text = run("list").output
    assert "hello@3" in text
    assert "ours/hello/template.toml" in text
    data = {one["id"]: one for one in json.loads(run("list", "--json").output)["templates"]}
    assert data["hello"]["owner"] == "cards"
    assert data["hello"]["channels"] == ["wechat", "sms", "email", "card"]
    assert data["hello"]["locales"] == ["en", "zh-CN"]
    assert data["swipe"]["from"] == "shipped"
    assert data["refund"]["told_for"] == "category swipe, type refund, not declined"


def test_lint_ends_with_the_status_of_what_it_found(site: Path) -> None:
    # Given a template with a warning, and one with errors
    warned = write(site / "ours", GOOD.replace('thing1 = "at', 'thing1 = "the whole long sum at'), "warned")
    assert run("lint", warned).exit_code == 0
    write(site / "ours", GOOD.replace("https:", "http:").replace('"hello"', '"broken"'), "broken")
    # When they are linted by folder, id and file, Then errors end with 1
    assert run("lint", "ours").exit_code == 1
    assert run("lint", "broken").exit_code == 1
    data = json.loads(run("lint", "ours/broken", "--json").output)
    assert (data["errors"], data["warnings"]) == (2, 0)
    finding = data["templates"][0]["findings"][0]
    assert finding["severity"] == "error"
    assert finding["file"] == "ours/broken/template.toml"
    assert finding["where"] == "[card.zh-CN] picture"
    assert finding["line"] == 52
    with pytest.raises(ConfigurationError, match="nothing: is neither a file or folder nor the id of a template"):
        run("lint", "nothing")
    (site / "empty").mkdir()
    with pytest.raises(ConfigurationError, match="empty: holds no template"):
        run("lint", "empty")
    # And commands that need the library name the first mistake and where to see all
    with pytest.raises(ConfigurationError, match=r"broken/template.toml:52: .*templates lint names all"):
        run("list")


def test_render_shows_what_would_be_sent_with_its_lengths(site: Path) -> None:
    write(site / "ours", GOOD)

    def render(channel: str, *more: str) -> str:
        return run("render", "hello", "--event", "event.json", "--channel", channel, *more).output

    assert render("wechat", "--locale", "en") == (
        "thing1   at shell kings 587  (18 of 20)\namount2  £72.61  (6 of 24)\n"
    )
    assert render("sms", "--sign", "示例银行") == (
        "【示例银行】在shell kings 587\n消费£72.61\n(31 of 500 units, 1 part)\n"
    )
    assert render("email").startswith("Subject: 消费£72.61  (8 of 120)\n\n在shell kings 587")
    assert render("card") == (
        "shell kings 587  (15 of 64)\n£72.61  (6 of 512)\n"
        "picture: https://bank.example/a.png\nlink: - (that of the channel)\n"
    )
    data = json.loads(run("render", "hello@3", "--event", "-", "--channel", "wechat", "--json", given=EVENT).output)
    assert data["data"] == {"thing1": {"value": "在shell kings 587"}, "amount2": {"value": "£72.61"}}
    assert data["fields"][0] == {"key": "thing1", "value": "在shell kings 587", "units": 16, "limit": 20}
    assert (data["template"], data["channel"], data["locale"], data["event"]) == ("hello@3", "wechat", "zh-CN", "e1")


def test_render_says_why_it_cannot(site: Path) -> None:
    # Given a shipped notice that needs facts, and an event without them
    with pytest.raises(
        InputError, match=r'statement@\d+ needs the fact \w+, which event.json does not have; add "facts"'
    ):
        run("render", "statement", "--event", "event.json", "--channel", "sms")
    (site / "odd.json").write_text(EVENT.replace("GBP", "QQQ"))
    with pytest.raises(InputError, match=r"odd.json.*currency"):
        run("render", "swipe", "--event", "odd.json", "--channel", "sms")
    with pytest.raises(ConfigurationError, match=r"gone.json: cannot be read"):
        run("render", "swipe", "--event", "gone.json", "--channel", "sms")
    with pytest.raises(ConfigurationError, match="swipe@1 has no card part; it has wechat, sms, email"):
        run("render", "swipe", "--event", "event.json", "--channel", "card")
    with pytest.raises(InputError, match="stdin: is over"):
        run("render", "swipe", "--event", "-", "--channel", "sms", given="x" * 70_000)
    with pytest.raises(InputError, match="stdin: "):
        run("render", "swipe", "--event", "-", "--channel", "sms", given="[]")
