"""The images that a recipe's stages run in: what the locks know of them, and the engine that has them."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

from recipe_containers import ContainerError, ImageMissing
from recipe_containers.pins import locked_facts
from recipe_engine.errors import UnfitEnvironment, UnresolvedInput

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from recipe_containers import ImageFacts
    from recipe_engine.contract import Reporter
    from recipe_engine.lockfile import Lock
    from recipe_engine.node import Node


def known_images(nodes: Sequence[Node], lock: Lock | None) -> dict[str, ImageFacts | None]:
    """What is known of each image without an engine: from the recipe's lock, or that of this program.

    Args:
        nodes: of the recipe.
        lock: the recipe's, where it has one.
    """
    locked: Mapping[str, ImageFacts] = lock.images if lock else {}
    return {reference: locked.get(reference) or locked_facts(reference) for reference in _references(nodes)}


def found_images(nodes: Sequence[Node], lock: Lock | None, reporter: Reporter) -> dict[str, ImageFacts | None]:
    """What is known of each image; the engine is asked for the others, and pulls what it does not have.

    Raises:
        UnfitEnvironment: there is no engine to ask.
        UnresolvedInput: an image cannot be had.
    """
    known = known_images(nodes, lock)
    for reference, facts in known.items():
        if facts is None:
            known[reference] = bring_image(reference, "", lambda done, total: reporter.progress(done, total, "bytes"))
    return known


def bring_image(reference: str, content: str, progress: Callable[[int, int], None]) -> ImageFacts:
    """Make sure that the engine has an image, and that it is the one that is known.

    Args:
        reference: what pins it.
        content: digest that its content must have; ``""`` for any.
        progress: called with bytes and total while it is pulled.

    Raises:
        UnfitEnvironment: there is no engine, or it cannot keep the image.
        UnresolvedInput: the image cannot be had, or has another content.
    """
    from recipe_containers.client import connect
    from recipe_containers.images import find_image, pull_image

    try:
        with closing(connect()) as client:
            found = find_image(client, reference) or pull_image(client, reference, progress)
    except ImageMissing as error:
        raise UnresolvedInput(error.message, error.hint) from None
    except ContainerError as error:
        raise UnfitEnvironment(error.message, error.hint) from None
    if content and found.content != content:
        raise UnresolvedInput(
            f"The engine's image {reference} has the content {found.content}, not the locked {content}.",
            "Remove it from the engine and pull it again, or lock it as it is: recipe lock",
        )
    return found


def _references(nodes: Sequence[Node]) -> list[str]:
    used = {node.container.image for node in nodes if node.container is not None and node.container.image is not None}
    return sorted(used)
