"""Named results between a registry and its remote: a name moves with all that it reaches.

::

    names/<name>/<version>.json    which files a version has; their bytes are blobs
    names/<name>/events.jsonl      what happened to the versions, from all registries that pushed
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from recipe_registry import manifest
from recipe_registry.digests import sha256_bytes
from recipe_registry.errors import UnknownName
from recipe_registry.manifest import Manifest
from recipe_registry.name_log import latest_of, merged_events
from recipe_registry.names import EVENTS_FILE, LATEST, RESULT_FILE, read_result, split_reference
from recipe_registry.remote import blob
from recipe_registry.streams import describe

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from recipe_registry.names import NamedResult
    from recipe_registry.registry import Registry
    from recipe_registry.remote import Remote


def reached(registry: Registry, result: NamedResult) -> list[str]:
    """What a push of a name sends first, as names for a selection: its artifacts, and its run where it is here."""
    run = registry.runs.directory(result.run) / "run.json"
    return [*result.artifacts.values(), *([result.run] if run.is_file() else [])]


def push_name(registry: Registry, remote: Remote, result: NamedResult) -> None:
    """Make a version known to a remote that has its artifacts.

    Raises:
        RemoteUnreachable: the remote does not answer, or refuses.
    """
    entries = []
    for path, file in registry.names.files(result).items():
        entry = describe(file, path)
        if remote.size(blob(entry.sha256)) != entry.size:
            remote.write(blob(entry.sha256), file.read_bytes())
        entries.append(entry)
    remote.write(_path(result.name, result.version), manifest.encode(Manifest(tuple(sorted(entries)), ())))
    lines = merged_events(_events(remote, result.name), registry.names.event_lines(result.name))
    remote.write(f"names/{result.name}/{EVENTS_FILE}", "".join(f"{line}\n" for line in lines).encode())


@dataclass(frozen=True, slots=True)
class Parcel:
    """A version as a remote has it, verified, and not taken in yet: its artifacts come first.

    Attributes:
        result: what it stands for.
        files: everything that is kept of it.
        events: what happened to its name.
    """

    result: NamedResult
    files: Mapping[str, bytes]
    events: Sequence[str]

    def reaches(self, remote: Remote) -> list[str]:
        """What is to be pulled before it, as names for :func:`recipe_registry.sync.pull`."""
        run = [self.result.run] if self.result.run in remote.names("runs") else []
        return [*self.result.artifacts.values(), *run]

    def unpack(self, registry: Registry) -> NamedResult:
        """Take it in.

        Raises:
            NameTaken: the version stands for another result here.
            StoreNotWritable: the disk or a permission forbids it.
        """
        return registry.names.adopt(self.result.name, self.result.version, self.files, self.events)


def names_in(remote: Remote) -> list[tuple[str, str]]:
    """Name and version of everything that a remote has a name for."""
    found = [f"{name}:{version}" for name in remote.names("names") for version in _versions(remote, name)]
    references = []
    for reference in found:
        with suppress(ValueError):  # whatever else lies there is not ours
            references.append(split_reference(reference))
    return references


def fetch_name(remote: Remote, name: str, version: str) -> Parcel:
    """Get a version from a remote.

    Raises:
        UnknownName: the remote has no such version.
        DamagedRemote: it holds something else than it says.
        DamagedName: its record is none.
        RemoteUnreachable: it does not answer, or refuses.
    """
    events = _events(remote, name)
    if version == LATEST:
        version = latest_of(events) or LATEST
    path = _path(name, version)
    data = remote.read(path)
    if data is None:
        there = _versions(remote, name)
        hint = f"It has {', '.join(there)}." if there else ""
        raise UnknownName(f"There is no {name}:{version} in {remote.name}.", hint)
    try:
        content = manifest.parse(data, Path(path))
    except ValueError as error:
        raise remote.damaged(path, f"cannot be used: {error}") from error
    files = {}
    for entry in content.entries:
        files[entry.path] = b"".join(remote.chunks(blob(entry.sha256)))
        if sha256_bytes(files[entry.path]) != entry.sha256:
            raise remote.refused(f"{path}: {entry.path}", "has other bytes than it should have")
    return Parcel(read_result(files.get(RESULT_FILE, b""), name, version, Path(path)), files, events)


def _versions(remote: Remote, name: str) -> list[str]:
    return [found.removesuffix(".json") for found in remote.names(f"names/{name}") if found.endswith(".json")]


def _events(remote: Remote, name: str) -> list[str]:
    data = remote.read(f"names/{name}/{EVENTS_FILE}") or b""
    return data.decode("utf-8", "replace").splitlines()


def _path(name: str, version: str) -> str:
    return f"names/{name}/{version}.json"
