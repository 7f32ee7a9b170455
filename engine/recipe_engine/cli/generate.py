"""``recipe generate``."""

from __future__ import annotations

import sys

import click

from recipe_engine.cli.common import find_run, open_registry, open_run_recipe, printable


@click.command()
@click.argument("run_id", metavar="RUN", default="latest")
@click.option("--prompt", required=True, help="What to answer; - reads it from standard input.")
@click.option("--max-new-tokens", type=click.IntRange(1), default=256, show_default=True, help="Where it is cut.")
@click.option(
    "--temperature",
    type=click.FloatRange(0),
    default=0.0,
    show_default=True,
    help="0 is the most likely answer.",
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="For a temperature above 0.")
@click.option("--base", is_flag=True, help="Ask the base model instead, to compare.")
def command(run_id: str, prompt: str, max_new_tokens: int, temperature: float, seed: int, base: bool) -> int:
    """Answer a prompt with the model of a run, as it is written.

    RUN is an id, the beginning of one, or latest. The prompt is put into the same template as in training.
    """
    from recipe_engine.generate import Generation, generate

    text = _question(prompt)
    registry = open_registry(create=False)
    record = find_run(registry, run_id)
    recipe, catalogue = open_run_recipe(registry, record)
    settings = Generation(question=text, max_new_tokens=max_new_tokens, temperature=temperature, seed=seed, base=base)
    generate(record, recipe, catalogue, registry, settings, lambda piece: click.echo(printable(piece), nl=False))
    click.echo()
    return 0


def _question(prompt: str) -> str:
    """The prompt as it was given, or what stands in standard input.

    Raises:
        InvalidArguments: where it is not UTF-8.
    """
    from recipe_engine.errors import InvalidArguments

    try:
        # Python keeps bytes of an argument that are no text as halves of surrogate pairs: encoding finds them.
        given = sys.stdin.buffer.read() if prompt == "-" else prompt.encode()
        return given.decode()
    except UnicodeError:
        raise InvalidArguments("The prompt is not UTF-8.", "Convert it, for example with iconv.") from None
