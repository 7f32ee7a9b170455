"""Results with a name and a version: ``support-bot:1.2``.

A version is a folder that never changes: which artifacts it stands for, and the recipe that made them. What happens to
versions afterwards (promotions, retirements) is a log beside them; ``latest`` is the version that was named last and is
not retired.
"""

from __future__ import annotations

import getpass
import re
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from recipe_registry import documents, durable, home, locks
from recipe_registry.digests import hex_of
from recipe_registry.errors import DamagedName, NameTaken, UnknownName
from recipe_registry.name_log import EventKind, NameEvent, latest_of, merged_events, parse_event

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

LATEST = "latest"
RESULT_FILE = "result.json"
EVENTS_FILE = "events.jsonl"
_LOCK_FILE = ".lock"
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")


@dataclass(frozen=True, slots=True)
class NamedResult:
    """What a version stands for.

    Attributes:
        name: such as ``support-bot``.
        version: such as ``1.2``.
        run: id of the run that made it.
        artifacts: node -> digest of the artifact, of every node that trained.
        recipe_file: name of the recipe in :attr:`folder`.
        folder: where its recipe is.
        stages: what it was promoted to, the last first.
        retired: whether it was taken out of use; it can still be used by its version.
    """

    name: str
    version: str
    run: str
    artifacts: Mapping[str, str]
    recipe_file: str
    folder: Path
    stages: tuple[str, ...] = ()
    retired: bool = False

    @property
    def reference(self) -> str:
        """Name and version as people write them."""
        return f"{self.name}:{self.version}"

    def to_json(self) -> dict[str, Any]:
        """The document on disk."""
        return {
            "schema_version": documents.SCHEMA_VERSION,
            "name": self.name,
            "version": self.version,
            "run": self.run,
            "artifacts": dict(self.artifacts),
            "recipe_file": self.recipe_file,
        }


def is_name(text: str) -> bool:
    """Whether a result can have this name."""
    return _NAME.fullmatch(text) is not None


def is_version(text: str) -> bool:
    """Whether a result can have this version."""
    return _VERSION.fullmatch(text) is not None


def split_reference(reference: str) -> tuple[str, str]:
    """Name and version of ``support-bot:1.2``; the version is ``latest`` where none is given.

    Raises:
        ValueError: it is no such reference; the message is a clause that says what was expected.
    """
    name, colon, version = reference.partition(":")
    version = version if colon else LATEST
    if not is_name(name) or not is_version(version):
        raise ValueError("expected name:version, such as support-bot:1.2, in small letters, digits, dots and dashes")
    return name, version


