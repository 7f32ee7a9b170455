"""The images that this version of the program comes with, and what to write instead of a tag."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from recipe_containers.errors import ContainerError
from recipe_containers.images import ImageFacts
from recipe_containers.reference import parse_image

if TYPE_CHECKING:
    from collections.abc import Mapping

_LOCK = "definitions/images.lock.json"


def locked_images() -> Mapping[str, Mapping[str, Any]]:
    """The images of ``images.lock.json`` by name."""
    found: Mapping[str, Mapping[str, Any]] = json.loads(files("recipe_containers").joinpath(_LOCK).read_bytes())[
        "images"
    ]
    return found


def locked_facts(reference: str) -> ImageFacts | None:
    """What is known of a pinned image that is one of ours; ``None`` for others.

    Raises:
        UnpinnedImage: the reference pins no image.
    """
    digest = parse_image(reference).digest
    for image in locked_images().values():
        if digest in (image["image_id"], image.get("manifest_digest")):
            return ImageFacts(image["content"], image["packages"], image.get("driver_floor") or "")
    return None


def pinned_name(text: str) -> str:
    """What pins the image that a tag names now, by our own lock or by the engine; ``""`` where neither knows it."""
    name = text.rpartition("/")[2].partition(":")[0].partition("@")[0]
    if name in locked_images():
        return str(locked_images()[name]["image_id"])
    from recipe_containers.client import connect

    try:
        client = connect()
    except ContainerError:
        return ""
    try:
        found = client.api.inspect_image(text)
    except Exception:  # noqa: BLE001 -- this only makes a hint better
        return ""
    finally:
        client.close()
    return str(next(iter(found.get("RepoDigests") or ()), found["Id"]))
