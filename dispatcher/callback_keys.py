"""The keys of WeChat's callbacks, read from where the configuration says."""

from __future__ import annotations

from dispatcher.channels.wechat.crypto import MAX_KEYS, CallbackKeys, UnreadableKey
from dispatcher.config import Config
from dispatcher.errors import ConfigurationError

KEY = "receipts.aes_key_file"

MAX_FILE_BYTES = 4 * 1024
"""Two keys have 87; whatever is larger is another file, named by mistake, and is not read to its end."""


def read_callback_keys(config: Config) -> CallbackKeys | None:
    """The EncodingAESKeys of ``receipts.aes_key_file``, one a line, the current one first; None when there is no file.

    Raises `ConfigurationError`, which names no key.
    """
    section = config.receipts
    if section is None or section.aes_key_file is None:
        return None
    if section.token_file is None:
        raise ConfigurationError(
            f"{KEY}: is given without receipts.token_file, and a callback is signed with the token"
        )
    if config.channels.wechat is None:
        raise ConfigurationError(f"{KEY}: is given without [channels.wechat], whose appid every callback carries")
    path = section.aes_key_file
    try:
        with path.open("rb") as file:
            lines = file.read(MAX_FILE_BYTES).decode("ascii").split()
    except OSError as error:
        raise ConfigurationError(f"{KEY}: {path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        lines = []
    try:
        return CallbackKeys(lines, config.channels.wechat.appid)
    except UnreadableKey:
        raise ConfigurationError(
            f"{KEY}: {path} holds something else than 1 to {MAX_KEYS} lines with an EncodingAESKey of 43 letters and "
            "digits each; copy it from WeChat's console, the current one first"
        ) from None
