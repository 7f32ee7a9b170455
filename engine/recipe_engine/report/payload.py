"""What is published: adapter or model, tokenizer, recipe and card, each under its name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from recipe_engine.graph import METRICS_FILE
from recipe_engine.training.adapters import CONFIG_FILE, OWN_WEIGHTS_FILE
from recipe_registry import Artifact, digest_of, sha256_file, write_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

CARD_FILE = "README.md"


def payload_files(
    artifacts: Iterable[Artifact], recipe_files: Mapping[str, Path], card: str, folder: Path
) -> dict[str, Path]:
    """Name -> where its bytes are.

    Args:
        artifacts: whose files are exported.
        recipe_files: ``recipe.toml`` or ``recipe.json`` as it was run, and what it builds on.
        card: text of the model card.
        folder: where the card is kept.
    """
    files = {entry.path: artifact.path / entry.path for artifact in artifacts for entry in artifact.entries}
    for name in (METRICS_FILE, OWN_WEIGHTS_FILE):
        files.pop(name, None)
    card_file = folder / CARD_FILE
    write_bytes(card_file, card.encode())
    return {**files, **recipe_files, CARD_FILE: card_file}


def holds_adapter(artifacts: Iterable[Artifact]) -> bool:
    """Whether what is exported needs its base model; or it is a whole model."""
    return any(entry.path == CONFIG_FILE for artifact in artifacts for entry in artifact.entries)


def payload_digest(files: Mapping[str, Path]) -> str:
    """Digest of the payload, ``sha256:…``."""
    return digest_of([[name, sha256_file(path)] for name, path in sorted(files.items())])
