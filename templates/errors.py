"""What can go wrong with a template, by whose fault it is. No text in here ever holds a field's value."""

from __future__ import annotations

from pathlib import Path


class TemplateError(Exception):
    """The template's author made a mistake, found when the library is loaded; never raised for an alert.

    ``where`` is the table and key inside the file (``[wechat.en] thing5``), ``line`` counts from 1.
    """

    def __init__(self, file: Path, where: str, problem: str, remedy: str, line: int | None = None) -> None:
        self.file = file
        self.where = where
        self.problem = problem
        self.remedy = remedy
        self.line = line
        at = f"{file}:{line}" if line is not None else f"{file}"
        super().__init__(f"{at}: {where}: {problem}; {remedy}")


class UnknownTemplate(LookupError):
    """The caller asked for a template, a version or a channel that the library does not hold."""


class BrokenTemplate(UnknownTemplate):
    """The version that an alert was decided with can no longer be used: this release does not understand it."""


class RenderError(Exception):
    """This one alert cannot be rendered; the base of the three below. The engine goes on with the others."""


class FieldRefused(RenderError):
    """The provider would refuse this field, and shortening it would change what it says."""

    def __init__(self, key: str, reason: str) -> None:
        self.key = key
        self.reason = reason
        super().__init__(f"{key}: {reason}")


class RenderFailed(RenderError):
    """The template failed on this alert: out of fuel, too much output, a filter that refused its input."""

    def __init__(self, part: str, reason: str) -> None:
        self.part = part
        self.reason = reason
        super().__init__(f"{part}: {reason}")


class MissingFact(RenderError):
    """The event lacks a fact that the template needs; the core system's omission. It reads ``missing-fact NAME``."""

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(f"missing-fact {name}")


def reason_of(error: RenderError | UnknownTemplate) -> str:
    """Why an alert could not be told on a channel, as its attempt records it; no value of the event is in it.

    ``render:missing-fact due_date``, ``template-field:amount2``, ``template:BrokenTemplate``,
    ``template:RenderFailed sms.en/text, line 1: OutOfFuel``.
    """
    if isinstance(error, MissingFact):
        return f"render:{error}"
    if isinstance(error, FieldRefused):
        return f"template-field:{error.key}"
    if isinstance(error, RenderFailed):
        # The version is the alert's; what is to be corrected is the part.
        return f"template:RenderFailed {error.part.partition('/')[2]}, {error.reason}"
    return f"template:{type(error).__name__}"


def is_panic(error: BaseException) -> bool:
    """A defect inside of minijinja. Rust's panics are no ``Exception``: unless they are caught, one template ends the
    process. The engine itself stays usable, and each panic has a type of its own that only its name tells."""
    return type(error).__name__ == "PanicException"
