"""``recipe show``."""

from __future__ import annotations

import click

from recipe_engine.cli.common import json_option, open_registry, print_json

OUTPUT_VERSION = 1


@click.command()
@click.argument("run_id", metavar="RUN", default="latest")
@json_option
def command(run_id: str, as_json: bool) -> int:
    """Show a run: its nodes, metrics before and after, samples and cost.

    RUN is an id, the beginning of one, or latest.
    """
    from recipe_engine.report.result import result_json

    record = open_registry(create=False).runs.resolve(run_id)
    result = result_json(record)
    if as_json:
        print_json({"schema_version": OUTPUT_VERSION, **result})
        return 0
    from recipe_engine.cli.display import print_result

    print_result(result)
    return 0
