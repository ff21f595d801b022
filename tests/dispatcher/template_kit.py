"""Small templates for tests: a folder of them, and one process of a fleet that watches it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import trio

from dispatcher.config import TemplatesConfig
from dispatcher.metrics import Meter
from dispatcher.templates_watch import TemplatesWatch
from templates.facts import FIELDS
from templates.layouts import SHIPPED
from tests.dispatcher.files_kit import write
from tests.dispatcher.ledger_kit import NOW
from tests.dispatcher.metrics_kit import shown

EXAMPLES = {"merchant": "星巴克", "due_date": "2026年11月25日", "amount": "¥1.00", "text": "新"}


def template(
    template_id: str = "swipe",
    version: int = 1,
    says: str = "{{ merchant }}",
    *,
    wechat: str | None = None,
    category: str = "swipe",
    match: str = "",
    mail: str = "",
) -> str:
    """A template.toml whose SMS (and WeChat message, unless ``wechat`` is given) is ``says``."""
    text = f'id = "{template_id}"\nversion = {version}\ncategory = "{category}"\n'
    if match:
        text += f"[match]\n{match}\n"
    wechat = says if wechat is None else wechat
    used = [name for name in EXAMPLES if name in says + wechat] or ["merchant"]
    for name in used:
        text += f'[[fields]]\nname = "{name}"\ntype = "{FIELDS[name].type}"\nexample = "{EXAMPLES[name]}"\n'
    for locale in ("zh-CN", "en"):
        text += f"[wechat.{locale}]\nthing5 = '''{wechat}'''\n[sms.{locale}]\ntext = '''{says}'''\n"
        if mail:
            text += f"[email.{locale}]\nsubject = 's'\ntext = 't'\nhtml = '''{mail}'''\n"
    return text


class Folder:
    """The bank's own folder of templates, and beside it a shipped library that is small, because the real one takes a
    quarter of a second to compile."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir()
        shipped = path.parent / "shipped" / "swipe"
        shipped.mkdir(parents=True)
        (shipped / "template.toml").write_text(template(says="shipped: {{ merchant }}"))

    def write(self, template_id: str = "swipe", version: int = 1, says: str = "{{ merchant }}", **more: Any) -> None:
        self.file(template_id).parent.mkdir(exist_ok=True)
        write(self.file(template_id), template(template_id, version, says, **more))

    def remove(self, template_id: str) -> None:
        shutil.rmtree(self.path / template_id)

    def file(self, template_id: str = "swipe") -> Path:
        return self.path / template_id / "template.toml"

    def layout(self, text: str) -> None:
        (self.path / "_layout").mkdir(exist_ok=True)
        write(self.path / "_layout" / "own.html", text)


class Process:
    """One process of a fleet: its watch, its metrics, and what it tells by. Without a ``path`` of the bank's own it has
    the library that is really shipped."""

    def __init__(self, path: Path | None, ledger: Any, *, approval: bool = False) -> None:
        self.meter = Meter()
        self.watch = TemplatesWatch(
            TemplatesConfig(path=path, approval=approval),
            ledger=ledger,
            meter=self.meter,
            now_ms=lambda: NOW + int(trio.current_time() * 1000) % 10**9,
            shipped=SHIPPED if path is None else path.parent / "shipped",
        )
        self.chosen: list[Any] = []

    async def start(self, nursery: trio.Nursery, *, strict: bool = False) -> None:
        await self.watch.first(strict=strict)
        nursery.start_soon(self.watch.run, self.chosen.append)

    @property
    def told(self) -> dict[str, str]:
        """What is told, by id, as far as it is not the shipped library's first version."""
        return {one.id: one.pinned for one in self.watch.library.in_force if one.id in ("swipe", "own")}

    @property
    def alarm(self) -> bool:
        return "swipebell_templates_broken 1.0" in shown(self.meter.totals)
