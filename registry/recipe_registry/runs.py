"""The runs of a registry: their records, events and recipes."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from recipe_registry import documents, durable, home, record
from recipe_registry.errors import AmbiguousRun, RegistryError, UnknownRun
from recipe_registry.index import RunIndex
from recipe_registry.record import RUN_FILE, RunRecord

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

__all__ = ["RunRecord", "RunStore"]

LATEST = "latest"
EVENTS_FILE = "events.jsonl"
RECIPE_FILES = ("recipe.toml", "recipe.json")
MAX_CANDIDATES_SHOWN = 10


def _now() -> datetime:
    return datetime.now(UTC)


class RunStore:
    """The runs of one registry.

    Reading never creates a folder; the first write creates what it needs.

    Args:
        home: the registry's folder.
        now: the clock that ids are made from, UTC.
    """

    def __init__(self, home: Path, now: Callable[[], datetime] = _now) -> None:
        self._home = home
        self._runs = home / "runs"
        self._now = now
        self.index = RunIndex(home)

    def new_id(self) -> str:
        """A new id, ``"20261124-064512-3f9a"``, and its directory; ids sort by time.

        The four digits are the fraction of the second in units of 1/65536, so runs of one second sort too.

        Raises:
            StoreNotWritable: the disk or a permission forbids it.
        """
        home.create(self._home)
        durable.make_directory(self._runs)
        while True:
            moment = self._now()
            run_id = f"{moment:%Y%m%d-%H%M%S}-{moment.microsecond * 65536 // 1_000_000:04x}"
            try:
                durable.create_directory(self._runs / run_id)
            except FileExistsError:
                # Another process took the same instant; the clock has moved on.
                continue
            return run_id

    def directory(self, run_id: str) -> Path:
        """The folder of a run, whether it exists or not.

        Raises:
            UnknownRun: this is no id of a run.
        """
        if not record.ID.fullmatch(run_id):
            raise UnknownRun(f"{run_id!r} is not the id of a run.", "List the runs to see their ids.")
        return self._runs / run_id

    def save(self, record: RunRecord) -> None:
        """Write a record, in place of the run's former one.

        Raises:
            StoreNotWritable: the disk or a permission forbids it.
        """
        directory = self.directory(record.id)
        home.create(self._home)
        durable.make_directory(directory)
        durable.write_json(directory / RUN_FILE, record.to_json())
        self.index.add(record)

    def load(self, run_id: str) -> RunRecord:
        """The record of a run.

        Raises:
            UnknownRun: there is none.
            DamagedRun: it is unreadable.
            NewerFormat: a later version of this program wrote it.
        """
        return record.read(self.directory(run_id) / RUN_FILE)

    def resolve(self, prefix_or_latest: str) -> RunRecord:
        """The run that a user means: a whole id, the beginning of one, or ``"latest"`` (whatever its status).

        Raises:
            UnknownRun: nothing fits; the closest ids are named.
            AmbiguousRun: several fit; they are listed.
            DamagedRun: it is unreadable.
            NewerFormat: a later version of this program wrote it.
        """
        if record.ID.fullmatch(prefix_or_latest) and (self._runs / prefix_or_latest / RUN_FILE).exists():
            return self.load(prefix_or_latest)
        if prefix_or_latest == LATEST:
            latest = self.index.latest()
            if latest is None:
                raise UnknownRun(f"There are no runs in {self._home} yet.")
            return self.load(latest.id)
        rows = self.index.by_prefix(prefix_or_latest)
        if len(rows) > 1:
            shown = ", ".join(f"{row.id} ({row.name}, {row.status})" for row in rows[:MAX_CANDIDATES_SHOWN])
            more = f" and {len(rows) - MAX_CANDIDATES_SHOWN} more" if len(rows) > MAX_CANDIDATES_SHOWN else ""
            message = f"{prefix_or_latest!r} fits {len(rows)} runs: {shown}{more}."
            raise AmbiguousRun(message, "Give more of the id.")
        if not rows:
            raise UnknownRun(f"There is no run {prefix_or_latest!r}.", self._closest(prefix_or_latest))
        return self.load(rows[0].id)

    def list(self, limit: int | None = None) -> list[RunRecord]:
        """Records, newest first, at most ``limit`` of them; unreadable ones are left out."""
        records = []
        for row in self.index.newest(limit):
            try:
                records.append(self.load(row.id))
            except RegistryError:
                # Removed or damaged since the index looked.
                continue
        return records

    def append_event(self, run_id: str, event: Mapping[str, Any], *, sync: bool = False) -> None:
        """Append an event to a run's log.

        A killed process loses none; after a power cut the last may be missing, unless ``sync``.

        Args:
            run_id: the run; its directory exists.
            event: a JSON object; a number that JSON cannot hold becomes text.
            sync: wait until the disk has it.

        Raises:
            UnknownRun: the run has no directory.
            StoreNotWritable: the disk or a permission forbids it.
        """
        line = documents.encode_json(documents.json_safe(event)).decode("utf-8")
        durable.append_line(self._existing(run_id) / EVENTS_FILE, line, sync=sync)

    def events(self, run_id: str) -> Iterator[dict[str, Any]]:
        """The events of a run in the order they were written; lines that a kill tore are left out.

        Raises:
            UnknownRun: the run has no directory.
        """
        return _read_events(self._existing(run_id) / EVENTS_FILE)

    def save_recipe(self, run_id: str, file_name: str, data: bytes) -> Path:
        """Keep the exact bytes of a run's recipe.

        Args:
            run_id: the run; its directory exists.
            file_name: the recipe's; only its suffix counts, ``.json`` or else TOML.
            data: the bytes.

        Raises:
            UnknownRun: the run has no directory.
            StoreNotWritable: the disk or a permission forbids it.
        """
        path = self._existing(run_id) / RECIPE_FILES[file_name.lower().endswith(".json")]
        durable.write_bytes(path, data)
        return path

    def recipe_file(self, run_id: str) -> Path | None:
        """Where a run's recipe is kept, None where it was not.

        Raises:
            UnknownRun: this is no id of a run.
        """
        directory = self.directory(run_id)
        return next((path for name in RECIPE_FILES if (path := directory / name).is_file()), None)

    def _existing(self, run_id: str) -> Path:
        directory = self.directory(run_id)
        if not directory.is_dir():
            raise UnknownRun(f"There is no run {run_id}.", "List the runs to see their ids.")
        return directory

    def _closest(self, text: str) -> str:
        import difflib  # noqa: PLC0415  # only a wrong id pays for it

        ids = [row.id for row in self.index.newest()]
        close = difflib.get_close_matches(text, ids, n=3, cutoff=0.5)
        if close:
            return f"Did you mean {' or '.join(close)}?"
        return f"The latest is {ids[0]}." if ids else "There are no runs yet."


def _read_events(path: Path) -> Iterator[dict[str, Any]]:
    if not path.exists():
        return
    with path.open("rb") as file:
        for line in file:
            try:
                event = json.loads(line)
            except ValueError:
                continue
            if isinstance(event, dict):
                yield event
