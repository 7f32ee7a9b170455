"""A recipe as a graph of nodes: finer than its stages, so that each is computed once and reused alone."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from recipe_engine.judges import judges_of
from recipe_engine.model import MODEL, WEIGHTS, WHOLE, StageTable, without_limit
from recipe_engine.options import folder_of, non_default, to_table
from recipe_engine.relations import adapters_below, gives_adapter, loads_encoder, whole_base
from recipe_engine.training.reading import reading_packages

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from recipe_engine.descriptors import Determinism, Method, ModelKind, Requirement
    from recipe_engine.model import DataSet, Recipe, StageContainer
    from recipe_engine.plugins import Catalogue, Registered

GATE = "gate"
"""The node that judges what was measured; its role among the inputs of a push, which it hands nothing."""
_TOKENIZER_REVISION = 1
# Added to the format's own, as both only rise: what is done with any format's text.
_PREPARE_REVISION = 1
RESUMED_STAGES = frozenset({"train"})
"""Stages that go on where they were stopped: what they write into their work area outlives the run."""
METRICS_FILE = "metrics.json"
"""In every artifact: the node's metrics."""
TOKENIZER = "tokenizer"
"""A stage, the last part of its node's name, and its role among the inputs of others."""
MODEL_PACKAGES = ("peft", "torch", "transformers")
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


def build_graph(recipe: Recipe, catalogue: Catalogue) -> tuple[Node, ...]:
    """The nodes of a recipe, each after those that it builds on.

    A recipe that this one starts from, or whose result judges its answers, is trained first, under its own name
    (``sft/train``), without its evaluations and pushes. Its nodes have the keys that they have in a run of their own.
    What several of them build on is there once. An adapter is put on what the recipe loads; a whole model is loaded in
    place of a source.
    """
    nodes = [Node(id="resolve", stage="resolve", instance="resolve", method="sources", on_host=True)]
    parts = [_Part(part, recipe, catalogue) for part in recipe.parts()]
    nodes += {node.id: node for node in (part.tokenizer() for part in reversed(parts))}.values()
    nodes += [node for part in parts for node in part.prepared(every=part is parts[-1])]
    nodes += [node for part in parts[:-1] for node in part.trained(evaluated=False)]
    nodes += parts[-1].trained(evaluated=True)
    return _pinned(_placed((*nodes, *parts[-1].published()), recipe), recipe.pinned_nodes())


def _placed(nodes: tuple[Node, ...], recipe: Recipe) -> tuple[Node, ...]:
    """The nodes with their containers: each part of a recipe has those that it has alone."""
    tables = {part.name if part is not recipe else "": part.container for part in recipe.parts()}
    return tuple(
        replace(node, container=table.of_stage(node.stage))
        if (table := tables[node.id.rpartition("/")[0]]) is not None and not node.on_host
        else node
        for node in nodes
    )


def _pinned(nodes: tuple[Node, ...], pinned: Mapping[str, str]) -> tuple[Node, ...]:
    """The nodes that are left where artifacts of some are given."""
    if not pinned:
        return nodes
    given = tuple(
        replace(node, pinned=pinned[node.id], inputs={}, consumes=False) if node.id in pinned else node
        for node in nodes
    )
    return needed_for(given, frozenset(node.id for node in nodes if "/" not in node.id))


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


