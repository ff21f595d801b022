"""Reading ``swipebell.toml``: every refusal is one line with the file, the key and what is allowed.

No refusal quotes a text value: a secret pasted into the wrong key must not reach a terminal or a log.
"""

from __future__ import annotations

import difflib
import os
import re
import stat
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
from msgspec import inspect

from dispatcher import config_moved
from dispatcher.config import SQLITE_PREFIX, Config, ConfigFile, LedgerConfig
from dispatcher.config_channels import ChannelSection, WebhookConfig
from dispatcher.errors import ConfigurationError
from dispatcher.model.private import Secret

MAX_CONFIG_BYTES = 1024 * 1024
"""A configuration is a few KiB; whatever is larger is another file, named by mistake."""
MAX_SECRET_BYTES = 4 * 1024
"""Tokens and keys are under 1 KiB; whatever is larger is another file, named by mistake."""
MAX_SHOWN_CHARS = 40
"""Of a key that is not ours: enough to find it again."""

# Keys under which people write a secret into the file itself.
_INLINE_SECRETS = frozenset(
    {"secret", "appsecret", "app_secret", "secret_key", "token", "access_token", "bearer_token", "password"}
    | {"api_key", "apikey", "aes_key", "encoding_aes_key", "encodingaeskey"}
)


def load_config(path: Path | None, environ: Mapping[str, str] | None) -> Config:
    """The configuration of the file at ``path``; None gives the defaults, relative to the current directory.

    Paths come back absolute (relative ones are relative to the file), and so does the ledger's URL. With
    ``environ`` every secret that the file names is read once, so that a missing one is an error now and not
    at the first alert; secret files that others may read, and keys that the rules are
    better for, add to ``Config.warnings``. ``environ=None`` looks
    at no secret: for commands that only read the ledger. Raises ConfigurationError.
    """
    name = str(path) if path is not None else "defaults"
    base = Path(os.path.abspath(path if path is not None else "x")).parent
    tables = _read_toml(path) if path is not None else {}
    if (why := config_moved.refusal(tables)) is not None:
        raise ConfigurationError(f"{name}: {why}")
    _check_keys(tables, inspect.type_info(ConfigFile), (), name)
    try:
        decoded = msgspec.convert(tables, ConfigFile, dec_hook=lambda kind, value: _decode_path(kind, value, base))
    except msgspec.ValidationError as error:
        raise ConfigurationError(f"{name}: {_explain(str(error), tables)}") from None
    ledger = LedgerConfig(url=f"{SQLITE_PREFIX}{os.path.abspath(base / decoded.ledger.path)}")
    fields = {field: getattr(decoded, field) for field in decoded.__struct_fields__}
    fields |= {"ledger": ledger, "path": Path(os.path.abspath(path)) if path is not None else None}
    config = Config(**fields)
    _check_files(config, name)
    if environ is None:
        return config
    moved = tuple(f"{name}: {warning}" for warning in config_moved.warnings(tables))
    return msgspec.structs.replace(config, warnings=moved + _check_secrets(config, environ, name))


def read_secret(channel: str, section: ChannelSection, environ: Mapping[str, str]) -> Secret | None:
    """A channel's secret, from its file or its environment variable; None when it has none.

    Raises ConfigurationError that names the key and never the value.
    """
    if section.secret_env is not None:
        return _read_environment(section.secret_env, environ, f"channels.{channel}.secret_env")
    if section.secret_file is not None:
        return read_secret_file(section.secret_file, f"channels.{channel}.secret_file")
    return None


def read_secret_file(path: Path, key: str) -> Secret:
    """The stripped content of a file that holds a secret (a token_file or aes_key_file, too).

    ``key`` is named in errors. Raises ConfigurationError when the file cannot be read, is empty, is over
    ``MAX_SECRET_BYTES`` or is not one line of text.
    """
    shown = "the file named there" if _looks_like_a_secret(path.name) else str(path)
    try:
        with path.open("rb") as file:
            content = file.read(MAX_SECRET_BYTES + 1)
    except FileNotFoundError:
        raise ConfigurationError(f"{key}: {shown} does not exist; write the secret into it, mode 0600") from None
    except OSError as error:
        raise ConfigurationError(f"{key}: {shown} cannot be read: {error.strerror}") from None
    if len(content) > MAX_SECRET_BYTES:
        raise ConfigurationError(f"{key}: {shown} is over {MAX_SECRET_BYTES} bytes; that is not a secret")
    return _secret_of(content, f"{key}: {shown}")


def read_token(path: Path | None, key: str) -> Secret | None:
    """The token of a listener, or None where none is configured. Raises ConfigurationError."""
    return None if path is None else read_secret_file(path, key)


