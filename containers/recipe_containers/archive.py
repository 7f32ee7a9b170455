"""An image from its layers: configuration, manifest, and the archive that engines load.

Sources: OCI image specification 1.1, "Image Configuration" and "Image Manifest"; Docker image specification 1.2,
"Combined Image JSON + Filesystem Changeset Format".
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from recipe_containers.definition import CREATED, SITE_PACKAGES, USER
from recipe_containers.images import DRIVER_LABEL, PACKAGES_LABEL, content_digest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from typing import IO

    from recipe_containers.definition import Definition
    from recipe_containers.layers import Layer
    from recipe_containers.progress import Tell
    from recipe_containers.wheels import Wheel

LOCK_LABEL = "recipe-engine.lock-sha256"
"""Label with the sha256 of the lock of an image's libraries, in hexadecimal."""
_OCI = "application/vnd.oci.image"
_TIME = datetime.fromtimestamp(CREATED, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
ENVIRONMENT = {
    # Home and user are needed by libraries that ask for them; a number has neither.
    "HOME": "/tmp",  # noqa: S108 (the container's own)
    "LANG": "C.UTF-8",
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONPATH": SITE_PACKAGES,
    "USER": "recipe",
}


@dataclass(frozen=True, slots=True)
class Image:
    """An image that is known byte for byte.

    Attributes:
        config: bytes of its configuration.
        layers: the lowest first.
    """

    config: bytes
    layers: tuple[Layer, ...]

    @property
    def image_id(self) -> str:
        """Digest of the configuration: what engines call the image."""
        return f"sha256:{hashlib.sha256(self.config).hexdigest()}"

    def manifest(self) -> bytes:
        """The manifest that a registry keeps; layers are pushed as they are, since compressors differ."""
        config = {"mediaType": f"{_OCI}.config.v1+json", "digest": self.image_id, "size": len(self.config)}
        layers = [
            {"mediaType": f"{_OCI}.layer.v1.tar", "digest": layer.digest, "size": layer.size} for layer in self.layers
        ]
        whole = {"schemaVersion": 2, "mediaType": f"{_OCI}.manifest.v1+json", "config": config, "layers": layers}
        return canonical(whole)

    @property
    def content(self) -> str:
        """Digest of what a process finds in the image (``images.content_digest``)."""
        return content_digest([layer.digest for layer in self.layers], json.loads(self.config)["config"]["Env"])

    @property
    def manifest_digest(self) -> str:
        """What follows ``@`` in the name by which a registry gives the image out."""
        return f"sha256:{hashlib.sha256(self.manifest()).hexdigest()}"


def canonical(value: Any) -> bytes:
    """JSON with sorted keys and no spaces."""
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def make_image(definition: Definition, layers: Sequence[Layer], wheels: Sequence[Wheel], base: str) -> Image:
    """Put layers together.

    Args:
        definition: what is built.
        layers: the lowest first.
        wheels: what the last of them holds.
        base: ``name@sha256:…`` of a public base image, ``""`` for Debian made here.
    """
    config = {
        "architecture": "amd64",
        "os": "linux",
        "created": _TIME,
        "config": {
            "Env": [f"{name}={value}" for name, value in sorted(ENVIRONMENT.items())],
            "User": f"{USER}:{USER}",
            "WorkingDir": "/",
            "Labels": _labels(definition, wheels, base),
        },
        "rootfs": {"type": "layers", "diff_ids": [layer.digest for layer in layers]},
        "history": [{"created": _TIME, "created_by": layer.made_by} for layer in layers],
    }
    return Image(canonical(config), tuple(layers))


def _labels(definition: Definition, wheels: Sequence[Wheel], base: str) -> dict[str, str]:
    name, _, digest = base.partition("@")
    based = {"org.opencontainers.image.base.name": name, "org.opencontainers.image.base.digest": digest} if base else {}
    driver = {DRIVER_LABEL: definition.driver_floor} if definition.driver_floor else {}
    return {
        "org.opencontainers.image.title": f"recipe-{definition.name}",
        "org.opencontainers.image.description": definition.title,
        "org.opencontainers.image.created": _TIME,
        **based,
        **driver,
        LOCK_LABEL: definition.lock_sha256,
        PACKAGES_LABEL: canonical({wheel.name: wheel.version for wheel in wheels}).decode(),
    }


def tag_of(name: str, image_id: str) -> str:
    """The tag that keeps an image from being swept; no recipe may name it, since it is no digest."""
    return f"recipe-{name}:{image_id.removeprefix('sha256:')[:12]}"


def write_archive(image: Image, tag: str, target: IO[bytes], tell: Tell) -> None:
    """Write the archive that ``docker load`` and skopeo's ``docker-archive:`` read."""
    names = {layer.digest: f"{layer.digest.removeprefix('sha256:')}.tar" for layer in image.layers}
    config = f"{image.image_id.removeprefix('sha256:')}.json"
    entry = {"Config": config, "RepoTags": [tag], "Layers": [names[layer.digest] for layer in image.layers]}
    total = sum(layer.size for layer in image.layers)
    done = 0
    with tarfile.open(fileobj=target, mode="w|", format=tarfile.GNU_FORMAT) as archive:
        for layer in image.layers:
            with layer.path.open("rb") as stream:
                archive.addfile(_header(names[layer.digest], layer.size), stream)
            done += layer.size
            tell("writing the archive", done, total)
        for name, content in ((config, image.config), ("manifest.json", canonical([entry]))):
            archive.addfile(_header(name, len(content)), io.BytesIO(content))


def _header(name: str, size: int) -> tarfile.TarInfo:
    header = tarfile.TarInfo(name)
    header.size, header.mode, header.mtime = size, 0o644, CREATED
    return header


def write_layout(image: Image, folder: Path) -> None:
    """Write the folder that skopeo's ``oci:`` reads; the layers' files are moved into it."""
    blobs = folder / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    for layer in image.layers:
        layer.path.rename(blobs / layer.digest.removeprefix("sha256:"))
    manifest = image.manifest()
    for content in (image.config, manifest):
        (blobs / hashlib.sha256(content).hexdigest()).write_bytes(content)
    described: Mapping[str, Any] = {
        "mediaType": f"{_OCI}.manifest.v1+json",
        "digest": image.manifest_digest,
        "size": len(manifest),
        "annotations": {"org.opencontainers.image.ref.name": "image"},
    }
    (folder / "index.json").write_bytes(canonical({"schemaVersion": 2, "manifests": [described]}))
    (folder / "oci-layout").write_bytes(canonical({"imageLayoutVersion": "1.0.0"}))
