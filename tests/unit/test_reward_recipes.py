"""Recipes that train a reward model: what fits into them, and what does not."""

from __future__ import annotations

import pytest
from tests.unit.written import HEAD, LOAD, builtins, recipe_of, refusal

from recipe_engine.rules import result_kind

PAIRS = """\
[data.train]
source = "file:pairs.jsonl"
format = "preference"
split = "train[:90%]"
[data.eval]
source = "file:pairs.jsonl"
format = "preference"
split = "train[90%:]"
"""
REWARD = LOAD + "[adapt.lora]\n[train.reward]\n[evaluate.preference]\n" + PAIRS


def test_a_reward_model_is_what_it_makes() -> None:
    assert result_kind(recipe_of(REWARD), builtins()) == "reward_model"
    assert result_kind(recipe_of(LOAD), builtins()) == "causal_lm"


@pytest.mark.parametrize(
    ("recipe", "says"),
    [
        (
            REWARD + "[evaluate.perplexity]\n",
            "or a quantized model, and train.reward gives a reward model",
        ),
        (
            REWARD.replace("[train.reward]", "[train.sft]"),
            'data.train.format: train.sft cannot read the format "preference"',
        ),
        (
            REWARD.replace("[adapt.lora]\n", '[adapt.lora]\ntarget_modules = ["q_proj", "lm_head"]\n'),
            "train.reward: a reward model has no lm_head, which predicts tokens; see adapt.lora.target_modules",
        ),
        (
            REWARD + "[push.folder]\nmerged = true\n",
            "push.folder.merged: a reward model is exported as an adapter",
        ),
        (REWARD.replace("preference]", "preference]\nbatch_size = 0"), "evaluate.preference.batch_size"),
        (REWARD.replace("reward]", "reward]\ncentering = -1"), "train.reward.centering: expected at least 0"),
        (REWARD.replace("reward]", 'reward]\nloss_on = "all"'), "train.reward.loss_on: unknown key"),
    ],
)
def test_what_does_not_fit(recipe: str, says: str) -> None:
    assert says in refusal(recipe)


def test_pairs_are_measured_on_reward_models_alone() -> None:
    sft = LOAD + '[evaluate.preference]\n[data.eval]\nsource = "file:p.jsonl"\nformat = "preference"\n'
    assert "preference works on a reward model, and load.full gives a model with weights" in refusal(sft)
    assert HEAD in sft
