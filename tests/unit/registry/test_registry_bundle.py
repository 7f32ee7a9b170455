"""Archives: the same bytes for the same content, taken in whole or not at all."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.unit.registry import gc_scenario

from recipe_registry import (
    DamagedArtifact,
    NamedResult,
    NameTaken,
    NewerFormat,
    Registry,
    RegistryError,
    StoreNotWritable,
    bundle,
    faults,
    garbage,
    sha256_bytes,
)
from recipe_registry.errors import RefusedArchive, UnknownArtifact
from recipe_registry.intake import is_inside
from recipe_registry.selection import select

Change = Callable[[list[tuple[tarfile.TarInfo, bytes]]], None]


@pytest.fixture
def full(home: Path) -> Registry:
    gc_scenario.fill(home)
    return Registry.open(home)


@pytest.fixture
def archive(full: Registry, tmp_path: Path) -> Path:
    target = tmp_path / "all.tar"
    bundle.write(full, select(full), target)
    return target


@pytest.fixture
def other(tmp_path: Path) -> Registry:
    return Registry.open(tmp_path / "other")


def changed(archive: Path, change: Change) -> Path:
    """The archive with its members changed."""
    with tarfile.open(archive) as tar:
        members = [(member, _data(tar, member)) for member in tar]
    change(members)
    target = archive.with_name("changed.tar")
    with tarfile.open(target, "w", format=tarfile.PAX_FORMAT) as tar:
        for member, data in members:
            tar.addfile(member, io.BytesIO(data))
    return target


def _data(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(member)
    assert file is not None
    return file.read()


def add(name: str, **fields: Any) -> Change:
    def change(members: list[tuple[tarfile.TarInfo, bytes]]) -> None:
        member = tarfile.TarInfo(name)
        for field, value in fields.items():
            setattr(member, field, value)
        members.insert(1, (member, b""))

    return change


def edit_index(edit: Callable[[dict[str, Any]], object]) -> Change:
    def change(members: list[tuple[tarfile.TarInfo, bytes]]) -> None:
        member, data = members[0]
        index = json.loads(data)
        edit(index)
        new = json.dumps(index).encode()
        member.size = len(new)
        members[0] = (member, new)

    return change


def assert_untouched(registry: Registry) -> None:
    assert registry.artifacts.digests() == []
    assert list(registry.artifacts.records()) == []
    assert registry.runs.list() == []
    assert registry.artifacts.leftovers() == []


def test_round_trip(full: Registry, archive: Path, other: Registry, tmp_path: Path) -> None:
    taken = bundle.read(other, archive)
    assert (taken.artifacts, taken.keys, taken.runs, taken.there) == (8, 8, 2, 0)
    assert other.artifacts.digests() == full.artifacts.digests()
    assert list(other.artifacts.records()) == list(full.artifacts.records())
    assert other.runs.list() == full.runs.list()
    for run in full.runs.list():
        assert list(other.runs.events(run.id)) == list(full.runs.events(run.id))
    for digest in other.artifacts.digests():
        other.artifacts.get(digest, verify=True)
    assert other.artifacts.leftovers() == []
    # What was imported and is exported again is the same to the byte.
    bundle.write(other, select(other), tmp_path / "again.tar")
    assert (tmp_path / "again.tar").read_bytes() == archive.read_bytes()
    assert bundle.read(other, archive).there == 8


def test_names_go_with_what_they_stand_for(full: Registry, other: Registry, tmp_path: Path) -> None:
    full.names.promote("bot", "1.0", "production")
    named = full.names.get("bot", "1.0")
    elsewhere = NamedResult("bot", "2.0", "r", {"train": full.artifacts.digests()[0]}, "recipe.toml", tmp_path)
    if elsewhere.artifacts == named.artifacts:
        elsewhere = replace(elsewhere, artifacts={"train": full.artifacts.digests()[1]})
    full.names.add(elsewhere, {"recipe.toml": b"version = 1"})
    bundle.write(full, select(full, [named.artifacts["train"]]), tmp_path / "one.tar")
    bundle.read(other, tmp_path / "one.tar")
    assert [result.reference for result in other.names.versions()] == ["bot:1.0"]
    assert other.names.get("bot", "1.0").stages == ("production",)
    assert sorted(other.names.event_lines("bot")) == sorted(full.names.event_lines("bot"))
    assert not (set(garbage.find(other).artifacts) & set(named.artifacts.values()))
    full.names.retire("bot", "1.0")
    bundle.write(full, select(full), tmp_path / "all.tar")
    bundle.read(other, tmp_path / "all.tar")
    assert [(result.reference, result.retired) for result in other.names.versions()] == [
        ("bot:1.0", True),
        ("bot:2.0", False),
    ]
    theirs = other.names.get("bot")
    assert theirs.reference == "bot:2.0"
    assert (theirs.folder / "recipe.toml").read_bytes() == b"version = 1"


def test_a_version_that_stands_for_something_else_here_stops_all(
    archive: Path, full: Registry, other: Registry
) -> None:
    staging = other.artifacts.stage("mine")
    (staging / "mine").write_text("mine")
    mine = other.artifacts.commit(staging).digest
    other.names.add(NamedResult("bot", "1.0", "r", {"train": mine}, "recipe.toml", archive.parent), {})
    with pytest.raises(NameTaken, match=r"bot:1\.0 is the result of run r already"):
        bundle.read(other, archive)
    assert other.artifacts.digests() == [mine]
    assert other.runs.list() == []


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"version": "3.0"}, "is not the record of its version"),
        ({"artifacts": {"train": "sha256:x"}}, "is not the record of its version"),
        ({"artifacts": {"train": f"sha256:{'00' * 32}"}}, "stands for sha256:0000.*, which is missing"),
    ],
)
def test_a_version_that_makes_no_sense(archive: Path, other: Registry, wrong: dict[str, object], message: str) -> None:
    def change(members: list[tuple[tarfile.TarInfo, bytes]]) -> None:
        at = next(index for index, (member, _) in enumerate(members) if member.name.endswith("/result.json"))
        member, data = members[at]
        data = json.dumps(json.loads(data) | wrong).encode()
        member.size = len(data)
        members[at] = (member, data)
        first, text = members[0]
        listed = json.loads(text)
        entry = next(item for item in listed["files"] if item["path"] == member.name)
        entry |= {"sha256": sha256_bytes(data), "size": len(data)}
        text = json.dumps(listed).encode()
        first.size = len(text)
        members[0] = (first, text)

    with pytest.raises(RefusedArchive, match=message):
        bundle.read(other, changed(archive, change))
    assert_untouched(other)


@pytest.mark.parametrize(
    "path",
    [
        "names/bot",
        "names/bot/other.jsonl",
        "names/bot/latest/result.json",
        "names/Bot/1.0/result.json",
        "names/bot/.lock",
        "further/x.json",
        f"further/{'ab' * 32}.json",
        f"keys/{'ab' * 32}.{'ab' * 32}.json",
    ],
)
def test_what_no_registry_holds(path: str) -> None:
    assert not is_inside(path)


@pytest.mark.parametrize(
    "path",
    ["names/bot/events.jsonl", "names/bot/1.0/result.json", "names/bot/1.0/bases/x.toml", f"keys/{'ab' * 32}.json"],
)
def test_what_a_registry_holds(path: str) -> None:
    assert is_inside(path)


def test_tar_can_read_it(archive: Path) -> None:
    with tarfile.open(archive) as tar:
        members = tar.getmembers()
    assert members[0].name == "index.json"
    assert {(member.mtime, member.uid, member.gid, member.uname, member.mode) for member in members} == {
        (0, 0, 0, "", 0o644)
    }
    assert archive.stat().st_size % tarfile.RECORDSIZE == 0


def test_one_run_with_all_that_it_made(full: Registry, tmp_path: Path, other: Registry) -> None:
    run = next(run for run in full.runs.list() if run.status == "succeeded")
    written = bundle.write(full, select(full, [run.id]), tmp_path / "run.tar")
    assert (written.artifacts, written.keys, written.runs) == (1, 1, 1)
    bundle.read(other, tmp_path / "run.tar")
    assert other.artifacts.digests() == [run.nodes[0]["artifact"]["digest"]]


def test_one_artifact_by_the_beginning_of_its_digest(full: Registry, tmp_path: Path) -> None:
    digest = full.artifacts.digests()[0]
    written = bundle.write(full, select(full, [digest[:20]]), tmp_path / "one.tar")
    assert (written.artifacts, written.keys, written.runs) == (1, 1, 0)
    with pytest.raises(UnknownArtifact, match="is the beginning of 8 digests"):
        select(full, ["sha256:"])
    with pytest.raises(UnknownArtifact, match="There is no artifact"):
        select(full, ["0" * 64])


def test_a_long_path_and_a_large_number_of_files(full: Registry, tmp_path: Path, other: Registry) -> None:
    staging = full.artifacts.stage("long")
    deep = staging / "/".join(["folder"] * 40)
    deep.mkdir(parents=True)
    (deep / ("é" * 100)).write_bytes(b"x")
    made = full.artifacts.commit(staging)
    bundle.write(full, select(full, [made.digest]), tmp_path / "long.tar")
    bundle.read(other, tmp_path / "long.tar")
    assert other.artifacts.get(made.digest, verify=True).entries == made.entries


REFUSED: dict[str, tuple[Change, str]] = {
    "symbolic link": (add("keys/x", type=tarfile.SYMTYPE, linkname="/etc/passwd"), "'keys/x' is a symbolic link"),
    "hard link": (add("keys/x", type=tarfile.LNKTYPE, linkname="index.json"), "'keys/x' is a hard link"),
    "device": (add("keys/x", type=tarfile.CHRTYPE), "'keys/x' is a device"),
    "pipe": (add("keys/x", type=tarfile.FIFOTYPE), "'keys/x' is a device"),
    "folder": (add("keys", type=tarfile.DIRTYPE), "'keys' is not a plain file"),
    "absolute path": (add("/etc/x"), "'/etc/x' is an absolute path"),
    "dots": (add("artifacts/../../x"), "'artifacts/../../x' leads out of the archive"),
    "not in the index": (add("artifacts/x"), "'artifacts/x' is not in index.json"),
    "no index": (lambda members: members.__delitem__(0), "is not the index.json that an export begins with"),
    "missing": (lambda members: members.__delitem__(-1), "is missing"),
    "twice": (lambda members: members.append(members[-1]), "is not in index.json"),
    "out of order": (lambda members: members.insert(1, members.pop()), "is out of its place"),
    "dots in the index": (
        edit_index(lambda index: index["files"][0].update(path="artifacts/../x")),
        "is not a path inside an artifact",
    ),
    "elsewhere in the index": (
        edit_index(lambda index: index["files"][0].update(path="format.json")),
        "'format.json' is nothing that a registry holds",
    ),
    "a file twice in the index": (
        edit_index(lambda index: index["files"].append(index["files"][0])),
        "'index.json' lists a file twice",
    ),
    "another kind": (edit_index(lambda index: index.update(kind="x")), "'index.json' is not that of a"),
    "an index without files": (edit_index(lambda index: index.pop("files")), "'index.json' cannot be used"),
    "a size that is wrong": (
        edit_index(lambda index: index["files"][0].update(size=5)),
        "has more than 5 bytes",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(archive: Path, other: Registry, name: str) -> None:
    change, message = REFUSED[name]
    with pytest.raises(RefusedArchive) as caught:
        bundle.read(other, changed(archive, change))
    assert message in caught.value.message
    assert caught.value.exit_code == 8
    assert_untouched(other)


def test_a_newer_format(archive: Path, other: Registry) -> None:
    with pytest.raises(NewerFormat, match="has schema version 2"):
        bundle.read(other, changed(archive, edit_index(lambda index: index.update(schema_version=2))))
    assert_untouched(other)


@pytest.mark.parametrize("size", [0, 100, 5000, 20_000])
def test_an_archive_that_was_cut(archive: Path, other: Registry, size: int) -> None:
    archive.write_bytes(archive.read_bytes()[:size])
    with pytest.raises(RefusedArchive):
        bundle.read(other, archive)
    assert_untouched(other)


def test_every_flipped_byte_of_content_is_seen(archive: Path, other: Registry) -> None:
    data = archive.read_bytes()
    index = data.index(b"orphan")
    archive.write_bytes(data[:index] + b"O" + data[index + 1 :])
    with pytest.raises(RefusedArchive, match="has the sha256"):
        bundle.read(other, archive)
    assert_untouched(other)


def test_a_manifest_that_does_not_fit_its_files(archive: Path, other: Registry) -> None:
    """Index and bytes agree, but the artifact does not hold what its manifest says."""

    def change(members: list[tuple[tarfile.TarInfo, bytes]]) -> None:
        place = next(n for n, (member, _) in enumerate(members) if member.name.endswith("/name"))
        name = members.pop(place)[0].name
        edit_index(lambda index: index.update(files=[entry for entry in index["files"] if entry["path"] != name]))(
            members
        )

    with pytest.raises(RefusedArchive, match="/name' is missing"):
        bundle.read(other, changed(archive, change))
    assert_untouched(other)


def test_a_damaged_artifact_is_not_exported(full: Registry, tmp_path: Path) -> None:
    digest = full.artifacts.digests()[0]
    file = full.artifacts.folder(digest) / "name"
    size = file.stat().st_size
    file.chmod(0o644)
    file.write_bytes(b"x" * size)
    with pytest.raises(DamagedArtifact, match="has the sha256"):
        bundle.write(full, select(full), tmp_path / "x.tar")
    assert list(tmp_path.glob("*x.tar*")) == []


@pytest.mark.parametrize("point", ["fill.written@3", "commit.synced@2", "file.synced@4"])
def test_a_disk_that_is_full(archive: Path, other: Registry, monkeypatch: pytest.MonkeyPatch, point: str) -> None:
    faults._passes.clear()
    with monkeypatch.context() as patch:
        patch.setenv(faults.FAULT_VARIABLE, f"{point}:enospc")
        with pytest.raises(StoreNotWritable, match="no space left on device"):
            bundle.read(other, archive)
    for digest in other.artifacts.digests():
        other.artifacts.get(digest, verify=True)
    assert other.artifacts.leftovers() == []
    assert bundle.read(other, archive).artifacts == 8


def test_a_name_that_clashes_is_an_error_of_the_archive(archive: Path, other: Registry) -> None:
    def change(members: list[tuple[tarfile.TarInfo, bytes]]) -> None:
        place = next(n for n, (member, _) in enumerate(members) if member.name.endswith("/name"))
        member, data = members[place]
        below = tarfile.TarInfo(member.name + "/below")
        below.size = len(data)
        members.insert(place + 1, (below, data))

        def edit(index: dict[str, Any]) -> None:
            index["files"].insert(place, index["files"][place - 1] | {"path": below.name})

        edit_index(edit)(members)

    with pytest.raises(RegistryError, match="has a name that cannot be used beside the others"):
        bundle.read(other, changed(archive, change))
    assert_untouched(other)
