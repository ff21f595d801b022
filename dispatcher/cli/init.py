"""``swipebell init``: an annotated configuration to start from."""

from __future__ import annotations

from pathlib import Path

import click

from dispatcher.starter import write_starter


@click.command()
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--force", is_flag=True, help="Overwrite files that are there already.")
def init(directory: Path, force: bool) -> None:
    """Write an annotated swipebell.toml, rules.toml and a template into DIR."""
    for path in write_starter(directory, force=force):
        click.echo(f"wrote {path}")
    click.echo(f"next: put the WeChat secret into {directory / 'secrets'}, fill in [channels.wechat], then")
    click.echo(f"      swipebell run --config {directory / 'swipebell.toml'}")
