"""``write_report``: a run as one HTML file that needs nothing else, to be looked at, printed and mailed.

The page (report.html) is rendered with every value escaped, so that a scenario's text or an error may hold anything.
Its charts are SVG and need no script; report.js only adds the pointer's cross-hair. A content security policy in the
page allows this style and this script by their hash and no request at all.
"""

from __future__ import annotations

import hashlib
import os
from base64 import b64encode
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any, Final, Literal

import minijinja
import msgspec

from dispatcher import __version__
from loadtest.report_plots import OTHER_CAUSES, along_the_time, percentile_plot
from loadtest.report_series import Group, grouped, value_at
from loadtest.report_text import show_clock, show_count, show_duration, show_ms, show_rate, show_share
from loadtest.result import LoadResult, Percentiles

Outcome = Literal["passed", "failed", "interrupted"]

TABLE_PERCENTILES: Final = (50.0, 90.0, 95.0, 99.0, 99.9, 99.99, 100.0)

MAX_CAUSES: Final = 30
"""Rows of the table of retries; what is rarer is added up in one more."""

PROVIDERS: Final = ("provider_", "providers_")
"""How names in ``LoadResult.books`` begin that were counted by the providers and not by the ledger."""

COMPARED: Final = ("lost", "duplicates", "unknown")
"""Names in ``LoadResult.books`` that come from holding the two books against each other."""

ENDS: Final = ("delivered", "suppressed", "failed", "expired", "cancelled")

WORDS: Final[dict[Outcome, str]] = {"passed": "Passed", "failed": "Failed", "interrupted": "Interrupted"}


def write_report(result: LoadResult, path: Path) -> None:
    """Write the page to ``path``, over what was there, in one step: a reader never finds half a page.

    Needs no network and reads no clock. Takes any result, also one without a single interval. Raises ``OSError``
    when the file cannot be written. Blocks for about 0.1 s, so call it in a thread where that matters.
    """
    part = path.with_name(f"{path.name}.part")
    try:
        part.write_text(render_report(result), encoding="utf-8")
        os.replace(part, path)
    except OSError:
        part.unlink(missing_ok=True)
        raise


def render_report(result: LoadResult) -> str:
    """The page as text."""
    style, script = _piece("report.css"), _piece("report.js")
    engine = minijinja.Environment(undefined_behavior="strict", trim_blocks=True, lstrip_blocks=True)
    engine.add_template("report.html", _piece("report.html"))
    page = engine.render_template(
        "report.html",
        style=style,
        script=script,
        style_hash=_hash(style),
        script_hash=_hash(script),
        **_printable(msgspec.to_builtins(_view(result))),
    )
    assert isinstance(page, str)
    return page


def outcome_of(result: LoadResult) -> tuple[Outcome, list[str]]:
    """Whether the run passed, and each reason why not.

    It fails with an assertion that does not hold, with books that do not balance, with a lost alert, and with more
    duplicates than attempts whose answer was never seen.
    """
    books = result.books
    reasons = [f"{one.text}: measured {one.measured}" for one in result.verdicts if not one.holds]
    if not _balanced(result):
        reasons.append("the books do not balance")
    if lost := books.get("lost", 0):
        reasons.append(f"{show_count(lost)} accepted {'alert was' if lost == 1 else 'alerts were'} lost")
    if (unexplained := books.get("duplicates", 0) - books.get("unknown", 0)) > 0:
        reasons.append(f"{show_count(unexplained)} more duplicates than attempts with an unknown outcome")
    if result.interrupted:
        return "interrupted", reasons
    return ("failed" if reasons else "passed"), reasons


