"""What a run would do, node by node, and why."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from recipe_engine.decisions import is_undecided, on_device, on_model, part_of
from recipe_engine.decisions import told as decisions_told
from recipe_engine.errors import UnresolvedInput
from recipe_engine.estimate.fitting import device_memory, estimates, outlook, told
from recipe_engine.graph import build_graph
from recipe_engine.images import known_images
from recipe_engine.keys import SOURCE_CHANGED, differences, key_components, key_of, source_digest
from recipe_engine.lock import NO_PINS, Hardware, Resolution, peek
from recipe_engine.model import MODEL, WEIGHTS
from recipe_engine.node import GATE, METRICS_FILE, Node, model_holders
from recipe_engine.options import REWARD
from recipe_engine.outline import check_device, check_model, check_ready, check_requirements, outline_of, settled
from recipe_engine.reuse import AnyEnvironment, made_with
from recipe_engine.rowchange import changed_rows
from recipe_registry import MissingArtifact

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from recipe_containers import ImageFacts
    from recipe_engine.contract import ModelOutline, ResolvedSource
    from recipe_engine.estimate.fitting import Outlook
    from recipe_engine.lockfile import Lock
    from recipe_engine.model import Recipe
    from recipe_engine.plugins import Catalogue
    from recipe_registry import Artifact, Registry

State = Literal["cached", "will run", "depends on", "unknown"]
MAX_DIFFERENCES = 3
_EACH_TIME = {
    "push": "a push is compared with its target each time",
    GATE: "what was measured is judged each time",
}


@dataclass(frozen=True, slots=True)
class PlannedNode:
    """A node and what would become of it.

    Attributes:
        state: ``cached``, ``will run``, ``depends on`` (a node that will run decides) or ``unknown`` (an input's
            digest is not known without the network).
        why: in words.
        key: ``sha256:…``; ``""`` where it cannot be known yet. Of a result from another environment, its own.
        artifact: its digest, where it is cached.
        settled: what of its way of working follows from the model: name -> value.
    """

    node: Node
    state: State
    why: str
    key: str = ""
    artifact: str = ""
    settled: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The form that ``plan --json`` prints; what cannot be known is ``null``."""
        return {
            "id": self.node.id,
            "stage": self.node.stage,
            "instance": self.node.instance,
            "method": self.node.method,
            "state": self.state,
            "why": self.why,
            "settled": dict(self.settled),
            "key": self.key or None,
            "artifact": {"digest": self.artifact} if self.artifact else None,
        }


def make_plan(
    recipe: Recipe,
    catalogue: Catalogue,
    registry: Registry,
    hardware: Hardware,
    lock: Lock | None = None,
    *,
    any_environment: bool = False,
) -> list[PlannedNode]:
    """Look at every node, in order. Nothing is fetched, run or written.

    Args:
        recipe: the recipe.
        catalogue: what is installed.
        registry: has the artifacts; nothing is written into it.
        hardware: the machine.
        lock: the recipe's, where it has one.
        any_environment: take results that were made with other packages, on other hardware or in another image too.

    Raises:
        UnfitEnvironment: where a package is not installed that a method needs, a method does not run on the device, or
            does not find what it needs besides, such as a token.
        InvalidRecipe: where the options of a method do not fit the model.
    """
    check_requirements(recipe, catalogue, build_graph(recipe, catalogue))
    planner, planned = _looked_at(recipe, catalogue, registry, hardware, lock, any_environment=any_environment)
    outline = planner.outline(_artifacts(planned))
    others = planner.other_outlines()
    check_model(recipe, catalogue, outline, others)
    known = settled(recipe, catalogue, outline, others)
    there = device_memory(recipe, hardware.device)
    memory = told(estimates(recipe, catalogue, outline, prepared(registry, planned.values()), there, hardware.device))
    made = _artifacts(planned)
    return [
        replace(node, settled={**known.get(name, {}), **planner.decisions(node.node, made), **memory.get(name, {})})
        for name, node in planned.items()
    ]


