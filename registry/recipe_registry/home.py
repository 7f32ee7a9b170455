"""The folder that holds a registry: its format marker, checked before anything else is believed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from recipe_registry import documents, durable
from recipe_registry.errors import RegistryError, writing

if TYPE_CHECKING:
    from pathlib import Path

FORMAT_FILE = "format.json"


def check(home: Path) -> None:
    """Refuse a home that this version must not touch; a missing or unmarked folder is fine.

    Raises:
        NewerFormat: a later version of this program wrote it.
        RegistryError: its marker is unreadable, or ``home`` is a file.
        StoreNotWritable: it may not even be looked at.
    """
    marker = home / FORMAT_FILE
    try:
        with writing(home):
            if home.exists() and not home.is_dir():
                raise RegistryError(f"{home} is a file, not a folder.", "Point RECIPE_HOME at a folder.")
            documents.read(marker)
    except FileNotFoundError:
        return
    except ValueError as error:
        raise RegistryError(f"{marker} cannot be used: {error}.", "Restore it, or use another RECIPE_HOME.") from error


def create(home: Path) -> None:
    """Make the folder and its marker if they are missing, and check them if they are there.

    Raises:
        NewerFormat: a later version of this program wrote it.
        RegistryError: its marker is unreadable, or ``home`` is a file.
        StoreNotWritable: it cannot be created.
    """
    check(home)
    if not (home / FORMAT_FILE).exists():
        durable.make_directory(home)
        durable.write_json(home / FORMAT_FILE, {"schema_version": documents.SCHEMA_VERSION})
