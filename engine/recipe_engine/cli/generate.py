"""``recipe generate``."""

from __future__ import annotations

import sys

import click

from recipe_engine.cli.common import (
    answer_options,
    find_run,
    open_registry,
    open_run_recipe,
    printable,
    utf8,
)


@click.command()
@click.argument("run_id", metavar="RUN", default="latest")
@click.option("--prompt", required=True, help="What to answer; - reads it from standard input.")
@answer_options
@click.option("--base", is_flag=True, help="Ask the base model instead, to compare.")
def command(run_id: str, prompt: str, max_new_tokens: int, temperature: float, seed: int, base: bool) -> int:
    """Answer a prompt with the model of a run, as it is written.

    RUN is an id, the beginning of one, or latest. The prompt is put into the same template as in training.
    """
    from recipe_engine.errors import Interrupted
    from recipe_engine.generate import Answers, Generation

    # Python keeps bytes of an argument that are no text as halves of surrogate pairs: encoding finds them.
    text = utf8(sys.stdin.buffer.read() if prompt == "-" else prompt, "The prompt")
    registry = open_registry(create=False)
    record = find_run(registry, run_id)
    recipe, catalogue = open_run_recipe(registry, record)
    settings = Generation(max_new_tokens=max_new_tokens, temperature=temperature, seed=seed)
    with Answers(record, recipe, catalogue, registry) as answers:
        whole = answers.answer(
            [{"role": "user", "content": text}],
            settings,
            lambda piece: click.echo(printable(piece), nl=False),
            base=base,
        )
    click.echo()
    if not whole:
        raise Interrupted("stopped.")
    return 0