class _Part:
    """The nodes of one recipe: of the run's own, or of one that it builds on.

    Args:
        recipe: the recipe.
        run: the run's own.
        catalogue: what is installed.
    """

    def __init__(self, recipe: Recipe, run: Recipe, catalogue: Catalogue) -> None:
        self._tokens = _new_tokens(recipe, catalogue)
        self._recipe = recipe
        self._catalogue = catalogue
        self._prefix = "" if recipe is run else f"{recipe.name}/"
        self._whole = whole_base(recipe, catalogue)
        self._model = f"{run.model_prefix(recipe)}{MODEL}"
        self._tokenizer = f"{run.model_prefix(recipe)}{TOKENIZER}"
        self._reads_pairs = loads_encoder(recipe, catalogue)
        self._judged_in_text = any(loads_encoder(other, catalogue) for other in recipe.rewards.values())

    def tokenizer(self) -> Node:
        """The tokenizer of the model that it starts from: the same for all that start from one."""
        stage = "EncoderTokenizerStage" if self._reads_pairs else "TokenizerStage"
        return Node(
            id=self._tokenizer,
            stage=TOKENIZER,
            instance=TOKENIZER,
            method=TOKENIZER,
            implementation=f"recipe_engine.methods.prepare:{stage}",
            options=self._tokens,
            changed_options=self._tokens,
            source=self._model,
            revision=_TOKENIZER_REVISION,
            packages=_TOKENIZER_PACKAGES,
        )

    def prepared(self, *, every: bool) -> list[Node]:
        """A node for each data set, or for those that the training reads; one more for rows of any length."""
        recipe, nodes = self._recipe, []
        readers = recipe.stages() if every else (recipe.train,)
        read = {name for table in readers if table for name in self._data(table).values()}
        for data in recipe.data.values():
            whole = without_limit(data)
            if data.name in read or (every and whole.name not in read):
                nodes.append(self._prepare(data))
            if whole.name in read:
                nodes.append(self._prepare(whole))
        return nodes

    def trained(self, *, evaluated: bool) -> list[Node]:
        """From the base model to the trained one; with the evaluations of both, or without."""
        recipe, nodes = self._recipe, []
        model = ""
        if recipe.load is not None:
            nodes.append(self._load(recipe.load))
            nodes += self._extension()
            nodes += self._attached(nodes[-1].id)
            model = nodes[-1].id
            nodes += self._evaluations("base", model) if evaluated else []
        if recipe.adapt is not None:
            inputs = {"model": model} | ({TOKENIZER: self._tokenizer} if self._tokens else {})
            nodes.append(self._stage(recipe.adapt, "adapt", inputs=inputs, consumes=True))
        if recipe.train is not None:
            nodes.append(self._stage(recipe.train, "train", inputs={"model": nodes[-1].id}, consumes=True))
            nodes += self._evaluations("result", nodes[-1].id) if evaluated else []
        return nodes

    def _load(self, table: StageTable) -> Node:
        """Loads the model of the source, or what a recipe trained whole."""
        if self._whole is None:
            return self._stage(table, "load", source=self._model)
        return self._stage(table, "load", inputs={WEIGHTS: f"{self._whole.name}/train"})

    def published(self) -> list[Node]:
        """The pushes, and the merge that some of them want."""
        pushes = self._recipe.push
        gated = {GATE: GATE} if self._recipe.gates else {}
        payloads = {table.instance: self._method(table).payload(table.options) for table in pushes}
        nodes = [_merge()] if "merged" in payloads.values() else []
        nodes += self._gate()
        for table in pushes:
            inputs = {"adapter": "merge" if payloads[table.instance] == "merged" else "train"} | gated
            nodes.append(self._stage(table, f"push.{table.instance}", inputs=inputs, on_host=True))
        return nodes

    def _gate(self) -> list[Node]:
        """The judgement of what was measured, where the recipe has rules for it."""
        instances = sorted({gate.instance for gate in self._recipe.gates})
        sides = {f"{name}.{side}": f"evaluate.{name}@{side}" for name in instances for side in ("base", "result")}
        gate = Node(id=GATE, stage=GATE, instance=GATE, method="rules", inputs=sides, on_host=True)
        return [gate] if instances else []

    def _extension(self) -> list[Node]:
        """Rows for the new tokens, where there are some; a whole model has them."""
        if not self._tokens or self._whole is not None:
            return []
        return [
            Node(
                id=f"{self._prefix}extend",
                stage="extend",
                instance="extend",
                method="tokens",
                implementation="recipe_engine.methods.extend:ExtendStage",
                inputs={"model": f"{self._prefix}load", TOKENIZER: self._tokenizer},
                consumes=True,
                packages=MODEL_PACKAGES,
            )
        ]

    def _attached(self, below: str) -> list[Node]:
        """The adapters of the recipes below this one, frozen, one on top of the other."""
        nodes: list[Node] = []
        for base in adapters_below(self._recipe, self._catalogue):
            below = nodes[-1].id if nodes else below
            nodes.append(
                Node(
                    id=f"{self._prefix}attach.{base.name}",
                    stage="attach",
                    instance=base.name,
                    method="adapter",
                    implementation="recipe_engine.methods.attach:AttachStage",
                    inputs={"model": below, "adapter": f"{base.name}/train"},
                    consumes=True,
                    packages=MODEL_PACKAGES,
                )
            )
        return nodes

    def _prepare(self, data: DataSet) -> Node:
        registered = self._catalogue.formats[data.table.format]
        kind = registered.descriptor.kind
        is_plain = (self._reads_pairs and kind == "preference") or (self._judged_in_text and kind == "prompt")
        plain = {"plain": True} if is_plain else {}
        return Node(
            id=f"{self._prefix}prepare.{data.name}",
            stage="prepare",
            instance=data.name.removesuffix(WHOLE),
            method=data.table.format,
            implementation=f"recipe_engine.methods.prepare:{'PreparePlainStage' if plain else 'PrepareStage'}",
            options=data.to_table(),
            changed_options={**non_default(data.table), **non_default(data.format_options), **plain},
            source=f"{self._prefix}data.{data.name.removesuffix(WHOLE)}",
            inputs={TOKENIZER: self._tokenizer},
            revision=registered.descriptor.revision + _PREPARE_REVISION,
            packages=(*_TOKENIZER_PACKAGES, *reading_packages(data.table.source)),
            **_plugin(registered),
        )

    def _evaluations(self, side: str, model: str) -> list[Node]:
        """The evaluations of a model, each after the answers that it measures; equal answers are given once."""
        nodes: dict[str, Node] = {}
        for table in self._evaluated(side):
            wanted = self._method(table).answers(table.options)
            inputs = {"model": model}
            if wanted is not None:
                answers = self._answers(wanted, side, model)
                nodes.setdefault(answers.id, answers)
                inputs = {"answers": answers.id}
            if side == "result" and self._method(table).compares:
                inputs["before"] = f"{self._prefix}evaluate.{table.instance}@base"
            source = f"evaluate.{table.instance}" if folder_of(table.options) else ""
            node = self._stage(table, f"evaluate.{table.instance}@{side}", inputs=inputs, source=source)
            nodes[node.id] = node
        return list(nodes.values())

    def _evaluated(self, side: str) -> list[StageTable]:
        """The evaluations of a side: one that measures reward models alone has no base to measure."""
        kind = self._loaded_kind() if side == "base" else None
        takes = [(table, self._method(table).takes) for table in self._recipe.evaluate]
        return [table for table, kinds in takes if kind is None or kinds is None or kind in kinds]

    def _loaded_kind(self) -> ModelKind | None:
        """The kind of the model that the training starts from; ``None`` where its method does not say."""
        assert self._recipe.load is not None  # or there were no evaluations
        below = gives_adapter(self._recipe.base, self._catalogue)
        return "adapter" if below else self._method(self._recipe.load).gives

    def _answers(self, wanted: Any, side: str, model: str) -> Node:
        name = f"{wanted.data}-{wanted.max_new_tokens}x{wanted.batch_size}"
        table = StageTable("evaluate", name, "answers", wanted)
        return self._stage(table, f"answers.{name}@{side}", inputs={"model": model})

    def _stage(self, table: StageTable, node_id: str, **given: Any) -> Node:
        method = self._method(table)
        inputs = dict(given.pop("inputs", {}))
        if "answers" not in inputs:
            inputs.update(self._reads(table))
        judges = judges_of(table, self._recipe, self._catalogue, self._prefix)
        requires = method.requires_for(table.options)
        more = [requirement.package for requirement in requires]
        return Node(
            id=f"{self._prefix}{node_id}",
            stage=table.stage,
            instance=table.instance,
            method=table.method,
            implementation=method.implementation,
            options=to_table(table.options),
            changed_options=judges.changed_options(table.options),
            inputs=inputs | judges.inputs,
            sources=judges.sources,
            reward_sources=tuple(judges.names),
            reward_plugins=judges.plugins,
            revision=method.revision,
            seeded=method.seeded,
            seed=node_seed(self._recipe.top.seed, node_id),
            requires=requires,
            determinism=method.determinism_for(table.options),
            packages=tuple(dict.fromkeys([*method.packages, *more, *judges.packages])),
            **_plugin(self._catalogue.methods[table.stage, table.method]),
            **given,
        )

    def _reads(self, table: StageTable) -> dict[str, str]:
        """The tokenizer and the data sets of a stage, by role."""
        tokenizer = {TOKENIZER: self._tokenizer} if table.stage not in ("load", "adapt") else {}
        data = {f"data.{role}": f"{self._prefix}prepare.{name}" for role, name in self._data(table).items()}
        return tokenizer | data

    def _data(self, table: StageTable) -> dict[str, str]:
        """Role -> name of the data set that a stage reads, marked where its rows have any length."""
        method = self._method(table)
        mark = WHOLE if method.whole_rows(table.options) else ""
        return {role: f"{name}{mark}" for role, name in method.data(table.options).items()}

    def _method(self, table: StageTable) -> Method:
        return self._catalogue.methods[table.stage, table.method].descriptor


