"""Previews in a real browser: that alerts can be seen, mails are drawn light and dark, and nothing leaves the page."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trio

from templates.library import Library
from templates.preview import preview_of, render_index, render_preview
from templates.template import Template
from tests.loadtest.browser_kit import CHROMIUM, Page, browser
from tests.templates.conftest import MakeFacts
from tests.templates.test_preview import HOSTILE

PATIENCE_S = 120
"""For a browser's start on a machine that is busy; it takes 2 s on an idle one."""

needs_browser = pytest.mark.skipif(
    CHROMIUM is None, reason="no chromium on this machine: the preview was not looked at"
)


@pytest.fixture
async def page(tmp_path: Path) -> AsyncIterator[Page]:
    """A tab of a new browser."""
    with trio.fail_after(PATIENCE_S):
        async with browser(tmp_path / "profile") as opened:
            yield opened


def written(folder: Path, text: str, name: str = "preview.html") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


async def looks_well(page: Page, path: Path) -> None:
    """Nothing was said to the console, nothing left the page, and nothing has to be scrolled sideways."""
    assert page.trouble == []
    inside = ("about:srcdoc", "data:image/svg+xml,")
    assert {url for url in page.requests if not url.startswith(inside)} == {path.as_uri()}
    assert await page.run("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    wide = "[...document.querySelectorAll('body *')].filter(e => !e.closest('svg') && e.tagName !== 'IFRAME')"
    beyond = f"{wide}.filter(e => e.getBoundingClientRect().right > innerWidth + 1).map(e => e.outerHTML.slice(0, 80))"
    assert await page.run(beyond) == []


INK = "e => Number(getComputedStyle(e).color.match(/\\d+/)[0])"
"""How much red there is in an element's text; all of them are grey, near enough."""

FRAMES = """[...document.querySelectorAll('#CASE iframe')].map(frame => {
  const body = frame.contentDocument.body, root = frame.contentDocument.documentElement;
  const box = frame.getBoundingClientRect();
  const outside = frame.parentElement.getBoundingClientRect();
  return {text: body.innerText, title: frame.title, back: getComputedStyle(body).backgroundColor,
    width: box.width, height: box.height, room: outside.width,
    whole: Math.abs(box.height - outside.height) < 2
      && root.scrollHeight <= frame.clientHeight
      && body.getBoundingClientRect().bottom > frame.clientHeight - 40,
    sideways: root.scrollWidth > frame.clientWidth}
})"""


async def frames(page: Page, case: str = "typical") -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = await page.run(FRAMES.replace("CASE", case))
    return found


@needs_browser
async def test_the_alert_can_be_seen(page: Page, tmp_path: Path, swipe: Template) -> None:
    """Given a wide window and a phone, light and dark, then every channel shows the amount in both languages and
    schemes, each mail is drawn whole and in the colours of its side, and one language and scheme can be looked at.
    """
    path = written(tmp_path, render_preview(preview_of(swipe)))
    for width, dark in ((400, True), (1400, False)):
        page.requests.clear()
        await page.open(path, width=width, dark=dark)
        await looks_well(page, path)
        for channel in ("wx", "sms"):
            for locale in ("zh-CN", "en"):
                shown = f"[...document.querySelectorAll('#typical .{channel}[lang=\"{locale}\"]')]"
                seen = f"{shown}.filter(e => e.checkVisibility() && e.innerText.includes('¥1,234.50')).length"
                assert await page.run(seen) == 2, (channel, locale)
        await mails_look_well(page)
    shown = (
        "[...document.querySelectorAll('#typical .wx')].filter(e => e.checkVisibility()).map(e => e.lang + e.className)"
    )
    assert len(await page.run(shown)) == 4
    await page.run("document.getElementById('locale-1').click(), document.getElementById('scheme-dark').click()")
    assert await page.run(shown) == ["enphone wx dark"]
    await page.run("document.getElementById('locale-all').click(), document.getElementById('scheme-all').click()")
    await mails_look_well(page)
    page.requests.clear()
    path = written(tmp_path, render_preview(preview_of(Library.load().template("greeting"))), "greeting.html")
    await page.open(path, width=400)
    await looks_well(page, path)
    await mails_look_well(page, "")  # these have a picture, in some frames


async def mails_look_well(page: Page, amount: str = "¥1,234.50") -> None:
    mails = await frames(page)
    assert len(mails) == 8
    for mail in mails:
        assert amount in mail["text"]
        assert mail["height"] > 100
        assert mail["width"] <= mail["room"] + 1
    assert all(mail["whole"] and not mail["sideways"] for mail in mails + await frames(page, "longest"))
    for scheme, shade in (("light", range(200, 256)), ("dark", range(64))):
        backs = [mail["back"] for mail in mails if f", {scheme}, " in mail["title"]]
        assert len(backs) == 4
        assert all(int(red) in shade for back in backs for red in re.findall(r"rgb\((\d+)", back)), (scheme, backs)


@needs_browser
async def test_nothing_hostile_runs(page: Page, tmp_path: Path, swipe: Template, make_facts: MakeFacts) -> None:
    """Given markup and an endless word in an event, then nothing runs or widens a page, and it is read."""
    facts = make_facts(merchant="".join(HOSTILE), city="x" * 400)
    path = written(tmp_path, render_preview(preview_of(swipe, facts=facts)))
    await page.open(path, width=400)
    await looks_well(page, path)
    assert await page.run("window.taken") is None
    assert await page.run("[...document.querySelectorAll('iframe')].some(f => 'taken' in f.contentWindow)") is False
    for mail in await frames(page, "event"):
        assert "<script>window.taken = 1</script>" in mail["text"]
        assert not mail["sideways"]


@needs_browser
async def test_the_library_can_be_looked_at(page: Page, tmp_path: Path) -> None:
    """Given the page of all templates, on a wide window and a phone, then each has its tile, which leads on, and what
    is light or dark in it has its own ink, whatever the page has.
    """
    previews = [preview_of(template, index="index.html") for template in Library.load()]
    names = [f"preview-{preview.template.id}.html" for preview in previews]
    path = written(tmp_path, render_index(previews, names), "index.html")
    for width, dark in ((1400, True), (400, False)):
        page.requests.clear()
        await page.open(path, width=width, dark=dark)
        await looks_well(page, path)
        tiles = "[...document.querySelectorAll('.tile a')].map(a => a.getAttribute('href')).sort()"
        assert await page.run(tiles) == sorted(names)
        empty = "[...document.querySelectorAll('.glass')].filter(e => e.checkVisibility() && e.innerText.trim() === '')"
        assert await page.run(f"{empty}.length") == 0
        await page.run("document.getElementById('scheme-all').click()")
        for scheme, shade in (("light", range(170)), ("dark", range(130, 256))):
            inks = await page.run(
                f"[...document.querySelectorAll('.{scheme} :is(dt, dd, p:not(.refused))')].map({INK})"
            )
            assert inks
            assert set(inks) <= set(shade), scheme