def planned_outlook(
    recipe: Recipe, catalogue: Catalogue, registry: Registry, hardware: Hardware, lock: Lock | None
) -> Outlook:
    """How much memory the recipe needs; see :func:`make_plan`."""
    planner, planned = _looked_at(recipe, catalogue, registry, hardware, lock, any_environment=False)
    there = device_memory(recipe, hardware.device)
    ready = prepared(registry, planned.values())
    return outlook(recipe, catalogue, planner.outline(_artifacts(planned)), ready, there, hardware.device)


def prepared(registry: Registry, planned: Iterable[PlannedNode]) -> dict[str, Mapping[str, float]]:
    """Metrics of the data that is prepared already: node -> name -> number."""
    return {
        node.node.id: json.loads((registry.artifacts.get(node.artifact).path / METRICS_FILE).read_bytes())
        for node in planned
        if node.node.stage == "prepare" and node.artifact
    }


def _artifacts(planned: Mapping[str, PlannedNode]) -> dict[str, str]:
    return {name: earlier.artifact for name, earlier in planned.items()}


def _looked_at(
    recipe: Recipe,
    catalogue: Catalogue,
    registry: Registry,
    hardware: Hardware,
    lock: Lock | None,
    *,
    any_environment: bool,
) -> tuple[Planner, dict[str, PlannedNode]]:
    check_device(recipe, catalogue, hardware.device)
    nodes = on_device(build_graph(recipe, catalogue), recipe, hardware)
    check_ready(recipe, catalogue, nodes)
    resolution = peek(recipe, catalogue, registry.sources, lock.pins if lock else NO_PINS)
    resolution = replace(resolution, images=known_images(nodes, lock))
    planner = Planner(recipe, registry, hardware, resolution, nodes)
    if any_environment:
        planner.elsewhere = AnyEnvironment(registry, keep=False)
    planned: dict[str, PlannedNode] = {}
    for node in nodes:
        planned[node.id] = _planned(node, planner, planned, resolution)
    return planner, planned


def _planned(node: Node, planner: Planner, planned: Mapping[str, PlannedNode], resolution: Resolution) -> PlannedNode:
    if node.stage == "resolve":
        if resolution.is_local:
            return PlannedNode(node, "cached", "every input is on this machine")
        what = "an image is not locked" if None in resolution.images.values() else "an input must be fetched"
        return PlannedNode(node, "will run", what)
    if node.pinned:
        return _given(node, planner)
    waiting = [source for source in node.inputs.values() if planned[source].state != "cached"]
    unknown = [source for source in waiting if planned[source].state == "unknown"]
    unlocked = unknown[0] if unknown else planner.unlocked(node)
    if unlocked:
        return PlannedNode(node, "unknown", f"{unlocked} is not locked")
    if planner.waits_for_files(node):
        waiting.append("resolve")
    if waiting:
        return PlannedNode(node, "depends on", waiting[0])
    if node.stage in _EACH_TIME:
        return PlannedNode(node, "will run", _EACH_TIME[node.stage])
    made = _artifacts(planned)
    node = planner.decided(node, made)
    key, components = planner.key(node, made)
    record = planner.registry.artifacts.lookup(key)
    if record is not None:
        return PlannedNode(node, "cached", f"made by run {record.run}", key, record.artifact)
    record = planner.elsewhere.find(components) if planner.elsewhere else None
    if record is not None:
        why = f"made by run {record.run} with {made_with(record.components, components)}"
        return PlannedNode(node, "cached", why, record.key, record.artifact)
    return PlannedNode(node, "will run", planner.why(node, components), key)


def _given(node: Node, planner: Planner) -> PlannedNode:
    """A node whose artifact a named result gives.

    Raises:
        UnresolvedInput: where the registry has it no more.
    """
    artifact = planner.given(node)
    return PlannedNode(node, "cached", "a named result of the registry", "", artifact.digest)