def _new_tokens(recipe: Recipe, catalogue: Catalogue) -> dict[str, list[str]]:
    """What the first recipe of the lineage adds to the tokenizer, as an option; nothing where it adds none."""
    adapt = recipe.lineage()[0].adapt
    tokens = catalogue.methods["adapt", adapt.method].descriptor.new_tokens(adapt.options) if adapt else ()
    return {"new_tokens": list(tokens)} if tokens else {}


def _merge() -> Node:
    return Node(
        id="merge",
        stage="merge",
        instance="merge",
        method="merge",
        implementation="recipe_engine.methods.merge:MergeStage",
        inputs={"model": "train", "tokenizer": "tokenizer"},
        packages=MODEL_PACKAGES,
    )


def node_seed(seed: int, name: str) -> int:
    """A node's own seed; an evaluation has the same before and after training.

    32 bits: what every generator takes.

    Args:
        seed: the recipe's.
        name: of the node within its recipe.
    """
    name = name.partition("@")[0]
    return int.from_bytes(hashlib.sha256(f"{seed}:{name}".encode()).digest()[:4], "big")


def _plugin(registered: Registered[Any]) -> dict[str, Any]:
    """What tells the code of a plugin from any other; nothing for built-in methods."""
    if not registered.plugin:
        return {}
    return {"distribution": registered.distribution, "plugin_sha256": registered.sha256}
