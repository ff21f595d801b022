"""The report of a load test: one file that says what was measured, whatever was measured, and asks for nothing."""

from __future__ import annotations

import json
import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest.report import outcome_of, render_report, write_report
from loadtest.report_charts import FULL, linear_axis, log_axis, percentile_axis, time_axis
from loadtest.report_series import MAX_COLUMNS, MAX_GROUPS, MAX_PERCENTILES, grouped, line_of, thinned, value_at
from loadtest.report_text import show_axis, show_clock, show_duration, show_ms, show_rate
from loadtest.result import Interval, LoadResult, Percentiles, Verdict
from tests.loadtest import report_kit

HOSTILE = "</script></style><script>window.taken = 1</script><img src=x onerror='window.taken = 1'>\"'&{{ 7 * 7 }}]]>"

UNITS = {"k": 1e3, "M": 1e6, "G": 1e9, " ms": 1.0, " s": 1e3}


class Reader(HTMLParser):
    """What is in a page: its tags with the names of their attributes, its texts, and each chart's parts."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, tuple[str, ...]]] = []
        self.texts: list[str] = []
        self.paths: dict[str, list[tuple[str, str]]] = {}
        self.data: dict[str, dict[str, Any]] = {}
        self.ticks: dict[str, list[tuple[float, str]]] = {}
        self._chart, self._in_data, self._tick = "", False, -1.0
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.tags.append((tag, tuple(values)))
        self._in_data = values.get("type") == "application/json"
        if tag == "figure":
            self._chart = values["id"]
        if tag == "path" and self._chart and values.get("class"):
            self.paths.setdefault(self._chart, []).append((values["class"], values["d"]))
        if tag == "text" and values["class"] == "up":
            self._tick = float(values["y"].rstrip("%"))

    def handle_data(self, data: str) -> None:
        if self._in_data:
            self.data[self._chart], self._in_data = json.loads(data), False
        elif self._tick >= 0:
            self.ticks.setdefault(self._chart, []).append((self._tick, data))
            self._tick = -1.0
        if data.strip():
            self.texts.append(data.strip())

    def series(self, chart: str) -> dict[str, list[float | None]]:
        """What is shown under the pointer, by name."""
        return {one["name"]: one["values"] for one in self.data[chart]["series"]}

    def drawn(self, chart: str, kind: str) -> list[tuple[int, int]]:
        """The corners of one path."""
        (path,) = [path for name, path in self.paths[chart] if name == kind]
        return [(int(x), int(y)) for x, y in re.findall(r"[ML](\d+) (\d+)", path)]


def number(label: str) -> float:
    """The value that stands on a tick."""
    digits, unit = re.fullmatch(r"([\d.,]+)(.*)", label).groups()  # type: ignore[union-attr]
    return float(digits.replace(",", "")) * (UNITS[unit] if unit else 1.0)


def small(**changes: Any) -> LoadResult:
    """A run of three seconds that nothing is wrong with."""
    fields: dict[str, Any] = {
        "started": "2026-11-22 14:03:11",
        "seconds": 3.0,
        "scenario": {"profile": "flat"},
        "intervals": [Interval(at=float(n), scheduled=10, acknowledged=10, delivered=10) for n in (1, 2, 3)],
        "latencies": [],
        "summary": {"balanced": True},
        "books": {"accepted": 30, "ended": 30, "open": 0, "lost": 0, "duplicates": 0, "unknown": 0},
        "retries": {},
        "verdicts": [],
        "machine": {},
    }
    return LoadResult(**{**fields, **changes})


@pytest.mark.parametrize("seconds", [0, 1, 600])
def test_the_page_asks_for_nothing_outside(seconds: int) -> None:
    """Given runs of several lengths, then no page names an address, a file, a font or a style sheet."""
    page = render_report(report_kit.run(seconds))
    for outside in ("http://", "https://", "src=", "href=", "url(", "@import", "<link", "//cdn"):
        assert outside not in page


def test_hostile_texts_stay_texts() -> None:
    """Given markup in every text of a result, then the page has the very tags of a harmless one, and shows the text."""

    def page(text: str) -> str:
        made = report_kit.run(5, interrupted=True, generator_note=text, started=text)
        made.scenario = {text: text, "profile": text}
        made.machine = {text: text}
        made.verdicts = [Verdict(text=text, measured=text, holds=False)]
        made.retries = {text: 3}
        made.books = {text: 1, f"provider_{text}": 2, **made.books}
        made.summary["by_channel"] = {text: {"attempts": 1, "delivered": 1}}
        made.latencies[0].name = text
        made.intervals[0].retries = {text: 3_000}
        return render_report(made)

    hostile, harmless = Reader(page(HOSTILE)), Reader(page("harmless"))
    assert hostile.tags == harmless.tags
    assert hostile.texts.count(HOSTILE) >= 12
    assert HOSTILE in hostile.series("retries")
    assert HOSTILE in hostile.series("percentiles")


def test_a_name_that_is_not_utf_8_is_shown_as_far_as_it_can_be() -> None:
    """Given a file's name with a byte that is not UTF-8, then there is a page, with a mark in that place."""
    assert "swipes-?.ndjson" in render_report(small(scenario={"events": "swipes-\udcff.ndjson"}))


