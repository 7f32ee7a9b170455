"""Trainings in these tests are many and short; models that are quantized have layers wide enough for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests import tiny
from tests.hub.pushing import call, hub, large, payload, place  # noqa: F401 -- fixtures
from tests.unit.methods.quantized_jobs import PAD, prepared

from recipe_engine.training.rows import Row, read_rows


@pytest.fixture(scope="session", autouse=True)
def _cheap(cheap_collections: None) -> None:
    """Every test here."""


# One block of 64 weights a row, or more: that is what bitsandbytes repacks on the CPU where it is allowed to.
SHAPES: dict[str, dict[str, Any]] = {
    "llama": {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    | {"num_key_value_heads": 2, "tie_word_embeddings": False},
    "gpt2": {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 512},
}


@pytest.fixture(scope="session", params=["llama", "gpt2"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder, weights in float32."""
    from transformers import AutoConfig, AutoModelForCausalLM

    path = tmp_path_factory.mktemp("wide") / request.param
    ends = {"bos_token_id": None, "eos_token_id": PAD}
    config = AutoConfig.for_model(
        request.param, vocab_size=tiny.VOCABULARY, initializer_range=0.2, **ends, **SHAPES[request.param]
    )
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(path)
    return tiny.write_tokenizer(path)


@pytest.fixture(scope="session")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[Row]:
    return read_rows(prepared(tmp_path_factory.mktemp("rows")))
