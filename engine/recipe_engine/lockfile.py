"""The lock file: the resolved identity of everything that a recipe names, kept beside it.

``NAME.lock.json`` has two parts. ``inputs`` is what the result is made from: commits and digests of model and data, the
chat template, plugins, threads. ``environment`` is what it was last made with: Python and the packages. A run goes by
the lock where it fits, so a branch that moved on the Hub changes nothing until somebody asks for it.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recipe_containers import ImageFacts
from recipe_engine.errors import UnresolvedInput
from recipe_engine.lock import packages_identity, source_requests
from recipe_registry import NewerFormat, StoreNotWritable, sha256_bytes, write_json
from recipe_registry.documents import SCHEMA_VERSION, read

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from recipe_engine.contract import ResolvedSource
    from recipe_engine.lock import Hardware, Pins, Resolution
    from recipe_engine.model import Recipe
    from recipe_engine.node import Node

SUFFIX = ".lock.json"
MAX_DRIFTS_NAMED = 10
_SHOWN_DIGITS = 12


@dataclass(frozen=True, slots=True)
class Drift:
    """One thing that is not what the lock says.

    Attributes:
        field: such as ``data.train/rows.jsonl`` or ``threads``.
        locked: what the lock says; ``None`` where it says nothing.
        found: what is there now; ``None`` where nothing is.
    """

    field: str
    locked: Any
    found: Any

    def __str__(self) -> str:
        return f"{self.field} {_shown(self.locked)} -> {_shown(self.found)}"

    def to_json(self) -> dict[str, Any]:
        """The form that ``lock --json`` prints."""
        return {"field": self.field, "locked": self.locked, "found": self.found}


@dataclass(frozen=True, slots=True)
class Lock:
    """The content of a lock file.

    Attributes:
        inputs: what the result is made from.
        environment: what it was last made with.
    """

    inputs: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)

    @property
    def threads(self) -> int | None:
        """Threads of the numeric libraries, where they are locked."""
        return self.inputs.get("threads")

    @property
    def results(self) -> Mapping[str, str]:
        """Reference to a named result as the recipe gives it -> the same with the version that it stood for."""
        return {asked: found["reference"] for asked, found in self.inputs.get("results", {}).items()}

    @property
    def images(self) -> Mapping[str, ImageFacts]:
        """Reference to an image as the recipe gives it -> what it holds."""
        found = self.inputs.get("images", {})
        return {name: ImageFacts(image["content"], image["packages"], image["driver"]) for name, image in found.items()}

    @property
    def pins(self) -> Pins:
        """Reference and revision as the recipe gives them -> the commit that they stood for."""
        sources = self.inputs.get("sources", {}).values()
        return {(source["reference"], source["asked"]): source["commit"] for source in sources if source["commit"]}

    def without(self, names: Iterable[str]) -> Lock:
        """The lock without some of its sources, such as ``model``, or without ``threads``.

        Raises:
            KeyError: it has no such field.
        """
        inputs = dict(self.inputs)
        sources = dict(inputs.get("sources", {}))
        for name in names:
            del (sources if name in sources else inputs)[name]
        return Lock({**inputs, "sources": sources}, self.environment)

    def to_json(self) -> dict[str, Any]:
        """The document on disk."""
        return {"schema_version": SCHEMA_VERSION, "inputs": self.inputs, "environment": self.environment}


def lock_path(recipe: Recipe) -> Path:
    """Where a recipe's lock is kept: ``sft.lock.json`` beside ``sft.toml``."""
    return Path(recipe.file).with_suffix(SUFFIX)


def read_lock(path: Path) -> Lock | None:
    """The lock in a file, or ``None`` where there is none.

    Raises:
        UnresolvedInput: where it cannot be read as one.
    """
    try:
        document = read(path)
        lock = Lock(document["inputs"], document["environment"])
        _check(lock)
    except FileNotFoundError:
        return None
    except NewerFormat as error:
        raise UnresolvedInput(error.message, "Upgrade recipe-engine.") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no lock file, or a part of one"
        hint = "Restore it, or remove it and give: recipe lock"
        raise UnresolvedInput(f"{path} cannot be used: {reason}.", hint) from None
    return lock


