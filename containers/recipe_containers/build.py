"""Build an image: base, libraries, archive. The same inputs give the same image ID, on any machine."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from recipe_containers.archive import Image, make_image, tag_of, write_archive
from recipe_containers.bytecode import compile_libraries, find_interpreter
from recipe_containers.debian import Base, make_base
from recipe_containers.errors import BuildFailed
from recipe_containers.image_lock import LockedImage, locked
from recipe_containers.layers import libraries_layer
from recipe_containers.public_base import fetch_base
from recipe_containers.sbom import bill_of_materials
from recipe_containers.unpacked import unpack_python
from recipe_containers.wheels import fetch, unpack
from recipe_containers.work import work_folder

if TYPE_CHECKING:
    from collections.abc import Sequence

    from recipe_containers.definition import Definition
    from recipe_containers.progress import Tell
    from recipe_containers.reference import ImageReference
    from recipe_containers.wheels import Wheel

_ROOM = 6
"""Bytes that a build needs for each byte of its wheels, at most: unpacked, packed, and in the archive."""
_BASE_ROOM = 2 << 30


@dataclass(frozen=True, slots=True)
class Choices:
    """What a build leaves open.

    Attributes:
        output: folder for the archive and the bill of materials.
        base: a public image to build on, fetched by the engine; ``None`` for Debian made here.
        mirrors: of Debian, as lines of ``sources.list``; none for the usual ones.
        wheels: folder that keeps the files of libraries between builds.
    """

    output: Path
    base: ImageReference | None = None
    mirrors: tuple[str, ...] = ()
    wheels: Path | None = None


@dataclass(frozen=True, slots=True)
class Built:
    """A finished image.

    Attributes:
        locked: its digests and what they came from.
        archive: the file that ``docker load`` reads.
        bill: the file with the bill of materials.
        tag: the name that engines show.
    """

    locked: LockedImage
    archive: Path
    bill: Path
    tag: str


def cache_folder() -> Path:
    """Where wheels and images are kept, unless told otherwise: ``recipe-engine`` in the user's cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "recipe-engine"


def build(definition: Definition, choices: Choices, tell: Tell) -> Built:
    """Build an image and write its archive. After the libraries are fetched, nothing asks the network for them.

    Raises:
        BuildFailed: a tool, a file or space is missing here.
        ContainerError: the engine does not give the public base.
    """
    wheels = fetch(definition, choices.wheels or cache_folder() / "wheels", tell)
    choices.output.mkdir(parents=True, exist_ok=True)
    with work_folder(_BASE_ROOM + _ROOM * sum(wheel.path.stat().st_size for wheel in wheels)) as work:
        base = fetch_base(choices.base, work, tell) if choices.base else make_base(work, choices.mirrors, tell)
        image = _assemble(definition, base, wheels, work, tell)
        return _write(definition, image, base, wheels, choices.output, tell)


def _assemble(definition: Definition, base: Base, wheels: Sequence[Wheel], work: Path, tell: Tell) -> Image:
    root, libraries = work / "root", work / "libraries"
    for folder in (root, libraries):
        folder.mkdir()
    unpack_python(base.layers, root)
    unpack(wheels, libraries, tell)
    compile_libraries(libraries, find_interpreter(root), tell)
    layer = libraries_layer(libraries, work / "libraries.tar", tell)
    shutil.rmtree(libraries)
    return make_image(definition, (*base.layers, layer), wheels, base.reference)


def _write(
    definition: Definition, image: Image, base: Base, wheels: Sequence[Wheel], output: Path, tell: Tell
) -> Built:
    tag = tag_of(definition.name, image.image_id)
    archive = output / f"{tag.replace(':', '-')}.tar"
    bill = archive.with_suffix(".cdx.json")
    partial = archive.with_suffix(".partial")
    try:
        with partial.open("wb") as stream:
            write_archive(image, tag, stream, tell)
        partial.replace(archive)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise BuildFailed(f"The archive cannot be written to {output}: {error.strerror}.", "Make room there.") from None
    document = json.dumps(bill_of_materials(definition, image, base, wheels), indent=2) + "\n"
    bill.write_text(document, encoding="utf-8")
    return Built(locked(definition, image, base, wheels), archive, bill, tag)
