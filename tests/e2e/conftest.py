"""Fixtures of whole runs. One model and one finished run are shared: a run costs seconds."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from tests import tiny
from tests.e2e.engine import Finished, Workspace, observed, write_workspace


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder that nobody changes."""
    return tiny.write_model(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture
def workspace(tmp_path: Path, model: Path) -> Workspace:
    """A folder where nothing has been run."""
    return write_workspace(tmp_path / "fresh", model)


@pytest.fixture(scope="session")
def first_run(tmp_path_factory: pytest.TempPathFactory, model: Path) -> tuple[Workspace, Finished]:
    """A whole run that nobody disturbed, and where it was made; read it, do not add to it.

    A plugin writes down the calls of its hooks, and there is a token in its environment.
    """
    workspace = write_workspace(tmp_path_factory.mktemp("first") / "space", model)
    observed(workspace)
    return workspace, workspace.run()


@pytest.fixture
def finished(tmp_path: Path, first_run: tuple[Workspace, Finished]) -> Workspace:
    """A copy of the place of the first run, to go on from: everything is in its registry."""
    original, _ = first_run
    unwanted = shutil.ignore_patterns("observer", "transcript")
    shutil.copytree(original.folder, tmp_path / "space", symlinks=True, ignore=unwanted)
    return Workspace(tmp_path / "space")
