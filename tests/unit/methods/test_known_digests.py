"""Large files are hashed once, and again as soon as anything about them changes."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from recipe_engine.methods.sources import known_digests
from recipe_engine.methods.sources.known_digests import sha256_of
from recipe_registry import sha256_file

OLD = 1_700_000_000


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that counts as large and was written long ago."""
    monkeypatch.setattr(known_digests, "MIN_BYTES", 8)
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"weights of a model")
    os.utime(file, (OLD, OLD))
    return file


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that were read."""
    files: list[Path] = []

    def counted(path: Path) -> str:
        files.append(path)
        return sha256_file(path)

    monkeypatch.setattr(known_digests, "sha256_file", counted)
    return files


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_a_file_that_was_not_touched_is_read_once(weights: Path, read: list[Path], tmp_path: Path) -> None:
    found = {sha256_of(weights, tmp_path / "cache", remember=True) for _ in range(3)}
    assert found == {digest(b"weights of a model")}
    assert read == [weights]


def test_what_may_not_write_remembers_nothing(weights: Path, read: list[Path], tmp_path: Path) -> None:
    for _ in range(2):
        sha256_of(weights, tmp_path / "cache", remember=False)
    assert read == [weights, weights]
    assert not (tmp_path / "cache").exists()


def test_other_bytes_of_the_same_size_and_time_are_seen(weights: Path, tmp_path: Path) -> None:
    sha256_of(weights, tmp_path / "cache", remember=True)
    weights.write_bytes(b"WEIGHTS of a model")
    os.utime(weights, (OLD, OLD))  # the time of the last change of the inode is nobody's to set
    assert sha256_of(weights, tmp_path / "cache", remember=True) == digest(b"WEIGHTS of a model")


def test_a_file_put_in_its_place_is_seen(weights: Path, tmp_path: Path) -> None:
    sha256_of(weights, tmp_path / "cache", remember=True)
    other = tmp_path / "other"
    other.write_bytes(b"Weights of a model")
    os.utime(other, (OLD, OLD))
    other.replace(weights)
    assert sha256_of(weights, tmp_path / "cache", remember=True) == digest(b"Weights of a model")


def test_what_was_written_this_moment_is_not_believed_next_time(
    weights: Path, read: list[Path], tmp_path: Path
) -> None:
    os.utime(weights)
    for _ in range(2):
        sha256_of(weights, tmp_path / "cache", remember=True)
    assert read == [weights, weights]


@pytest.mark.parametrize("content", ["", "[]", '{"version": 1}', '{"version": 2, "stamp": [], "sha256": "x"}'])
def test_a_note_that_makes_no_sense_is_passed_over(weights: Path, tmp_path: Path, content: str) -> None:
    cache = tmp_path / "cache"
    sha256_of(weights, cache, remember=True)
    (note,) = (cache / "file-digests").iterdir()
    note.write_text(content)
    assert sha256_of(weights, cache, remember=True) == digest(b"weights of a model")


def test_a_small_file_is_simply_read(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_text("{}")
    os.utime(file, (OLD, OLD))
    assert sha256_of(file, tmp_path / "cache", remember=True) == digest(b"{}")
    assert not (tmp_path / "cache").exists()
