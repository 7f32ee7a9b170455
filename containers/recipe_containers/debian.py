"""The base of an image: a minimal Debian, made by Debian's own tool and freed of what names this machine."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tarfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from recipe_containers.definition import CREATED, SUITE, base_packages
from recipe_containers.errors import BuildFailed
from recipe_containers.layers import Layer, LayerWriter

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from recipe_containers.progress import Tell

_LISTS = "var/lib/apt/lists/"
_STATUS = "var/lib/dpkg/status"
# Files of this machine (its name, resolver, mirror), of this moment (logs, locks, caches), copies of older states.
_DROPPED_FILES = frozenset(
    {
        *("etc/hostname", "etc/resolv.conf", "etc/machine-id", ".dockerenv"),
        *("etc/apt/sources.list", "etc/apt/apt.conf.d/99mmdebstrap"),
    }
)
_EMPTIED_FOLDERS = (
    *("dev/", "proc/", "sys/", "run/", "tmp/", "var/log/", "var/tmp/", "var/cache/", _LISTS),
    "etc/apt/sources.list.d/",
)
_OLD = re.compile(r"etc/(passwd|group|shadow|gshadow|subuid|subgid)-|var/lib/dpkg/[a-z]+-old|var/lib/dpkg/lock(-.*)?")
_STEPS = 12
"""Lines that mmdebstrap writes about its progress."""


@dataclass(frozen=True, slots=True)
class Package:
    """One package of the base.

    Attributes:
        name: as Debian calls it.
        version: exactly.
        architecture: such as ``amd64`` or ``all``.
        sha256: of the ``.deb``, in hexadecimal; ``""`` where only the installed system is known.
    """

    name: str
    version: str
    architecture: str
    sha256: str = ""


@dataclass(frozen=True, slots=True)
class Base:
    """What the libraries are put on.

    Attributes:
        layers: the lowest first.
        packages: Debian's, by name.
        reference: ``name@sha256:…`` of a public image, ``""`` for a system that was made here.
    """

    layers: tuple[Layer, ...]
    packages: tuple[Package, ...]
    reference: str = ""


def can_make_base() -> bool:
    """Whether this machine has the tool for it."""
    return shutil.which("mmdebstrap") is not None


def make_base(work: Path, mirrors: Sequence[str], tell: Tell) -> Base:
    """Install a minimal Debian with the packages of ``base.packages``.

    Args:
        work: an empty folder; needs a gigabyte.
        mirrors: lines as in ``sources.list``, such as those of a snapshot archive; none for Debian's usual mirror.
        tell: is told the steps.

    Raises:
        BuildFailed: the tool is not installed, or it fails.
    """
    if not can_make_base():
        hint = "Install it (apt-get install mmdebstrap), or name a public image with --base NAME@sha256:…"
        raise BuildFailed("The tool mmdebstrap, which makes the base, is not installed.", hint)
    raw = work / "mmdebstrap.tar"
    command = [
        *("mmdebstrap", "--variant=minbase", "--format=tar", "--skip=cleanup/apt/lists"),
        *(f"--include={name}" for name in base_packages()),
        # Mirrors of a day in the past say that they have expired.
        *(('--aptopt=Acquire::Check-Valid-Until "false"',) if mirrors else ()),
        *(SUITE, str(raw), *mirrors),
    ]
    _run(command, {"SOURCE_DATE_EPOCH": str(CREATED), "TMPDIR": str(work)}, tell)
    base = scrub(raw, work / "base.tar", tell)
    raw.unlink()
    return base


def _run(command: list[str], variables: dict[str, str], tell: Tell) -> None:
    phase = "installing Debian"
    lines: list[str] = []
    environment = {**os.environ, **variables}
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            lines.append(line.strip())
            tell(phase, min(sum(each.startswith("I:") for each in lines), _STEPS), _STEPS)
    if process.returncode:
        errors = [line.removeprefix("E: ") for line in lines if line.startswith("E: ")]
        raise BuildFailed(
            f"mmdebstrap could not install Debian: {(errors or lines or ['no reason given'])[0]}.",
            "It needs a Debian mirror, and root or user namespaces; or name a public image with --base NAME@sha256:…",
        )


def scrub(raw: Path, target: Path, tell: Tell) -> Base:
    """Copy a system without what names this machine or this moment; say what is installed in it."""
    known: dict[tuple[str, str, str], str] = {}
    status = ""
    size = raw.stat().st_size
    with tarfile.open(raw) as source, LayerWriter(target, f"Debian {SUITE}") as writer:
        for member in source:
            name = member.name.removeprefix("./")
            if name.startswith(_LISTS) and name.endswith("_Packages"):
                known |= _known(_text(source, member))
            if name == _STATUS:
                status = _text(source, member)
            if name not in (".", "") and not _is_dropped(name, folder=member.isdir()):
                writer.tar.addfile(_header(member), source.extractfile(member) if member.isreg() else None)
            tell("cleaning Debian", member.offset, size)
    packages = tuple(
        Package(name, version, architecture, known.get((name, version, architecture), ""))
        for name, version, architecture in installed(status)
    )
    return Base((writer.layer(),), packages)


def _is_dropped(name: str, *, folder: bool) -> bool:
    if name in _DROPPED_FILES or _OLD.fullmatch(name):
        return True
    # Debian needs the folders: an empty one of them stays, and nothing below it.
    kept = f"{name}/" in _EMPTIED_FOLDERS and folder
    return not kept and name.startswith(_EMPTIED_FOLDERS)


def _text(source: tarfile.TarFile, member: tarfile.TarInfo) -> str:
    stream = source.extractfile(member)
    return stream.read().decode() if stream else ""


def _header(member: tarfile.TarInfo) -> tarfile.TarInfo:
    header = tarfile.TarInfo(member.name.removeprefix("./"))
    header.type, header.linkname = (
        member.type,
        member.linkname.removeprefix("./") if member.islnk() else member.linkname,
    )
    header.size, header.mode, header.uid, header.gid = member.size, member.mode, member.uid, member.gid
    header.mtime = min(int(member.mtime), CREATED)
    return header


def installed(status: str) -> list[tuple[str, str, str]]:
    """Name, version and architecture of what dpkg's status file says is installed, by name."""
    found = [
        (fields["Package"], fields["Version"], fields["Architecture"])
        for fields in map(_fields, status.split("\n\n"))
        if fields.get("Status") == "install ok installed"
    ]
    return sorted(found)


def _known(packages: str) -> dict[tuple[str, str, str], str]:
    entries: Any = map(_fields, packages.split("\n\n"))
    return {(each["Package"], each["Version"], each["Architecture"]): each["SHA256"] for each in entries if each}


def _fields(paragraph: str) -> dict[str, str]:
    """The one-line fields of a paragraph of Debian's control files."""
    pairs = (line.partition(": ") for line in paragraph.splitlines() if line[:1].strip())
    return {name: value.strip() for name, _, value in pairs}
