"""The names that plugin authors import. What is removed here breaks their plugins: it needs a decision record."""

from __future__ import annotations

import ast
import importlib.util
import inspect
from pathlib import Path

import pytest

import recipe_engine.training
from recipe_engine.contract import StageRequest
from recipe_engine.descriptors import Method
from recipe_engine.hookmark import PROJECT, hookimpl

SURFACE = {
    "contract": """
        Answer CARD_FILE FileReference FormatCode Inputs MODEL_FILES ModelOutline NodeInfo PairCode PlainCode PushCode
        PushRequest TextPairCode
        Reporter GivenReward ResolvedSource RewardCode RewardRequest Segment
        SourceCode SourceFile SourceRequest StageCode StageRequest StageResult VOLATILE WEIGHT_FILES lasting
    """,
    "descriptors": """
        DEVICES DataFormat DataKind Determinism Device ENCODERS LANGUAGE_MODELS Method ModelKind Payload Requirement
        RewardSource Runner names_no_files
        SINGLE_STAGES STAGES Source adds_no_tokens asks_the_model fits_every_model fits_everything leaves_determinism
        needs_nothing nothing_to_check
        publishes_adapters reads_no_data requires_no_more runs_anywhere settles_nothing within_max_length
    """,
    "options": """
        DEFAULT_TIMEOUT FOLDER FUNCTION Option OptionField REWARD Reward RewardTable T build fields_of folder_of
        is_literal matters members non_default option rewards_of to_table
    """,
    "hookmark": "PROJECT hookimpl",
    "errors": """
        DataRejected GateNotMet Interrupted InvalidArguments InvalidRecipe MAX_PROBLEMS_SHOWN Problem PushUnverified
        RecipeError
        StageFailed UnfitEnvironment UnresolvedInput VerificationFailed
    """,
}


TRAINING = """
    IGNORE Decoding Pair Plan ResultWriter Row Scores Usage borrowed collate end_tokens greedy load_result open_rewards
    open_tokenizer plan_batches read_pairs read_rows
"""
PUBLIC_MODULES = [
    "hookmark",
    "descriptors",
    "contract",
    "options",
    "errors",
    "training",
    "training.checkpoint",
    "training.trainer",
]
"""Of the last two, what docs/plugins.md names."""


def defined(module: str) -> set[str]:
    """What a module defines at its top; what it imports is nobody's surface. It is read, not imported."""
    names: set[str] = set()
    spec = importlib.util.find_spec(f"recipe_engine.{module}")
    assert spec is not None
    assert spec.origin is not None
    for statement in ast.parse(Path(spec.origin).read_text(encoding="utf-8")).body:
        if isinstance(statement, ast.FunctionDef | ast.ClassDef):
            names.add(statement.name)
        targets = statement.targets if isinstance(statement, ast.Assign) else []
        targets = [statement.target] if isinstance(statement, ast.AnnAssign) else targets
        names.update(target.id for target in targets if isinstance(target, ast.Name))
    return {name for name in names if not name.startswith("_")}


@pytest.mark.parametrize("module", SURFACE)
def test_no_name_is_lost_and_none_is_added_unseen(module: str) -> None:
    assert sorted(defined(module)) == sorted(SURFACE[module].split())


def test_what_trainings_build_on() -> None:
    assert recipe_engine.training.__all__ == TRAINING.split()
    for name in TRAINING.split():
        assert hasattr(recipe_engine.training, name)
    assert "latest" in defined("training.checkpoint")
    assert {"ResumableTrainer", "StopSafely"} <= defined("training.trainer")


def test_the_marker_belongs_to_the_project() -> None:
    assert hookimpl.project_name == PROJECT == "recipe_engine"


def test_a_method_needs_no_more_than_four_things() -> None:
    method = Method(name="n", summary="s", options=object, implementation="a:B")
    assert (method.revision, method.determinism, method.seeded) == (1, "bitwise", False)
    assert method.tolerance == 0.0
    assert (method.takes, method.gives, method.data_kinds) == (None, None, {})
    assert (method.requires, method.packages) == ((), ())
    assert (method.data(None), method.check(None)) == ({}, ())


def test_descriptors_and_requests_take_keywords_alone() -> None:
    with pytest.raises(TypeError, match="positional"):
        Method("n", "s", object, "a:B")  # type: ignore[call-arg]
    kinds = {parameter.kind for parameter in inspect.signature(StageRequest).parameters.values()}
    assert kinds == {inspect.Parameter.KEYWORD_ONLY}
