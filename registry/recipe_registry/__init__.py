"""The embedded registry: artifacts by content, keys, and runs, in one folder.

A leaf: it knows no type of the engine. ``Registry.open(home)`` is the way in.
"""

from __future__ import annotations

from recipe_registry.artifacts import Artifact, ArtifactStore, Entry, KeyRecord, Reference
from recipe_registry.digests import canonical_json, digest_of, sha256_bytes, sha256_file
from recipe_registry.durable import (
    append_line,
    copy_file,
    fault_point,
    place_file,
    remove_tree,
    write_bytes,
    write_json,
)
from recipe_registry.errors import (
    AmbiguousRun,
    BusyRun,
    DamagedArtifact,
    DamagedName,
    DamagedRemote,
    DamagedRun,
    IndexUnavailable,
    InvalidTag,
    MissingArtifact,
    NameTaken,
    NewerFormat,
    RefusedArchive,
    RefusedArtifact,
    RegistryError,
    RemoteUnreachable,
    StoreNotWritable,
    UnknownArtifact,
    UnknownName,
    UnknownRun,
    writing,
)
from recipe_registry.groups import keys_by_group
from recipe_registry.index import RunIndex
from recipe_registry.name_log import NameEvent
from recipe_registry.names import NamedResult, NameStore, split_reference
from recipe_registry.notes import RunNotes
from recipe_registry.query import RunQuery, RunRow
from recipe_registry.registry import Registry
from recipe_registry.runs import RunRecord, RunStore

__all__ = [
    "AmbiguousRun",
    "Artifact",
    "ArtifactStore",
    "BusyRun",
    "DamagedArtifact",
    "DamagedName",
    "DamagedRemote",
    "DamagedRun",
    "Entry",
    "IndexUnavailable",
    "InvalidTag",
    "KeyRecord",
    "MissingArtifact",
    "NameEvent",
    "NameStore",
    "NameTaken",
    "NamedResult",
    "NewerFormat",
    "Reference",
    "RefusedArchive",
    "RefusedArtifact",
    "Registry",
    "RegistryError",
    "RemoteUnreachable",
    "RunIndex",
    "RunNotes",
    "RunQuery",
    "RunRecord",
    "RunRow",
    "RunStore",
    "StoreNotWritable",
    "UnknownArtifact",
    "UnknownName",
    "UnknownRun",
    "append_line",
    "canonical_json",
    "copy_file",
    "digest_of",
    "fault_point",
    "keys_by_group",
    "place_file",
    "remove_tree",
    "sha256_bytes",
    "sha256_file",
    "split_reference",
    "write_bytes",
    "write_json",
    "writing",
]
