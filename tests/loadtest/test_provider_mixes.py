"""Named mixes, and that seed, message and attempt decide who meets a fault, not the order of arrival."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any

import pytest
import trio
from click.testing import CliRunner

from dispatcher.httpd import Request
from loadtest.demo import demo
from loadtest.providers.command import providers_command
from loadtest.providers.errors import SettingsTextError
from loadtest.providers.faults import CHANCES, Dice, Faults
from loadtest.providers.mixes import ABOUT, MIXES, parse_mix
from loadtest.providers.server import Providers
from loadtest.providers.settings import ProviderSettings
from loadtest.providers.wechat import SEND_PATH
from tests.loadtest.test_provider_server import client, serving
from tests.loadtest.test_provider_wechat import CREDENTIALS, Platform, message, read

KEYS = [f"oUser/{number}" for number in range(2_000)]


def test_every_mix_is_named_in_the_issue_or_told_about() -> None:
    assert set(MIXES) == set(ABOUT)
    named = {"calm", "rush-hour", "token-chaos", "lost-receipts", "vendor-down", "reset-after-accept"}
    assert named <= set(MIXES)
    text = CliRunner().invoke(providers_command, ["--help"]).stdout
    assert all(name in text for name in MIXES)
    assert all(name in text for name in Faults.__struct_fields__)


def test_a_mix_can_be_changed_a_little() -> None:
    assert parse_mix("vendor-down") == MIXES["vendor-down"]
    assert parse_mix(" vendor-down , down_from=2,down_to=4") == Faults(down_from=2.0, down_to=4.0)
    assert parse_mix("busy=0.5") == Faults(busy=0.5)
    assert parse_mix("") == Faults()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("stormy", "unknown mix 'stormy'; known are calm, ordinary"),
        ("stormy,busy=1", "unknown mix 'stormy'"),
        ("vendor-down,down_from=40", "down_to is 30 s and must be after down_from, 40 s"),
        ("calm,storm=1", "unknown fault 'storm'"),
        ("down_to=86401", "down_to must be a number from 0 to 86400"),
    ],
)
def test_a_mix_that_is_none_says_what_is_allowed(text: str, says: str) -> None:
    with pytest.raises(SettingsTextError, match=says):
        parse_mix(text)
    result = CliRunner().invoke(providers_command, ["--faults", text])
    assert (result.exit_code, "Traceback" in result.stderr) == (2, False)


def test_the_order_of_arrival_decides_nothing() -> None:
    # Given two providers with one seed, when the same messages come in another order, three times each
    faults = Faults(busy=0.2, reset=0.1, slow=0.05)
    met: list[dict[tuple[str, int], frozenset[str]]] = []
    for shuffle in (1, 2):
        dice, tries, found = Dice(faults, 7), dict.fromkeys(KEYS, 0), {}
        order = KEYS * 3
        Random(shuffle).shuffle(order)
        for key in order:
            tries[key] += 1
            found[key, tries[key]] = dice.meets(key)
        met.append(found)
    # Then each try meets the same
    assert met[0] == met[1]
    # And the shares are what was asked for, and another seed meets others
    share = sum("busy" in one for one in met[0].values()) / len(met[0])
    assert 0.18 < share < 0.22
    other = Dice(faults, 8)
    assert [other.meets(key) for key in KEYS] != [met[0][key, 1] for key in KEYS]
    # And a message is not doomed: its second try is drawn anew
    assert {key for key in KEYS if met[0][key, 1]} != {key for key in KEYS if met[0][key, 2]}


def test_one_more_fault_in_a_mix_changes_nothing_for_the_others() -> None:
    one, two = Dice(Faults(reset=0.1), 7), Dice(Faults(reset=0.1, busy=0.3, held=0.1), 7)
    assert [one.meets(key) for key in KEYS] == [two.meets(key) & {"reset"} for key in KEYS]
    assert len(CHANCES) <= 16  # four bytes each of a digest of 64


def test_the_bounds_are_never_and_always() -> None:
    never, always = Dice(Faults(), 7), Dice(Faults(busy=1.0), 7)
    assert not never.rolls
    assert not any(never.meets(key) for key in KEYS)
    assert all(always.meets(key) == {"busy"} for key in KEYS)


def test_the_answers_of_two_runs_are_the_same() -> None:
    def answers(order: list[int]) -> dict[int, tuple[int, bool]]:
        platform = Platform(faults=Faults(busy=0.2, reset=0.2, bad_gateway=0.1, user_limit=0.1), seed=5)
        token = platform.token()["access_token"]
        found = {}
        for number in order:
            answer = platform.send_raw(json.dumps(message(client_msg_id=f"a{number}")).encode(), token=token)
            code = json.loads(answer.body)["errcode"] if answer.status == 200 else answer.status
            found[number] = (code, answer.reset)
        return found

    first = answers(list(range(300)))
    assert first == answers(list(reversed(range(300))))
    assert {code for code, _ in first.values()} == {0, -1, 502, 43117}


def test_a_provider_is_down_between_two_moments() -> None:
    # Given a provider that is down from the 10th to the 30th second
    platform = Platform(faults=MIXES["vendor-down"])
    start = platform.now
    token = platform.token()["access_token"]
    found = []
    for second in (0.0, 9.9, 10.0, 29.9, 30.0):
        platform.now = start + second
        found.append(platform.send_raw(json.dumps(message()).encode(), token=token).reset)
    # Then calls of that time are cut off, tokens too, and nothing of them is taken
    assert found == [False, False, True, True, False]
    assert (platform.counts.down, platform.counts.requests, platform.counts.delivered) == (2, 3, 1)
    platform.now = start + 20.0
    assert platform.ask("/cgi-bin/stable_token", {}).reset
    assert platform.providers.answer(Request("POST", "/sms", "", b"{}")).reset
    assert platform.providers.book.sms.down == 1
    # And a test can still look at the book
    assert platform.ask("/_book", method="GET").status == 200


def test_one_of_two_providers_can_be_down_alone() -> None:
    platform = Platform(faults=Faults(down_to=10.0, down_sms=0.0))
    assert platform.ask("/cgi-bin/stable_token", {}).reset
    assert not platform.providers.answer(Request("POST", "/sms", "", b"{}")).reset


def test_a_window_begins_when_the_faults_are_set() -> None:
    platform = Platform()
    platform.now += 100.0
    platform.ask("/_faults", {"down_to": 5.0})
    assert platform.ask("/cgi-bin/stable_token", {}).reset
    platform.now += 5.0
    assert not platform.ask("/cgi-bin/stable_token", {}).reset


def test_in_token_chaos_tokens_die_with_three_codes_and_one_fetch_mends_it() -> None:
    # Given a platform whose tokens live for 0.7 s, whatever it says of them
    platform = Platform(faults=MIXES["token-chaos"])
    codes: list[int] = []
    for fetched in range(1, 5):
        first = platform.token()
        assert first["expires_in"] == 7200
        assert platform.token()["access_token"] == first["access_token"]  # while it lives
        assert platform.send(first["access_token"])["errcode"] == 0
        platform.now += 0.7
        codes += [platform.send(first["access_token"])["errcode"] for _ in range(2)]
        # Then each that died is counted once, whoever was refused with it
        assert (platform.counts.tokens_issued, platform.counts.tokens_refused) == (fetched, fetched)
    assert codes == [42001, 42001, 40001, 40001, 40014, 40014, 42001, 42001]


def test_a_banned_template_and_a_crowd() -> None:
    platform = Platform(faults=Faults(crowded=1.0), banned_template_ids=frozenset({"T2"}))
    assert platform.send()["errcode"] == 0
    assert platform.send(template_id="T2")["errcode"] == 43116
    platform.providers.wechat.in_flight = lambda: 299
    assert platform.send(client_msg_id="a2")["errcode"] == 0
    platform.providers.wechat.in_flight = lambda: 300
    assert platform.counts.crowded == 0
    assert platform.send(client_msg_id="a3")["errcode"] == -1
    assert platform.counts.crowded == 1


async def test_the_server_counts_who_waits_for_an_answer(
    monkeypatch: pytest.MonkeyPatch, socket_clock: trio.testing.MockClock
) -> None:
    # Given a provider that takes a second, and for which two are a crowd
    monkeypatch.setattr("loadtest.providers.wechat.CROWD", 2)
    async with serving(latency_seconds=1.0, faults=Faults(crowded=1.0)) as (port, _), client(port) as http:
        token = (await http.post("/cgi-bin/stable_token", json=CREDENTIALS)).json()["access_token"]
        codes: list[int] = []

        async def send(number: int) -> None:
            answer = await http.post(
                SEND_PATH, params={"access_token": token}, json=message(client_msg_id=f"a{number}")
            )
            codes.append(answer.json()["errcode"])

        # When five come at once, then those beyond the crowd are told that the system is busy
        async with trio.open_nursery() as nursery:
            for number in range(5):
                nursery.start_soon(send, number)
        assert sorted(codes) == [-1, -1, -1, 0, 0]


@pytest.mark.parametrize(("faults", "code"), [(Faults(minute_limit=1.0), 45011), (Faults(user_limit=1.0), 43117)])
def test_limits_are_answers_of_their_own(faults: Faults, code: int) -> None:
    platform = Platform(faults=faults)
    assert platform.send()["errcode"] == code
    assert platform.counts.refused == {str(code): 1}


def test_a_message_that_is_held_is_shown_all_the_same() -> None:
    platform = Platform(faults=Faults(held=1.0))
    assert platform.send()["errcode"] == 40252
    assert (platform.counts.accepted, platform.counts.delivered, platform.counts.refused) == (1, 1, {})
    # And when it is sent again, it is one that WeChat has
    assert platform.send()["errcode"] == 0
    assert platform.counts.delivered == 1


def test_the_same_words_within_a_minute_are_one_message() -> None:
    platform = Platform(same_content=True)
    assert platform.send()["errcode"] == 0
    assert platform.send(client_msg_id="alert-2")["errcode"] == 40241
    assert platform.send()["errcode"] == 0  # the first one again
    assert platform.send(client_msg_id="alert-3", touser="oOther")["errcode"] == 0
    platform.now += 60.0
    assert platform.send(client_msg_id="alert-2")["errcode"] == 0
    assert platform.counts.delivered == 3


@pytest.mark.parametrize(("answer", "same"), [("first", True), ("new", False), ("zero", True)])
def test_what_a_duplicate_is_answered_can_be_chosen(answer: Any, same: bool) -> None:
    platform = Platform(duplicate_answer=answer)
    first, second = platform.send(), platform.send()
    assert (first["errcode"], second["errcode"]) == (0, 0)
    assert (first["msgid"] == second["msgid"]) is same
    assert platform.counts.delivered == 1


def do(platform: Platform, deed: str, **more: str) -> int:
    return platform.ask("/_users", {"openid": "oABCDEFGHIJKLMNOPQRSTUVWXYZ0", "deed": deed, **more}).status


def test_users_go_come_back_and_refuse_one_template() -> None:
    platform = Platform()
    sent = iter(range(100))

    def code(template: str = "T1") -> int:
        errcode: int = platform.send(client_msg_id=f"a{next(sent)}", template_id=template)["errcode"]
        return errcode

    assert do(platform, "unfollow") == 200
    assert code() == 43004
    assert do(platform, "follow") == 200
    assert code() == 0
    do(platform, "refuse", template="T1")
    assert (code(), code("T2")) == (43101, 0)
    do(platform, "accept", template="T1")
    assert code() == 0
    do(platform, "refuse")
    assert (code(), code("T2")) == (43101, 43101)
    do(platform, "accept")
    assert code("T2") == 0
    # And who blocks the account is sent a message that nobody sees
    do(platform, "block")
    assert code() == 0
    assert platform.providers.book.wechat_messages[-1].status == "failed:user block"
    do(platform, "unblock")
    assert code() == 0
    assert platform.providers.book.wechat_messages[-1].status is None
    # And a deed that is none, or too much of them, is refused in one line
    assert do(platform, "hate") == 400
    assert platform.ask("/_users", b"{").status == 400
    assert platform.ask("/_users", method="GET").status == 405
    platform.ask("/_reset", b"")
    assert code() == 0


def test_users_beyond_the_bound_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loadtest.providers.users.MAX_USERS", 1)
    platform = Platform()
    assert do(platform, "unfollow") == 200
    assert do(platform, "block") == 200
    answer = platform.ask("/_users", {"openid": "oOther", "deed": "block"})
    assert answer.status == 507


def test_a_deed_does_not_print_whose_it_is() -> None:
    answer = Providers(ProviderSettings()).answer(Request("POST", "/_users", "", b'{"openid":5,"deed":"block"}'))
    assert answer.status == 400
    assert read(Platform().ask("/_users", {"openid": "oSecret", "deed": "block"})) == {}


def test_the_page_about_providers_names_every_mix() -> None:
    page = (Path(__file__).parents[2] / "docs" / "providers.md").read_text()
    assert all(f"`{name}`" in page for name in MIXES)


def test_a_demonstration_takes_mixes_but_none_about_reports() -> None:
    for text, says in (("stormy", "unknown mix 'stormy'"), ("lost-receipts", "use `swipebell loadtest`")):
        result = CliRunner().invoke(demo, ["--faults", text])
        assert says in str(result.exception)


def test_a_mode_that_encrypts_wants_its_key() -> None:
    result = CliRunner().invoke(providers_command, ["--receipts-mode", "safe"])
    assert result.exit_code == 2
    assert "need the EncodingAESKey" in result.stderr
