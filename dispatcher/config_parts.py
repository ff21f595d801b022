"""What the sections of the configuration are made of: their types, and the checks that they share."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

ResendOrLeave = Literal["resend", "leave"]

Rate = Annotated[int, Meta(ge=1, le=100_000)]
"""Requests a second. The upper end is far above any provider's quota; it catches a slipped digit."""
PerMinute = Annotated[int, Meta(ge=1, le=60)]
"""Alerts a minute for one recipient. Above one a second it would hold nothing back."""
Connections = Annotated[int, Meta(ge=1, le=1024)]
"""Open connections to one provider: each costs a descriptor, and 1,024 is the usual limit of a process."""
TimeoutSeconds = Annotated[float, Meta(ge=0.1, le=120.0)]
"""Above two minutes an answer is worth nothing: a swipe alert is late long before."""
EnvironmentName = Annotated[str, Meta(pattern="^[A-Z_][A-Z0-9_]{0,127}$")]
"""Capitals only, so that a secret pasted in place of a name is noticed."""
ListenText = Annotated[str, Meta(min_length=1, max_length=300)]
UrlText = Annotated[str, Meta(min_length=1, max_length=2048)]
Word = Annotated[str, Meta(min_length=1, max_length=128)]
BYTES_PER_MIB = 1024 * 1024


class Address(msgspec.Struct, frozen=True):
    """Where to listen. ``port`` 0 lets the system choose one."""

    host: str
    port: int

    @property
    def loopback(self) -> bool:
        """True when only this machine can connect."""
        return is_loopback(self.host)

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def parse_listen(text: str) -> Address:
    """``"HOST:PORT"``, an IPv6 host in brackets. Raises ValueError: what is allowed, nothing quoted."""
    allowed = 'allowed is "HOST:PORT", an IPv6 host in brackets, a port from 0 to 65535 (0: any free port)'
    host, colon, port = text.rpartition(":")
    if not (colon and port.isascii() and port.isdigit() and len(port) <= 5 and int(port) <= 65_535):
        raise ValueError(allowed)
    if host.startswith("[") and host.endswith("]"):
        try:
            return Address(str(ipaddress.IPv6Address(host[1:-1])), int(port))
        except ValueError:
            raise ValueError(allowed) from None
    if not host or not all(c.isascii() and (c.isalnum() or c in ".-_") for c in host):
        raise ValueError(allowed)
    return Address(host, int(port))


def check_listen(text: str, token_file: Path | None) -> None:
    if token_file is None and not parsed_listen(text).loopback:
        raise ValueError(
            "token_file: is needed because listen is not a loopback address; put the bearer token in a file "
            "and name it here, or listen on 127.0.0.1"
        )


def parsed_listen(text: str) -> Address:
    try:
        return parse_listen(text)
    except ValueError as error:
        raise ValueError(f"listen: {error}") from None


def check_tls(cert_file: Path | None, key_file: Path | None) -> None:
    if (cert_file is None) != (key_file is None):
        missing, given = ("tls_cert_file", "tls_key_file")[:: 1 if cert_file is None else -1]
        raise ValueError(f"{missing}: is missing although {given} is given; TLS needs both")


def check_url(key: str, text: str, *, https_unless_loopback: bool) -> None:
    # The text is never quoted: a URL may carry a password.
    try:
        parts = urlsplit(text)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise ValueError(f"{key}: is not a URL; allowed is https://HOST[:PORT][/PATH]") from None
    if parts.scheme not in ("http", "https") or not host or any(c.isspace() or not c.isprintable() for c in text):
        raise ValueError(f"{key}: is not a URL; allowed is https://HOST[:PORT][/PATH]")
    if parts.username is not None or parts.password is not None:
        raise ValueError(f"{key}: holds a user name or password; secrets go into secret_file or secret_env")
    if https_unless_loopback and (parts.query or parts.fragment):
        raise ValueError(f"{key}: holds a query or a fragment; allowed is https://HOST[:PORT][/PATH]")
    if https_unless_loopback and parts.scheme == "http" and not is_loopback(host):
        raise ValueError(
            f"{key}: http:// is allowed for a loopback address only, because a secret goes there; use https://"
        )


def check_secret(secret_file: Path | None, secret_env: str | None, *, needed_because: str | None) -> None:
    if secret_file is not None and secret_env is not None:
        raise ValueError("secret_env: is given beside secret_file; keep one of the two")
    if secret_file is None and secret_env is None and needed_because is not None:
        raise ValueError(f"secret_file: is missing (or secret_env): {needed_because}")


def check_client_certificate(cert_file: Path | None, key_file: Path | None) -> None:
    if (cert_file is None) != (key_file is None):
        missing, given = ("client_cert_file", "client_key_file")[:: 1 if cert_file is None else -1]
        raise ValueError(f"{missing}: is missing although {given} is given; a client certificate needs both")


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of the configuration file: a key that is not known is an error."""
