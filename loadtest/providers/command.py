"""``swipebell providers``: the simulated providers as a process of their own."""

from __future__ import annotations

import errno
import signal
import socket
import sys
from pathlib import Path

import click
import trio

from dispatcher.model.private import Secret
from loadtest.poster import Target
from loadtest.providers.errors import SettingsTextError
from loadtest.providers.faults import Faults
from loadtest.providers.mixes import ABOUT, parse_mix
from loadtest.providers.sealing import Mode, make_seal
from loadtest.providers.server import serve_providers
from loadtest.providers.settings import (
    DEFAULT_APPID,
    DEFAULT_SECRET,
    DuplicateAnswer,
    ProviderSettings,
    ReceiptSettings,
    parse_weights,
)

_LOOPBACK = ("127.", "::1", "localhost")


class _Address(click.ParamType[tuple[str, int]]):
    name = "HOST:PORT"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, int]:
        host, colon, port = str(value).rpartition(":")
        if not colon or not host or not port.isdecimal() or int(port) > 65535:
            self.fail(f"{value!r} is not HOST:PORT, such as 127.0.0.1:9000 (port 0: any free one)", param, ctx)
        return host.strip("[]"), int(port)


class _Faults(click.ParamType[Faults]):
    name = "MIX"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> Faults:
        if isinstance(value, Faults):
            return value
        try:
            return parse_mix(str(value))
        except SettingsTextError as error:
            self.fail(str(error), param, ctx)


class _Weights(click.ParamType[dict[str, float]]):
    name = "NAME=W,…"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> dict[str, float]:
        if isinstance(value, dict):
            return value
        try:
            return parse_weights(str(value))
        except SettingsTextError as error:
            self.fail(str(error), param, ctx)


_MIXES_HELP = "\n".join(f"  {name:<20}{about}" for name, about in ABOUT.items())
_HELP = f"""\
Simulated WeChat and SMS providers, for tests on this machine.

One port serves WeChat's API (tokens, template messages, quota), the generic SMS gateway (any path that
ends in /sms), Aliyun's and Tencent's (any path that ends in /aliyun or /tencent; their access_key_id is
SimulatedKeyId0, their secret the gateway's), and what a test needs:

\b
  GET  /_book                             counters of both channels
  GET  /_book/messages?channel=wechat     every message accepted, NDJSON (also: offset, limit)
  GET  /_book/keys?channel=wechat         of each only its key and time (also: offset, limit)
  GET  /_book/seen?channel=wechat         what cardholders saw (also: recipient, offset, limit)
  POST /_faults  {{"busy":0.01}}            replaces the faults, answers with the old ones
  POST /_users   {{"openid":"o…","deed":"unfollow"}}   or follow, block, unblock, refuse, accept (template)
  POST /_expire_token                     every token is expired from now on
  POST /_reset                            empty book, fresh quotas, faults as at the start

\b
Mixes of faults:
{_MIXES_HELP}

\b
Single faults, a probability each but for the times; the same seed, message and attempt meet the same:
  busy          WeChat -1, SMS code 2      throttle       SMS code 1
  quota         WeChat 45009               bad_gateway    HTTP 502, nothing was accepted
  minute_limit  WeChat 45011               user_limit     WeChat 43117
  held          WeChat 40252 (review)      crowded        WeChat -1 while 300 wait for their answer
  unsubscribed  WeChat 43004 and
  refused       43101, by user: the same user always gets the same answer
  reset         connection reset after the message was accepted
  slow          the answer comes slow_seconds late (slow=0.01,slow_seconds=3)
  receipt_lost, receipt_twice              delivery reports
  token_seconds                            tokens die so soon, whatever was promised
  down_from, down_to                       seconds between which every call is cut off
  down_wechat, down_sms                    0: that one stays up (1 otherwise)

Prints one line, "listening on http://HOST:PORT", when it is ready, and stops on SIGTERM or SIGINT.
Nothing here is access control: keep it on the loopback interface.
"""


