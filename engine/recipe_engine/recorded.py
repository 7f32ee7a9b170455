"""A run as its registry remembers it: its nodes, what their keys were made of, the numbers of their steps."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from recipe_engine.journal import trace_file
from recipe_registry import DamagedRun, MissingArtifact

if TYPE_CHECKING:
    from collections.abc import Mapping

    from recipe_registry import Artifact, KeyRecord, Registry, RunRecord


class Recorded:
    """A run in its registry.

    Attributes:
        record: of the run.
        nodes: id -> the node as the record has it, in the order of the run.
    """

    def __init__(self, registry: Registry, record: RunRecord) -> None:
        self._registry = registry
        self.record = record
        self.nodes: dict[str, Mapping[str, Any]] = {node["id"]: node for node in record.nodes}

    def key_record(self, node: str) -> KeyRecord | None:
        """What the registry knows of the node's key: who made its artifact, and of what.

        Where others have made something else for the same key, it is the record of what this run has, if that is there.
        """
        key, store = self.nodes[node]["key"], self._registry.artifacts
        return (store.lookup(key, self.digest(node)) or store.lookup(key)) if key else None

    def components(self, node: str) -> Mapping[str, Any] | None:
        """What the node's key was made of; ``None`` where it is not known any more."""
        found = self.key_record(node)
        return found.components if found else None

    def decided(self) -> dict[str, Mapping[str, Any]]:
        """Node -> what those of its options that said ``auto`` stood for."""
        return {name: node["facts"]["decided"] for name, node in self.nodes.items() if "decided" in node["facts"]}

    def made_by(self, node: str) -> str:
        """Id of the run that made the node's artifact, this one or an earlier; ``""`` where it is not known."""
        if self.nodes[node]["status"] == "ran":
            return self.record.id
        found = self.key_record(node)
        return found.run if found else ""

    def digest(self, node: str) -> str:
        """Digest of the node's artifact; ``""`` for sources, pushes and what the run did not come to."""
        artifact = self.nodes.get(node, {}).get("artifact")
        return artifact["digest"] if artifact else ""

    def artifact(self, node: str) -> Artifact | None:
        """The node's artifact, if it is still there; what its files hold is not looked at.

        Raises:
            DamagedArtifact: its manifest is not that of its digest, or a file has another size.
        """
        try:
            return self._registry.artifacts.get(self.digest(node))
        except MissingArtifact:
            return None

    def trace(self, node: str) -> list[dict[str, Any]] | None:
        """The numbers of each step of the node, from the run that computed it; ``None`` where there are none.

        Raises:
            DamagedRun: they cannot be read.
        """
        made, name = self.made_by(node), node
        if made != self.record.id and (found := self.key_record(node)):
            name = found.node  # in a run of its own, a base recipe's node has another id
        file = self._registry.runs.directory(made) / trace_file(name) if made else None
        if file is None or not file.exists():
            return None
        try:
            return [json.loads(line) for line in file.read_bytes().splitlines()]
        except ValueError as error:
            raise DamagedRun(f"{file} cannot be used: {error}.", f"Remove {file} to compare without it.") from error
