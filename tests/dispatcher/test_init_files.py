"""What `swipebell init DIR` writes, and that the annotations of the configuration tell the truth."""

from __future__ import annotations

import os
import re
import tomllib
from pathlib import Path

import msgspec
import pytest

from dispatcher.config import Config, ConfigFile
from dispatcher.config_load import load_config
from dispatcher.errors import ConfigurationError
from dispatcher.starter import starter_files, write_starter

SETTING = re.compile(r"^#(\[.+\]|[a-z0-9_]+ = .+)$", re.MULTILINE)
EXAMPLE = re.compile(r"^# No default: ([a-z0-9_]+ = .+)$", re.MULTILINE)
OPTIONAL_FROM = "#[channels.wechat]"


@pytest.fixture
def started(tmp_path: Path) -> Path:
    write_starter(tmp_path / "bank")
    return tmp_path / "bank"


def load(folder: Path, text: str) -> Config:
    (folder / "swipebell.toml").write_text(text, "utf-8")
    return load_config(folder / "swipebell.toml", None)


def test_a_starter_is_a_configuration_rules_a_template_and_a_place_for_secrets(tmp_path):
    # When
    written = write_starter(tmp_path / "new" / "bank")
    # Then
    folder = tmp_path / "new" / "bank"
    names = {str(path.relative_to(folder)) for path in written}
    assert names == {"swipebell.toml", "rules.toml", "templates/swipe/template.toml", "secrets/README"}
    assert all(path.read_text("utf-8").strip() for path in written)
    assert (folder / "secrets").stat().st_mode & 0o777 == 0o700
    for name in names - {"secrets/README"}:
        tomllib.loads((folder / name).read_text("utf-8"))


def test_the_written_configuration_is_the_defaults(started):
    config = load_config(started / "swipebell.toml", {})
    (started / "empty.toml").write_text("")
    defaults = load_config(started / "empty.toml", {})
    assert msgspec.structs.replace(config, path=None) == msgspec.structs.replace(defaults, path=None)
    assert config.warnings == ()


def test_every_annotated_default_is_the_default(started):
    # Given every line that shows a default without its comment sign, sections that are always there
    text = (started / "swipebell.toml").read_text("utf-8")
    always = SETTING.sub(r"\1", text[: text.index(OPTIONAL_FROM)])
    assert always != text[: text.index(OPTIONAL_FROM)]
    # When, Then
    assert load(started, always) == load(started, "")


def test_every_annotated_default_of_an_optional_section_is_the_default(started):
    # Given all sections, with every default spelled out
    text = (started / "swipebell.toml").read_text("utf-8")
    everything = load(started, SETTING.sub(r"\1", text))
    # When the same sections hold only what they cannot do without
    needed = load(
        started,
        "[receipts]\n[intake.stream]\n"
        '[channels.wechat]\nappid = "wx0000000000000000"\nsecret_file = "secrets/wechat"\n'
        '[channels.sms]\nbase_url = "https://sms.example.com/send"\nsecret_file = "secrets/sms"\n'
        '[channels.sms.second]\nbase_url = "https://sms2.example.com/send"\nsecret_file = "secrets/sms2"\n'
        '[channels.email]\nhost = "mail.example.com"\nsender = "alerts@bank.example.com"\n'
        '[channels.webhook]\nurl = "https://push.example.com/alerts"\nsecret_file = "secrets/webhook"\n',
    )
    # Then
    assert everything == needed


def test_every_key_is_annotated_in_its_section_and_nothing_else(started):
    # Given the keys of the annotated file, by section
    annotated = set()
    section = ""
    for line in (started / "swipebell.toml").read_text("utf-8").splitlines():
        if header := re.match(r"^#?\[(.+)\]$", line):
            section = header[1]
        elif key := re.match(r"^(?:#|# No default: )([a-z0-9_]+) = ", line):
            annotated.add(f"{section}.{key[1]}")
    # When the structs are asked for theirs
    known = set()
    pending = [("", msgspec.inspect.type_info(ConfigFile))]
    while pending:
        at, info = pending.pop()
        if isinstance(info, msgspec.inspect.UnionType):
            info = next((t for t in info.types if isinstance(t, msgspec.inspect.StructType)), info)
        if isinstance(info, msgspec.inspect.StructType):
            pending += [(f"{at}.{field.encode_name}".strip("."), field.type) for field in info.fields]
        else:
            known.add(at)
    # Then
    assert annotated == known


def test_every_example_of_a_key_without_default_is_accepted(started):
    # Given the files that the examples name
    text = SETTING.sub(r"\1", (started / "swipebell.toml").read_text("utf-8"))
    (started / "tls").mkdir()
    for name in ("chain.pem", "key.pem", "clients.pem", "ca.pem", "client.pem", "client.key"):
        (started / "tls" / name).write_text("x")
    # and, where a secret may come from one place only, the variable instead of the file
    text = re.sub(r"^(?:secret_file = |# No default: secret_file = ).*\n", "", text, flags=re.MULTILINE)
    # When
    config = load(started, EXAMPLE.sub(r"\1", text))
    # Then
    assert config.rules.file == started / "rules.toml"
    assert config.channels.wechat is not None
    assert config.channels.wechat.secret_env == "SWIPEBELL_WECHAT_SECRET"


def test_existing_files_are_listed_and_nothing_is_written(tmp_path):
    # Given
    (tmp_path / "rules.toml").write_text("mine")
    (tmp_path / "swipebell.toml").symlink_to("nowhere")
    # When
    with pytest.raises(ConfigurationError) as caught:
        write_starter(tmp_path)
    # Then
    assert "swipebell.toml, rules.toml would be overwritten, so nothing was written" in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rules.toml", "swipebell.toml"]


def test_force_overwrites(tmp_path):
    (tmp_path / "rules.toml").write_text("mine")
    write_starter(tmp_path, force=True)
    assert (tmp_path / "rules.toml").read_text("utf-8") == starter_files()["rules.toml"]


@pytest.mark.parametrize("below", ["file", "file/deeper"])
def test_a_file_where_the_folder_should_be_is_named(tmp_path, below):
    (tmp_path / "file").write_text("x")
    with pytest.raises(ConfigurationError, match=r"is not a folder") as caught:
        write_starter(tmp_path / below)
    assert str(tmp_path / "file") in str(caught.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_named(tmp_path):
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(ConfigurationError, match="cannot be written: Permission denied"):
            write_starter(tmp_path / "bank")
    finally:
        tmp_path.chmod(0o700)
