"""The JSON documents of the registry: how they are spelled, and how one from disk is doubted."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from recipe_registry.errors import NewerFormat

if TYPE_CHECKING:
    from pathlib import Path

SCHEMA_VERSION = 1


def encode_json(value: Any, *, indent: int | None = None) -> bytes:
    r"""Plain JSON with sorted keys, UTF-8.

    Text that is no valid Unicode (a file name from disk, say) survives as a ``\udcXX`` escape.

    Raises:
        ValueError: the value contains NaN or an infinity.
        TypeError: the value contains something that is not JSON.
    """
    text = json.dumps(value, sort_keys=True, indent=indent, ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8", "backslashreplace")


def encode_file(value: Any) -> bytes:
    """The bytes of a document's file: sorted keys, two spaces, a newline at the end.

    Raises:
        ValueError: the value contains NaN or an infinity.
    """
    return encode_json(value, indent=2) + b"\n"


def json_safe(value: Any) -> Any:
    """``value`` with tuples as lists, and NaN and infinities as ``"nan"``, ``"inf"``, ``"-inf"``.

    For what is only remembered, never hashed: a loss that diverged must not lose the record that says so.
    """
    # Most values are these, and asking an abstract class takes ten times as long.
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, Mapping):
        return {key: json_safe(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [json_safe(item) for item in value]
    return value


def read(path: Path) -> dict[str, Any]:
    """A document of ours, once its ``schema_version`` is one that this program knows.

    Raises:
        OSError: it cannot be read.
        ValueError: it is torn or no document of ours; the message is a clause that says how.
        NewerFormat: a later version of this program wrote it.
    """
    return parse(path.read_bytes(), path)


def parse(data: bytes, path: Path | str) -> dict[str, Any]:
    """The document that a file holds; see :func:`read`."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ValueError("it is not JSON") from error
    version = document.get("schema_version") if isinstance(document, dict) else None
    if type(version) is not int or version < 1:
        raise ValueError("it has no schema version")
    if version > SCHEMA_VERSION:
        raise NewerFormat(
            f"{path} has schema version {version}; this program knows versions up to {SCHEMA_VERSION}.",
            "Upgrade recipe-engine, or use another RECIPE_HOME.",
        )
    return dict(document)
