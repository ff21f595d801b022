"""The configuration as frozen structs; ``dispatcher.config_load`` reads the file.

Programs outside the project rely on these names, and every key has a default that runs. Paths in a loaded
``Config`` are absolute. Secrets are never in it, only the places where ``read_secret`` finds them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta

from dispatcher.config_channels import ChannelsConfig
from dispatcher.config_parts import (
    BYTES_PER_MIB,
    ListenText,
    Section,
    UrlText,
    check_listen,
    check_tls,
    parse_listen,
    parsed_listen,
)

SQLITE_PREFIX = "sqlite:///"


class LedgerConfig(Section, frozen=True, kw_only=True):
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


class HttpIntakeConfig(Section, frozen=True, kw_only=True):
    """``max_body_bytes`` bounds a request after decompression; a batch of 256 events is about 64 KiB."""

    listen: ListenText = "127.0.0.1:8080"
    token_file: Path | None = None
    tls_cert_file: Path | None = None
    tls_key_file: Path | None = None
    max_body_bytes: Annotated[int, Meta(ge=64 * 1024, le=64 * BYTES_PER_MIB)] = 16 * BYTES_PER_MIB

    def __post_init__(self) -> None:
        check_listen(self.listen, self.token_file)
        check_tls(self.tls_cert_file, self.tls_key_file)


class StreamIntakeConfig(Section, frozen=True, kw_only=True):
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
        address = parsed_listen(self.listen)
        check_tls(self.tls_cert_file, self.tls_key_file)
        if self.client_ca_file is not None and self.tls_cert_file is None:
            raise ValueError("tls_cert_file: is missing although client_ca_file is given; client certificates need TLS")
        if self.token_file is None and self.client_ca_file is None and not address.loopback:
            raise ValueError(
                "token_file: is needed because listen is not a loopback address; put the token in a file and name it "
                "here, or demand client certificates with client_ca_file, or listen on 127.0.0.1"
            )


class IntakeConfig(Section, frozen=True, kw_only=True):
    """Ways in."""

    http: HttpIntakeConfig = HttpIntakeConfig()
    stream: StreamIntakeConfig | None = None


class ReceiptsConfig(Section, frozen=True, kw_only=True):
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
        check_listen(self.listen, self.token_file)


class MetricsConfig(Section, frozen=True, kw_only=True):
    """Where ``/metrics`` and ``/healthz`` answer."""

    listen: ListenText = "127.0.0.1:9464"
    token_file: Path | None = None

    def __post_init__(self) -> None:
        check_listen(self.listen, self.token_file)


class RulesConfig(Section, frozen=True, kw_only=True):
    """``file`` replaces the shipped rules. ``approval``: other rules take effect only once somebody else than who
    proposed them has approved them."""

    file: Path | None = None
    approval: bool = False


class TemplatesConfig(Section, frozen=True, kw_only=True):
    """``path`` is a folder that is added to the shipped library. ``approval``: a version in it that is new is told only
    once somebody else than who proposed it has approved it."""

    path: Path | None = None
    approval: bool = False


class EngineConfig(Section, frozen=True, kw_only=True):
    """Tuning. The bounds keep a process within its 200 MB whatever the backlog.

    ``batch_events`` is the most that comes through the door at once. What there is goes at once, so a lone swipe
    waits for nobody; a flood comes in full batches, which touch fewer pages of the ledger an event.
    ``lane_capacity`` (alerts a channel) and
    ``in_flight`` (requests a channel) bound what is held; ``lease_seconds`` is how soon another process
    takes over from a dead one. ``drain_seconds`` is how long SIGTERM waits for answers.
    """

    batch_events: Annotated[int, Meta(ge=1, le=4096)] = 1024
    lane_capacity: Annotated[int, Meta(ge=1, le=65_536)] = 4096
    in_flight: Annotated[int, Meta(ge=1, le=16_384)] = 2048
    lease_seconds: Annotated[float, Meta(ge=1.0, le=300.0)] = 8.0
    drain_seconds: Annotated[float, Meta(ge=0.0, le=300.0)] = 30.0

    def __post_init__(self) -> None:
        if self.lane_capacity < self.batch_events:
            raise ValueError("lane_capacity: is below batch_events; a full batch must fit into a lane")


class RetryConfig(Section, frozen=True, kw_only=True):
    """Exponential backoff with full jitter: after the n-th try, 0 … min(cap, base x 2^(n-1)) seconds.

    Of a channel's retries, all processes together, no more leave than ``budget_share`` of its first attempts and
    ``budget_per_second``. The defaults are those of ``ratelimit.retry``, where the reasons stand.
    """

    base_seconds: Annotated[float, Meta(ge=0.01, le=60.0)] = 0.5
    cap_seconds: Annotated[float, Meta(ge=0.01, le=3600.0)] = 300.0
    max_attempts: Annotated[int, Meta(ge=1, le=1000)] = 100
    budget_share: Annotated[float, Meta(ge=0.0, le=10.0)] = 0.2
    budget_per_second: Annotated[float, Meta(ge=0.1, le=100_000.0)] = 10.0

    def __post_init__(self) -> None:
        if self.cap_seconds < self.base_seconds:
            raise ValueError("cap_seconds: is below base_seconds")


class LogConfig(Section, frozen=True, kw_only=True):
    """``level`` is the least that is written; libraries write warnings and worse at any level."""

    level: Literal["debug", "info", "warning", "error"] = "info"


class ConfigFile(Section, frozen=True, kw_only=True):
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
