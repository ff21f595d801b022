"""The configuration as frozen structs; ``dispatcher.config_load`` reads the file.

Programs outside the project rely on these names, and every key has a default that runs. Paths in a loaded
``Config`` are absolute. Secrets are never in it, only the places where ``read_secret`` finds them.
"""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

SQLITE_PREFIX = "sqlite:///"
ResendOrLeave = Literal["resend", "leave"]

Rate = Annotated[int, Meta(ge=1, le=100_000)]
"""Requests a second. The upper end is far above any provider's quota; it catches a slipped digit."""
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
        return _is_loopback(self.host)

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def _is_loopback(host: str) -> bool:
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


def _check_listen(text: str, token_file: Path | None) -> None:
    if token_file is None and not _listen(text).loopback:
        raise ValueError(
            "token_file: is needed because listen is not a loopback address; put the bearer token in a file "
            "and name it here, or listen on 127.0.0.1"
        )


def _listen(text: str) -> Address:
    try:
        return parse_listen(text)
    except ValueError as error:
        raise ValueError(f"listen: {error}") from None


def _check_tls(cert_file: Path | None, key_file: Path | None) -> None:
    if (cert_file is None) != (key_file is None):
        missing, given = ("tls_cert_file", "tls_key_file")[:: 1 if cert_file is None else -1]
        raise ValueError(f"{missing}: is missing although {given} is given; TLS needs both")


def _check_url(key: str, text: str, *, https_unless_loopback: bool) -> None:
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
    if https_unless_loopback and parts.scheme == "http" and not _is_loopback(host):
        raise ValueError(
            f"{key}: http:// is allowed for a loopback address only, because a secret goes there; use https://"
        )


def _check_secret(secret_file: Path | None, secret_env: str | None, *, needed_because: str | None) -> None:
    if secret_file is not None and secret_env is not None:
        raise ValueError("secret_env: is given beside secret_file; keep one of the two")
    if secret_file is None and secret_env is None and needed_because is not None:
        raise ValueError(f"secret_file: is missing (or secret_env): {needed_because}")


class _Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class LedgerConfig(_Section, frozen=True, kw_only=True):
    """``url``: ``sqlite:///FILE`` relative to the configuration file, ``sqlite:////FILE`` absolute."""

    url: UrlText = "sqlite:///ledger.db"

    def __post_init__(self) -> None:
        if self.url.startswith(("postgresql:", "postgres:")):
            raise ValueError('url: postgresql:// comes later; allowed today is "sqlite:///FILE"')
        name = self.url.removeprefix(SQLITE_PREFIX)
        is_file = name.strip("/") and not name.endswith("/") and name != ":memory:"
        if name == self.url or not is_file or "?" in name or "\0" in name:
            raise ValueError('url: allowed is "sqlite:///FILE" (relative to this file) or "sqlite:////FILE"')

    @property
    def path(self) -> Path:
        """The ledger's file."""
        return Path(self.url.removeprefix(SQLITE_PREFIX))


class HttpIntakeConfig(_Section, frozen=True, kw_only=True):
    """``max_body_bytes`` bounds a request after decompression; a batch of 256 events is about 64 KiB."""

    listen: ListenText = "127.0.0.1:8080"
    token_file: Path | None = None
    tls_cert_file: Path | None = None
    tls_key_file: Path | None = None
    max_body_bytes: Annotated[int, Meta(ge=64 * 1024, le=64 * BYTES_PER_MIB)] = 16 * BYTES_PER_MIB

    def __post_init__(self) -> None:
        _check_listen(self.listen, self.token_file)
        _check_tls(self.tls_cert_file, self.tls_key_file)


