"""Names of container images that stay the same bytes."""

from __future__ import annotations

import re
from dataclasses import dataclass

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
# Host with optional port, then lower-case path components (OCI distribution specification 1.1, "Pulling manifests").
_REPOSITORY = re.compile(
    r"(?:[a-zA-Z0-9.-]+(?::[0-9]+)?/)?[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
    r"(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*"
)


class UnpinnedImage(ValueError):
    """The text does not pin one image: the message says what would."""


@dataclass(frozen=True, slots=True)
class ImageReference:
    """An image by content.

    Attributes:
        repository: where a registry keeps it, such as ``ghcr.io/me/recipe-cuda``; ``""`` for a bare image ID.
        digest: ``sha256:`` and 64 hexadecimal digits; of the manifest, or of the configuration for a bare ID.
    """

    repository: str
    digest: str

    def __str__(self) -> str:
        return f"{self.repository}@{self.digest}" if self.repository else self.digest


def parse_image(text: str) -> ImageReference:
    """Read ``name@sha256:…`` or a bare image ID.

    Raises:
        UnpinnedImage: for a tag, which names other bytes tomorrow, and for anything that is no image name.
    """
    repository, at, digest = text.rpartition("@")
    if not _DIGEST.fullmatch(digest):
        raise UnpinnedImage("expected name@sha256:<64 hexadecimal digits> or sha256:<64 hexadecimal digits>")
    if at and not _REPOSITORY.fullmatch(repository):
        raise UnpinnedImage(f"{repository!r} is not an image name (leave out the tag: the digest says it all)")
    return ImageReference(repository, digest)
