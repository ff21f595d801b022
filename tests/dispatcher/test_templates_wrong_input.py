"""What people give the commands of `swipebell templates` by mistake: each ends in one line, none waits for ever."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest

from dispatcher.cli.templates import SHOWN_CHARS
from dispatcher.errors import ConfigurationError, InputError, SwipebellError
from tests.dispatcher.test_templates_commands import EVENT, run
from tests.templates.lint_kit import GOOD, write

LONG = "a" * 5000
ODD = os.fsdecode(b"\xff\xfe")

RENDER = ("render", "swipe", "--event", "event.json", "--channel", "sms")


@pytest.fixture(autouse=True)
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with one event and one template of its own."""
    (tmp_path / "event.json").write_text(EVENT)
    write(tmp_path / "ours", GOOD)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refusal(*arguments: object, status: int = 2) -> str:
    """The line that the command ends with."""
    with pytest.raises(SwipebellError) as caught:
        run(*arguments)
    assert caught.value.exit_status == status
    return str(caught.value)


@pytest.mark.parametrize(
    "arguments",
    [
        ("lint", LONG),
        ("lint", "-p", LONG),
        ("lint", "swipe", "-p", LONG),
        ("list", "-p", LONG),
        ("new", "x", "-p", LONG),
        ("new", LONG),
        (*RENDER, "-p", LONG),
        ("render", LONG, *RENDER[2:]),
        ("render", "swipe", "--event", LONG, "--channel", "sms"),
        ("test", LONG),
        ("test", "--golden", LONG),
        ("preview", "swipe", "-p", LONG),
        ("preview", "swipe", "--out", LONG),
        ("preview", "--all", "--out", LONG),
    ],
)
def test_a_name_of_thousands_of_characters_is_refused(arguments: tuple[str, ...]) -> None:
    assert "\n" not in refusal(*arguments)


@pytest.mark.parametrize(
    "arguments",
    [
        ("lint", ODD),
        ("list", "-p", ODD),
        (*RENDER, "--sign", ODD, "--json"),
        (*RENDER, "--locale", ODD, "--json"),
        ("preview", "swipe", "--out", ODD + ".html", "--json"),
        ("test", ODD),
        ("rollback", ODD),
        ("rollback", "swipe", "--note", ODD),
        ("history", ODD),
        ("approve", f"{ODD}@1"),
    ],
)
def test_what_is_no_text_is_refused(arguments: tuple[str, ...]) -> None:
    assert refusal(*arguments) == "an argument is not UTF-8; write it, or rename the file, in UTF-8"


@pytest.mark.parametrize("name", ["Swipe", "../x", "x\n", "", "a" * 65, "1"])
def test_what_is_no_id_is_refused_before_the_ledger_is_asked(site: Path, name: str) -> None:
    (site / "swipebell.toml").write_text("")
    for command in ("rollback", "history"):
        assert "is not the id of a template; see: swipebell templates history" in refusal(command, name)
    for command in ("approve", "history"):
        assert run(command, f"{name}@1").exit_code == 2


@pytest.mark.parametrize("kind", ["pipe", "endless", "folder", "bytes", "dangling"])
def test_a_file_that_is_none_keeps_nobody_from_linting_another(site: Path, kind: str) -> None:
    # Given a folder in which something else is in the place of a template
    file = site / "ours" / "other" / "template.toml"
    file.parent.mkdir()
    if kind == "pipe":
        os.mkfifo(file)
    elif kind == "endless":
        file.symlink_to("/dev/zero")
    elif kind == "folder":
        file.mkdir()
    elif kind == "bytes":
        file.write_bytes(b"\xff")
    else:
        file.symlink_to("/nonexistent")
    # When one template is linted, Then the other does not matter, and by its own name it does
    assert run("lint", "hello", "-p", "ours").exit_code == 0
    for target in ("other", "ours/other", "ours"):
        done = run("lint", target, "-p", "ours")
        assert (done.exit_code, "ours/other/template.toml: error: the file: is not" in done.output) == (1, True)