class StreamIntakeConfig(_Section, frozen=True, kw_only=True):
    """Connections that stay open; without this section there is no stream listener.

    With ``client_ca_file`` a client has to show a certificate of that authority. One that sends nothing for
    ``idle_seconds`` is closed.
    """

    listen: ListenText = "127.0.0.1:8082"
    token_file: Path | None = None
    tls_cert_file: Path | None = None
    tls_key_file: Path | None = None
    client_ca_file: Path | None = None
    idle_seconds: Annotated[float, Meta(ge=1.0, le=86_400.0)] = 300.0

    def __post_init__(self) -> None:
        address = _listen(self.listen)
        _check_tls(self.tls_cert_file, self.tls_key_file)
        if self.client_ca_file is not None and self.tls_cert_file is None:
            raise ValueError("tls_cert_file: is missing although client_ca_file is given; client certificates need TLS")
        if self.token_file is None and self.client_ca_file is None and not address.loopback:
            raise ValueError(
                "token_file: is needed because listen is not a loopback address; put the token in a file and name it "
                "here, or demand client certificates with client_ca_file, or listen on 127.0.0.1"
            )


class IntakeConfig(_Section, frozen=True, kw_only=True):
    """Ways in."""

    http: HttpIntakeConfig = HttpIntakeConfig()
    stream: StreamIntakeConfig | None = None


class ReceiptsConfig(_Section, frozen=True, kw_only=True):
    """Without this section acceptance is the provider's last word.

    ``token_file`` signs WeChat's callbacks and is the bearer token of SMS status reports; ``aes_key_file``
    holds the EncodingAESKey. An alert whose receipt has not come after ``deadline_seconds`` ends without
    one.
    """

    listen: ListenText = "127.0.0.1:8081"
    token_file: Path | None = None
    aes_key_file: Path | None = None
    deadline_seconds: Annotated[float, Meta(ge=1.0, le=86_400.0)] = 300.0

    def __post_init__(self) -> None:
        _check_listen(self.listen, self.token_file)


class MetricsConfig(_Section, frozen=True, kw_only=True):
    """Where ``/metrics`` and ``/healthz`` answer."""

    listen: ListenText = "127.0.0.1:9464"
    token_file: Path | None = None

    def __post_init__(self) -> None:
        _check_listen(self.listen, self.token_file)


class WechatConfig(_Section, frozen=True, kw_only=True):
    """Template messages of a WeChat service account.

    ``daily_quota`` is the account's own (100,000 for a new verified account, says WeChat's page of the
    template interface); ``template_ids`` maps our template to the account's private one; ``on_unknown``
    says what follows an answer that was never seen.
    """

    appid: Annotated[str, Meta(pattern="^[A-Za-z0-9_-]{1,64}$")]
    base_url: UrlText = "https://api.weixin.qq.com"
    secret_file: Path | None = None
    secret_env: EnvironmentName | None = None
    rate_per_second: Rate = 200
    daily_quota: Annotated[int, Meta(ge=1, le=1_000_000_000)] = 100_000
    connections: Connections = 64
    timeout_seconds: TimeoutSeconds = 10.0
    template_ids: dict[Word, Word] = {}
    url: UrlText | None = None
    on_unknown: ResendOrLeave = "resend"

    def __post_init__(self) -> None:
        _check_url("base_url", self.base_url, https_unless_loopback=True)
        if self.url is not None:
            _check_url("url", self.url, https_unless_loopback=False)
        why = "appid is given, and there is no access token without a secret"
        _check_secret(self.secret_file, self.secret_env, needed_because=why)
        # Paths such as /cgi-bin/... are appended.
        msgspec.structs.force_setattr(self, "base_url", self.base_url.rstrip("/"))


class SmsConfig(_Section, frozen=True, kw_only=True):
    """A JSON gateway; ``base_url`` is the URL that messages are posted to, ``sign`` the sender's signature.

    A gateway on this machine may go without a secret. ``on_unknown`` is by category, because SMS has no key
    by which a provider could tell the second request from the first.
    """

    base_url: UrlText
    vendor: Literal["generic"] = "generic"
    secret_file: Path | None = None
    secret_env: EnvironmentName | None = None
    sign: Annotated[str, Meta(max_length=64)] = ""
    rate_per_second: Rate = 50
    connections: Connections = 8
    timeout_seconds: TimeoutSeconds = 10.0
    on_unknown: dict[Word, ResendOrLeave] = msgspec.field(default_factory=lambda: {"swipe": "leave"})

    def __post_init__(self) -> None:
        _check_url("base_url", self.base_url, https_unless_loopback=True)
        local = _is_loopback(urlsplit(self.base_url).hostname or "")
        why = None if local else "the gateway is not on this machine and wants a bearer token"
        _check_secret(self.secret_file, self.secret_env, needed_because=why)


