"""What tells two runs apart: recipe, sources, environment, keys, metrics, losses and times."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from recipe_engine.keys import Change, differences
from recipe_engine.report.result import head_json
from recipe_engine.reward_tables import recipes_in

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from recipe_engine.model import Recipe
    from recipe_engine.recorded import Recorded


def diff(one: Recorded, other: Recorded, recipes: tuple[Recipe, Recipe]) -> dict[str, Any]:
    """The differences of two runs, in the form that ``diff --json`` prints (``docs/json.md``).

    Args:
        one: the first run.
        other: the second.
        recipes: of both, as they were run.
    """
    before, after = one.record, other.record
    old, new = (recipe_tree(recipe) for recipe in recipes)
    return {
        "first": head_json(before),
        "second": head_json(after),
        "recipe": [change.to_json() for change in leaf_changes(old, new)],
        "sources": list(_sources(before.inputs, after.inputs)),
        "environment": [change.to_json() for change in leaf_changes(before.environment, after.environment)],
        "keys": list(_keys(one, other)),
        "metrics": list(_metrics(before.metrics, after.metrics)),
        "losses": list(_losses(one, other)),
        "times": list(_times(one, other)),
    }


def recipe_tree(recipe: Recipe) -> dict[str, Any]:
    """A recipe with every default; one whose unnamed result it starts from is its table ``base``."""
    tree = recipe.to_table()
    if recipe.base is not None and recipe.base.pinned:
        tree["model"]["base"] = recipe.base.pinned.reference
    elif recipe.base is not None:
        del tree["model"]["base"]  # where that recipe was kept
        tree["base"] = recipe_tree(recipe.base)
    if recipe.rewards:
        tree["rewards"] = {name: recipe_tree(other) for name, other in recipe.rewards.items()}
        for path in list(recipes_in(tree)):
            _without(tree, path)
    return tree


def _without(tree: dict[str, Any], path: Sequence[str | int]) -> None:
    table: Any = tree
    for part in path[:-1]:
        table = table[part]
    del table[path[-1]]


def leaf_changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[Change]:
    """The values that differ; a table that only one of the trees has is told value by value."""
    before, after = dict(_leaves(old)), dict(_leaves(new))
    for path in sorted({*before, *after}):
        if before.get(path) != after.get(path):
            yield Change(path, before.get(path), after.get(path))


def _leaves(tree: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, (*path, name))
        else:
            yield (*path, name), value


def _sources(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The references, and the files by their sha256, that are not the same in both."""
    for name in dict.fromkeys([*before, *after]):
        old, new = (_contents(inputs.get(name)) for inputs in (before, after))
        for file in dict.fromkeys([*old, *new]):
            if old.get(file) != new.get(file):
                yield {"source": name, "file": file, "before": old.get(file), "after": new.get(file)}


def _contents(source: Mapping[str, Any] | None) -> dict[str | None, str]:
    """File -> its sha256; ``None`` -> the reference."""
    if source is None:
        return {}
    return {None: source["reference"], **{file["path"]: file["sha256"] for file in source["files"]}}


def _keys(one: Recorded, other: Recorded) -> Iterator[dict[str, Any]]:
    """The nodes that have another key, or another artifact, or that only one of the runs came to."""
    for node in _nodes(one, other):
        keys = [run.nodes.get(node, {}).get("key") for run in (one, other)]
        digests = [run.digest(node) or None for run in (one, other)]
        if keys[0] == keys[1] and digests[0] == digests[1]:
            continue
        yield {
            "node": node,
            "first": {"key": keys[0], "artifact": digests[0]},
            "second": {"key": keys[1], "artifact": digests[1]},
            "why": _why(one, other, node, same=keys[0] == keys[1]),
        }


def _why(one: Recorded, other: Recorded, node: str, *, same: bool) -> list[str]:
    if node not in one.nodes or node not in other.nodes:
        return [f"only the {'first' if node in one.nodes else 'second'} run came to it"]
    if same:
        return ["the same key gave another result"]
    before, after = one.components(node), other.components(node)
    if before is None or after is None:
        return ["what its key was made of is not known any more"]
    return list(differences(before, after))


def _metrics(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for name in dict.fromkeys([*before, *after]):
        yield {"name": name, "first": dict(before.get(name, {})), "second": dict(after.get(name, {}))}


def _losses(one: Recorded, other: Recorded) -> Iterator[dict[str, Any]]:
    """The courses of the losses of the trainings that both runs came to."""
    for node in _nodes(one, other):
        before, after = (_curve(run, node) for run in (one, other))
        if not before or not after:
            continue
        apart = {
            step: abs(before[step] - after[step]) for step in before if before[step] != after.get(step, before[step])
        }
        largest = max(apart, key=apart.__getitem__, default=None)
        yield {
            "node": node,
            "first": _end(before),
            "second": _end(after),
            "first_difference": min(apart, default=None),
            "largest_difference": {"step": largest, "loss": apart[largest]} if largest is not None else None,
        }


def _curve(run: Recorded, node: str) -> dict[int, float]:
    """Step -> its loss."""
    trace = run.trace(node) if node in run.nodes else None
    return {int(entry["step"]): entry["loss"] for entry in trace or () if "loss" in entry}


def _end(curve: Mapping[int, float]) -> dict[str, Any]:
    last = max(curve)
    return {"steps": last, "loss": curve[last]}


def _times(one: Recorded, other: Recorded) -> Iterator[dict[str, Any]]:
    """Wall time of each node, ``None`` where it was not computed."""
    for node in _nodes(one, other):
        seconds = [_seconds(run.nodes.get(node)) for run in (one, other)]
        if seconds != [None, None]:
            yield {"node": node, "first": seconds[0], "second": seconds[1]}


def _seconds(node: Mapping[str, Any] | None) -> float | None:
    return node["seconds"] if node and node["status"] == "ran" else None


def _nodes(one: Recorded, other: Recorded) -> Sequence[str]:
    """Of both runs, in the order of the first."""
    return list(dict.fromkeys([*one.nodes, *other.nodes]))