def test_writing_replaces_the_old_page_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    """Given an older page, when a report is written over it, then the folder holds just the new one."""
    path = tmp_path / "report.html"
    path.write_text("old")
    write_report(small(), path)
    assert path.read_text(encoding="utf-8") == render_report(small())
    assert [found.name for found in tmp_path.iterdir()] == ["report.html"]


def test_a_folder_that_is_missing_is_the_callers_to_tell(tmp_path: Path) -> None:
    """Given a path into no folder, then writing raises ``OSError``."""
    with pytest.raises(FileNotFoundError):
        write_report(small(), tmp_path / "missing" / "report.html")


@pytest.mark.parametrize(
    ("changes", "outcome", "reason"),
    [
        ({}, "passed", None),
        ({"verdicts": [Verdict(text="lost==0", measured="0", holds=True)]}, "passed", None),
        ({"verdicts": [Verdict(text="p99<1ms", measured="9 ms", holds=False)]}, "failed", "p99<1ms: measured 9 ms"),
        ({"summary": {"balanced": False}}, "failed", "the books do not balance"),
        ({"summary": {}, "books": {"accepted": 3, "ended": 1, "open": 1}}, "failed", "the books do not balance"),
        ({"summary": {}, "books": {"accepted": 3, "ended": 1, "open": 2}}, "passed", None),
        ({"books": {"lost": 1}}, "failed", "1 accepted alert was lost"),
        ({"books": {"duplicates": 3, "unknown": 3}}, "passed", None),
        (
            {"books": {"duplicates": 3, "unknown": 1}},
            "failed",
            "2 more duplicates than attempts with an unknown outcome",
        ),
        ({"interrupted": True}, "interrupted", None),
        ({"interrupted": True, "books": {"lost": 2}}, "interrupted", "2 accepted alerts were lost"),
        ({"interrupted": True, "summary": {}, "books": {}}, "interrupted", None),
    ],
)
def test_the_headline_is_the_verdict_and_its_reasons(changes: dict[str, Any], outcome: str, reason: str | None) -> None:
    """Given what went wrong, then the page says so at its top."""
    made = small(**changes)
    assert outcome_of(made) == (outcome, [reason] if reason else [])
    texts = Reader(render_report(made)).texts
    assert outcome.capitalize() in texts
    assert reason is None or reason in texts


def test_the_tiles_say_what_was_measured() -> None:
    """Given a run, then its key figures are those of its intervals, its books and its first latency."""
    made = report_kit.run(600)
    texts = Reader(render_report(made)).texts
    points = dict(made.latencies[0].points)
    start = texts.index("Rate in")
    tiles = " ".join(texts[start : texts.index("Assertions")])
    for shown in (
        f"Rate in {sum(one.scheduled for one in made.intervals) / 600:,.0f} /s",
        f"Rate out {sum(one.delivered for one in made.intervals) / 600:,.0f} /s",
        f"p50 {show_ms(points[50.0])}",
        f"p99 {show_ms(points[99.0])}",
        f"max {show_ms(points[100.0])}",
        "Lost 0",
        "Duplicates 0",
        f"Pushed back {sum(one.pushed_back for one in made.intervals):,}",
        f"Largest process {max(one.engine_mb or 0 for one in made.intervals):,.0f} MB",
    ):
        assert shown in tiles


def test_the_charts_hold_the_values_that_were_given() -> None:
    """Given a run of ten minutes, then every second of it is in the charts, unchanged."""
    made = report_kit.run(600)
    page = Reader(render_report(made))
    rates, latencies = page.series("rates"), page.series("latencies")
    assert rates["scheduled"] == [one.scheduled for one in made.intervals]
    assert rates["acknowledged"] == [one.acknowledged for one in made.intervals]
    assert rates["delivered"] == [one.delivered for one in made.intervals]
    assert latencies["p50"] == [one.p50_ms for one in made.intervals]
    assert latencies["p99"] == [one.p99_ms for one in made.intervals]
    assert latencies["max"] == [one.max_ms for one in made.intervals]
    assert page.series("open")["open alerts"] == [one.open for one in made.intervals]
    assert page.series("engine_cores")["engine cores"] == [one.engine_cores for one in made.intervals]
    assert page.series("engine_mb")["engine memory"] == [one.engine_mb for one in made.intervals]


