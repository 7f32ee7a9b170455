"""JSON Schema (draft 2020-12) of recipes, made from the options dataclasses."""

from __future__ import annotations

import dataclasses
import typing
from typing import TYPE_CHECKING, Any

from recipe_engine.descriptors import SINGLE_STAGES, STAGES
from recipe_engine.model import ContainerTable, DataTable, ModelTable, TopTable
from recipe_engine.options import Option, OptionField, fields_of, is_literal, members

if TYPE_CHECKING:
    from collections.abc import Mapping

    from recipe_engine.descriptors import DataFormat, Method
    from recipe_engine.plugins import Catalogue

DRAFT = "https://json-schema.org/draft/2020-12/schema"
_SCALARS = {bool: "boolean", int: "integer", float: "number", str: "string"}
# What every JSON reader keeps exact (RFC 7493); keys and digests are made of canonical JSON.
_LARGEST_INTEGER = 2**53 - 1
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
        "properties": {field.name: _property(field) for field in fields},
    }
    if options.__doc__:
        schema["description"] = options.__doc__.partition("\n")[0]
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
    properties = {"method": {"const": method.name, "description": "The method, where the table's name is not its own."}}
    return {**own, "title": method.summary, "properties": {**properties, **own["properties"]}}


def recipe_schema(catalogue: Catalogue) -> dict[str, Any]:
    """The schema of a whole recipe, closed over the methods of this installation."""
    properties: dict[str, Any] = dict(schema_of(TopTable)["properties"])
    properties["model"] = schema_of(ModelTable)
    properties["container"] = schema_of(ContainerTable)
    properties["data"] = {
        "type": "object",
        "additionalProperties": {
            **data_schema(None),
            "allOf": [
                {"properties": {"format": {"enum": list(catalogue.formats)}}},
                *(_when("format", registered.descriptor) for registered in catalogue.formats.values()),
            ],
        },
    }
    for stage in STAGES:
        properties[stage] = _stage_schema(stage, catalogue)
    return {
        "$schema": DRAFT,
        "title": "Recipe, format version 1",
        "type": "object",
        "additionalProperties": False,
        "required": [*schema_of(TopTable)["required"], "model"],
        "properties": properties,
    }


def _when(key: str, data_format: DataFormat) -> dict[str, Any]:
    condition = {"properties": {key: {"const": data_format.name}}, "required": [key]}
    return {"if": condition, "then": data_schema(data_format)}


def _stage_schema(stage: str, catalogue: Catalogue) -> dict[str, Any]:
    methods = {name: method_schema(registered.descriptor) for name, registered in catalogue.of_stage(stage).items()}
    schema: dict[str, Any] = {
        "type": "object",
        "properties": methods,
        # An instance with a name of its own says its method, and is checked against that method's schema.
        "additionalProperties": {
            "type": "object",
            "required": ["method"],
            "oneOf": [{**method, "required": ["method", *method.get("required", ())]} for method in methods.values()],
        },
    }
    if stage in SINGLE_STAGES:
        schema["maxProperties"] = 1
    return schema


def _property(field: OptionField) -> dict[str, Any]:
    alternatives = [_type_schema(member, field.about) for member in members(field.type)]
    schema = alternatives[0] if len(alternatives) == 1 else {"anyOf": alternatives}
    description, unit = field.about.description, field.about.unit
    schema = {**schema, "description": f"{description.removesuffix('.')} ({unit})." if unit else description}
    if not field.required and field.default is not None:
        schema["default"] = _default(field.default)
    return schema


def _type_schema(annotation: Any, about: Option) -> dict[str, Any]:
    if is_literal(annotation):
        return {"enum": list(typing.get_args(annotation))}
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
