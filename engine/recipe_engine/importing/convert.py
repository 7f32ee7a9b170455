"""From a configuration file to a recipe that is valid here, and the list of what it does not say."""

from __future__ import annotations

import importlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recipe_engine.compose import apply
from recipe_engine.document import parse
from recipe_engine.errors import InvalidRecipe, Problem
from recipe_engine.importing.job import Job, Lost, Peer
from recipe_engine.importing.yaml_tree import read_yaml
from recipe_engine.model import name_from
from recipe_engine.rewrite import formatted
from recipe_engine.toml_text import to_toml
from recipe_engine.validate import validate

if TYPE_CHECKING:
    from recipe_engine.plugins import Catalogue

PEERS = ("axolotl", "llamafactory", "trl")
_ORDER = ("model", "data", "load", "adapt", "train", "evaluate", "push")
_NEEDED = re.compile(r"model\.base|data\.\w+\.(source|format)|\w+|\w+\.\w+")
"""Paths that a recipe cannot do without: whole tables, and what says which model and which rows."""
_FILE = "recipe.toml"
_PLACE = re.compile(rf" at {re.escape(_FILE)}(:\d+)*")


@dataclass(frozen=True, slots=True)
class Imported:
    """A recipe, and what of the configuration it does not say.

    Attributes:
        text: of the recipe, in TOML, with the list as comments at its end.
        lost: in the order of the file.
    """

    text: str
    lost: tuple[Lost, ...]


def import_config(peer: str, file: str, catalogue: Catalogue, folder: Path) -> Imported:
    """Make a recipe of another program's configuration.

    Args:
        peer: one of :data:`PEERS`.
        file: the configuration.
        catalogue: what is installed: the recipe names nothing else.
        folder: where the recipe will stand.

    Raises:
        UnresolvedInput: where there is no such file.
        InvalidRecipe: where it is no configuration of that program, or of another kind of job; the places are its own.
    """
    program: Peer = importlib.import_module(f"recipe_engine.importing.{peer}").PEER
    job = Job(read_yaml(file), program, catalogue, folder)
    program.fill(job)
    if job.problems:
        raise InvalidRecipe(job.problems)
    job.lose_the_rest()
    tree = _tree(job, Path(file).stem)
    _settle(tree, job)
    lost = tuple(sorted(set(job.lost)))
    return Imported(_text(tree, lost, program, file), lost)


def _tree(job: Job, name: str) -> dict[str, Any]:
    """The tables in the order in which people read them."""
    top = {
        "version": 1,
        "name": name_from(name) or "imported",
        **{key: value for key, value in job.recipe.items() if key not in _ORDER},
    }
    job.recipe.setdefault("push", {}).setdefault("folder", {})
    return top | {key: job.recipe[key] for key in _ORDER if key in job.recipe}


def _settle(tree: dict[str, Any], job: Job) -> None:
    """Leave out what this installation refuses, one option after the other, until the recipe is valid.

    Raises:
        InvalidRecipe: where what is refused cannot be left out.
    """
    while problems := _problems(tree, job.catalogue):
        problem = next((problem for problem in problems if _is_optional(problem, job)), None)
        if problem is None:
            raise InvalidRecipe([_at_home(found, job) for found in problems])
        path = problem.path.partition("[")[0]
        job.lose(job.origins[path], f"{path}: {_message(problem)}")
        _remove(tree, path)


def _problems(tree: dict[str, Any], catalogue: Catalogue) -> tuple[Problem, ...]:
    try:
        validate(apply(parse(to_toml(tree).encode(), _FILE, syntax="toml"), ()), catalogue)
    except InvalidRecipe as refused:
        return refused.problems
    return ()


def _is_optional(problem: Problem, job: Job) -> bool:
    path = problem.path.partition("[")[0]
    return (path in job.origins and not _NEEDED.fullmatch(path)) or (path == "seed" and path in job.origins)


def _at_home(problem: Problem, job: Job) -> Problem:
    """The problem at the setting that it comes from."""
    path = problem.path.partition("[")[0]
    while path and path not in job.origins:
        path = path.rpartition(".")[0]
    key = job.origins.get(path, "")
    return job.tree.problem((key,) if key else (), f"{problem.path}: {_message(problem)}.", problem.hint)


def _message(problem: Problem) -> str:
    """Half a sentence, without places in a recipe that nobody has seen."""
    return _PLACE.sub("", problem.message).removesuffix(".")


def _remove(tree: dict[str, Any], path: str) -> None:
    *tables, name = path.split(".")
    table = tree
    for part in tables:
        table = table[part]
    del table[name]


def _text(tree: dict[str, Any], lost: tuple[Lost, ...], peer: Peer, file: str) -> str:
    lines = [f"# From {_printable(Path(file).name)}, a configuration of {peer.name}.", to_toml(tree).rstrip("\n"), ""]
    if lost:
        lines.append(f"# What {_printable(Path(file).name)} says besides, and this recipe does not:")
        lines += [f"#   {described(item)}" for item in lost]
    text = "\n".join(lines).rstrip("\n") + "\n"
    return formatted(parse(text.encode(), _FILE, syntax="toml")).decode()


def described(item: Lost) -> str:
    """One line for people."""
    place = f"line {item.line}" if item.line else "default"
    return _printable(f"{place}: {item.key}: {item.reason}")


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
