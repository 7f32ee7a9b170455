"""Tiny models, made once a session."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import pytest
from tests import tiny


@pytest.fixture(scope="session")
def cheap_collections() -> None:
    """Each training collects garbage once: over all that the libraries have made, most of its time."""
    import peft  # noqa: F401

    import recipe_engine.training.sft  # noqa: F401

    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder; pad = eos."""
    return tiny.write_model(tmp_path_factory.mktemp("models") / "llama")


@pytest.fixture(scope="session")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another architecture, with ``Conv1D`` for linear layers and biases."""
    return tiny.write_model(tmp_path_factory.mktemp("models") / "gpt2", architecture="gpt2")


@pytest.fixture(scope="session")
def tokenizer(llama: Path) -> Any:
    """Of the tiny Llama."""
    from recipe_engine.training.tokenizer import open_tokenizer

    return open_tokenizer(llama)
