"""The parts of the demonstration that need no engine: its folder, its cardholders, its screen and its verdicts."""

from __future__ import annotations

import io
import stat
from collections import Counter
from datetime import date
from pathlib import Path

import pytest
from rich.console import Console

from dispatcher.config_load import load_config
from dispatcher.errors import ConfigurationError
from dispatcher.ledger.api import Books
from dispatcher.metrics import Meter
from dispatcher.summary import Summary, summarize
from loadtest.demo import PacedLines, account_for, compare
from loadtest.demo_picks import ProvidersBook, pick_wechat
from loadtest.demo_screen import Screen, SmsSample, WechatSample, chart, hours, show_samples, sparkline
from loadtest.demo_world import MARK, invent_recipients, open_world
from loadtest.providers.book import Counts
from loadtest.traffic import Day, Made, accounts_of, generate

DAY = Day(accounts=3_000, events=500, seed=3, date=date(2026, 11, 21))


def shown(renderable: object, width: int) -> list[str]:
    console = Console(file=io.StringIO(), width=width, force_terminal=False)
    console.print(renderable)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    return str(text).splitlines()


class TestItsFolder:
    def test_a_new_folder_gets_a_configuration_that_loads(self, tmp_path: Path) -> None:
        with open_world(tmp_path / "a" / "demo") as world:
            world.write_events(iter([b"{}\n"]))
            config = load_config(world.prepare("http://127.0.0.1:9"), {})
        assert config.warnings == ()
        assert config.ledger.path == world.ledger
        assert config.channels.sms is not None
        assert config.channels.sms.base_url == "http://127.0.0.1:9/sms"
        for path in (world.config, world.events, world.folder / "secret"):
            assert stat.S_IMODE(path.stat().st_mode) == 0o600

    def test_the_next_one_removes_the_ledger_and_nothing_else(self, tmp_path: Path) -> None:
        with open_world(tmp_path) as world:
            world.prepare("http://127.0.0.1:9")
        for name in ("ledger.db", "ledger.db-wal", "ledger.db.owners", "notes.txt"):
            (tmp_path / name).write_text("x")
        with open_world(tmp_path):
            left = {path.name for path in tmp_path.iterdir()}
        assert left == {"swipebell.toml", "rules.toml", "secret", "notes.txt"}

    @pytest.mark.parametrize("name", ["swipebell.toml", "ledger.db"])
    def test_a_folder_of_somebody_else_is_not_touched(self, tmp_path: Path, name: str) -> None:
        (tmp_path / name).write_text("mine")
        with pytest.raises(ConfigurationError, match="name another folder"), open_world(tmp_path):
            pass
        assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [(name, "mine")]

    def test_an_interrupted_one_leaves_a_folder_that_is_still_ours(self, tmp_path: Path) -> None:
        with open_world(tmp_path) as world:
            world.ledger.write_text("half")
        assert world.config.read_text().startswith(MARK)
        with open_world(tmp_path) as world:
            assert not world.ledger.exists()

    def test_two_at_a_time_in_one_folder_are_refused(self, tmp_path: Path) -> None:
        refused = pytest.raises(ConfigurationError, match="another demonstration runs there")
        with open_world(tmp_path), refused, open_world(tmp_path):
            pass

    def test_a_file_in_place_of_the_folder_is_one_line(self, tmp_path: Path) -> None:
        (tmp_path / "demo").write_text("x")
        with pytest.raises(ConfigurationError, match="File exists; name a folder"), open_world(tmp_path / "demo"):
            pass


class TestItsCardholders:
    def test_most_have_both_channels_and_some_are_special(self) -> None:
        accounts = accounts_of(DAY)
        lines = invent_recipients(accounts, DAY.seed)
        by_account = Counter(line.account for line in lines)
        # About 3 % have nobody, 5 % no WeChat, 8 % two cardholders
        assert 45 < len(accounts) - len(by_account) < 150
        assert 80 < sum(line.openid is None for line in lines) < 230
        assert 150 < sum(count == 2 for count in by_account.values()) < 330
        assert len({line.phone for line in lines}) == len(lines)
        assert all(line.channels == ("sms",) for line in lines if line.openid is None)

    def test_the_same_seed_invents_the_same(self) -> None:
        accounts = accounts_of(DAY)
        assert invent_recipients(accounts, 3) == invent_recipients(accounts, 3) != invent_recipients(accounts, 4)


