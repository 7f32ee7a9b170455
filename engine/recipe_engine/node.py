"""A node of a recipe's graph: what is computed at once, once, and reused alone."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from recipe_engine.model import MODEL, WEIGHTS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from recipe_engine.descriptors import Determinism, Requirement
    from recipe_engine.model import StageContainer

GATE = "gate"
"""The node that judges what was measured; its role among the inputs of a push, which it hands nothing."""
METRICS_FILE = "metrics.json"
"""In every artifact: the node's metrics."""
RESUMED_STAGES = frozenset({"train"})
"""Stages that go on where they were stopped: what they write into their work area outlives the run."""
TOKENIZER = "tokenizer"
"""A stage, the last part of its node's name, and its role among the inputs of others."""


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
        source: the source that it reads: ``model``, ``data.<name>`` or ``evaluate.<instance>``; ``""`` for none.
        sources: role -> further sources that it reads: those of rewards.
        inputs: role -> node whose artifact it builds on.
        consumes: whether the live model that it gets is changed, so that nobody else can use it afterwards.
        distribution: of the plugin that brought the method; ``""`` for built-in ones.
        plugin_sha256: of that plugin, where it is a single file.
        reward_sources: names of the reward sources that judge its answers.
        reward_plugins: distribution of each plugin whose rewards judge its answers -> its sha256, as above.
        decided: those of its options that say ``auto`` -> what they stand for here; its options have that too.
        requires: packages that its options need besides those of its method.
        determinism: what two runs of its key have in common, where that depends on its options.
        seed: of its own, derived from the recipe's.
        pinned: digest of its artifact, where a named result of the registry gives it: it is never computed.
        on_host: whether it runs in the engine's own process: sources and pushes.
        container: what it runs in; ``None`` for a process of this machine.
    """

    id: str
    stage: str
    instance: str
    method: str
    implementation: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    changed_options: Mapping[str, Any] = field(default_factory=dict)
    source: str = ""
    sources: Mapping[str, str] = field(default_factory=dict)
    inputs: Mapping[str, str] = field(default_factory=dict)
    consumes: bool = False
    revision: int = 1
    seeded: bool = False
    packages: tuple[str, ...] = ()
    distribution: str = ""
    plugin_sha256: str = ""
    reward_sources: tuple[str, ...] = ()
    reward_plugins: Mapping[str, str] = field(default_factory=dict)
    decided: Mapping[str, Any] = field(default_factory=dict)
    requires: tuple[Requirement, ...] = ()
    determinism: Determinism | None = None
    seed: int = 0
    pinned: str = ""
    on_host: bool = False
    container: StageContainer | None = None

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
            "sources": dict(self.sources),
            "consumes": self.consumes,
            "seed": self.seed,
        }

    @property
    def name(self) -> str:
        """The id within its own recipe: without the name of a recipe that the run's recipe builds on."""
        return self.id.rpartition("/")[2]


def node_seed(seed: int, name: str) -> int:
    """A node's own seed; an evaluation has the same before and after training.

    32 bits: what every generator takes.

    Args:
        seed: the recipe's.
        name: of the node within its recipe.
    """
    name = name.partition("@")[0]
    return int.from_bytes(hashlib.sha256(f"{seed}:{name}".encode()).digest()[:4], "big")


def model_holders(nodes: Iterable[Node]) -> list[str]:
    """The nodes whose artifacts may hold the files of a recipe's model, first those that are never quantized."""
    loads = [node for node in nodes if node.stage == "load" and node.source in ("", MODEL)]
    trained = [node.inputs[WEIGHTS] for node in loads if WEIGHTS in node.inputs]
    return list(dict.fromkeys([*trained, "load", *(node.id for node in loads)]))


def needed_for(nodes: tuple[Node, ...], targets: frozenset[str]) -> tuple[Node, ...]:
    """Those nodes that the targets build on, and the targets; the order is kept."""
    wanted = set(targets)
    for node in reversed(nodes):
        if node.id in wanted:
            wanted.update(node.inputs.values())
            if node.source or node.sources or node.pinned:
                wanted.add("resolve")
    return tuple(node for node in nodes if node.id in wanted)
