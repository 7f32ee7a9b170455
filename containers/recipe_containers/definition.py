"""The images that this package can build. What they hold stands in the files of ``definitions/``."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent / "definitions"
SUITE = "bookworm"
"""The release of Debian that images stand on; its Python is the one that the locks are made for."""
PYTHON = "3.11"
SITE_PACKAGES = "/opt/recipe/site-packages"
"""Where the libraries are in an image; its ``PYTHONPATH`` names this folder alone."""
SOURCES = ("rouge-score",)
"""Libraries that their authors release as sources alone."""
USER = 65532
"""Number of the user, and of the group, that an image runs as: "nonroot", as in distroless images."""
CREATED = 1767225600
"""Seconds since the epoch that images and what is in them claim to be from: 2026-01-01T00:00:00Z, whenever built."""
_PIN = re.compile(r"^(?P<name>[A-Za-z0-9._-]+)==(?P<version>\S+)")
_HASH = re.compile(r"--hash=sha256:(?P<digest>[0-9a-f]{64})")


@dataclass(frozen=True, slots=True)
class Library:
    """One line of a lock.

    Attributes:
        name: normalised, as in PEP 503.
        version: exactly this one.
        hashes: sha256 of every file of it that will do, in hexadecimal.
    """

    name: str
    version: str
    hashes: frozenset[str]


@dataclass(frozen=True, slots=True)
class Definition:
    """An image that can be built.

    Attributes:
        name: what commands call it.
        title: one line about it.
        download: bytes of the wheels that its lock pins, for x86-64.
        driver_floor: oldest version of NVIDIA's driver that it works with; ``None`` where it needs none.
        folder: where its lock is.
    """

    name: str
    title: str
    download: int
    driver_floor: str | None = None
    folder: Path = FOLDER

    @property
    def lock(self) -> Path:
        """The file that pins its libraries."""
        return self.folder / f"{self.name}.lock"

    @property
    def lock_sha256(self) -> str:
        """Of the file's bytes, in hexadecimal."""
        return hashlib.sha256(self.lock.read_bytes()).hexdigest()

    def libraries(self) -> tuple[Library, ...]:
        """What the lock pins, by name."""
        return read_lock(self.lock.read_text(encoding="utf-8"))


DEFINITIONS = {
    definition.name: definition
    for definition in (
        Definition("cpu", "Libraries for training on the processor", download=370_000_000),
        # CUDA 13.0: NVIDIA, "CUDA Toolkit Release Notes", table "CUDA Toolkit and Corresponding Driver Versions".
        Definition("cuda", "Libraries for training on NVIDIA GPUs", download=2_910_000_000, driver_floor="580.65.06"),
    )
}
"""Name -> image."""


def base_packages() -> tuple[str, ...]:
    """The packages that Debian's minimal system gets in addition."""
    return tuple((FOLDER / "base.packages").read_text(encoding="utf-8").split())


def read_lock(text: str) -> tuple[Library, ...]:
    """The pins of a lock that ``uv pip compile --generate-hashes`` wrote, by name."""
    found = []
    for line in text.replace("\\\n", " ").splitlines():
        if pin := _PIN.match(line):
            hashes = frozenset(match["digest"] for match in _HASH.finditer(line))
            found.append(Library(normalised(pin["name"]), pin["version"], hashes))
    return tuple(sorted(found, key=lambda library: library.name))


def normalised(name: str) -> str:
    """A project's name in the one spelling that compares (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()
