"""The templates that this process tells by, and every other version that an alert was decided with.

An alert names its version for good. What is told now is in memory; an alert that comes back to another process, or
after another version took its place, has its own version read from the ledger before it is rendered.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from pathlib import Path

from dispatcher.ledger.template_changes import TemplateText
from dispatcher.logs import get_logger
from templates.choose import Chooser, Share
from templates.errors import BrokenTemplate, TemplateError, UnknownTemplate
from templates.library import Library
from templates.loader import compile_template
from templates.template import Template

MAX_OLDER_VERSIONS = 64
"""Versions kept that are told no longer, about 100 KB each. Alerts live for hours to days, so a handful are in use."""

log = get_logger("templates")


def compiled(name: str, text: TemplateText) -> Template | None:
    """A version that the ledger keeps; None, and a line of the log, when this release does not understand it."""
    try:
        return compile_template(text.content, text.layouts, Path(f"template {name} of the ledger"))
    except TemplateError as error:
        log.error("template_version_broken", template=name, error=str(error))
    except Exception as error:  # one version may not end the service
        log.error("template_version_broken", template=name, error="a defect of Swipebell", exc_info=error)
    return None


class VersionedLibrary(Library):
    """A library that changes under a running engine, and learns older versions from the ledger.

    ``chooser`` chooses by what is in force. ``texts`` is `Ledger.template_texts`.
    """

    def __init__(self, texts: Callable[[Sequence[str]], Awaitable[dict[str, TemplateText]]]) -> None:
        super().__init__(())
        self.chooser: Chooser
        self.in_force: tuple[Template, ...] = ()
        """Every version that is told, of a template up to two."""
        self._texts = texts
        self._older: dict[str, Template | None] = {}
        """By name, those used last at the end; None: not to be had any more."""

    def put_in_force(self, templates: Sequence[Template], shares: Mapping[str, Share]) -> None:
        """Tell by these from now on. Of two versions of one template the one that comes first goes by its id."""
        before = self._by_name
        self._by_id = {template.id: template for template in reversed(templates)}
        self._by_name = self._by_id | {template.pinned: template for template in templates}
        self.in_force = tuple(templates)
        self.chooser = Chooser(templates, shares)
        # What waits in the lanes was decided by those before.
        older = {template.pinned: template for template in before.values() if template.pinned not in self._by_name}
        self._remember(older)

    def template(self, name: str) -> Template:
        """A template by its id, or by its name and version when it is in force or was learned. Raises
        `UnknownTemplate`, or `BrokenTemplate` for one that cannot be used any more."""
        found = self._by_name.get(name)
        if found is not None:
            return found
        if name not in self._older:
            raise UnknownTemplate(f"no template {name[:80]!r}")
        older = self._older[name]
        if older is None:
            raise BrokenTemplate(f"template {name[:80]!r} cannot be used any more")
        return older

    def missing(self, names: Iterable[str]) -> list[str]:
        """Those that have to be learned first."""
        return [name for name in names if name not in self._by_name and name not in self._older]

    async def learn(self, names: set[str]) -> None:
        """Make sure that every one of them can be asked for, until the caller waits for something again.

        Raises `LedgerUnavailable`; those learned before that are kept.
        """
        while missing := self.missing(names):  # again, because another lane may have pushed some out meanwhile
            texts = await self._texts(missing)
            self._remember({name: self._made(name, texts.get(name)) for name in missing}, names)

    def _made(self, name: str, text: TemplateText | None) -> Template | None:
        if text is not None:
            return compiled(name, text)
        # Decided before the ledger kept versions: the version in force says nearly the same, silence would say nothing.
        instead = self._by_id.get(name.partition("@")[0])
        log.warning("template_version_unknown", template=name, instead=None if instead is None else instead.pinned)
        return instead

    def _remember(self, versions: Mapping[str, Template | None], needed: Iterable[str] = ()) -> None:
        used_last = {name: self._older[name] for name in needed if name in self._older} | dict(versions)
        self._older = {name: one for name, one in self._older.items() if name not in used_last} | used_last
        spare = [name for name in self._older if name not in needed]
        for name in spare[: max(len(self._older) - MAX_OLDER_VERSIONS, 0)]:
            del self._older[name]
