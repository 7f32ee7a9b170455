"""Every option of ``train.rloo`` and ``train.grpo`` either changes what is learned, or is known not to."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.unit.training.groups.group_jobs import KINDS, Options, ending_model, train
from tests.unit.training.ppo.ppo_jobs import UNUSED, scoring
from tests.unit.written import HEAD, recipe_of, refusal

from recipe_engine.training.groups.options import TrainGrpo, TrainRloo
from recipe_engine.training.ppo.options import TrainPpo

if TYPE_CHECKING:
    from recipe_engine.training.ppo.loop import Trace

BASIS: dict[str, Any] = {
    "epochs": 4,
    "max_steps": 2,
    "batch_size": 8,
    "minibatch_size": 4,
    "ppo_epochs": 4,
    "max_new_tokens": 4,
    "learning_rate": 2e-2,
    "kl_coef": 0.3,
}
CHANGES: dict[str, dict[str, Any]] = {
    "num_generations": {"num_generations": 4},
    "max_steps": {"max_steps": 1},
    "batch_size": {"batch_size": 4},
    "ppo_epochs": {"ppo_epochs": 1},
    "minibatch_size": {"minibatch_size": 2},
    "max_new_tokens": {"max_new_tokens": 5},
    "temperature": {"temperature": 0.9},
    "top_k": {"top_k": 5},
    "top_p": {"top_p": 0.5},
    "learning_rate": {"learning_rate": 4e-3},
    "schedule": {"schedule": "constant"},
    "warmup_steps": {"warmup_steps": 2},
    "weight_decay": {"weight_decay": 0.1},
    "adam_beta1": {"adam_beta1": 0.8},
    "adam_beta2": {"adam_beta2": 0.9},
    "max_grad_norm": {"max_grad_norm": 1e-9},
    "kl_coef": {"kl_coef": 0.5},
    "clip_range": {"clip_range": 1e-6},
    "clip_range_high": {"clip_range_high": 1e-6},
    "score_clip": {"score_clip": 0.2},
    "whiten_advantages": {"whiten_advantages": True},
    "loss_type": {"loss_type": "dr_grpo"},
    "min_new_tokens": {"min_new_tokens": 3},
    "missing_eos_penalty": {"missing_eos_penalty": 2.0},
    "cut_answers": {"cut_answers": "leave_out"},
    "scale_rewards": {"scale_rewards": "none"},
    "ratio_of": {"ratio_of": "answer"},
}
NO_CHANGE: dict[str, dict[str, Any]] = {
    "samples": {"samples": 0},
    "checkpoint_steps": {"checkpoint_steps": 1},
    "report_to": {"report_to": ("tensorboard",)},
}
# The name of a data set, read by the graph; rewards, of which test_rewards.py has more to say; the passes over the
# prompts, below; how answers are written and lie in memory: test_ppo_rollout.py, test_vllm_writer.py and
# test_groups_training.py.
ELSEWHERE = {
    "data",
    "reward",
    "epochs",
    "micro_batch_size",
    "generation_size",
    "rollout",
    "vllm_memory",
}
CASES = [
    (kind, name)
    for kind in KINDS
    for name in (*CHANGES, *NO_CHANGE)
    if name in {field.name for field in dataclasses.fields(kind)}
]
TABLES = (
    '[train.{method}]\nreward = {{ pattern = "^Dear " }}\n{more}'
    '[data.prompts]\nsource = "file:p.jsonl"\nformat = "prompt"\n'
)


def digest(found: tuple[Trace, Any]) -> str:
    from recipe_engine.training.weights import weights_digest

    return weights_digest({name: weight for name, weight in found[1].named_parameters() if weight.requires_grad})


def changed(root: Path, folder: Path, kind: type[Options], **options: Any) -> str:
    """The weights that other options give. Some of the answers end by themselves and some are cut."""
    score = scoring(lambda tokens: sum(tokens) % 11 / 10)
    return digest(train(root, folder, kind, model=ending_model(root, folder), score=score, **BASIS | options))


@pytest.fixture(scope="module")
def basis(llama: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[type[Options], str]:
    """Digests of the weights that the basis gives."""
    return {kind: changed(tmp_path_factory.mktemp("basis"), llama, kind) for kind in KINDS}


@pytest.mark.parametrize("kind", KINDS)
def test_every_option_is_here(kind: type[Options]) -> None:
    assert {field.name for field in dataclasses.fields(kind)} <= {*CHANGES, *NO_CHANGE, *ELSEWHERE}


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "option"), CASES)
def test_an_option(
    kind: type[Options], option: str, tmp_path: Path, llama: Path, basis: dict[type[Options], str]
) -> None:
    found = changed(tmp_path, llama, kind, **(CHANGES | NO_CHANGE)[option])
    assert (found == basis[kind]) == (option in NO_CHANGE)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_passes_over_the_prompts(kind: type[Options], tmp_path: Path, llama: Path) -> None:
    """Eight prompts, three a step: the last two of two epochs fill no step."""
    six: dict[str, Any] = {"batch_size": 6, "max_steps": None, "max_new_tokens": 2}
    found = [len(train(tmp_path / str(n), llama, kind, epochs=n, **six)[0].steps) for n in (1, 2)]
    assert found == [2, 5]


def test_what_ppo_has_too_means_the_same() -> None:
    ours = {field.name: field for field in dataclasses.fields(TrainPpo)}
    for kind in KINDS:
        for field in dataclasses.fields(kind):
            if field.name in ours and field.name not in {"ppo_epochs", "whiten_advantages", "cut_answers"}:
                assert field.default == ours[field.name].default, field.name


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({}, []),
        ({"batch_size": 12, "num_generations": 3, "minibatch_size": 4, "micro_batch_size": 2}, []),
        ({"batch_size": 10, "num_generations": 4}, ["batch_size"]),
        ({"batch_size": 12, "minibatch_size": 5}, ["minibatch_size"]),
        ({"batch_size": 12, "minibatch_size": 24}, ["minibatch_size"]),
        ({"batch_size": 12, "minibatch_size": 6, "micro_batch_size": 4}, ["micro_batch_size"]),
        ({"max_new_tokens": 4, "min_new_tokens": 5}, ["min_new_tokens"]),
        ({"cut_answers": "leave_out", "missing_eos_penalty": 1.0}, ["missing_eos_penalty"]),
    ],
)
def test_contradictions(kind: type[Options], options: dict[str, Any], found: list[str]) -> None:
    assert [key for key, _ in kind(reward=UNUSED, **options).contradictions()] == found


@pytest.mark.parametrize("method", ["ppo", "rloo", "grpo"])
def test_one_header_is_changed(method: str) -> None:
    """What all three have can stay as it is."""
    more = "batch_size = 8\nminibatch_size = 4\nppo_epochs = 2\nkl_coef = 0.1\ntemperature = 0.8\nclip_range = 0.1\n"
    recipe = recipe_of(HEAD + "[load.full]\n[adapt.lora]\n" + TABLES.format(method=method, more=more))
    assert recipe.train is not None
    assert recipe.train.method == method


def test_a_batch_of_no_whole_groups_is_refused_where_it_stands() -> None:
    said = refusal(HEAD + "[load.full]\n[adapt.lora]\n" + TABLES.format(method="grpo", more="batch_size = 10\n"))
    assert "train.grpo.batch_size: it must be a multiple of num_generations, which is 4" in said


@pytest.mark.parametrize(
    ("adapt", "expected"),
    [
        ("[adapt.lora]\ndropout = 0.1\n", "train.rloo: it trains without dropout"),
        ('[adapt.lora]\ninit = "pissa"\n', "train.rloo: without an adapter of pissa"),
        ('[adapt.lora]\ntarget_modules = ["lm_head"]\n', "train.rloo: its loss is computed from lm_head as it was"),
    ],
)
def test_adapters_that_it_cannot_train(adapt: str, expected: str) -> None:
    written = HEAD + '[load.full]\ndtype = "float32"\n' + adapt + TABLES.format(method="rloo", more="")
    assert expected in refusal(written)


def test_the_coefficient_is_a_price_or_a_weight() -> None:
    assert TrainRloo(reward=UNUSED).kl_coef == TrainGrpo(reward=UNUSED).kl_coef == TrainPpo(reward=UNUSED).kl_coef
