"""What a reader would stumble over in a mail's HTML: contrast in light and dark mode, pictures without words, links.

It looks at the mail as it is rendered, since colours and pictures may come from a layout. Pure.
"""

from __future__ import annotations

import re
import sys
from html.parser import HTMLParser

import msgspec

from templates.contrast import MIN_CONTRAST, Rgb, colour_in, contrast, named
from templates.stylesheet import Element, Style, Stylesheet, style_of

BLACK: Rgb = (0, 0, 0)
WHITE: Rgb = (255, 255, 255)
DARK_GROUND: Rgb = (18, 18, 18)
"""What clients lay behind a mail in dark mode, about."""

VOID = frozenset(["area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"])
UNSEEN = frozenset({"head", "title", "style", "script"})
DROPPED = frozenset({"script", "form", "iframe", "object", "embed", "video", "audio"})
"""Mail clients take these out."""

SAFE_LINKS = ("https://", "mailto:", "tel:", "cid:", "#")
ADDRESSES = ("action", "background", "cite", "data", "formaction", "href", "longdesc", "poster", "src", "xlink:href")
"""Attributes that hold an address; ``srcset`` holds several."""

MAX_TAGS = 1_000
"""Of a mail: the shipped ones have under 100. Each is looked at together with all around it, so that 10,000 inside of
each other take a minute."""

_styles = re.compile(r"<style[^>]*>(.*?)</style>", re.DOTALL | re.IGNORECASE)
_address_in_css = re.compile(r"""url\(\s*["']?\s*([^"')]*)|@import[^;]*|http:[^\s;]*""", re.IGNORECASE)
_css_escape = re.compile(r"\\(?:([0-9a-f]{1,6})\s?|(.))", re.IGNORECASE | re.DOTALL)
_scheme = re.compile(r"""name\s*=\s*["']color-scheme["'][^>]*dark""", re.IGNORECASE)


class Flaw(msgspec.Struct, frozen=True):
    """Something to change. ``tag`` is the start tag as it is written in the mail, to find it by; ``error`` is False
    when the mail can go out with it."""

    tag: str
    what: str
    remedy: str
    error: bool = True


def flaws(html: str) -> list[Flaw]:
    """All flaws of a rendered mail, each once, in the order in which a reader meets them."""
    if html.count("<") > MAX_TAGS:
        return [Flaw("", f"the mail has over {MAX_TAGS:,} tags and was not looked at", "write a smaller mail")]
    css = "\n".join(_styles.findall(html))
    sheet = Stylesheet(css)
    follows_dark = sheet.has_dark or _scheme.search(html) is not None
    found: dict[tuple[str, str], Flaw] = {}
    if not _is_safe_css(css):
        found["<style", ""] = Flaw("<style", "its style sheet takes something that is not https", _HTTPS)
    for dark in (False, True):
        look = _Look(sheet, dark=dark, follows_dark=follows_dark)
        look.feed(html)
        look.close()
        for flaw in look.found:
            found.setdefault((flaw.tag, flaw.what), flaw)
    return list(found.values())


class _Open(msgspec.Struct, frozen=True):
    """An element that is open. ``ink`` and ``ground`` are None where nothing gives them a colour."""

    element: Element
    start_tag: str
    ink: Rgb | None
    ground: Rgb | None
    hidden: bool


