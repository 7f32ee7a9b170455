"""Results that differ from what is wanted only in where they were made: other packages, hardware or image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from recipe_engine.keys import changes
from recipe_registry import digest_of, keys_by_group

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from recipe_registry import KeyRecord, Registry

ENVIRONMENT = frozenset({"packages", "hardware", "image"})
"""Components of a key that say where a node is computed. A plugin is none of them: its code is what is computed."""
_GROUPING = "without-environment-1"
_SHOWN_DIGITS = 19


class AnyEnvironment:
    """The results of one registry, whatever environment they were made in.

    Args:
        registry: has them.
        keep: let the registry remember what was found out of its records.
    """

    def __init__(self, registry: Registry, *, keep: bool) -> None:
        self._registry = registry
        self._keep = keep
        self._groups: dict[str, list[str]] | None = None

    def find(self, components: Mapping[str, Any]) -> KeyRecord | None:
        """The result whose environment is nearest to that of the components, of several the newest.

        Args:
            components: of the key that is wanted.
        """
        if self._groups is None:
            self._groups = keys_by_group(self._registry, _GROUPING, _group_of, keep=self._keep)
        group = _group_of(components)
        found = [self._registry.artifacts.lookup(key) for key in self._groups.get(group, ())]
        alike = [record for record in found if record is not None and _group_of(record.components) == group]
        alike.sort(key=lambda record: (record.run, record.key), reverse=True)
        return min(alike, key=lambda record: len(list(changes(record.components, components))), default=None)


def made_with(made: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """What was other in the environment that a result was made in, such as ``torch 2.12.0, 4 threads``.

    Args:
        made: components of its key.
        wanted: components of the key that is wanted.
    """
    return ", ".join(_differences(made, wanted)) or "another environment"


def _differences(made: Mapping[str, Any], wanted: Mapping[str, Any]) -> Iterator[str]:
    if made.get("image") != wanted.get("image"):
        # An image stands for the packages in it.
        yield f"image {made['image'][:_SHOWN_DIGITS]}" if "image" in made else "no image"
    elif made["packages"] != wanted["packages"]:
        yield from _packages(made["packages"], wanted["packages"])
    before, now = made.get("hardware", {}), wanted.get("hardware", {})
    if before.get("device") != now.get("device"):
        yield f"device {before.get('device')}"
    if before.get("threads") != now.get("threads"):
        yield f"{before.get('threads')} thread{'' if before.get('threads') == 1 else 's'}"
    if before.get("cpu_flags") != now.get("cpu_flags"):
        yield "other processor features"


def _packages(made: Mapping[str, Any], wanted: Mapping[str, Any]) -> Iterator[str]:
    for name in sorted({*made, *wanted}):
        before, now = made.get(name), wanted.get(name)
        if before is None:
            yield f"no {name}"
        elif now is None or before["version"] != now["version"]:
            yield f"{name} {before['version']}"
        elif before != now:
            yield f"another build of {name}"


def _group_of(components: Mapping[str, Any]) -> str:
    return digest_of({name: value for name, value in components.items() if name not in ENVIRONMENT})
