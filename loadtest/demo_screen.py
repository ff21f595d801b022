"""What the demonstration shows: the day as it goes by (stderr, on a terminal only) and alerts as they are read."""

from __future__ import annotations

import sys
from bisect import bisect_left
from collections import deque
from collections.abc import Sequence
from itertools import accumulate
from typing import Final

import msgspec
import trio
from rich.columns import Columns
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from dispatcher.metrics import Meter
from loadtest.demo_world import SMS_SIGN
from loadtest.traffic import MINUTES_A_DAY, Made
from templates.limits import segments

REFRESH_S: Final = 0.2
MARGIN: Final = 2
CHART_ROWS: Final = 4
CHART_COLUMNS: Final = (144, 96, 72, 48, 24)
"""Widths of the chart of the day: each divides a day's minutes, so that no column stands for more time."""
RATES_KEPT: Final = 40
CARD_COLUMNS: Final = 38
"""Two cards side by side on a terminal of 80 columns, three on one of 120."""

_BLOCKS: Final = " ▁▂▃▄▅▆▇█"
_RETRIES: Final = (
    ("provider busy", ("retry", "throttle")),
    ("no answer", ("unknown",)),
    ("recipient refused", ("recipient_gone", "opted_out")),
)


class Screen:
    """The live display. ``stage`` says what goes on before the first event; ``watch`` begins the day."""

    def __init__(self, made: Made) -> None:
        self.stage = "starting"
        self._made = made
        self._meter: Meter | None = None
        self._lines_until: list[int] = []
        self._rates: deque[float] = deque(maxlen=RATES_KEPT)
        self._delivered = 0
        self._at = 0.0

    def watch(self, meter: Meter) -> None:
        """From now on show this meter against the lines that were made."""
        self._meter = meter
        self._lines_until = list(accumulate(self._made.by_minute))
        self._at = trio.current_time()

    async def show(self) -> None:
        """Refresh the display until cancelled, then take it away. Does nothing when stderr is not a terminal."""
        if not sys.stderr.isatty():
            return
        console = Console(stderr=True)
        with Live(console=console, transient=True, auto_refresh=False) as live:
            while True:
                live.update(self.render(console.width, trio.current_time()), refresh=True)
                await trio.sleep(REFRESH_S)

    def render(self, width: int, now: float) -> RenderableType:
        """The display at ``now`` (trio's clock, seconds) for a terminal of ``width`` columns."""
        if self._meter is None:
            return Text.assemble(("Swipebell  ", "bold"), (f"{self.stage} …", "dim"))
        meter = self._meter
        delivered = meter.ended["delivered"]
        if now > self._at:
            self._rates.append((delivered - self._delivered) / (now - self._at))
            self._delivered, self._at = delivered, now
        read = meter.events["read"]
        minute = min(bisect_left(self._lines_until, read), MINUTES_A_DAY - 1) if read else 0
        columns = next((each for each in CHART_COLUMNS if each <= width - 2 * MARGIN), CHART_COLUMNS[-1])
        head = Text.assemble(
            ("Swipebell  ", "bold"),
            ("a day of card swipes", "dim"),
            " " * max(1, columns - 37),
            (f"{minute // 60:02}:{minute % 60:02}", "bold cyan"),
        )
        rows = [head, *chart(self._made.by_minute, columns, minute), hours(columns), Text()]
        rows.append(_share(read, self._made.lines, columns))
        return Group(*(Text(" " * MARGIN).append_text(row) for row in rows), Text(), self._figures(meter, columns))

    def _figures(self, meter: Meter, columns: int) -> RenderableType:
        latency = meter.latencies.summary()
        retries = Text()
        for name, outcomes in _RETRIES:
            count = sum(meter.outcomes[channel, outcome] for channel in ("wechat", "sms") for outcome in outcomes)
            retries.append(f"{name} ", "dim").append(f"{count:,}   ")
        door = Text()
        for name in ("duplicate", "rejected"):
            door.append(f"{name} ", "dim").append(f"{meter.events[name]:,}   ")
        door.append("suppressed ", "dim").append(f"{meter.ended['suppressed']:,}")
        recent = list(self._rates)[-4:]
        rate = sum(recent) / len(recent) if recent else 0.0
        table = Table.grid(padding=(0, 2, 0, 0))
        table.add_column(width=MARGIN + 9, justify="right", style="dim", no_wrap=True)
        table.add_column(no_wrap=True)
        table.add_row("delivered", Text(f"{meter.ended['delivered']:,}", "bold green"))
        table.add_row(
            "rate",
            Text.assemble((f"{rate:,.0f}/s  ", "bold"), (sparkline(self._rates, columns - 24), "cyan")),
        )
        table.add_row("latency", Text(f"p50 {latency['p50']:,.0f} ms   p99 {latency['p99']:,.0f} ms"))
        table.add_row("retries", retries)
        table.add_row("not sent", door)
        return table


