"""The runs of a registry: their records, events, recipes and notes."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING, Any

from recipe_registry import documents, durable, home, locks, notes, record
from recipe_registry.errors import AmbiguousRun, RegistryError, UnknownRun
from recipe_registry.index import RunIndex
from recipe_registry.notes import NOTES_FILE, RunNotes
from recipe_registry.record import RUN_FILE, RunRecord
from recipe_registry.running import RunLocks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from recipe_registry.query import RunQuery, RunRow

__all__ = ["RunNotes", "RunRecord", "RunStore"]

LATEST = "latest"
EVENTS_FILE = "events.jsonl"
RECIPE_FILES = ("recipe.toml", "recipe.json")
MAX_CANDIDATES_SHOWN = 10
MAX_IDS_COMPARED = 2000


def _now() -> datetime:
    return datetime.now(UTC)


class RunStore:
    """The runs of one registry.

    Reading never creates a folder; the first write creates what it needs.

    Args:
        home: the registry's folder.
        now: the clock that ids are made from, UTC.
        index_url: of the database that has the index, see :class:`RunIndex`.

    Raises:
        IndexUnavailable: the URL is of a kind that makes no sense.
    """

    def __init__(self, home: Path, now: Callable[[], datetime] = _now, index_url: str | None = None) -> None:
        self._home = home
        self._runs = home / "runs"
        self._now = now
        self._running = RunLocks(self._runs)
        self.index = RunIndex(home, index_url)

    def new_id(self) -> str:
        """A new id, ``"20261124-064512-3f9a"``, and its directory; ids sort by time.

        The four digits are the fraction of the second in units of 1/65536, so runs of one second sort too.
        The run counts as running until a record says otherwise or this process ends.

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
            self._running.hold(run_id)
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
        """Write a record, in place of the run's former one. An index that is away is no error: it learns it later.

        Raises:
            StoreNotWritable: the disk or a permission forbids it.
        """
        directory = self.directory(record.id)
        home.create(self._home)
        durable.make_directory(directory)
        with self.index.change(record.id):
            durable.write_json(directory / RUN_FILE, record.to_json())
        is_running = record.status == "running"
        # Whoever uses the index of this folder sees the mark; a run that begins does not wait for a library to load.
        self.index.record(at_once=not is_running)
        if not is_running:
            self._running.release(record.id)

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
            latest = next(self.newest(), None)
            if latest is None:
                raise UnknownRun(f"There are no runs in {self._home} yet.")
            return latest
        rows = self._present(lambda: self.index.by_prefix(prefix_or_latest))
        if len(rows) > 1:
            shown = ", ".join(f"{row.id} ({row.name}, {row.status})" for row in rows[:MAX_CANDIDATES_SHOWN])
            more = f" and {len(rows) - MAX_CANDIDATES_SHOWN} more" if len(rows) > MAX_CANDIDATES_SHOWN else ""
            message = f"{prefix_or_latest!r} fits {len(rows)} runs: {shown}{more}."
            raise AmbiguousRun(message, "Give more of the id.")
        if not rows:
            raise UnknownRun(f"There is no run {prefix_or_latest!r}.", self._closest(prefix_or_latest))
        return self.load(rows[0].id)

    def newest(self) -> Iterator[RunRecord]:
        """Records, newest first, each read when it is asked for; unreadable ones are left out.

        The first ones are found without the database of the index.
        """
        ids, is_all = self.index.recent()
        yield from self._readable(ids)
        if not is_all:
            yield from self._readable(self.index.older(ids[-1]))

    def list(self, limit: int | None = None) -> list[RunRecord]:
        """Records, newest first, at most ``limit`` of them; unreadable ones are left out."""
        return list(islice(self.newest(), limit))

    def find(self, query: RunQuery) -> Sequence[RunRow]:
        """The lines of the runs that a query asks for.

        Raises:
            NewerFormat: a later version of this program made the tables of the index.
        """
        return self._present(lambda: self.index.select(query))

    def notes(self, run_id: str) -> RunNotes:
        """Tags and note of a run, empty where it has none.

        Raises:
            UnknownRun: the run has no directory.
            DamagedRun: they are unreadable.
            NewerFormat: a later version of this program wrote them.
        """
        return notes.read(self._existing(run_id) / NOTES_FILE)

    def annotate(
        self, run_id: str, *, add: Iterable[str] = (), remove: Iterable[str] = (), note: str | None = None
    ) -> RunNotes:
        """Give a run tags, take some away, write its note.

        Args:
            run_id: the run; it may be running.
            add: tags.
            remove: tags; one that the run does not have is fine.
            note: in place of the former one; None keeps that.

        Returns:
            What the run has now.

        Raises:
            InvalidTag: a tag has characters that tags do not have.
            UnknownRun: the run has no directory.
            DamagedRun: its notes are unreadable.
            StoreNotWritable: the disk or a permission forbids it.
        """
        directory = self._existing(run_id)
        with locks.exclusive(self._home / "notes.lock"):
            changed = notes.read(directory / NOTES_FILE).changed(add, remove, note)
            with self.index.change(run_id):
                durable.write_json(directory / NOTES_FILE, changed.to_json())
        self.index.record()
        return changed

    def check_idle(self, run_id: str) -> None:
        """Refuse a run that a process of this machine is at. One that was killed is idle, whatever its record says.

        Raises:
            UnknownRun: the run has no directory.
            BusyRun: it is still running.
        """
        with self._running.idle(run_id):
            pass

    def delete(self, run_id: str) -> None:
        """Forget a run: record, events, recipe, notes. Its artifacts stay.

        Raises:
            UnknownRun: the run has no directory.
            BusyRun: it is still running, see :meth:`check_idle`.
            StoreNotWritable: the disk or a permission forbids it.
        """
        directory = self.directory(run_id)
        with self._running.idle(run_id), self.index.change(run_id):
            durable.make_directory(self._home / "tmp")
            # A leftover there is cleared with those of artifacts.
            aside = self._home / "tmp" / f"deleted-{run_id}-{os.urandom(4).hex()}"
            if durable.move_aside(directory, aside):
                durable.remove_tree(aside)
        self.index.record()

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

        ids = self.index.older(None)[:MAX_IDS_COMPARED]
        close = difflib.get_close_matches(text, ids, n=3, cutoff=0.5)
        if close:
            return f"Did you mean {' or '.join(close)}?"
        return f"The latest is {ids[0]}." if ids else "There are no runs yet."

    def _readable(self, ids: Iterable[str]) -> Iterator[RunRecord]:
        for run_id in ids:
            try:
                yield self.load(run_id)
            except RegistryError:
                # Removed or damaged since the index looked, or marked and not yet written.
                continue

    def _present(self, ask: Callable[[], Sequence[RunRow]]) -> Sequence[RunRow]:
        """The rows of the index without those whose run somebody removed by hand, which it forgets."""
        rows = ask()
        gone = [row.id for row in rows if not self._is_there(row.id)]
        if not gone:
            return rows
        self.index.forget(gone)
        return [row for row in ask() if self._is_there(row.id)]

    def _is_there(self, run_id: str) -> bool:
        return (self._runs / run_id / RUN_FILE).exists()


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
