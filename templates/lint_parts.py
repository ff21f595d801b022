"""Tries each part of a template with its examples and with the longest values, and looks at what came out."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping

import msgspec

from templates.card import CardPart
from templates.errors import RenderError
from templates.facts import FIELDS
from templates.findings import Finding, Severity
from templates.limits import MAX_SIGN_UNITS, check, segments
from templates.loader import Loader, Part
from templates.longest import Longest, longest_values
from templates.mail import MailPart, MailWords
from templates.mail_look import Flaw, flaws
from templates.mail_places import MARK, UNSAFE_REMEDY, marked, unsafe_places
from templates.money import compact
from templates.remedies import problem_of, remedy_for
from templates.render import SmsPart, Source, WechatPart
from templates.template import examples_of

MAX_USUAL_PARTS = 3
"""Of an SMS with names as long as a card message has them. Every part is paid, and a swipe needs two."""

Found = Callable[[Finding], None]

_start_tags = re.compile(r"<[a-z][^>]*>").findall
_LONGEST_SIGN = "签" * MAX_SIGN_UNITS


class _Try(msgspec.Struct, frozen=True):
    """A part of the template on trial: its table, its locale, its texts by key, and what is filled."""

    table: str
    locale: str
    sources: Mapping[str, Source]
    part: Part
    together: bool = False
    """All keys of a WeChat part as an alert renders them: at once, with the fuel and the room of one text."""


def check_parts(loader: Loader, refused: Collection[str], found: Found) -> dict[str, tuple[int, int]]:
    """Tells ``found`` of all that the parts of ``loader``'s file make of its values; where one of the places in
    ``refused`` is concerned, it is left alone. Returns by locale how many parts an SMS has, with the
    examples and as is usual.
    """
    return _Trial(loader, refused, found).run()


class _Trial:
    def __init__(self, loader: Loader, refused: Collection[str], found: Found) -> None:
        self._loader = loader
        self._refused = set(refused)
        self._found = found
        self._told: set[tuple[str, str]] = set()
        self._seen: set[tuple[str, ...]] = set()
        self._sms: dict[str, tuple[int, int]] = {}
        self._failed: set[tuple[str, str]] = set()

    def run(self) -> dict[str, tuple[int, int]]:
        file = self._loader.file
        assert file is not None
        for one in self._tries():
            if not self._refused.isdisjoint({f"[{one.table}]", *(f"[{one.table}] {key}" for key in one.sources)}):
                continue
            examples = {
                name: example for name, example in examples_of(file.fields, one.locale).items() if name in FIELDS
            }
            bare = {name: "" if FIELDS[name].optional else value for name, value in examples.items()}
            self._try(one, Longest("its examples", examples))
            if isinstance(one.part, MailPart):
                self._look_for_unsafe(one, one.part, examples)
            self._try(one, Longest("nothing that is optional", bare))
            for longest in longest_values(examples, one.locale):
                self._try(one, longest)
        return self._sms

    def _tries(self) -> Iterator[_Try]:
        file, sources = self._loader.file, self._loader.sources
        assert file is not None
        for locale, keys in file.wechat.items():
            table = f"wechat.{locale}"
            for key in keys:
                if source := sources.get((table, key)):
                    # A name of its own: it must not take the place of the source in the engine.
                    part = WechatPart(self._loader.engine, f"{source.name}/alone", locale, {key: source})
                    yield _Try(table, locale, {key: source}, part)
            known = {key: source for key in keys if (source := sources.get((table, key)))}
            if len(known) == len(keys) and f"[{table}]" not in self._refused:
                whole_part = WechatPart(self._loader.engine, f"{self._loader.name}/{table}/together", locale, known)
                yield _Try(table, locale, known, whole_part, together=True)
        for locale in file.sms:
            if text := sources.get((f"sms.{locale}", "text")):
                yield _Try(f"sms.{locale}", locale, {"text": text}, SmsPart(locale, text))
        for locale in file.email:
            mail = {key: sources.get((f"email.{locale}", key)) for key in ("subject", "text", "html")}
            whole = {key: source for key, source in mail.items() if source is not None}
            if len(whole) == len(mail):
                mail_part = MailPart(locale, whole["subject"], whole["text"], whole["html"])
                yield _Try(f"email.{locale}", locale, whole, mail_part)
        for locale, card in file.card.items():
            title, description = (sources.get((f"card.{locale}", key)) for key in ("title", "description"))
            if title is not None and description is not None:
                card_part = CardPart(locale, title, description, card.picture, card.url)
                texts = {"title": title, "description": description}
                yield _Try(f"card.{locale}", locale, texts, card_part)

    def _try(self, one: _Try, longest: Longest) -> None:
        if one.together:
            self._try_together(one, longest)
            return
        try:
            made = one.part.fill(longest.values)
        except RenderError as error:
            self._failed.add((one.table, longest.label))
            where, line = self._loader.place_of(error, one.table)
            what = f"is refused with {longest.label}: {problem_of(error)}"
            self._tell(where, what, remedy_for(error), "error", line, once=f"refused: {problem_of(error)}")
            return
        if isinstance(made, str):
            self._look_at_sms(one, longest, made)
            self._look_for_lost(one, "text", longest, made)
        elif isinstance(made, MailWords):
            self._look_for_lost(one, "subject", longest, made.subject)
            self._look_at_mail(one, made.html)
        elif isinstance(made, dict):
            for key, value in made.items():
                self._look_for_lost(one, key, longest, value["value"])
            for problem in check(made):
                key = problem.partition(":")[0]
                self._tell(f"[{one.table}] {key}", f"WeChat would refuse it: {problem}", "shorten the text", "error")
        else:
            for key in one.sources:
                self._look_for_lost(one, key, longest, getattr(made, key))

    def _try_together(self, one: _Try, longest: Longest) -> None:
        assert isinstance(one.part, WechatPart)
        if (one.table, longest.label) in self._failed:
            return  # that a key alone is refused has been said
        try:
            one.part.fill_together(longest.values)
        except RenderError as error:
            what = f"its keys cannot be rendered together with {longest.label}: {problem_of(error)}"
            line = self._loader.places.table(one.table)
            self._tell(f"[{one.table}]", what, remedy_for(error), "error", line, once=problem_of(error))

    def _look_for_lost(self, one: _Try, key: str, longest: Longest, shown: str) -> None:
        """Texts may be cut; an amount, a time or a word that the reader was to see may not go missing."""
        source = one.sources[key]
        plain = source.render(longest.values)
        for name in source.uses:
            value = longest.values[name]
            if FIELDS[name].type == "text" or not value or value not in plain:
                continue
            if value not in shown and compact(value) not in shown:
                becomes = "shown as --" if FIELDS[name].type == "money" else "cut"
                what = f"{{{{ {name} }}}} has no room and is {becomes} with {longest.label}"
                remedy = "shorten the words around it, or give it a key of its own"
                self._tell(f"[{one.table}] {key}", what, remedy, "warning", once=f"lost {name}")

    def _look_at_sms(self, one: _Try, longest: Longest, text: str) -> None:
        parts = segments(_LONGEST_SIGN + text)
        if longest.label == "its examples":
            self._sms[one.locale] = (parts, parts)
        elif longest.usual:
            self._sms[one.locale] = (self._sms.get(one.locale, (parts, parts))[0], parts)
            if parts > MAX_USUAL_PARTS:
                what = f"is sent as {parts} parts with its sign and {longest.label}"
                self._tell(f"[{one.table}] text", what, f"shorten it to {MAX_USUAL_PARTS}: each is paid", "warning")

    def _look_at_mail(self, one: _Try, html: str) -> None:
        tags = (one.table, *_start_tags(html))
        if tags not in self._seen:  # most values change the words only, and looking takes 2 ms
            self._seen.add(tags)
            for flaw in flaws(html):
                self._tell_flaw(one, flaw)

    def _look_for_unsafe(self, one: _Try, mail: MailPart, examples: Mapping[str, str]) -> None:
        """Follows what the core system writes freely through layouts and macros to where it comes out."""
        if any(unsafe_places(marked(one.sources["html"].text), styles=False)):
            return  # told with its line by lint_text
        values = {name: example + MARK * (FIELDS[name].type == "text") for name, example in examples.items()}
        try:
            html = mail.fill(values).html
        except RenderError:
            return  # told with the examples themselves
        for _, place in unsafe_places(html, styles=True):
            self._tell(f"[{one.table}] html", f"a field stands {place}", UNSAFE_REMEDY, "error")

    def _tell_flaw(self, one: _Try, flaw: Flaw) -> None:
        file, places = self._loader.file, self._loader.places
        assert file is not None
        position = file.email[one.locale].html.find(flaw.tag)
        line = places.key(one.table, "html") if position < 0 else places.inside(one.table, "html", position)
        from_layout = "" if position >= 0 else f" (in {flaw.tag[:80]})"
        severity: Severity = "error" if flaw.error else "warning"
        self._tell(f"[{one.table}] html", flaw.what + from_layout, flaw.remedy, severity, line)

    def _tell(
        self, where: str, what: str, remedy: str, severity: Severity, line: int | None = None, *, once: str = ""
    ) -> None:
        if (where, once or what) in self._told:
            return
        self._told.add((where, once or what))
        if line is None:
            table, _, key = where.lstrip("[").partition("] ")
            line = self._loader.places.key(table, key)
        self._found(Finding(str(self._loader.path), line, where, what, remedy, severity))
