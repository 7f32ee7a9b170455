"""The JSON Schema of options and of whole recipes."""

from __future__ import annotations

import json
import tomllib
from dataclasses import dataclass
from typing import Any, Literal

import pytest
from jsonschema import Draft202012Validator
from tests.unit.test_options import Everything
from tests.unit.written import RECIPES, SMALL, builtins

from recipe_engine.descriptors import STAGES, Method
from recipe_engine.options import option
from recipe_engine.schema import data_schema, method_schema, recipe_schema, schema_of

LARGEST = 2**53 - 1


def test_each_type_has_its_schema() -> None:
    properties = schema_of(Everything)["properties"]
    whole = {"type": "integer", "maximum": LARGEST}
    assert properties == {
        "flag": {"type": "boolean", "description": "Flag."},
        "count": {**whole, "minimum": 1, "description": "Count (rows).", "default": 3},
        "rate": {"type": "number", "description": "Rate.", "default": 0.5},
        "text": {"type": "string", "description": "Text.", "default": "t"},
        "choice": {"enum": ["a", "b"], "description": "Choice.", "default": "a"},
        "some": {"type": "array", "items": {"type": "number"}, "description": "List.", "default": []},
        "either": {
            "anyOf": [{"enum": ["all"]}, {"type": "array", "items": {"type": "string"}}],
            "description": "Either.",
            "default": "all",
        },
        "perhaps": {**whole, "minimum": -LARGEST, "description": "Perhaps."},
        "inner": {
            "type": "object",
            "additionalProperties": False,
            "properties": {
                "left": {"type": "string", "description": "Left.", "default": "l"},
                "right": {"type": "string", "description": "Right.", "default": "r"},
            },
            "description": "Inner.",
            "default": {"left": "l", "right": "r"},
        },
        "place": {"type": "string", "description": "Place.", "default": "here"},
    }


def test_a_table_is_closed_and_says_what_it_needs() -> None:
    schema = schema_of(Everything)
    assert schema["additionalProperties"] is False
    assert schema["required"] == ["flag"]
    assert schema["description"] == "Each type that an option can have."


def test_each_bound_has_its_keyword() -> None:
    @dataclass(frozen=True)
    class Bounded:
        closed: float = option("Closed.", minimum=0, maximum=1)
        open_: float = option("Open.", above=0, below=1)
        text: str = option("Text.", pattern="^a")
        items: tuple[int, ...] = option("Items.", min_items=2)

    properties = schema_of(Bounded)["properties"]
    assert properties["closed"] == {"type": "number", "minimum": 0, "maximum": 1, "description": "Closed."}
    assert properties["open_"] == {
        "type": "number",
        "exclusiveMinimum": 0,
        "exclusiveMaximum": 1,
        "description": "Open.",
    }
    assert properties["text"] == {"type": "string", "pattern": "^a", "description": "Text."}
    assert properties["items"]["minItems"] == 2


def test_a_class_without_a_docstring_has_no_description() -> None:
    @dataclass(frozen=True)
    class Bare:
        pass

    Bare.__doc__ = None
    assert schema_of(Bare) == {"type": "object", "additionalProperties": False, "properties": {}}


@pytest.mark.parametrize("wrong", [dict[str, int], bytes, list[int], Any], ids=str)
def test_a_type_that_a_recipe_cannot_hold_is_the_authors_error(wrong: Any) -> None:
    options: type[Any] = dataclass(frozen=True)(type("Wrong", (), {"__annotations__": {"x": wrong}, "x": option("X.")}))
    with pytest.raises(TypeError, match="an option cannot have the type"):
        schema_of(options)


def methods() -> list[Method]:
    return [registered.descriptor for registered in builtins().methods.values()]


@pytest.mark.parametrize("method", methods(), ids=lambda method: method.name)
def test_the_schema_of_a_builtin_method_is_a_schema(method: Method) -> None:
    schema = method_schema(method)
    Draft202012Validator.check_schema(schema)
    assert schema["title"] == method.summary
    assert schema["properties"]["method"]["const"] == method.name
    assert all(option["description"] for option in schema["properties"].values())


@pytest.mark.parametrize("method", methods(), ids=lambda method: method.name)
def test_the_defaults_of_a_builtin_method_are_valid(method: Method) -> None:
    schema = method_schema(method)
    defaults = {name: found["default"] for name, found in schema["properties"].items() if "default" in found}
    wrong = Draft202012Validator(schema).iter_errors(defaults)
    assert [error for error in wrong if error.validator != "required"] == []


def test_the_schema_of_a_data_table_has_the_formats_keys() -> None:
    schema = data_schema(builtins().formats["chat"].descriptor)
    Draft202012Validator.check_schema(schema)
    assert {"source", "split", "field", "system"} <= set(schema["properties"])
    assert schema["required"] == ["source", "format"]
    assert data_schema(None)["additionalProperties"] is True


def faults(recipe: Any) -> list[str]:
    validator = Draft202012Validator(recipe_schema(builtins()))
    return sorted({"/".join(map(str, error.absolute_path)) for error in validator.iter_errors(recipe)})


