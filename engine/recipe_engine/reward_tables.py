"""The rewards of a training as a recipe writes them: one table, or a list of tables."""

from __future__ import annotations

import typing
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from recipe_engine.options import FOLDER, FUNCTION, REWARD, Reward, RewardTable, build, fields_of, members

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from recipe_engine.descriptors import RewardSource

RECIPE = "recipe"
"""The reward source whose value is the path of another recipe."""


def tables_in(value: Any) -> Iterator[tuple[tuple[int, ...], Any]]:
    """Each table of an option ``reward`` with its place in the list; ``()`` where there is no list."""
    if isinstance(value, list):
        yield from (((position,), item) for position, item in enumerate(value))
    elif value is not None:
        yield (), value


def recipes_in(tree: Mapping[str, Any]) -> Iterator[tuple[str | int, ...]]:
    """Where a tree names recipes whose results are rewards: the paths of their keys, whatever else may be wrong."""
    trains = tree.get("train")
    for instance, table in trains.items() if isinstance(trains, Mapping) else ():
        for place, reward in tables_in(table.get(REWARD)) if isinstance(table, Mapping) else ():
            if isinstance(reward, Mapping) and isinstance(reward.get(RECIPE), str):
                yield ("train", instance, REWARD, *place, RECIPE)


def move_files(rewards: Any, moved: Callable[[str], str], is_reference: Callable[[str, str], bool]) -> None:
    """Change the paths of ``file:`` references in an option ``reward``, in place.

    Args:
        rewards: the option as it was written, whatever may be wrong with it.
        moved: from an old path to a new one.
        is_reference: whether a key with its value is a reference: a pattern may begin with ``file:`` too.
    """
    for _, reward in tables_in(rewards):
        for key, value in reward.items() if isinstance(reward, dict) else ():
            if isinstance(value, str) and value.startswith("file:") and is_reference(key, value):
                reward[key] = f"file:{moved(value.removeprefix('file:'))}"


def move_folder(table: Any, moved: Callable[[str], str]) -> None:
    """Change the path of the folder that an evaluation reads, in place.

    Args:
        table: of the evaluation, whatever may be wrong with it.
        moved: from an old path to a new one.
    """
    folder = table.get(FOLDER) if isinstance(table, dict) else None
    if isinstance(folder, str) and folder.startswith("file:"):
        table[FOLDER] = f"file:{moved(folder.removeprefix('file:'))}"


def takes_rewards(options: type[Any]) -> bool:
    """Whether a method has an option for rewards."""
    kinds = [members(field.type) for field in fields_of(options) if field.name == REWARD]
    return any(Reward in (kind, *typing.get_args(kind)) for found in kinds for kind in found)


def chosen_sources(table: Mapping[str, Any], sources: Mapping[str, RewardSource]) -> list[str]:
    """The sources that a table names: one, or there is something wrong with it.

    Args:
        table: of a reward.
        sources: what is installed.
    """
    function = table.get(FUNCTION)
    known = function if isinstance(function, str) and function in sources else None
    functions = [known] if known is not None and not sources[known].has_key else []
    return [*(name for name in table if name in sources and sources[name].has_key), *functions]


def build_reward(table: Mapping[str, Any], source: RewardSource) -> Reward:
    """A reward from its table, which holds the keys that all have and those of its source."""
    common = {field.name for field in fields_of(RewardTable)}
    own = {key: value for key, value in table.items() if key not in common and (source.has_key or key != FUNCTION)}
    options = build(source.options, own)
    reference, revision = source.source(options) or ("", None)
    given = {key: value for key, value in table.items() if key in common}
    return Reward(source.name, build(RewardTable, given), options, reference, revision, source.source_kind)


def with_rewards(table: Mapping[str, Any], options: type[Any], sources: Mapping[str, RewardSource]) -> dict[str, Any]:
    """The table of a method whose rewards are built; it was checked before.

    Args:
        table: of the method.
        options: its options dataclass.
        sources: what is installed.
    """
    if REWARD not in table or not takes_rewards(options):
        return dict(table)
    built = [
        build_reward(reward, sources[chosen_sources(reward, sources)[0]]) for _, reward in tables_in(table[REWARD])
    ]
    return {**table, REWARD: built if isinstance(table[REWARD], list) else built[0]}
