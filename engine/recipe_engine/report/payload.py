"""What is published: adapter or model, tokenizer, recipe and card, each under its name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from recipe_engine.contract import CARD_FILE, lasting
from recipe_engine.node import METRICS_FILE
from recipe_engine.training.adapters import CONFIG_FILE, OWN_WEIGHTS_FILE
from recipe_registry import Artifact, digest_of, sha256_bytes, sha256_file, write_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path


def payload_files(
    artifacts: Iterable[Artifact], recipe_files: Mapping[str, Path], texts: Mapping[str, str], folder: Path
) -> dict[str, Path]:
    """Name -> where its bytes are.

    Args:
        artifacts: whose files are exported.
        recipe_files: the recipe as it was run, what it builds on, its lock.
        texts: name -> what is written about the result: the card, a picture.
        folder: where the texts are kept.
    """
    files = {entry.path: artifact.path / entry.path for artifact in artifacts for entry in artifact.entries}
    for name in (METRICS_FILE, OWN_WEIGHTS_FILE):
        files.pop(name, None)
    for name, text in texts.items():
        write_bytes(folder / name, text.encode())
    return {**files, **recipe_files, **{name: folder / name for name in texts}}


def holds_adapter(artifacts: Iterable[Artifact]) -> bool:
    """Whether what is exported needs its base model; or it is a whole model."""
    return any(entry.path == CONFIG_FILE for artifact in artifacts for entry in artifact.entries)


def payload_digest(files: Mapping[str, Path]) -> str:
    """Digest of the payload, ``sha256:…``, without what is volatile in its card."""
    return digest_of([[name, _digest(name, path)] for name, path in sorted(files.items())])


def _digest(name: str, path: Path) -> str:
    if name != CARD_FILE:
        return sha256_file(path)
    return sha256_bytes(lasting(path.read_text(encoding="utf-8")).encode())
