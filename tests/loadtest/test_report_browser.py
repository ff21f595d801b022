"""The report in a real browser: that it draws what the other tests read, on a wide window, a phone and in the dark."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from importlib.resources import files
from pathlib import Path

import pytest
import trio

from loadtest.report import write_report
from loadtest.result import LoadResult
from tests.loadtest import report_kit
from tests.loadtest.browser_kit import CHROMIUM, Page, browser

CHARTS = ("rates", "latencies", "percentiles", "open", "pushed_back", "retries", "engine_cores", "engine_mb")

PATIENCE_S = 120
"""For a browser's start on a machine that is busy; it takes 2 s on an idle one."""

HOSTILE = "</script><script>window.taken = 1</script><img src=x onerror='window.taken = 1'>"

needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine: the report was not looked at")


@pytest.fixture
async def page(tmp_path: Path) -> AsyncIterator[Page]:
    """A tab of a new browser."""
    with trio.fail_after(PATIENCE_S):
        async with browser(tmp_path / "profile") as opened:
            yield opened


def written(result: LoadResult, folder: Path) -> Path:
    path = folder / "report.html"
    write_report(result, path)
    return path


async def looks_well(page: Page, path: Path) -> None:
    """Nothing was said to the console, nothing but the file was asked for, and nothing has to be scrolled sideways."""
    assert page.trouble == []
    assert set(page.requests) == {path.as_uri()}
    wide = "[...document.querySelectorAll('body *')].filter(e => !e.closest('.scroll') && !e.closest('svg'))"
    beyond = f"{wide}.filter(e => e.getBoundingClientRect().right > innerWidth + 1).map(e => e.outerHTML.slice(0, 80))"
    assert await page.run(beyond) == []
    assert await page.run("document.documentElement.scrollWidth <= document.documentElement.clientWidth")


@needs_browser
@pytest.mark.parametrize(("width", "dark"), [(1200, False), (1200, True), (400, False)])
async def test_the_charts_are_drawn(page: Page, tmp_path: Path, width: int, dark: bool) -> None:
    """Given a window of a width in light or dark, then each chart has its size, and its lines lie in it."""
    path = written(report_kit.run(), tmp_path)
    await page.open(path, width=width, dark=dark)
    await looks_well(page, path)
    for chart in CHARTS:
        box = await page.run(f"document.querySelector('#{chart} .frame').getBoundingClientRect().toJSON()")
        assert box["width"] > 0.6 * width / (1 if width < 820 or chart in CHARTS[:3] else 2) - 40
        assert box["height"] >= 180
        marks = await page.run(
            f"[...document.querySelectorAll('#{chart} .marks path')].map(p => p.getBoundingClientRect().toJSON())"
        )
        assert marks
        for mark in marks:
            assert box["left"] - 1 <= mark["left"] <= mark["right"] <= box["right"] + 1
            assert box["top"] - 1 <= mark["top"] <= mark["bottom"] <= box["bottom"] + 1
        letters = await page.run(f"getComputedStyle(document.querySelector('#{chart} text')).fontSize")
        assert letters == "12px"
    back = await page.run("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", back))) < 150) == dark


@needs_browser
async def test_the_pointer_shows_the_values_of_its_second(page: Page, tmp_path: Path) -> None:
    """Given the pointer over the middle of a chart, then a note has that second's values, and goes with the pointer."""
    made = report_kit.run(601)
    path = written(made, tmp_path)
    await page.open(path, width=1200)
    await page.run("document.querySelector('#rates').scrollIntoView()")
    box = await page.run("document.querySelector('#rates .hit').getBoundingClientRect().toJSON()")
    place = {"x": box["left"] + box["width"] * 301 / 601, "y": box["top"] + 50}
    await page.call("Input.dispatchMouseEvent", type="mouseMoved", **place)
    second = made.intervals[300]
    assert await page.run("document.querySelector('#rates .tip').innerText.split(/\\s+/).join(' ')") == (
        f"5:01 scheduled {second.scheduled:,}/s acknowledged {second.acknowledged:,}/s delivered {second.delivered:,}/s"
    )
    shown = "[...document.querySelectorAll('.cross')].filter(c => !c.hidden).length"
    assert await page.run(shown) == len(CHARTS) - 1, "all charts along the time show where the pointer is"
    await page.call("Input.dispatchMouseEvent", type="mouseMoved", x=5, y=5)
    assert await page.run(shown) == 0
    await looks_well(page, path)


@needs_browser
@pytest.mark.parametrize("seconds", [0, 1, 2])
async def test_tiny_runs_are_pages_too(page: Page, tmp_path: Path, seconds: int) -> None:
    """Given a run that hardly began, then its page opens on a phone without a complaint."""
    path = written(report_kit.run(seconds, interrupted=True), tmp_path)
    await page.open(path, width=400)
    await looks_well(page, path)
    assert await page.run("document.querySelector('h1').innerText.trim()") == "Interrupted"


@needs_browser
@pytest.mark.parametrize("width", [400, 1200])
async def test_nothing_hostile_runs(page: Page, tmp_path: Path, width: int) -> None:
    """Given markup and endless words in the texts of a result, then none of it runs or widens the page."""
    made = report_kit.run(30, generator_note=HOSTILE, started=HOSTILE)
    made.scenario = {"x" * 300: HOSTILE, "profile": "y" * 300}
    made.verdicts[0].text = made.verdicts[0].measured = HOSTILE
    made.retries = {HOSTILE: 1, "z" * 300: 1}
    made.latencies[0].name = HOSTILE
    path = written(made, tmp_path)
    await page.open(path, width=width)
    await looks_well(page, path)
    assert await page.run("window.taken") is None
    assert await page.run("document.querySelector('.lead').innerText.startsWith('yyy')")


def luminance(colour: str) -> float:
    """Relative luminance of ``#rrggbb`` as WCAG 2 defines it."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_texts_and_lines_stand_out_in_light_in_the_dark_and_on_paper() -> None:
    """Given each of the style's three sets of colours, then text has WCAG's 4.5 : 1, and lines 2.8 : 1."""
    style = files("loadtest").joinpath("report.css").read_text(encoding="utf-8")
    sets = [
        dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", block)) for block in re.findall(r":root \{(.*?)\}", style, re.S)
    ]
    assert len(sets) == 3
    for colours in sets:
        for text in ("ink", "soft", "faint", "good", "bad", "warn"):
            for ground in ("page", "card"):
                assert contrast(colours[text], colours[ground]) >= 4.5, (text, ground)
        for ground in ("warn-back", "bad-back"):
            assert contrast(colours["ink"], colours[ground]) >= 4.5
        for line in ("demand", "c1", "c2", "c3", "c4", "p50", "p90", "p99", "pmax", "pushed"):
            assert contrast(colours[line], colours["card"]) >= 2.8, line
