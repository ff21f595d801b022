"""Everything that is wrong with a template, or will be with some alert, before it is used. Pure but for reading files.

The loader finds what is wrong with the file itself and with its examples; the checks of ``lint_parts`` and
``lint_text`` try each part with the longest values there can be and look at what came out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path

import msgspec

from templates.errors import TemplateError
from templates.findings import Finding, of_error
from templates.layouts import SHIPPED, load_layouts
from templates.lint_parts import check_parts
from templates.lint_text import check_text
from templates.loader import FILE_NAME, Loader, same_id, template_files
from templates.template import Match, Template


class SmsParts(msgspec.Struct, frozen=True):
    """How many parts an SMS is sent and paid as, the longest sign included: with the template's examples, and with
    names as long as a card message has them."""

    example: int
    usual: int


class _Told(msgspec.Struct, frozen=True):
    """What a template's file says of the events that it is for."""

    id: str
    category: str
    match: Match | None = None


_Events = tuple[frozenset[str], frozenset[str], bool | None, bool | None, tuple[tuple[str, int], ...]]
_Rank = tuple[int, str]


class Linted(msgspec.Struct, frozen=True):
    """One file, and all that was found in it, in the order of its lines. ``id`` is None when it could not be read;
    ``sms`` is by locale."""

    id: str | None
    version: int | None
    file: str
    findings: tuple[Finding, ...]
    sms: dict[str, SmsParts] = {}

    @property
    def errors(self) -> int:
        return sum(finding.severity == "error" for finding in self.findings)


def lint_folder(folder: Path, over: Path | None = None) -> list[Linted]:
    """All templates of a library's folder, ids that two of them have included. ``over`` is a folder whose layouts take
    the place of this one's, as a bank's own take that of the shipped ones."""
    try:
        files = template_files(folder)
    except TemplateError as error:
        return [Linted(None, None, str(folder), (of_error(error),))]
    return lint_files(files, folder, over)


def lint_files(files: Iterable[Path], folder: Path, over: Path | None = None) -> list[Linted]:
    """Some templates of ``folder``, whose layouts they use, or those ``over`` them."""
    layouts, broken = _layouts(folder)
    if over is not None:  # what is wrong with them is said where that folder is linted
        layouts = {**layouts, **_layouts(over)[0]}
    by_id: dict[str, Template] = {}
    told = dict(_shipped_events())
    linted = [_lint_file(path, layouts, by_id, told) for path in files]
    return ([broken] if broken else []) + linted


def lint_file(path: Path, over: Path | None = None) -> list[Linted]:
    """One template.toml (or its folder), with the layouts beside it, or those ``over`` them."""
    file = path / FILE_NAME if path.is_dir() else path
    return lint_files([file], file.absolute().parent.parent, over)


def _layouts(folder: Path) -> tuple[Mapping[str, str], Linted | None]:
    shipped = load_layouts(SHIPPED)
    try:
        return shipped | load_layouts(folder), None
    except TemplateError as error:
        return shipped, Linted(None, None, str(error.file), (of_error(error),))


@cache
def _shipped_events() -> dict[_Events, _Rank]:
    """For which events the shipped templates are."""
    found = {}
    for path in template_files(SHIPPED):
        file = msgspec.toml.decode(path.read_bytes(), type=_Told)
        found[_events(file.category, file.match)] = _rank(file.id, file.match)
    return found


def _events(category: str, match: Match | None) -> _Events:
    match = match or Match()
    large = tuple(sorted((match.large_from or {}).items()))
    return (
        frozenset(match.category or (category,)),
        frozenset(match.type or ()),
        match.declined,
        match.foreign,
        large,
    )


def _rank(name: str, match: Match | None) -> _Rank:
    """As ``choose`` ranks templates that match one event: the smallest is used."""
    return (0 if match is None else -match.conditions), name


def _same_events(template: Template, loader: Loader, told: dict[_Events, _Rank]) -> Finding | None:
    """Two templates for the very same events: only one of them will ever be used."""
    ours = _rank(template.id, template.match)
    other = told.setdefault(_events(template.category, template.match), ours)
    if other[1] == template.id:
        return None
    where = "category" if template.match is None else "[match]"
    line = loader.places.key("", "category") if template.match is None else loader.places.table("match")
    what = f"is for the same events as {other[1]!r}, and {min(ours, other)[1]!r} is the one that is used"
    remedy = f"add a condition, or give it the id {other[1]!r} to replace that one"
    return Finding(str(loader.path), line, where, what, remedy, "warning")


def _lint_file(
    path: Path, layouts: Mapping[str, str], by_id: dict[str, Template], told: dict[_Events, _Rank]
) -> Linted:
    mistakes: list[TemplateError] = []
    loader = Loader(path, layouts, mistakes.append)
    template = loader.load()
    if template is not None and (other := by_id.setdefault(template.id, template)) is not template:
        mistakes.append(same_id(template, other))
    found = [of_error(mistake) for mistake in mistakes]
    if template is not None and (same := _same_events(template, loader, told)):
        found.append(same)
    sms: dict[str, SmsParts] = {}
    if loader.file is not None:
        # Where examples are refused already, the longest values would only say so again.
        refused = {finding.where for finding in found}
        for locale, (example, usual) in check_parts(loader, refused, found.append).items():
            sms[locale] = SmsParts(example, usual)
        check_text(loader, found.append)
    file = loader.file
    if file is None:
        return Linted(None, None, str(path), _in_order(found))
    return Linted(file.id, file.version, str(path), _in_order(found), sms)


def _in_order(found: Sequence[Finding]) -> tuple[Finding, ...]:
    unique = dict.fromkeys(found)
    return tuple(sorted(unique, key=lambda finding: (finding.line or 0, finding.where)))
