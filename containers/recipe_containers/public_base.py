"""A public image as the base of ours, for machines without Debian's tools."""

from __future__ import annotations

import tarfile
from contextlib import closing
from typing import TYPE_CHECKING

from recipe_containers.client import connect
from recipe_containers.debian import Base, Package, installed
from recipe_containers.engine_images import save
from recipe_containers.errors import BuildFailed
from recipe_containers.images import find_image, pull_image
from recipe_containers.layers import Layer

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from recipe_containers.progress import Tell
    from recipe_containers.reference import ImageReference

_STATUS = "var/lib/dpkg/status"


def fetch_base(reference: ImageReference, work: Path, tell: Tell) -> Base:
    """Take the layers of an image as they are published; the engine pulls it where it does not have it.

    Args:
        reference: the image; its digest makes it the same bytes for everybody.
        work: an empty folder, for the layers.
        tell: is told how far the engine is.

    Raises:
        ContainerError: there is no engine, or the image cannot be had.
        ImageDiffers: what the engine gives is not the image.
    """
    if not reference.repository:
        raise BuildFailed("A bare image ID is no base: nobody else has it.", "Name it as NAME@sha256:…")
    with closing(connect()) as client:
        if find_image(client, str(reference)) is None:
            pull_image(client, str(reference), lambda done, total: tell("pulling the base", done, total))
        saved = save(client, str(reference), work, tell)
    layers = tuple(Layer(each.path, each.digest, each.size, f"from {reference}") for each in saved.layers)
    packages = [Package(*each) for each in installed(_status(layers))]
    return Base(layers, tuple(packages), str(reference))


def _status(layers: Sequence[Layer]) -> str:
    """What the topmost layer that has it says is installed; ``""`` for a system that is not Debian."""
    for layer in reversed(layers):
        with tarfile.open(layer.path) as archive:
            for member in archive:
                if member.name.removeprefix("./") == _STATUS and (stream := archive.extractfile(member)):
                    return stream.read().decode()
    return ""
