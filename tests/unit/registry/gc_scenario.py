"""A registry with something of everything to keep and to remove; as a program it collects, so that it can be killed.

``python gc_scenario.py HOME``
"""

from __future__ import annotations

import sys
from pathlib import Path

from recipe_registry import NamedResult, Registry, RunRecord, garbage

NAMES = (
    "base",
    "adapter",
    "orphan",
    "second orphan",
    "input of an area",
    "of a killed run",
    "of a damaged run",
    "named",
)
KEPT = ("base", "adapter", "input of an area", "of a killed run", "of a damaged run", "named")


def key(name: str) -> str:
    return f"sha256:{name.encode().hex():0>64}"[:71]


def artifact(registry: Registry, name: str, inputs: dict[str, str]) -> str:
    staging = registry.artifacts.stage(name)
    (staging / "name").write_text(name)
    made = registry.artifacts.commit(staging)
    components = {"inputs": inputs}
    registry.artifacts.record_key(key(name), made.digest, node="train", run="r", components=components, facts={})
    return made.digest


def record(registry: Registry, status: str, *digests: str) -> RunRecord:
    nodes = [{"id": "train", "artifact": {"digest": digest, "path": "x"}} for digest in digests]
    saved = RunRecord(
        registry.runs.new_id(), "demo", status, "2026-11-24T06:45:12Z", f"sha256:{'ef' * 32}", nodes=nodes
    )
    registry.runs.save(saved)
    return saved


def fill(home: Path) -> dict[str, str]:
    """Name -> digest."""
    registry = Registry.open(home)
    made: dict[str, str] = {}
    for name in NAMES:
        # An adapter names what it was trained on: that is kept with it, though no run names it.
        made[name] = artifact(registry, name, {"model": made["base"]} if name == "adapter" else {})
    record(registry, "succeeded", made["adapter"])
    killed = record(registry, "running")
    registry.runs.append_event(killed.id, {"type": "node_finished", "artifact": {"digest": made["of a killed run"]}})
    damaged = record(registry, "succeeded", made["of a damaged run"])
    path = registry.runs.directory(damaged.id) / "run.json"
    path.write_bytes(path.read_bytes()[:-10])
    named = NamedResult("bot", "1.0", killed.id, {"train": made["named"]}, "recipe.toml", home)
    registry.names.add(named, {"recipe.toml": b""})
    with registry.artifacts.work_area("ab" * 32, components={"inputs": {"data": made["input of an area"]}}) as area:
        (area / "checkpoint").write_bytes(b"half way")
    with registry.artifacts.work_area(key("adapter")) as area:
        (area / "checkpoint").write_bytes(b"of a node that is committed")
    (home / "tmp" / "left-1-0000").mkdir()
    return made


if __name__ == "__main__":
    garbage.collect(Registry.open(Path(sys.argv[1])))
