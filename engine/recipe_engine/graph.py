"""A recipe as a graph of nodes: finer than its stages, so that each is computed once and reused alone."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from recipe_engine.judges import judges_of
from recipe_engine.model import MODEL, WEIGHTS, WHOLE, StageTable, without_limit
from recipe_engine.node import GATE, TOKENIZER, Node, needed_for, node_seed
from recipe_engine.options import folder_of, non_default, to_table
from recipe_engine.relations import adapters_below, gives_adapter, loads_encoder, whole_base
from recipe_engine.training.reading import reading_packages

if TYPE_CHECKING:
    from collections.abc import Mapping

    from recipe_engine.descriptors import Method, ModelKind
    from recipe_engine.model import DataSet, Recipe
    from recipe_engine.plugins import Catalogue, Registered

_TOKENIZER_REVISION = 1
# Added to the format's own, as both only rise: what is done with any format's text.
_PREPARE_REVISION = 1
MODEL_PACKAGES = ("peft", "torch", "transformers")
_TOKENIZER_PACKAGES = ("tokenizers", "transformers")


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


def _plugin(registered: Registered[Any]) -> dict[str, Any]:
    """What tells the code of a plugin from any other; nothing for built-in methods."""
    if not registered.plugin:
        return {}
    return {"distribution": registered.distribution, "plugin_sha256": registered.sha256}