def write_lock(path: Path, lock: Lock) -> None:
    """Write a lock, in place of a former one.

    Raises:
        StoreNotWritable: the disk or a permission forbids it.
    """
    write_json(path, lock.to_json())


def make_lock(recipe: Recipe, resolution: Resolution, hardware: Hardware, nodes: Sequence[Node]) -> Lock:
    """What the recipe's names stand for now; sources that are not known yet are left out."""
    asked = source_requests(recipe, Path())
    sources = {name: _source(source, asked[name].revision) for name, source in resolution.known().items()}
    plugins = {node.distribution: node.plugin_sha256 for node in nodes if node.distribution}
    plugins |= {name: sha256 for node in nodes for name, sha256 in node.reward_plugins.items()}
    inputs: dict[str, Any] = {
        "sources": sources,
        "chat_template": _chat_template(resolution.model) if resolution.model else None,
        "plugins": {
            name: {"sha256": sha256} if sha256 else dict(packages_identity([name])[name])
            for name, sha256 in sorted(plugins.items())
        },
        "threads": hardware.threads,
    }
    results = {
        str(user.model.base): {"reference": base.pinned.reference, "artifacts": dict(base.pinned.artifacts)}
        for user in recipe.parts()
        if (base := user.base) is not None and base.pinned
    }
    if results:
        inputs["results"] = results
    images = {reference: facts.to_json() for reference, facts in resolution.images.items() if facts is not None}
    if images:
        inputs["images"] = images
    packages = packages_identity({name for node in nodes if node.container is None for name in node.packages})
    return Lock(inputs, {"python": platform.python_version(), "packages": {k: dict(v) for k, v in packages.items()}})


def drift(locked: Mapping[str, Any], found: Mapping[str, Any]) -> list[Drift]:
    """How two ``inputs``, or two ``environment``, differ, each field once."""
    return list(_differences(locked, found, ()))


def check_lock(lock: Lock | None, now: Lock, path: Path) -> None:
    """Refuse what is not as locked.

    Raises:
        UnresolvedInput: where there is no lock, or an input has drifted; each field is named.
    """
    if lock is None:
        raise UnresolvedInput(f"There is no {path}.", "Make it with: recipe lock")
    drifts = drift(lock.inputs, now.inputs)
    if drifts:
        named = "\n".join(f"  {each}" for each in drifts[:MAX_DRIFTS_NAMED])
        more = f"\n  and {len(drifts) - MAX_DRIFTS_NAMED} more" if len(drifts) > MAX_DRIFTS_NAMED else ""
        raise UnresolvedInput(
            f"The inputs are not those of {path}:\n{named}{more}",
            "Put them back, or take them as they are with: recipe lock",
        )


def check_commits(lock: Lock | None, now: Lock) -> None:
    """A commit has one content: bytes that are not as locked are refused, whatever else may change.

    Raises:
        UnresolvedInput: where a file of a locked commit is another one.
    """
    before = lock.inputs["sources"] if lock else {}
    for name, source in now.inputs["sources"].items():
        locked = before.get(name, {})
        same = source["commit"] and [locked.get(key) for key in ("reference", "commit")] == [
            source["reference"],
            source["commit"],
        ]
        wrong = [path for path, sha256 in source["files"].items() if locked.get("files", {}).get(path) != sha256]
        if same and wrong:
            at = f"{source['reference']} at {source['commit'][:_SHOWN_DIGITS]}"
            raise UnresolvedInput(
                f"{at}: {wrong[0]} is not the file that is locked.",
                "Somebody changed what a commit holds, on the Hub or on the way: do not trust it.",
            )


