"""Keys by a group that their components give: derived from the records, and remembered so that each is read once.

The file ``groups.txt`` has the name of the grouping in its first line, then a key and its group a line. It may be
missing, old or wrong at any time: who finds a key in it looks at the key's record.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from recipe_registry import durable
from recipe_registry.digests import hex_of
from recipe_registry.errors import StoreNotWritable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from recipe_registry.registry import Registry

FILE = "groups.txt"
_LINE = re.compile(r"^([0-9a-f]{64}) ([0-9a-f]{64})$", re.MULTILINE)


def keys_by_group(
    registry: Registry, name: str, group_of: Callable[[Mapping[str, Any]], str], *, keep: bool
) -> dict[str, list[str]]:
    """The keys of each group, sorted.

    Args:
        registry: the registry.
        name: of the grouping; where it changes, every record is read again.
        group_of: the digest of the group of a key's components.
        keep: remember what was found; without, nothing is written.

    Raises:
        NewerFormat: a later version of this program wrote a record.
    """
    file = registry.home / FILE
    known = _remembered(file.read_text(encoding="ascii", errors="replace") if file.is_file() else "", name)
    there = registry.artifacts.keys()
    groups = {key: known[key] for key in there if key in known}
    missing = [key for key in there if key not in known]
    for key in missing:
        records = registry.artifacts.results(key)
        if records:
            groups[key] = group_of(records[0].components)
    if keep and missing:
        lines = (f"{hex_of(key)} {hex_of(group)}\n" for key, group in groups.items())
        _write(registry, f"{name}\n{''.join(lines)}")
    found: dict[str, list[str]] = {}
    for key in sorted(groups):
        found.setdefault(groups[key], []).append(key)
    return found


def _remembered(text: str, name: str) -> dict[str, str]:
    first, _, rest = text.partition("\n")
    return {f"sha256:{key}": f"sha256:{group}" for key, group in _LINE.findall(rest)} if first == name else {}


def _write(registry: Registry, text: str) -> None:
    try:
        durable.write_bytes(registry.home / FILE, text.encode())
    except StoreNotWritable:
        return  # it is for speed alone