class TestItsScreen:
    @pytest.fixture
    def screen(self) -> Screen:
        made, meter = Made(), Meter()
        for _ in generate(DAY, made):
            pass
        screen = Screen(made)
        screen._meter = meter
        screen._lines_until = [sum(made.by_minute[: minute + 1]) for minute in range(1440)]
        meter.read(400)
        meter.ended["delivered"] = 350
        meter.outcomes["wechat", "unknown"] = 12
        return screen

    @pytest.mark.parametrize("width", [30, 60, 80, 120, 200])
    def test_no_line_is_wider_than_the_terminal(self, screen: Screen, width: int) -> None:
        assert max(map(len, shown(screen.render(width, 1.0), width))) <= width

    def test_it_tells_the_hour_that_is_reached_and_the_counts(self, screen: Screen) -> None:
        text = "\n".join(shown(screen.render(80, 1.0), 80))
        # 400 of 500 lines of a day with an evening peak
        assert any(f"{hour}:" in text.splitlines()[0] for hour in (18, 19, 20))
        assert "80%  400 of 500 events" in text
        assert "no answer 12" in text
        assert "350" in text

    def test_before_the_first_event_it_says_what_goes_on(self) -> None:
        screen = Screen(Made())
        screen.stage = "starting the simulated providers"
        assert shown(screen.render(80, 0.0), 80) == ["Swipebell  starting the simulated providers …"]

    def test_a_sparkline_is_relative_to_its_largest_value(self) -> None:
        assert sparkline([0, 5, 10], 10) == "▁▅█"
        assert sparkline([1, 2, 3, 4], 2) == "▆█"
        assert sparkline([0, 0], 5) == "▁▁"
        assert sparkline([1], 0) == ""

    def test_the_chart_lights_what_is_past(self) -> None:
        rows = chart([1] * 720 + [4] * 720, 24, 720)
        assert rows[-1].plain == "█" * 24
        assert rows[0].plain == " " * 12 + "█" * 12
        assert [span.style for span in rows[-1].spans].count("green") >= 1
        assert hours(24).plain == "00 03 06 09 12 15 18 21"

    def test_a_card_shows_markup_as_text_and_fits_its_column(self) -> None:
        data = {
            "time3": "2026年11月21日 00:41",
            "amount2": "€89.85",
            "thing5": "[red]微信商户微信商户微信…",
            "thing1": "尾号3360",
            "thing9": "当日累计 €89.85",
        }
        console = Console(file=io.StringIO(), width=80)
        show_samples([WechatSample(data, False, "abroad"), SmsSample("字" * 80, "fell back")], console)
        text = console.file.getvalue()  # type: ignore[attr-defined]
        assert "[red]" in text
        assert "交易金额 €89.85" in text
        assert "2 segments" in text


class TestItsSamples:
    def card(self, amount: str, card: str, merchant: str = "x") -> dict[str, str]:
        return {"amount2": amount, "thing1": card, "thing5": merchant}

    def test_one_abroad_in_chinese_and_a_large_one_in_english(self) -> None:
        abroad, large = self.card("€12.00", "尾号1111", "Café de l'Île"), self.card("¥9,000.00", "Card 2222")
        sent = [
            self.card("¥50,000.00", "尾号3333"),
            self.card("€99.00", "尾号3333 退款", "a longer name by far"),
            self.card("€12.00", "尾号1111", "Café"),
            abroad,
            self.card("¥80,000.00", "Refund *2222"),
            large,
            self.card("¥10.00", "Card 2222"),
        ]
        assert [sample.data for sample in pick_wechat(sent)] == [abroad, large]

    def test_what_there_is_none_of_is_left_out(self) -> None:
        assert pick_wechat([]) == []
        assert [sample.why for sample in pick_wechat([self.card("¥1.00", "尾号1111")])] == ["purchase"]


class TestItsVerdicts:
    def summary(self, *, wechat: int, sms: int, left_alone: int = 0) -> Summary:
        meter = Meter()
        meter.attempts.update(wechat=wechat, sms=sms)
        meter.delivered_by.update(wechat=wechat, sms=sms)
        meter.failed_by["unknown-outcome"] = left_alone
        return summarize(meter, Books(0, 0, {}, {}, {}, 0, {}, 0), 1.0)

    @pytest.mark.parametrize(
        ("wechat", "sms", "left_alone", "agrees"),
        [
            (10, 5, 0, True),
            (10, 4, 1, True),
            (10, 4, 0, False),  # an SMS that the ledger knows nothing of
            (10, 6, 3, False),  # one that the ledger calls delivered was not
            (9, 5, 0, False),
            (11, 5, 3, False),
        ],
    )
    def test_the_two_books_must_agree(self, wechat: int, sms: int, left_alone: int, agrees: bool) -> None:
        book = ProvidersBook(Counts(delivered=10), Counts(delivered=5))
        said, words = compare(self.summary(wechat=wechat, sms=sms, left_alone=left_alone), book)
        assert said is agrees
        assert ("agrees: 15 messages" in words) is agrees

    def test_every_line_must_meet_the_end_that_it_was_made_for(self) -> None:
        meter = Meter()
        meter.events.update(read=10, accepted=7, duplicate=2, rejected=1)
        summary = summarize(meter, Books(0, 0, {}, {}, {}, 0, {}, 0), 1.0)
        assert account_for(summary, Made(good=7, duplicate=2, broken=1))[0]
        assert not account_for(summary, Made(good=8, duplicate=1, broken=1))[0]


def test_a_paced_stream_gives_what_is_due_and_sleeps_for_the_rest() -> None:
    # Given 25 lines at ten a second, and a clock that only sleeping moves
    now = [100.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    lines = b"".join(b"%d\n" % number for number in range(25))
    paced = PacedLines(io.BytesIO(lines), 10, clock=lambda: now[0], sleep=sleep)
    # When it is read to its end
    got = list(iter(paced.read1, b""))
    # Then nothing is lost, and the last line came after two and a half seconds
    assert b"".join(got) == lines
    assert now[0] - 100.0 == pytest.approx(2.6, abs=0.11)
    # And a long pause is not made up for at full speed
    paced = PacedLines(io.BytesIO(b"x\n" * 10_000), 10, clock=lambda: now[0], sleep=sleep)
    now[0] += 3_600
    assert paced.read1().count(b"\n") == 2_000
