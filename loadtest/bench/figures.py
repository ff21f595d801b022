"""What a bench has measured: rows of samples, their medians, and the ratios between rows."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import Literal

import msgspec

Figures = Mapping[str, float]
Kind = Literal["rate", "latency", "memory", "stage", "rules", "render"]

RAW = "raw network"
"""The label of the row that every rate is compared with."""


class Failed(Exception):
    """A measurement that cannot be trusted or did not happen, with the reason as one line; the run goes on."""


class Row(msgspec.Struct):
    """One thing that was measured, a sample a round. ``base`` is the label of the row that it is compared with."""

    scenario: str
    label: str
    kind: Kind
    base: str | None = None
    samples: list[dict[str, float]] = []
    failed: str | None = None

    def median(self, figure: str) -> float | None:
        """Of the rounds that have the figure; None when none has."""
        values = [sample[figure] for sample in self.samples if figure in sample]
        return statistics.median(values) if values else None


class Results(msgspec.Struct):
    """One run of the bench."""

    machine: dict[str, str]
    sink: str
    alerts: int
    rounds: int
    rows: list[Row] = []

    def row(self, label: str) -> Row | None:
        """The row of that label."""
        return next((row for row in self.rows if row.label == label), None)

    def ratio(self, row: Row, base: str | None) -> float | None:
        """Median over the rounds of the row's rate over that of ``base`` in the same round; None without both.

        Within a round, because the machine's speed changes more from round to round than between neighbours.
        """
        other = None if base is None or base == row.label else self.row(base)
        if other is None:
            return None
        pairs = zip(row.samples, other.samples, strict=False)
        ratios = [
            mine["per_second"] / theirs["per_second"]
            for mine, theirs in pairs
            if "per_second" in mine and theirs.get("per_second")
        ]
        return statistics.median(ratios) if ratios else None

    @property
    def failures(self) -> list[str]:
        """What failed, a line each."""
        return [f"{row.label}: {row.failed}" for row in self.rows if row.failed is not None]


def as_data(results: Results) -> dict[str, object]:
    """For JSON: every sample, the medians and the ratios."""
    rows = []
    for row in results.rows:
        names = sorted({name for sample in row.samples for name in sample})
        rows.append(
            {
                **msgspec.to_builtins(row),
                "median": {name: row.median(name) for name in names},
                "ratio_to_raw": _rounded(results.ratio(row, RAW)),
                "ratio_to_base": _rounded(results.ratio(row, row.base)),
            }
        )
    return {**msgspec.to_builtins(results), "rows": rows, "failures": results.failures}


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
