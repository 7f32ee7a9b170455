"""A part of a registry as one file: an uncompressed tar archive that holds the same bytes whenever it is written.

Its first member, ``index.json``, lists all others in their order, with size and sha256. They are
``artifacts/<hex>/…`` with manifests, ``keys/<hex>.json``, ``further/<hex>.<hex>.json``,
``runs/<id>/…``, ``names/<name>/<version>/…`` and ``names/<name>/events.jsonl``.
"""

from __future__ import annotations

import tarfile
from functools import partial
from typing import TYPE_CHECKING

from recipe_registry import checking, documents, durable, manifest
from recipe_registry.digests import CHUNK_BYTES, sha256_bytes
from recipe_registry.errors import DamagedArtifact, RefusedArchive
from recipe_registry.intake import Intake, is_inside
from recipe_registry.key_files import paths_of
from recipe_registry.manifest import MANIFEST_FILE, Entry
from recipe_registry.names import EVENTS_FILE
from recipe_registry.selection import PREFIX, Selection, Transfer, run_files
from recipe_registry.streams import Progress, chunks_of, describe, told, verified

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from recipe_registry.registry import Registry

INDEX_FILE = "index.json"
KIND = "recipe-registry-export"
MAX_INDEX_BYTES = 1 << 28

Source = tuple[Entry, "Path | bytes"]


def write(registry: Registry, chosen: Selection, target: Path, progress: Progress | None = None) -> Transfer:
    """Write an archive; a file of this name is replaced once the new one is complete.

    Versions whose artifacts all go in go in too, with what happened to their names.

    Args:
        registry: the registry.
        chosen: what goes in.
        target: the file.
        progress: see :data:`Progress`.

    Raises:
        MissingArtifact: a run's artifact is no longer there.
        DamagedArtifact: a file is not what its manifest says.
        StoreNotWritable: ``target`` cannot be written.
    """
    sources = sorted(_sources(registry, chosen), key=lambda source: source[0].path)
    total = sum(entry.size for entry, _ in sources)
    index = {
        "schema_version": documents.SCHEMA_VERSION,
        "kind": KIND,
        "files": [{"path": entry.path, "sha256": entry.sha256, "size": entry.size} for entry, _ in sources],
    }
    data = documents.encode_file(index)
    first: Source = (Entry(INDEX_FILE, sha256_bytes(data), len(data)), data)
    durable.write_chunks(target, _archive([first, *sources], progress, total))
    return Transfer(len(chosen.artifacts), len(chosen.keys), len(chosen.runs), total)


def read(registry: Registry, source: Path, progress: Progress | None = None) -> Transfer:
    """Take in what an archive holds: all of it, or nothing.

    Args:
        registry: the registry.
        source: the file.
        progress: see :data:`Progress`.

    Raises:
        RefusedArchive: it is not what :func:`write` writes; the message names the member.
        NewerFormat: a later version of this program wrote it.
        StoreNotWritable: the disk or a permission forbids it.
        OSError: it cannot be read.
    """
    with source.open("rb") as file, Intake(registry, _refusal(source)) as intake:
        try:
            with tarfile.open(fileobj=file, mode="r:") as archive:
                _take(archive, source, intake, progress)
        except (tarfile.TarError, EOFError, ValueError, OverflowError) as error:
            raise _refusal(source)(source.name, "is not a whole tar archive") from error
        return intake.commit()


def _sources(registry: Registry, chosen: Selection) -> Iterator[Source]:
    for digest in chosen.artifacts:
        artifact = registry.artifacts.get(digest)
        folder = f"artifacts/{digest.removeprefix(PREFIX)}"
        data = manifest.encode(checking.read_manifest(artifact.path, digest))
        yield _small(f"{folder}/{MANIFEST_FILE}", data)
        for entry in artifact.entries:
            yield Entry(f"{folder}/{entry.path}", entry.sha256, entry.size), artifact.path / entry.path
    for path, record in paths_of(chosen.keys):
        yield _small(path, documents.encode_file(record.to_json()))
    for run in chosen.runs:
        folder_of_run = registry.runs.directory(run)
        for path in run_files(folder_of_run):
            yield describe(folder_of_run / path, f"runs/{run}/{path}"), folder_of_run / path
    yield from _names(registry, frozenset(chosen.artifacts))


def _names(registry: Registry, artifacts: frozenset[str]) -> Iterator[Source]:
    results = [result for result in registry.names.versions() if artifacts.issuperset(result.artifacts.values())]
    for result in results:
        for path, file in registry.names.files(result).items():
            yield describe(file, f"names/{result.name}/{result.version}/{path}"), file
    for name in sorted({result.name for result in results}):
        lines = "".join(f"{line}\n" for line in registry.names.event_lines(name))
        yield _small(f"names/{name}/{EVENTS_FILE}", lines.encode())


