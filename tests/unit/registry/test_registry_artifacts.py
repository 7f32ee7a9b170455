"""Artifacts: the same content is the same artifact, and a damaged one is named."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from recipe_registry import (
    Artifact,
    ArtifactStore,
    DamagedArtifact,
    Entry,
    MissingArtifact,
    NewerFormat,
    Reference,
    RefusedArtifact,
    digest_of,
    sha256_bytes,
)

Make = Callable[[dict[str, bytes]], Artifact]
FILES = {"weights.bin": b"\x00\x01\x02", "sub/config.json": b"{}"}
REFERENCE = Reference("model.safetensors", "hub:owner/model", "cd" * 32, 7)


def test_round_trip(store: ArtifactStore) -> None:
    staging = store.stage("train")
    (staging / "sub/empty/deep").mkdir(parents=True)
    (staging / "sub/config.json").write_bytes(b"{}")
    (staging / "weights.bin").write_bytes(b"\x00\x01\x02")
    made = store.commit(staging, [REFERENCE])
    assert made.entries == (
        Entry("sub/config.json", sha256_bytes(b"{}"), 2),
        Entry("weights.bin", sha256_bytes(b"\x00\x01\x02"), 3),
    )
    assert made.references == (REFERENCE,)
    assert made.size == 5
    assert store.get(made.digest, verify=True) == store.get(made.digest) == made
    assert store.get(made.digest.removeprefix("sha256:")) == made
    assert (made.path / "weights.bin").read_bytes() == b"\x00\x01\x02"
    assert {stat.S_IMODE(p.stat().st_mode) for p in made.path.rglob("*") if p.is_file()} == {0o444}
    assert not staging.exists()
    assert not (made.path / "sub/empty").exists()


def test_the_digest_is_that_of_the_manifest(make: Make) -> None:
    made = make(FILES)
    document = json.loads((made.path / "manifest.json").read_bytes())
    assert document["schema_version"] == 1
    assert digest_of(document) == made.digest
    assert made.path.name == made.digest.replace(":", "-")


def test_the_digest_of_a_known_artifact_never_changes(make: Make) -> None:
    assert make(FILES).digest == ("sha256:f9b79121be75ef83f0a40b4f254df53a07bbaeee9988b22a4d42289ca701f67f")


def test_same_content_is_one_artifact_in_any_order_and_home(make: Make, store: ArtifactStore, tmp_path: Path) -> None:
    first = make(FILES)
    assert make(dict(reversed(FILES.items()))) == first
    other = ArtifactStore(tmp_path / "elsewhere")
    staging = other.stage("x")
    (staging / "sub").mkdir()
    for name in reversed(FILES):
        (staging / name).write_bytes(FILES[name])
    assert other.commit(staging).digest == first.digest
    assert len(list(first.path.parent.iterdir())) == 1


def test_references_are_content_in_any_order(store: ArtifactStore) -> None:
    other = Reference("a.json", "hub:owner/model", "00" * 32, 1)
    digests = {store.commit(store.stage("r"), refs).digest for refs in ([REFERENCE, other], [other, REFERENCE])}
    assert len(digests) == 1
    assert store.commit(store.stage("r"), [other]).digest not in digests
    assert store.commit(store.stage("r")).size == 0


@pytest.mark.parametrize(
    ("damage", "verify", "says"),
    [
        (lambda p: flip(p / "weights.bin"), True, r"weights\.bin has the sha256 \w+ instead of \w+"),
        (lambda p: (p / "weights.bin").unlink(), False, r"weights\.bin is missing"),
        (lambda p: replace(p / "weights.bin", b"12345"), False, r"weights\.bin has 5 bytes instead of 3"),
        (lambda p: link(p / "weights.bin"), False, r"weights\.bin is not a regular file"),
        (lambda p: (p / "more").write_bytes(b""), True, r"more is not in the manifest"),
        (lambda p: (p / "manifest.json").unlink(), False, r"manifest\.json is missing"),
        (
            lambda p: os.truncate(p / "manifest.json", 40),
            False,
            r"manifest\.json cannot be used: it is not JSON",
        ),
        (lambda p: replace(p / "manifest.json", b"[" * 100_000), False, r"cannot be used: it is not JSON"),
        (lambda p: edit(p, lambda d: d.pop("schema_version")), False, r"has no schema version"),
        (lambda p: edit(p, lambda d: d.pop("entries")), False, r"lacks a field or has one too many"),
        (
            lambda p: edit(p, lambda d: d["entries"][0].update(more=1)),
            False,
            r"lacks a field or has one too many",
        ),
        (
            lambda p: edit(p, lambda d: d["entries"][0].update(sha256="00" * 32)),
            False,
            r"has the digest sha256:",
        ),
        (
            lambda p: edit(p, lambda d: d["entries"][0].update(path="../x")),
            False,
            r"'\.\./x' is not a path inside",
        ),
        (
            lambda p: edit(p, lambda d: d["entries"][0].update(path=5)),
            False,
            r"5 has a field of the wrong type",
        ),
        (lambda p: edit(p, lambda d: d["entries"][0].update(sha256="xyz")), False, r"malformed sha256 'xyz'"),
        (lambda p: edit(p, lambda d: d["entries"][0].update(size=-1)), False, r"impossible size -1"),
        (lambda p: edit(p, lambda d: d["entries"].append(d["entries"][0])), False, r"is listed twice"),
    ],
)
def test_damage_is_found_and_named(
    make: Make, store: ArtifactStore, damage: Callable[[Path], object], verify: bool, says: str
) -> None:
    made = make(FILES)
    damage(made.path)
    with pytest.raises(DamagedArtifact, match=says) as caught:
        store.get(made.digest, verify=verify)
    assert made.path.name in caught.value.message
    assert caught.value.exit_code == 8
    # The same work done again mends it.
    assert make(FILES) == made
    assert store.get(made.digest, verify=True) == made


def test_the_cheap_check_reads_no_content(make: Make, store: ArtifactStore) -> None:
    made = make(FILES)
    flip(made.path / "weights.bin")
    assert store.get(made.digest) == made


def test_missing_and_newer_artifacts(make: Make, store: ArtifactStore) -> None:
    with pytest.raises(MissingArtifact, match="There is no artifact sha256:0000"):
        store.get("00" * 32)
    made = make(FILES)
    edit(made.path, lambda d: d.update(schema_version=2))
    with pytest.raises(NewerFormat, match="has schema version 2; this program knows versions up to 1"):
        store.get(made.digest)


def test_what_cannot_become_an_artifact_is_refused(store: ArtifactStore) -> None:
    outside = store.stage("outside") / "file"
    outside.write_bytes(b"x")
    culprits: dict[str, Callable[[Path], object]] = {
        "is a symbolic link": lambda p: p.symlink_to(outside),
        "is a symbolic link; write": lambda p: p.symlink_to(outside.parent),
        "is not a regular file": os.mkfifo,
        "is a hard link": lambda p: os.link(outside, p),
        "is the registry's own name": lambda p: (p.parent / "manifest.json").write_bytes(b"{}"),
        "control characters": lambda p: (p.parent / "a\nb").write_bytes(b""),
        "not UTF-8": lambda p: Path(os.fsdecode(os.fsencode(p) + b"\xff")).write_bytes(b""),
    }
    for says, create in culprits.items():
        staging = store.stage("bad")
        create(staging / "culprit")
        with pytest.raises(RefusedArtifact, match=says) as caught:
            store.commit(staging)
        assert caught.value.exit_code == 5
        store.drop_staging(staging)
        assert not staging.exists()


@pytest.mark.parametrize("path", ["", "/abs", "a//b", "a/../b", "manifest.json", "weights.bin"])
def test_references_must_have_a_place_of_their_own(store: ArtifactStore, path: str) -> None:
    staging = store.stage("bad")
    (staging / "weights.bin").write_bytes(b"x")
    with pytest.raises(RefusedArtifact, match="mistake of the method"):
        store.commit(staging, [Reference(path, "hub:a/b", "00" * 32, 1)])
    assert [item.name for item in staging.iterdir()] == ["weights.bin"]


def test_a_staging_directory_that_is_gone_is_no_empty_artifact(make: Make, store: ArtifactStore) -> None:
    staging = store.stage("x")
    store.commit(staging)
    with pytest.raises(FileNotFoundError):
        store.commit(staging)


def test_staging_names_are_safe(store: ArtifactStore, home: Path) -> None:
    staging = store.stage("../evaluate.rouge@result")
    assert staging.parent == home / "tmp"
    assert staging.name.startswith(f"-evaluate-rouge@result-{os.getpid()}-")


def test_a_foreign_folder_can_be_committed(store: ArtifactStore, make: Make, home: Path) -> None:
    make(FILES)
    folder = home / "tmp" / "by-hand"
    folder.mkdir()
    (folder / "x").write_bytes(b"x")
    assert store.get(store.commit(folder).digest, verify=True).size == 1


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[0] ^= 1
    replace(path, bytes(data))


def replace(path: Path, data: bytes) -> None:
    path.unlink()
    path.write_bytes(data)


def link(path: Path) -> None:
    path.unlink()
    path.symlink_to("manifest.json")


def edit(artifact: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = artifact / "manifest.json"
    document = json.loads(path.read_bytes())
    change(document)
    replace(path, json.dumps(document).encode())
