"""The record that leads from a key to the artifact that was computed for it."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from recipe_registry import documents
from recipe_registry.digests import digests_in, hex_of
from recipe_registry.listing import read_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """Which artifact a key stands for, and where it came from.

    Attributes:
        key: ``"sha256:<hex>"``.
        artifact: digest, ``"sha256:<hex>"``.
        node: id of the node that produced it.
        run: id of the run that produced it.
        components: the key's readable parts, so that a plan can say what changed.
        facts: whatever else the producer wants to remember; no part of any digest. NaN and infinities
            become text.
    """

    key: str
    artifact: str
    node: str
    run: str
    components: Mapping[str, Any]
    facts: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        """The document on disk."""
        return {
            "schema_version": documents.SCHEMA_VERSION,
            "key": self.key,
            "artifact": self.artifact,
            "node": self.node,
            "run": self.run,
            "components": dict(self.components),
            "facts": documents.json_safe(self.facts),
        }


_JSON_TYPES = {"node": str, "run": str, "components": dict, "facts": dict}


def read(path: Path, key: str) -> KeyRecord | None:
    """The record in a file, or None where there is none or it is torn or about another key.

    Raises:
        NewerFormat: a later version of this program wrote it.
    """
    try:
        return parse(path.read_bytes(), path, key)
    except FileNotFoundError:
        return None


def parse(data: bytes, path: Path, key: str) -> KeyRecord | None:
    """The record in the bytes of a file; see :func:`read`."""
    try:
        document = documents.parse(data, path)
        record = KeyRecord(**{field.name: document[field.name] for field in fields(KeyRecord)})
        hex_of(record.artifact)
    except (ValueError, KeyError, TypeError):
        return None
    if record.key != key or any(not isinstance(document[name], kind) for name, kind in _JSON_TYPES.items()):
        return None
    return record


def read_link(path: str) -> tuple[str, tuple[str, ...]] | None:
    """The artifact of a record and all digests in it, or None where :func:`read` finds no record either.

    Raises:
        NewerFormat: a later version of this program wrote it.
    """
    try:
        data = read_bytes(path)
        artifact = documents.parse(data, path)["artifact"]
        hex_of(artifact)
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
    return artifact, digests_in(data.decode("utf-8", "replace"))