@click.command(name="providers", help=_HELP)
@click.option("--listen", type=_Address(), default="127.0.0.1:0", show_default=True, help="Port 0 takes any free port.")
@click.option("--appid", default=DEFAULT_APPID, show_default=True, help="The WeChat service account.")
@click.option("--secret", default=DEFAULT_SECRET.reveal(), show_default=True, help="Its secret.")
@click.option("--sms-secret", help="Bearer secret of the SMS gateway.  [default: the one of --secret]")
@click.option(
    "--faults", type=_Faults(), default=Faults(), show_default="none", help="A mix by name, NAME=P,… or MIX,NAME=P,…"
)
@click.option("--seed", default=0, show_default=True, help="The same seed gives the same faults.")
@click.option("--latency", type=click.FloatRange(0, 600), default=0.0, help="Seconds before each answer to a send.")
@click.option("--rate", type=click.FloatRange(0), default=0.0, help="WeChat sends a second before 45011; 0: no limit.")
@click.option("--daily-quota", type=click.IntRange(0), help="WeChat sends a day before 45009.  [default: no limit]")
@click.option("--template", "templates", multiple=True, help="A known template id (repeat it).  [default: any]")
@click.option("--banned-template", "banned", multiple=True, help="A template id that gets 43116 (repeat it).")
@click.option(
    "--duplicate-answer",
    type=click.Choice(["first", "new", "zero"]),
    default="first",
    show_default=True,
    help="The msgid that a client_msg_id gets again: the first one, a new one, or events name msgid 0.",
)
@click.option("--same-content", is_flag=True, help="The same words to a user within a minute get 40241.")
@click.option("--token-lifetime", type=click.IntRange(1), default=7200, show_default=True, help="Seconds.")
@click.option("--book", type=click.Path(dir_okay=False, path_type=Path), help="Append each acceptance to this file.")
@click.option("--receipts-url", help="Post WeChat's delivery events to this address.")
@click.option("--sms-receipts-url", help="Post SMS status reports to this address.")
@click.option("--receipts-token", default="simulated-token", show_default=True, help="Signs both kinds of report.")
@click.option(
    "--receipts-delay",
    type=(float, float),
    default=(0.2, 5.0),
    show_default=True,
    help="Earliest and latest, seconds.",
)
@click.option(
    "--receipts-mode",
    type=click.Choice(["plain", "compat", "safe"]),
    default="plain",
    show_default=True,
    help="WeChat's events as they are, also encrypted, or encrypted only.",
)
@click.option("--receipts-aes-key", help="The EncodingAESKey of compat and safe, 43 letters and digits.")
@click.option("--receipts-lost", type=click.FloatRange(0, 1), default=0.0, help="Probability that a report is lost.")
@click.option("--receipts-twice", type=click.FloatRange(0, 1), default=0.0, help="Probability that it comes twice.")
@click.option(
    "--receipts-status",
    type=_Weights(),
    default={"success": 1.0},
    show_default="success=1",
    help="Weights of success, user-block, system-failed, freq-limit.",
)
def providers_command(
    listen: tuple[str, int],
    appid: str,
    secret: str,
    sms_secret: str | None,
    faults: Faults,
    seed: int,
    latency: float,
    rate: float,
    daily_quota: int | None,
    templates: tuple[str, ...],
    banned: tuple[str, ...],
    duplicate_answer: DuplicateAnswer,
    same_content: bool,
    token_lifetime: int,
    book: Path | None,
    receipts_url: str | None,
    sms_receipts_url: str | None,
    receipts_token: str,
    receipts_delay: tuple[float, float],
    receipts_mode: Mode,
    receipts_aes_key: str | None,
    receipts_lost: float,
    receipts_twice: float,
    receipts_status: dict[str, float],
) -> None:
    """See ``_HELP``."""
    earliest, latest = receipts_delay
    receipts = ReceiptSettings(
        wechat_url=receipts_url,
        sms_url=sms_receipts_url,
        token=Secret(receipts_token),
        earliest_seconds=earliest,
        latest_seconds=latest,
        mode=receipts_mode,
        aes_key=None if receipts_aes_key is None else Secret(receipts_aes_key),
        lost=receipts_lost,
        duplicated=receipts_twice,
        weights=receipts_status,
    )
    _check_receipts(receipts, appid)
    settings = ProviderSettings(
        appid=appid,
        secret=Secret(secret),
        sms_secret=Secret(secret if sms_secret is None else sms_secret),
        rate_per_second=rate,
        daily_quota=daily_quota,
        template_ids=frozenset(templates),
        banned_template_ids=frozenset(banned),
        duplicate_answer=duplicate_answer,
        same_content=same_content,
        latency_seconds=latency,
        token_lifetime_seconds=token_lifetime,
        faults=faults,
        seed=seed,
        book_file=book,
        receipts=receipts if receipts_url or sms_receipts_url else None,
    )
    run_until_stopped(settings, *listen)


def _check_receipts(receipts: ReceiptSettings, appid: str) -> None:
    """Raises ``click.BadParameter`` that names the option."""
    if not 0 <= receipts.earliest_seconds <= receipts.latest_seconds:
        raise click.BadParameter("the earliest must be from 0 to the latest", param_hint="--receipts-delay")
    for url in (receipts.wechat_url, receipts.sms_url):
        try:
            if url is not None:
                Target(url)
        except ValueError as error:
            raise click.BadParameter(f"{url!r} {error}", param_hint="receipts URL") from None
    if receipts.mode != "plain":
        try:
            make_seal(receipts.aes_key, appid)
        except SettingsTextError as error:
            raise click.BadParameter(str(error), param_hint="--receipts-aes-key") from None


def run_until_stopped(settings: ProviderSettings, host: str, port: int) -> None:
    """Serve until SIGTERM or SIGINT. What the machine refuses (port, file) is one line and exit status 1."""
    if not host.startswith(_LOOPBACK):
        click.echo(f"warning: {host} can be reached from outside; anybody there can read the book", err=True)
    try:
        trio.run(_serve, settings, host, port)
    except* OSError as group:
        click.echo(f"providers: {_advice(_first(group), host, port)}", err=True)
        sys.exit(1)


async def _serve(settings: ProviderSettings, host: str, port: int) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with trio.open_nursery() as nursery:

            async def serve(task_status: trio.TaskStatus[int]) -> None:
                await serve_providers(settings, host=host, port=port, task_status=task_status)

            bound = await nursery.start(serve)
            click.echo(f"listening on http://{f'[{host}]' if ':' in host else host}:{bound}")
            sys.stdout.flush()
            async for _ in signals:
                nursery.cancel_scope.cancel()
                break


def _first(group: BaseExceptionGroup[OSError]) -> OSError:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, OSError)
    return error


def _advice(error: OSError, host: str, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"{host}:{port} is in use; choose another with --listen {host}:PORT, or port 0 for any free one"
    if isinstance(error, socket.gaierror):
        return f"there is no host {host!r}; use --listen 127.0.0.1:{port}"
    if error.filename is not None:
        return f"cannot write the book {error.filename}: {error.strerror}"
    return f"cannot listen on {host}:{port} or write the book: {error.strerror or error}"
