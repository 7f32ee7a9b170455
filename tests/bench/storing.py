"""What a registry costs: storing an artifact against hashing and writing its bytes, and looking for garbage."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.bench.measure import Comparison, alternate
from tests.bench.stores import generate

from recipe_registry import ArtifactStore, Registry, garbage, sha256_file

ROOT = Path(__file__).parent.parent.parent
SIZE = 200_000_000
CHUNK = 1 << 20
ARTIFACTS = 100_000


def compare() -> Iterator[Comparison]:
    """Storing 200 MB against one sequential write and one hashing of as many bytes; garbage of 100,000 artifacts."""
    (ROOT / "build").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=ROOT / "build") as folder:
        block = os.urandom(CHUNK)
        yield alternate(
            "store-artifact",
            "storing an artifact of 200 MB / writing, syncing and hashing 200 MB",
            lambda: store(Path(folder) / "home", block),
            lambda: write_and_hash(Path(folder) / "file", block),
            "seconds",
        )
        home = Path(folder) / "many"
        generate(home, ARTIFACTS, ARTIFACTS // 2)
        yield alternate(
            "gc-dry-run",
            "recipe registry gc --dry-run, 100,000 artifacts / reading their manifests and key records",
            lambda: look_for_garbage(home),
            lambda: read_all(home),
            "seconds",
        )


def store(home: Path, block: bytes) -> float:
    """Seconds from the first byte to the committed artifact."""
    shutil.rmtree(home, ignore_errors=True)
    artifacts = ArtifactStore(home)
    os.sync()
    started = time.perf_counter()
    staging = artifacts.stage("bench")
    fill(staging / "weights.bin", block)
    artifacts.commit(staging)
    return time.perf_counter() - started


def write_and_hash(file: Path, block: bytes) -> float:
    """Seconds for the same bytes without a registry."""
    file.unlink(missing_ok=True)
    os.sync()
    started = time.perf_counter()
    fill(file, block)
    sha256_file(file)
    with file.open("rb") as written:
        os.fsync(written.fileno())
    return time.perf_counter() - started


def fill(file: Path, block: bytes) -> None:
    """Write ``SIZE`` bytes in sequence."""
    with file.open("wb", buffering=0) as written:
        for _ in range(SIZE // len(block)):
            written.write(block)


def look_for_garbage(home: Path) -> float:
    """Seconds to find what can go."""
    started = time.perf_counter()
    found = garbage.find(Registry.open(home, create=False))
    if found.kept != ARTIFACTS // 2:
        raise RuntimeError(f"{found.kept} artifacts would be kept")
    return time.perf_counter() - started


def read_all(home: Path) -> float:
    """Seconds to read the small files that the answer depends on, and nothing else."""
    started = time.perf_counter()
    for folder in ("artifacts", "keys"):
        for path in (home / folder).iterdir():
            (path / "manifest.json" if path.is_dir() else path).read_bytes()
    return time.perf_counter() - started
