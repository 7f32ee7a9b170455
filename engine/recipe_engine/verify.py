"""Whether two runs of one recipe made the same: node by node, step by step, file by file."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from recipe_engine.keys import Change, changes
from recipe_engine.node import METRICS_FILE
from recipe_engine.tensors import first_difference, largest_difference
from recipe_registry import sha256_file

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from recipe_engine.descriptors import Determinism
    from recipe_engine.node import Node
    from recipe_engine.plugins import Catalogue
    from recipe_engine.recorded import Recorded
    from recipe_registry import Artifact

Verdict = Literal["identical", "within tolerance", "not compared", "different"]
GPU_TOLERANCE = 0.05
"""How far two results of one key may be apart on a GPU, of a method that is bitwise on a CPU. Not measured on one."""
ENVIRONMENT = frozenset({"format", "packages", "plugin", "hardware", "image"})
"""Components of keys that say where something was computed, not what."""
_WEIGHTS_FILE = ".safetensors"
# The order in which a step computes them; names that a method adds come after them.
_FIRST_NAMES = ("learning_rate", "loss", "grad_norm")


@dataclass(frozen=True, slots=True)
class Difference:
    """Something that was recorded and came out otherwise.

    Attributes:
        node: where.
        step: the optimizer step, where it is a number of one.
        name: what.
        recorded: its value in the record.
        replayed: its value now.
    """

    node: str
    step: int | None
    name: str
    recorded: Any
    replayed: Any

    def __str__(self) -> str:
        place = f"{self.node}, step {self.step}" if self.step is not None else self.node
        return f"{place}: {self.name} was {_shown(self.recorded)}, and is {_shown(self.replayed)} now."

    def to_json(self) -> dict[str, Any]:
        """The form that ``replay --json`` prints."""
        return {
            "node": self.node,
            "step": self.step,
            "name": self.name,
            "recorded": self.recorded,
            "replayed": self.replayed,
        }


@dataclass(frozen=True, slots=True)
class ComparedNode:
    """What came of a node's comparison.

    Attributes:
        node: its id.
        determinism: what its method states, or a node that it builds on where that came out otherwise.
        tolerance: its bound.
        verdict: what came of it.
        steps: of how many optimizer steps the numbers were compared.
        difference: the first one.
    """

    node: str
    determinism: Determinism
    tolerance: float
    verdict: Verdict
    steps: int = 0
    difference: Difference | None = None

    def to_json(self) -> dict[str, Any]:
        """The form that ``replay --json`` prints."""
        return {
            "id": self.node,
            "determinism": self.determinism,
            "tolerance": self.tolerance if self.determinism == "tolerance" else None,
            "verdict": self.verdict,
            "steps": self.steps,
        }


def environment_changes(recorded: Mapping[str, Any], now: Mapping[str, Any]) -> list[Change]:
    """What a run record says of machine and packages that is otherwise now; the host's name means nothing."""
    found = changes({**recorded, "host": ""}, {**now, "host": ""})
    return [Change(path, before, after) for path, before, after in found]


def compare(recorded: Recorded, replayed: Recorded, nodes: Iterable[Node], catalogue: Catalogue) -> list[ComparedNode]:
    """Compare every node that has an artifact, in the order of the run.

    A node whose method is bitwise, but that builds on one that is not and that came out otherwise, is held to no more
    than that one; on a GPU it is held to a tolerance.

    Args:
        recorded: the run.
        replayed: the same once more.
        nodes: of the replay.
        catalogue: what is installed; it knows how deterministic each method is.
    """
    found: list[ComparedNode] = []
    loose: dict[str, tuple[Determinism, float]] = {}
    for node in nodes:
        if not recorded.digest(node.id):
            continue
        own = _on_device(_stated(node, catalogue), recorded.components(node.id))
        below = [loose[source] for source in node.inputs.values() if source in loose]
        level, bound = _weakest([own, *below])
        found.append(_Comparison(recorded, replayed, node.id, level, bound).result())
        differs = recorded.digest(node.id) != replayed.digest(node.id)
        if below or (level != "bitwise" and differs):
            loose[node.id] = level, bound
    return found


def _stated(node: Node, catalogue: Catalogue) -> tuple[Determinism, float]:
    found = catalogue.methods.get((node.stage, node.method))
    if found is None:
        return "bitwise", 0.0
    method = found.descriptor
    return node.determinism or method.determinism, method.tolerance


def _on_device(stated: tuple[Determinism, float], components: Mapping[str, Any] | None) -> tuple[Determinism, float]:
    """What a GPU leaves of a statement that is about a processor: its kernels add up in the order in which they end.

    Args:
        stated: by the method.
        components: of the node's key, where they are known; those of a node that computes name the device.
    """
    device = (components or {}).get("hardware", {}).get("device")
    return ("tolerance", GPU_TOLERANCE) if device == "cuda" and stated[0] == "bitwise" else stated


def _weakest(levels: Sequence[tuple[Determinism, float]]) -> tuple[Determinism, float]:
    names = [level for level, _ in levels]
    weakest: Determinism = "none" if "none" in names else "tolerance" if "tolerance" in names else "bitwise"
    return weakest, max(bound for level, bound in levels)


