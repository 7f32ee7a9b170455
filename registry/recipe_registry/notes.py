"""What people say about a run afterwards: tags and a note, in a file of their own beside ``run.json``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from recipe_registry import documents
from recipe_registry.errors import DamagedRun, InvalidTag

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

NOTES_FILE = "notes.json"
TAG = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,99}")


@dataclass(frozen=True, slots=True)
class RunNotes:
    """Tags and note of a run.

    Attributes:
        tags: sorted, each once.
        note: free text; empty where there is none.
    """

    tags: tuple[str, ...] = ()
    note: str = ""

    def changed(self, add: Iterable[str], remove: Iterable[str], note: str | None) -> RunNotes:
        """These notes with tags more and less, and another note unless it is None.

        Raises:
            InvalidTag: a tag has characters that tags do not have.
        """
        added = set(add)
        for tag in sorted(added):
            if not TAG.fullmatch(tag):
                hint = "A tag has up to 100 letters, digits and . _ : / @ + -, and begins with a letter or digit."
                raise InvalidTag(f"{tag!r} cannot be a tag.", hint)
        tags = (set(self.tags) | added) - set(remove)
        return RunNotes(tuple(sorted(tags)), self.note if note is None else note)

    def to_json(self) -> dict[str, Any]:
        """The document on disk."""
        return {"schema_version": documents.SCHEMA_VERSION, "tags": list(self.tags), "note": self.note}


def read(path: Path) -> RunNotes:
    """The notes in a file, empty where there is none.

    Raises:
        DamagedRun: it is unreadable.
        NewerFormat: a later version of this program wrote it.
    """
    try:
        document = documents.read(path)
        tags, note = document.get("tags"), document.get("note")
        if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags) or not isinstance(note, str):
            raise ValueError("it has no tags or no note")
    except (FileNotFoundError, NotADirectoryError):
        return RunNotes()
    except ValueError as error:
        raise DamagedRun(f"{path} cannot be used: {error}.", "Remove it to forget the notes.") from error
    return RunNotes(tuple(sorted(set(tags))), note)
