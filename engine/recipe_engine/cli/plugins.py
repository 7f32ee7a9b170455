"""``recipe plugins``."""

from __future__ import annotations

import re

import click

from recipe_engine.cli.common import json_option, print_json

OUTPUT_VERSION = 1


@click.command()
@json_option
def command(as_json: bool) -> int:
    """List what is installed: the plugins, and the methods, sources, formats and rewards that each brings."""
    from recipe_engine.plugins import load_catalogue

    plugins = load_catalogue().plugins
    if as_json:
        listed = [
            {
                "name": plugin.name,
                "distribution": plugin.distribution,
                "version": plugin.version,
                "provides": [_provided_json(provided) for provided in plugin.provides],
                "error": plugin.error or None,
            }
            for plugin in plugins
        ]
        print_json({"schema_version": OUTPUT_VERSION, "plugins": listed})
        return 0
    for plugin in plugins:
        click.secho(f"{plugin.distribution} {plugin.version}", bold=True)
        if plugin.error:
            click.secho(f"  not loaded: {plugin.error}", fg="yellow")
        for provided in plugin.provides:
            click.echo(f"  {provided}")
    return 0


def _provided_json(provided: str) -> dict[str, str]:
    """``train.sft`` and ``source file`` in two parts each."""
    kind, name = re.split("[. ]", provided, maxsplit=1)
    return {"kind": kind, "name": name}