def sparkline(values: Sequence[float], columns: int) -> str:
    """The latest ``columns`` values as blocks, the largest of them as a full one."""
    latest = list(values)[-max(columns, 0) :] if columns > 0 else []
    top = max(latest, default=0.0)
    return "".join(_BLOCKS[1 + round(value / top * 7)] if top > 0 else _BLOCKS[1] for value in latest)


def chart(by_minute: Sequence[int], columns: int, minute: int) -> list[Text]:
    """The lines of the day as ``CHART_ROWS`` rows of blocks; what lies before ``minute`` is lit."""
    step = len(by_minute) // columns
    sums = [sum(by_minute[at * step : (at + 1) * step]) for at in range(columns)]
    top = max(*sums, 1)
    heights = [max(round(each / top * 8 * CHART_ROWS), 1 if each else 0) for each in sums]
    here = minute // step
    rows = []
    for row in reversed(range(CHART_ROWS)):
        text = Text()
        for at, height in enumerate(heights):
            style = "green" if at < here else "bold white" if at == here else "bright_black"
            text.append(_BLOCKS[min(max(height - 8 * row, 0), 8)], style)
        rows.append(text)
    return rows


def hours(columns: int) -> Text:
    """The axis below ``chart``: every third hour at its column."""
    text = ""
    for hour in range(0, 24, 3):
        text = text.ljust(hour * columns // 24) + f"{hour:02}"
    return Text(text, "dim")


def _share(done: int, lines: int, columns: int) -> Text:
    share = done / lines if lines else 1.0
    words = f" {share:4.0%}  {done:,} of {lines:,} events"
    room = max(columns - len(words), 10)
    filled = min(int(share * room), room)
    return Text.assemble(("━" * filled, "green"), ("━" * (room - filled), "bright_black"), words)


class WechatSample(msgspec.Struct, frozen=True):
    """A template message as it was sent: its typed fields, its locale, and why it is shown."""

    data: dict[str, str]
    english: bool
    why: str


class SmsSample(msgspec.Struct, frozen=True):
    """A text message as it was sent, without its sign, and why it is shown."""

    text: str
    why: str


_LABELS: Final = {
    "time3": ("交易时间", "Time"),
    "amount2": ("交易金额", "Amount"),
    "thing5": ("商户名称", "Merchant"),
    "thing1": ("卡号", "Card"),
    "thing9": ("备注", "Note"),
}
"""What the service account's console would have printed before each key of the template ``swipe``."""


def show_samples(samples: Sequence[WechatSample | SmsSample], console: Console) -> None:
    """The alerts side by side, as many as the terminal has room for."""
    if samples:
        cards = [_wechat_card(each) if isinstance(each, WechatSample) else _sms_card(each) for each in samples]
        console.print(Columns(cards, padding=(0, 1)))


def _wechat_card(sample: WechatSample) -> Panel:
    table = Table.grid(padding=(0, 1, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for key, (chinese, english) in _LABELS.items():
        # A merchant may be called "[red]": it is text, not markup.
        value = Text(sample.data.get(key, ""), "bold" if key == "amount2" else "")
        table.add_row(english if sample.english else chinese, value)
    title = "WeChat · Transaction" if sample.english else "微信 · 交易提醒"
    return Panel(table, title=title, subtitle=sample.why, border_style="green", width=CARD_COLUMNS)


def _sms_card(sample: SmsSample) -> Panel:
    text = f"【{SMS_SIGN}】{sample.text}"
    count = segments(text)
    why = f"{sample.why}, {count} segment{'s' if count != 1 else ''}"
    return Panel(Text(text, overflow="fold"), title="SMS", subtitle=why, border_style="blue", width=CARD_COLUMNS)
