"""``images.lock.json``: what the images that this version stands for are, to the byte."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from recipe_containers.definition import FOLDER
from recipe_containers.errors import ImageMissing

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from recipe_containers.archive import Image
    from recipe_containers.debian import Base
    from recipe_containers.definition import Definition
    from recipe_containers.wheels import Wheel

PATH = FOLDER / "images.lock.json"
VERSION = 1


@dataclass(frozen=True, slots=True)
class LockedImage:
    """One image, and all that its bytes came from.

    Attributes:
        image_id: digest of the configuration.
        layers: digests of the uncompressed layers, the lowest first.
        manifest_digest: of the manifest that ``recipe containers push`` gives a registry.
        content: digest of what a process finds in it (``images.content_digest``).
        lock_sha256: of the definition's lock, in hexadecimal.
        driver_floor: oldest version of NVIDIA's driver; ``None`` where none is needed.
        base_reference: ``name@sha256:…`` of a public base; ``""`` for Debian made by mmdebstrap.
        base: Debian package -> ``{"version", "sha256"}`` of its file.
        packages: library -> version.
        wheels: library -> sha256 of its wheel, in hexadecimal.
    """

    image_id: str
    layers: tuple[str, ...]
    manifest_digest: str
    content: str
    lock_sha256: str
    driver_floor: str | None
    base_reference: str
    base: Mapping[str, Mapping[str, str]]
    packages: Mapping[str, str]
    wheels: Mapping[str, str]


def locked(definition: Definition, image: Image, base: Base, wheels: Sequence[Wheel]) -> LockedImage:
    """What the lock says of an image that was just built."""
    return LockedImage(
        image_id=image.image_id,
        layers=tuple(layer.digest for layer in image.layers),
        manifest_digest=image.manifest_digest,
        content=image.content,
        lock_sha256=definition.lock_sha256,
        driver_floor=definition.driver_floor,
        base_reference=base.reference,
        base={each.name: {"version": each.version, "sha256": each.sha256} for each in base.packages},
        packages={wheel.name: wheel.version for wheel in wheels},
        wheels={wheel.name: wheel.sha256 for wheel in wheels},
    )


def read_image_lock(path: Path = PATH) -> dict[str, LockedImage]:
    """Name -> image, of those that are locked."""
    if not path.exists():
        return {}
    images = json.loads(path.read_text(encoding="utf-8"))["images"]
    return {name: LockedImage(**{**values, "layers": tuple(values["layers"])}) for name, values in images.items()}


def write_image_lock(name: str, image: LockedImage, path: Path = PATH) -> None:
    """Put an image in the place of the one of the same name."""
    images = {**read_image_lock(path), name: image}
    document = {"schema_version": VERSION, "images": {each: asdict(images[each]) for each in sorted(images)}}
    text = json.dumps(document, indent=2, sort_keys=True) + "\n"
    partial = path.with_suffix(".partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def locked_image(name: str, path: Path = PATH) -> LockedImage:
    """The image of a name.

    Raises:
        ImageMissing: it was never built and locked.
    """
    found = read_image_lock(path).get(name)
    if found is None:
        raise ImageMissing(
            f"The image {name} is not locked: nobody has built it yet.",
            f"Build it: recipe containers build {name} --update-lock",
        )
    return found


def differences(old: LockedImage, new: LockedImage) -> list[str]:
    """What tells two images apart, the causes before the digests that follow from them; empty for one and the same."""
    found = []
    if old.base_reference != new.base_reference:
        found.append(f"base {old.base_reference or 'Debian'} -> {new.base_reference or 'Debian'}")
    found += _changes("Debian package", old.base, new.base)
    if old.lock_sha256 != new.lock_sha256:
        found.append("the lock of the libraries")
    found += _changes("library", _libraries(old), _libraries(new))
    if len(old.layers) != len(new.layers):
        found.append(f"number of layers {len(old.layers)} -> {len(new.layers)}")
    pairs = enumerate(zip(old.layers, new.layers, strict=False), 1)
    found += [f"layer {number} {was} -> {now}" for number, (was, now) in pairs if was != now]
    if old.image_id != new.image_id:
        found.append(f"image ID {old.image_id} -> {new.image_id}")
    return found


def _libraries(image: LockedImage) -> dict[str, dict[str, str]]:
    return {name: {"version": version, "sha256": image.wheels[name]} for name, version in image.packages.items()}


def _changes(kind: str, old: Mapping[str, Mapping[str, str]], new: Mapping[str, Mapping[str, str]]) -> Iterable[str]:
    for name in sorted({*old, *new}):
        was, now = old.get(name), new.get(name)
        if was is None or now is None:
            yield f"{kind} {name} {'is new' if was is None else 'is gone'}"
        elif was["version"] != now["version"]:
            yield f"{kind} {name} {was['version']} -> {now['version']}"
        elif was["sha256"] != now["sha256"]:
            yield f"{kind} {name} {was['version']} has other bytes"