class NameStore:
    """The named results of one registry.

    Args:
        folder: the registry's.
        now: the clock of events, UTC.
    """

    def __init__(self, folder: Path, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._home = folder
        self._names = folder / "names"
        self._now = now

    def add(self, result: NamedResult, recipe: Mapping[str, bytes]) -> NamedResult:
        """Name a result. Naming the same result again changes nothing.

        Args:
            result: its folder is not looked at.
            recipe: files that give the recipe in any folder: name -> bytes.

        Raises:
            NameTaken: the version stands for another result, or is ``latest``, which moves by itself.
            StoreNotWritable: the disk or a permission forbids it.
        """
        if result.version == LATEST:
            raise NameTaken("latest is always the version that was named last.", "Give a version, such as 1.0.")
        folder = self._names / result.name
        home.create(self._home)
        with locks.exclusive(folder / _LOCK_FILE):
            if (folder / result.version).is_dir():
                self._check_same(result)
            else:
                self._write(folder / result.version, {**recipe, RESULT_FILE: documents.encode_file(result.to_json())})
            # A process that was killed between the two lines above and this one left a version without an event.
            if all(event.version != result.version for event in self.events(result.name)):
                self._note(result.name, "named", result.version)
        return self.get(result.name, result.version)

    def adopt(self, name: str, version: str, files: Mapping[str, bytes], events: Sequence[str]) -> NamedResult:
        """Take in a version that another registry has, with what happened to its name there.

        Args:
            name: of the result.
            version: of the result.
            files: what :meth:`files` gave there.
            events: what :meth:`event_lines` gave there.

        Raises:
            NameTaken: the version stands for another result here.
            DamagedName: the files are not those of the version.
            StoreNotWritable: the disk or a permission forbids it.
        """
        folder = self._names / name
        home.create(self._home)
        theirs = read_result(files.get(RESULT_FILE, b""), name, version, folder / version)
        with locks.exclusive(folder / _LOCK_FILE):
            if (folder / version).is_dir():
                self._check_same(theirs)
            else:
                self._write(folder / version, files)
            lines = merged_events(self.event_lines(name), events)
            durable.write_bytes(folder / EVENTS_FILE, "".join(f"{line}\n" for line in lines).encode())
        return self.get(name, version)

    def check(self, result: NamedResult) -> None:
        """Look whether a version of another registry can be taken in.

        Raises:
            NameTaken: it stands for another result here.
        """
        if (self._names / result.name / result.version).is_dir():
            self._check_same(result)

    def files(self, result: NamedResult) -> dict[str, Path]:
        """Everything that is kept of a version: path in its folder -> file."""
        paths = (path for path in sorted(result.folder.rglob("*")) if path.is_file())
        return {path.relative_to(result.folder).as_posix(): path for path in paths}

    def event_lines(self, name: str) -> list[str]:
        """What happened to a name's versions, a line of JSON each; lines that a kill tore are left out."""
        try:
            lines = (self._names / name / EVENTS_FILE).read_bytes().splitlines()
        except (FileNotFoundError, NotADirectoryError):
            return []
        return [line.decode() for line in lines if parse_event(line) is not None]

    def get(self, name: str, version: str = LATEST) -> NamedResult:
        """The result of a name.

        Raises:
            UnknownName: there is none; what there is is named.
            DamagedName: it cannot be read.
            NewerFormat: a later version of this program wrote it.
        """
        if version == LATEST:
            version = latest_of(self.event_lines(name))
            if not version:
                raise UnknownName(f"There is no {name} in {self._home}.", self._known(name))
        folder = self._names / name / version
        try:
            data = (folder / RESULT_FILE).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            raise UnknownName(f"There is no {name}:{version} in {self._home}.", self._known(name)) from None
        return self._as_it_is_now(read_result(data, name, version, folder))

    def versions(self) -> Iterator[NamedResult]:
        """Every version of every name, by name, then in the order in which they were named."""
        for folder in sorted(self._names.iterdir()) if self._names.is_dir() else ():
            seen = [event.version for event in self.events(folder.name) if event.kind == "named"]
            there = {path.name for path in folder.iterdir() if path.is_dir()}
            for version in [*filter(there.__contains__, dict.fromkeys(seen)), *sorted(there.difference(seen))]:
                yield self.get(folder.name, version)

    def promote(self, name: str, version: str, stage: str) -> NamedResult:
        """Note that a version is what a stage such as ``production`` uses from now on.

        Raises:
            UnknownName: there is no such version.
            StoreNotWritable: the disk or a permission forbids it.
        """
        found = self.get(name, version)
        self._note(name, "promoted", found.version, stage)
        return self.get(name, found.version)

    def retire(self, name: str, version: str) -> NamedResult:
        """Take a version out of use: ``latest`` passes it over.

        Raises:
            UnknownName: there is no such version.
            StoreNotWritable: the disk or a permission forbids it.
        """
        found = self.get(name, version)
        self._note(name, "retired", found.version)
        return self.get(name, found.version)

    def events(self, name: str) -> list[NameEvent]:
        """What happened to a name's versions, in order; lines that a kill tore are left out."""
        return [event for line in self.event_lines(name) if (event := parse_event(line)) is not None]

    def _check_same(self, result: NamedResult) -> None:
        there = self.get(result.name, result.version)
        if there.artifacts != result.artifacts:
            raise NameTaken(
                f"{result.reference} is the result of run {there.run} already, and a version never changes.",
                "Give another version.",
            )

    def _write(self, final: Path, files: Mapping[str, bytes]) -> None:
        staging = final.with_name(f".{final.name}.tmp")
        durable.remove_tree(staging)
        for name, data in files.items():
            durable.make_directory((staging / name).parent)
            durable.write_bytes(staging / name, data)
        durable.commit_directory(staging, final)

    def _note(self, name: str, kind: EventKind, version: str, stage: str = "") -> None:
        at = self._now().isoformat(timespec="milliseconds")
        event = {"kind": kind, "version": version, "by": _user(), "at": at, "stage": stage}
        durable.append_line(self._names / name / EVENTS_FILE, documents.encode_json(event).decode())

    def _as_it_is_now(self, result: NamedResult) -> NamedResult:
        """With what was said of it since: a stage has one version at a time."""
        stages: dict[str, str] = {}
        retired = False
        for event in self.events(result.name):
            if event.kind == "promoted":
                stages.pop(event.stage, None)
                stages[event.stage] = event.version
            elif event.kind == "retired":
                retired = retired or event.version == result.version
        mine = [stage for stage, version in stages.items() if version == result.version]
        return replace(result, stages=tuple(reversed(mine)), retired=retired)

    def _known(self, name: str) -> str:
        there = [result.reference for result in self.versions() if result.name == name]
        if there:
            return f"There is {', '.join(there)}."
        names = sorted(path.name for path in self._names.iterdir()) if self._names.is_dir() else []
        return f"There is {', '.join(names)}." if names else "Name a result with: recipe registry tag RUN NAME:VERSION"


def read_result(data: bytes, name: str, version: str, folder: Path) -> NamedResult:
    """The record of a version.

    Args:
        data: of its file.
        name: that it must have.
        version: that it must have.
        folder: where it is.

    Raises:
        DamagedName: it is none, or another's.
        NewerFormat: a later version of this program wrote it.
    """
    try:
        document = documents.parse(data, folder / RESULT_FILE)
        if (document["name"], document["version"]) != (name, version):
            raise ValueError("it is about another result")
        artifacts = {node: f"sha256:{hex_of(digest)}" for node, digest in document["artifacts"].items()}
        return NamedResult(name, version, document["run"], artifacts, document["recipe_file"], folder)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedName(f"{folder / RESULT_FILE} cannot be used.", "Pull it again, or remove it.") from error


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a user id without a name, as in containers
        return "unknown"