def _small(path: str, data: bytes) -> Source:
    return Entry(path, sha256_bytes(data), len(data)), data


def _archive(sources: Iterable[Source], progress: Progress | None, total: int) -> Iterator[bytes]:
    size = 0
    for entry, source in sources:
        header = _header(entry)
        padding = bytes(-entry.size % tarfile.BLOCKSIZE)
        size += len(header) + entry.size + len(padding)
        yield header
        if isinstance(source, bytes):
            yield source
        else:
            damaged = partial(_damaged, source)
            yield from told(verified(chunks_of(source, entry.size), entry, damaged), progress, total)
        yield padding
    yield bytes(2 * tarfile.BLOCKSIZE)
    yield bytes(-(size + 2 * tarfile.BLOCKSIZE) % tarfile.RECORDSIZE)


def _header(entry: Entry) -> bytes:
    """A member's header, without anything that differs from machine to machine or from day to day."""
    member = tarfile.TarInfo(entry.path)
    member.size, member.mode = entry.size, 0o644
    return member.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def _damaged(path: Path, what: str) -> DamagedArtifact:
    return DamagedArtifact(f"{path} {what}.", "recipe registry verify shows all that is damaged.")


def _refusal(source: Path) -> Callable[[str, str], RefusedArchive]:
    def refused(member: str, what: str) -> RefusedArchive:
        return RefusedArchive(f"{source}: {member!r} {what}.", "Nothing of it was taken.")

    return refused


def _take(archive: tarfile.TarFile, source: Path, intake: Intake, progress: Progress | None) -> None:
    refused = _refusal(source)
    members = _members(archive, refused)
    first = next(members, None)
    if first is None or first.name != INDEX_FILE or first.size > MAX_INDEX_BYTES:
        raise refused(first.name if first else source.name, f"is not the {INDEX_FILE} that an export begins with")
    entries = _entries(b"".join(_content(archive, first)), source)
    names = {entry.path for entry in entries}
    total = sum(entry.size for entry in entries)
    for entry in entries:
        member = next(members, None)
        if member is None or member.name != entry.path:
            raise _out_of_place(member, entry, names, refused)
        intake.write(entry, told(_content(archive, member), progress, total))
    if (member := next(members, None)) is not None:
        raise refused(member.name, f"is not in {INDEX_FILE}")


def _out_of_place(
    member: tarfile.TarInfo | None, entry: Entry, names: set[str], refused: Callable[[str, str], RefusedArchive]
) -> RefusedArchive:
    if member is None:
        return refused(entry.path, "is missing")
    return refused(member.name, "is out of its place" if member.name in names else f"is not in {INDEX_FILE}")


def _members(archive: tarfile.TarFile, refused: Callable[[str, str], RefusedArchive]) -> Iterator[tarfile.TarInfo]:
    while (member := archive.next()) is not None:
        problem = _problem_of(member)
        if problem:
            raise refused(member.name, problem)
        yield member


def _problem_of(member: tarfile.TarInfo) -> str:
    """Why a member cannot be one of ours; ``""`` where it can."""
    if member.name.startswith("/"):
        return "is an absolute path"
    if ".." in member.name.split("/"):
        return "leads out of the archive"
    if member.issym():
        return "is a symbolic link"
    if member.islnk():
        return "is a hard link"
    if member.ischr() or member.isblk() or member.isfifo():
        return "is a device"
    if not member.isreg() or member.issparse():
        return "is not a plain file"
    return ""


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> Iterator[bytes]:
    file = archive.extractfile(member)
    assert file is not None  # it is a plain file
    with file:
        while chunk := file.read(CHUNK_BYTES):
            yield chunk


def _entries(data: bytes, source: Path) -> list[Entry]:
    """The files that an index lists.

    Raises:
        RefusedArchive: it is none.
        NewerFormat: a later version of this program wrote it.
    """
    refused = _refusal(source)
    try:
        document = documents.parse(data, source)
        entries = [Entry(**item) for item in document["files"]]
    except (ValueError, KeyError, TypeError) as error:
        raise refused(INDEX_FILE, "cannot be used") from error
    if document.get("kind") != KIND:
        raise refused(INDEX_FILE, f"is not that of a {KIND}")
    for entry in entries:
        problem = manifest.entry_problem(entry, own_name="")
        if problem or not is_inside(entry.path):
            raise refused(str(entry.path), problem or "is nothing that a registry holds")
    if len({entry.path for entry in entries}) != len(entries):
        raise refused(INDEX_FILE, "lists a file twice")
    return entries
