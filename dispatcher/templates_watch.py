"""Templates that change while the service runs: watches the bank's folder, and follows what the ledger says is told.

What the folder brings is written into the ledger: a newer version is told at once, or, where approval is asked for,
once somebody else than its owner has approved it. Each process then tells by the versions that the ledger names,
between two batches, whether they came from the folder, from an approval or from a rollback.

A folder that is not understood, or a version that says something else than it did, changes nothing: what is told stays,
one line of the log names file and remedy, and a metric raises the alarm until it is mended.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from dispatcher.config import TemplatesConfig
from dispatcher.errors import ConfigurationError
from dispatcher.ledger.api import Ledger
from dispatcher.ledger.people import ChangeRefused
from dispatcher.ledger.template_changes import Offered, TemplateText, TemplateVersion
from dispatcher.logs import get_logger
from dispatcher.metrics import Meter
from dispatcher.template_versions import VersionedLibrary, compiled
from dispatcher.templates_folder import TemplatesFolder
from dispatcher.watched import Seen, Watch
from templates.choose import DEFAULT_TEMPLATE, WHOLE, Chooser, Share
from templates.errors import TemplateError
from templates.layouts import SHIPPED
from templates.loader import FILE_NAME, compile_template, load_template
from templates.template import Template

LAST_RESORT_VERSION = 2**31
"""The highest that a file may have: nobody counts so far."""

log = get_logger("templates")

_version_line = re.compile(r"^version *=.*$", re.MULTILINE)


class TemplatesWatch(Watch):
    """Watches for one process. First `first`, then `run`. ``library`` is what this process tells by."""

    def __init__(
        self,
        config: TemplatesConfig,
        *,
        ledger: Ledger,
        meter: Meter,
        now_ms: Callable[[], int],
        shipped: Path = SHIPPED,
    ) -> None:
        super().__init__()
        self.library = VersionedLibrary(ledger.template_texts)
        self._folder = TemplatesFolder(config.path, shipped)
        self._approval = config.approval
        self._ledger = ledger
        self._meter = meter
        self._now_ms = now_ms
        self._act = -1
        """The last act that was followed, by its number in the ledger."""
        self._loaded: list[Template] | None = None
        """What the folder brought last; None: it was never understood."""
        self._said: dict[str, str] = {}
        """What was said of a version that is not told, so that it is said once."""
        self._folder_broken = self._version_broken = False
        self._publish: Callable[[Chooser], None] | None = None

    async def first(self, *, strict: bool) -> VersionedLibrary:
        """The library to start with.

        A folder that is not understood or that changes a version is passed over with the alarm when the ledger knows
        what is told, so that a restart does not silence every alert; not when ``strict``, and not when there is nothing
        else. Raises `ConfigurationError`, one line that names file and remedy.
        """
        seen = self._look()
        try:
            self._loaded = self._read()
        except TemplateError as error:
            now = await self._ledger.templates_in_use(-1)
            if strict or now is None or not now.versions:
                raise ConfigurationError(str(error)) from None
            self._broke(str(error))
        else:
            wrong = await self._offer(self._loaded)
            if wrong and strict:
                raise ConfigurationError(wrong[0])
        self._done = seen
        await self._follow()
        return self.library

    async def run(self, publish: Callable[[Chooser], None]) -> None:
        """Look every second; ``publish`` chooses by another library from the next batch on. See `Watch.watching`."""
        self._publish = publish
        await self.watching()

    def _look(self) -> Seen:
        return self._folder.look()

    async def _take(self, seen: Seen) -> None:
        try:
            loaded = self._read()
        except TemplateError as error:
            if self._look() == seen:
                self._broke(str(error))
                self._done = seen
            return
        if self._look() != seen:
            return  # it changed while it was read: what was read may be half of each
        self._folder_broken = False
        await self._offer(loaded)
        self._loaded = loaded
        self._act = -1  # also what is no longer in the folder is told no longer
        await self._follow()
        self._done = seen

    # ---- the folder's word --------------------------------------------------------------------------------------

    def _read(self) -> list[Template]:
        """All templates. Raises `TemplateError`, whatever is wrong: no file may end the service."""
        try:
            return self._folder.read()
        except TemplateError:
            raise
        except Exception as error:
            log.error("templates_defect", exc_info=error)
            problem = f"brings Swipebell to a defect of its own ({type(error).__name__})"
            remedy = "take out what was changed last, and report the line of the log before this one"
            raise TemplateError(self._folder.path, "the library", problem, remedy) from error

    async def _offer(self, loaded: Sequence[Template]) -> list[str]:
        """Write down what the folder brings; returns what is wrong with it."""
        offered = [
            Offered(
                id=template.id,
                version=template.version,
                digest=_digest(template),
                content=template.text,
                layouts=dict(template.layouts),
                by=self._folder.owner_of(template),
                approval=self._approval and not self._folder.is_shipped(template),
            )
            for template in loaded
        ]
        try:
            kept = await self._ledger.templates_offered(offered, self._now_ms())
        except ChangeRefused as error:
            self._broke(str(error))
            return [str(error)]
        wrong = []
        said_before, self._said = self._said, {}
        for template, version in zip(loaded, kept, strict=True):
            if version.digest.partition("/")[0] != template.digest:
                wrong.append(
                    f"{template.path}: says something else than the {template.pinned} that was told before;"
                    f" give it a version above {template.version}"
                )
            else:
                self._said[version.pinned] = self._mention(template, version, said_before)
        for line in wrong:
            self._broke(line)
        return wrong

    def _mention(self, template: Template, version: TemplateVersion, before: Mapping[str, str]) -> str:
        """Say of a version that it is not told, or not as it is written, unless that was said before."""
        said = {
            "proposed": f"waits for approval: swipebell templates approve {version.pinned} --by NAME",
            "retired": "is older than the version that is told; give it a higher one",
            "rejected": "was rejected; give the next try a higher version",
            "withdrawn": f"was rolled back; swipebell templates rollout {version.pinned} --percent N tells it again",
        }.get(version.state, "")
        if not said and version.digest != _digest(template):
            said = "keeps the layouts that it was loaded with; give it a higher version for the changed ones"
        if said and before.get(version.pinned) != said:
            log.warning("template_not_told", template=version.pinned, hint=said)
        return said

    # ---- the ledger's word --------------------------------------------------------------------------------------

    async def _follow(self) -> None:
        now = await self._ledger.templates_in_use(self._act)
        if now is None:
            return
        ids = {one.id for one in now.versions} if self._loaded is None else {one.id for one in self._loaded}
        told = [one for one in now.versions if one.id in ids]
        ready = self._ready(told)
        texts = await self._ledger.template_texts([one.pinned for one in told if one.pinned not in ready])
        self._version_broken = False
        for name, text in texts.items():
            if (template := self._compiled(name, text)) is not None:
                ready[name] = template
        missing = {one.id for one in told if one.state == "active" and one.pinned not in ready}
        instead = {id_: own for id_ in sorted(missing) if (own := await self._stand_in(id_)) is not None}
        whole = {one.id for one in told if one.state == "active" and one.pinned in ready}
        if DEFAULT_TEMPLATE not in whole | instead.keys():
            instead[DEFAULT_TEMPLATE] = await self._stand_in(DEFAULT_TEMPLATE) or await self._last_resort()
        self._put_in_force(told, ready, instead)
        self._act = now.act
        if self._publish is not None:
            self._publish(self.library.chooser)
        self._alarm()

    def _ready(self, told: Sequence[TemplateVersion]) -> dict[str, Template]:
        """Those that are compiled already, by name."""
        by_name = {one.pinned: one for one in self.library.in_force} | {one.pinned: one for one in self._loaded or ()}
        found = {}
        for version in told:
            template = by_name.get(version.pinned)
            if template is not None and version.digest == _digest(template):
                found[version.pinned] = template
        return found

    def _compiled(self, name: str, text: TemplateText) -> Template | None:
        template = compiled(name, text)
        self._version_broken |= template is None  # of another release, which runs on the same ledger
        return template

    def _put_in_force(
        self, told: Sequence[TemplateVersion], ready: Mapping[str, Template], instead: Mapping[str, Template]
    ) -> None:
        # One version of `swipe` is for all, even where the ledger has none but one that is being rolled out.
        active = {one.id for one in told if one.state == "active"}
        templates = {id_: [own] for id_, own in instead.items() if id_ not in active}
        shares: dict[str, Share] = {}
        # The active one of a template before the one that is rolled out beside it.
        for version in sorted(told, key=lambda one: -one.percent):
            template = ready.get(version.pinned)
            if template is None and version.state == "active":  # better this release's own than none
                template = instead.get(version.id)
            if template is None:
                continue
            others = templates.setdefault(version.id, [])
            if version.state == "approved":
                shares[template.pinned] = 0, version.percent
                shares |= {other.pinned: (version.percent, WHOLE) for other in others}
            others.append(template)
        before = {one.pinned for one in self.library.in_force}
        self.library.put_in_force([one for some in templates.values() for one in some], shares)
        if before:
            news = sorted({one.pinned for one in self.library.in_force} - before)
            rolling = {one.pinned: one.percent for one in told if one.state == "approved"}
            log.info("templates_in_force", news=news, percent=rolling)

    async def _stand_in(self, template: str) -> Template | None:
        """This process's own template of that id, for a version that does not compile here. Never one that somebody has
        yet to approve, has rejected or has taken back."""
        own = next((one for one in self._loaded or () if one.id == template), None)
        if own is None or (self._approval and not self._folder.is_shipped(own)) or not await self._may_be_told(own):
            return None
        return own

    async def _last_resort(self) -> Template:
        """What the release ships as ``swipe``: without it nothing at all would be told. Where its own number stands for
        something else, it goes by one that no ledger has: a retry in another process tells what is in force."""
        shipped = load_template(SHIPPED / DEFAULT_TEMPLATE / FILE_NAME)
        if await self._may_be_told(shipped):
            return shipped
        text = _version_line.sub(f"version = {LAST_RESORT_VERSION}", shipped.text, count=1)
        return compile_template(text, shipped.layouts, shipped.path)

    async def _may_be_told(self, own: Template) -> bool:
        """Whether the ledger has nothing against telling it: that its number stands for another text, which alerts may
        have pinned, or that it was never told to all."""
        known = (await self._ledger.template_history(1, own.id, own.version)).versions
        return all(one.digest == _digest(own) and one.state in ("active", "retired") for one in known)

    def _broke(self, line: str) -> None:
        self._folder_broken = True
        log.error("templates_broken", error=line)
        self._alarm()

    def _alarm(self) -> None:
        self._meter.templates_broken(self._folder_broken or self._version_broken)


def _digest(template: Template) -> str:
    """As the ledger keeps it: of the file, and of the layouts, which may change without it."""
    return f"{template.digest}/{template.layouts_digest}"
