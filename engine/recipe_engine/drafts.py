"""A recipe whose tables are valid one by one: what the rules between tables look at, and what they find."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from recipe_engine.descriptors import STAGES
from recipe_engine.gates import Gate
from recipe_engine.options import REWARD, rewards_of
from recipe_engine.reward_tables import RECIPE, tables_in

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from recipe_engine.descriptors import Method
    from recipe_engine.document import KeyPath
    from recipe_engine.model import ContainerTable, DataSet, ModelTable, Recipe, StageTable, TopTable
    from recipe_engine.options import Reward
    from recipe_engine.plugins import Catalogue


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A recipe as far as its tables are valid.

    Attributes:
        tree: all of it, as it was written.
        top: the keys before the first table.
        model: the table.
        data: the valid data sets.
        stages: the valid stage tables, in the order in which they run.
        container: the table.
        folder: what relative paths are relative to.
        base: the recipe whose result this one starts from.
        rewards: where it names recipes whose results judge answers -> those that are valid.
        rules: those of ``[gate]`` that can be read, by the names that they are written under.
    """

    tree: Mapping[str, Any]
    top: TopTable | None
    model: ModelTable | None
    data: Mapping[str, DataSet]
    stages: tuple[StageTable, ...]
    container: ContainerTable | None
    folder: Path
    base: Recipe | None
    rewards: Mapping[KeyPath, Recipe]
    rules: Mapping[str, str]

    def gates(self) -> tuple[Gate, ...]:
        """The rules of ``[gate]``; an instance alone stands for the metric that has its method's name."""
        methods = {table.instance: table.method for table in self.stages if table.stage == "evaluate"}
        return tuple(
            Gate(name, name if "." in name else f"{name}.{methods.get(name, name)}", rule)
            for name, rule in self.rules.items()
        )

    def rewards_of(self, table: StageTable) -> Iterator[tuple[KeyPath, Reward]]:
        """The rewards of a stage, and where the table of each stands."""
        rewards = rewards_of(table.options)
        written = tables_in(self.tree[table.stage][table.instance][REWARD]) if rewards else ()
        for (place, _), reward in zip(written, rewards, strict=True):
            yield (table.stage, table.instance, REWARD, *place), reward

    def reward_recipes(self) -> dict[str, Recipe]:
        """The recipes that judge answers, by the names of their rewards."""
        found = [(reward.name, (*path, RECIPE)) for table in self.stages for path, reward in self.rewards_of(table)]
        return {name: self.rewards[path] for name, path in found if path in self.rewards}

    def has(self, stage: str) -> bool:
        """Whether there is a table of that stage, valid or not."""
        return bool(self.tree.get(stage))

    @property
    def is_whole(self) -> bool:
        """Whether every stage table is valid, so that what none of them says is not said at all."""
        tables = [self.tree.get(stage, {}) for stage in STAGES]
        return len(self.stages) == sum(len(table) if isinstance(table, dict) else 1 for table in tables)


@dataclass(frozen=True, slots=True)
class Finding:
    """A broken rule.

    Attributes:
        path: the key that breaks it.
        other: the key that it does not agree with; empty where there is none.
    """

    path: KeyPath
    message: str
    hint: str = ""
    other: KeyPath = ()


def method_of(table: StageTable, catalogue: Catalogue) -> Method:
    """What a stage table uses."""
    return catalogue.methods[table.stage, table.method].descriptor