def test_the_schema_of_recipes_is_a_schema_and_is_json() -> None:
    schema = recipe_schema(builtins())
    Draft202012Validator.check_schema(schema)
    assert json.loads(json.dumps(schema)) == schema
    assert set(STAGES) <= set(schema["properties"])


def test_the_schema_takes_the_shipped_recipes() -> None:
    trees = [tomllib.loads(path.read_text()) for path in RECIPES.rglob("*.toml")]
    trees += [json.loads(path.read_text()) for path in RECIPES.glob("*.json") if ".lock." not in path.name]
    assert [faults(tree) for tree in trees] == [[] for _ in trees]


def test_the_schema_takes_an_instance_with_a_name_of_its_own() -> None:
    tree = tomllib.loads(SMALL + '[evaluate.again]\nmethod = "exact_match"\nmax_new_tokens = 5\n')
    assert faults(tree) == []


@pytest.mark.parametrize(
    ("key", "value", "place"),
    [
        ("evaluate", {"again": {"batch_size": 1}}, "evaluate/again"),
        ("evaluate", {"again": {"method": "exact_match", "bath_size": 1}}, "evaluate/again"),
        ("train", {"sft": {"epoch": 1}}, "train/sft"),
        ("train", {"sft": {}, "more": {"method": "sft"}}, "train"),
        ("train", {"sft": {"epochs": 2**53}}, "train/sft/epochs"),
        ("data", {"train": {"source": "file:a", "format": "chat", "fields": {}}}, "data/train"),
        ("data", {"train": {"source": "file:a", "format": "poem"}}, "data/train/format"),
        ("data", {"train": {"source": "file:a"}}, "data/train"),
        ("container", {}, "container"),
        ("device", "tpu", "device"),
        ("nmae", "x", ""),
    ],
)
def test_the_schema_is_closed(key: str, value: Any, place: str) -> None:
    found = faults(tomllib.loads(SMALL) | {key: value})
    # The tables around it may be named too.
    assert [other for other in found if not place.startswith(other)] == []
    assert place in found


def test_a_table_that_names_another_method_is_checked_as_that_one() -> None:
    tree = tomllib.loads(SMALL)
    tree["evaluate"] = {"perplexity": {"method": "exact_match", "max_new_tokens": 5}}
    assert faults(tree) == []
    tree["evaluate"]["perplexity"]["max_new_tokens"] = 0
    assert "evaluate/perplexity/max_new_tokens" in faults(tree)


def test_an_open_schema_lets_strangers_pass_and_nobody_else() -> None:
    validator = Draft202012Validator(recipe_schema(builtins(), closed=False))
    tree = tomllib.loads(SMALL)
    tree["train"] = {"dpo": {"beta": 0.1}}
    tree["evaluate"] = {"mine": {"method": "meteor", "stem": True}, "perplexity": {"method": "meteor", "stem": True}}
    tree["data"]["train"] |= {"format": "pairs", "chosen": "better"}
    assert list(validator.iter_errors(tree)) == []
    tree["data"]["eval"]["promt"] = "x"
    tree["evaluate"]["exact_match"] = {"bath_size": 1}
    found = {"/".join(map(str, error.absolute_path)) for error in validator.iter_errors(tree)}
    assert found == {"data/eval", "evaluate/exact_match"}


def test_sources_have_examples() -> None:
    properties = recipe_schema(builtins())["properties"]
    assert "hub:owner/name" in properties["model"]["properties"]["base"]["examples"]


def test_an_option_says_what_it_needs() -> None:
    @dataclass(frozen=True)
    class Needing:
        course: str = option("Course.", default="linear")
        power: float = option("Power of the course.", default=2.0, unit="steps", needs="course=power")

    assert schema_of(Needing)["properties"]["power"]["description"] == (
        "Power of the course (steps). Only with course = power."
    )


def test_the_committed_schema_is_fresh() -> None:
    written = json.dumps(recipe_schema(builtins(), closed=False), indent=2, ensure_ascii=False) + "\n"
    file = RECIPES / "schema" / "recipe.v1.schema.json"
    mend = "recipe schema --open > recipes/schema/recipe.v1.schema.json"
    assert file.read_text(encoding="utf-8") == written, f"The schema that editors use is old. Mend it: {mend}"


def test_the_type_of_a_choice_is_part_of_it() -> None:
    @dataclass(frozen=True)
    class Versioned:
        version: Literal[1] = option("Version.")

    validator = Draft202012Validator(schema_of(Versioned))
    assert [validator.is_valid({"version": version}) for version in (1, True, "1", 2)] == [True, False, False, False]


def test_a_recipe_that_extends_another_may_leave_anything_out() -> None:
    schema = Draft202012Validator(recipe_schema(builtins()))
    child = {"extends": "base.toml", "name": "child", "data": {"train": {"split": "train[:5]"}}, "model": {}}
    assert list(schema.iter_errors(child)) == []
    del child["extends"]
    assert {error.validator for error in schema.iter_errors(child)} == {"required"}
