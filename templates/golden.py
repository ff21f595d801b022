"""Golden renderings: what a template is known to make, kept as text files beside it, so that a change is seen.

Two cases are made of the template's own examples (with all of them, and without those that are optional), and one of
each event that the author has put there. A file has one channel and locale: ``golden/examples.sms.en.txt``.
"""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec

from templates.card import Card
from templates.errors import RenderError
from templates.facts import FIELDS, SwipeFacts
from templates.mail import MailWords
from templates.reading import read_bytes
from templates.render import WechatData
from templates.template import Template

FOLDER_NAME = "golden"
EVENT_ENDING = ".event.json"
"""Of a file with one event, whose name before it is that of the case."""

EXAMPLES, BARE = "examples", "bare"

MAX_EVENTS = 100
"""Of one template: a case for each kind of event is a tenth of it."""

MAX_GOLDEN_BYTES = 1_048_576
"""Of one file: a whole mail, text and HTML as long as they may be, takes a quarter."""

Rendered = WechatData | str | MailWords | Card


class Difference(msgspec.Struct, frozen=True):
    """A file that is not what the template makes. ``diff`` is a unified one; ``state`` says what to do: ``changed``,
    ``new`` (there is no file yet) or ``stale`` (nothing makes it any more)."""

    file: str
    state: str
    diff: str


def renderings(template: Template, events: Mapping[str, SwipeFacts]) -> dict[str, str]:
    """All files of a template by name. A rendering that fails is golden, too: its file says why."""
    made = {}
    for channel, locales in template.locales.items():
        for locale in locales:
            examples = template.examples(locale)
            bare = {name: "" if FIELDS[name].optional else value for name, value in examples.items()}
            cases: dict[str, Mapping[str, str] | SwipeFacts] = {EXAMPLES: examples, BARE: bare, **events}
            for case, given in cases.items():
                made[f"{case}.{channel}.{locale}.txt"] = _written(template, channel, locale, given)
    return made


def differences(folder: Path, made: Mapping[str, str]) -> Iterator[Difference]:
    """Where the files of ``folder`` are not what was made. Raises ``OSError`` and ``UnicodeDecodeError``."""
    kept = {path.name: _kept(path) for path in sorted(folder.glob("*.txt"))}
    for name in sorted(kept.keys() | made.keys()):
        before, after = kept.get(name), made.get(name)
        if before == after:
            continue
        state = "new" if before is None else "stale" if after is None else "changed"
        file = str(folder / name)
        lines = difflib.unified_diff(
            (before or "").splitlines(), (after or "").splitlines(), f"{file} (golden)", f"{file} (now)", lineterm=""
        )
        yield Difference(file, state, "\n".join(lines))


def _kept(path: Path) -> str:
    read = read_bytes(path, MAX_GOLDEN_BYTES)
    if len(read) > MAX_GOLDEN_BYTES:
        raise OSError(errno.EFBIG, f"Is over {MAX_GOLDEN_BYTES} bytes", str(path))
    return read.decode("utf-8").replace("\r\n", "\n")


def update(folder: Path, made: Mapping[str, str], different: list[Difference]) -> None:
    """Makes the files what the template makes, and removes those that nothing makes. Raises ``OSError``."""
    folder.mkdir(parents=True, exist_ok=True)
    for one in different:
        path = Path(one.file)
        if one.state == "stale":
            path.unlink()
        else:
            path.write_text(made[path.name], "utf-8")


def rendered(template: Template, channel: str, locale: str, facts: SwipeFacts) -> Rendered:
    """One alert on one channel, or its card. Errors as for ``Template.render_wechat``."""
    if channel == "wechat":
        return template.render_wechat(facts, locale)
    if channel == "sms":
        return template.render_sms(facts, locale)
    return template.render_email(facts, locale) if channel == "email" else template.render_card(facts, locale)


def _written(template: Template, channel: str, locale: str, given: Mapping[str, str] | SwipeFacts) -> str:
    try:
        if isinstance(given, SwipeFacts):
            return as_text(rendered(template, channel, locale, given))
        return as_text(_filled(template, channel, locale, given))
    except RenderError as error:
        return f"cannot be rendered: {error}\n"


def _filled(template: Template, channel: str, locale: str, values: Mapping[str, str]) -> Rendered:
    if channel == "wechat":
        return template.fill_wechat(values, locale)
    if channel == "sms":
        return template.fill_sms(values, locale)
    return template.fill_email(values, locale) if channel == "email" else template.fill_card(values, locale)


def as_text(made: Rendered) -> str:
    """A rendering for people and for files, ending in a line break."""
    if isinstance(made, str):
        return made + "\n"
    if isinstance(made, MailWords):
        return f"Subject: {made.subject}\n\n{made.text}\n\n----- HTML -----\n{made.html}\n"
    if isinstance(made, Card):
        return f"{made.title}\n{made.description}\npicture: {made.picture}\nlink: {made.url or '-'}\n"
    return "".join(f"{key}: {value['value']}\n" for key, value in made.items())
