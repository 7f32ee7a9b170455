"""What is in an image, as a CycloneDX 1.5 bill of materials. The same image gives the same bytes."""

from __future__ import annotations

import uuid
import zipfile
from email.parser import HeaderParser
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from recipe_containers.definition import SUITE

if TYPE_CHECKING:
    from collections.abc import Sequence
    from email.message import Message

    from recipe_containers.archive import Image
    from recipe_containers.debian import Base, Package
    from recipe_containers.definition import Definition
    from recipe_containers.wheels import Wheel

_NAMESPACE = uuid.UUID("6ba7b812-9dad-11d1-80b4-00c04fd430c8")
"""For names that are object identifiers (RFC 4122, appendix C)."""
_LICENSE_CLASSIFIER = "License :: "
_LONGEST_NAME = 100
"""Some projects put the whole text of their licence where its name belongs."""


def bill_of_materials(definition: Definition, image: Image, base: Base, wheels: Sequence[Wheel]) -> dict[str, Any]:
    """List Debian's packages and the libraries with versions, hashes and, where it is said, licences.

    Source: CycloneDX 1.5 JSON reference.
    """
    component = {"type": "container", "name": f"recipe-{definition.name}", "version": image.image_id}
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.5.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "serialNumber": f"urn:uuid:{uuid.uuid5(_NAMESPACE, image.image_id)}",
        "version": 1,
        "metadata": {"component": component},
        "components": [*map(_package, base.packages), *map(_library, wheels)],
    }


def _package(package: Package) -> dict[str, Any]:
    version = quote(package.version, safe="")
    name = quote(package.name, safe="")
    purl = f"pkg:deb/debian/{name}@{version}?arch={package.architecture}&distro={SUITE}"
    return _component(purl, package.name, package.version, package.sha256)


def _library(wheel: Wheel) -> dict[str, Any]:
    found = _component(
        f"pkg:pypi/{wheel.name}@{quote(wheel.version, safe='')}", wheel.name, wheel.version, wheel.sha256
    )
    licence = _licence(_metadata(wheel))
    return {**found, "licenses": licence} if licence else found


def _component(purl: str, name: str, version: str, sha256: str) -> dict[str, Any]:
    found = {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}
    return {**found, "hashes": [{"alg": "SHA-256", "content": sha256}]} if sha256 else found


def _metadata(wheel: Wheel) -> Message:
    with zipfile.ZipFile(wheel.path) as archive:
        # The top one: some libraries carry others inside, with their metadata.
        name = next(
            each for each in archive.namelist() if each.endswith(".dist-info/METADATA") and each.count("/") == 1
        )
        return HeaderParser().parsestr(archive.read(name).decode())


def _licence(metadata: Message) -> list[dict[str, Any]]:
    """The licence in the form that is most exact: an SPDX expression, classifiers, or a name."""
    if expression := metadata.get("License-Expression"):
        return [{"expression": expression}]
    classifiers = [each for each in metadata.get_all("Classifier", []) if each.startswith(_LICENSE_CLASSIFIER)]
    names = [each.rpartition(" :: ")[2] for each in classifiers]
    written = (metadata.get("License") or "").strip()
    if not names and 0 < len(written) <= _LONGEST_NAME and "\n" not in written:
        names = [written]
    return [{"license": {"name": name}} for name in names]