@pytest.mark.parametrize("closed", ["ours", "ours/hello", "ours/_layout"])
@pytest.mark.parametrize("command", ["lint", "list", "test"])
def test_a_closed_folder_is_no_defect(command: str, closed: str, site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a folder that this account may not look into (root may, so that the answer is given here)
    (site / "ours" / "_layout").mkdir()

    def guarded(call: Any) -> Any:
        def asked(path: Any, *arguments: Any, **more: Any) -> Any:
            if isinstance(path, str | Path) and f"{site / closed}/" in f"{site / path}/"[:-1] + "/":
                raise PermissionError(errno.EACCES, "Permission denied", str(path))
            return call(path, *arguments, **more)

        return asked

    for name in ("open", "listdir", "scandir"):
        monkeypatch.setattr(os, name, guarded(getattr(os, name)))
    # When it is linted, listed and tested, Then that is said, and nothing else
    if command == "lint":
        done = run("lint", "-p", "ours")
        assert (done.exit_code, "Permission denied" in done.output) == (1, True)
    else:
        assert "Permission denied" in refusal(command, *(["-p"] if command == "list" else []), "ours")


def test_what_the_operating_system_says_is_one_line_and_a_closed_pipe_is_not_ours(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for error in (OSError(errno.EIO, "I/O error", LONG), OSError(errno.EIO, "I/O error"), OSError("odd")):

        def broken(*_: object, error: OSError = error) -> None:
            raise error

        monkeypatch.setattr("dispatcher.cli.templates_list.library_of", broken)
        said = refusal("list")
        assert said.endswith(("I/O error", "odd"))
        assert len(said) < SHOWN_CHARS + 20

    def gone(*_: object) -> None:
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    monkeypatch.setattr("dispatcher.cli.templates_list.library_of", gone)
    assert run("list").exit_code == 1


def test_names_that_cannot_be_shown_are_named_all_the_same(site: Path) -> None:
    # Given a folder, and then a layout, whose name is no UTF-8
    odd = os.path.join(os.fsencode(site), b"ours", b"\xff")
    os.mkdir(odd)
    assert refusal("list", "-p", "ours").startswith(
        r"ours: the folder: holds a name that is not UTF-8: '\udcff'; rename"
    )
    assert run("lint", "ours").exit_code == 1
    os.rmdir(odd)
    layouts = site / "ours" / "_layout"
    layouts.mkdir()
    (layouts / os.fsdecode(b"\xff.html")).write_text("")
    assert run("lint", "ours", "--json").exit_code == 1
    # And an event beside it
    (layouts / os.fsdecode(b"\xff.html")).unlink()
    golden = site / "ours" / "hello" / "golden"
    golden.mkdir()
    (golden / os.fsdecode(b"\xff.event.json")).write_text(EVENT)
    assert "not UTF-8" in refusal("test", "ours")


def test_an_event_without_an_end_is_not_read_to_its_end(site: Path) -> None:
    # Given a device as the event, Then no more is read than an event may have
    with pytest.raises(InputError, match="/dev/zero: is over 65536 bytes; give one event"):
        run("render", "swipe", "--event", "/dev/zero", "--channel", "sms")
    with pytest.raises(InputError, match="/dev/zero: is over 65536 bytes"):
        run("preview", "swipe", "--event", "/dev/zero")
    with pytest.raises(ConfigurationError, match=r"ours: cannot be read: Is a directory"):
        run("render", "swipe", "--event", "ours", "--channel", "sms")


def test_golden_files_that_would_never_end_are_not_read(site: Path) -> None:
    golden = site / "ours" / "hello" / "golden"
    golden.mkdir()
    os.mkfifo(golden / "x.event.json")
    with pytest.raises(ConfigurationError, match=r"x\.event\.json: cannot be read: Not a regular file"):
        run("test", "ours")
    (golden / "x.event.json").unlink()
    (golden / "x.txt").symlink_to("/dev/zero")
    with pytest.raises(ConfigurationError, match=r"x\.txt: Not a regular file"):
        run("test", "ours")
    (golden / "x.txt").unlink()
    (golden / "x.txt").write_text("x" * 2_000_000)
    with pytest.raises(ConfigurationError, match=r"x\.txt: Is over 1048576 bytes"):
        run("test", "ours", "--update")


def test_lint_of_a_folder_that_is_none_is_a_mistake_in_the_command(site: Path) -> None:
    for arguments in (("lint", "-p", "nothing"), ("lint", "swipe", "-p", "nothing"), ("lint", "-p", "event.json")):
        assert "is not a folder; create it or correct [templates] path" in refusal(*arguments)


def test_a_place_without_a_template_is_named(site: Path) -> None:
    (site / "empty").mkdir()
    for place in ("empty", "nothing", "event.json"):
        assert refusal("test", place) == f"{place}: holds no template; a template is a folder with a template.toml"


def test_a_layout_of_the_bank_s_is_linted_with_the_shipped_templates_that_use_it(site: Path) -> None:
    # Given a layout in the place of the shipped one, which never ends
    (site / "ours" / "_layout").mkdir()
    layout = site / "ours" / "_layout" / "mail.html"
    layout.write_text("{% for i in range(99999) %}x{% endfor %}")
    # When everything, or one shipped template, is linted or looked at, Then lint finds what would end a service
    assert "OutOfFuel" in refusal("list", "-p", "ours")
    for targets in ((), ("swipe",)):
        data = json.loads(run("lint", *targets, "-p", "ours", "--json").output)
        wrong = {one["id"] for one in data["templates"] for found in one["findings"] if "OutOfFuel" in found["what"]}
        assert "swipe" in wrong
    # And a layout that is broken by itself is said once
    layout.write_text("{% block")
    data = json.loads(run("lint", "-p", "ours", "--json").output)
    assert data["errors"] == 1