def _read_environment(variable: str, environ: Mapping[str, str], key: str) -> Secret:
    if variable not in environ:
        raise ConfigurationError(f"{key}: the environment variable {variable} is not set")
    return _secret_of(os.fsencode(environ[variable]), f"{key}: the environment variable {variable}")


def _secret_of(content: bytes, where: str) -> Secret:
    try:
        text = content.decode("utf-8").strip()
    except UnicodeDecodeError:
        raise ConfigurationError(f"{where} is not text; a secret is one line of text") from None
    if not text:
        raise ConfigurationError(f"{where} is empty; write the secret into it")
    if not text.isprintable():
        # It goes into a header or a URL, where a line break would begin something else.
        raise ConfigurationError(f"{where} holds a line break or another control character; a secret is one line")
    return Secret(text)


def _looks_like_a_secret(name: str) -> bool:
    return len(name) >= 20 and name.isalnum() and any(c.isdigit() for c in name)


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_CONFIG_BYTES + 1)
    except FileNotFoundError:
        raise ConfigurationError(f"{path}: no such file; `swipebell init DIR` writes one") from None
    except IsADirectoryError:
        raise ConfigurationError(f"{path}: is a folder; name the file, such as {path / 'swipebell.toml'}") from None
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "not a file name"
        raise ConfigurationError(f"{path}: cannot be read: {why}") from None
    if len(content) > MAX_CONFIG_BYTES:
        raise ConfigurationError(f"{path}: is over {MAX_CONFIG_BYTES} bytes; that is not a configuration")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigurationError(f"{path}: line {line}: not UTF-8; save the file as UTF-8") from None
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise ConfigurationError(f"{path}: nested too deeply; no key here is more than four deep") from None
    except ValueError as error:
        raise ConfigurationError(f"{path}: {_locate(str(error), text)}") from None


def _locate(message: str, text: str) -> str:
    """tomllib's message with line and column in front, and without what it quotes from the file."""
    found = re.search(r" \(at (?:line (\d+), column (\d+)|end of document)\)$", message)
    if found is None:  # such as an integer of thousands of digits
        return "not valid TOML: a value is out of range"
    line, column = found.groups() if found[1] else (text.count("\n") + 1, len(text.rpartition("\n")[2]) + 1)
    return f"line {line}, column {column}: not valid TOML: {message[: found.start()]}"


def _check_keys(value: Any, info: inspect.Type, at: tuple[str, ...], name: str) -> None:
    """Refuses keys that are not known, naming the nearest one. Values are msgspec's to check."""
    struct = _struct_of(info)
    if struct is None or not isinstance(value, dict):
        return
    known = {field.encode_name: field.type for field in struct.fields}
    for key, inner in value.items():
        if key in known:
            _check_keys(inner, known[key], (*at, key), name)
            continue
        where = ".".join((*at, _show_key(key)))
        if key.lower().replace("-", "_") in _INLINE_SECRETS:
            raise ConfigurationError(f"{name}: {where}: {_where_secrets_go(key, list(known))}")
        near = difflib.get_close_matches(key, known, n=1)
        hint = f"; did you mean {near[0]}?" if near else "."
        all_known = ", ".join(sorted(known))
        raise ConfigurationError(f"{name}: unknown key {where}{hint} Known keys here: {all_known}")


def _where_secrets_go(key: str, known: list[str]) -> str:
    places = [k for k in known if k in ("secret_file", "token_file", "aes_key_file")]
    nearest = difflib.get_close_matches(key.lower(), places, n=1, cutoff=0.0)
    named = f" and name that file in {nearest[0]}" if nearest else ""
    variable = ", or name an environment variable in secret_env" if "secret_env" in known else ""
    return f"a secret is never written here; put it into a file of its own{named}{variable}"


def _show_key(key: str) -> str:
    plain = re.fullmatch(r"[A-Za-z0-9_-]+", key) and not _looks_like_a_secret(key)
    return key[:MAX_SHOWN_CHARS] if plain else "(a quoted key)"


def _struct_of(info: inspect.Type) -> inspect.StructType | None:
    if isinstance(info, inspect.UnionType):
        return next((t for t in info.types if isinstance(t, inspect.StructType)), None)
    return info if isinstance(info, inspect.StructType) else None


def _decode_path(kind: type, value: object, base: Path) -> Path:
    if kind is not Path or not isinstance(value, str) or not value or "\0" in value:
        raise ValueError("Expected a path")
    return Path(os.path.abspath(base / value))


