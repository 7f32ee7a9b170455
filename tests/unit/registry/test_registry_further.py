"""One key with two artifacts, of a method that is not bitwise or of two machines: both stay, with who made them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from tests.unit.registry.test_registry_format import FOLDER

from recipe_engine.remotes import open_remote
from recipe_registry import KeyRecord, NewerFormat, Registry, RunRecord, bundle, garbage, inventory
from recipe_registry.selection import select
from recipe_registry.sync import pull, pull_key, push

KEY = f"sha256:{'ab' * 32}"
BASES = ("base of the first", "base of the second")


def committed(registry: Registry, content: str) -> str:
    staging = registry.artifacts.stage("made")
    (staging / "content").write_text(content)
    return registry.artifacts.commit(staging).digest


def ran(registry: Registry, content: str, base: str = "") -> RunRecord:
    """A run that made something for the key, of a base that is named by the record of the key only."""
    runs = registry.runs
    run = runs.new_id()
    made = committed(registry, content)
    inputs = {"model": committed(registry, base)} if base else {}
    components = {"inputs": inputs}
    registry.artifacts.record_key(KEY, made, node="train", run=run, components=components, facts={"loss": len(content)})
    nodes = [{"id": "train", "key": KEY, "status": "ran", "artifact": {"digest": made, "path": "x"}}]
    record = RunRecord(run, "tiny", "succeeded", "2026-11-24T06:45:12Z", f"sha256:{'ef' * 32}", nodes=nodes)
    runs.save(record)
    return record


def digest_of(run: RunRecord) -> str:
    return str(run.nodes[0]["artifact"]["digest"])


@pytest.fixture
def registry(home: Path) -> Registry:
    return Registry.open(home)


@pytest.fixture
def two(registry: Registry) -> tuple[RunRecord, RunRecord]:
    return ran(registry, "one", BASES[0]), ran(registry, "another", BASES[1])


def known(registry: Registry) -> list[tuple[str, str]]:
    """Run and artifact of each record of the key."""
    return [(record.run, record.artifact) for record in registry.artifacts.results(KEY)]


def pairs(*runs: RunRecord) -> list[tuple[str, str]]:
    return [(run.id, digest_of(run)) for run in runs]


def test_both_are_known_and_the_first_answers(registry: Registry, two: tuple[RunRecord, RunRecord]) -> None:
    first, second = two
    store = registry.artifacts
    assert known(registry) == pairs(first, second)
    assert store.lookup(KEY) == store.lookup(KEY, digest_of(first)) == store.results(KEY)[0]
    assert store.lookup(KEY, digest_of(second)) == store.results(KEY)[1]
    assert store.lookup(KEY, f"sha256:{'00' * 32}") is None
    assert list(store.records()) == store.results(KEY)
    assert {link.artifact for link in store.links()} == {digest_of(run) for run in two}
    made = {item.digest: [record.run for record in item.made] for item in inventory.items(registry)}
    assert [made[digest_of(run)] for run in two] == [[first.id], [second.id]]


def test_nothing_is_overwritten(registry: Registry, two: tuple[RunRecord, RunRecord], home: Path) -> None:
    files = {path: path.read_bytes() for folder in ("keys", "further") for path in (home / folder).glob("*.json")}
    assert len(files) == 2
    for run in two:
        registry.artifacts.remember(KeyRecord(KEY, digest_of(run), "train", "later", {}, {}))
    assert {path: path.read_bytes() for path in files} == files
    assert known(registry) == pairs(*two)
    third = ran(registry, "third")
    assert known(registry)[0] == pairs(two[0])[0]
    assert sorted(known(registry)) == sorted(pairs(*two, third))


def test_a_first_that_is_torn_or_gone_leaves_the_answer_to_the_next(
    registry: Registry, two: tuple[RunRecord, RunRecord], home: Path
) -> None:
    first, second = two
    shutil.move(registry.artifacts.folder(digest_of(first)), home / "gone")
    found = registry.artifacts.lookup(KEY)
    assert found is not None
    assert found.run == second.id
    shutil.move(home / "gone", registry.artifacts.folder(digest_of(first)))
    registry.artifacts.remember(KeyRecord(KEY, digest_of(first), "train", "later", {}, {}))
    assert known(registry) == pairs(first, second)
    (home / "keys" / f"{'ab' * 32}.json").write_bytes(b"{")
    assert known(registry) == pairs(second)


def test_a_further_record_of_a_later_version_is_refused(
    registry: Registry, two: tuple[RunRecord, RunRecord], home: Path
) -> None:
    (file,) = (home / "further").iterdir()
    file.write_text('{"schema_version": 2}')
    with pytest.raises(NewerFormat):
        ran(registry, "third")
    assert file.read_text() == '{"schema_version": 2}'


@pytest.mark.parametrize("kept", [0, 1])
def test_garbage_is_what_no_run_has_record_by_record(
    registry: Registry, two: tuple[RunRecord, RunRecord], home: Path, kept: int
) -> None:
    registry.runs.delete(two[1 - kept].id)
    with registry.artifacts.work_area(KEY):
        pass
    found = garbage.collect(registry)
    assert set(found.artifacts) == {digest_of(two[1 - kept]), committed(registry, BASES[1 - kept])}
    assert (found.keys, found.work_areas) == ((KEY,), (KEY,))
    assert known(registry) == pairs(two[kept])
    answer = registry.artifacts.lookup(KEY)
    assert answer is not None
    assert answer.artifact == digest_of(two[kept])
    # What the survivor was made of is named by its record alone.
    assert registry.artifacts.get(answer.components["inputs"]["model"], verify=True).entries
    # A later result goes beside it and does not become the answer.
    later = ran(registry, "later")
    assert known(registry) == pairs(two[kept], later)


def test_an_export_has_both(registry: Registry, two: tuple[RunRecord, RunRecord], tmp_path: Path) -> None:
    bundle.write(registry, select(registry), tmp_path / "all.tar")
    other = Registry.open(tmp_path / "other")
    assert bundle.read(other, tmp_path / "all.tar").keys == 2
    assert known(other) == pairs(*two)
    bundle.write(other, select(other), tmp_path / "again.tar")
    assert (tmp_path / "again.tar").read_bytes() == (tmp_path / "all.tar").read_bytes()


def test_an_export_of_the_second_alone_is_the_first_elsewhere(
    registry: Registry, two: tuple[RunRecord, RunRecord], tmp_path: Path
) -> None:
    bundle.write(registry, select(registry, [two[1].id]), tmp_path / "second.tar")
    other = Registry.open(tmp_path / "other")
    bundle.read(other, tmp_path / "second.tar")
    assert known(other) == pairs(two[1])
    # What comes later is kept beside it.
    bundle.write(registry, select(registry), tmp_path / "all.tar")
    bundle.read(other, tmp_path / "all.tar")
    assert known(other) == pairs(two[1], two[0])


def test_a_remote_has_both(registry: Registry, two: tuple[RunRecord, RunRecord], tmp_path: Path) -> None:
    remote = open_remote(f"file://{tmp_path}/remote")
    for _ in range(2):
        push(registry, select(registry), remote)
    assert remote.names("keys") == [f"{'ab' * 32}.json"]
    assert remote.names("further") == [f"{'ab' * 32}.{digest_of(two[1]).removeprefix('sha256:')}.json"]
    other = Registry.open(tmp_path / "other")
    assert pull(other, remote).keys == 2
    assert known(other) == pairs(*two)
    one_run = Registry.open(tmp_path / "one run")
    assert pull(one_run, remote, [two[1].id]).keys == 1
    assert known(one_run) == pairs(two[1])
    by_key = Registry.open(tmp_path / "by key")
    assert pull_key(by_key, remote, KEY) == registry.artifacts.lookup(KEY)


def test_two_machines_push_what_they_made_for_one_key(tmp_path: Path) -> None:
    remote = open_remote(f"file://{tmp_path}/remote")
    made = []
    for name in ("one", "two"):
        machine = Registry.open(tmp_path / name)
        made.append(ran(machine, name))
        push(machine, select(machine), remote)
        remote_file = tmp_path / "remote" / "keys" / f"{'ab' * 32}.json"
    assert made[0].id in remote_file.read_text()
    third = Registry.open(tmp_path / "three")
    pull(third, remote)
    assert known(third) == pairs(*made)


def test_a_registry_of_the_first_format_gets_a_further_result(tmp_path: Path) -> None:
    shutil.copytree(FOLDER, tmp_path / "home")
    registry = Registry.open(tmp_path / "home")
    (before,) = (record for record in registry.artifacts.records() if record.node == "train")
    other = committed(registry, "other")
    registry.artifacts.record_key(before.key, other, node="train", run="r", components={}, facts={})
    assert registry.artifacts.lookup(before.key) == before
    assert [record.artifact for record in registry.artifacts.results(before.key)] == [before.artifact, other]
    names = {path.relative_to(FOLDER) for path in FOLDER.rglob("*.json")}
    assert all((tmp_path / "home" / name).read_bytes() == (FOLDER / name).read_bytes() for name in names)
