"""A recipe as a graph of nodes: finer than its stages, so that each is computed once and reused alone."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from recipe_engine.options import non_default, to_table

if TYPE_CHECKING:
    from collections.abc import Mapping

    from recipe_engine.descriptors import Method
    from recipe_engine.model import DataSet, Recipe, StageTable
    from recipe_engine.plugins import Catalogue

_TOKENIZER_REVISION = 1
_TOKENIZER_PACKAGES = ("tokenizers", "transformers")


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One unit of work.

    Attributes:
        id: such as ``load``, ``prepare.train``, ``evaluate.exact_match@result``.
        stage: ``resolve``, ``tokenizer``, ``prepare``, or a stage of the recipe.
        instance: the table's name in the recipe.
        method: what it uses.
        implementation: ``package.module:Class``.
        options: all of them, as a table.
        changed_options: those that differ from their default; they enter the key.
        source: the source that it reads: ``model`` or ``data.<name>``; ``""`` for none.
        inputs: role -> node whose artifact it builds on.
        consumes: whether the live model that it gets is changed, so that nobody else can use it afterwards.
        distribution: of the plugin that brought the method; ``""`` for built-in ones.
        on_host: whether it runs in the engine's own process: sources and pushes.
    """

    id: str
    stage: str
    instance: str
    method: str
    implementation: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    changed_options: Mapping[str, Any] = field(default_factory=dict)
    source: str = ""
    inputs: Mapping[str, str] = field(default_factory=dict)
    consumes: bool = False
    revision: int = 1
    seeded: bool = False
    packages: tuple[str, ...] = ()
    distribution: str = ""
    on_host: bool = False

    def to_json(self) -> dict[str, Any]:
        """What a worker is told of the node."""
        return {
            "id": self.id,
            "stage": self.stage,
            "method": self.method,
            "options": dict(self.options),
            "inputs": dict(self.inputs),
            "implementation": self.implementation,
            "source": self.source,
            "consumes": self.consumes,
        }


def build_graph(recipe: Recipe, catalogue: Catalogue) -> tuple[Node, ...]:
    """The nodes of a recipe, each after those that it builds on."""
    nodes = [
        Node(id="resolve", stage="resolve", instance="resolve", method="sources", on_host=True),
        Node(
            id="tokenizer",
            stage="tokenizer",
            instance="tokenizer",
            method="tokenizer",
            implementation="recipe_engine.methods.prepare:TokenizerStage",
            source="model",
            revision=_TOKENIZER_REVISION,
            packages=_TOKENIZER_PACKAGES,
        ),
        *(_prepare(data, catalogue) for data in recipe.data.values()),
    ]
    if recipe.load is not None:
        nodes.append(_stage(recipe.load, catalogue, "load", source="model"))
    nodes += [_evaluation(table, catalogue, "base", "load") for table in recipe.evaluate]
    if recipe.adapt is not None:
        nodes.append(_stage(recipe.adapt, catalogue, "adapt", inputs={"model": "load"}, consumes=True))
    if recipe.train is not None:
        nodes.append(_stage(recipe.train, catalogue, "train", inputs={"model": "adapt"}, consumes=True))
        nodes += [_evaluation(table, catalogue, "result", "train") for table in recipe.evaluate]
    for table in recipe.push:
        node_id = f"push.{table.instance}"
        nodes.append(_stage(table, catalogue, node_id, inputs={"adapter": "train"}, on_host=True))
    return tuple(nodes)


def needed_for(nodes: tuple[Node, ...], targets: frozenset[str]) -> tuple[Node, ...]:
    """Those nodes that the targets build on, and the targets; the order is kept."""
    wanted = set(targets)
    for node in reversed(nodes):
        if node.id in wanted:
            wanted.update(node.inputs.values())
            if node.source:
                wanted.add("resolve")
    return tuple(node for node in nodes if node.id in wanted)


def _prepare(data: DataSet, catalogue: Catalogue) -> Node:
    registered = catalogue.formats[data.table.format]
    return Node(
        id=f"prepare.{data.name}",
        stage="prepare",
        instance=data.name,
        method=data.table.format,
        implementation="recipe_engine.methods.prepare:PrepareStage",
        options=data.to_table(),
        changed_options={**non_default(data.table), **non_default(data.format_options)},
        source=f"data.{data.name}",
        inputs={"tokenizer": "tokenizer"},
        revision=registered.descriptor.revision,
        packages=_TOKENIZER_PACKAGES,
        distribution=_distribution(registered.distribution),
    )


def _evaluation(table: StageTable, catalogue: Catalogue, suffix: str, model: str) -> Node:
    return _stage(table, catalogue, f"evaluate.{table.instance}@{suffix}", inputs={"model": model})


def _stage(table: StageTable, catalogue: Catalogue, node_id: str, **given: Any) -> Node:
    registered = catalogue.methods[table.stage, table.method]
    method: Method = registered.descriptor
    inputs = dict(given.pop("inputs", {}))
    if table.stage not in ("load", "adapt"):
        inputs["tokenizer"] = "tokenizer"
    for role, data_set in method.data(table.options).items():
        inputs[f"data.{role}"] = f"prepare.{data_set}"
    return Node(
        id=node_id,
        stage=table.stage,
        instance=table.instance,
        method=table.method,
        implementation=method.implementation,
        options=to_table(table.options),
        changed_options=non_default(table.options),
        inputs=inputs,
        revision=method.revision,
        seeded=method.seeded,
        packages=method.packages,
        distribution=_distribution(registered.distribution),
        **given,
    )


def _distribution(name: str) -> str:
    from recipe_engine.plugins import BUILTIN

    return "" if name == BUILTIN else name
