"""Fixtures of the registry's tests: real folders, real processes."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from recipe_registry import Artifact, ArtifactStore, Registry, faults

if TYPE_CHECKING:
    from tests.unit.registry.scenario import Spawn

HERE = Path(__file__).parent


@pytest.fixture
def home(memory: Path) -> Path:
    return memory / "home"


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory where there is one: a killed process leaves there what it would on a disk."""
    shared = Path("/dev/shm")
    if not os.access(shared, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=shared) as folder:
        yield Path(folder)


@pytest.fixture
def store(home: Path) -> ArtifactStore:
    return ArtifactStore(home)


@pytest.fixture
def registry(home: Path) -> Registry:
    return Registry.open(home)


@pytest.fixture
def make(store: ArtifactStore) -> Callable[[dict[str, bytes]], Artifact]:
    """Commit files, given as path -> content."""

    def commit(files: dict[str, bytes]) -> Artifact:
        staging = store.stage("made")
        for name, data in files.items():
            (staging / name).parent.mkdir(parents=True, exist_ok=True)
            (staging / name).write_bytes(data)
        return store.commit(staging)

    return commit


@pytest.fixture
def spawn() -> Spawn:
    """Start Python with code (or a file of this folder) and arguments; a fault may be asked for."""

    def start(code: str, *arguments: object, fault: str = "", before: tuple[str, ...] = ()) -> subprocess.Popen[str]:
        source = [str(HERE / code)] if code.endswith(".py") else ["-c", code]
        command = [*before, sys.executable, *source, *map(str, arguments)]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        environment.pop(faults.FAULT_VARIABLE, None)
        if fault:
            environment[faults.FAULT_VARIABLE] = fault
        return subprocess.Popen(
            command,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            stdin=subprocess.PIPE,
            text=True,
        )

    return start
