"""A configuration on its way to a recipe: what was read, what was written, and what had no counterpart."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from recipe_engine.document import dotted

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from recipe_engine.document import KeyPath
    from recipe_engine.errors import Problem
    from recipe_engine.importing.yaml_tree import YamlTree
    from recipe_engine.plugins import Catalogue

T = TypeVar("T")
NO_COUNTERPART = "it has no counterpart"
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")


@dataclass(frozen=True, slots=True, order=True)
class Lost:
    """A setting that the recipe does not have, or not quite.

    Attributes:
        line: 1-based; 0 for a default of the other program, which the file does not spell.
        key: dotted.
        reason: half a sentence: why, or what is taken instead.
    """

    line: int
    key: str
    reason: str


@dataclass(frozen=True, slots=True)
class Peer:
    """Another fine-tuning program.

    Attributes:
        name: as people call it.
        defaults: what it takes for a setting that its file leaves out, where a recipe would take something else.
        neutral: setting -> values with which it changes nothing that a recipe could say.
        reasons: setting -> why it has no counterpart, where there is more to say.
        fill: writes the recipe.
    """

    name: str
    defaults: Mapping[str, Any]
    neutral: Mapping[str, tuple[Any, ...]]
    reasons: Mapping[str, str]
    fill: Callable[[Job], None]


@dataclass(slots=True)
class Job:
    """One import.

    Attributes:
        tree: the configuration.
        peer: whose it is.
        catalogue: what is installed.
        folder: where the recipe will stand; relative paths of the configuration start in the current folder.
        recipe: the tables written so far.
        origins: dotted path in the recipe -> the setting that gave it.
        lost: what the recipe does not say.
        problems: what is wrong in the configuration itself.
    """

    tree: YamlTree
    peer: Peer
    catalogue: Catalogue
    folder: Path
    recipe: dict[str, Any] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)
    lost: list[Lost] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    _read: set[str] = field(default_factory=set)

    def given(self, key: str) -> bool:
        """Whether the file itself says something there."""
        return self.tree.values.get(key) is not None

    def get(self, key: str, read: Callable[[Any], T]) -> T | None:
        """A setting, or the other program's default; ``None`` where neither says anything or the value is wrong.

        Args:
            key: of the configuration's top level.
            read: takes the value; a ``ValueError`` of its becomes a problem at the key.
        """
        self._read.add(key)
        value = self.tree.values.get(key)
        value = self.peer.defaults.get(key) if value is None else value
        return None if value is None else self.checked((key,), value, read)

    def checked(self, path: KeyPath, value: Any, read: Callable[[Any], T]) -> T | None:
        """A value as ``read`` takes it; ``None``, and a problem, where it does not."""
        try:
            return read(value)
        except ValueError as error:
            self.problem(path, str(error))
            return None

    def put(self, path: str, value: Any, key: str) -> None:
        """Write an option of the recipe.

        Args:
            path: dotted, such as ``adapt.lora.rank``.
            value: ``None`` writes nothing.
            key: the setting that it comes from.
        """
        if value is None:
            return
        *tables, name = path.split(".")
        table = self.recipe
        for part in tables:
            table = table.setdefault(part, {})
        table[name] = value
        self.origins[path] = key

    def take(self, key: str, path: str, read: Callable[[Any], Any]) -> None:
        """A setting that is one option of the recipe."""
        self.put(path, self.get(key, read), key)

    def table(self, path: str, key: str) -> None:
        """Make sure of a table, which may stay empty."""
        stage, name = path.split(".")
        self.recipe.setdefault(stage, {}).setdefault(name, {})
        self.origins.setdefault(path, key)

    def lose(self, key: str, reason: str = NO_COUNTERPART, path: KeyPath = ()) -> None:
        """Note what the recipe does not say.

        Args:
            key: the setting.
            reason: why.
            path: what stands below the setting, where only a part of it is lost.
        """
        self._read.add(key)
        self.lost.append(Lost(self.tree.place((key, *path))[0], dotted((key, *path)), reason))

    def problem(self, path: KeyPath, message: str, hint: str = "") -> None:
        """Note what is wrong with a setting."""
        self.problems.append(self.tree.problem(path, message, hint))

    def lose_the_rest(self) -> None:
        """Every setting that nobody read, but those that change nothing."""
        for key, value in self.tree.values.items():
            if key not in self._read and value is not None and value not in self.peer.neutral.get(key, ()):
                self.lose(key, self.peer.reasons.get(key, NO_COUNTERPART))


def text(value: Any) -> str:
    """Text that is not empty."""
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"expected text, found {_shown(value)}.")
    return value


def whole(value: Any) -> int:
    """A whole number; YAML 1.1 reads 1e3 as text."""
    found = number(value)
    if found != int(found):
        raise ValueError(f"expected a whole number, found {_shown(value)}.")
    return int(found)


def number(value: Any) -> float:
    """A number; YAML 1.1 reads 2e-4 as text."""
    if isinstance(value, str) and _NUMBER.fullmatch(value.strip()):
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e300:
        raise ValueError(f"expected a number, found {_shown(value)}.")
    return value


def flag(value: Any) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise ValueError(f"expected true or false, found {_shown(value)}.")
    return value


def words(value: Any) -> list[str]:
    """A list of names, or one text with commas between them."""
    items = value.split(",") if isinstance(value, str) else value
    if not isinstance(items, list) or not items or not all(isinstance(item, str) and item.strip() for item in items):
        raise ValueError(f"expected a list of names, found {_shown(value)}.")
    return [item.strip() for item in items]


def anything(value: Any) -> Any:
    """The value as it is."""
    return value


def _shown(value: Any) -> str:
    if isinstance(value, dict | list):
        return "a mapping" if isinstance(value, dict) else "a list"
    shown = repr(value)
    return shown if len(shown) <= 60 else f"{shown[:60]}…"
