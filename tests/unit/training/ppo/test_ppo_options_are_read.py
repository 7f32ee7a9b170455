"""Every option of ``train.ppo`` either changes what is learned, or is known not to."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.unit.training.ppo.ppo_jobs import UNUSED, ppo

from recipe_engine.training.ppo.options import TrainPpo
from recipe_engine.training.weights import weights_digest

if TYPE_CHECKING:
    from recipe_engine.training.ppo.loop import Trace

pytestmark = pytest.mark.slow

BASIS: dict[str, Any] = {"max_steps": 2, "max_new_tokens": 4, "learning_rate": 5e-3, "kl_coef": 0.3}
ADAPTIVE = {"kl_target": 0.01}
CHANGES: dict[str, dict[str, Any]] = {
    "max_steps": {"max_steps": 1},
    "batch_size": {"batch_size": 2},
    "ppo_epochs": {"ppo_epochs": 3},
    "minibatch_size": {"minibatch_size": 2},
    "max_new_tokens": {"max_new_tokens": 5},
    "temperature": {"temperature": 0.9},
    "top_k": {"top_k": 5},
    "top_p": {"top_p": 0.5},
    "learning_rate": {"learning_rate": 4e-3},
    "value_learning_rate": {"value_learning_rate": 1e-2},
    "schedule": {"schedule": "constant"},
    "warmup_steps": {"warmup_steps": 2},
    "weight_decay": {"weight_decay": 0.1},
    "adam_beta1": {"adam_beta1": 0.8},
    "adam_beta2": {"adam_beta2": 0.9},
    "max_grad_norm": {"max_grad_norm": 1e-9},
    "kl_coef": {"kl_coef": 0.5},
    "kl_target": ADAPTIVE,
    "kl_horizon": ADAPTIVE | {"kl_horizon": 20},
    "kl_estimator": {"kl_estimator": "k3"},
    "max_update_kl": {"max_update_kl": 1e-9},
    "gamma": {"gamma": 0.9},
    "gae_lambda": {"gae_lambda": 0.5},
    "whiten_advantages": {"whiten_advantages": False},
    "whiten_rewards": {"whiten_rewards": True},
    "clip_range": {"clip_range": 0.01},
    "value_clip": {"value_clip": 1e-4},
    "value_coef": {"value_coef": 0.5},
    "entropy_coef": {"entropy_coef": 0.1},
    "normalize_scores": {"normalize_scores": True},
    "score_clip": {"score_clip": 0.2},
    "missing_eos_penalty": {"missing_eos_penalty": 0.5},
    "cut_answers": {"cut_answers": "bootstrap"},
}
NO_CHANGE: dict[str, dict[str, Any]] = {
    "samples": {"samples": 0},
    "checkpoint_steps": {"checkpoint_steps": 1},
    "report_to": {"report_to": ("tensorboard",)},
}
# The name of a data set, read by the graph; rewards, of which test_rewards.py has more to say; the passes over the
# prompts, below; how answers are written and lie in memory: test_ppo_rollout.py, test_vllm_writer.py and
# test_ppo_learning.py.
ELSEWHERE = {
    "data",
    "reward",
    "epochs",
    "micro_batch_tokens",
    "generation_size",
    "layout",
    "min_new_tokens",
    "rollout",
    "vllm_memory",
}


def digest(found: tuple[Trace, Any]) -> str:
    return weights_digest({name: weight for name, weight in found[1].named_parameters() if weight.requires_grad})


@pytest.fixture(scope="module")
def basis(llama: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Digests of the weights that the basis gives, without and with the controller."""
    return {
        name: digest(ppo(tmp_path_factory.mktemp("basis"), llama, epochs=2, **BASIS | options))
        for name, options in {"": {}, "kl_horizon": ADAPTIVE | {"kl_horizon": 10}}.items()
    }


def test_every_option_is_here() -> None:
    assert {field.name for field in dataclasses.fields(TrainPpo)} == {*CHANGES, *NO_CHANGE, *ELSEWHERE}


@pytest.mark.parametrize("option", [*CHANGES, *NO_CHANGE])
def test_an_option(option: str, tmp_path: Path, llama: Path, basis: dict[str, str]) -> None:
    found = digest(ppo(tmp_path, llama, epochs=2, **BASIS | (CHANGES | NO_CHANGE)[option]))
    assert (found == basis.get(option, basis[""])) == (option in NO_CHANGE)


def test_passes_over_the_prompts(tmp_path: Path, llama: Path) -> None:
    assert [len(ppo(tmp_path / str(n), llama, epochs=n, max_steps=None, batch_size=8)[0].steps) for n in (1, 2)] == [
        1,
        2,
    ]


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({}, []),
        ({"batch_size": 12, "minibatch_size": 4}, []),
        ({"batch_size": 12, "minibatch_size": 5}, ["minibatch_size"]),
        ({"batch_size": 4, "minibatch_size": 8}, ["minibatch_size"]),
        ({"max_new_tokens": 4, "min_new_tokens": 5}, ["min_new_tokens"]),
        ({"kl_coef": 0.0, "kl_target": 1.0}, ["kl_target"]),
        ({"cut_answers": "bootstrap", "missing_eos_penalty": 1.0}, ["missing_eos_penalty"]),
    ],
)
def test_contradictions(options: dict[str, Any], found: list[str]) -> None:
    assert [key for key, _ in TrainPpo(reward=UNUSED, **options).contradictions()] == found
