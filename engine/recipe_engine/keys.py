"""A node's key: the digest of everything that can change its artifact, and of nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from recipe_engine.contract import WEIGHT_FILES, ResolvedSource
from recipe_engine.document import dotted
from recipe_engine.lock import Hardware, packages_identity
from recipe_registry import digest_of

if TYPE_CHECKING:
    from recipe_engine.node import Node

KEY_FORMAT = 2
SOURCE_CHANGED = "source changed"
"""What :func:`differences` says of the files that a node reads."""
# Text is text on any machine; everything after it goes through floating-point sums.
_TEXT_STAGES = frozenset({"tokenizer", "prepare"})


def source_digest(source: ResolvedSource, *, weights: bool = True) -> str:
    """Digest of a source by the content of its files, wherever they came from.

    In a folder, names are content; a file that stands alone may have any.

    Args:
        source: the files.
        weights: whether weight files count; a tokenizer does not depend on them where it has files of its own.
    """
    files = source.files
    if len(files) == 1:
        return digest_of(files[0].sha256)
    if not weights and any(not file.path.endswith(WEIGHT_FILES) for file in files):
        files = tuple(file for file in files if not file.path.endswith(WEIGHT_FILES))
    return digest_of([[file.path, file.sha256] for file in files])


def key_components(node: Node, inputs: Mapping[str, Any], hardware: Hardware, image: str = "") -> dict[str, Any]:
    """Everything that the node's key is made of, in a form that people can read.

    Args:
        node: the node.
        inputs: digest of each input by its role; of the model, of every node that made it what it is.
        hardware: the machine.
        image: digest of the content of the image that it runs in, which stands for all packages in it.
    """
    components: dict[str, Any] = {
        "format": KEY_FORMAT,
        "stage": node.stage,
        "method": node.method,
        "revision": node.revision,
        "options": node.changed_options,
        "inputs": dict(inputs),
        "packages": {} if image else packages_identity(node.packages),
    }
    if image:
        components["image"] = image
    plugins = {**({node.distribution: node.plugin_sha256} if node.distribution else {}), **node.reward_plugins}
    if plugins:
        components["plugin"] = _plugin_identities(plugins)
    if node.seeded:
        components["seed"] = node.seed
    if node.stage not in _TEXT_STAGES:
        components["hardware"] = hardware.to_json()
    return components


def _plugin_identities(plugins: Mapping[str, str]) -> dict[str, Mapping[str, str]]:
    """Of each plugin: the digest of a single file, or version and content of a package."""
    files = {name: {"sha256": sha256} for name, sha256 in plugins.items() if sha256}
    return {**files, **packages_identity(plugins.keys() - files.keys())}


def key_of(components: Mapping[str, Any]) -> str:
    """The key: ``sha256:…``."""
    return digest_of(components)


class Change(NamedTuple):
    """A value that differs between two trees; ``None`` where it is not there."""

    path: tuple[str, ...]
    before: Any
    after: Any

    def to_json(self) -> dict[str, Any]:
        """The form that commands print; the path as in TOML."""
        return {"path": dotted(self.path), "before": self.before, "after": self.after}


def changes(old: Mapping[str, Any], new: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[Change]:
    """The values that differ between two trees of tables, in the order of their paths."""
    for name in sorted({*old, *new}):
        before, after = old.get(name), new.get(name)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            yield from changes(before, after, (*path, name))
        elif before != after:
            yield Change((*path, name), before, after)


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    """What changed between two sets of components, such as ``learning_rate 0.001 -> 0.0005``."""
    for path, before, after in changes(old, new):
        yield _difference(".".join(path), before, after)


def _difference(label: str, before: Any, after: Any) -> str:
    label = label.removeprefix("options.")
    if label.startswith("inputs."):
        return f"{label.removeprefix('inputs.').removeprefix('model.')} changed"
    if label.endswith("record_sha256"):
        return f"{label.removesuffix('.record_sha256').partition('.')[2]} is another build"
    if label.startswith("plugin.") and label.endswith(".sha256"):
        return f"{label.removeprefix('plugin.').removesuffix('.sha256')} changed"
    if isinstance(before, list) and any(isinstance(item, Mapping) for item in before):
        return f"{label} changed"
    label = label.removeprefix("hardware.").removeprefix("packages.").removeprefix("plugin.").removesuffix(".version")
    return f"{label} {_shown(before)} -> {_shown(after)}"


def _shown(value: Any) -> str:
    return "default" if value is None else str(value)
