"""The examples of docs/json.md are what the schemas describe, and every output has one."""

from __future__ import annotations

import json
import re
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

TEXT = (Path(__file__).parents[2] / "docs" / "json.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^```json (\w+)\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
SCHEMA = json.loads((files("recipe_engine.cli") / "output.schema.json").read_text(encoding="utf-8"))
REGISTRY = ("registry_names", "registry_ls", "registry_show", "registry_verify", "registry_gc", "registry_transfer")
CONTAINERS = tuple(f"containers_{name}" for name in ("ls", "show", "build", "dry_run", "image"))
RUNS = ("run_event", "runs", "annotate", "delete", "show", "replay", "diff", "lineage")
SINGLE = ("plan", "validate", "plugins", "explain", "data_row", "import", "lock", "estimate", "doctor")
OUTPUTS = (*RUNS, *SINGLE, *REGISTRY, *CONTAINERS)
EVENTS = [reference["$ref"].rpartition("/")[2] for reference in SCHEMA["$defs"]["run_event"]["oneOf"]]


def test_the_schema_is_one() -> None:
    Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    references = set(re.findall(r'"#/\$defs/(\w+)"', json.dumps(SCHEMA)))
    assert references | set(OUTPUTS) == set(SCHEMA["$defs"])


def objects(schema: Any) -> list[dict[str, Any]]:
    """Every schema of an object with named keys."""
    if isinstance(schema, list):
        return [found for item in schema for found in objects(item)]
    if not isinstance(schema, dict):
        return []
    here = [schema] if isinstance(schema.get("properties"), dict) else []
    return here + [found for value in schema.values() for found in objects(value)]


def test_every_object_is_closed_and_said_what_it_is() -> None:
    found = objects(SCHEMA["$defs"])
    assert len(found) > 15
    assert all(schema["additionalProperties"] is False and schema["description"] for schema in found)


@pytest.mark.parametrize(("name", "text"), EXAMPLES)
def test_an_example_is_valid(name: str, text: str) -> None:
    value = json.loads(text)
    errors = [error.message for error in Draft202012Validator({**SCHEMA, "$ref": f"#/$defs/{name}"}).iter_errors(value)]
    assert errors == []
    # An example can be copied: a line of its own where the command prints one a line.
    assert text.count("\n") == 1 or text == json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def test_every_output_and_every_event_has_an_example() -> None:
    assert {name for name, _ in EXAMPLES} == set(OUTPUTS)
    assert {json.loads(text)["type"] for name, text in EXAMPLES if name == "run_event"} == set(EVENTS)
    assert all(f"**`{event}`**" in TEXT for event in EVENTS)
