"""Properties of the pure core that hold for every input."""

from __future__ import annotations

import json
import tomllib
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from tests.unit.written import SMALL, builtins, composed, recipe_of

from recipe_engine.compose import apply
from recipe_engine.document import parse
from recipe_engine.errors import InvalidRecipe, Problem
from recipe_engine.keys import differences, key_of
from recipe_engine.node import node_seed
from recipe_engine.schema import recipe_schema
from recipe_engine.split import PATTERN, Split, parse_split
from recipe_engine.toml_text import to_toml
from recipe_engine.validate import validate
from recipe_registry import digest_of

EDITORS = Draft202012Validator(recipe_schema(builtins()))
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)
SCALARS = st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.floats(allow_nan=False, allow_infinity=False) | TEXT
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
TREES = st.dictionaries(TEXT, VALUES, max_size=4)
BOUNDS = st.just("") | st.integers(-300, 300).map(str) | st.integers(-200, 200).map(lambda n: f"{n}%")


@settings(deadline=None)
@given(TREES)
def test_a_tree_as_toml_is_the_tree(tree: dict[str, Any]) -> None:
    assert tomllib.loads(to_toml(tree)) == tree


@settings(deadline=None)
@given(TREES.filter(bool))
def test_what_is_written_can_be_read_as_a_document(tree: dict[str, Any]) -> None:
    assert parse(to_toml(tree).encode(), "r.toml", syntax="toml").tree == tree


@settings(deadline=None)
@given(st.integers(0, 500), st.integers(0, 100) | st.integers(-100, -1))
def test_two_parts_at_one_percentage_share_nothing_and_lose_nothing(total: int, percent: int) -> None:
    head, tail = Split("train", "", f"{percent}%").rows(total), Split("train", f"{percent}%", "").rows(total)
    # -0 % counts from the start, as 0 % does; below that, both parts count from the end.
    assert [*head, *tail] == list(range(total))


@settings(deadline=None)
@given(BOUNDS, BOUNDS, st.integers(0, 400))
def test_rows_of_a_split_are_rows_of_the_data(start: str, stop: str, total: int) -> None:
    rows = parse_split(f"train[{start}:{stop}]").rows(total)
    assert set(rows) <= set(range(total))
    assert list(rows) == sorted(rows)


@settings(deadline=None)
@given(TEXT | st.from_regex(PATTERN))
def test_a_text_is_a_split_or_refused(text: str) -> None:
    try:
        split = parse_split(text)
    except ValueError:
        return
    assert split.name == text.partition("[")[0]
    assert split.rows(10) is not None


RANKS = st.integers(1, 4096)
RATES = st.floats(1e-8, 1.0)


@settings(deadline=None)
@given(RANKS, RATES)
def test_overrides_applied_twice_are_applied_once(rank: int, rate: float) -> None:
    overrides = [f"adapt.lora.rank={rank}", f"train.sft.learning_rate={rate!r}"]
    once, twice = composed(SMALL, overrides), composed(SMALL, overrides * 2)
    assert (once.tree, once.overrides) == (twice.tree, twice.overrides)


@settings(deadline=None)
@given(RANKS, RATES, st.sampled_from(["all-linear", ["q_proj"], ["q_proj", "v_proj"]]))
def test_a_resolved_recipe_is_the_same_recipe(rank: int, rate: float, modules: Any) -> None:
    overrides = [f"adapt.lora.rank={rank}", f"train.sft.learning_rate={rate!r}"]
    overrides.append(f"adapt.lora.target_modules={json.dumps(modules)}")
    recipe = recipe_of(SMALL, overrides)
    again = recipe_of(to_toml(recipe.to_table()))
    assert again.to_table() == recipe.to_table()
    assert [table.options for table in again.stages()] == [table.options for table in recipe.stages()]


@settings(deadline=None)
@given(TREES)
def test_any_tree_is_a_recipe_or_has_problems_with_places(tree: dict[str, Any]) -> None:
    whole = {**tomllib.loads(SMALL), **tree}
    refused_or_valid(json.dumps(whole).encode())


TABLES = ["model", "data", "load", "adapt", "train", "evaluate", "push", "container", "version", "seed", "threads"]


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(TABLES), VALUES, min_size=1, max_size=2))
def test_any_value_in_place_of_a_table_is_refused_with_places(tables: dict[str, Any]) -> None:
    refused_or_valid(json.dumps({**tomllib.loads(SMALL), **tables}).encode())


@settings(deadline=None)
@given(st.sampled_from(["load.full", "adapt.lora", "train.sft", "data.train"]), TEXT, VALUES)
def test_any_option_is_taken_or_refused_with_a_place(table: str, key: str, value: Any) -> None:
    tree = tomllib.loads(SMALL)
    stage, name = table.split(".")
    tree[stage][name][key] = value
    refused_or_valid(json.dumps(tree).encode())


# No schema knows that a method works on reward models alone, and on pairs.
METHODS = [*(name for _, name in builtins().methods if name != "preference"), "rouge"]


@settings(deadline=None)
@given(
    st.dictionaries(
        st.sampled_from([*METHODS, "mine"]),
        st.fixed_dictionaries(
            {}, optional={"method": st.sampled_from(METHODS), "batch_size": st.integers(0, 3), "data": st.just("eval")}
        ),
        max_size=3,
    )
)
def test_what_is_a_recipe_is_one_for_editors_too(evaluations: dict[str, Any]) -> None:
    tree = {**tomllib.loads(SMALL), "evaluate": evaluations}
    try:
        recipe_of(json.dumps(tree), file="r.json")
    except InvalidRecipe:
        # An evaluation that is missing leaves a data set unread, which no schema can see.
        assert not EDITORS.is_valid(tree) or not evaluations
    else:
        assert EDITORS.is_valid(tree)


def refused_or_valid(source: bytes) -> None:
    problems: tuple[Problem, ...] = ()
    try:
        validate(apply(parse(source, "r.json", syntax="json"), ()), builtins())
    except InvalidRecipe as refused:
        problems = refused.problems
    assert all(problem.line >= 1 and problem.column >= 1 for problem in problems)
    assert all(str(problem).isprintable() for problem in problems)


@settings(deadline=None)
@given(TREES)
def test_the_order_of_keys_changes_no_key(tree: dict[str, Any]) -> None:
    shuffled = dict(reversed(tree.items()))
    assert key_of(shuffled) == key_of(tree) == digest_of(tree)


@settings(deadline=None)
@given(TREES, TREES)
def test_components_differ_where_their_keys_differ(old: dict[str, Any], new: dict[str, Any]) -> None:
    assert list(differences(old, old)) == []
    if key_of(old) != key_of(new):
        assert list(differences(old, new))


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from(["adapt", "train", "evaluate.samples"]))
def test_a_seed_fits_every_generator_and_has_no_side(seed: int, node: str) -> None:
    assert 0 <= node_seed(seed, node) < 2**32
    assert node_seed(seed, f"{node}@base") == node_seed(seed, f"{node}@result") == node_seed(seed, node)
