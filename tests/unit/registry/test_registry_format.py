"""A registry that an earlier version wrote can still be read: it is committed, and never written anew.

``tests/golden/registry-format-1`` was made by :func:`write`, with the first version of the format.
"""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tests.conftest import GOLDEN_FOLDER

from recipe_registry import Reference, Registry, RunRecord, RunStore, garbage, inventory
from recipe_registry.selection import select

FOLDER = GOLDEN_FOLDER / "registry-format-1"
RUN = "20261124-064512-3f9a"
KEYS = {"load": f"sha256:{'1a' * 32}", "train": f"sha256:{'2b' * 32}"}
REFERENCE = Reference("model.safetensors", "hub:owner/model", "cd" * 32, 13_000_000_000)


def write(home: Path) -> None:
    """Two artifacts, the second of the first, their keys, and the run that made both."""
    registry = Registry.open(home)
    store = registry.artifacts
    runs = RunStore(home, lambda: datetime(2026, 11, 24, 6, 45, 12, 0x3F9A * 1_000_000 // 65536 + 1, tzinfo=UTC))
    assert runs.new_id() == RUN
    staging = store.stage("load")
    (staging / "metrics.json").write_bytes(b"{}\n")
    base = store.commit(staging, [REFERENCE])
    staging = store.stage("train")
    (staging / "weights").mkdir()
    (staging / "weights" / "adapter.bin").write_bytes(bytes(range(256)))
    (staging / "metrics.json").write_bytes(b'{"loss": 0.5}\n')
    adapter = store.commit(staging)
    for node, made, inputs in (("load", base, {}), ("train", adapter, {"model": {"load": base.digest}})):
        components = {"format": 2, "stage": node, "inputs": inputs}
        store.record_key(KEYS[node], made.digest, node=node, run=RUN, components=components, facts={"cpu_seconds": 1.5})
    nodes = [
        {"id": node, "key": KEYS[node], "status": "ran", "artifact": {"digest": made.digest, "path": "/gone"}}
        for node, made in (("load", base), ("train", adapter))
    ]
    runs.save_recipe(RUN, "tiny.toml", b'version = 1\nname = "tiny"\n')
    runs.append_event(RUN, {"type": "run_started", "schema_version": 1, "run": RUN})
    record = RunRecord(
        RUN,
        "tiny",
        "succeeded",
        "2026-11-24T06:45:12+00:00",
        f"sha256:{'ef' * 32}",
        finished="2026-11-24T06:45:14+00:00",
        seconds=2.25,
        nodes=nodes,
        metrics={"perplexity.loss": {"before": 2.0, "after": "nan"}},
        environment={"device": "cpu"},
        inputs={"model": {"reference": "hub:owner/model", "files": []}},
        facts={"folder": "/gone", "targets": None},
    )
    runs.save(record)


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    shutil.copytree(FOLDER, tmp_path / "home")
    return Registry.open(tmp_path / "home")


def test_it_can_be_listed(registry: Registry) -> None:
    found = inventory.items(registry)
    assert {(record.node, record.run) for item in found for record in item.made} == {("load", RUN), ("train", RUN)}
    assert sorted(item.size or 0 for item in found) == [3, 256 + 14]


def test_it_is_whole(registry: Registry) -> None:
    checked = list(inventory.verify(registry, registry.artifacts.digests()))
    assert len(checked) == 2
    assert all(damages == [] for _, damages in checked)


def test_it_can_be_used(registry: Registry) -> None:
    (run,) = registry.runs.list()
    assert (run.id, run.name, run.status, run.seconds) == (RUN, "tiny", "succeeded", 2.25)
    assert run.metrics == {"perplexity.loss": {"before": 2.0, "after": "nan"}}
    assert [event["type"] for event in registry.runs.events(RUN)] == ["run_started"]
    recipe = registry.runs.recipe_file(RUN)
    assert recipe is not None
    assert recipe.read_bytes() == b'version = 1\nname = "tiny"\n'
    load, train = (registry.artifacts.lookup(KEYS[node]) for node in ("load", "train"))
    assert load is not None
    assert train is not None
    assert train.components["inputs"] == {"model": {"load": load.artifact}}
    assert registry.artifacts.get(load.artifact, verify=True).references == (REFERENCE,)
    adapter = registry.artifacts.get(train.artifact, verify=True)
    assert (adapter.path / "weights" / "adapter.bin").read_bytes() == bytes(range(256))
    assert len(select(registry, [RUN]).artifacts) == 2
    assert not garbage.find(registry).artifacts


def test_artifacts_keep_their_digests(tmp_path: Path) -> None:
    """Records may get fields; what an artifact is made of may not, or everything would be computed again."""
    write(tmp_path / "home")
    for path in (FOLDER / "artifacts").rglob("*.*"):
        assert (tmp_path / "home" / path.relative_to(FOLDER)).read_bytes() == path.read_bytes(), path
