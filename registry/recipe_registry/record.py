"""What is remembered of a run: one JSON document, the truth that every index is derived from."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, fields
from types import NoneType
from typing import TYPE_CHECKING, Any

from recipe_registry import documents
from recipe_registry.errors import DamagedRun, UnknownRun

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

STATUSES = ("running", "succeeded", "failed", "interrupted", "push-unverified")
RUN_FILE = "run.json"
ID = re.compile(r"[0-9]{8}-[0-9]{6}-[0-9a-f]{4}")


@dataclass(frozen=True, slots=True)
class RunRecord:
    """One execution of a recipe.

    Attributes:
        id: from :meth:`RunStore.new_id`.
        name: the recipe's name.
        status: one of ``STATUSES``; a killed run keeps ``"running"``.
        started: ISO 8601, UTC.
        finished: ISO 8601, UTC; None while it runs.
        seconds: wall time; None while it runs.
        recipe_digest: ``"sha256:<hex>"``.
        nodes: one JSON object a node, in the order of the plan.
        metrics: what was measured.
        error: what ended it, as a JSON object; None where nothing did.
        environment: host, devices, packages.
        inputs: what every name resolved to.
        facts: anything else the engine wants to remember.
    """

    id: str
    name: str
    status: str
    started: str
    recipe_digest: str
    finished: str | None = None
    seconds: float | None = None
    nodes: Sequence[Mapping[str, Any]] = ()
    metrics: Mapping[str, Any] = field(default_factory=dict)
    error: Mapping[str, Any] | None = None
    environment: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, Any] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.status not in STATUSES:
            raise ValueError(f"status must be one of {', '.join(STATUSES)}, not {self.status!r}")
        # A tuple, so that a record that was read equals the one that was written.
        object.__setattr__(self, "nodes", tuple(self.nodes))

    def to_json(self) -> dict[str, Any]:
        """The document on disk. A number that JSON cannot hold becomes ``"nan"``, ``"inf"`` or ``"-inf"``."""
        document: dict[str, Any] = {"schema_version": documents.SCHEMA_VERSION}
        for item in fields(self):
            document[item.name] = documents.json_safe(getattr(self, item.name))
        return document

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> RunRecord:
        """The record of a document; fields that this version does not know are left out.

        Raises:
            ValueError: a field is missing or has a value that makes no sense.
        """
        known = {item.name: document[item.name] for item in fields(cls) if item.name in document}
        for name, value in known.items():
            if not isinstance(value, _JSON_TYPES[name]):
                raise ValueError(f"{name} has the wrong type")
        try:
            return cls(**known)
        except TypeError as error:
            raise ValueError("it lacks a field") from error


_JSON_TYPES: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("id", "name", "status", "started", "recipe_digest"), (str,)),
    **dict.fromkeys(("metrics", "environment", "inputs", "facts"), (dict,)),
    "finished": (str, NoneType),
    "seconds": (int, float, NoneType),
    "nodes": (list,),
    "error": (dict, NoneType),
}


def read(path: Path) -> RunRecord:
    """The record in a ``run.json``.

    Raises:
        UnknownRun: there is no such file.
        DamagedRun: it is unreadable.
        NewerFormat: a later version of this program wrote it.
    """
    try:
        record = RunRecord.from_json(documents.read(path))
        if record.id != path.parent.name:
            raise ValueError(f"it is about run {record.id}")
    except (FileNotFoundError, NotADirectoryError):
        raise UnknownRun(f"There is no run {path.parent.name}.", "List the runs to see their ids.") from None
    except ValueError as error:
        hint = f"Remove {path.parent} to forget the run."
        raise DamagedRun(f"{path} cannot be used: {error}.", hint) from error
    return record
