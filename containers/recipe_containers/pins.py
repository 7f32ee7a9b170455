"""The images that this version of the program comes with, and what to write instead of a tag."""

from __future__ import annotations

from recipe_containers.errors import ContainerError
from recipe_containers.image_lock import read_image_lock
from recipe_containers.images import ImageFacts
from recipe_containers.reference import parse_image


def locked_facts(reference: str) -> ImageFacts | None:
    """What is known of a pinned image that is one of ours; ``None`` for others.

    Raises:
        UnpinnedImage: the reference pins no image.
    """
    digest = parse_image(reference).digest
    for image in read_image_lock().values():
        if digest in (image.image_id, image.manifest_digest):
            return ImageFacts(image.content, image.packages, image.driver_floor or "")
    return None


def pinned_name(text: str) -> str:
    """What pins the image that a tag names now, by our own lock or by the engine; ``""`` where neither knows it."""
    name = text.rpartition("/")[2].partition(":")[0].partition("@")[0]
    ours = read_image_lock().get(name)
    if ours is not None:
        return ours.image_id
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
