"""Images of an engine: what they are, byte by byte, and how one that is pinned comes here."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from recipe_containers.errors import EngineRefused, ImageMissing
from recipe_containers.reference import parse_image

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

PACKAGES_LABEL = "recipe-engine.packages"
"""Label with the Python packages of an image as JSON: name -> version."""
DRIVER_LABEL = "recipe-engine.driver-floor"
"""Label with the oldest NVIDIA driver that an image works with, such as ``525.60.13``."""


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """What is known of a pinned image.

    Attributes:
        content: digest of what a process finds in it, ``sha256:…`` (:func:`content_digest`). The engine's own ID of an
            image is that of its configuration or, in newer stores, of its manifest: it does not name the same bytes
            everywhere.
        packages: Python packages that it says to hold: name -> version; empty where it says nothing.
        driver: oldest NVIDIA driver that it works with; ``""`` where it says nothing.
    """

    content: str
    packages: Mapping[str, str] = field(default_factory=dict)
    driver: str = ""

    def to_json(self) -> dict[str, Any]:
        """The form in a lock."""
        return {"content": self.content, "packages": dict(self.packages), "driver": self.driver}


def content_digest(layers: Sequence[str], environment: Sequence[str]) -> str:
    """Digest of the files of an image and of the variables that it sets: all that a command in it can meet.

    Args:
        layers: digests of the uncompressed layers, the lowest first (OCI image specification 1.1, ``rootfs.diff_ids``).
        environment: ``NAME=value`` each.
    """
    text = json.dumps({"env": sorted(environment), "layers": list(layers)}, sort_keys=True, separators=(",", ":"))
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def find_image(client: Any, reference: str) -> ImageFacts | None:
    """What the engine knows of a pinned image; ``None`` where it does not have it.

    Raises:
        UnpinnedImage: the reference pins no image.
    """
    from docker.errors import ImageNotFound, NotFound

    try:
        found = client.api.inspect_image(str(parse_image(reference)))
    except (ImageNotFound, NotFound):
        return None
    config = found.get("Config") or {}
    labels = config.get("Labels") or {}
    return ImageFacts(
        content_digest(found["RootFS"].get("Layers", ()), config.get("Env") or ()),
        _packages(labels.get(PACKAGES_LABEL, "")),
        labels.get(DRIVER_LABEL, ""),
    )


def pull_image(client: Any, reference: str, progress: Callable[[int, int], None]) -> ImageFacts:
    """Bring a pinned image here.

    Args:
        client: of the engine.
        reference: ``name@sha256:…``.
        progress: called with the bytes that are here and the bytes that are known to come.

    Raises:
        ImageMissing: no registry has it, or it was named by its ID, which no registry knows.
        EngineRefused: the engine could not keep it.
    """
    from docker.errors import APIError

    image = parse_image(reference)
    if not image.repository:
        raise ImageMissing(
            f"The engine has no image {reference}.", "Build or load it: recipe containers build, or docker load."
        )
    done: dict[str, tuple[int, int]] = {}
    try:
        for event in client.api.pull(image.repository, tag=image.digest, stream=True, decode=True):
            if "error" in event:
                raise _not_pulled(reference, event["error"])
            detail = event.get("progressDetail") or {}
            if event.get("status") == "Downloading" and detail.get("total"):
                done[event["id"]] = (detail["current"], detail["total"])
                progress(sum(here for here, _ in done.values()), sum(total for _, total in done.values()))
    except APIError as error:
        raise _not_pulled(reference, error.explanation or str(error)) from None
    found = find_image(client, reference)
    if found is None:
        raise ImageMissing(f"The engine pulled {reference} and does not have it.", "Pull it by hand: docker pull")
    return found


def _not_pulled(reference: str, why: str) -> Exception:
    if "no space left" in why:
        return EngineRefused(
            f"{reference} cannot be kept: {why}.", "Free some of the engine's disk: docker system prune"
        )
    return ImageMissing(
        f"{reference} cannot be pulled: {why}.", "Check the name and the digest, and log in with docker login."
    )


def _packages(text: str) -> dict[str, str]:
    """A label that is none of ours tells nothing."""
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return {str(name): str(version) for name, version in found.items()} if isinstance(found, dict) else {}
