"""The bench: its tables and ratios from given figures, and a handful of everything end to end."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
import sys
from contextlib import ExitStack, closing
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from dispatcher.events import decode_lines
from loadtest.bench.clients import read_answer
from loadtest.bench.contest import QUICK, Bench, Contestant, compete
from loadtest.bench.figures import RAW, Failed, Results, Row, as_data
from loadtest.bench.full import BankLedger
from loadtest.bench.latency import percentiles
from loadtest.bench.renderings import FILTER_TEXTS, measure_channels, measure_filters
from loadtest.bench.rule_files import FILES, TWENTY, TWENTY_OF_SWIPES
from loadtest.bench.rules import Rulings, measure_rules
from loadtest.bench.scenarios import SCENARIOS, choose
from loadtest.bench.swipes import swipes
from loadtest.bench.table import tables
from ratelimit.rulefile import load_rules
from templates.filters import FILTERS
from templates.library import Library

BENCH_S = 120
"""Longest that a quick bench may take on a busy machine; it takes a few seconds."""


def results(*rows: Row) -> Results:
    return Results(machine={"processor": "abacus", "cores": "2"}, sink="a bucket", alerts=1000, rounds=3, rows=[*rows])


def rate(label: str, *per_second: float, base: str | None = None) -> Row:
    samples = [{"per_second": value, "cpu_us": 60.0, "peak_mib": 91.4} for value in per_second]
    return Row(scenario="one", label=label, kind="rate", base=base, samples=samples)


class TestRatios:
    def test_a_ratio_is_the_median_of_the_ratios_within_the_rounds(self) -> None:
        """Given a machine that is half as fast in the second round, When both halve, Then their ratio stays."""
        found = results(rate(RAW, 40_000, 20_000, 44_000), rate("one", 20_000, 10_000, 11_000, base=RAW))
        assert found.ratio(found.rows[1], RAW) == 0.5

    def test_a_row_without_its_base_or_compared_with_itself_has_no_ratio(self) -> None:
        found = results(rate("one", 1.0, base="two"))
        assert found.ratio(found.rows[0], "two") is None
        assert found.ratio(found.rows[0], "one") is None

    def test_the_json_has_samples_medians_ratios_and_failures(self) -> None:
        broken = Row(scenario="tls", label="TLS", kind="rate", failed="no nginx")
        data = as_data(results(rate(RAW, 10.0, 30.0, 20.0), rate("one", 5.0, 15.0, 10.0, base=RAW), broken))
        rows: Any = data["rows"]
        assert rows[1]["median"]["per_second"] == 10.0
        assert rows[1]["ratio_to_raw"] == rows[1]["ratio_to_base"] == 0.5
        assert [sample["per_second"] for sample in rows[0]["samples"]] == [10.0, 30.0, 20.0]
        assert data["failures"] == ["TLS: no nginx"]


class TestTables:
    def test_rates_stand_side_by_side_with_their_ratios_and_rounds(self) -> None:
        text = tables(results(rate(RAW, 40_000.0, 44_000.0), rate("one process", 10_000.0, 22_000.0)))
        assert text.splitlines() == [
            "1,000 alerts a round, median of 3 rounds in turns; sink: a bucket; processor abacus, cores 2.",
            "",
            "| what | a second | of raw network | of its base | processor, µs | largest process, MiB | rounds |",
            "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
            "| raw network | 42,000 |  |  | 60.0 | 91 | 40,000 · 44,000 |",
            "| one process | 16,000 | 0.38 |  | 60.0 | 91 | 10,000 · 22,000 |",
        ]

    def test_each_kind_of_figure_has_a_table_of_its_own(self) -> None:
        latency = Row(scenario="latency", label="lone", kind="latency", samples=[percentiles([3.0, 1.0, 2.0])])
        stages = [
            Row(scenario="stages", label=name, kind="stage", samples=[{"cpu_us": value}])
            for name, value in (("decode", 7.25), ("render", 16.5))
        ]
        memory = {"open": 1e6, "tenth_mib": 150.0, "peak_mib": 160.0, "per_second": 9000.0, "seconds": 111.0}
        backlog = Row(scenario="backlog", label="busy", kind="memory", samples=[memory])
        costs = {"rules_us": 7.0, "drafts_us": 9.25, "reads_us": 3.5, "admit_us": 31.0}
        ruling = Row(scenario="rules", label="twenty rules", kind="rules", samples=[costs])
        text = tables(results(latency, *stages, backlog, ruling))
        assert "| lone | 2.0 | 2.0 | 3.0 | 3 |" in text
        assert "| together | 23.8 |" in text
        assert "| busy | 1,000,000 | 150 | 160 | 9,000 | 111 |" in text
        assert "| twenty rules | 7.0 | 9.2 | 3.5 | 31.0 |" in text
        assert "of raw network" not in text

    def test_what_failed_says_so_and_why_and_gives_no_figure(self) -> None:
        row = Row(scenario="tls", label="TLS", kind="rate", samples=[{"per_second": 9.0}], failed="the sink died")
        text = tables(results(row))
        assert "| TLS | failed |" in text
        assert text.endswith("Failed:\n\n- TLS: the sink died\n")


class TestFullLedger:
    def test_one_that_was_not_closed_is_not_copied(self, tmp_path: Path) -> None:
        """Given a ledger whose last commits are in its -wal, When it is to be copied, Then that is refused."""
        given = tmp_path / "given.db"
        given.write_bytes(b"")
        given.with_name("given.db-wal").write_bytes(b"commits")
        bench = Bench(tmp_path / "bench", QUICK, nginx=None, full_ledger=given, say=lambda _: None)
        with pytest.raises(Failed, match="was not closed"):
            BankLedger(2, full=True).source(bench)

    def test_without_one_it_is_filled_once(self, tmp_path: Path) -> None:
        bench = Bench(tmp_path, QUICK, nginx=None, full_ledger=None, say=lambda _: None)
        source = BankLedger(2, full=True).source(bench)
        with closing(sqlite3.connect(source)) as connection:
            assert connection.execute("SELECT count(*) FROM alerts").fetchall() == [(QUICK.past_alerts,)]
            assert connection.execute("SELECT count(*) FROM recipients").fetchall() == [(QUICK.all_accounts,)]
        assert BankLedger(2, full=True).source(bench) == source


class TestAnswers:
    def test_the_body_is_as_long_as_its_head_says_and_the_next_answer_follows(self) -> None:
        ok = b'HTTP/1.1 202 \r\ncontent-length: 14\r\ndate: x\r\n\r\n{"accepted":1}'
        answers = BytesIO(ok + b"HTTP/1.1 429 \r\nretry-after: 1\r\n\r\n")
        assert read_answer(answers) == (202, b'{"accepted":1}')
        assert read_answer(answers) == (429, b"")

    def test_a_closed_connection_fails_the_measurement(self) -> None:
        with pytest.raises(Failed, match="broke"):
            read_answer(BytesIO(b""))


class _Tortoise:
    """A contestant that writes down its turns, and fails in one of them if it is told to."""

    kind = "rate"
    base = None

    def __init__(self, label: str, turns: list[str], *, fails_in: int = 0, cannot_open: bool = False) -> None:
        self.label = label
        self._turns = turns
        self._fails_in = fails_in
        self._cannot_open = cannot_open

    def open(self, bench: object, stack: object) -> None:
        if self._cannot_open:
            raise Failed("has no\nshoes")

    def measure(self, bench: object, number: int) -> dict[str, dict[str, float]]:
        self._turns.append(f"{self.label}{number}")
        if number == self._fails_in:
            raise Failed("fell over")
        return {self.label: {"per_second": float(number)}}


class TestTurns:
    @pytest.fixture
    def bench(self, tmp_path: Path) -> Bench:
        bench = Bench(tmp_path, QUICK, nginx=None, full_ledger=None, say=lambda _: None)
        bench.results = results()
        return bench

    def compete(self, bench: Bench, *contestants: Any) -> Results:
        given: list[tuple[str, Contestant]] = [("race", one) for one in contestants]
        compete(given, 3, bench)
        assert bench.results is not None
        return bench.results

    def test_contestants_take_turns(self, bench: Bench) -> None:
        turns: list[str] = []
        found = self.compete(bench, _Tortoise("A", turns), _Tortoise("B", turns))
        assert turns == ["A1", "B1", "A2", "B2", "A3", "B3"]
        assert [row.median("per_second") for row in found.rows] == [2.0, 2.0]
        assert not found.failures

    def test_one_that_fails_is_out_with_its_reason_and_the_others_go_on(self, bench: Bench) -> None:
        turns: list[str] = []
        found = self.compete(bench, _Tortoise("A", turns, fails_in=2), _Tortoise("B", turns))
        assert turns == ["A1", "B1", "A2", "B2", "B3"]
        assert found.failures == ["A: fell over"]

    def test_one_that_cannot_be_prepared_never_starts(self, bench: Bench) -> None:
        turns: list[str] = []
        found = self.compete(bench, _Tortoise("A", turns, cannot_open=True), _Tortoise("B", turns))
        assert turns == ["B1", "B2", "B3"]
        assert found.failures == ["A: has no shoes"]


class TestRulings:
    def test_every_rule_file_is_measured_and_tells_every_swipe(self, tmp_path: Path) -> None:
        """Given files of two to twenty rules, When they decide the same, Then more rules read more of the ledger."""
        bench = Bench(tmp_path, QUICK, nginx=None, full_ledger=None, say=lambda _: None)
        rulings = Rulings()
        with ExitStack() as stack:
            rulings.open(bench, stack)
            found = rulings.measure(bench, 1)
        assert list(found) == list(FILES)
        for costs in found.values():
            assert costs["rules_us"] > 0
            assert 0 < costs["drafts_us"] < costs["admit_us"]
            assert 0 < costs["reads_us"] < costs["admit_us"]

    @pytest.mark.parametrize("text", [TWENTY, TWENTY_OF_SWIPES])
    def test_twenty_rules_are_twenty(self, text: str) -> None:
        rules = load_rules(text, "twenty")
        assert len(rules.rule) == 20
        assert not rules.warnings

    def test_a_file_that_keeps_swipes_back_is_not_compared(self, tmp_path: Path) -> None:
        bench = Bench(tmp_path, QUICK, nginx=None, full_ledger=None, say=lambda _: None)
        site = bench.site("rules")
        site.take_ledger(bench.ledgers.empty(1))
        rules = load_rules(TWENTY.replace("limit = 500\n", "limit = 1\n"), "twenty")
        lines = list(swipes(20, accounts=1, batch="1"))
        with pytest.raises(Failed, match=r"of 20 swipes 1 were told"):
            measure_rules(site.ledger, rules, Library.load(), lines)


class TestRenderings:
    def test_each_channel_and_each_filter_has_its_figure(self) -> None:
        """Given the shipped library, When a batch of it is rendered, Then nothing is refused and every row is there."""
        found = measure_channels(Library.load(), 1)
        assert {"wechat: swipe", "sms: swipe", "email: swipe"} < set(found)
        for channel in ("wechat", "sms", "email"):
            (dearest,) = [found[label] for label in found if label.startswith(f"{channel}, the dearest template")]
            assert dearest >= found[f"{channel}: swipe"] > 0
        filters = measure_filters(1)
        assert len(filters) == len(FILTERS) + 1
        assert set(FILTER_TEXTS) == set(FILTERS)

    def test_they_are_a_table_of_their_own(self) -> None:
        row = Row(scenario="render", label="wechat: swipe", kind="render", samples=[{"cpu_us": 6.25}])
        assert "| one rendering | µs |\n| --- | ---: |\n| wechat: swipe | 6.2 |" in tables(results(row))


class TestSwipes:
    def test_every_swipe_is_an_event_with_an_id_of_its_own_in_every_batch(self) -> None:
        lines = [*swipes(500, accounts=97, batch="1"), *swipes(500, accounts=97, batch="2")]
        decoded = decode_lines(list(enumerate(lines, 1)))
        assert len({one.event.id for one in decoded.accepted}) == 1000

    def test_they_are_spread_over_all_accounts_that_the_filled_ledger_has(self) -> None:
        accounts = {json.loads(line)["account"] for line in swipes(97, accounts=97, batch="1")}
        assert accounts == {f"62200{number:07}" for number in range(1, 98)}

    def test_batches_that_follow_each_other_meet_other_accounts(self, tmp_path: Path) -> None:
        """Given rounds of a third of all accounts, each from where the last one ended, Then no account comes twice."""
        bench = Bench(tmp_path, QUICK, nginx=None, full_ledger=None, say=lambda _: None)
        files = [bench.events(30, 90, f"round-{number}", number * 30) for number in range(3)]
        accounts = [json.loads(line)["account"] for file in files for line in file.read_bytes().splitlines()]
        assert len(set(accounts)) == 90


class TestChoice:
    def test_heavy_ones_run_only_where_they_are_asked_for(self) -> None:
        heavy = {name for name, scenario in SCENARIOS.items() if scenario.heavy}
        assert heavy == {"full", "backlog"}
        assert set(choose((), everything=False)) == set(SCENARIOS) - heavy
        assert choose((), everything=True) == list(SCENARIOS)
        assert choose(("backlog", "raw"), everything=False) == ["raw", "backlog"]


def bench_command(*options: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "loadtest.bench", "--quick", *map(str, options)]
    return subprocess.run(command, capture_output=True, text=True, timeout=BENCH_S)


class TestEndToEnd:
    def test_a_quick_run_measures_writes_table_and_json_and_ends_well(self, tmp_path: Path) -> None:
        """Given the sink that is always there, When three scenarios run, Then each row has its figures."""
        only = ("--only", "raw", "--only", "two", "--only", "stream", "--only", "stages", "--sink", "python")
        files = ("--json", tmp_path / "new" / "bench.json", "--table", tmp_path / "bench.md")
        done = bench_command(*only, *files)
        assert done.returncode == 0, done.stderr
        data = json.loads((tmp_path / "new" / "bench.json").read_text())
        rates, stages = data["rows"][:3], data["rows"][3:]
        assert [row["label"] for row in rates] == [RAW, "two processes", "intake over the stream"]
        assert all(row["failed"] is None for row in data["rows"])
        assert all(row["median"]["per_second"] > 0 for row in rates)
        assert all(row["median"]["peak_mib"] > 20 for row in rates[1:])
        assert {row["scenario"] for row in stages} == {"stages"}
        assert sum(row["median"]["cpu_us"] for row in stages) > 10
        assert data["sink"] == "loadtest.sink (Python)"
        assert data["machine"]["cores"]
        assert (tmp_path / "bench.md").read_text() in done.stdout

    def test_what_cannot_be_measured_is_told_and_the_rest_is_measured(self, tmp_path: Path) -> None:
        """Given no nginx, When TLS is asked for beside the raw network, Then it fails with its reason, and exit 1."""
        done = bench_command("--only", "tls", "--only", "raw", "--sink", "python", "--json", tmp_path / "bench.json")
        assert done.returncode == 1, done.stderr
        data = json.loads((tmp_path / "bench.json").read_text())
        failed = {row["label"]: row["failed"] for row in data["rows"]}
        assert failed[RAW] is None
        assert "needs nginx" in failed["one process, TLS"]
        assert "- one process, TLS: a sink that speaks TLS needs nginx" in done.stdout

    @pytest.mark.skipif(shutil.which("openssl") is None, reason="the openssl command is not there")
    def test_tls_into_nginx(self, tmp_path: Path) -> None:
        done = bench_command("--only", "tls", "--sink", "nginx", "--json", tmp_path / "bench.json")
        if "nginx is not installed" in done.stderr:
            pytest.skip("nginx is not installed")
        assert done.returncode == 0, done.stderr
        assert "| one process, TLS |" in done.stdout

    def test_an_unknown_scenario_is_a_usage_error_that_names_the_known_ones(self, tmp_path: Path) -> None:
        done = bench_command("--only", "warp", "--json", tmp_path / "bench.json")
        assert done.returncode == 2
        assert "'raw', 'one', 'two'" in done.stderr
