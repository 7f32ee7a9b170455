"""Images on their way into an engine, out of it, and through registries."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING, Any

from recipe_containers.archive import Image, write_layout
from recipe_containers.errors import EngineRefused, ImageDiffers, ImageMissing
from recipe_containers.images import find_image, pull_image
from recipe_containers.saved import Saved, read_saved
from recipe_containers.work import work_folder

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from recipe_containers.image_lock import LockedImage
    from recipe_containers.progress import Tell

_SLOW_SECONDS = 3600
"""An engine that unpacks a large image on a slow disk says nothing for a long time."""
_BLOCK = 2 << 20
_SPARE_ROOM = 256 << 20
"""Bytes: engines count the files of an image, not the blocks of a tar."""


def load(client: Any, archive: Path, image_id: str, tell: Tell) -> None:
    """Give an archive to the engine.

    Raises:
        EngineRefused: it cannot keep the image.
        ImageDiffers: it made another image of it.
    """
    from docker.errors import APIError, ImageLoadError

    total = archive.stat().st_size
    client.api.timeout = _SLOW_SECONDS
    try:
        client.images.load(_told(archive, total, tell))
    except (APIError, ImageLoadError) as error:
        full = "no space left" in str(error)
        hint = "Free some of the engine's disk: docker system prune" if full else "Build it again."
        raise EngineRefused(f"The engine could not load the image: {error}.", hint) from None
    if find_image(client, image_id) is None:
        raise ImageDiffers(f"The engine loaded {archive} and does not know it as {image_id}.")


def _told(archive: Path, total: int, tell: Tell) -> Iterator[bytes]:
    done = 0
    with archive.open("rb") as stream:
        while block := stream.read(_BLOCK):
            yield block
            done += len(block)
            tell("loading into the engine", done, total)


def save(client: Any, reference: str, folder: Path | None, tell: Tell) -> Saved:
    """Take an image out of the engine and recompute every digest on the way.

    Args:
        client: of the engine.
        reference: what pins it.
        folder: where its layers are kept, in files named by their digests; ``None`` keeps none.
        tell: is told how many bytes passed.

    Raises:
        ImageMissing: the engine does not have it.
        ImageDiffers: it is not whole.
    """
    total = _check_here(client, reference)
    client.api.timeout = _SLOW_SECONDS
    done = 0

    def passed(count: int) -> None:
        nonlocal done
        done += count
        # The stream has headers too: the engine's figure is a little too small.
        tell("reading from the engine", min(done, total), total)

    blocks: Iterable[bytes] = client.api.get_image(reference, chunk_size=_BLOCK)
    return read_saved(blocks, folder, passed)


def _check_here(client: Any, reference: str) -> int:
    """Bytes of an image that the engine has.

    Raises:
        ImageMissing: it does not have it.
    """
    if find_image(client, reference) is None:
        raise ImageMissing(
            f"The engine does not have the image {reference}.", "Build or pull it: recipe containers build, pull"
        )
    return int(client.api.inspect_image(reference)["Size"])


def verify(client: Any, locked: LockedImage, tell: Tell) -> None:
    """Recompute every digest of the engine's copy of a locked image.

    Raises:
        ImageMissing: the engine does not have it.
        ImageDiffers: a digest is not the locked one; the message names all that differ.
    """
    saved = save(client, locked.image_id, None, tell)
    found = [f"configuration {saved.image_id}"] if saved.image_id != locked.image_id else []
    layers = [layer.digest for layer in saved.layers]
    if len(layers) != len(locked.layers):
        found.append(f"{len(layers)} layers instead of {len(locked.layers)}")
    pairs = enumerate(zip(layers, locked.layers, strict=False), 1)
    found += [f"layer {number} {here} instead of {there}" for number, (here, there) in pairs if here != there]
    if found:
        raise ImageDiffers(f"The engine's image differs from the lock: {'; '.join(found)}.", "Build or pull it again.")


def push(client: Any, reference: str, repository: str, tell: Tell) -> str:
    """Copy an image from the engine to a registry.

    With skopeo, layers go as they are and the manifest is the one that the lock names. Without it the engine pushes,
    which compresses in its own way: the image stays the same, its name in the registry is another.

    Args:
        client: of the engine.
        reference: what pins it here.
        repository: where it goes, such as ``ghcr.io/me/recipe-cpu``; whoever may write there has logged in
            (``docker login``).
        tell: is told how far it is.

    Returns:
        ``repository@sha256:…``, to be written into a recipe.

    Raises:
        ImageMissing: the engine does not have it.
        EngineRefused: the registry does not take it.
        BuildFailed: there is no room for a copy.
    """
    if shutil.which("skopeo") is None:
        return f"{repository}@{_push_by_engine(client, reference, repository, tell)}"
    size = _check_here(client, reference)
    with work_folder(size + _SPARE_ROOM) as folder:
        saved = save(client, reference, folder, tell)
        image = Image(saved.config, saved.layers)
        layout = folder / "layout"
        write_layout(image, layout)
        tell("pushing", 0, 0)
        # Registries on this machine need no certificate, as for the engine itself.
        plain = ["--dest-tls-verify=false"] if _is_loopback(repository) else []
        target = f"docker://{repository}:{image.manifest_digest.replace(':', '-')}"
        command = ["skopeo", "copy", "--quiet", "--preserve-digests", *plain, f"oci:{layout}:image", target]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise _not_pushed(repository, done.stderr.strip().rpartition("level=fatal msg=")[2].strip('"') or "no reason")
    return f"{repository}@{image.manifest_digest}"


def _is_loopback(repository: str) -> bool:
    host = repository.partition("/")[0].partition(":")[0]
    return host == "localhost" or host.startswith("127.")


def _push_by_engine(client: Any, reference: str, repository: str, tell: Tell) -> str:
    """The digest that the registry gave."""
    from docker.errors import APIError

    tag = reference.removeprefix("sha256:")[:12]
    client.api.tag(reference, repository, tag)
    done: dict[str, tuple[int, int]] = {}
    try:
        for event in client.api.push(repository, tag=tag, stream=True, decode=True):
            if "error" in event:
                raise _not_pushed(repository, event["error"])
            detail = event.get("progressDetail") or {}
            if event.get("status") == "Pushing" and detail.get("total"):
                done[event["id"]] = (detail["current"], detail["total"])
                tell("pushing", sum(here for here, _ in done.values()), sum(total for _, total in done.values()))
            if digest := (event.get("aux") or {}).get("Digest"):
                return str(digest)
    except APIError as error:
        raise _not_pushed(repository, error.explanation or str(error)) from None
    finally:
        client.api.remove_image(f"{repository}:{tag}", noprune=True)
    raise _not_pushed(repository, "the registry gave no digest")


def _not_pushed(repository: str, why: str) -> EngineRefused:
    hint = "Check the name, and log in with docker login (skopeo login)."
    return EngineRefused(f"{repository} does not take the image: {why}.", hint)


def pull(client: Any, locked: LockedImage, reference: str, tell: Tell) -> None:
    """Bring a locked image here from a registry, under the name that this program gives its own.

    Raises:
        ImageMissing: the registry does not give it.
        ImageDiffers: what it gave is another image.
    """
    found = pull_image(client, reference, lambda done, total: tell("pulling", done, total))
    if found.content != locked.content:
        raise ImageDiffers(
            f"{reference} is another image: its content is {found.content}, locked is {locked.content}.",
            "Push the locked one: recipe containers push",
        )
