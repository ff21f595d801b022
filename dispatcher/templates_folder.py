"""The template library on disk: the shipped one and the bank's own folder, with who owns each file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from dispatcher.ledger.people import Person
from dispatcher.watched import Seen, look, name_of
from templates.errors import TemplateError
from templates.layouts import SHIPPED, layout_files, load_layouts
from templates.loader import load_folder, load_template, template_files
from templates.template import Template

SHIPPED_BY = "the shipped library"


class TemplatesFolder:
    """Reads the library again and again; what has not changed since is not compiled anew (10 ms a template)."""

    def __init__(self, path: Path | None, shipped: Path = SHIPPED) -> None:
        self._path = path
        self._shipped = shipped
        self.path = shipped if path is None else path
        """The folder that is meant when something is wrong."""
        self._layouts: dict[str, str] | None = None
        self._loaded: dict[Path, tuple[Seen, Template]] = {}

    def look(self) -> Seen:
        """The state of every file in the bank's own folder; the shipped ones change with the release only."""
        if self._path is None:
            return ()
        try:
            files = [*template_files(self._path), *layout_files(self._path)]
        except TemplateError as error:  # which reading will say; it is news again when it is mended
            return (str(error),)
        return tuple((str(file), look(file)) for file in files)

    def read(self) -> list[Template]:
        """All templates, the bank's in the place of shipped ones. Raises `TemplateError` for the first mistake."""
        layouts = load_layouts(self._shipped) | (load_layouts(self._path) if self._path is not None else {})
        if layouts != self._layouts:
            self._layouts, self._loaded = layouts, {}
        used: dict[Path, tuple[Seen, Template]] = {}

        def load(path: Path, layouts: Mapping[str, str]) -> Template:
            state = look(path)
            known = self._loaded.get(path)
            used[path] = known if known is not None and known[0] == state else (state, load_template(path, layouts))
            return used[path][1]

        found = load_folder(self._shipped, layouts, load)
        if self._path is not None:
            found |= load_folder(self._path, layouts, load)
        self._loaded = used
        return list(found.values())

    def is_shipped(self, template: Template) -> bool:
        """Whether it came with this release."""
        return self._shipped in template.path.parents

    def owner_of(self, template: Template) -> Person:
        """Whose file it is."""
        if self.is_shipped(template):
            return Person(SHIPPED_BY)
        try:
            owner = name_of(template.path.stat().st_uid)
        except OSError:  # gone since it was read
            owner = "unknown"
        return Person(owner, owner)
