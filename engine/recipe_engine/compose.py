"""From files and the command line's overrides to the tree that is validated.

A recipe may extend another (``extends = "base.toml"``): its tables are merged into the other's, key by key, and every
key keeps the place where it was written. It may also start from the result of another recipe
(``base = { recipe = "sft.toml" }``), which is composed beside it.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recipe_engine import document
from recipe_engine.descriptors import SINGLE_STAGES
from recipe_engine.errors import InvalidRecipe, Problem, UnresolvedInput
from recipe_engine.model import PLUGIN_FILE_SUFFIX, Pinned
from recipe_engine.options import REWARD
from recipe_engine.overrides import apply_overrides
from recipe_engine.reward_tables import RECIPE, move_files, move_folder, recipes_in

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from recipe_engine.document import Document, KeyPath

NamedResultReader = Callable[[str], tuple[Path, Pinned]]
"""Reference -> the recipe of that result, and what it stands for; a ``ValueError`` says what is wrong with it."""
EXTENDS = "extends"
NAMED_RESULT = "registry:"
"""What a base begins with that is a result of the registry."""
BASE_RECIPE: KeyPath = ("model", "base", "recipe")
"""Where a recipe names the one whose result it starts from."""
_PINNED = {"model": "base", "data": "source"}
"""Table -> the key whose value its ``revision`` belongs to."""
_REWARD_FILES = ("model", "json_schema")
"""Keys of a reward that may name files."""


@dataclass(frozen=True, slots=True)
class Composition:
    """A tree, and where each of its keys was written: in a file or in an override.

    Attributes:
        layers: the file, then the one that it extends, then the one that that one extends, and so on.
        tree: their trees merged, with the overrides applied and without ``extends``.
        overrides: key path -> the override as the user typed it.
        base: the recipe whose result this one starts from, if it does.
        pinned: of a base that is a named result, what it stands for.
        rewards: where it names recipes whose results judge answers -> those recipes.
    """

    layers: tuple[Document, ...]
    tree: Mapping[str, Any]
    overrides: Mapping[KeyPath, str] = field(default_factory=dict)
    base: Composition | None = None
    pinned: Pinned | None = None
    rewards: Mapping[KeyPath, Composition] = field(default_factory=dict)

    @property
    def document(self) -> Document:
        """The file itself."""
        return self.layers[0]

    @property
    def folder(self) -> Path:
        """What relative paths in the tree are relative to."""
        return Path(self.document.file).parent

    def parts(self) -> tuple[Composition, ...]:
        """The recipes whose results this one builds on, each once and after those that it builds on, and itself."""
        others = [*([self.base] if self.base else []), *self.rewards.values()]
        found = {_identity(part.document.file): part for other in others for part in other.parts()}
        return (*found.values(), self)

    def plugin_files(self, folder: Path | None = None) -> list[Path]:
        """The single-file plugins that this recipe names, without those of its base.

        Args:
            folder: what their paths are relative to, where that is not the recipe's folder.
        """
        named = self.tree.get("plugins")
        paths = [name for name in named if isinstance(name, str)] if isinstance(named, list) else []
        return [(folder or self.folder) / path for path in paths if path.endswith(PLUGIN_FILE_SUFFIX)]

    def problem(self, path: KeyPath, message: str, hint: str = "", *, value: bool = False) -> Problem:
        """A problem at a key, or at its value; at the nearest table where the key itself is not there.

        The message is made a sentence: a hint may follow it.
        """
        sentence = message if message.endswith(".") else f"{message}."
        for length in range(len(path), 0, -1):
            typed = self._typed(path[:length])
            if typed:
                return Problem(f"--set {typed}", 0, 0, document.dotted(path), sentence, hint)
        return self._layer(path).problem(path, sentence, hint, at="value" if value else "key")

    def place(self, path: KeyPath) -> str:
        """Where a key stands, for a message about another one: ``r.toml:14:1``."""
        there = self.problem(path, "")
        return f"{there.file}:{there.line}:{there.column}" if there.line else there.file

    def _typed(self, path: KeyPath) -> str:
        """The override that gave what is at ``path``, or that made the table there; ``""`` where a file did."""
        if path in self.overrides or any(path in layer.keys for layer in self.layers):
            return self.overrides.get(path, "")
        return next((typed for key, typed in self.overrides.items() if key[: len(path)] == path), "")

    def _layer(self, path: KeyPath) -> Document:
        """The file that wrote the key; of its nearest table where nobody wrote the key."""
        for length in range(len(path), 0, -1):
            for layer in self.layers:
                if path[:length] in layer.keys:
                    return layer
        return self.document


def compose(
    path: Path | str, overrides: Sequence[str] = (), named_result: NamedResultReader | None = None
) -> Composition:
    """Read a recipe with all that it is made of, and apply ``key=value`` overrides in their order.

    Args:
        path: the file.
        overrides: ``key=value`` each.
        named_result: gives the recipe behind ``registry:name:version``, and what it is pinned to. Without, such a base
            is a problem of the recipe.

    Raises:
        InvalidRecipe: where a file or an override cannot be read, or recipes refer to each other in a circle.
        UnresolvedInput: where there is no such file.
    """
    found = document.read(path)
    return _compose(found, overrides, (found.file,), named_result)


def apply(found: Document, overrides: Sequence[str]) -> Composition:
    """Apply overrides to a document that was read already."""
    return _compose(found, overrides, (found.file,))


def _compose(
    found: Document,
    overrides: Sequence[str],
    users: tuple[str, ...],
    named_result: NamedResultReader | None = None,
) -> Composition:
    layers = _layers(found)
    tree: dict[str, Any] = {}
    for layer in reversed(layers):
        own = copy.deepcopy(layer.tree)
        own.pop(EXTENDS, None)
        if layer is not found:
            _anchor(own, Path(layer.file).parent, Path(found.file).parent)
        tree = _merged(tree, own)
    places = apply_overrides(tree, overrides)
    composition = Composition(layers, tree, places)
    base = _named_base(composition, named_result) or _base(composition, users, named_result)
    rewards = {path: _other(composition, path, users, named_result) for path in recipes_in(tree)}
    return replace(composition, base=base, rewards=rewards)


def _layers(found: Document) -> tuple[Document, ...]:
    layers = [found]
    while EXTENDS in layers[-1].tree:
        layers.append(_extended(layers))
    return tuple(layers)


def _extended(layers: Sequence[Document]) -> Document:
    """The file that the last layer extends."""
    last = layers[-1]
    name = last.tree[EXTENDS]

    def problem(message: str, hint: str) -> Problem:
        return last.problem((EXTENDS,), message, hint, at="value")

    if not isinstance(name, str) or not name:
        raise InvalidRecipe([problem("expected the path of a recipe.", 'Such as extends = "base.toml".')])
    return _read(Path(last.file).parent / name, [layer.file for layer in layers], problem)


def _named_base(composition: Composition, named_result: NamedResultReader | None) -> Composition | None:
    """The recipe of a named result, with the artifacts that it is pinned to."""
    table = composition.tree.get("model")
    reference = table.get("base") if isinstance(table, dict) else None
    if named_result is None or not isinstance(reference, str) or not reference.startswith(NAMED_RESULT):
        return None
    try:
        path, pinned = named_result(reference)
    except ValueError as error:
        raise InvalidRecipe([composition.problem(("model", "base"), str(error), value=True)]) from None
    return replace(_compose(document.read(path), (), (str(path),), named_result), pinned=pinned)


def _base(composition: Composition, users: Sequence[str], named_result: NamedResultReader | None) -> Composition | None:
    """The recipe whose result this one starts from; whatever else stands there is for the validation."""
    name: Any = composition.tree
    for part in BASE_RECIPE:
        name = name.get(part) if isinstance(name, dict) else None
    if not isinstance(name, str) or not name:
        return None
    return _other(composition, BASE_RECIPE, users, named_result)


def _other(
    composition: Composition, path: KeyPath, users: Sequence[str], named_result: NamedResultReader | None
) -> Composition:
    """The recipe that another one names at a path."""
    found = _read(
        composition.folder / _at(composition.tree, path),
        users,
        lambda message, hint: composition.problem(path, message, hint, value=True),
    )
    return _compose(found, (), (*users, found.file), named_result)


def _read(path: Path, users: Sequence[str], problem: Callable[[str, str], Problem]) -> Document:
    """Read a recipe that another one names.

    Args:
        path: the file.
        users: the files that led here, each naming the next.
        problem: makes a problem, with a message and a hint, of the place where it is named.

    Raises:
        InvalidRecipe: where there is no such file, it is no recipe, or it led here.
    """
    seen = [_identity(user) for user in users]
    if _identity(path) in seen:
        circle = " -> ".join([*users[seen.index(_identity(path)) :], str(path)])
        raise InvalidRecipe([problem(f"the recipes refer to each other in a circle: {circle}.", "")])
    try:
        return document.read(path)
    except UnresolvedInput as error:
        raise InvalidRecipe([problem(error.message, "The path is relative to the file that names it.")]) from None


def _identity(path: Path | str) -> str:
    return os.path.realpath(path)


def _anchor(tree: dict[str, Any], written_in: Path, read_from: Path) -> None:
    """Make relative paths of a file relative to another folder: that of the recipe that extends it."""
    if _identity(written_in) == _identity(read_from):
        return

    def moved(path: str) -> str:
        return path if path.startswith(("/", "~")) else os.path.relpath(written_in / path, read_from)

    for name, key in _PINNED.items():
        tables = [tree.get(name)] if name == "model" else _values(tree.get(name))
        for table in tables:
            if not isinstance(table, dict):
                continue
            reference = table.get(key)
            if isinstance(reference, str) and reference.startswith("file:"):
                table[key] = f"file:{moved(reference.removeprefix('file:'))}"
            elif isinstance(reference, dict) and isinstance(reference.get("recipe"), str):
                reference["recipe"] = moved(reference["recipe"])
    for table in _values(tree.get("evaluate")):
        move_folder(table, moved)
    _anchor_rewards(tree, moved)
    plugins = tree.get("plugins")
    if isinstance(plugins, list):
        tree["plugins"] = [
            moved(item) if isinstance(item, str) and item.endswith(PLUGIN_FILE_SUFFIX) else item for item in plugins
        ]


def _anchor_rewards(tree: Mapping[str, Any], moved: Callable[[str], str]) -> None:
    for path in recipes_in(tree):
        reward = _at(tree, path[:-1])
        reward[RECIPE] = moved(reward[RECIPE])
    for table in _values(tree.get("train")):
        rewards = table.get(REWARD) if isinstance(table, dict) else None
        move_files(rewards, moved, lambda key, _: key in _REWARD_FILES)


def _at(tree: Any, path: KeyPath) -> Any:
    """What stands at a path."""
    for part in path:
        tree = tree[part]
    return tree


def _values(table: Any) -> list[Any]:
    return list(table.values()) if isinstance(table, dict) else []


def _merged(below: Mapping[str, Any], above: Mapping[str, Any], path: KeyPath = ()) -> dict[str, Any]:
    """Tables are merged, anything else is replaced; so is a table that stands for another thing."""
    merged = dict(below)
    for key, value in above.items():
        before, here = merged.get(key), (*path, key)
        if isinstance(before, dict) and isinstance(value, dict) and not _stands_for_another(here, before, value):
            merged[key] = _merged(before, value, here)
        else:
            merged[key] = value
    pinned = _PINNED.get(str(path[0]), "") if path else ""
    if pinned in above and above[pinned] != below.get(pinned) and "revision" not in above:
        merged.pop("revision", None)
    return merged


def _stands_for_another(path: KeyPath, before: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Whether a table names another method than the one below it, whose options say nothing of its own."""
    if len(path) == 1:
        return path[0] in SINGLE_STAGES and not before.keys() & now.keys()
    if len(path) == 3 and path[2] == REWARD:
        return True
    return len(path) == 2 and "method" in now and now["method"] != before.get("method", path[1])
