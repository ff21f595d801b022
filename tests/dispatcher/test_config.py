"""The configuration: defaults that run, refusals that say what is allowed, secrets that stay hidden."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest

from dispatcher.config import Config
from dispatcher.config_channels import SmsConfig, WechatConfig
from dispatcher.config_load import load_config, read_secret, read_secret_file
from dispatcher.config_parts import parse_listen
from dispatcher.errors import ConfigurationError
from ratelimit.retry import RetryPolicy

SECRET = "5e4c0ffee5e4c0ffee5e4c0ffee5e4c0"
WECHAT = '[channels.wechat]\nappid = "wx1"\nsecret_file = "secret"\n'
SMS = '[channels.sms]\nbase_url = "https://sms.example.com/send"\nsecret_env = "SMS_SECRET"\n'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "secret").write_text(f"  {SECRET}\n")
    (tmp_path / "secret").chmod(0o600)
    return tmp_path


def given(folder: Path, text: str | bytes) -> Path:
    path = folder / "swipebell.toml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def refusal(folder: Path, text: str | bytes, environ: dict[str, str] | None = None) -> str:
    """Loads the text, which must be refused in one line that begins with the file; returns the rest."""
    path = given(folder, text)
    with pytest.raises(ConfigurationError) as caught:
        load_config(path, environ if environ is not None else {})
    message = str(caught.value)
    assert caught.value.exit_status == 2
    assert "\n" not in message
    assert message.startswith(f"{path}: ")
    # Nothing that a traceback would show around the message either.
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    return message.removeprefix(f"{path}: ")


def test_without_a_file_the_defaults_run_in_the_current_directory(tmp_path, monkeypatch):
    # Given
    monkeypatch.chdir(tmp_path)
    # When
    config = load_config(None, {})
    # Then
    assert config.ledger.path == tmp_path / "ledger.db"
    assert config.ledger.url == f"sqlite:///{tmp_path}/ledger.db"
    assert config.intake.http.listen == "127.0.0.1:8080"
    assert config.intake.http.max_body_bytes == 16 * 1024 * 1024
    assert config.metrics.listen == "127.0.0.1:9464"
    assert (config.channels.wechat, config.channels.sms, config.receipts) == (None, None, None)
    assert config.warnings == ()


def test_a_stream_listener_off_loopback_may_go_without_a_token_when_it_demands_certificates(folder):
    for name in ("cert", "key", "ca"):
        (folder / name).write_text("x")
    tls = 'tls_cert_file = "cert"\ntls_key_file = "key"\nclient_ca_file = "ca"\n'
    stream = load_config(given(folder, f'[intake.stream]\nlisten = "0.0.0.0:82"\n{tls}'), {}).intake.stream
    assert stream is not None
    assert (stream.client_ca_file, stream.idle_seconds) == (folder / "ca", 300.0)
    assert load_config(given(folder, ""), {}).intake.stream is None


def test_a_token_file_of_the_stream_listener_is_looked_at_when_the_file_is_read(folder):
    assert refusal(folder, '[intake.stream]\ntoken_file = "none"').startswith("intake.stream.token_file: ")
    (folder / "token").write_text("x")
    (folder / "token").chmod(0o644)
    (warning,) = load_config(given(folder, '[intake.stream]\ntoken_file = "token"'), {}).warnings
    assert "intake.stream.token_file: others than the owner may read" in warning


def test_a_reserve_in_the_configuration_is_told_where_it_is_said_now(folder: Path) -> None:
    text = (
        "[channels.wechat]\nappid = 'a'\nsecret_env = 'S'\nreserve_from = { CNY = 1 }\nreserve_categories = ['fraud']"
    )
    path = given(folder, text)
    config = load_config(path, {"S": "0123456789abcdef"})
    # It is loaded as it was, and each key is told the rule that says the same
    assert config.channels.wechat is not None
    assert config.channels.wechat.reserve_from == {"CNY": 1}
    amounts, categories = config.warnings
    assert amounts.startswith(
        f"{path}: channels.wechat.reserve_from: counts only while no rule has the effect priority"
    )
    assert 'when = { currency = "CNY", amount_from = 500000 }' in amounts
    assert categories.startswith(f"{path}: channels.wechat.reserve_categories: counts only while no rule has")
    assert 'when = { category = "fraud" }' in categories


def test_an_empty_file_gives_the_same_defaults(folder):
    config = load_config(given(folder, ""), {})
    assert config.path == folder / "swipebell.toml"
    assert config.ledger.path == folder / "ledger.db"
    assert config.engine == Config().engine
    retry, policy = config.retry, RetryPolicy()
    assert (retry.base_seconds, retry.cap_seconds, retry.max_attempts) == (
        policy.base_seconds,
        policy.cap_seconds,
        policy.max_attempts,
    )


def test_the_documented_names_are_read(folder):
    # Given a file as the design documents it
    for name in ("token", "aes", "rules.toml", "t"):
        (folder / name).mkdir() if name == "t" else (folder / name).write_text("x" if name != "aes" else "k" * 43)
    path = given(
        folder,
        '[ledger]\nurl = "sqlite:////var/lib/ledger.db"\n'
        '[intake.http]\nlisten = "0.0.0.0:8080"\ntoken_file = "token"\n'
        '[receipts]\nlisten = "127.0.0.1:8081"\ntoken_file = "token"\naes_key_file = "aes"\n'
        '[metrics]\nlisten = "[::1]:0"\n'
        '[channels.wechat]\nbase_url = "http://127.0.0.1:9/"\nappid = "wx1"\nsecret_file = "secret"\n'
        "rate_per_second = 200\ndaily_quota = 100000\nconnections = 64\n"
        'template_ids = { swipe = "TM1" }\n'
        '[channels.sms]\nvendor = "generic"\nbase_url = "http://127.0.0.1:9/sms"\nrate_per_second = 5\n'
        '[rules]\nfile = "rules.toml"\n[templates]\npath = "t"\n',
    )
    # When
    config = load_config(path, {})
    # Then paths are absolute
    assert config.ledger.path == Path("/var/lib/ledger.db")
    assert config.intake.http.token_file == folder / "token"
    assert config.receipts is not None
    assert config.receipts.aes_key_file == folder / "aes"
    assert (config.rules.file, config.templates.path) == (folder / "rules.toml", folder / "t")
    # and the channels are there
    wechat, sms = config.channels.wechat, config.channels.sms
    assert wechat is not None
    assert sms is not None
    assert (wechat.base_url, wechat.template_ids) == ("http://127.0.0.1:9", {"swipe": "TM1"})
    assert (sms.rate_per_second, sms.on_unknown) == (5, {"swipe": "leave"})
    # and files that everybody may read are worth a warning, the private one is not
    assert len(config.warnings) == 3
    assert not any("channels.wechat" in warning for warning in config.warnings)


def test_relative_paths_are_relative_to_the_file_and_not_to_the_current_directory(folder, monkeypatch):
    (folder / "conf").mkdir()
    (folder / "conf" / "swipebell.toml").write_text('[ledger]\nurl = "sqlite:///../data.db"\n')
    monkeypatch.chdir(folder)
    config = load_config(Path("conf/swipebell.toml"), None)
    assert config.ledger.path == folder / "data.db"
    assert config.path == folder / "conf" / "swipebell.toml"


def test_a_config_is_frozen():
    with pytest.raises(AttributeError):
        Config().log.level = "debug"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            WECHAT + "rate_per_secnd = 3",
            "unknown key channels.wechat.rate_per_secnd; did you mean rate_per_second? Known keys here: a",
        ),
        (
            "[chanels.wechat]",
            "unknown key chanels; did you mean channels? Known keys here: channels, engine, ",
        ),
        ("[channels.fax]", "unknown key channels.fax. Known keys here: email, sms, webhook, wechat"),
        ("warnings = []", "unknown key warnings. Known keys here: channels, "),
        ('"a\\nb" = 1', "unknown key (a quoted key). Known keys here: "),
    ],
)
def test_an_unknown_key_is_named_with_the_nearest_known_one(folder, text, expected):
    assert refusal(folder, text).startswith(expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ledger = 3", "ledger: allowed is a table [ledger], and here is 3"),
        ("[[receipts]]", "receipts: allowed is a table [receipts], and here is an array"),
        ("[ledger]\nurl = 3", "ledger.url: allowed is a text of 1 to 2048 characters, and here is 3"),
        (
            '[engine]\nbatch_events = "256"',
            "engine.batch_events: allowed is a whole number from 1 to 4096, and here is a text in quotes",
        ),
        (
            "[engine]\nbatch_events = 2.5",
            "engine.batch_events: allowed is a whole number from 1 to 4096, and here is 2.5",
        ),
        (
            "[engine]\nin_flight = 0",
            "in_flight: allowed is a whole number from 1 to 16384, and here is 0",
        ),
        (
            "[engine]\nin_flight = true",
            "in_flight: allowed is a whole number from 1 to 16384, and here is true",
        ),
        pytest.param(f"[engine]\nin_flight = 1{'0' * 400}", "and here is a number far outside", id="401 digits"),
        ("[engine]\nlease_seconds = nan", "engine.lease_seconds: allowed is a number from 1.0 to 300.0"),
        ("[engine]\nlease_seconds = inf", "engine.lease_seconds: allowed is a number from 1.0 to 300.0"),
        ("[engine]\nlane_capacity = 10", "engine.lane_capacity: is below batch_events"),
        ("[retry]\ncap_seconds = 0.1", "retry.cap_seconds: is below base_seconds"),
        (
            '[log]\nlevel = "loud"',
            'log.level: allowed is "debug" or "error" or "info" or "warning", and here is',
        ),
        ("[log]\nlevel = 2020-01-01", "and here is a date or time"),
        (WECHAT + 'on_unknown = "x"', 'channels.wechat.on_unknown: allowed is "leave" or "resend"'),
        (SMS + 'on_unknown = { swipe = "x" }', "channels.sms.on_unknown: allowed is a table of names with "),
        (WECHAT + 'template_ids = { "" = "x" }', "channels.wechat.template_ids: allowed is a table of names"),
        (
            '[channels.wechat]\nsecret_file = "s"',
            "channels.wechat.appid: is missing; the section [channels.wechat]",
        ),
        ('[channels.sms]\nsign = "s"', "channels.sms.base_url: is missing"),
        ('[rules]\nfile = ""', "rules.file: allowed is the path of a file or folder, as text"),
        ("[rules]\nfile = 1", "rules.file: allowed is the path of a file or folder, as text, and here is 1"),
        ('[rules]\nfile = "none.toml"', "rules.file: there is no file "),
        ('[templates]\npath = "none"', "templates.path: there is no folder "),
        ('[ledger]\nurl = "postgresql://h/db"', "ledger.url: postgresql:// comes later"),
        ('[ledger]\nurl = "mysql://h/db"', 'ledger.url: allowed is "sqlite:///FILE"'),
        ('[ledger]\nurl = "sqlite:///"', 'ledger.url: allowed is "sqlite:///FILE"'),
        ('[ledger]\nurl = "sqlite:///:memory:"', 'ledger.url: allowed is "sqlite:///FILE"'),
        ('[ledger]\nurl = "sqlite:///l.db?mode=ro"', 'ledger.url: allowed is "sqlite:///FILE"'),
        ('[intake.http]\nlisten = "8080"', 'intake.http.listen: allowed is "HOST:PORT"'),
        (
            '[intake.http]\nlisten = "0.0.0.0:80"',
            "intake.http.token_file: is needed because listen is not a loop",
        ),
        ('[metrics]\nlisten = "[::]:80"', "metrics.token_file: is needed because listen is not a loopback"),
        ('[receipts]\nlisten = "bank:80"', "receipts.token_file: is needed because listen is not a loopback"),
        ('[metrics]\nlisten = "127.0.0.1:8080"', "metrics.listen: is the address of intake.http.listen"),
        ('[intake.http]\ntls_cert_file = "c"', "intake.http.tls_key_file: is missing although tls_cert_file"),
        ('[intake.http]\ntls_key_file = "c"', "intake.http.tls_cert_file: is missing although tls_key_file"),
        ('[intake.stream]\nlisten = "8082"', 'intake.stream.listen: allowed is "HOST:PORT"'),
        (
            '[intake.stream]\nlisten = "0.0.0.0:82"',
            "intake.stream.token_file: is needed because listen is not a loopback address; put the token in a file and "
            "name it here, or demand client certificates with client_ca_file, or listen on 127.0.0.1",
        ),
        (
            '[intake.stream]\nclient_ca_file = "c"',
            "intake.stream.tls_cert_file: is missing although client_ca_file is given",
        ),
        ('[intake.stream]\ntls_cert_file = "c"', "intake.stream.tls_key_file: is missing although tls_cert_file"),
        ('[intake.stream]\ntls_cert_file = "c"\ntls_key_file = "c"', "intake.stream.tls_cert_file: there is no file"),
        ("[intake.stream]\nidle_seconds = 0", "intake.stream.idle_seconds: allowed is a number from 1.0 to 86400.0"),
        ('[intake.stream]\nlisten = "127.0.0.1:8080"', "intake.stream.listen: is the address of intake.http.listen"),
        ("[intake.stream]\nidle = 3", "unknown key intake.stream.idle. Known keys here: client_ca_file, idle_seconds"),
        (WECHAT + 'base_url = "api.weixin.qq.com"', "channels.wechat.base_url: is not a URL"),
        (WECHAT + 'base_url = "https://[x"', "channels.wechat.base_url: is not a URL"),
        (WECHAT + 'base_url = "https://h:99999"', "channels.wechat.base_url: is not a URL"),
        (
            WECHAT + 'base_url = "http://10.0.0.1"',
            "channels.wechat.base_url: http:// is allowed for a loopback",
        ),
        (WECHAT + 'base_url = "https://h/?a=b"', "channels.wechat.base_url: holds a query"),
        (WECHAT + 'url = "weixin://x"', "channels.wechat.url: is not a URL"),
        (WECHAT + 'secret_env = "WX"', "channels.wechat.secret_env: is given beside secret_file"),
        (
            '[channels.wechat]\nappid = "wx1"',
            "channels.wechat.secret_file: is missing (or secret_env): appid is",
        ),
        ('[channels.sms]\nbase_url = "https://h/"', "channels.sms.secret_file: is missing (or secret_env)"),
        ("a = = 1", "line 1, column 5: not valid TOML: Invalid value"),
        ("[log]\n\nlevel = 'info", "line 3, column 14: not valid TOML: "),
        (b"[log]\nlevel = '\xff'", "line 2: not UTF-8; save the file as UTF-8"),
        pytest.param("a = " + "[" * 5000, "nested too deeply", id="5000 brackets"),
        pytest.param("a = 1" + "0" * 5000, "not valid TOML: a value is out of range", id="5001 digits"),
        pytest.param("#" * (1024 * 1024 + 1), "is over 1048576 bytes", id="over a MiB"),
    ],
)
def test_a_wrong_value_is_refused_with_its_key_and_what_is_allowed(folder, text, expected):
    assert expected in refusal(folder, text)


def test_a_missing_file_says_what_writes_one(tmp_path):
    with pytest.raises(ConfigurationError, match=r"no such file; `swipebell init DIR` writes one"):
        load_config(tmp_path / "swipebell.toml", {})


def test_a_folder_in_place_of_the_file_is_named(tmp_path):
    with pytest.raises(ConfigurationError, match=r"is a folder; name the file"):
        load_config(tmp_path, {})


@pytest.mark.parametrize(
    ("text", "host", "port", "loopback"),
    [
        ("127.0.0.1:8080", "127.0.0.1", 8080, True),
        ("localhost:0", "localhost", 0, True),
        ("[::1]:65535", "::1", 65535, True),
        ("[::]:1", "::", 1, False),
        ("0.0.0.0:1", "0.0.0.0", 1, False),
        ("gateway.bank:1", "gateway.bank", 1, False),
    ],
)
def test_listen_addresses(text, host, port, loopback):
    address = parse_listen(text)
    assert (address.host, address.port, address.loopback, str(address)) == (host, port, loopback, text)


@pytest.mark.parametrize(
    "text",
    ["", ":80", "h", "h:", "h:x", "h:65536", "h:-1", "h:٣", "::1:80", "[::1:80", "[h]:80", "a b:80", "h/:80"],
)
def test_malformed_listen_addresses_are_refused(text):
    with pytest.raises(ValueError, match="allowed is"):
        parse_listen(text)


# Secrets


def test_a_secret_is_read_stripped_from_its_file_or_variable(folder):
    # Given
    config = load_config(given(folder, WECHAT + SMS), {"SMS_SECRET": "s3"})
    wechat, sms = config.channels.wechat, config.channels.sms
    assert wechat is not None
    assert sms is not None
    # When, Then
    secret = read_secret("wechat", wechat, {})
    assert secret is not None
    assert secret.reveal() == SECRET
    assert SECRET not in f"{secret} {secret!r}"
    other = read_secret("sms", sms, {"SMS_SECRET": "s3"})
    assert other is not None
    assert other.reveal() == "s3"


def test_a_gateway_on_this_machine_may_go_without_a_secret():
    assert read_secret("sms", SmsConfig(base_url="http://127.0.0.1:1/"), {}) is None


def test_no_secret_is_in_anything_that_prints_a_config(folder):
    config = load_config(given(folder, WECHAT + SMS), {"SMS_SECRET": "s3cr3t-value"})
    shown = f"{config} {config!r} {msgspec.to_builtins(config, enc_hook=str)}"
    assert SECRET not in shown
    assert "s3cr3t-value" not in shown


@pytest.mark.parametrize(
    ("text", "use"),
    [
        ("[channels.wechat]\nsecret = ", "in secret_file, or name an environment variable in secret_env"),
        ("[channels.wechat]\nappsecret = ", "in secret_file, or name an environment variable in secret_env"),
        ("[channels.sms]\nAPI-Key = ", "in secret_file, or name an environment variable in secret_env"),
        ("[intake.http]\ntoken = ", "in token_file"),
        ("[receipts]\naes_key = ", "in aes_key_file"),
        ("password = ", "put it into a file of its own"),
    ],
)
def test_a_secret_written_into_the_file_is_refused_and_not_quoted(folder, text, use):
    message = refusal(folder, f'{text}"{SECRET}"')
    assert "a secret is never written here" in message
    assert message.endswith(use)
    assert SECRET not in message


@pytest.mark.parametrize(
    "text",
    [
        WECHAT.replace('"secret"', f'"{SECRET}"'),
        WECHAT.replace("secret_file", "secret_env").replace('"secret"', f'"{SECRET}"'),
        WECHAT + f'base_url = "https://user:{SECRET}@h"',
        WECHAT + f'on_unknown = "{SECRET}"',
        WECHAT + f"{SECRET} = 1",
        f"a = {SECRET}",
    ],
)
def test_a_secret_in_the_wrong_place_is_refused_and_not_quoted(folder, text):
    assert SECRET not in refusal(folder, text)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, "does not exist; write the secret into it"),
        (b"", "is empty"),
        (b" \n ", "is empty"),
        (b"x" * 4097, "is over 4096 bytes"),
        (b"\xff\xfe", "is not text"),
        (b"a\nb", "holds a line break"),
    ],
)
def test_an_unusable_secret_file_is_refused_at_load(folder, content, expected):
    (folder / "secret").unlink()
    if content is not None:
        (folder / "secret").write_bytes(content)
    message = refusal(folder, WECHAT)
    assert message.startswith("channels.wechat.secret_file: ")
    assert expected in message


def test_a_secret_file_that_is_a_folder_is_refused(folder):
    with pytest.raises(ConfigurationError, match=r"^intake.http.token_file: .* cannot be read: Is a directory$"):
        read_secret_file(folder, "intake.http.token_file")


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, "channels.sms.secret_env: the environment variable SMS_SECRET is not set"),
        ({"SMS_SECRET": " "}, "channels.sms.secret_env: the environment variable SMS_SECRET is empty"),
    ],
)
def test_a_missing_variable_is_refused_at_load(folder, environ, expected):
    assert refusal(folder, SMS, environ).startswith(expected)


def test_commands_that_read_only_the_ledger_need_no_secrets(folder):
    (folder / "secret").unlink()
    config = load_config(given(folder, WECHAT), None)
    assert isinstance(config.channels.wechat, WechatConfig)


@pytest.mark.skipif(os.name != "posix", reason="modes of files are a POSIX matter")
@pytest.mark.parametrize("mode", [0o640, 0o604])
def test_a_secret_file_that_others_may_read_is_used_with_a_warning(folder, mode):
    (folder / "secret").chmod(mode)
    config = load_config(given(folder, WECHAT), {})
    assert len(config.warnings) == 1
    assert "channels.wechat.secret_file: others than the owner may read" in config.warnings[0]
    assert SECRET not in config.warnings[0]