def _piece(name: str) -> str:
    return files("loadtest").joinpath(name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return "sha256-" + b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _printable(value: Any) -> Any:
    """Without lone surrogates, which a file's name may hold and UTF-8 cannot."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode("utf-8")
    if isinstance(value, dict):
        return {_printable(key): _printable(inner) for key, inner in value.items()}
    return [_printable(inner) for inner in value] if isinstance(value, (list, tuple)) else value


def _balanced(result: LoadResult) -> bool:
    """The summary's word; without one, accepted = ended + open."""
    books = result.books
    if "balanced" in result.summary:
        return bool(result.summary["balanced"])
    return books.get("accepted", 0) == books.get("ended", 0) + books.get("open", 0)


def _view(result: LoadResult) -> dict[str, Any]:
    groups = grouped(result.intervals)
    outcome, reasons = outcome_of(result)
    per_group = max((len(group.intervals) for group in groups), default=1)
    return {
        "outcome": outcome,
        "verdict": WORDS[outcome],
        "reasons": reasons,
        "lead": _lead(result),
        "version": __version__,
        "started": result.started,
        "duration": show_duration(result.seconds),
        "interrupted": result.interrupted,
        "generator_note": result.generator_note,
        "tiles": _tiles(result),
        "scenario": _rows(result.scenario),
        "machine": _rows(result.machine),
        "verdicts": result.verdicts,
        "charts": along_the_time(result),
        "percentile_plot": percentile_plot(result.latencies),
        "percentiles": _percentile_table(result.latencies),
        "grouping": _grouping(per_group),
        "retries": _retry_table(result.retries),
        "channels": [
            (channel, show_count(counts.get("attempts", 0)), show_count(counts.get("delivered", 0)))
            for channel, counts in sorted(result.summary.get("by_channel", {}).items())
        ],
        "books": _books(result),
        "figures": [_figures(group, result.seconds) for group in groups],
    }


def _rows(named: Mapping[str, str]) -> list[tuple[str, str]]:
    """Pairs, because the template's engine would sort a mapping by name."""
    return [(_words(name), text) for name, text in named.items()]


def _words(name: str) -> str:
    return name.replace("_", " ")


def _lead(result: LoadResult) -> str:
    profile = result.scenario.get("profile")
    scheduled = sum(one.scheduled for one in result.intervals)
    parts = [profile, f"{show_count(scheduled)} arrivals in {show_duration(result.seconds)}"]
    return " · ".join(part for part in parts if part)


def _grouping(intervals: int) -> str | None:
    """What the reader must know of a long run's charts."""
    if intervals < 2:
        return None
    return (
        f"Each point stands for {show_duration(intervals)} of the run: rates are its mean; of latencies, open alerts, "
        "cores and memory its lowest and highest second are drawn."
    )


def _tiles(result: LoadResult) -> list[dict[str, str]]:
    seconds = max(result.seconds, 1e-9)
    intervals = result.intervals
    books, alerts = result.books, result.summary.get("alerts", {})

    def rate(label: str, field: str, noun: str) -> dict[str, str]:
        total = sum(getattr(one, field) for one in intervals)
        peak = max((getattr(one, field) for one in intervals), default=0)
        shown = show_rate(round(total / seconds, 1)) if intervals else "–"
        return {"label": label, "value": shown, "unit": "/s", "note": f"{noun}; peak {show_count(peak)}", "tone": ""}

    def count(label: str, value: int | None, note: str, tone: str = "") -> dict[str, str]:
        shown = "–" if value is None else show_count(value)
        return {"label": label, "value": shown, "unit": "", "note": note, "tone": tone if value else ""}

    memory = max((one.engine_mb for one in intervals if one.engine_mb is not None), default=None)
    duplicates, unknown = books.get("duplicates"), books.get("unknown")
    unexplained = (duplicates or 0) > (unknown or 0)
    return [
        rate("Rate in", "scheduled", "scheduled"),
        rate("Rate out", "delivered", "delivered"),
        *_latency_tiles(result),
        count("Lost", books.get("lost"), "accepted and gone", "bad"),
        count(
            "Duplicates",
            duplicates,
            "second messages" if unknown is None else f"of {show_count(unknown)} unknown outcomes",
            "bad" if unexplained else "",
        ),
        count("Open", books.get("open", alerts.get("open")), "not ended with the run"),
        count("Pushed back", sum(one.pushed_back for one in intervals), "arrivals that had to wait"),
        {
            "label": "Largest process",
            "value": "–" if memory is None else show_count(memory),
            "unit": "" if memory is None else "MB",
            "note": "resident memory at its peak",
            "tone": "",
        },
    ]


def _latency_tiles(result: LoadResult) -> list[dict[str, str]]:
    """p50, p99 and the worst of the first latency, which is the one from the scheduled arrival to the provider."""
    points = next((one.points for one in result.latencies if one.points), [])
    notes = {"p50": "from scheduled arrival", "p99": "from scheduled arrival", "max": "the slowest alert"}
    tiles = []
    for (label, note), percentile in zip(notes.items(), (50.0, 99.0, 100.0), strict=True):
        value = value_at(points, percentile)
        number, _, unit = (show_ms(value) if value is not None else "– ").partition(" ")
        tiles.append({"label": label, "value": number, "unit": unit, "note": note, "tone": ""})
    return tiles


def _percentile_table(found: list[Percentiles]) -> dict[str, Any]:
    return {
        "heads": ["max" if p == 100 else f"p{p:g}" for p in TABLE_PERCENTILES],
        "rows": [
            {
                "name": one.name,
                "count": show_count(one.count),
                "values": [
                    "–" if (value := value_at(one.points, p)) is None else show_ms(value) for p in TABLE_PERCENTILES
                ],
            }
            for one in found
        ],
    }


def _retry_table(retries: Mapping[str, int]) -> list[tuple[str, str, str]]:
    """Cause, attempts and share, the most frequent first."""
    ranked = sorted(retries.items(), key=lambda item: -item[1])
    rest = sum(count for _, count in ranked[MAX_CAUSES:])
    ranked = ranked[:MAX_CAUSES] + ([(OTHER_CAUSES, rest)] if rest else [])
    total = sum(retries.values())
    return [(cause, show_count(count), show_share(count / total)) for cause, count in ranked if count]


def _books(result: LoadResult) -> dict[str, Any]:
    """The ledger's column, the providers', and what holding them against each other gave."""
    books, alerts = result.books, result.summary.get("alerts", {})
    own = {name: count for name, count in books.items() if not name.startswith(PROVIDERS) and name not in COMPARED}
    ends = {name: alerts[name] for name in ENDS if alerts.get(name) and name not in own}
    theirs = {
        name[len(prefix) :]: count for name, count in books.items() for prefix in PROVIDERS if name.startswith(prefix)
    }
    compared = {name: books[name] for name in COMPARED if name in books}
    accepted, ended, still = (books.get(name) for name in ("accepted", "ended", "open"))
    sum_holds = accepted is not None and ended is not None and accepted == ended + (still or 0)
    return {
        "balanced": _balanced(result),
        "equation": f"{accepted:,} accepted = {ended:,} ended + {still or 0:,} open" if sum_holds else None,
        "ledger": _counts(own),
        "ends": _counts(ends),
        "providers": _counts(theirs),
        "compared": [
            {"name": _words(name), "count": show_count(count), "bad": name == "lost" and count > 0}
            for name, count in compared.items()
        ],
    }


def _counts(named: Mapping[str, int]) -> list[tuple[str, str]]:
    return [(_words(name), show_count(count)) for name, count in named.items()]


def _figures(group: Group, seconds: float) -> list[str]:
    """One row of the table for whoever reads the charts as text; columns as in report.html."""
    latencies = [group.peak(field) for field in ("p50_ms", "p90_ms", "p99_ms", "max_ms")]
    cores, memory = group.peak("engine_cores"), group.peak("engine_mb")
    return [
        show_clock(group.at, seconds),
        *(show_rate(round(group.rate(name), 1)) for name in ("scheduled", "acknowledged", "delivered", "pushed_back")),
        show_count(group.peak("open") or 0),
        *("–" if value is None else show_ms(value) for value in latencies),
        show_count(group.retries().total()),
        "–" if cores is None else f"{cores:.2f}",
        "–" if memory is None else show_count(memory),
    ]
