"""The template library: a folder a template, checked whole when it is loaded, so that no alert finds its
mistakes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from templates.errors import UnknownTemplate
from templates.layouts import SHIPPED, load_layouts
from templates.loader import FILE_NAME, MAX_FILE_BYTES, load_folder, load_template
from templates.template import DEFAULT_LOCALE, OTHER_LOCALE, Template, fallbacks

__all__ = [
    "DEFAULT_LOCALE",
    "FILE_NAME",
    "MAX_FILE_BYTES",
    "OTHER_LOCALE",
    "SHIPPED",
    "Library",
    "Template",
    "fallbacks",
    "load_template",
]


class Library:
    """All templates by id. Immutable once loaded; rendering is safe from any thread."""

    def __init__(self, templates: Iterable[Template]) -> None:
        self._by_id = {template.id: template for template in templates}
        self._by_name = self._by_id | {template.pinned: template for template in self._by_id.values()}

    @classmethod
    def load(cls, extra: Path | None = None) -> Library:
        """The shipped templates, and those of ``extra``, which win where an id is in both; so do its layouts, for all.

        Raises ``TemplateError`` for the first mistake, naming file, key, line and remedy.
        """
        layouts = load_layouts(SHIPPED) | (load_layouts(extra) if extra is not None else {})
        found = load_folder(SHIPPED, layouts)
        if extra is not None:
            found |= load_folder(extra, layouts)
        return cls(found.values())

    def __iter__(self) -> Iterator[Template]:
        return iter(self._by_id.values())

    def template(self, name: str) -> Template:
        """A template by its id (``swipe``) or pinned (``swipe@1``). Raises ``UnknownTemplate``."""
        try:
            return self._by_name[name]
        except KeyError:
            raise UnknownTemplate(f"no template {name[:80]!r}; there are {', '.join(sorted(self._by_name))}") from None
