"""``swipebell templates render``: what would be sent for one event."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from dispatcher.cli.common import json_option, print_json
from dispatcher.cli.templates_common import library_of, path_option, read_event, template_named
from dispatcher.errors import ConfigurationError, InputError
from templates.card import MAX_DESCRIPTION_UNITS, MAX_TITLE_UNITS, Card
from templates.errors import MissingFact, RenderError, UnknownTemplate
from templates.facts import DEFAULT_TIMEZONE, SwipeFacts
from templates.golden import Rendered, rendered
from templates.limits import MAX_SMS_UNITS, limit_of, segments, type_of
from templates.mail import MAX_SUBJECT_UNITS, MailWords
from templates.template import DEFAULT_LOCALE
from templates.text import units


@click.command()
@click.argument("name", metavar="ID")
@click.option("--event", "file", required=True, metavar="FILE|-", help="One event as JSON; - reads stdin.")
@click.option("--channel", required=True, type=click.Choice(["wechat", "sms", "email", "card"]), help="Where it goes.")
@click.option("--locale", default=DEFAULT_LOCALE, show_default=True, help="The recipient's.")
@click.option("--timezone", default=DEFAULT_TIMEZONE, show_default=True, help="The recipient's.")
@click.option("--day-total", type=int, help="The account's total of the day in minor units. Default: not known.")
@click.option("--sign", default="", help="The SMS signature in front of the text, which counts.")
@path_option
@json_option
def render(
    name: str,
    file: str,
    channel: str,
    locale: str,
    timezone: str,
    day_total: int | None,
    sign: str,
    path: Path | None,
    as_json: bool,
) -> None:
    """Render template ID (or ID@VERSION) for one event, and print what would be sent.

    Exit status: 0 rendered; 1 it cannot be, for this event; 2 no such template, channel or file.
    """
    template = template_named(library_of(path), name)
    if channel not in template.locales:
        has = ", ".join(template.locales)
        raise ConfigurationError(f"{template.path}: {template.pinned} has no {channel} part; it has {has}")
    facts = SwipeFacts(read_event(file), timezone, day_total)
    try:
        made = rendered(template, channel, locale, facts)
    except MissingFact as error:
        shape = f'add "facts": {{"{error.name}": …}} to the event'
        raise InputError(
            f"{template.pinned} needs the fact {error.name}, which {file} does not have; {shape}"
        ) from None
    except (RenderError, UnknownTemplate) as error:
        raise InputError(f"{template.pinned} cannot be rendered on {channel} for {file}: {error}") from None
    data = _as_data(made, sign)
    if as_json:
        print_json({"template": template.pinned, "channel": channel, "locale": locale, "event": facts.event.id} | data)
    else:
        _print(data)


def _as_data(made: Rendered, sign: str) -> dict[str, Any]:
    """What is sent, with its lengths in UTF-16 units and what they may be."""
    if isinstance(made, str):
        whole = f"【{sign}】{made}" if sign else made
        return {"text": whole, "units": units(whole), "limit": MAX_SMS_UNITS, "segments": segments(whole)}
    if isinstance(made, MailWords):
        subject = {"subject": made.subject, "units": units(made.subject), "limit": MAX_SUBJECT_UNITS}
        return subject | {"text": made.text, "html": made.html}
    if isinstance(made, Card):
        lengths = {"units": units(made.description), "limit": MAX_DESCRIPTION_UNITS}
        title = {"title": made.title, "title_units": units(made.title), "title_limit": MAX_TITLE_UNITS}
        return title | {"description": made.description, **lengths, "picture": made.picture, "url": made.url}
    keys = {key: field["value"] for key, field in made.items()}
    fields = [
        {"key": key, "value": value, "units": units(value), "limit": limit_of(type_of(key) or "thing", value)}
        for key, value in keys.items()
    ]
    return {"data": made, "fields": fields}


def _print(data: dict[str, Any]) -> None:
    if "fields" in data:
        width = max(len(field["key"]) for field in data["fields"])
        for field in data["fields"]:
            click.echo(f"{field['key']:<{width}}  {field['value']}  ({field['units']} of {field['limit']})")
    elif "segments" in data:
        parts = "1 part" if data["segments"] == 1 else f"{data['segments']} parts"
        click.echo(f"{data['text']}\n({data['units']} of {data['limit']} units, {parts})")
    elif "html" in data:
        click.echo(
            f"Subject: {data['subject']}  ({data['units']} of {data['limit']})\n\n{data['text']}\n\n{data['html']}"
        )
    else:
        click.echo(f"{data['title']}  ({data['title_units']} of {data['title_limit']})")
        click.echo(f"{data['description']}  ({data['units']} of {data['limit']})")
        click.echo(f"picture: {data['picture'] or '-'}\nlink: {data['url'] or '- (that of the channel)'}")
