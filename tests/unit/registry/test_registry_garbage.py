"""What nothing needs goes; what a kept run reaches stays, wherever the collection is killed."""

from __future__ import annotations

import signal
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.unit.registry import gc_scenario

from recipe_registry import Registry, StoreNotWritable, faults, garbage

if TYPE_CHECKING:
    from tests.unit.registry.scenario import Spawn

POINTS = ["all.moved", "tree.removing", "tree.removed", "aside.moved", "directory.made"]


def assert_kept(home: Path, made: dict[str, str]) -> None:
    """All that must stay is there and whole, and leads where it led."""
    registry = Registry.open(home, create=False)
    for name in gc_scenario.KEPT:
        registry.artifacts.get(made[name], verify=True)
        found = registry.artifacts.lookup(gc_scenario.key(name))
        assert found is not None
        assert found.artifact == made[name]
    for digest in registry.artifacts.digests():
        registry.artifacts.get(digest, verify=True)
    assert (home / "work" / ("ab" * 32) / "checkpoint").exists()


def assert_collected(home: Path, made: dict[str, str]) -> None:
    """Nothing else is there."""
    registry = Registry.open(home, create=False)
    assert set(registry.artifacts.digests()) == {made[name] for name in gc_scenario.KEPT}
    assert {record.artifact for record in registry.artifacts.records()} == set(registry.artifacts.digests())
    assert [path.name for path in (home / "tmp").iterdir()] == [".lock"]
    assert [path.name for path in (home / "work").iterdir()] == ["ab" * 32]
    assert not garbage.find(registry)


def test_what_is_kept_and_what_goes(home: Path) -> None:
    made = gc_scenario.fill(home)
    registry = Registry.open(home)
    before = sorted(home.rglob("*"))
    found = garbage.find(registry)
    assert sorted(home.rglob("*")) == before
    assert found.artifacts == tuple(sorted(made[name] for name in ("orphan", "second orphan")))
    assert found.keys == tuple(sorted(gc_scenario.key(name) for name in ("orphan", "second orphan")))
    assert found.work_areas == (gc_scenario.key("adapter"),)
    assert [path.name for path in found.leftovers] == ["left-1-0000"]
    assert found.kept == len(gc_scenario.KEPT)
    assert found.size > len("orphan" + "second orphan" + "of a node that is committed")
    assert garbage.collect(registry) == found
    assert_kept(home, made)
    assert_collected(home, made)


def test_nothing_to_collect(home: Path) -> None:
    assert not garbage.find(Registry.open(home, create=False))
    assert not home.exists()
    assert not garbage.collect(Registry.open(home))


def test_a_record_whose_artifact_was_lost(home: Path) -> None:
    made = gc_scenario.fill(home)
    registry = Registry.open(home)
    registry.artifacts.folder(made["adapter"]).rename(home / "elsewhere")
    found = garbage.collect(registry)
    assert gc_scenario.key("adapter") in found.keys
    # What it was trained on is still reached by nothing else now than by its record: a run names the adapter.
    assert made["base"] in registry.artifacts.digests()


@pytest.mark.slow
@pytest.mark.parametrize("point", POINTS)
def test_killed_at_every_step(memory: Path, spawn: Spawn, point: str) -> None:
    times = 0
    while True:
        home = memory / str(times)
        made = gc_scenario.fill(home)
        process = spawn("gc_scenario.py", home, fault=f"{point}@{times + 1}")
        _, errors = process.communicate()
        assert_kept(home, made)
        if process.returncode == 0:
            break
        assert (process.returncode, errors) == (-signal.SIGKILL, "")
        garbage.collect(Registry.open(home))
        assert_collected(home, made)
        times += 1
    assert times


@pytest.mark.parametrize("point", POINTS)
def test_a_disk_that_fails(memory: Path, monkeypatch: pytest.MonkeyPatch, point: str) -> None:
    home = memory / "home"
    made = gc_scenario.fill(home)
    faults._passes.clear()
    with monkeypatch.context() as patch:
        patch.setenv(faults.FAULT_VARIABLE, f"{point}:enospc")
        with pytest.raises(StoreNotWritable):
            garbage.collect(Registry.open(home))
    assert_kept(home, made)
    garbage.collect(Registry.open(home))
    assert_collected(home, made)


USING = """
import sys, os; from pathlib import Path; from recipe_registry import Registry
with Registry.open(Path(sys.argv[1])).in_use():
    print(os.getpid(), flush=True); sys.stdin.readline()
"""


def test_a_collection_waits_for_recipes_that_run_and_says_for_which(home: Path, spawn: Spawn) -> None:
    made = gc_scenario.fill(home)
    users = [spawn(USING, home) for _ in range(2)]  # any number at once
    pids = sorted(int(user.stdout.readline()) for user in users)  # type: ignore[union-attr]
    told: list[list[int]] = []
    collection = threading.Thread(target=lambda: garbage.collect(Registry.open(home), told.append))
    collection.start()
    deadline = time.monotonic() + 10
    while not told and time.monotonic() < deadline:
        time.sleep(0.01)
    assert told == [pids]
    assert made["orphan"] in Registry.open(home).artifacts.digests()
    users[0].kill()  # the kernel frees the lock of a process however it ends
    users[1].communicate("\n")
    users[0].communicate()
    collection.join(10)
    assert_collected(home, made)


def test_a_recipe_waits_for_a_collection(home: Path) -> None:
    registry = Registry.open(home)
    told = threading.Event()
    order: list[str] = []

    def use() -> None:
        with registry.in_use(told.set):
            order.append("used")

    with registry.unused():
        user = threading.Thread(target=use)
        user.start()
        assert told.wait(10)
        order.append("collected")
    user.join(10)
    assert order == ["collected", "used"]


def test_a_missing_registry_is_not_made_by_its_use(home: Path) -> None:
    with Registry.open(home, create=False).in_use():
        assert not home.exists()