class _Look(HTMLParser):
    """One walk through the mail, in light or in dark mode."""

    def __init__(self, sheet: Stylesheet, *, dark: bool, follows_dark: bool) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[Flaw] = []
        self._sheet = sheet
        self._dark = dark
        self._follows_dark = follows_dark
        self._open: list[_Open] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        opened = self._opened(tag, given)
        if not self._dark:
            self._check_tag(tag, given, opened)
        if tag == "img" and given.get("alt", "").strip():
            self._check_contrast(opened)
        if tag not in VOID:
            self._open.append(opened)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        for depth in range(len(self._open) - 1, -1, -1):
            if self._open[depth].element.tag == tag:
                del self._open[depth:]
                return

    def handle_data(self, data: str) -> None:
        if data.strip() and self._open:
            self._check_contrast(self._open[-1])

    def _opened(self, tag: str, given: dict[str, str]) -> _Open:
        marks = {f".{name}" for name in given.get("class", "").split()}
        if "id" in given:
            marks.add(f"#{given['id']}")
        element = Element(tag, frozenset(marks))
        path = [*(one.element for one in self._open), element]
        style = self._sheet.style(path, style_of(given.get("style", "")), dark=self._dark)
        above = self._open[-1] if self._open else None
        ground = _ground(style) or colour_in(given.get("bgcolor", ""))
        ink = colour_in(style.get("color", "")) or colour_in(given.get("color", ""))
        hidden = tag in UNSEEN or _hides(style) or (above is not None and above.hidden and "font-size" not in style)
        return _Open(
            element,
            self.get_starttag_text() or f"<{tag}>",
            ink or (above.ink if above else None),
            ground or (above.ground if above else None),
            hidden or (above is not None and above.element.tag in UNSEEN),
        )

    def _check_tag(self, tag: str, given: dict[str, str], opened: _Open) -> None:
        text = opened.start_tag
        if tag in DROPPED:
            self._add(text, f"<{tag}> is taken out by mail clients", "remove it", error=False)
        if tag == "img" and "alt" not in given:
            self._add(text, "a picture has no alt text", 'add alt="…" for readers to whom it is not shown, or alt=""')
        for name, link in given.items():
            links = [link] if name in ADDRESSES else link.split(",") if name == "srcset" else []
            if not all(one.strip().lower().startswith(SAFE_LINKS) for one in links):
                self._add(text, f"its {name} is not https", _HTTPS)
        if not _is_safe_css(given.get("style", "")):
            self._add(text, "its style takes something that is not https", _HTTPS)
        if tag == "meta" and given.get("http-equiv", "").strip().lower() == "refresh":
            self._add(text, "it leads the reader to another page", "remove it, and give the reader a link")

    def _check_contrast(self, opened: _Open) -> None:
        if opened.hidden:
            return
        ink, ground = opened.ink, opened.ground
        if not self._dark:
            ink, ground = ink or BLACK, ground or WHITE
        elif self._follows_dark:
            ink, ground = ink or WHITE, ground or DARK_GROUND
        elif ink is None or ground is not None:
            return  # both are left to the client, or the mail looks as in light mode
        else:
            ground = DARK_GROUND
        ratio = contrast(ink, ground)
        if ratio < MIN_CONTRAST:
            mode = "dark" if self._dark else "light"
            what = f"text {named(ink)} on {named(ground)} has a contrast of {ratio:.1f}:1 in {mode} mode"
            self._add(opened.start_tag, what, self._remedy(opened))

    def _remedy(self, opened: _Open) -> str:
        if self._dark and opened.ground is None:
            return f"give its ground a colour, too; readers need {MIN_CONTRAST}:1"
        if self._dark:
            return f"give it a colour under @media (prefers-color-scheme: dark); readers need {MIN_CONTRAST}:1"
        return f"make the text darker or its ground lighter (or the other way about); readers need {MIN_CONTRAST}:1"

    def _add(self, tag: str, what: str, remedy: str, *, error: bool = True) -> None:
        self.found.append(Flaw(tag, what, remedy, error))


_HTTPS = "let it begin with https:// (or mailto:, tel:, cid:)"


def _is_safe_css(css: str) -> bool:
    """Whether all that it takes from elsewhere comes by https."""
    found = _address_in_css.finditer(_css_escape.sub(_unescaped, css))
    return all((one[1] or "").strip().lower().startswith(SAFE_LINKS) for one in found)


def _unescaped(found: re.Match[str]) -> str:
    """``\\72`` -> r: in a style sheet a letter may be written by its number."""
    return found[2] or (chr(number) if (number := int(found[1], 16)) <= sys.maxunicode else "")


def _ground(style: Style) -> Rgb | None:
    return colour_in(style.get("background-color", "")) or colour_in(style.get("background", ""))


def _hides(style: Style) -> bool:
    size = style.get("font-size", "").removesuffix("!important").strip()
    return style.get("display", "").startswith("none") or size in ("0", "0px")
