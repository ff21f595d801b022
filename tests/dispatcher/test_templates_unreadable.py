"""A folder of templates that cannot be read while the service runs: it goes on with what it told, and says why."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio
from structlog.testing import capture_logs

from dispatcher.errors import ConfigurationError
from dispatcher.ledger.worker import InlineLedger
from dispatcher.watched import LOOK_S
from templates.errors import TemplateError
from tests.dispatcher.template_kit import Folder, Process

SETTLED_S = 2 * LOOK_S + 0.1
"""After so long a folder that was changed once is in force."""

TOLD = {"swipe": "swipe@7", "own": "own@1"}


@pytest.fixture
def ledger() -> Any:
    made = InlineLedger()
    yield made
    made.store.close()


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    made = Folder(tmp_path / "templates")
    made.layout("<p>{% block body %}{% endblock %}</p>")
    made.write(version=7)
    made.write("own", category="own")
    return made


def closed(monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    """What the operating system answers about ``path`` and all below it to whom it does not belong; root may look
    everywhere, so that it is not shown with the rights of a file."""

    def asks(call: Callable[..., Any]) -> Callable[..., Any]:
        def asked(given: Any, *arguments: Any, **more: Any) -> Any:
            if isinstance(given, str | Path) and (Path(given) == path or path in Path(given).parents):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(given))
            return call(given, *arguments, **more)

        return asked

    for name in ("open", "stat", "lstat", "listdir", "scandir"):
        monkeypatch.setattr(os, name, asks(getattr(os, name)))


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("_layout", "templates/_layout: the layouts: cannot be looked into (Permission denied); make it a folder"),
        ("_layout/own.html", "templates/_layout/own.html: the file: cannot be read (Permission denied); check"),
        ("own", "templates/own/template.toml: the file: cannot be read (Permission denied); check its rights"),
        (".", "templates/_layout: the layouts: cannot be looked into (Permission denied); make it a folder, and"),
    ],
)
async def test_what_nobody_may_look_at_any_more_goes_on_being_told(
    ledger: Any, folder: Folder, path: str, said: str, monkeypatch: pytest.MonkeyPatch, autojump_clock: Any
) -> None:
    # Given a service
    process = Process(folder.path, ledger)
    async with trio.open_nursery() as nursery:
        await process.start(nursery)
        # When a part of its folder is closed to it
        with monkeypatch.context() as rights, capture_logs() as logs:
            closed(rights, folder.path / path)
            await trio.sleep(SETTLED_S + 2)
            # Then it says so once, with the alarm, and tells what it told, also after a restart
            (line,) = [line for line in logs if line["event"] == "templates_broken"]
            assert line["error"].startswith(f"{folder.path.parent}/{said}")
            again = Process(folder.path, ledger)
            await again.watch.first(strict=False)
            for one in (process, again):
                assert (one.told, one.alarm) == (TOLD, True)
        # And when it is open again, nothing is left of it
        await trio.sleep(SETTLED_S)
        assert (process.told, process.alarm) == (TOLD, False)
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("target", ["/nonexistent", "template.toml", "."])
@pytest.mark.parametrize("linked", ["file", "folder"])
async def test_a_link_that_leads_nowhere_does_not_silence_a_template(
    ledger: Any, folder: Folder, linked: str, target: str, autojump_clock: Any
) -> None:
    process = Process(folder.path, ledger)
    async with trio.open_nursery() as nursery:
        await process.start(nursery)
        # When a link takes the place of a template's file, or of its folder, and leads nowhere, round, or elsewhere
        if linked == "file":
            folder.file("own").unlink()
            folder.file("own").symlink_to(target)
        else:
            folder.remove("own")
            (folder.path / "own").symlink_to(target.replace("template.toml", "own"))
        await trio.sleep(SETTLED_S)
        # Then the template is told as before, with the alarm
        assert (process.told, process.alarm) == (TOLD, True)
        nursery.cancel_scope.cancel()


async def test_a_defect_of_ours_in_reading_the_folder_ends_no_service(
    ledger: Any, folder: Folder, monkeypatch: pytest.MonkeyPatch, autojump_clock: Any
) -> None:
    process = Process(folder.path, ledger)
    async with trio.open_nursery() as nursery:
        await process.start(nursery)
        # When a file brings up a mistake of ours
        with monkeypatch.context() as broken, capture_logs() as logs:
            broken.setattr("dispatcher.templates_folder.load_folder", lambda *_: {}[1])
            folder.write(version=8)
            await trio.sleep(SETTLED_S)
            # Then the log has its place for us, and the remedy for the operator; what was told is told
            (defect,) = [line for line in logs if line["event"] == "templates_defect"]
            assert isinstance(defect["exc_info"], KeyError)
            (line,) = [line for line in logs if line["event"] == "templates_broken"]
            assert line["error"] == (
                f"{folder.path}: the library: brings Swipebell to a defect of its own (KeyError);"
                " take out what was changed last, and report the line of the log before this one"
            )
            assert (process.told, process.alarm) == (TOLD, True)
            # And a start goes on with what the ledger knows, or ends in one line where that is asked for
            again = Process(folder.path, ledger)
            await again.watch.first(strict=False)
            assert (again.told, again.alarm) == (TOLD, True)
            with pytest.raises(ConfigurationError, match="take out what was changed last"):
                await Process(folder.path, ledger).watch.first(strict=True)
        # Until it is mended
        folder.write(version=9)
        await trio.sleep(SETTLED_S)
        assert (process.told["swipe"], process.alarm) == ("swipe@9", False)
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("wrong", [KeyError("x"), TemplateError(Path("x"), "x", "x", "x")])
async def test_a_version_of_the_ledger_that_brings_up_a_defect_costs_no_other(
    ledger: Any, folder: Folder, wrong: Exception, monkeypatch: pytest.MonkeyPatch, autojump_clock: Any
) -> None:
    # Given a service, and another process that brings a version
    process = Process(folder.path, ledger)

    def compile_template(*_: Any) -> Any:
        raise wrong

    async with trio.open_nursery() as nursery:
        await process.start(nursery)
        folder.write(version=8)
        await Process(folder.path, ledger).watch.first(strict=True)
        folder.write(version=7)
        # When this one fails on it
        with capture_logs() as logs:
            monkeypatch.setattr("dispatcher.template_versions.compile_template", compile_template)
            await trio.sleep(SETTLED_S)
        # Then it tells its own, and the other templates
        assert (process.told, process.alarm) == (TOLD, True)
        assert {line["template"] for line in logs if line["event"] == "template_version_broken"} == {"swipe@8"}
        nursery.cancel_scope.cancel()
