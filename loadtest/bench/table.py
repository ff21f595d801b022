"""The results as tables in markdown, one for each kind of figure."""

from __future__ import annotations

from collections.abc import Sequence

from loadtest.bench.figures import RAW, Results, Row


def tables(results: Results) -> str:
    """All that was measured, and what failed. Ends with a newline."""
    machine = ", ".join(f"{name} {value}" for name, value in results.machine.items())
    parts = [
        f"{results.alerts:,} alerts a round, median of {results.rounds} rounds in turns; sink: {results.sink};"
        f" {machine}."
    ]
    makers = {
        "rate": _rates,
        "latency": _latencies,
        "memory": _memory,
        "stage": _stages,
        "rules": _rules,
        "render": _renderings,
    }
    for kind, make in makers.items():
        rows = [row for row in results.rows if row.kind == kind]
        if rows:
            parts.append(make(results, rows))
    if results.failures:
        parts.append("\n".join(["Failed:", "", *(f"- {failure}" for failure in results.failures)]))
    return "\n\n".join(parts) + "\n"


def _table(heads: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rule = ["---", *["---:"] * (len(heads) - 1)]
    return "\n".join("| " + " | ".join(line) + " |" for line in (heads, rule, *lines))


def _rates(results: Results, rows: Sequence[Row]) -> str:
    heads = ("what", "a second", "of raw network", "of its base", "processor, µs", "largest process, MiB", "rounds")
    lines = []
    for row in rows:
        of_base = results.ratio(row, row.base)
        rounds = " · ".join(f"{sample['per_second']:,.0f}" for sample in row.samples if "per_second" in sample)
        lines.append(
            (
                row.label,
                _number(row.median("per_second"), row),
                _ratio(results.ratio(row, RAW)),
                "" if of_base is None else f"{of_base:.2f} of {row.base}",
                _number(row.median("cpu_us"), digits=1),
                _number(row.median("peak_mib")),
                rounds,
            )
        )
    return _table(heads, lines)


def _latencies(_results: Results, rows: Sequence[Row]) -> str:
    names = ("p50", "p99", "max")
    lines = [
        (
            row.label,
            *(_number(row.median(name), row if name == "p50" else None, digits=1) for name in names),
            _number(row.median("count")),
        )
        for row in rows
    ]
    return _table(("latency, ms", *names, "of"), lines)


def _memory(_results: Results, rows: Sequence[Row]) -> str:
    lines = [
        (
            row.label,
            _number(row.median("open"), row),
            _number(row.median("tenth_mib")),
            _number(row.median("peak_mib")),
            _number(row.median("per_second")),
            _number(row.median("seconds")),
        )
        for row in rows
    ]
    heads = ("backlog", "open alerts", "peak at a tenth, MiB", "peak, MiB", "accepted a second", "seconds")
    return _table(heads, lines)


def _stages(_results: Results, rows: Sequence[Row]) -> str:
    lines = [(row.label, _number(row.median("cpu_us"), row, digits=1)) for row in rows]
    sums = [value for row in rows if (value := row.median("cpu_us")) is not None]
    return _table(("stage, alone", "µs an alert"), [*lines, ("together", f"{sum(sums):.1f}")])


def _rules(_results: Results, rows: Sequence[Row]) -> str:
    names = ("rules_us", "drafts_us", "reads_us", "admit_us")
    lines = [
        (row.label, *(_number(row.median(name), row if name == "rules_us" else None, digits=1) for name in names))
        for row in rows
    ]
    return _table(("send rules, µs an event", "alone", "with drafts", "reading for it", "whole admission"), lines)


def _renderings(_results: Results, rows: Sequence[Row]) -> str:
    lines = [(row.label, _number(row.median("cpu_us"), row, digits=1)) for row in rows]
    return _table(("one rendering", "µs"), lines)


def _number(value: float | None, row: Row | None = None, *, digits: int = 0) -> str:
    if row is not None and row.failed is not None:
        return "failed"
    return "" if value is None else f"{value:,.{digits}f}"


def _ratio(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
