"""Throws bytes at the recipe reader: ``python -m tests.fuzz``. Each gives a tree or our error, nothing else.

Half of the inputs are random bytes, half are shipped recipes with a few bytes changed. The same seed throws the same
bytes, so what is found can be thrown again.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from recipe_engine.document import parse
from recipe_engine.errors import InvalidRecipe

if TYPE_CHECKING:
    from recipe_engine._positions import Syntax

RECIPES = Path(__file__).parents[2] / "recipes"
LONGEST = 96
CHUNK = 2_000
# What means something to one of the two syntaxes comes up often, everything else now and then.
TELLING = b"\"\"\"'''[]{}=:,.#\\\n\r\t -+_01eEinfatruefalse\xef\xbb\xbf\x00\xff\xed\xa0\x80"


def random_bytes(chance: random.Random) -> tuple[bytes, Syntax]:
    """Anything at all, or characters that mean something."""
    syntax: Syntax = chance.choice(("toml", "json"))
    length = chance.randrange(LONGEST)
    if chance.random() < 0.5:
        return chance.randbytes(length), syntax
    return bytes(chance.choices(TELLING, k=length)), syntax


def shipped() -> list[tuple[bytes, Syntax]]:
    """The recipes of this repository in both syntaxes, without their comments: they are long and hide nothing."""
    found: list[tuple[bytes, Syntax]] = []
    for path in sorted(RECIPES.glob("*.toml")):
        text = "\n".join(line for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith("#"))
        found.append((text.encode(), "toml"))
        found.append((json.dumps(parse(text.encode(), path.name, syntax="toml").tree).encode(), "json"))
    return found


def mutated(chance: random.Random, recipes: list[tuple[bytes, Syntax]]) -> tuple[bytes, Syntax]:
    """A part of a recipe with one to four bytes or stretches lost, doubled, swapped or replaced."""
    source, syntax = chance.choice(recipes)
    start = chance.randrange(len(source))
    text = bytearray(source[start : start + chance.randrange(2, 400)] if chance.random() < 0.8 else source)
    for _ in range(chance.randrange(1, 5)):
        at = chance.randrange(len(text) + 1)
        length = chance.choice((1, 1, 1, 2, 5, 20))
        kind = chance.randrange(4)
        if kind == 0:
            del text[at : at + length]
        elif kind == 1:
            text[at:at] = text[at : at + length]
        elif kind == 2:
            text[at : at + length] = bytes(chance.choices(TELLING, k=length))
        else:
            text[at : at + 1] = chance.randbytes(1)
    return bytes(text), syntax


def throw(chunk: int) -> list[str]:
    """Throw one chunk; a report for each input that gave anything else than a tree or our error."""
    chance, recipes = random.Random(chunk), shipped()
    makers: tuple[Callable[[], tuple[bytes, Syntax]], ...] = (
        lambda: random_bytes(chance),
        lambda: mutated(chance, recipes),
    )
    failures = []
    for number in range(CHUNK):
        source, syntax = makers[number % 2]()
        try:
            parse(source, f"fuzz.{syntax}", syntax=syntax)
        except InvalidRecipe:
            continue
        except Exception:  # noqa: BLE001 -- finding these is what it is for
            failures.append(f"{syntax} {source!r}\n{traceback.format_exc()}")
    return failures


def main() -> int:
    """Throw, and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=2_000_000, help="inputs in all")
    parser.add_argument("--first", type=int, default=0, help="first chunk; each gives other inputs")
    parser.add_argument("--processes", type=int, default=2)
    arguments = parser.parse_args()
    chunks = range(arguments.first, arguments.first + max(1, arguments.count // CHUNK))
    started, failures = time.monotonic(), 0
    with multiprocessing.Pool(arguments.processes) as pool:
        for done, found in enumerate(pool.imap_unordered(throw, chunks), 1):
            for report in found:
                print(report, file=sys.stderr)
            failures += len(found)
            if done % 50 == 0 or done == len(chunks):
                print(f"{done * CHUNK:,} inputs, {failures} failures, {time.monotonic() - started:.0f} s", flush=True)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
