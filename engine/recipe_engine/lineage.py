"""What a result was made from: sources, nodes with their keys and artifacts, pushes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from recipe_engine.contract import ResolvedSource, SourceFile
from recipe_engine.errors import InvalidArguments
from recipe_engine.graph import build_graph
from recipe_engine.keys import source_digest
from recipe_engine.node import needed_for
from recipe_engine.recorded import Recorded

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from recipe_engine.model import Recipe
    from recipe_engine.node import Node
    from recipe_engine.plugins import Catalogue
    from recipe_registry import Registry, RunRecord

SHORTEST_PREFIX = 6
"""Digits of a digest that are enough to look for it."""
_SHORT = 12
_SHAPES = {"source": "folder", "node": "box", "push": "cds"}


def lineage(recorded: Recorded, recipe: Recipe, catalogue: Catalogue, node: str = "") -> dict[str, Any]:
    """The graph of a run, in the form that ``lineage --json`` prints (``docs/json.md``).

    Args:
        recorded: the run.
        recipe: as it was run.
        catalogue: what is installed.
        node: the one whose making is told; ``""`` for all that the run came to.
    """
    nodes = [found for found in build_graph(recipe, catalogue) if found.id in recorded.nodes]
    if node:
        nodes = list(needed_for(tuple(nodes), frozenset({node})))
    shown = [found for found in nodes if found.stage != "resolve"]
    sources = [source for found in shown for source in (found.source, *found.sources.values()) if source]
    return {
        "run": recorded.record.id,
        "name": recorded.record.name,
        "recipes": [{"name": part.name, "digest": part.digest()} for part in recipe.parts()],
        "sources": [_source(name, recorded.record.inputs[name]) for name in dict.fromkeys(sources)],
        "nodes": [_node(found, recorded, recipe) for found in shown],
    }


def find_artifact(registry: Registry, prefix: str) -> tuple[RunRecord, str] | None:
    """The run that made an artifact, and the node; where no record says who made it, the latest that took it.

    Args:
        registry: where to look.
        prefix: the first digits of its digest, with or without ``sha256:``.

    Returns:
        ``None`` where no run has one that begins so, or the text is no beginning of a digest.

    Raises:
        InvalidArguments: where several artifacts begin so.
    """
    digits = prefix.removeprefix("sha256:").lower()
    if len(digits) < SHORTEST_PREFIX or set(digits) - set("0123456789abcdef"):
        return None
    holders: dict[str, list[tuple[RunRecord, str, bool]]] = {}
    for record in registry.runs.list():
        run = Recorded(registry, record)
        for node in run.nodes:
            if run.digest(node).startswith(f"sha256:{digits}"):
                made = run.nodes[node]["status"] == "ran"
                holders.setdefault(run.digest(node), []).append((record, node, made))
    if len(holders) > 1:
        raise InvalidArguments(f"{prefix!r} fits the artifacts {', '.join(sorted(holders))}.", "Give more digits.")
    found = [holder for several in holders.values() for holder in several]
    chosen = next((holder for holder in found if holder[2]), found[0] if found else None)
    return chosen[:2] if chosen else None


def tree_lines(graph: Mapping[str, Any]) -> Iterator[str]:
    """The graph as a text tree: results first, below each what it was made from; nothing is told twice."""
    nodes = {node["id"]: node for node in graph["nodes"]}
    sources = {source["name"]: source for source in graph["sources"]}
    told: set[str] = set()

    def below(name: str, indent: str) -> Iterator[str]:
        parents = _parents(nodes[name]) if name in nodes else []
        for position, parent in enumerate(parents):
            is_last = position == len(parents) - 1
            again = parent in told
            text = _told_node(nodes[parent]) if parent in nodes else _told_source(sources[parent])
            yield f"{indent}{'└── ' if is_last else '├── '}{parent + '  (above)' if again else text}"
            if not again:
                told.add(parent)
                yield from below(parent, indent + ("    " if is_last else "│   "))

    for name in _results(graph["nodes"]):
        yield _told_node(nodes[name])
        yield from below(name, "")


def dot_lines(graph: Mapping[str, Any]) -> Iterator[str]:
    """The graph in the language of Graphviz; each recipe's nodes stand in a box of their own."""
    yield f"digraph {_quoted(graph['name'])} {{"
    yield "  rankdir=LR;"
    for source in graph["sources"]:
        label = f"{source['reference']}\n{source['digest'][: len('sha256:') + _SHORT]}"
        yield f"  {_quoted(source['name'])} [shape={_SHAPES['source']}, label={_quoted(label)}];"
    for number, recipe in enumerate(graph["recipes"]):
        yield f"  subgraph cluster_{number} {{"
        yield f"    label={_quoted(recipe['name'])};"
        for node in graph["nodes"]:
            if node["recipe"] == recipe["name"]:
                shape = _SHAPES["push" if node["stage"] == "push" else "node"]
                label = "\n".join([node["id"], *_marks(node)])
                yield f"    {_quoted(node['id'])} [shape={shape}, label={_quoted(label)}];"
        yield "  }"
    for node in graph["nodes"]:
        for parent in _parents(node):
            yield f"  {_quoted(parent)} -> {_quoted(node['id'])};"
    yield "}"


