"""What an author can do about an error of the engine, of ``grammar`` or of a rendering. Pure."""

from __future__ import annotations

import re

from templates.errors import FieldRefused, RenderError, RenderFailed

line_in = re.compile(r"line ([0-9]+): ").match
"""In a reason: the line of the text that it is about."""

REMEDIES = {
    "SyntaxError": "correct it: {{ field }}, {{ field | filter }}, {% if field %} … {% endif %}",
    "UnknownFilter": "correct its name; docs/templates.md lists the filters",
    "UnknownStatement": "use if, or for … in range(…)",
    "UnknownEscape": "write the character itself",
    "UnknownFunction": "write for i in range(3)",
    "UnknownTest": "compare with == or !=, or use one of these",
    "TooLong": "write it in several pieces, one after the other",
    "TooDeep": "use elif, or fewer conditions inside of each other",
    "EngineFailed": "write it more simply, and tell us: this is a defect",
    "UnknownLoop": "write for i in range(3)",
    "UnknownOperator": "leave it out",
    "OutOfFuel": "it never ends or takes too long: remove the loop, or give it a few turns",
    "TemplateNotFound": "name a layout that exists, or write the text here",
    "UndefinedError": "a field is plain text and has no attributes: write {{ field }}",
}
"""What to do about an error, by the engine's name for it."""


def remedy_of(kind: str) -> str:
    """What the author can do about an error that the engine, or ``grammar``, calls ``kind``."""
    return REMEDIES.get(kind, "correct the template")


def problem_of(error: RenderError) -> str:
    """What went wrong, without its place."""
    if isinstance(error, FieldRefused | RenderFailed):
        return error.reason[found.end() :] if (found := line_in(error.reason)) else error.reason
    return str(error)


def remedy_for(error: RenderError) -> str:
    """What the author can do about it."""
    if isinstance(error, RenderFailed):
        reason = problem_of(error)
        if reason.startswith("more than"):
            return "write less, or repeat less"
        return REMEDIES.get(reason.partition(":")[0], "correct the template or the examples")
    return "correct the template or the examples"
