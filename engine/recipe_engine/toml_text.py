"""A tree of tables as TOML text."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")


def to_toml(tree: Mapping[str, Any]) -> str:
    """A tree of scalars, lists and tables as TOML: scalars first, then one header a table."""
    return "\n".join(_table_lines(tree, ())).strip("\n") + "\n"


def _table_lines(table: Mapping[str, Any], path: tuple[str, ...]) -> Iterable[str]:
    inline = {key: value for key, value in table.items() if not _is_section(value, path)}
    if path and (inline or not table):
        yield ""
        yield "[" + ".".join(map(_key, path)) + "]"
    for key, value in inline.items():
        yield f"{_key(key)} = {toml_value(value)}"
    for key, value in table.items():
        if key not in inline:
            yield from _table_lines(value, (*path, key))


def _key(name: str) -> str:
    return name if _BARE_KEY.fullmatch(name) else toml_value(name)


def _is_section(value: Any, path: tuple[str, ...]) -> bool:
    # Recipes have [table] and [table.name]; what is nested deeper reads best on one line.
    return isinstance(value, Mapping) and len(path) < 2


def toml_value(value: Any) -> str:
    """One value as TOML, tables on one line.

    Raises:
        ValueError: for a number that is not finite.
    """
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{_key(key)} = {toml_value(item)}" for key, item in value.items()) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(toml_value(item) for item in value) + "]"
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{value} has no place in a recipe")
    # JSON and TOML agree on booleans, on numbers and, without \/ and surrogates, on strings.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