def test_a_line_is_drawn_where_its_axis_says() -> None:
    """Given the labels of an axis, when the corners of a line are read back with them, then they are the values."""
    made = report_kit.run(600)
    page = Reader(render_report(made))
    top = number(page.ticks["rates"][-1][1])
    rates = [top * (1 - y / FULL) for _, y in page.drawn("rates", "line c2")]
    assert rates == pytest.approx([one.delivered for one in made.intervals], abs=top / FULL)
    low, high = (number(page.ticks["latencies"][end][1]) for end in (0, -1))
    worst = [low * (high / low) ** (1 - y / FULL) for _, y in page.drawn("latencies", "line pmax")]
    assert worst == pytest.approx([one.max_ms for one in made.intervals], rel=1e-3)
    assert [x for x, _ in page.drawn("rates", "line c2")] == [round(FULL * n / 600) for n in range(1, 601)]


def test_the_percentile_plot_holds_the_points_that_were_given() -> None:
    """Given three latencies, then each is a line through its points, with the slowest at the right end."""
    made = report_kit.run(600)
    page = Reader(render_report(made))
    assert [one["name"] for one in page.data["percentiles"]["series"]] == [one.name for one in made.latencies]
    for given_points, series in zip(made.latencies, page.data["percentiles"]["series"], strict=True):
        assert series["values"] == [value for _, value in given_points.points]
        assert [float(label.rstrip("%")) for label in series["labels"]] == pytest.approx(
            [p for p, _ in given_points.points]
        )
        assert series["places"] == sorted(series["places"])
        assert series["places"][-1] == FULL
        for p in (50.0, 99.0, 99.9, 100.0):
            assert show_ms(dict(given_points.points)[p]) in page.texts


def test_retries_are_stacked_and_listed_by_cause() -> None:
    """Given more causes than colours, then the rarest are one layer, no attempt is left out, and the table has all."""
    made = report_kit.run(100)
    page = Reader(render_report(made))
    layers = page.series("retries")
    assert len(layers) == 5
    assert "other causes" in layers
    drawn = sum(value or 0 for line in layers.values() for value in line)
    assert drawn == sum(count for one in made.intervals for count in one.retries.values())
    for cause, count in made.retries.items():
        assert page.texts[page.texts.index(cause, page.texts.index("Cause")) + 1] == f"{count:,}"


def test_the_two_books_stand_side_by_side() -> None:
    """Given the ledger's counts and the providers', then each has its column, and the sum of the ledger's is shown."""
    books = {"accepted": 1_030, "ended": 1_020, "open": 10, "provider_delivered": 1_019, "lost": 0, "duplicates": 1}
    texts = Reader(render_report(small(books={**books, "unknown": 2}))).texts
    start = texts.index("The books")
    assert texts[start : start + 21] == [
        *("The books", "balanced", "1,030 accepted = 1,020 ended + 10 open"),
        *("The ledger", "accepted", "1,030", "ended", "1,020", "open", "10"),
        *("The providers", "delivered", "1,019"),
        *("0", "lost", "1", "duplicates", "2", "unknown", "The machine", "Nothing is known."),
    ]


def test_a_run_without_an_interval_says_that_nothing_was_measured() -> None:
    """Given an interrupt at once, then the page says so and claims neither charts nor balance."""
    made = small(seconds=0.0, interrupted=True, intervals=[], summary={}, books={}, scenario={})
    page = Reader(render_report(made))
    assert "Interrupted" in page.texts
    assert "Nothing was measured: the run ended before its first second did." in page.texts
    assert not page.data
    assert "balanced" not in page.texts


def test_a_run_of_one_interval_shows_its_values_as_dots() -> None:
    """Given one second, then there is no line to draw, and each value is a dot."""
    page = Reader(render_report(report_kit.run(1)))
    kinds = Counter(kind for kind, _ in page.paths["latencies"])
    assert kinds == {"dot p50": 1, "dot p90": 1, "dot p99": 1, "dot pmax": 1}
    assert [len(values) for values in page.series("rates").values()] == [1, 1, 1]


def test_a_run_without_latencies_says_so() -> None:
    """Given no accepted alert, then there is no percentile plot and the latency chart says why."""
    page = Reader(render_report(small()))
    assert "No alert was accepted by a provider, so there is no latency." in page.texts
    assert "percentiles" not in page.data


