"""JSON Schema (draft 2020-12) of recipes, made from the options dataclasses."""

from __future__ import annotations

import dataclasses
import re
import typing
from typing import TYPE_CHECKING, Any

from recipe_engine.descriptors import SINGLE_STAGES, STAGES
from recipe_engine.gates import PATTERN as GATE_PATTERN
from recipe_engine.model import ContainerTable, DataTable, ModelTable, TopTable
from recipe_engine.options import (
    FUNCTION,
    REWARD,
    Option,
    OptionField,
    Reward,
    RewardTable,
    fields_of,
    is_literal,
    members,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from recipe_engine.descriptors import DataFormat, Method, RewardSource
    from recipe_engine.plugins import Catalogue

DRAFT = "https://json-schema.org/draft/2020-12/schema"
FUNCTION_KEY = "The function that judges, one that a plugin brings."
METHOD_KEY = "The method, where the table's name is not its own."
SCHEMA_KEY = "Where editors find the JSON Schema of this file; it says nothing to the engine."
STAGE_SUMMARIES = {
    "load": "How the weights are loaded.",
    "adapt": "What becomes trainable.",
    "train": "How it is trained.",
    "evaluate": "What is measured, before and after training.",
    "push": "Where the result goes.",
}
GATE_SUMMARY = "What the result must reach before it is published: metrics and rules."
_GATE_RULE = "A comparison of the value after training: >=, <=, > or <, and a number, or a number * before."
_HEADER = re.compile(r"^``\[.*?\]``: ")
_SCALARS = {bool: "boolean", int: "integer", float: "number", str: "string"}
# What every JSON reader keeps exact (RFC 7493); keys and digests are made of canonical JSON.
_LARGEST_INTEGER = 2**53 - 1
# What JSON Schema takes for granted; language servers warn of each key that a condition does not name otherwise.
_OPEN = {"additionalProperties": True}
_KEYWORDS = {
    "minimum": "minimum",
    "maximum": "maximum",
    "above": "exclusiveMinimum",
    "below": "exclusiveMaximum",
    "pattern": "pattern",
    "min_items": "minItems",
}


def schema_of(options: type[Any]) -> Mapping[str, Any]:
    """The closed schema of one options dataclass."""
    fields = fields_of(options)
    schema: dict[str, Any] = {
        "type": "object",
        "additionalProperties": False,
        "properties": {field.name: option_schema(field) for field in fields},
    }
    if summary := summary_of(options):
        schema["description"] = summary
    required = [field.name for field in fields if field.required]
    if required:
        schema["required"] = required
    return schema


def data_schema(data_format: DataFormat | None) -> Mapping[str, Any]:
    """The closed schema of a data table: the core's keys and the format's own; open where no format is known."""
    core = schema_of(DataTable)
    if data_format is None:
        return {**core, "additionalProperties": True}
    own = schema_of(data_format.options)
    return {
        **core,
        "properties": {**core["properties"], **own["properties"]},
        "required": [*core["required"], *own.get("required", ())],
    }


def method_schema(method: Method) -> Mapping[str, Any]:
    """The closed schema of a method's table, with the key ``method`` that every stage table may have."""
    own = schema_of(method.options)
    properties = {"method": {"const": method.name, "description": METHOD_KEY}}
    return {**own, "title": method.summary, "properties": {**properties, **own["properties"]}}


def reward_schema(source: RewardSource) -> Mapping[str, Any]:
    """The closed schema of a reward's table: the keys that every reward has, and the source's own."""
    own, common = schema_of(source.options), schema_of(RewardTable)
    choice = {} if source.has_key else {FUNCTION: {"const": source.name, "description": FUNCTION_KEY}}
    required = [*choice, *own.get("required", ())]
    properties = {**choice, **own["properties"], **common["properties"]}
    return {**own, "title": source.summary, "properties": properties, "required": required}


def recipe_schema(catalogue: Catalogue, *, closed: bool = True) -> dict[str, Any]:
    """The schema of a whole recipe.

    Args:
        catalogue: the methods and formats that it knows.
        closed: refuse all others. An open schema lets them pass with any keys, for editors on other machines.
    """
    top = schema_of(TopTable)
    properties: dict[str, Any] = {"$schema": {"type": "string", "description": SCHEMA_KEY}, **top["properties"]}
    properties["model"] = _without_required(_with_examples(schema_of(ModelTable), "base", catalogue))
    properties["data"] = _data_sets_schema(catalogue, closed=closed)
    for stage in STAGES:
        properties[stage] = _stage_schema(stage, catalogue, closed=closed)
    properties["gate"] = {
        "type": "object",
        "description": GATE_SUMMARY,
        "additionalProperties": {"type": "string", "pattern": GATE_PATTERN, "description": _GATE_RULE},
    }
    properties["container"] = {**schema_of(ContainerTable), "minProperties": 1}
    return {
        "$schema": DRAFT,
        "title": "Recipe, format version 1",
        "description": "What is fine-tuned, how, and where the result goes.",
        "type": "object",
        "additionalProperties": False,
        "properties": properties,
        # What a recipe that extends another leaves out stands there.
        "if": {"required": ["extends"], **_OPEN},
        "else": {
            "required": [*top["required"], "model"],
            "properties": {
                "model": {"required": schema_of(ModelTable)["required"], **_OPEN},
                "data": {"additionalProperties": {"required": data_schema(None)["required"], **_OPEN}},
            },
            **_OPEN,
        },
        "$defs": {
            **{stage: _saying_schema(stage, catalogue, closed=closed) for stage in STAGES},
            REWARD: _rewards_schema(catalogue, closed=closed),
            **{_reward_definition(name): reward_schema(found.descriptor) for name, found in catalogue.rewards.items()},
            **{_data_definition(name): _format_schema(name, catalogue) for name in catalogue.formats},
            **{
                f"{stage}.{name}": method_schema(found.descriptor) for (stage, name), found in catalogue.methods.items()
            },
        },
    }


def _with_examples(schema: Mapping[str, Any], key: str, catalogue: Catalogue) -> dict[str, Any]:
    """A table's schema whose key ``key`` names a source: one example of each kind."""
    examples = [source.descriptor.example for source in catalogue.sources.values()]
    properties = schema["properties"]
    return {**schema, "properties": {**properties, key: {**properties[key], "examples": examples}}}


def _without_required(schema: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in schema.items() if key != "required"}


def _data_definition(data_format: str) -> str:
    return f"data.{data_format}"


def _format_schema(name: str, catalogue: Catalogue) -> dict[str, Any]:
    descriptor = catalogue.formats[name].descriptor
    schema = _without_required(_with_examples(data_schema(descriptor), "source", catalogue))
    data_format = {"const": name, "description": schema["properties"]["format"]["description"]}
    return {**schema, "title": descriptor.summary, "properties": {**schema["properties"], "format": data_format}}


def _data_sets_schema(catalogue: Catalogue, *, closed: bool) -> dict[str, Any]:
    core = _without_required(_with_examples(data_schema(None), "source", catalogue))
    known = {"enum": list(catalogue.formats)}
    choice: dict[str, Any] = known if closed else {"anyOf": [known, {"type": "string"}]}
    data_format = {**choice, "description": core["properties"]["format"]["description"]}
    definitions = {name: _data_definition(name) for name in catalogue.formats}
    others = {**core, "properties": {**core["properties"], "format": {"not": known}}}
    return {
        "type": "object",
        "description": "Data sets, each with a table of its own.",
        "additionalProperties": {
            "type": "object",
            "properties": {"format": data_format},
            "additionalProperties": True,
            "allOf": [_when("format", name, definition) for name, definition in definitions.items()],
            **_offered([*map(_reference, definitions.values()), others]),
        },
    }


def _reward_definition(source: str) -> str:
    return f"{REWARD}.{source}"


def _rewards_schema(catalogue: Catalogue, *, closed: bool) -> dict[str, Any]:
    """The table of one reward: checked against the schema of the source that it names."""
    known = {name: _reward_definition(name) for name in catalogue.rewards}
    keys = [name for name in known if catalogue.rewards[name].descriptor.has_key]
    others = {"type": "object", "not": {"anyOf": [{"required": [key], **_OPEN} for key in keys]}, **_OPEN}
    chosen = [{"if": {"required": [key], **_OPEN}, "then": _reference(known[key])} for key in keys]
    chosen += [_when(FUNCTION, name, known[name]) for name in known if name not in keys]
    alternatives: list[Any] = [*map(_reference, known.values()), *([] if closed else [others])]
    return {"type": "object", "description": summary_of(RewardTable), "allOf": chosen, **_offered(alternatives)}


def _saying_schema(stage: str, catalogue: Catalogue, *, closed: bool) -> dict[str, Any]:
    """A table that says its method is checked against that method's schema, whatever its own name is."""
    names = catalogue.of_stage(stage)
    known: Mapping[str, Any] = {"enum": list(names)} if closed else {"type": "string"}
    return {
        "type": "object",
        "required": ["method"],
        "properties": {"method": {**known, "description": METHOD_KEY}},
        "additionalProperties": True,
        "allOf": [_when("method", name, f"{stage}.{name}") for name in names],
    }


def _stage_schema(stage: str, catalogue: Catalogue, *, closed: bool) -> dict[str, Any]:
    # Written once: each method of a stage refers to all of them, which would grow with their square.
    saying = _reference(stage)
    properties = {
        name: {
            "if": {"type": "object", "required": ["method"], **_OPEN},
            "then": saying,
            "else": _reference(f"{stage}.{name}"),
            **_offered([_reference(f"{stage}.{name}"), saying]),
        }
        for name in catalogue.of_stage(stage)
    }
    others = saying if closed else {**_saying_schema(stage, catalogue, closed=closed), "required": []}
    schema: dict[str, Any] = {
        "type": "object",
        "description": STAGE_SUMMARIES[stage],
        "properties": properties,
        "additionalProperties": others,
    }
    if stage in SINGLE_STAGES:
        schema["maxProperties"] = 1
    return schema


def _when(key: str, value: str, definition: str) -> dict[str, Any]:
    condition = {"properties": {key: {"const": value}}, "required": [key], **_OPEN}
    return {"if": condition, "then": _reference(definition)}


def _offered(alternatives: list[Any]) -> dict[str, list[Any]]:
    """What conditions beside it already say, for language servers that take completions from alternatives only."""
    return {"anyOf": alternatives}


def _reference(definition: str) -> dict[str, str]:
    return {"$ref": f"#/$defs/{definition}"}


def option_schema(field: OptionField) -> dict[str, Any]:
    """The schema of one option's value, with its description and default."""
    alternatives = [_type_schema(member, field.about) for member in members(field.type)]
    schema = alternatives[0] if len(alternatives) == 1 else {"anyOf": alternatives}
    schema = {**schema, "description": description_of(field.about)}
    if not field.required and field.default is not None:
        schema["default"] = _default(field.default)
    return schema


def summary_of(options: type[Any]) -> str:
    """The first line of the docstring, without the ``[table]`` that some begin with."""
    line = _HEADER.sub("", (options.__doc__ or "").partition("\n")[0])
    return line[:1].upper() + line[1:]


def description_of(about: Option) -> str:
    """An option's meaning with its unit, and what it needs."""
    meaning = f"{about.description.removesuffix('.')} ({about.unit})." if about.unit else about.description
    return f"{meaning} Only with {needed(about)}." if about.needs else meaning


def needed(about: Option) -> str:
    """What an option needs, as people write it."""
    return about.needs.replace("=", " = ")


def _type_schema(annotation: Any, about: Option) -> dict[str, Any]:
    if is_literal(annotation):
        return {"enum": list(typing.get_args(annotation))}
    if annotation is Reward:
        return _reference(REWARD)
    if annotation == dict[str, Any]:
        return {"type": "object"}
    if dataclasses.is_dataclass(annotation):
        return dict(schema_of(typing.cast("type[Any]", annotation)))
    if typing.get_origin(annotation) is tuple:
        item = _type_schema(typing.get_args(annotation)[0], Option(description=""))
        return {"type": "array", "items": item, **_bounds(about, ("min_items",))}
    if annotation in _SCALARS:
        exact = {"minimum": -_LARGEST_INTEGER, "maximum": _LARGEST_INTEGER} if annotation is int else {}
        return {"type": _SCALARS[annotation], **exact, **_bounds(about, tuple(_KEYWORDS)[:-1])}
    raise TypeError(f"an option cannot have the type {annotation}")


def _bounds(about: Option, names: tuple[str, ...]) -> dict[str, Any]:
    values = {_KEYWORDS[name]: getattr(about, name) for name in names}
    return {keyword: value for keyword, value in values.items() if value is not None}


def _default(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return {field.name: _default(getattr(value, field.name)) for field in fields_of(type(value))}
    return list(value) if isinstance(value, tuple) else value
