"""Layouts: HTML that the mails of a library share, in its folder ``_layout``.

A mail names one by ``{% extends "mail" %}`` and fills its blocks, or takes macros from one by
``{% from "rows" import row %}``. Every layout is read and compiled when the library is loaded, under the name of its
file; rendering opens no file, and no name leads out of the folder.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import minijinja

from templates import grammar
from templates.errors import TemplateError
from templates.reading import read_text
from templates.render import TooLong, environment

FOLDER_NAME = "_layout"

MAX_LAYOUTS = 16
"""Files of one ``_layout``: a layout and its macros for each of a bank's few looks."""

MAX_LAYOUT_BYTES = 32_768
"""Of one file: as much as a whole mail may have once it is rendered."""

GIVEN = frozenset({"lang"})
"""What a layout may name besides its blocks and macros: the mail's locale."""

SHIPPED = Path(__file__).parent / "library"

_name = re.compile(r"[a-z][a-z0-9-]{0,63}").fullmatch
_quoted = re.compile(r"""["']([a-z][a-z0-9-]{0,63})["']""").findall


def load_layouts(folder: Path) -> dict[str, str]:
    """The layouts of a library's folder by name; none is fine. Raises ``TemplateError`` for the first mistake."""
    return {path.stem: _read(path) for path in layout_files(folder)}


def layout_files(folder: Path) -> list[Path]:
    """The files of a library's layouts; none is fine. Raises ``TemplateError``."""
    place = folder / FOLDER_NAME
    try:
        names = os.listdir(place)
    except OSError as error:
        if isinstance(error, FileNotFoundError | NotADirectoryError) and not os.path.lexists(place):
            return []
        problem = f"cannot be looked into ({error.strerror})"
        raise TemplateError(place, "the layouts", problem, "make it a folder, and check its rights") from None
    files = [place / name for name in sorted(names) if name.endswith(".html")]
    for file in files:
        check_name(file)
    if len(files) > MAX_LAYOUTS:
        raise TemplateError(place, "the layouts", f"are more than {MAX_LAYOUTS}", "join them or remove some")
    return files


def check_name(path: Path) -> None:
    """Raises ``TemplateError`` for a name that could not be shown where something is wrong with what it names."""
    try:
        path.name.encode()
    except UnicodeEncodeError:
        problem = f"holds a name that is not UTF-8: {path.name!a}"
        raise TemplateError(path.parent, "the folder", problem, "rename it") from None


def _read(path: Path) -> str:
    if not _name(path.stem):
        raise TemplateError(path, "the name", "is not a word of a-z, 0-9 and -", "rename the file")

    def wrong(where: str, problem: str, remedy: str, line: int | None = None) -> None:
        raise TemplateError(path, where, problem, remedy, line)

    text = read_text(path, wrong, "layout", MAX_LAYOUT_BYTES)
    assert text is not None
    _check(path, text)
    return text


def _check(path: Path, text: str) -> None:
    for number, line in enumerate(text.splitlines(), 1):
        if any(character < " " and character != "\t" for character in line):
            raise TemplateError(path, "the file", "holds a control character", "remove it", number)
    engine = environment()
    try:
        grammar.check_size(text)
        engine.add_template(path.stem, text)
        grammar.check(text, grammar.LAYOUT_STATEMENTS)
    except minijinja.TemplateError as error:
        raise TemplateError(
            path, "the layout", f"{error.kind}: {error.detail}", "correct the layout", error.line
        ) from None
    for name in sorted(engine.undeclared_variables_in_str(text) - GIVEN - engine.globals.keys()):
        at = next((number for number, line in enumerate(text.splitlines(), 1) if name in line), None)
        raise TemplateError(
            path, "the layout", f"names {name!r}", "a layout has blocks, which the template fills with fields", at
        )


def page_environment(layouts: Mapping[str, str]) -> minijinja.Environment:
    """The sandbox of mails' HTML, which knows the layouts by their names.

    What layouts have besides (``set``, macros) can be put together again and again, each time twice as long, and the
    engine's fuel counts steps only. So whatever is put into a text is measured; it costs 2 µs a piece.
    """
    engine = environment()
    engine.finalizer = _measured
    for name, text in layouts.items():
        engine.add_template(name, text)
    return engine


def _measured(piece: Any) -> Any:
    if isinstance(piece, str) and len(piece) > MAX_LAYOUT_BYTES:
        raise TooLong
    return piece


def used_layouts(text: str, layouts: Mapping[str, str]) -> dict[str, str]:
    """Those of ``layouts`` that ``text`` names in quotes, and that these name: with it they are what a mail says."""
    found: dict[str, str] = {}
    left = [text]
    while left:
        for name in _quoted(left.pop()):
            if name in layouts and name not in found:
                found[name] = layouts[name]
                left.append(layouts[name])
    return found
