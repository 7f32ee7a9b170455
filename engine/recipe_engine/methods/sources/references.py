"""The grammar of the built-in sources' references."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

_SCHEMES = ("file:", "hub:", "wheel:")
_DATA_FILES = (".jsonl", ".json", ".csv", ".tsv", ".parquet", ".arrow", ".txt", ".gguf")
# What the Hub takes as the name of a model.
_HUB = re.compile(r"(?!.*(?:--|\.\.|\.git$))(?:\b[\w.-]+\b/)?\b[\w.-]{1,96}\b", re.ASCII)
_WHEEL = re.compile(
    r"(?P<project>[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)==(?P<version>[^/#\s]+)/(?P<path>[^#]+)"
    r"#sha256=(?P<sha256>[0-9a-f]{64})"
)


@dataclass(frozen=True, slots=True)
class WheelReference:
    """A file inside a wheel.

    Attributes:
        project: the distribution's name on the package index.
        version: exact.
        path: of the file inside the wheel.
        sha256: of the file, bare hexadecimal.
    """

    project: str
    version: str
    path: str
    sha256: str


def parse_wheel(name: str) -> WheelReference:
    """Read what follows ``wheel:``.

    Raises:
        ValueError: where it is not ``package==version/file#sha256=digest``.
    """
    match = _WHEEL.fullmatch(name)
    if match is None:
        raise ValueError(f'"wheel:{name}" is not package==version/file#sha256=<64 hexadecimal digits>')
    return WheelReference(**match.groupdict())


def check_wheel(name: str) -> str:
    """What is wrong with the reference, ``""`` where nothing is."""
    try:
        parse_wheel(name)
    except ValueError as error:
        return str(error)
    return ""


def check_file(name: str) -> str:
    """What is wrong with the reference, ``""`` where nothing is."""
    return "" if name.strip() and "\0" not in name else "the path after file: is missing"


def check_hub(name: str) -> str:
    """What is wrong with the reference, ``""`` where nothing is."""
    return "" if _HUB.fullmatch(name) else f'"hub:{name}" is not owner/name'


def check_repository(name: str) -> str:
    """What is wrong with the name of a repository that is written to, ``""`` where nothing is."""
    return "" if "/" in name and _HUB.fullmatch(name) else f'"{name}" is not owner/name, as the Hub takes them'


def reference_of(name: str, folder: Path) -> str:
    """The reference that somebody means who writes a path, or the name of a repository of the Hub.

    Args:
        name: relative to the current folder where it is a path; a reference stays as it is.
        folder: of the recipe, which relative paths in it start from.
    """
    if name.startswith(_SCHEMES):
        return name
    if name.startswith(("/", "~")):
        return f"file:{name}"
    if name.startswith(("./", "../")) or Path(name).suffix in _DATA_FILES or os.path.lexists(name.partition("\0")[0]):
        return f"file:{os.path.relpath(name, folder)}"
    return f"hub:{name}"
