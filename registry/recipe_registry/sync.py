"""Between a registry and its remote: what is there already does not travel, what arrives is verified."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from recipe_registry import documents, keys, manifest, record
from recipe_registry.digests import hex_of
from recipe_registry.errors import UnknownRun
from recipe_registry.intake import Intake
from recipe_registry.key_files import FIRST, FURTHER, first_path, further_path, key_in
from recipe_registry.manifest import MANIFEST_FILE, Entry, Manifest
from recipe_registry.remote import Remote, blob
from recipe_registry.selection import PREFIX, Selection, Transfer, is_digest, keys_of, made_by, match, run_files
from recipe_registry.streams import Progress, chunks_of, describe, told

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from recipe_registry.keys import KeyRecord
    from recipe_registry.record import RunRecord
    from recipe_registry.registry import Registry

LATEST = "latest"


def push(registry: Registry, chosen: Selection, remote: Remote, progress: Progress | None = None) -> Transfer:
    """Copy a part of a registry to its remote. What is left of a push that was cut off is used by the next.

    Raises:
        DamagedArtifact: a file is not what its manifest says; it is not pushed.
        RemoteUnreachable: the remote does not answer, or refuses.
        NewerFormat: a later version of this program wrote the remote.
    """
    remote.mark()
    missing = [digest for digest in chosen.artifacts if remote.size(_manifest_path(digest)) is None]
    total = sum(registry.artifacts.get(digest).size for digest in missing)
    size = sum(_push_artifact(registry, digest, remote, progress, total) for digest in missing)
    for found in chosen.keys:
        _push_record(found, remote)
    for run in chosen.runs:
        size += _push_run(registry, run, remote)
    there = len(chosen.artifacts) - len(missing)
    return Transfer(len(chosen.artifacts), len(chosen.keys), len(chosen.runs), size, there)


def _push_record(record: KeyRecord, remote: Remote) -> None:
    """Write a record; one of another artifact that is there already stays the first of its key."""
    path = first_path(record.key)
    there = keys.parse(remote.read(path) or b"", Path(path), record.key)
    if there is not None:
        path = further_path(record.key, record.artifact)
        if there.artifact == record.artifact or remote.size(path) is not None:
            return
    remote.write(path, documents.encode_file(record.to_json()))


def _push_artifact(registry: Registry, digest: str, remote: Remote, progress: Progress | None, total: int) -> int:
    # Read whole before anything is sent: bytes that rotted must not get the name of those that did not.
    artifact = registry.artifacts.get(digest, verify=True)
    size = sum(_push_file(entry, artifact.path / entry.path, remote, progress, total) for entry in artifact.entries)
    remote.write(_manifest_path(digest), manifest.encode(Manifest(artifact.entries, artifact.references)))
    return size


def _push_file(entry: Entry, source: Path, remote: Remote, progress: Progress | None = None, total: int = 0) -> int:
    """Bytes that were sent."""
    path = blob(entry.sha256)
    is_there = remote.size(path) == entry.size
    if not is_there:
        remote.upload(path, source)
    if progress is not None:
        progress(entry.size, total)
    return 0 if is_there else entry.size


def _push_run(registry: Registry, run: str, remote: Remote) -> int:
    folder = registry.runs.directory(run)
    entries = []
    size = 0
    for path in run_files(folder):
        entry = describe(folder / path, path)
        if remote.size(blob(entry.sha256)) != entry.size:
            # A log may grow while it is sent: what was described is what is sent.
            remote.write(blob(entry.sha256), b"".join(chunks_of(folder / path, entry.size)))
            size += entry.size
        entries.append(entry)
    remote.write(_run_path(run), manifest.encode(Manifest(tuple(entries), ())))
    return size


def pull(registry: Registry, remote: Remote, names: Sequence[str] = (), progress: Progress | None = None) -> Transfer:
    """Copy from a remote what a user names, the whole where nothing is named. Each artifact is taken once it is whole.

    Args:
        registry: the registry.
        remote: the remote.
        names: as for :func:`recipe_registry.selection.select`.
        progress: see :data:`Progress`.

    Raises:
        DamagedRemote: it holds something else than it says; the message names the file.
        RemoteUnreachable: it does not answer, or refuses.
        UnknownArtifact: it has no such artifact, or several.
        UnknownRun: it has no such run, or several.
        NewerFormat: a later version of this program wrote it.
    """
    remote.check()
    runs_named = [name for name in names if not is_digest(name)]
    run_ids = _runs_named(remote, runs_named if names else None)
    digests = _digests_named(remote, names)
    with Intake(registry, remote.refused) as intake:
        runs = [_fetch_run(intake, remote, run) for run in run_ids]
        digests.update(digest for run in runs for digest in made_by(run))
        only_runs = names and runs_named == list(names)
        records = _records(remote, digests, _paths_of_records(remote, runs if only_runs else None))
        moved = _pull_artifacts(registry, remote, sorted(digests), progress)
        for found in records:
            registry.artifacts.remember(found)
        intake.commit()
    return Transfer(len(digests), len(records), len(runs), moved.size, len(digests) - moved.artifacts)


def pull_key(registry: Registry, remote: Remote, key: str) -> KeyRecord | None:
    """Take the artifact of a key from a remote, and the record that leads to it; None where it has none.

    Raises:
        DamagedRemote: it holds something else than it says; the message names the file.
        RemoteUnreachable: it does not answer, or refuses.
        NewerFormat: a later version of this program wrote it.
    """
    path = first_path(key)
    data = remote.read(path)
    if data is None:
        return None
    found = keys.parse(data, Path(path), PREFIX + hex_of(key))
    if found is None:
        raise remote.damaged(path, "is not the record of its key")
    _pull_artifacts(registry, remote, [found.artifact], None)
    registry.artifacts.remember(found)
    return found


def _digests_named(remote: Remote, names: Sequence[str]) -> set[str]:
    """The artifacts that are named themselves; all where nothing is named."""
    wanted = [name for name in names if is_digest(name)]
    if names and not wanted:
        return set()
    there = [PREFIX + name.removeprefix("sha256-").removesuffix(".json") for name in remote.names("artifacts")]
    return {match(there, name, f"in {remote.name}") for name in wanted} if names else set(there)


def _runs_named(remote: Remote, names: Iterable[str] | None) -> list[str]:
    """Ids of the runs that a user means; of all where it is None."""
    ids = [run for run in remote.names("runs") if record.ID.fullmatch(run)]
    if names is None:
        return ids
    chosen = set()
    for name in names:
        found = ids[-1:] if name == LATEST else [run for run in ids if run.startswith(name)]
        if len(found) != 1:
            what = f"{len(found)} runs begin with {name!r}" if found else f"There is no run {name!r}"
            raise UnknownRun(f"{what} in {remote.name}.", "Give the whole id.")
        chosen.update(found)
    return sorted(chosen)


def _paths_of_records(remote: Remote, runs: Sequence[RunRecord] | None) -> list[str]:
    """Where the records are that runs need, as far as there are any; of all keys where it is None."""
    if runs is None:
        paths = [f"{folder}/{name}" for folder in (FIRST, FURTHER) for name in remote.names(folder)]
    else:
        pairs = sorted({pair for run in runs for pair in keys_of(run)})
        paths = [first_path(key) for key in dict(pairs)] + [further_path(*pair) for pair in pairs]
    return [path for path in paths if key_in(path)]


def _records(remote: Remote, digests: set[str], paths: Sequence[str]) -> list[KeyRecord]:
    """Those of the records that lead to the artifacts."""
    records = []
    for path, data in remote.read_many(paths):
        found = keys.parse(data, Path(path), key_in(path))
        if found is None:
            raise remote.damaged(path, "is not the record of its key")
        if found.artifact in digests:
            records.append(found)
    return records


def _pull_artifacts(registry: Registry, remote: Remote, digests: Sequence[str], progress: Progress | None) -> Transfer:
    missing = [digest for digest in digests if not registry.artifacts.folder(digest).is_dir()]
    contents = {digest: _manifest_of(remote, _manifest_path(digest), digest) for digest in missing}
    total = sum(entry.size for content in contents.values() for entry in content.entries)
    size = 0
    for digest, content in contents.items():
        with Intake(registry, remote.refused) as intake:
            folder = f"artifacts/{hex_of(digest)}"
            intake.write_document(f"{folder}/{MANIFEST_FILE}", manifest.encode(content))
            for entry in content.entries:
                inside = Entry(f"{folder}/{entry.path}", entry.sha256, entry.size)
                intake.write(inside, told(remote.chunks(blob(entry.sha256)), progress, total))
                size += entry.size
            intake.commit()
    return Transfer(len(missing), 0, 0, size)


def _fetch_run(intake: Intake, remote: Remote, run: str) -> RunRecord:
    for entry in _manifest_of(remote, _run_path(run)).entries:
        inside = Entry(f"runs/{run}/{entry.path}", entry.sha256, entry.size)
        intake.write(inside, remote.chunks(blob(entry.sha256)))
    return intake.run(run)


def _manifest_of(remote: Remote, path: str, digest: str = "") -> Manifest:
    """A manifest of an artifact, or of a run, which has no digest."""
    data = remote.read(path)
    if data is None:
        raise remote.damaged(path, "is missing")
    try:
        content = manifest.parse(data, Path(path))
    except ValueError as error:
        raise remote.damaged(path, f"cannot be used: {error}") from error
    if digest and content.digest != digest:
        raise remote.damaged(path, f"has the digest {content.digest}")
    return content


def _manifest_path(digest: str) -> str:
    return f"artifacts/sha256-{hex_of(digest)}.json"


def _run_path(run: str) -> str:
    return f"runs/{run}/{MANIFEST_FILE}"
