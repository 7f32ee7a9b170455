"""Built-in trainings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from recipe_engine.descriptors import Method
from recipe_engine.hookmark import hookimpl
from recipe_engine.methods import fits
from recipe_engine.methods.builtin.requirements import (
    ACCELERATE,
    MODEL_PACKAGES,
    TORCH,
    TRANSFORMERS,
    TRL,
    VLLM,
    bitsandbytes,
)
from recipe_engine.training.groups.options import Groups, TrainGrpo, TrainRloo
from recipe_engine.training.layout import layout_of
from recipe_engine.training.options import TrainReward, TrainSft
from recipe_engine.training.ppo.options import TrainPpo

if TYPE_CHECKING:
    from collections.abc import Iterator

    from recipe_engine.descriptors import Requirement
    from recipe_engine.training.on_policy import OnPolicy
    from recipe_engine.training.options import Training


@hookimpl(trylast=True)
def recipe_train_methods() -> Iterator[Method]:
    """How it is trained."""
    yield _sft()
    yield _reward()
    yield _ppo()
    yield _groups("rloo", "REINFORCE leave one out: more of the answers that beat the others to a prompt", TrainRloo)
    yield _groups(
        "grpo", "Group relative policy optimization: more of the answers that stand out in their group", TrainGrpo
    )


def _sft() -> Method:
    """A training on right answers."""
    return Method(
        name="sft",
        summary="Supervised fine-tuning",
        options=TrainSft,
        implementation="recipe_engine.methods.train_sft:TrainSft",
        revision=9,
        seeded=True,
        requires=(TORCH, TRANSFORMERS, ACCELERATE),
        requires_for=_for_training,
        packages=(*MODEL_PACKAGES, "peft", "accelerate"),
        data=lambda chosen: chosen.data_sets(),
        takes=frozenset({"causal_lm", "adapter"}),
        check=lambda chosen: chosen.contradictions(),
        settled=lambda chosen, outline: {"layout": layout_of(outline.config, chosen.layout)},
        devices=lambda chosen: chosen.devices(),
    )


def _reward() -> Method:
    """A training on pairs of answers."""
    return Method(
        name="reward",
        summary="A reward model from pairs of a better and a worse answer",
        options=TrainReward,
        implementation="recipe_engine.methods.train_reward:TrainReward",
        revision=8,
        seeded=True,
        requires=(TORCH, TRANSFORMERS, ACCELERATE),
        requires_for=_for_training,
        packages=(*MODEL_PACKAGES, "peft", "accelerate"),
        data=lambda chosen: chosen.data_sets(),
        data_kinds={role: frozenset({"preference"}) for role in ("train", "eval")},
        takes=frozenset({"causal_lm", "adapter", "encoder", "encoder_adapter"}),
        gives="reward_model",
        check=lambda chosen: chosen.contradictions(),
        clashes=fits.reward_clashes,
        settled=lambda chosen, outline: {"layout": layout_of(outline.config, chosen.layout)},
        devices=lambda chosen: chosen.devices(),
    )


def _ppo() -> Method:
    """A training on answers of its own that are judged."""
    return Method(
        name="ppo",
        summary="Proximal policy optimization: more of the answers that a reward likes",
        options=TrainPpo,
        implementation="recipe_engine.methods.train_ppo:TrainPpo",
        revision=8,
        seeded=True,
        requires=(TORCH, TRANSFORMERS),
        requires_for=_for_rollouts,
        packages=(*MODEL_PACKAGES, "peft"),
        data=lambda chosen: chosen.data_sets(),
        data_kinds={"prompts": frozenset({"prompt"})},
        takes=frozenset({"causal_lm", "adapter"}),
        check=lambda chosen: chosen.contradictions(),
        clashes=fits.ppo_clashes,
        determinism_for=lambda chosen: chosen.determinism(),
        devices=lambda chosen: chosen.devices(),
        settled=lambda chosen, outline: {"layout": layout_of(outline.config, chosen.layout)},
    )


def _groups(name: str, summary: str, chosen: type[Groups]) -> Method:
    """A training on several answers to each prompt."""
    return Method(
        name=name,
        summary=summary,
        options=chosen,
        implementation="recipe_engine.methods.train_groups:TrainGroups",
        revision=7,
        seeded=True,
        requires=(TORCH, TRANSFORMERS, ACCELERATE, TRL),
        requires_for=_for_rollouts,
        packages=(*MODEL_PACKAGES, "peft", "accelerate", "datasets", "trl"),
        data=lambda chosen: chosen.data_sets(),
        data_kinds={"prompts": frozenset({"prompt"})},
        takes=frozenset({"causal_lm", "adapter"}),
        check=lambda chosen: chosen.contradictions(),
        clashes=fits.groups_clashes,
        determinism_for=lambda chosen: chosen.determinism(),
        devices=lambda chosen: chosen.devices(),
    )


def _for_training(chosen: Training) -> tuple[Requirement, ...]:
    """What a training's options need besides what every training needs."""
    return (bitsandbytes("optim:AdamW"),) if chosen.optimizer != "adamw" else ()


def _for_rollouts(chosen: OnPolicy) -> tuple[Requirement, ...]:
    """What writes the answers."""
    return (VLLM,) if chosen.rollout == "vllm" else ()