def _explain(message: str, tables: dict[str, Any]) -> str:
    """msgspec's message, put into the words of the file: the key, what is allowed, what kind was found."""
    text, _, place = message.rpartition(" - at ") if " - at " in message else (message, "", "")
    steps = re.findall(r"[A-Za-z_]\w*", place.replace("`key` in ", ""))
    key = ".".join(steps)
    ours = re.match(r"^([a-z_.]+): (.*)$", text)
    if ours:
        return f"{'.'.join([*steps, ours[1]])}: {ours[2]}"
    missing = re.search(r"missing required field `(\w+)`", text)
    if missing:
        return f"{key}.{missing[1]}: is missing; the section [{key}] needs it"
    info: inspect.Type = inspect.type_info(ConfigFile)
    found: Any = tables
    for step in steps:
        struct = _struct_of(info)
        if struct is None:
            break
        info = next(field.type for field in struct.fields if field.encode_name == step)
        found = found.get(step) if isinstance(found, dict) else None
    allowed = _allowed(info, key)
    return f"{key}: allowed is {allowed}, and here is {_kind(found, allowed)}"


def _kind(value: object, allowed: str) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case int() | float():
            return str(value) if abs(value) < 10**15 else "a number far outside"
        case str():
            return "another text" if allowed.startswith(('"', "a text")) else "a text in quotes"
        case dict():
            return "a table"
        case list():
            return "an array"
        case _:
            return "a date or time"


def _allowed(info: inspect.Type, key: str) -> str:
    match info:
        case inspect.UnionType(types=types):
            return " or ".join(_allowed(t, key) for t in types if not isinstance(t, inspect.NoneType))
        case inspect.IntType(ge=low, le=high):
            return f"a whole number from {low} to {high}"
        case inspect.FloatType(ge=low, le=high):
            return f"a number from {low} to {high}"
        case inspect.LiteralType(values=values):
            return " or ".join(f'"{value}"' for value in values)
        case inspect.StrType(pattern=str(pattern)):
            return f"a text that matches {pattern}"
        case inspect.StrType(min_length=low, max_length=high):
            return f"a text of {low or 0} to {high} characters"
        case inspect.VarTupleType(item_type=inner):
            return f"a list of {_allowed(inner, key)}"
        case inspect.CustomType():
            return "the path of a file or folder, as text"
        case inspect.DictType(value_type=inner):
            return f"a table of names with {_allowed(inner, key)}"
        case _:
            return f"a table [{key}]"


def _check_files(config: Config, name: str) -> None:
    """What a key names is there: the error belongs to the key, not to whoever opens the file later."""
    http = config.intake.http
    named = {
        "rules.file": config.rules.file,
        "intake.http.tls_cert_file": http.tls_cert_file,
        "intake.http.tls_key_file": http.tls_key_file,
    }
    if (stream := config.intake.stream) is not None:
        for key in ("tls_cert_file", "tls_key_file", "client_ca_file"):
            named[f"intake.stream.{key}"] = getattr(stream, key)
    for channel, section in config.channels.accounts().items():
        for key in ("ca_file", "client_cert_file", "client_key_file"):
            named[f"channels.{channel}.{key}"] = getattr(section, key)
    for key, path in named.items():
        if path is not None and not path.is_file():
            raise ConfigurationError(f"{name}: {key}: there is no file {path}")
    if config.templates.path is not None and not config.templates.path.is_dir():
        raise ConfigurationError(f"{name}: templates.path: there is no folder {config.templates.path}")


def _check_secrets(config: Config, environ: Mapping[str, str], name: str) -> tuple[str, ...]:
    """Reads every secret once and keeps none; returns warnings about files that others may read."""
    files: dict[str, Path | None] = {
        "intake.http.token_file": config.intake.http.token_file,
        "metrics.token_file": config.metrics.token_file,
    }
    if config.intake.stream is not None:
        files["intake.stream.token_file"] = config.intake.stream.token_file
    aes = None if config.receipts is None else config.receipts.aes_key_file
    if config.receipts is not None:
        files["receipts.token_file"] = config.receipts.token_file
        files["receipts.aes_key_file"] = aes
    warnings = []
    try:
        if aes is not None:
            from dispatcher.callback_keys import read_callback_keys  # which needs this module

            read_callback_keys(config)
        for channel, section in config.channels.accounts().items():
            files[f"channels.{channel}.secret_file"] = section.secret_file
            if isinstance(section, WebhookConfig):
                files[f"channels.{channel}.previous_secret_file"] = section.previous_secret_file
            read_secret(channel, section, environ)
        for key, path in files.items():
            if path is None:
                continue
            if path is not aes:  # which may have two lines
                read_secret_file(path, key)
            if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
                warnings.append(f"{name}: {key}: others than the owner may read {path}; chmod 600 it")
    except ConfigurationError as error:
        raise ConfigurationError(f"{name}: {error}") from None
    return tuple(warnings)