class _Comparison:
    """Of one node. What comes first in a run is compared first: key, steps, metrics, files."""

    def __init__(self, recorded: Recorded, replayed: Recorded, node: str, level: Determinism, bound: float) -> None:
        self._recorded = recorded
        self._replayed = replayed
        self._node = node
        self._level = level
        self._bound = bound if level == "tolerance" else 0.0
        self._steps = 0
        self._gone = False
        self._apart = False

    def result(self) -> ComparedNode:
        """What came of it."""
        difference = next(self._key(), None)
        if difference is None and self._level != "none":
            difference = next(self._numbers(), None)
        return ComparedNode(self._node, self._level, self._bound, self._verdict(difference), self._steps, difference)

    def _verdict(self, difference: Difference | None) -> Verdict:
        if difference is not None:
            return "different"
        if self._level == "none" or self._gone:
            return "not compared"
        return "within tolerance" if self._apart else "identical"

    def _numbers(self) -> Iterator[Difference]:
        yield from self._trace()
        yield from self._metrics()
        yield from self._artifact()

    def _key(self) -> Iterator[Difference]:
        """What a key is made of besides the environment, and besides inputs, which are nodes of their own."""
        before, now = self._recorded.components(self._node), self._replayed.components(self._node)
        if before is None or now is None:
            return
        for path, old, new in changes(before, now):
            if path[0] not in ENVIRONMENT and path[0] != "inputs":
                yield self._difference(".".join(path), old, new)

    def _trace(self) -> Iterator[Difference]:
        before, now = self._recorded.trace(self._node), self._replayed.trace(self._node)
        if before is None or now is None:
            return
        for old, new in zip(before, now, strict=False):
            for name in sorted(old, key=_in_order_of_a_step):
                # A digest says nothing of how far two results are apart.
                is_digest = self._bound and isinstance(old[name], str)
                if not is_digest and not self._equal(old[name], new.get(name)):
                    yield self._difference(name, old[name], new.get(name), step=int(old["step"]))
            self._steps += 1
        if len(before) != len(now):
            yield self._difference("steps", len(before), len(now))

    def _metrics(self) -> Iterator[Difference]:
        before, now = (run.nodes[self._node]["metrics"] for run in (self._recorded, self._replayed))
        for name in sorted({*before, *now}):
            if not self._equal(before.get(name), now.get(name)):
                yield self._difference(name, before.get(name), now.get(name))

    def _artifact(self) -> Iterator[Difference]:
        """What is stored of the record, byte by byte, so that a copy that was changed since is found too.

        Digests may differ where the bytes do not: they tell how a source was spelled by whoever made an artifact first.
        """
        before, now = self._recorded.artifact(self._node), self._replayed.artifact(self._node)
        old, new = self._recorded.digest(self._node), self._replayed.digest(self._node)
        if before is not None and now is not None:
            yield from self._files(before, now)
        elif old != new and self._bound:
            self._gone = True
        elif old != new:
            yield self._difference("artifact", old, new)

    def _files(self, before: Artifact, now: Artifact) -> Iterator[Difference]:
        old, new = _stored(before), _listed(now)
        for path in sorted({*old, *new}):
            if old.get(path) == new.get(path):
                continue
            self._apart = True
            both = path in old and path in new and path.endswith(_WEIGHTS_FILE)
            if both and (before.path / path).exists() and (now.path / path).exists():
                yield from self._tensors(before, now, path)
            if not self._bound or not (both or path == METRICS_FILE):
                yield self._difference(path, old.get(path), new.get(path))

    def _tensors(self, before: Artifact, now: Artifact, path: str) -> Iterator[Difference]:
        if self._bound:
            name, distance = largest_difference(before.path / path, now.path / path)
            if not distance <= self._bound:
                yield self._difference(f"{path}: {name} (relative difference)", 0.0, distance)
            return
        found = first_difference(before.path / path, now.path / path)
        if found is not None:
            yield self._difference(f"{path}: {found.name}", found.before, found.after)

    def _equal(self, before: Any, now: Any) -> bool:
        if json.dumps(before) == json.dumps(now):  # exact, and NaN is NaN
            return True
        return _are_numbers(before, now) and bool(abs(before - now) <= self._bound * max(abs(before), abs(now)))

    def _difference(self, name: str, before: Any, now: Any, step: int | None = None) -> Difference:
        return Difference(self._node, step, name, before, now)


def _in_order_of_a_step(name: str) -> tuple[int, str]:
    return (_FIRST_NAMES.index(name) if name in _FIRST_NAMES else len(_FIRST_NAMES), name)


def _are_numbers(*values: Any) -> bool:
    return all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)


def _listed(artifact: Artifact) -> dict[str, str]:
    """Path -> sha256, of what it owns and of what it refers to."""
    owned = {entry.path: entry.sha256 for entry in artifact.entries}
    return owned | {reference.path: reference.sha256 for reference in artifact.references}


def _stored(artifact: Artifact) -> dict[str, str]:
    """The same, of the bytes that are there now."""
    return _listed(artifact) | {entry.path: sha256_file(artifact.path / entry.path) for entry in artifact.entries}


def _shown(value: Any) -> str:
    return "not there" if value is None else value if isinstance(value, str) else json.dumps(value)