def known_of(lock: Lock, now: Lock, recipe: Recipe) -> tuple[Lock, list[str]]:
    """The part of a lock that can be compared with what is known now, and the sources that cannot."""
    asked = source_requests(recipe, Path())
    missing = [
        name
        for name, source in lock.inputs["sources"].items()
        if name not in now.inputs["sources"]
        and name in asked
        and (asked[name].reference, asked[name].revision) == (source["reference"], source["asked"])
    ]
    known = lock.without(missing)
    if "model" in missing:
        known = Lock({**known.inputs, "chat_template": now.inputs["chat_template"]}, known.environment)
    return known, missing


def settle(path: Path, lock: Lock | None, now: Lock) -> str:
    """Lock the inputs as they are, unless they are locked so; what was done, in words, ``""`` where nothing was."""
    changes = drift(lock.inputs, now.inputs) if lock else []
    if lock and not changes:
        return ""
    try:
        write_lock(path, now)
    except StoreNotWritable as error:
        return f"the inputs are not locked: {error.message}"
    return f"locked anew in {path.name}: {', '.join(map(str, changes))}" if changes else f"locked in {path.name}"


def _check(lock: Lock) -> None:
    """A lock is a file that people edit and merge: whatever is taken from it must be there.

    Raises:
        ValueError: it is not; so do KeyError, TypeError and AttributeError.
    """
    files = [source["files"] for source in lock.inputs["sources"].values()]
    fits = all(isinstance(table, Mapping) for table in (*files, lock.environment))
    if not fits or type(lock.inputs["threads"]) is not int or lock.inputs["threads"] < 1:
        raise ValueError("a value is of the wrong kind")
    _ = lock.pins, lock.results, lock.images


def _source(source: ResolvedSource, asked: str | None) -> dict[str, Any]:
    return {
        "reference": source.reference,
        "asked": asked,
        "commit": source.commit,
        "files": {file.path: file.sha256 for file in source.files},
    }


def _chat_template(source: ResolvedSource) -> str | None:
    """The sha256 of a chat template that lies open; in a GGUF file it is pinned with the file."""
    texts = {file.path: file.local for file in source.files if file.local is not None}
    for name in ("chat_template.jinja", "tokenizer_config.json"):
        if name in texts:
            content = texts[name].read_bytes()
            template = content.decode("utf-8", "replace") if name.endswith(".jinja") else _templates(content)
            if template:
                return sha256_bytes(template.encode("utf-8", "backslashreplace"))
    return None


def _templates(configuration: bytes) -> str:
    """The template of a tokenizer's configuration, or the list of them; ``""`` where it has none."""
    try:
        found = json.loads(configuration).get("chat_template")
    except (ValueError, AttributeError):
        return ""
    return found if isinstance(found, str) else json.dumps(found, sort_keys=True) if found else ""


def _differences(locked: Any, found: Any, path: tuple[str, ...]) -> Iterator[Drift]:
    if isinstance(locked, Mapping) and isinstance(found, Mapping):
        told = [key for key in ("reference", "commit", "version") if locked.get(key) != found.get(key)]
        # Another commit or version says it all: that its files differ goes without saying.
        for key in told[:1] or sorted({*locked, *found}):
            yield from _differences(locked.get(key), found.get(key), (*path, key))
    elif locked != found:
        yield Drift(_field(path), locked, found)


def _field(path: tuple[str, ...]) -> str:
    """``sources.data.train.files.rows.jsonl`` as ``data.train/rows.jsonl``."""
    if path[0] == "sources":
        return "/".join((path[1], *path[3:])) if "files" in path[2:3] else " ".join(path[1:])
    return " ".join(path[1:] if path[0] in ("plugins", "packages") else path)


def _shown(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, Mapping):
        return "something" if value else "nothing"
    text = str(value)
    return f"{text[:_SHOWN_DIGITS]}…" if len(text) in (40, 64) else text
