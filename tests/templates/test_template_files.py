"""The files of a library: which are read, how far, and what is said of those that cannot be."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from templates.errors import TemplateError
from templates.layouts import MAX_LAYOUT_BYTES
from templates.library import Library
from templates.lint import lint_folder
from templates.loader import MAX_TEMPLATES, template_files
from templates.reading import MAX_FILE_BYTES, NotRegular, read_bytes
from tests.templates.lint_kit import GOOD, write


def test_a_file_is_read_as_far_as_it_may_go(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"x" * 100)
    assert [len(read_bytes(file, most)) for most in (0, 98, 99, 100, 1000)] == [1, 99, 100, 100, 100]


@pytest.mark.parametrize("kind", ["pipe", "endless", "folder"])
def test_what_would_never_end_is_not_read(tmp_path: Path, kind: str) -> None:
    # Given a pipe that nobody writes into, a device without an end, and a folder, in the place of a file
    file = tmp_path / "hello" / "template.toml"
    layout = tmp_path / "_layout" / "mail.html"
    for one, said in ((file, "template"), (layout, "layout")):
        one.parent.mkdir()
        if kind == "pipe":
            os.mkfifo(one)
        elif kind == "endless":
            one.symlink_to("/dev/zero")
        else:
            one.mkdir()
        # When it is read, Then that ends at once, and says what is to be there
        with pytest.raises(NotRegular):
            read_bytes(one, 100)
        with pytest.raises(TemplateError, match=f"{one.name}: the file: is not a regular file; put the {said} there"):
            Library.load(tmp_path)
        assert any("is not a regular file" in str(found) for one in lint_folder(tmp_path) for found in one.findings)


def test_what_is_looked_at_is_what_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a file whose place a pipe takes as soon as it is open
    file = tmp_path / "file"
    file.write_text("text")
    opened = os.open

    def swapped(path: Path, flags: int) -> int:
        descriptor = opened(path, flags)
        path.unlink()
        os.mkfifo(path)
        return descriptor

    monkeypatch.setattr(os, "open", swapped)
    # Then what it was is read
    assert read_bytes(file, 100) == b"text"


@pytest.mark.skipif(not Path("/proc/kmsg").exists(), reason="the kernel of this machine has no log to wait for")
def test_a_file_of_the_system_that_waits_for_news_is_not_waited_for(tmp_path: Path) -> None:
    # It says to be a regular file of no bytes. Where the log may not be read at all, that is said, too.
    write(tmp_path, GOOD).unlink()
    (tmp_path / "hello" / "template.toml").symlink_to("/proc/kmsg")
    with pytest.raises(TemplateError, match=r"template.toml"):
        Library.load(tmp_path)


def test_a_file_that_is_too_long_is_named(tmp_path: Path) -> None:
    write(tmp_path, GOOD + "#" * MAX_FILE_BYTES)
    with pytest.raises(TemplateError, match=f"is over {MAX_FILE_BYTES} bytes"):
        Library.load(tmp_path)
    (tmp_path / "_layout").mkdir()
    (tmp_path / "_layout" / "mail.html").write_text("x" * (MAX_LAYOUT_BYTES + 1))
    with pytest.raises(TemplateError, match=f"is over {MAX_LAYOUT_BYTES} bytes"):
        Library.load(tmp_path)


@pytest.mark.parametrize("key", ["owner", "title"])
@pytest.mark.parametrize("character", [r"\u001b", r"\n", r"\u009b", r"\u202e"])
def test_what_a_terminal_would_obey_is_no_owner_and_no_title(tmp_path: Path, key: str, character: str) -> None:
    write(tmp_path, GOOD.replace("version = 3", f'version = 3\n{key} = "cards{character}[31m"'))
    with pytest.raises(TemplateError, match=f"template.toml:3: {key}: holds a control character; remove it"):
        Library.load(tmp_path)
    # While words of any language are
    write(tmp_path, GOOD.replace("version = 3", f'version = 3\n{key} = "信用卡　中心 – Café 👩‍💻"'))
    assert "信用卡" in getattr(Library.load(tmp_path).template("hello"), key)


def test_what_editors_of_other_systems_save_is_read_alike(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD)
    expected = Library.load(tmp_path).template("hello").text
    for mark in ("\r\n", "\r", "\n"):
        path.write_bytes(b"\xef\xbb\xbf" + GOOD.replace("\n", mark).encode())
        assert Library.load(tmp_path).template("hello").text == expected


def test_every_folder_is_a_template_but_those_that_tools_hide(tmp_path: Path) -> None:
    # Given a template, and what lies about beside it
    write(tmp_path, GOOD)
    (tmp_path / ".git").mkdir()
    (tmp_path / "README.md").write_text("")
    (tmp_path / ".#hello").symlink_to("somebody@a-machine")
    (tmp_path / "link").symlink_to("README.md")
    assert [path.parent.name for path in template_files(tmp_path)] == ["hello"]
    # When folders are there without a template, links that lead nowhere or round, and a hidden one with a template
    for name in ("empty", "typo"):
        (tmp_path / name).mkdir()
    (tmp_path / "typo" / "Template.toml").write_text(GOOD)
    (tmp_path / "gone").symlink_to("/nonexistent")
    (tmp_path / "round").symlink_to("round")
    write(tmp_path, GOOD.replace('"hello"', '"hidden"'), ".hidden")
    # Then each is named
    assert [path.parent.name for path in template_files(tmp_path)] == [
        ".hidden", "empty", "gone", "hello", "round", "typo",
    ]  # fmt: skip
    found = {one.file.split("/")[-2]: str(one.findings[0]) for one in lint_folder(tmp_path) if one.errors}
    assert {name: text.partition("the file: ")[2] for name, text in found.items()} == {
        "empty": "is not there; put the template there, or remove what stands for it",
        "gone": "is not there; put the template there, or remove what stands for it",
        "round": "cannot be read (Too many levels of symbolic links); check its rights",
        "typo": "is not there; put the template there, or remove what stands for it",
    }


def test_a_folder_that_is_none_or_that_is_closed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "file"
    file.write_text("")
    for place in (file, tmp_path / "nothing"):
        with pytest.raises(TemplateError, match="the library: is not a folder; create it or correct"):
            Library.load(place)
    for layouts in ("file", "gone"):
        (tmp_path / "_layout").unlink(missing_ok=True)
        (tmp_path / "_layout").symlink_to(layouts)
        with pytest.raises(TemplateError, match=r"_layout: the layouts: cannot be looked into \(.*make it a folder"):
            Library.load(tmp_path)

    def closed(_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "scandir", closed)
    with pytest.raises(TemplateError, match=r"the library: cannot be looked into \(Permission denied\); check its"):
        template_files(tmp_path)


def test_a_library_is_bounded_whatever_its_folders_hold(tmp_path: Path) -> None:
    for number in range(MAX_TEMPLATES + 1):
        (tmp_path / f"t{number}").mkdir()
    with pytest.raises(TemplateError, match=f"has more than {MAX_TEMPLATES} templates; split it"):
        template_files(tmp_path)
