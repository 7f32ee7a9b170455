"""Shapes of rows, and what judges answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from recipe_engine.descriptors import DataFormat, Requirement, RewardSource
from recipe_engine.hookmark import hookimpl
from recipe_engine.methods import options
from recipe_engine.methods.builtin.requirements import MODEL_PACKAGES, TORCH, TRANSFORMERS
from recipe_engine.methods.rewards import options as rewards

if TYPE_CHECKING:
    from collections.abc import Iterator


@hookimpl(trylast=True)
def recipe_data_formats() -> Iterator[DataFormat]:
    """Shapes of rows."""
    yield DataFormat(
        name="instruction",
        summary="One prompt and one answer a row",
        options=options.FormatInstruction,
        implementation="recipe_engine.methods.formats.templates:Instruction",
    )
    yield DataFormat(
        name="chat",
        summary="A conversation a row",
        options=options.FormatChat,
        implementation="recipe_engine.methods.formats.templates:Chat",
    )
    yield DataFormat(
        name="text",
        summary="A text a row, all of it learned",
        options=options.FormatText,
        implementation="recipe_engine.methods.formats.others:Text",
    )
    yield DataFormat(
        name="preference",
        summary="A prompt, a better and a worse answer a row",
        options=options.FormatPreference,
        implementation="recipe_engine.methods.formats.others:Preference",
        kind="preference",
    )
    yield DataFormat(
        name="prompt",
        summary="A question a row, without an answer",
        options=options.FormatPrompt,
        implementation="recipe_engine.methods.formats.others:Prompt",
        kind="prompt",
    )


@hookimpl(trylast=True)
def recipe_reward_sources() -> Iterator[RewardSource]:
    """What judges answers."""
    yield RewardSource(
        name="recipe",
        summary="The reward model that another recipe makes",
        options=rewards.RewardRecipe,
        implementation="recipe_engine.methods.rewards.models:RecipeReward",
        packages=MODEL_PACKAGES,
        timed=False,
    )
    yield RewardSource(
        name="model",
        summary="A model that classifies texts",
        options=rewards.RewardModel,
        implementation="recipe_engine.methods.rewards.models:ModelReward",
        requires=(TORCH, TRANSFORMERS),
        packages=(*MODEL_PACKAGES, "tokenizers"),
        source=lambda chosen: chosen.source(),
        timed=False,
    )
    yield RewardSource(
        name="pattern",
        summary="Whether a regular expression is found",
        options=rewards.RewardPattern,
        implementation="recipe_engine.methods.rewards.texts:PatternReward",
        check=lambda chosen: chosen.check(),
    )
    yield RewardSource(
        name="json_schema",
        summary="Whether the answer is JSON that a schema allows",
        options=rewards.RewardJsonSchema,
        implementation="recipe_engine.methods.rewards.texts:JsonSchemaReward",
        requires=(Requirement(package="jsonschema", symbols=("jsonschema:Draft202012Validator",)),),
        packages=("jsonschema",),
        check=lambda chosen: chosen.check(),
        source=lambda chosen: chosen.source(),
        source_kind="data",
    )
