"""The real image for tests that run stages in it: built once, and kept for as long as its inputs stay the same."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Any

from recipe_containers.archive import tag_of
from recipe_containers.build import Choices, build, cache_folder
from recipe_containers.definition import DEFINITIONS
from recipe_containers.engine_images import load
from recipe_containers.images import find_image
from recipe_containers.progress import silent

VARIABLE = "RECIPE_TEST_IMAGES"
"""Names the folder where the image is kept; below the user's cache where it is not set."""


def built_image(engine: Any) -> str:
    """The ID of the image ``cpu``, which the engine has then.

    The first call on a machine builds it in one to three minutes; later ones take it from the folder, and an engine
    that has it is given nothing. It is the engine's to keep: a test that removes it makes the next one load it again.

    Args:
        engine: client of the engine.
    """
    definition = DEFINITIONS["cpu"]
    folder = _folder()
    folder.mkdir(parents=True, exist_ok=True)
    # Processes of one test session build one image.
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        known = folder / "image-id"
        image_id = known.read_text(encoding="utf-8") if known.exists() else ""
        archive = image_archive(image_id)
        if not archive.exists():
            image_id = build(definition, Choices(output=folder), silent).locked.image_id
            archive = image_archive(image_id)
            known.write_text(image_id, encoding="utf-8")
        if find_image(engine, image_id) is None:
            load(engine, archive, image_id, silent)
    return image_id


def image_archive(image_id: str) -> Path:
    """Where the archive of the image is."""
    return _folder() / f"{tag_of('cpu', image_id).replace(':', '-')}.tar"


def _folder() -> Path:
    return Path(os.environ.get(VARIABLE) or cache_folder() / "tests") / DEFINITIONS["cpu"].lock_sha256[:16]