def test_a_gap_without_latency_breaks_the_line() -> None:
    """Given seconds in which nothing was accepted, then the line does not lead across them."""
    made = small()
    made.intervals = [Interval(at=float(n), max_ms=None if n == 3 else 5.0) for n in range(1, 6)]
    (path,) = [path for kind, path in Reader(render_report(made)).paths["latencies"] if kind == "line pmax"]
    assert path.count("M") == 2


def test_a_generator_at_its_limit_is_said_at_the_top() -> None:
    """Given the generator's note, then it stands before the figures."""
    texts = Reader(render_report(small(generator_note="41,000 of 60,000 a second"))).texts
    assert texts.index("41,000 of 60,000 a second") < texts.index("Rate in")


def test_a_whole_day_is_a_page_of_under_2_mb_that_shows_its_one_bad_second() -> None:
    """Given 86,400 seconds of which one was bad, then it is drawn, and the page says what a point stands for."""
    made = report_kit.run(86_400)
    made.intervals[40_000].max_ms = 77_777.0
    page = render_report(made)
    read = Reader(page)
    assert len(page.encode()) < 2_000_000
    assert len(read.series("rates")["scheduled"]) == MAX_GROUPS
    assert len(read.series("retries")["throttle"]) == MAX_COLUMNS
    assert max(value or 0 for value in read.series("latencies")["max"]) == 77_777.0
    x, y = min(read.drawn("latencies", "line pmax"), key=lambda spot: spot[1])
    assert x == round(FULL * 40_001 / 86_400)
    low, high = (number(read.ticks["latencies"][end][1]) for end in (0, -1))
    assert low * (high / low) ** (1 - y / FULL) == pytest.approx(77_777.0, rel=1e-3)
    assert any(text.startswith("Each point stands for 2 min of the run") for text in read.texts)


def an_interval() -> st.SearchStrategy[tuple[int, float | None]]:
    return st.tuples(st.integers(0, 10_000), st.none() | st.floats(0, 1e7))


@given(st.lists(an_interval(), max_size=60), st.integers(1, 12))
def test_grouping_loses_no_count_and_no_extreme(values: list[tuple[int, float | None]], most: int) -> None:
    """Given any run, when its intervals are grouped, then sums, smallest and largest stay in each group."""
    made = [Interval(at=n + 1.0, delivered=count, max_ms=ms) for n, (count, ms) in enumerate(values)]
    groups = grouped(made, most)
    assert len(groups) <= most
    assert [one for group in groups for one in group.intervals] == made
    assert sum(group.total("delivered") for group in groups) == sum(count for count, _ in values)
    for group in groups:
        inside = [one.max_ms for one in group.intervals if one.max_ms is not None]
        kept = [value for _, value in group.extremes("max_ms") if value is not None]
        assert bool(kept) == bool(inside)
        if inside:
            assert (min(kept), max(kept)) == (min(inside), max(inside))
            assert len(kept) <= 2
            assert group.peak("max_ms") == max(inside)
    spots = line_of(groups, "max_ms")
    known = {(one.at, one.max_ms) for one in made}
    assert [at for at, _ in spots] == sorted(at for at, _ in spots)
    assert all(spot in known for spot in spots if spot[1] is not None)


@given(st.lists(st.tuples(st.floats(0, 100), st.floats(0, 1e6)), min_size=1, max_size=3 * MAX_PERCENTILES))
def test_thinning_percentiles_keeps_both_ends(points: list[tuple[float, float]]) -> None:
    """Given any number of points, then at most the named number stay, in order, with the first and the last."""
    kept = thinned(points)
    assert len(kept) <= MAX_PERCENTILES
    assert (kept[0], kept[-1]) == (points[0], points[-1])
    remaining = iter(points)
    assert all(any(one is found for found in remaining) for one in kept)


@given(st.lists(st.floats(1e-3, 1e8), min_size=1, max_size=20))
def test_a_logarithmic_axis_holds_every_value_between_its_ends(values: list[float]) -> None:
    """Given any latencies, then the axis has its ends labelled, at most 13 labels, and each value in its place."""
    axis = log_axis(values, show_ms)
    places = [axis.place(tick) for tick, _ in axis.ticks]
    assert places[0] == pytest.approx(0, abs=1e-9)
    assert places[-1] == pytest.approx(1)
    assert 2 <= len(places) <= 13
    low, high = axis.ticks[0][0], axis.ticks[-1][0]
    assert all(low * (1 - 1e-6) <= value <= high * (1 + 1e-6) for value in values)
    ordered = sorted(values)
    assert [axis.place(value) for value in ordered] == sorted(axis.place(value) for value in ordered)
    assert axis.place(0.0) == 0.0