class Planner:
    """Keys and reasons for the nodes of one recipe; the plan and the run both ask it, so they cannot disagree.

    Attributes:
        elsewhere: results of other environments, where they are taken too.
    """

    def __init__(
        self,
        recipe: Recipe,
        registry: Registry,
        hardware: Hardware,
        resolution: Resolution,
        nodes: Sequence[Node],
    ) -> None:
        self._nodes = {node.id: node for node in nodes}
        self.recipe = recipe
        self.registry = registry
        self.hardware = hardware
        self.resolution = resolution
        self.elsewhere: AnyEnvironment | None = None
        self._previous: dict[str, list[str]] | None = None

    def unlocked(self, node: Node) -> str:
        """What the node needs and whose digest is not known: its source or its image; ``""`` for nothing."""
        for source in filter(None, (node.source, *node.sources.values())):
            if source not in self.resolution.known():
                return source
        return "its image" if node.container is not None and self.image(node) is None else ""

    def image(self, node: Node) -> ImageFacts | None:
        """What is known of the image that a node runs in."""
        reference = node.container.image if node.container is not None else None
        return self.resolution.images.get(reference) if reference is not None else None

    def waits_for_files(self, node: Node) -> bool:
        """Whether files of the model that are not here decide what the node's options mean."""
        model = self.resolution.sources[f"{self.recipe.model_prefix(part_of(node, self.recipe))}{MODEL}"]
        return is_undecided(node, self.recipe) and (model is None or not model.is_local)

    def decided(self, node: Node, artifacts: Mapping[str, str]) -> Node:
        """The node with what its options that say ``auto`` stand for, as far as the model's files tell.

        Args:
            node: a node that :meth:`waits_for_files` no more.
            artifacts: digest of the artifact of each node before it; ``""`` where it has none yet.
        """
        if not is_undecided(node, self.recipe):
            return node
        return on_model(node, self.recipe, self.hardware.device, self.outline(artifacts))

    def decisions(self, node: Node, artifacts: Mapping[str, str]) -> dict[str, str]:
        """What :meth:`decided` and the device decide of a node, in words; arguments as there."""
        return {} if self.waits_for_files(node) else decisions_told(self.decided(node, artifacts), self.recipe)

    def key(self, node: Node, artifacts: Mapping[str, str]) -> tuple[str, dict[str, Any]]:
        """The node's key and its readable components.

        Args:
            node: a node whose source is known, and whose options are :meth:`decided`.
            artifacts: digest of the artifact of each node before it.
        """
        inputs: dict[str, Any] = {role: artifacts[source] for role, source in node.inputs.items()}
        if "model" in inputs:
            # An adapter's bytes do not tell what it was trained on: a model is all of the nodes that made it.
            inputs["model"] = {made.name: artifacts[made.id] for made in self._makers(node)}
        for role, trained in node.inputs.items():
            if role.startswith(f"{REWARD}."):
                made_by = (self._nodes[trained], *self._makers(self._nodes[trained]))
                inputs[role] = [artifacts[made.id] for made in made_by]
        source = self._source(node)
        if source is not None:
            inputs["source"] = source_digest(source, weights=node.stage != "tokenizer")
        for role, name in node.sources.items():
            inputs[role] = source_digest(self.resolution.known()[name])
        image = self.image(node)
        components = key_components(node, inputs, self.hardware, image.content if image else "")
        if node.stage in ("adapt", "train"):
            components["base"] = self._base(node, artifacts)
        return key_of(components), components

    def given(self, node: Node) -> Artifact:
        """The artifact that a named result gives.

        Raises:
            UnresolvedInput: where the registry does not hold it.
        """
        try:
            return self.registry.artifacts.get(node.pinned)
        except MissingArtifact:
            raise UnresolvedInput(
                f"{node.id}: the registry does not hold {node.pinned}, which the named result stands for.",
                "Fetch it with: recipe registry pull",
            ) from None

    def outline(self, artifacts: Mapping[str, str] = MappingProxyType({})) -> ModelOutline:
        """What is known of the model without loading it.

        Args:
            artifacts: digests of the artifacts that there are, by node; some tell of models whose source is no
                safetensors.
        """
        files = [file.local for file in self.resolution.model.files] if self.resolution.model else []
        found = outline_of(file for file in files if file is not None)
        for name in model_holders(self._nodes.values()):
            if not found.tensors and artifacts.get(name):
                found = outline_of(self.registry.artifacts.get(artifacts[name]).path.iterdir())
        return found

    def other_outlines(self) -> dict[str, ModelOutline]:
        """What is known of the models that judges start from: what the names of their nodes begin with -> outline."""
        files = {
            name.removesuffix(MODEL): [file.local for file in source.files if file.local is not None]
            for name, source in self.resolution.known().items()
            if name.endswith(f"/{MODEL}")
        }
        return {prefix: outline_of(found) for prefix, found in files.items()}

    def why(self, node: Node, components: Mapping[str, Any]) -> str:
        """Why there is no artifact for these components: what changed since the recipe's last run."""
        if self._previous is None:
            self._previous = _previous_keys(self.registry, self.recipe.name)
        keys = self._previous.get(node.id, [])
        if not keys:
            return "never run"
        before = next(filter(None, map(self.registry.artifacts.lookup, keys)), None)
        if before is None or key_of(components) in keys:
            return "its artifact is gone"
        changes = [self._told(node, before.components, change) for change in differences(before.components, components)]
        more = f" and {len(changes) - MAX_DIFFERENCES} more" if len(changes) > MAX_DIFFERENCES else ""
        return ", ".join(changes[:MAX_DIFFERENCES]) + more

    def _told(self, node: Node, before: Mapping[str, Any], change: str) -> str:
        """A change of a source with the rows that changed, where that can be known."""
        source = self._source(node)
        former = before["inputs"].get("source")
        if change != SOURCE_CHANGED or source is None or former is None:
            return change
        rows = changed_rows(self.registry.home, former, source)
        return f"{node.source}: {rows}" if rows else f"{node.source} changed"

    def _makers(self, node: Node) -> Iterator[Node]:
        """The nodes that made the model that a node gets, the last first."""
        while "model" in node.inputs:
            node = self._nodes[node.inputs["model"]]
            yield node

    def _base(self, node: Node, artifacts: Mapping[str, str]) -> str:
        """What a node's adapter calls the model that it works on: a whole one that a recipe made, by its digest."""
        *_, load = self._makers(node)
        trained = load.inputs.get(WEIGHTS)
        return artifacts[trained] if trained else base_names(self.recipe, self.resolution)[load.source]

    def _source(self, node: Node) -> ResolvedSource | None:
        return self.resolution.known().get(node.source)


def base_name(recipe: Recipe, resolution: Resolution) -> str:
    """What configurations and cards call the base model: a name that others can resolve, never a local path."""
    return base_names(recipe, resolution)[MODEL]


def base_names(recipe: Recipe, resolution: Resolution) -> dict[str, str]:
    """The source of each model that a part starts from -> what it is called, as :func:`base_name` says."""
    starts = {f"{recipe.model_prefix(part)}{MODEL}": part.source for part in (recipe, *recipe.computed())}
    return {name: _called(source, resolution.sources.get(name)) for name, source in starts.items()}


def _called(reference: str, source: ResolvedSource | None) -> str:
    scheme, _, name = reference.partition(":")
    if scheme == "hub":
        return name
    if scheme != "file":
        return reference.partition("#")[0]
    assert source is not None  # a file is known, or the plan ended in an error
    return source_digest(source)


def _previous_keys(registry: Registry, name: str) -> dict[str, list[str]]:
    """The keys that each node had in the last runs of that name, the latest first."""
    keys: dict[str, list[str]] = {}
    for run in registry.runs.list(limit=20):
        for node in run.nodes if run.name == name else ():
            if node.get("key"):
                keys.setdefault(node["id"], []).append(node["key"])
    return keys
