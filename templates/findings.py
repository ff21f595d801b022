"""What lint finds, as data."""

from __future__ import annotations

from typing import Literal

import msgspec

from templates.errors import TemplateError

Severity = Literal["error", "warning"]


class Finding(msgspec.Struct, frozen=True):
    """Something in a template to change. An ``error`` must be: the template would not load, a provider would refuse
    what it makes, or a reader could not read it. ``line`` counts from 1 and is None where no line is meant.
    """

    file: str
    line: int | None
    where: str
    what: str
    remedy: str
    severity: Severity

    def __str__(self) -> str:
        at = self.file if self.line is None else f"{self.file}:{self.line}"
        return f"{at}: {self.severity}: {self.where}: {self.what}; {self.remedy}"


def of_error(error: TemplateError) -> Finding:
    """What stops the library from loading."""
    return Finding(str(error.file), error.line, error.where, error.problem, error.remedy, "error")