def _node(node: Node, recorded: Recorded, recipe: Recipe) -> dict[str, Any]:
    known = recorded.nodes[node.id]
    return {
        "id": node.id,
        "recipe": node.id.rpartition("/")[0] or recipe.name,
        "stage": node.stage,
        "method": node.method,
        "key": known["key"],
        "artifact": recorded.digest(node.id) or None,
        "made_by": recorded.made_by(node.id) or None,
        "result": _named(recipe).get(node.id),
        "source": node.source or None,
        "sources": dict(node.sources),
        "inputs": dict(node.inputs),
        "receipt": dict(known["facts"]) if node.stage == "push" else None,
    }


def _named(recipe: Recipe) -> dict[str, str]:
    """Nodes that a named result gives -> its reference."""
    parts = [part for part in recipe.parts() if part.pinned]
    return {node: part.pinned.reference for part in parts if part.pinned for node in part.pinned_nodes()}


def _source(name: str, recorded: Mapping[str, Any]) -> dict[str, Any]:
    files = tuple(SourceFile(file["path"], None, file["sha256"], file["size"]) for file in recorded["files"])
    digest = source_digest(ResolvedSource(recorded["reference"], files))
    return {
        "name": name,
        "reference": recorded["reference"],
        "digest": digest,
        "files": [{"path": file.path, "sha256": file.sha256, "size": file.size} for file in files],
    }


def _parents(node: Mapping[str, Any]) -> list[str]:
    """What it was made from: nodes first, then its sources."""
    source = [node["source"]] if node["source"] else []
    return list(dict.fromkeys([*node["inputs"].values(), *source, *node["sources"].values()]))


def _results(nodes: Sequence[Mapping[str, Any]]) -> list[str]:
    """The nodes that nothing was made from, the last first: pushes stand at the end of a run."""
    used = {parent for node in nodes for parent in _parents(node)}
    return [node["id"] for node in reversed(nodes) if node["id"] not in used]


def _told_node(node: Mapping[str, Any]) -> str:
    return "  ".join([node["id"], *_marks(node)])


def _told_source(source: Mapping[str, Any]) -> str:
    return f"{source['name']}  {source['reference']}  {_short(source['digest'])}"


def _marks(node: Mapping[str, Any]) -> Iterable[str]:
    """Key, artifact and maker of a node; where a push went."""
    if node["receipt"] is not None:
        told = {name: value for name, value in node["receipt"].items() if isinstance(value, str)}
        return [_short(value) if name == "digest" else value for name, value in sorted(told.items())]
    marks = [f"{name} {_short(node[name])}" for name in ("key", "artifact") if node[name]]
    makers = [f"run {node['made_by']}" if node["made_by"] else "", node["result"] or ""]
    return [*marks, *filter(None, makers)]


def _short(digest: str) -> str:
    return digest.removeprefix("sha256:")[:_SHORT]


def _quoted(text: str) -> str:
    """A quoted string of Graphviz; a line break in it is written as the two characters that Graphviz reads as one."""
    return json.dumps(text, ensure_ascii=False)
