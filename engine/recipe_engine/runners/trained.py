"""A model that a recipe trained whole, as what another one loads."""

from __future__ import annotations

from typing import TYPE_CHECKING

from recipe_engine.contract import MODEL_FILES, ResolvedSource, SourceFile
from recipe_registry.manifest import MANIFEST_FILE, read

if TYPE_CHECKING:
    from pathlib import Path


def trained_model(artifact: Path) -> ResolvedSource:
    """The files of a trained model, which load methods read like those of any source.

    Args:
        artifact: folder of the training's artifact.
    """
    files = tuple(
        SourceFile(entry.path, artifact / entry.path, entry.sha256, entry.size)
        for entry in read(artifact / MANIFEST_FILE).entries
        if entry.path.endswith(MODEL_FILES)
    )
    return ResolvedSource(f"artifact:{name_of(artifact)}", files)


def name_of(artifact: Path) -> str:
    """What adapters call the model: the digest of the artifact, which is the same on every machine."""
    return read(artifact / MANIFEST_FILE).digest
