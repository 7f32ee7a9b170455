"""The tokenizer that the engine took out of the base model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path


def open_tokenizer(folder: Path) -> Any:
    """The tokenizer of an artifact; it always has a padding token."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder, local_files_only=True)
