"""The files that a lock pins: fetched once, checked each time, laid out as they are imported."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from recipe_containers.definition import PYTHON, SOURCES, normalised
from recipe_containers.errors import BuildFailed, ImageDiffers
from recipe_containers.sources import as_wheel

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from recipe_containers.definition import Definition, Library
    from recipe_containers.progress import Tell

_OLDEST_GLIBC, _NEWEST_GLIBC = 5, 28
_TORCH_HINT = "torch's build for processors is not on the Python Package Index: name its index in PIP_EXTRA_INDEX_URL."
_EXECUTABLE = 0o100
_KEPT_DATA = ("purelib", "platlib")


@dataclass(frozen=True, slots=True)
class Wheel:
    """A file that the lock takes.

    Attributes:
        name: of the library, normalised.
        version: of the library.
        path: where the wheel is.
        sha256: of the file that the lock pins, in hexadecimal: the wheel, or the sources that it was made of.
    """

    name: str
    version: str
    path: Path
    sha256: str


def fetch(definition: Definition, folder: Path, tell: Tell) -> tuple[Wheel, ...]:
    """Have every file that a definition's lock pins; only what ``folder`` lacks comes from the network.

    Args:
        definition: whose lock.
        folder: where the files are kept between builds.
        tell: is told how many libraries there are, and how many are here.

    Raises:
        BuildFailed: pip does not find a file or cannot fetch it.
    """
    libraries = definition.libraries()
    found = find(libraries, folder)
    if len(found) < len(libraries):
        folder.mkdir(parents=True, exist_ok=True)
        _download(definition.lock, len(libraries), folder, tell)
        found = find(libraries, folder)
    missing = [library.name for library in libraries if library.name not in found]
    if missing:
        raise BuildFailed(f"pip fetched no file that the lock takes of {', '.join(missing)}.", _TORCH_HINT)
    return tuple(found[library.name] for library in libraries)


def find(libraries: Sequence[Library], folder: Path) -> dict[str, Wheel]:
    """Name -> the file in ``folder`` whose bytes the lock takes."""
    pinned = {(library.name, library.version): library.hashes for library in libraries}
    found: dict[str, Wheel] = {}
    for path in sorted((*folder.glob("*.whl"), *folder.glob("*.tar.gz"))):
        name, version = path.name.removesuffix(".tar.gz").split("-")[:2]
        hashes = pinned.get((normalised(name), version))
        if hashes is not None:
            with path.open("rb") as stream:
                digest = hashlib.file_digest(stream, "sha256").hexdigest()
            if digest in hashes:
                wheel = path if path.suffix == ".whl" else as_wheel(path)
                found[normalised(name)] = Wheel(normalised(name), version, wheel, digest)
    return found


def _download(lock: Path, total: int, folder: Path, tell: Tell) -> None:
    # For the Python and the glibc of the image, whatever this machine has.
    platforms = [f"--platform=manylinux_2_{minor}_x86_64" for minor in range(_NEWEST_GLIBC, _OLDEST_GLIBC - 1, -1)]
    command = [
        *(sys.executable, "-m", "pip", "download", "--no-input", "--disable-pip-version-check", "--progress-bar=off"),
        *("--require-hashes", "--no-deps", f"--python-version={PYTHON}", "--implementation=cp"),
        *("--only-binary=:all:", f"--no-binary={','.join(SOURCES)}"),
        *platforms,
        *("--dest", str(folder), "--requirement", str(lock)),
    ]
    phase = "fetching libraries"
    tell(phase, 0, total)
    lines: list[str] = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as pip:
        assert pip.stdout is not None
        for line in pip.stdout:
            lines.append(line.strip())
            if line.startswith("Collecting "):
                tell(phase, sum(each.startswith("Collecting ") for each in lines) - 1, total)
    if pip.returncode:
        errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
        hint = _TORCH_HINT if any("torch==" in error for error in errors) else "Run it again once the index answers."
        raise BuildFailed(f"pip could not fetch the libraries: {(errors or lines or ['no reason given'])[-1]}", hint)
    tell(phase, total, total)


def unpack(wheels: Iterable[Wheel], folder: Path, tell: Tell) -> None:
    """Lay wheels out in one folder, as pip's ``--target`` does, but without anything that names this machine.

    Commands, headers and manuals of a wheel stay away: an image has modules alone. Source: "Binary distribution
    format" of the Python Packaging User Guide, "Installing a wheel".

    Raises:
        ImageDiffers: a wheel would write outside of the folder.
    """
    wheels = tuple(wheels)
    total = sum(wheel.path.stat().st_size for wheel in wheels)
    done = 0
    for wheel in wheels:
        tell("unpacking libraries", done, total)
        with zipfile.ZipFile(wheel.path) as archive:
            for entry in archive.infolist():
                place = _place(entry.filename)
                if place is not None and not entry.is_dir():
                    _write(archive, entry, folder / place)
        done += wheel.path.stat().st_size
    tell("unpacking libraries", total, total)


def _place(name: str) -> PurePosixPath | None:
    """Where an entry goes; ``None`` for what an image does without."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        raise ImageDiffers(f"A wheel holds {name}, which would be written outside of the image.")
    if not re.fullmatch(r"[^/]+\.data", path.parts[0]):
        return path
    if len(path.parts) < 3 or path.parts[1] not in _KEPT_DATA:
        return None
    return PurePosixPath(*path.parts[2:])


def _write(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with archive.open(entry) as source, path.open("wb") as target:
        while block := source.read(1 << 20):
            target.write(block)
    path.chmod(0o755 if entry.external_attr >> 16 & _EXECUTABLE else 0o644)
