"""Names that move from one registry to another through a remote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.unit.registry import gc_scenario

from recipe_engine.remotes import open_remote
from recipe_registry import NamedResult, NameTaken, Registry, UnknownName
from recipe_registry.errors import DamagedName, DamagedRemote
from recipe_registry.selection import select
from recipe_registry.sharing import fetch_name, names_in, push_name, reached
from recipe_registry.sync import pull, push

if TYPE_CHECKING:
    from recipe_registry.remote import Remote

RECIPE = {"recipe.toml": b"version = 1\n", "bases/sft.toml": b"version = 1\n# base\n"}


@pytest.fixture
def full(home: Path) -> Registry:
    gc_scenario.fill(home)
    registry = Registry.open(home)
    name(registry, "1.0", 0)
    return registry


@pytest.fixture
def other(tmp_path: Path) -> Registry:
    return Registry.open(tmp_path / "other")


@pytest.fixture
def remote(tmp_path: Path) -> Remote:
    return open_remote(f"file://{tmp_path / 'remote'}")


def name(registry: Registry, version: str, number: int) -> NamedResult:
    """Name one of the registry's artifacts."""
    run = registry.runs.list()[0].id
    digest = registry.artifacts.digests()[number]
    return registry.names.add(NamedResult("helper", version, run, {"train": digest}, "recipe.toml", Path()), RECIPE)


def send(registry: Registry, remote: Remote, version: str) -> None:
    result = registry.names.get("helper", version)
    push(registry, select(registry, reached(registry, result)), remote)
    push_name(registry, remote, result)


def take(registry: Registry, remote: Remote, version: str) -> NamedResult:
    parcel = fetch_name(remote, "helper", version)
    pull(registry, remote, parcel.reaches(remote))
    return parcel.unpack(registry)


def test_a_name_arrives_with_all_that_it_reaches(full: Registry, other: Registry, remote: Remote) -> None:
    full.names.promote("helper", "1.0", "production")
    send(full, remote, "1.0")
    taken = take(other, remote, "1.0")
    sent = full.names.get("helper", "1.0")
    assert (taken.artifacts, taken.run, taken.stages) == (sent.artifacts, sent.run, ("production",))
    assert {path: file.read_bytes() for path, file in other.names.files(taken).items()} == {
        path: file.read_bytes() for path, file in full.names.files(sent).items()
    }
    other.artifacts.get(taken.artifacts["train"], verify=True)
    assert other.names.events("helper") == full.names.events("helper")
    assert other.runs.load(sent.run) == full.runs.load(sent.run)


def test_what_happened_in_two_registries_is_one_history(full: Registry, other: Registry, remote: Remote) -> None:
    send(full, remote, "1.0")
    take(other, remote, "1.0")
    other.names.promote("helper", "1.0", "staging")
    full.names.retire("helper", "1.0")
    send(other, remote, "1.0")
    send(full, remote, "1.0")
    for registry in (full, other):
        take(registry, remote, "1.0")
        assert [event.kind for event in registry.names.events("helper")].count("named") == 1
        assert {event.kind for event in registry.names.events("helper")} == {"named", "promoted", "retired"}
    assert full.names.events("helper") == other.names.events("helper")


def test_latest_is_the_remotes(full: Registry, other: Registry, remote: Remote) -> None:
    name(full, "1.1", 1)
    for version in ("1.0", "1.1"):
        send(full, remote, version)
    assert take(other, remote, "latest").version == full.names.get("helper").version
    assert names_in(remote) == [("helper", "1.0"), ("helper", "1.1")]


def test_a_version_that_is_another_here_is_not_replaced(full: Registry, other: Registry, remote: Remote) -> None:
    send(full, remote, "1.0")
    gc_scenario.fill(other.home)
    name(other, "1.0", 1)
    with pytest.raises(NameTaken):
        take(other, remote, "1.0")


def test_what_the_remote_has_not_is_told(full: Registry, other: Registry, remote: Remote) -> None:
    send(full, remote, "1.0")
    with pytest.raises(UnknownName, match=r"There is no helper:2 in .* It has 1\.0\."):
        take(other, remote, "2")
    with pytest.raises(UnknownName, match="There is no helpers:1 in"):
        fetch_name(remote, "helpers", "1")


def test_wrong_bytes_are_refused(full: Registry, other: Registry, remote: Remote, tmp_path: Path) -> None:
    send(full, remote, "1.0")
    manifest = tmp_path / "remote" / "names" / "helper" / "1.0.json"
    content = json.loads(manifest.read_bytes())
    sha256 = next(entry["sha256"] for entry in content["entries"] if entry["path"] == "recipe.toml")
    blob = tmp_path / "remote" / "blobs" / "sha256" / sha256[:2] / sha256
    blob.write_bytes(b"version = 2\n")
    with pytest.raises(DamagedRemote, match=r"recipe\.toml has other bytes"):
        take(other, remote, "1.0")
    content["entries"] = [entry | {"path": "../escape"} for entry in content["entries"][:1]]
    manifest.write_text(json.dumps(content))
    with pytest.raises(DamagedRemote):
        take(other, remote, "1.0")
    content["entries"] = []
    manifest.write_text(json.dumps(content))
    with pytest.raises(DamagedName):
        take(other, remote, "1.0")
    assert list(other.names.versions()) == []
