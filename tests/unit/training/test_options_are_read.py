"""Every option of ``train.sft`` either changes what is learned, or is known not to."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from tests import tiny
from tests.unit.training.training_jobs import prepared_data, sft

from recipe_engine.training.options import TrainSft as Options

BASIS: dict[str, Any] = {"epochs": 2, "max_steps": 4, "warmup_steps": 1}
CHANGES: dict[str, dict[str, Any]] = {
    "epochs": {"epochs": 1},
    "max_steps": {"max_steps": 3},
    "batch_size": {"batch_size": 5},
    "batch_tokens": {"batch_size": None, "batch_tokens": 100},
    "learning_rate": {"learning_rate": 4e-3},
    "schedule": {"schedule": "cosine"},
    "warmup_ratio": {"warmup_steps": None, "warmup_ratio": 0.5},
    "warmup_steps": {"warmup_steps": 2},
    "weight_decay": {"weight_decay": 0.1},
    "max_grad_norm": {"max_grad_norm": 0.5},
    "adam_beta1": {"adam_beta1": 0.8},
    "adam_beta2": {"adam_beta2": 0.9},
    "optimizer": {"optimizer": "adamw_8bit"},
    "loss_on": {"loss_on": "all"},
    "mixed_precision": {"mixed_precision": "bf16"},
    # The evaluation loss cannot fall by so much, so the second evaluation is the last.
    "early_stopping_patience": {"eval_steps": 1, "early_stopping_patience": 1, "early_stopping_threshold": 100.0},
}
NO_CHANGE: dict[str, dict[str, Any]] = {
    "eval_steps": {"eval_steps": 1},
    "checkpoint_steps": {"checkpoint_steps": 1},
    "report_to": {"report_to": ("tensorboard",)},
    "gradient_checkpointing": {"gradient_checkpointing": True},
    "activation_offload": {"activation_offload": True},
}
# Names of data sets, read by the graph; micro-batches and layouts, whose sums round differently and mean the same: of
# them test_packing.py has more to say, and test_ending.py of the last two.
ELSEWHERE = {
    *("data", "eval_data", "micro_batch_size", "micro_batch_tokens", "layout"),
    *("early_stopping_threshold", "keep_best"),
}


@pytest.fixture(scope="module")
def data(llama: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return prepared_data(tmp_path_factory.mktemp("data"), llama)


@pytest.fixture(scope="module")
def basis(llama: Path, data: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Digests of the adapter that the basis gives."""
    return tiny.folder_digests(sft(tmp_path_factory.mktemp("basis"), llama, data, **BASIS)[1])


def test_every_option_is_here() -> None:
    assert {field.name for field in dataclasses.fields(Options)} == {*CHANGES, *NO_CHANGE, *ELSEWHERE}


@pytest.mark.parametrize("option", [*CHANGES, *NO_CHANGE])
def test_an_option(option: str, tmp_path: Path, llama: Path, data: dict[str, Path], basis: dict[str, str]) -> None:
    changed = BASIS | (CHANGES | NO_CHANGE)[option]
    found = tiny.folder_digests(sft(tmp_path, llama, data, **changed)[1])
    assert (found == basis) == (option in NO_CHANGE)