@given(st.floats(0, 1e9))
def test_a_linear_axis_reaches_the_highest_value(high: float) -> None:
    """Given a highest value, then the axis goes from 0 to a round number not below it, in at most six labels."""
    axis = linear_axis(high, show_axis)
    assert axis.ticks[0][0] == 0
    assert axis.ticks[-1][0] >= high * (1 - 1e-8)
    assert 2 <= len(axis.ticks) <= 6
    assert axis.place(axis.ticks[-1][0]) == pytest.approx(1)
    assert len({label for _, label in axis.ticks}) == len(axis.ticks)


@given(st.floats(0, 40 * 86_400))
def test_the_axis_of_time_has_few_labels_that_differ(seconds: float) -> None:
    """Given a run of up to forty days, then at most eleven labels stand on the axis, no two alike."""
    axis = time_axis(seconds)
    assert 1 <= len(axis.ticks) <= 11
    assert len({label for _, label in axis.ticks}) == len(axis.ticks)
    assert all(0 <= axis.place(at) <= 1 for at, _ in axis.ticks)


def test_each_nine_takes_as_much_room_as_the_one_before() -> None:
    """Given the percentile plot's axis, then 90, 99 and 99.9 stand at equal distances, and 100 at the end."""
    axis = percentile_axis(3.0)
    assert [axis.place(p) for p in (0, 90, 99, 99.9, 100)] == pytest.approx([0, 1 / 3, 2 / 3, 1, 1])
    assert [label for _, label in axis.ticks] == ["0%", "50%", "90%", "99%", "99.9%"]


def test_a_percentile_is_read_as_the_histogram_reads_it() -> None:
    """Given points, then a percentile has the first value that so many per cent do not exceed."""
    points = [(0.0, 1.0), (50.0, 2.0), (90.0, 3.0), (100.0, 9.0)]
    assert [value_at(points, p) for p in (0, 50, 75, 99, 100)] == [1.0, 2.0, 3.0, 9.0, 9.0]
    assert value_at([(50.0, 2.0)], 99) == 2.0
    assert value_at([], 50) is None


@pytest.mark.parametrize(
    ("shown", "text"),
    [
        (show_ms(0), "0 ms"),
        (show_ms(0.4217), "0.422 ms"),
        (show_ms(18.24), "18.2 ms"),
        (show_ms(999.4), "999 ms"),
        (show_ms(999.6), "1 s"),
        (show_ms(1240), "1.24 s"),
        (show_ms(1_234_567), "1,235 s"),
        (show_rate(0.25), "0.25"),
        (show_rate(9.54), "9.5"),
        (show_rate(12_345.4), "12,345"),
        (show_axis(2_500), "2.5k"),
        (show_axis(500), "500"),
        (show_axis(1_500_000), "1.5M"),
        (show_duration(0.2), "0.2 s"),
        (show_duration(600), "10 min"),
        (show_duration(630.4), "10 min 30 s"),
        (show_duration(3_900), "1 h 5 min"),
        (show_clock(65, 600), "1:05"),
        (show_clock(3_900, 7_200), "1:05"),
    ],
)
def test_numbers_are_shown_short(shown: str, text: str) -> None:
    """Given a number, then it is shown with no more digits than one takes in."""
    assert shown == text


def test_a_short_last_interval_is_no_spike() -> None:
    """Given an interrupt 10 ms into a second with three arrivals, then the rate does not read as 300 a second."""
    made = small(seconds=1.01, intervals=[Interval(at=1.0, scheduled=10), Interval(at=1.01, scheduled=3)])
    assert Reader(render_report(made)).series("rates")["scheduled"] == [10.0, 3.0]


def test_a_result_that_went_through_json_gives_the_same_page() -> None:
    """Given a result that was kept as JSON, when it is read again, then its page is the same."""
    made = report_kit.run(20)
    again = msgspec.json.decode(msgspec.json.encode(made), type=LoadResult)
    assert render_report(again) == render_report(made)


def test_many_latencies_are_all_in_the_table_and_few_in_the_plot() -> None:
    """Given more latencies than colours, then the plot keeps to its colours and the table lists every one."""
    many = [Percentiles(name=f"latency {n}", count=2, points=[(50.0, n + 1.0), (100.0, n + 2.0)]) for n in range(6)]
    page = Reader(render_report(small(latencies=many)))
    assert len(page.data["percentiles"]["series"]) == 4
    assert [one.name for one in many if one.name in page.texts] == [one.name for one in many]
