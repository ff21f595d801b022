"""Templates that change under a running process: what is told, by whom that is decided, and what is never told."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from structlog.testing import capture_logs

from dispatcher.errors import ConfigurationError
from dispatcher.ledger.people import Person
from dispatcher.ledger.template_changes import Approve, Reject, Rollback, Rollout
from dispatcher.ledger.worker import InlineLedger
from dispatcher.templates_watch import LAST_RESORT_VERSION
from dispatcher.watched import LOOK_S
from templates.errors import BrokenTemplate, UnknownTemplate
from templates.library import Library
from tests.dispatcher.ledger_kit import NOW
from tests.dispatcher.template_kit import Folder, Process

SETTLED_S = 2 * LOOK_S + 0.1
"""After so long a folder that was changed once is in force."""

BEN = Person("Ben", "ops")
SHIPPED = {one.id: one.pinned for one in Library.load() if one.id == "swipe"}


@pytest.fixture
def ledger() -> Any:
    made = InlineLedger()
    yield made
    made.store.close()


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "templates")


@asynccontextmanager
async def running(*processes: Process, strict: bool = False) -> AsyncIterator[None]:
    async with trio.open_nursery() as nursery:
        for process in processes:
            await process.start(nursery, strict=strict)
        yield
        nursery.cancel_scope.cancel()


async def approve(ledger: Any, version: int, percent: int = 100) -> None:
    await ledger.template_act(Approve(id="swipe", version=version, percent=percent, by=BEN, at_ms=NOW))


async def test_without_a_folder_the_shipped_library_is_told_and_written_down(ledger: Any, autojump_clock: Any) -> None:
    process = Process(None, ledger)
    async with running(process):
        await trio.sleep(SETTLED_S)
    assert process.told == SHIPPED
    now = await ledger.templates_in_use(-1)
    assert {one.pinned for one in now.versions} == {one.pinned for one in Library.load()}
    assert process.chosen == []
    assert not process.alarm


async def test_a_higher_version_is_told_within_seconds_by_every_process(
    ledger: Any, folder: Folder, autojump_clock: Any
) -> None:
    folder.write(version=7)
    one, two = Process(folder.path, ledger), Process(folder.path, ledger)
    async with running(one, two):
        assert (one.told, two.told) == ({"swipe": "swipe@7"}, {"swipe": "swipe@7"})
        # When the file gets another version, and a template comes that is new
        folder.write(version=8, says="{{ merchant }}!")
        folder.write("own", category="own")
        await trio.sleep(SETTLED_S + LOOK_S)
        # Then both tell it, choose by it, and still know the one before
        for process in (one, two):
            assert process.told == {"swipe": "swipe@8", "own": "own@1"}
            assert process.chosen[-1] is process.watch.library.chooser
            assert process.watch.library.template("swipe@7").version == 7
            assert process.watch.library.template("swipe").version == 8
        # And what is taken out of the folder is told no longer
        folder.remove("own")
        await trio.sleep(SETTLED_S)
        assert one.told == {"swipe": "swipe@8"}


@pytest.mark.parametrize("approval", [False, True])
async def test_a_version_that_says_something_else_is_refused(
    ledger: Any, folder: Folder, approval: bool, autojump_clock: Any
) -> None:
    # Given a version that was told
    folder.write(version=7)
    process = Process(folder.path, ledger, approval=approval)
    async with running(process):
        # When its file says something else without a higher version
        folder.write(version=7, says="{{ merchant }}!")
        with capture_logs() as logs:
            await trio.sleep(SETTLED_S)
        # Then it is said with file and remedy, and what was told stays
        (line,) = [line for line in logs if line["event"] == "templates_broken"]
        assert line["error"] == (
            f"{folder.file()}: says something else than the swipe@7 that was told before; give it a version above 7"
        )
        assert process.alarm
        assert process.watch.library.template("swipe").text.count("!") == 0
        # And neither does another start take it: a service passes it over, a run that is to end says so and ends
        again = Process(folder.path, ledger, approval=approval)
        await again.watch.first(strict=False)
        assert again.alarm
        assert again.watch.library.template("swipe@7").text.count("!") == 0
        with pytest.raises(ConfigurationError, match=r"give it a version above 7$"):
            await Process(folder.path, ledger, approval=approval).watch.first(strict=True)
        # Until it is mended
        folder.write(version=7)
        await trio.sleep(SETTLED_S)
        assert not process.alarm


async def test_comments_may_change_and_layouts_wait_for_the_next_version(
    ledger: Any, folder: Folder, autojump_clock: Any
) -> None:
    # Given a mail with a layout of the bank's
    folder.layout("<p>{% block body %}{% endblock %}</p>")
    mail = "{% extends 'own' %}{% block body %}{{ merchant }}{% endblock %}"
    folder.write(version=7, mail=mail)
    process = Process(folder.path, ledger)
    async with running(process, strict=True):
        # When a comment is added, and the layout says something else
        folder.file().write_text("# the words of November\n" + folder.file().read_text())
        folder.layout("<div>{% block body %}{% endblock %}</div>")
        with capture_logs() as logs:
            await trio.sleep(SETTLED_S)
        # Then nobody is alarmed, the version says what it said, and that is written in the log
        assert not process.alarm
        assert process.watch.library.template("swipe").layouts["own"].startswith("<p>")
        (line,) = [line for line in logs if line["event"] == "template_not_told"]
        assert (line["template"], line["hint"][:45]) == ("swipe@7", "keeps the layouts that it was loaded with; gi")
        # And the next version has the new one
        folder.write(version=8, mail=mail)
        await trio.sleep(SETTLED_S)
        assert process.watch.library.template("swipe").layouts["own"].startswith("<div>")


async def test_a_broken_file_changes_nothing_and_does_not_silence_a_restart(
    ledger: Any, folder: Folder, autojump_clock: Any
) -> None:
    folder.write(version=7)
    process = Process(folder.path, ledger)
    async with running(process):
        folder.write(version=8, says="{{ merchant")
        await trio.sleep(SETTLED_S)
        assert process.alarm
        assert process.told == {"swipe": "swipe@7"}
        # A restart tells by what the ledger knows
        again = Process(folder.path, ledger)
        await again.watch.first(strict=False)
        assert (again.told, again.alarm) == ({"swipe": "swipe@7"}, True)
        with pytest.raises(ConfigurationError, match=r"template\.toml:\d+: \[wechat\.zh-CN\] thing5: SyntaxError"):
            await Process(folder.path, ledger).watch.first(strict=True)
        folder.write(version=8)
        await trio.sleep(SETTLED_S)
        assert (process.told, process.alarm) == ({"swipe": "swipe@8"}, False)


async def test_a_first_start_with_a_broken_file_ends(ledger: Any, folder: Folder) -> None:
    folder.write(says="{{ merchant")
    with pytest.raises(ConfigurationError, match="SyntaxError"):
        await Process(folder.path, ledger).watch.first(strict=False)
    assert await ledger.templates_in_use(0) is None


async def test_with_approval_a_version_waits_for_somebody_else(
    ledger: Any, folder: Folder, autojump_clock: Any
) -> None:
    # Given a service that asks for approval, with the version that it began with
    folder.write(version=7)
    process = Process(folder.path, ledger, approval=True)
    async with running(process):
        # When the file gets another version
        folder.write(version=8)
        with capture_logs() as logs:
            await trio.sleep(SETTLED_S + 3)
        # Then it waits, and that is said once
        assert process.told == {"swipe": "swipe@7"}
        (line,) = [line for line in logs if line["event"] == "template_not_told"]
        assert line["hint"] == "waits for approval: swipebell templates approve swipe@8 --by NAME"
        # When it is approved for some, then both are told
        await approve(ledger, 8, 30)
        await trio.sleep(LOOK_S + 0.1)
        assert [one.pinned for one in process.watch.library.in_force if one.id == "swipe"] == ["swipe@7", "swipe@8"]
        assert process.watch.library.template("swipe").version == 7
        assert process.chosen[-1]._shares == {"swipe@7": (30, 100), "swipe@8": (0, 30)}
        # And for all
        await ledger.template_act(Rollout(id="swipe", version=8, percent=100, by=BEN, at_ms=NOW))
        await trio.sleep(LOOK_S + 0.1)
        assert process.told == {"swipe": "swipe@8"}
        assert process.chosen[-1]._shares == {}
        # And after a rollback the one before, though the folder holds the other, also after a restart
        await ledger.template_act(Rollback(id="swipe", by=BEN, at_ms=NOW))
        await trio.sleep(LOOK_S + 0.1)
        assert process.told == {"swipe": "swipe@7"}
        for approval in (True, False):
            again = Process(folder.path, ledger, approval=approval)
            await again.watch.first(strict=True)
            assert again.told == {"swipe": "swipe@7"}


async def test_what_comes_with_a_release_needs_no_approval_and_a_whole_new_template_of_the_banks_does(
    ledger: Any, folder: Folder, autojump_clock: Any
) -> None:
    await Process(folder.path, ledger, approval=True).watch.first(strict=True)
    folder.write("own", category="own")
    shipped = folder.path.parent / "shipped" / "swipe" / "template.toml"
    shipped.write_text(shipped.read_text().replace("version = 1", "version = 2"))
    process = Process(folder.path, ledger, approval=True)
    await process.watch.first(strict=True)
    assert process.told == {"swipe": "swipe@2"}
    await ledger.template_act(Reject(id="own", version=1, by=BEN, at_ms=NOW, note="no"))
    with capture_logs() as logs:
        await Process(folder.path, ledger, approval=True).watch.first(strict=True)
    assert [line["hint"] for line in logs if line["event"] == "template_not_told"] == [
        "was rejected; give the next try a higher version"
    ]


async def test_a_version_that_this_release_does_not_understand_leaves_its_own_in_force(
    ledger: Any, folder: Folder, autojump_clock: Any
) -> None:
    # Given a newer release on the same ledger, whose template this one does not understand
    folder.write(version=7)
    process = Process(folder.path, ledger)
    async with running(process):
        folder.write(version=8)
        await Process(folder.path, ledger).watch.first(strict=True)
        folder.write(version=7)
        ledger.store.connection.execute("UPDATE template_versions SET content='id = 1', digest='x' WHERE version=8")
        await trio.sleep(SETTLED_S)
        # Then it goes on with its own, and says so
        assert (process.told, process.alarm) == ({"swipe": "swipe@7"}, True)


async def test_what_was_rolled_back_does_not_stand_in_for_the_version_before_it(
    ledger: Any, folder: Folder, autojump_clock: Any
) -> None:
    # Given two templates whose first versions this process does not understand, and the second ones of its folder
    folder.write(version=7)
    folder.write("own", category="own")
    await Process(folder.path, ledger).watch.first(strict=True)
    folder.write(version=8, says="{{ merchant }}!")
    folder.write("own", 2, "{{ merchant }}!", category="own")
    ledger.store.connection.execute("UPDATE template_versions SET content='id = 1' WHERE version IN (1, 7)")
    process = Process(folder.path, ledger)
    async with running(process, strict=True):
        assert process.told == {"swipe": "swipe@8", "own": "own@2"}
        # When both are rolled back
        for name in ("swipe", "own"):
            await ledger.template_act(Rollback(id=name, by=BEN, at_ms=NOW))
        await trio.sleep(LOOK_S + 0.1)
        # Then neither is told again, also after a restart: `swipe` is told as it is shipped, and `own` not at all
        again = Process(folder.path, ledger)
        await again.watch.first(strict=False)
        for one in (process, again):
            assert one.told == SHIPPED
            assert one.watch.library.template("swipe").title == Library.load().template("swipe").title
            assert one.alarm


@pytest.mark.parametrize("approval", [False, True])
async def test_a_shipped_version_that_was_rolled_back_or_says_something_else_does_not_stand_in_either(
    ledger: Any, folder: Folder, approval: bool, autojump_clock: Any
) -> None:
    # Given a release whose second version of `swipe` was rolled back, and a first one that is not understood any more
    await Process(folder.path, ledger, approval=approval).watch.first(strict=True)
    shipped = folder.path.parent / "shipped" / "swipe" / "template.toml"
    shipped.write_text(shipped.read_text().replace("version = 1", "version = 2"))
    await Process(folder.path, ledger, approval=approval).watch.first(strict=True)
    await ledger.template_act(Rollback(id="swipe", by=BEN, at_ms=NOW))
    ledger.store.connection.execute("UPDATE template_versions SET content='id = 1' WHERE version=1")
    # When a process starts, Then it tells neither that one nor, under the name swipe@1, what it has itself
    for text in (
        shipped.read_text(),
        shipped.read_text().replace("version = 2", "version = 1").replace("shipped", "x"),
    ):
        shipped.write_text(text)
        process = Process(folder.path, ledger, approval=approval)
        await process.watch.first(strict=False)
        assert process.told == {"swipe": f"swipe@{LAST_RESORT_VERSION}"}


async def test_a_version_for_some_accounts_is_not_told_to_the_others_when_theirs_is_broken(
    ledger: Any, folder: Folder, autojump_clock: Any
) -> None:
    # Given a version that is told to a third, and one for the others that this process does not understand
    folder.write(version=7)
    await Process(folder.path, ledger).watch.first(strict=True)
    folder.write(version=8)
    await Process(folder.path, ledger).watch.first(strict=True)
    await ledger.template_act(Rollout(id="swipe", version=8, percent=30, by=BEN, at_ms=NOW))
    ledger.store.connection.execute("UPDATE template_versions SET content='id = 1' WHERE version=7")
    # When it starts, Then the others are told what is shipped
    process = Process(folder.path, ledger)
    await process.watch.first(strict=False)
    assert process.watch.library.chooser._shares == {
        "swipe@8": (0, 30),
        SHIPPED["swipe"]: (30, 100),
    }


async def test_an_older_version_is_learned_when_an_alert_needs_it(
    ledger: Any, folder: Folder, autojump_clock: Any
) -> None:
    # Given versions that another process told
    folder.write(version=7)
    await Process(folder.path, ledger).watch.first(strict=True)
    folder.write(version=8)
    process = Process(folder.path, ledger)
    library = await process.watch.first(strict=True)
    with pytest.raises(UnknownTemplate):
        library.template("swipe@7")
    # When it is asked for, then it is there; one that never was written down is told by the one in force
    assert library.missing({"swipe@7", "swipe@8", "swipe@3"}) != []
    await library.learn({"swipe@7", "swipe@8", "swipe@3"})
    assert [library.template(name).version for name in ("swipe@7", "swipe@8", "swipe@3")] == [7, 8, 8]
    # And one that is not understood any more stays unusable without being read again and again
    ledger.store.connection.execute("UPDATE template_versions SET content='id = 1' WHERE version=7")
    fresh = await Process(folder.path, ledger).watch.first(strict=True)
    await fresh.learn({"swipe@7"})
    assert fresh.missing({"swipe@7"}) == []
    with pytest.raises(BrokenTemplate):
        fresh.template("swipe@7")


async def test_the_older_versions_that_are_kept_are_bounded_and_those_needed_now_stay(
    ledger: Any, folder: Folder, autojump_clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dispatcher.template_versions.MAX_OLDER_VERSIONS", 3)
    folder.write(version=100)
    library = await Process(folder.path, ledger).watch.first(strict=True)
    for number in range(1, 7):
        await library.learn({f"gone-{number}@1"})
    assert library.missing([f"gone-{number}@1" for number in range(1, 7)]) == ["gone-1@1", "gone-2@1", "gone-3@1"]
    needed = {f"gone-{number}@1" for number in range(1, 6)}
    await library.learn(needed)
    assert library.missing(needed) == []
    await library.learn({"gone-9@1"})
    assert len(library._older) == 3
