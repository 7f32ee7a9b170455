"""Errors as people and programs see them."""

from __future__ import annotations

import inspect
import re

import pytest

from recipe_engine import errors
from recipe_engine.errors import InvalidRecipe, Problem, RecipeError


def test_a_problem_is_one_line_with_its_place() -> None:
    problem = Problem("r.toml", 14, 1, "train.sft.learning_rte", "unknown key.", "Did you mean learning_rate?")
    assert str(problem) == "r.toml:14:1: train.sft.learning_rte: unknown key. Did you mean learning_rate?"


def test_a_problem_without_a_place_path_and_hint() -> None:
    assert str(Problem("--set x", 0, 0, "", "expected key=value.")) == "--set x: expected key=value."


def test_a_problem_stays_one_line_whatever_the_file_holds() -> None:
    # A line break, a terminal's escape, a mark that turns the text around, half of a surrogate pair.
    problem = Problem("a\nb.toml", 1, 1, "", "found \x1b[31m\u202eé\udcff.")
    assert str(problem) == r"a\nb.toml:1:1: found \x1b[31m\u202eé\udcff."


def test_a_problem_as_json() -> None:
    assert Problem("r.toml", 2, 3, "a.b", "m.", "h.").to_json() == {
        "file": "r.toml",
        "line": 2,
        "column": 3,
        "path": "a.b",
        "message": "m.",
        "hint": "h.",
    }


def test_problems_are_sorted_by_place_and_each_is_told_once() -> None:
    late, early = Problem("r.toml", 10, 1, "b", "m."), Problem("r.toml", 9, 5, "a", "m.")
    refused = InvalidRecipe([late, early, late])
    assert refused.problems == (early, late)
    assert str(refused).splitlines() == ["r.toml:9:5: a: m.", "r.toml:10:1: b: m.", "2 problems"]


def test_one_problem_is_counted_in_the_singular() -> None:
    assert str(InvalidRecipe([Problem("r.toml", 1, 1, "", "m.")])).splitlines()[-1] == "1 problem"


@pytest.mark.parametrize(
    ("count", "lines", "last"), [(50, 51, "50 problems"), (51, 51, "51 problems, the first 50 shown")]
)
def test_fifty_problems_are_shown(count: int, lines: int, last: str) -> None:
    text = str(InvalidRecipe([Problem("r.toml", line, 1, "", "m.") for line in range(1, count + 1)]))
    assert len(text.splitlines()) == lines
    assert text.splitlines()[-1] == last


def test_a_hint_follows_the_message() -> None:
    assert str(RecipeError("It rains.", "Take an umbrella.")) == "It rains. Take an umbrella."
    assert str(RecipeError("It rains.")) == "It rains."


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    drawn = re.findall(r"── (\w+) +exit (\d+)", errors.__doc__ or "")
    classes = {
        name: found.exit_code
        for name, found in inspect.getmembers(errors, inspect.isclass)
        if issubclass(found, RecipeError) and found is not RecipeError
    }
    assert {name: int(code) for name, code in drawn} == classes