class ChannelsConfig(_Section, frozen=True, kw_only=True):
    """A channel without a section is passed over."""

    wechat: WechatConfig | None = None
    sms: SmsConfig | None = None


class RulesConfig(_Section, frozen=True, kw_only=True):
    """``file`` replaces the shipped rules."""

    file: Path | None = None


class TemplatesConfig(_Section, frozen=True, kw_only=True):
    """``path`` is a folder that is added to the shipped library."""

    path: Path | None = None


class EngineConfig(_Section, frozen=True, kw_only=True):
    """Tuning. The bounds keep a process within its 200 MB whatever the backlog.

    ``batch_events`` is the most that one ledger transaction admits; commits of 64 to 512 rows cost the same
    a row. ``lane_capacity`` (alerts a channel) and
    ``in_flight`` (requests a channel) bound what is held; ``lease_seconds`` is how soon another process
    takes over from a dead one. ``drain_seconds`` is how long SIGTERM waits for answers.
    """

    batch_events: Annotated[int, Meta(ge=1, le=4096)] = 256
    lane_capacity: Annotated[int, Meta(ge=1, le=65_536)] = 4096
    in_flight: Annotated[int, Meta(ge=1, le=16_384)] = 2048
    lease_seconds: Annotated[float, Meta(ge=1.0, le=300.0)] = 8.0
    drain_seconds: Annotated[float, Meta(ge=0.0, le=300.0)] = 30.0

    def __post_init__(self) -> None:
        if self.lane_capacity < self.batch_events:
            raise ValueError("lane_capacity: is below batch_events; a full batch must fit into a lane")


class RetryConfig(_Section, frozen=True, kw_only=True):
    """Exponential backoff with full jitter: after the n-th try, 0 … min(cap, base x 2^(n-1)) seconds.

    The defaults are those of ``ratelimit.retry``, where the reasons stand.
    """

    base_seconds: Annotated[float, Meta(ge=0.01, le=60.0)] = 0.5
    cap_seconds: Annotated[float, Meta(ge=0.01, le=3600.0)] = 300.0
    max_attempts: Annotated[int, Meta(ge=1, le=1000)] = 100

    def __post_init__(self) -> None:
        if self.cap_seconds < self.base_seconds:
            raise ValueError("cap_seconds: is below base_seconds")


class LogConfig(_Section, frozen=True, kw_only=True):
    """``level`` is the least that is written; libraries write warnings and worse at any level."""

    level: Literal["debug", "info", "warning", "error"] = "info"


class ConfigFile(_Section, frozen=True, kw_only=True):
    """What ``swipebell.toml`` may hold."""

    ledger: LedgerConfig = LedgerConfig()
    intake: IntakeConfig = IntakeConfig()
    receipts: ReceiptsConfig | None = None
    metrics: MetricsConfig = MetricsConfig()
    channels: ChannelsConfig = ChannelsConfig()
    rules: RulesConfig = RulesConfig()
    templates: TemplatesConfig = TemplatesConfig()
    engine: EngineConfig = EngineConfig()
    retry: RetryConfig = RetryConfig()
    log: LogConfig = LogConfig()

    def __post_init__(self) -> None:
        taken: dict[str, str] = {}
        sections = {
            "intake.http": self.intake.http,
            "intake.stream": self.intake.stream,
            "receipts": self.receipts,
            "metrics": self.metrics,
        }
        for name, section in sections.items():
            if section is None or parse_listen(section.listen).port == 0:
                continue
            first = taken.setdefault(str(parse_listen(section.listen)), name)
            if first != name:
                raise ValueError(f"{name}.listen: is the address of {first}.listen; give each a port of its own")


class Config(ConfigFile, frozen=True, kw_only=True):
    """A loaded configuration, with the ``path`` of its file (None: the defaults) and ``warnings`` to show."""

    path: Path | None = None
    warnings: tuple[str, ...] = ()
