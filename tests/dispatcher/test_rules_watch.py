"""Rules that change under a running engine: whole, between two batches, and never broken ones."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from structlog.testing import capture_logs

from dispatcher.admission import Admitter
from dispatcher.config import RulesConfig
from dispatcher.errors import ConfigurationError, LedgerUnavailable
from dispatcher.ledger.people import Person
from dispatcher.ledger.rule_changes import Activate, Approve
from dispatcher.ledger.worker import InlineLedger
from dispatcher.metrics import Meter
from dispatcher.rules_file import MAX_RULES_BYTES
from dispatcher.rules_watch import RulesWatch
from dispatcher.watched import LOOK_S, name_of
from ratelimit.rules import load_rules
from tests.dispatcher.files_kit import write
from tests.dispatcher.ledger_kit import in_halves
from tests.dispatcher.metrics_kit import shown
from tests.dispatcher.test_engine import LIBRARY, NOON_MS, PERSON, World, swipe, world

__all__ = ["world"]  # the fixture

SETTLED_S = 2 * LOOK_S + 0.1
"""After so long a file that was changed once is in force."""

OWNER = name_of(os.getuid())


def capped(limit: int, name: str = "cap") -> str:
    return f'version = 1\n[[rule]]\nid = "{name}"\neffect = "cap"\nlimit = {limit}\nper = "account"\nwindow = "day"\n'


def loud(logs: list[Any]) -> list[Any]:
    """Warnings and errors; whether milder lines come depends on the level that is set."""
    return [line for line in logs if line["log_level"] in ("warning", "error")]


def mend(path: Path, text: str) -> None:
    """Write it whatever there is in its place."""
    if path.is_dir():
        path.rmdir()
    path.unlink(missing_ok=True)
    write(path, text)


def version_of(text: str) -> str:
    return load_rules(text, "test").version_id


class Process:
    """One process of a fleet: its watch, its metrics, and the rules that it decides by."""

    def __init__(self, path: Path | None, ledger: Any, *, approval: bool = False) -> None:
        self.meter = Meter()
        self.watch = RulesWatch(
            RulesConfig(file=path, approval=approval),
            ledger=ledger,
            meter=self.meter,
            now_ms=lambda: NOON_MS + int(trio.current_time() * 1000) % 10**9,
        )

    async def start(self, nursery: trio.Nursery, *, strict: bool = False) -> Admitter:
        self.admitter = Admitter(await self.watch.first(strict=strict), LIBRARY, {"wechat": False})
        nursery.start_soon(self.watch.run, self.admitter.put_in_force)
        return self.admitter

    @property
    def in_force(self) -> str:
        version = self.admitter.in_force.decider.rules.version_id
        assert self.watch.version == version
        assert f'swipebell_rules_info{{version="{version}"}} 1.0' in self.metrics
        return version

    @property
    def metrics(self) -> str:
        return shown(self.meter.totals)

    @property
    def alarm(self) -> bool:
        return "swipebell_rules_broken 1.0" in self.metrics

    def reloads(self, result: str) -> int:
        return self.meter.totals.rules_reloads[result]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "rules.toml"
    write(file, capped(1))
    return file


@pytest.fixture
def ledger() -> Any:
    made = InlineLedger()
    yield made
    made.store.close()


@asynccontextmanager
async def running(*processes: Process) -> AsyncIterator[trio.Nursery]:
    async with trio.open_nursery() as nursery:
        for process in processes:
            await process.start(nursery)
        yield nursery
        nursery.cancel_scope.cancel()


async def history(ledger: Any) -> list[tuple[str, str, str]]:
    """(version, state, proposed by), the latest first."""
    return [(change.version, change.state, change.proposed_by) for change in await ledger.rule_history(99)]


# ---- a running engine --------------------------------------------------------------------------------------------


async def test_a_changed_file_decides_from_the_next_batch_on(world: Any, path: Path, autojump_clock: Any) -> None:
    # Given an engine whose rules let one alert a day through
    w: World = world()
    await w.tell(PERSON)
    process = Process(path, w.ledger)
    async with trio.open_nursery() as nursery:
        admitter = await process.start(nursery)
        async with w.running(admitter=admitter) as engine:
            await engine.admit([swipe(1), swipe(2)])
            # When the file says three
            write(path, capped(3, "more"))
            await engine.admit([swipe(3)])
            await trio.sleep(SETTLED_S)
            await engine.admit([swipe(4), swipe(5), swipe(6), swipe(7)])
            await engine.idle()
        nursery.cancel_scope.cancel()
    # Then each decision names the rules that it was made by, and the counting of the new rule began with them
    alerts = [await w.state(f"e{number}") for number in range(1, 8)]
    assert [(alert.state, alert.reason) for alert in alerts] == [
        ("delivered", None),
        ("suppressed", "cap"),
        ("suppressed", "cap"),
        *[("delivered", None)] * 3,
        ("suppressed", "more"),
    ]
    old, new = version_of(capped(1)), version_of(capped(3, "more"))
    assert [alert.ruleset for alert in alerts] == [old] * 3 + [new] * 4
    # And it is on record whose file it was
    assert await history(w.ledger) == [(new, "active", OWNER), (old, "replaced", OWNER)]


async def test_a_batch_that_is_being_decided_keeps_its_rules(world: Any, path: Path, autojump_clock: Any) -> None:
    # Given an engine, and a ledger in which a batch is decided while other rules come in force
    w: World = world()
    await w.tell(PERSON)
    first, second = load_rules(capped(1), "test"), load_rules(capped(9, "other"), "test")
    admitter = Admitter(first, LIBRARY, {"wechat": False})

    class Meanwhile:
        """What was counted; while it is being looked up, others change the rules."""

        def __init__(self, counted: Any) -> None:
            self.marks = counted.marks
            self.counters = counted.counters
            self._totals = counted.totals

        def totals(self, keys: Any) -> Any:
            admitter.put_in_force(second)
            return self._totals(keys)

    @in_halves
    def decide(batch: Any, recipients: Any, now_ms: int, counted: Any) -> Any:
        return admitter(batch, recipients, now_ms)(Meanwhile(counted))

    await w.ledger.ruleset(second.version_id, second.content, NOON_MS)
    async with w.running(admitter=admitter, decide=decide) as engine:
        # When
        await engine.admit([swipe(1), swipe(2)])
        await engine.admit([swipe(3)])
    # Then all of it was decided by the rules with which it began, and says so
    stories = [await w.state(f"e{number}") for number in (1, 2, 3)]
    assert [(one.reason, one.ruleset) for one in stories[1:]] == [("cap", first.version_id), (None, second.version_id)]
    assert stories[0].ruleset == first.version_id


BROKEN: dict[str, tuple[Callable[[Path], Any], str, str | None, str | None]] = {
    "no TOML": (lambda path: path.write_text("version = 1\n[[rule"), "not TOML", None, None),
    "an unknown effect": (
        lambda path: path.write_text(capped(2).replace('"cap"\nlimit', '"cup"\nlimit')),
        "'cup' is not known",
        "cap",
        "effect",
    ),
    "a cap of nothing": (lambda path: path.write_text(capped(0)), "limit", "cap", "limit"),
    "one id twice": (lambda path: path.write_text(capped(2) + capped(3)[12:]), "two rules have this id", "cap", "id"),
    "no text": (lambda path: path.write_bytes(b"version = 1\n\xff\xfe"), "line 2 is not UTF-8 text", None, None),
    "far too large": (
        lambda path: path.write_bytes(b"#" * (2 * MAX_RULES_BYTES)),
        "is over 1,048,576 bytes; that is not a rule file",
        None,
        None,
    ),
    "gone": (lambda path: path.unlink(), "no such file", None, None),
    "a folder": (lambda path: (path.unlink(), path.mkdir()), "is a folder; name the file", None, None),
    "a pipe": (lambda path: (path.unlink(), os.mkfifo(path)), "is not a file", None, None),
    "a link to itself": (lambda path: (path.unlink(), path.symlink_to(path)), "cannot be read: ", None, None),
}


@pytest.mark.parametrize("what", BROKEN)
async def test_a_broken_file_keeps_the_rules_in_force(world: Any, path: Path, autojump_clock: Any, what: str) -> None:
    # Given an engine with good rules
    spoil, says, rule, key = BROKEN[what]
    w: World = world()
    await w.tell(PERSON)
    process = Process(path, w.ledger)
    async with trio.open_nursery() as nursery:
        admitter = await process.start(nursery)
        async with w.running(admitter=admitter) as engine:
            await engine.admit([swipe(1)])
            # When the file is spoilt, and stays so for a minute
            spoil(path)
            with capture_logs() as logs:
                await trio.sleep(60)
            # Then one line says what is wrong and where, and the alarm is raised
            (line,) = loud(logs)
            assert (line["event"], line["rule"], line["key"]) == ("rules_broken", rule, key)
            assert str(path) in line["error"]
            assert says in line["error"]
            assert line["in_force"] == version_of(capped(1)) == process.in_force
            assert process.alarm
            assert (process.reloads("broken"), process.reloads("applied")) == (1, 0)
            # And the rules before it decide
            await engine.admit([swipe(2)])
            assert (await w.state("e2")).reason == "cap"
            # When it is mended, then the alarm is over and its rules decide
            mend(path, capped(2))
            await trio.sleep(SETTLED_S)
            await engine.admit([swipe(3)])
        nursery.cancel_scope.cancel()
    assert not process.alarm
    assert (await w.state("e3")).reason is None
    assert await history(w.ledger) == [
        (version_of(capped(2)), "active", OWNER),
        (version_of(capped(1)), "replaced", OWNER),
    ]


async def test_a_file_mended_to_what_it_was_ends_the_alarm(path: Path, ledger: Any, autojump_clock: Any) -> None:
    process = Process(path, ledger)
    async with running(process):
        write(path, "half of a")
        await trio.sleep(SETTLED_S)
        assert process.alarm
        write(path, "# a comment changes no rule\n" + capped(1))
        await trio.sleep(SETTLED_S)
        assert not process.alarm
    assert process.reloads("applied") == 0
    assert await history(ledger) == [(version_of(capped(1)), "active", OWNER)]


async def test_a_file_that_is_being_written_is_left_alone(path: Path, ledger: Any, autojump_clock: Any) -> None:
    # Given an editor that writes a file of twenty rules, one every half second, each state of it understood
    process = Process(path, ledger)
    whole = capped(5) + "".join(capped(5, f"cap-{number}")[12:] for number in range(20))
    async with running(process):
        with capture_logs() as logs:
            for end in range(0, len(whole), len(whole) // 20):
                write(path, whole[:end])
                # Then nothing of it is taken
                await trio.sleep(LOOK_S / 2)
                assert process.in_force == version_of(capped(1))
            # Until it is whole
            write(path, whole)
            await trio.sleep(SETTLED_S)
            assert process.in_force == version_of(whole)
    assert {line["event"] for line in loud(logs)} == {"rules_warning"}  # each of its caps but the first is idle
    assert (process.reloads("applied"), process.reloads("broken")) == (1, 0)
    assert len(await history(ledger)) == 2


async def test_rules_that_never_decide_are_warned_of_and_taken(path: Path, ledger: Any, autojump_clock: Any) -> None:
    process = Process(path, ledger)
    text = capped(2) + capped(9, "idle")[12:]
    async with running(process):
        write(path, text)
        with capture_logs() as logs:
            await trio.sleep(60)
        assert process.in_force == version_of(text)
    (line,) = loud(logs)
    assert (line["event"], line["version"]) == ("rules_warning", version_of(text))
    assert "rule idle: " in line["warning"]


async def test_sighup_reads_the_file_at_once(path: Path, ledger: Any, autojump_clock: Any) -> None:
    process = Process(path, ledger)
    async with running(process):
        write(path, capped(2))
        process.watch.look_now()
        await trio.sleep(0.01)
        assert process.in_force == version_of(capped(2))


# ---- a fleet -----------------------------------------------------------------------------------------------------


async def test_the_processes_of_a_fleet_switch_within_a_second_of_each_other(
    path: Path, ledger: Any, autojump_clock: Any
) -> None:
    # Given three processes that look at different moments
    fleet = [Process(path, ledger) for _ in range(3)]
    async with trio.open_nursery() as nursery:
        for process in fleet:
            await process.start(nursery)
            await trio.sleep(0.3)
        # When the file changes
        write(path, capped(2))
        switched = {}
        while len(switched) < 3:
            for number, process in enumerate(fleet):
                if process.in_force == version_of(capped(2)):
                    switched.setdefault(number, trio.current_time())
            await trio.sleep(0.01)
        # Then
        assert max(switched.values()) - min(switched.values()) <= LOOK_S + 0.02
        nursery.cancel_scope.cancel()
    assert len(await history(ledger)) == 2
    # And together they show how many decide by which rules
    whole = fleet[0].meter.totals
    for process in fleet[1:]:
        whole.merge(process.meter.totals)
    assert f'swipebell_rules_info{{version="{version_of(capped(2))}"}} 3.0' in shown(whole)


async def test_a_process_that_died_counts_no_longer(path: Path, ledger: Any, autojump_clock: Any) -> None:
    process = Process(path, ledger)
    async with running(process):
        write(path, "broken")
        await trio.sleep(SETTLED_S)
    process.meter.totals.drop_gauges()
    assert "swipebell_rules_broken 0.0" in process.metrics
    assert "swipebell_rules_info{" not in process.metrics
    assert 'swipebell_rules_reloads_total{result="broken"} 1.0' in process.metrics


async def test_a_restart_with_a_broken_file_goes_on_with_the_rules_in_force(
    path: Path, ledger: Any, autojump_clock: Any
) -> None:
    # Given rules in force, and a file that was spoilt since
    async with running(Process(path, ledger)):
        pass
    write(path, "broken")
    # When a process starts, then it rings on, with the alarm
    process = Process(path, ledger)
    async with running(process):
        assert process.in_force == version_of(capped(1))
        assert process.alarm
        # And takes the file once it is mended
        write(path, capped(2))
        await trio.sleep(SETTLED_S)
        assert (process.in_force, process.alarm) == (version_of(capped(2)), False)
    # But a command that somebody waits for says it and ends, and so does a first start
    write(path, "broken")
    for where in (ledger, InlineLedger()):
        with pytest.raises(ConfigurationError, match=r"rules\.toml: not TOML"):
            await Process(path, where).watch.first(strict=where is ledger)
    where.store.close()


async def test_a_ledger_that_cannot_be_used_is_asked_again(path: Path, ledger: Any, autojump_clock: Any) -> None:
    # Given a ledger that is busy just when the file changes
    process = Process(path, ledger)
    async with running(process):
        act, failures = ledger.rule_act, 3

        async def busy(change: Any) -> Any:
            nonlocal failures
            failures -= 1
            if failures >= 0:
                raise LedgerUnavailable("busy")
            return await act(change)

        ledger.rule_act = busy
        write(path, capped(2))
        await trio.sleep(SETTLED_S)
        assert process.in_force == version_of(capped(1))
        # When it can be used again, then the change is not forgotten
        await trio.sleep(3 * LOOK_S)
        assert process.in_force == version_of(capped(2))


async def test_rules_of_another_release_are_not_followed_and_raise_the_alarm(
    path: Path, ledger: Any, autojump_clock: Any
) -> None:
    # Given a process, and one of a later release beside it that puts rules in force which this one does not know
    process = Process(path, ledger)
    async with running(process):
        later = Activate(version="later", content="version = 99", by=Person("Ben"), at_ms=NOON_MS)
        await ledger.rule_act(later)
        with capture_logs() as logs:
            await trio.sleep(10 * LOOK_S)
        # Then it keeps its own and says so once
        assert process.in_force == version_of(capped(1))
        assert process.alarm
        assert [(line["event"], line["key"]) for line in loud(logs)] == [("rules_broken", "version")]
        # Until rules come that both know
        write(path, capped(2))
        await trio.sleep(SETTLED_S)
        assert (process.in_force, process.alarm) == (version_of(capped(2)), False)
    # And a start by such rules is refused where they must be obeyed
    await ledger.rule_act(later)
    with pytest.raises(ConfigurationError, match="the rules that the ledger has in force are not understood"):
        await Process(path, ledger, approval=True).watch.first(strict=False)


# ---- maker and checker -------------------------------------------------------------------------------------------


async def test_with_approval_the_first_rules_are_taken_and_a_change_waits(
    world: Any, path: Path, autojump_clock: Any
) -> None:
    # Given an engine that asks for approval, on a new ledger
    w: World = world()
    await w.tell(PERSON)
    process = Process(path, w.ledger, approval=True)
    first, second = version_of(capped(1)), version_of(capped(2))
    async with trio.open_nursery() as nursery:
        admitter = await process.start(nursery)
        assert await history(w.ledger) == [(first, "active", "initial")]
        async with w.running(admitter=admitter) as engine:
            await engine.admit([swipe(1)])
            # When the file changes
            write(path, capped(2))
            with capture_logs() as logs:
                await trio.sleep(60)
            # Then it is proposed in the name of its owner, once, and the first rules stay
            assert [(line["event"], line["version"], line["state"]) for line in loud(logs)] == [
                ("rules_not_in_force", second, "proposed")
            ]
            assert await history(w.ledger) == [(second, "proposed", OWNER), (first, "active", "initial")]
            assert process.reloads("waiting") == 1
            assert not process.alarm
            await engine.admit([swipe(2)])
            # When somebody else approves, then they decide within a second
            await w.ledger.rule_act(Approve(version=second, by=Person("Ben"), at_ms=NOON_MS))
            await trio.sleep(LOOK_S + 0.1)
            await engine.admit([swipe(3), swipe(4)])
            # And back, whatever the file says
            await w.ledger.rule_act(Approve(version=first, by=Person("Ben"), at_ms=NOON_MS))
            await trio.sleep(LOOK_S + 0.1)
            assert process.in_force == first
        nursery.cancel_scope.cancel()
    alerts = [await w.state(f"e{number}") for number in range(1, 5)]
    assert [(alert.reason, alert.ruleset) for alert in alerts] == [
        (None, first),
        ("cap", first),
        (None, second),
        ("cap", second),
    ]


async def test_a_process_that_starts_later_takes_the_approved_rules_and_not_the_files(
    path: Path, ledger: Any, autojump_clock: Any
) -> None:
    # Given approved rules, and a file that was changed while nothing ran
    async with running(Process(path, ledger, approval=True)):
        pass
    write(path, capped(2))
    # When a fleet starts
    fleet = [Process(path, ledger, approval=True) for _ in range(2)]
    async with running(*fleet):
        await trio.sleep(SETTLED_S)
        # Then it decides by the approved ones, and the file's are proposed once
        assert {process.in_force for process in fleet} == {version_of(capped(1))}
    assert await history(ledger) == [
        (version_of(capped(2)), "proposed", OWNER),
        (version_of(capped(1)), "active", "initial"),
    ]
    # And a start after they were rejected does not propose them again
    async with running(Process(path, ledger, approval=True)):
        await trio.sleep(SETTLED_S)
    assert len(await history(ledger)) == 2


async def test_a_broken_file_hinders_no_start_where_the_file_does_not_decide(
    path: Path, ledger: Any, autojump_clock: Any
) -> None:
    async with running(Process(path, ledger, approval=True)):
        pass
    write(path, "broken")
    rules = await Process(path, ledger, approval=True).watch.first(strict=True)
    assert rules.version_id == version_of(capped(1))


async def test_the_shipped_rules_need_no_file(ledger: Any, autojump_clock: Any) -> None:
    process = Process(None, ledger)
    async with running(process):
        await trio.sleep(60)
        assert not process.alarm
    ((version, state, by),) = await history(ledger)
    assert (version, state, by) == (process.in_force, "active", "the shipped rules")
