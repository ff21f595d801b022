"""The SMS section of the configuration: two vendors, their secrets, pools and shares."""

from __future__ import annotations

from pathlib import Path

import pytest

from dispatcher.channels.build import make_channels, pools_of
from dispatcher.channels.sms.weighted import WeightedSms
from dispatcher.config import Config
from dispatcher.config_load import load_config
from dispatcher.errors import ConfigurationError
from dispatcher.fleet.share import check_processes, share_of
from dispatcher.network.curl import CurlNetwork
from templates.library import Library

FIRST = """
[channels.sms]
vendor = "aliyun"
access_key_id = "LTAI5tEXAMPLE"
secret_env = "ONE"
sign = "银行"
template_codes = { swipe = "SMS_1" }
template_params = { swipe = ["card=tail", "amount"] }
rate_per_second = 40
"""
SECOND = """
[channels.sms.second]
vendor = "tencent"
access_key_id = "AKIDEXAMPLE"
secret_file = "two"
sdk_app_id = "1400000000"
sign = "银行"
template_codes = { swipe = "123" }
template_params = { swipe = ["tail", "amount"] }
rate_per_second = 11
weight = 30
"""
ENVIRON = {"ONE": "secret-of-the-first"}


def load(folder: Path, text: str, environ: dict[str, str] | None = None) -> Config:
    (folder / "swipebell.toml").write_text(text, "utf-8")
    return load_config(folder / "swipebell.toml", ENVIRON if environ is None else environ)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "two").write_text("secret-of-the-second")
    (tmp_path / "two").chmod(0o600)
    return tmp_path


async def test_two_vendors_are_one_channel_with_two_pools(folder: Path) -> None:
    config = load(folder, FIRST + SECOND)
    assert list(pools_of(config)) == ["sms", "sms.second"]
    network = CurlNetwork(pools_of(config))
    try:
        channels = make_channels(config, Library.load(), network, ENVIRON)
    finally:
        await network.aclose()
    sms = channels["sms"]
    assert list(channels) == ["sms"]
    assert isinstance(sms, WeightedSms)
    assert (sms.weights.share, sms.connections) == (30, 16)
    assert [vendor.vendor for vendor in sms.vendors] == ["aliyun", "tencent"]


def test_the_vendors_have_addresses_of_their_own(folder: Path) -> None:
    sms = load(folder, FIRST + SECOND).channels.sms
    assert sms is not None
    assert sms.second is not None
    assert sms.base_url == "https://dysmsapi.aliyuncs.com"
    assert sms.second.base_url == "https://sms.tencentcloudapi.com"


def test_a_process_has_its_part_of_both(folder: Path) -> None:
    config = load(folder, FIRST + SECOND)
    parts = [share_of(config, index, 4).channels.sms for index in range(4)]
    assert [part and part.rate_per_second for part in parts] == [40, 40, 40, 40]
    assert [part and part.second and part.second.rate_per_second for part in parts] == [3, 3, 3, 2]
    assert all(part and part.second and part.second.connections == 2 for part in parts)
    with pytest.raises(ConfigurationError, match=r"channels\.sms\.second\.rate_per_second is 3, which cannot"):
        check_processes(load(folder, FIRST + SECOND.replace("= 11", "= 3")), 4)


def test_the_seconds_secret_is_looked_for_and_its_file_watched(folder: Path) -> None:
    (folder / "two").chmod(0o644)
    (warning,) = load(folder, FIRST + SECOND).warnings
    assert "channels.sms.second.secret_file: others than the owner may read" in warning
    (folder / "two").unlink()
    with pytest.raises(ConfigurationError, match=r"channels\.sms\.second\.secret_file: .* does not exist"):
        load(folder, FIRST + SECOND)
    with pytest.raises(ConfigurationError, match=r"channels\.sms\.secret_env: the environment variable ONE"):
        load(folder, FIRST, {})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[channels.sms]\nvendor = "huawei"', '"aliyun" or "generic" or "tencent"'),
        (FIRST.replace('access_key_id = "LTAI5tEXAMPLE"', ""), "channels.sms.access_key_id: is missing; vendor"),
        (FIRST.replace('sign = "银行"', ""), "channels.sms.sign: is missing"),
        (FIRST + SECOND.replace('sdk_app_id = "1400000000"', ""), "channels.sms.second.sdk_app_id: is missing"),
        (
            FIRST + SECOND.replace("weight = 30", "weight = 101"),
            "second.weight: allowed is a whole number from 0 to 100",
        ),
        (FIRST + SECOND.replace('"tencent"', '"aliyun"'), 'channels.sms.second.vendor: is "aliyun" like the first'),
        (FIRST + 'on_unknown = "x"', "channels.sms.on_unknown: allowed is a table of names"),
        (FIRST.replace('["card=tail", "amount"]', "7"), "template_params.*a list of a text of 1 to 128 characters"),
        (FIRST + SECOND + "second = 1", "unknown key channels.sms.second.second"),
        (FIRST + SECOND + 'on_unknown = { swipe = "leave" }', "unknown key channels.sms.second.on_unknown"),
        (FIRST + 'secret = "0123456789abcdef0123"', "channels.sms.secret: a secret is never written here"),
        ('[channels.sms]\nsign = "s"', "channels.sms.base_url: is missing"),
    ],
)
def test_a_refusal_names_the_key_and_what_is_allowed(folder: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message) as caught:
        load(folder, text)
    for private in ("0123456789abcdef", "secret-of-the", "LTAI5tEXAMPLE"):
        assert private not in str(caught.value)
