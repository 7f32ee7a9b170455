"""A real container engine for tests: the machine's own, or a dockerd that is started for them."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from tests import tiny
from tests.docker import daemon
from tests.docker.images import built_image
from tests.e2e.engine import Finished, Workspace, write_workspace

from recipe_containers.client import connect, engine_url
from recipe_containers.errors import EngineUnavailable
from recipe_engine.runners.container import HOME_LABEL


@pytest.fixture(scope="session")
def engine_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where an engine listens that tests may use, as ``DOCKER_HOST`` has it."""
    try:
        connect().close()
        yield engine_url()
        return
    except EngineUnavailable:
        pass
    # The processes of one test session share an engine; who comes first starts it, who goes last stops it.
    shared = tmp_path_factory.getbasetemp().parent / "engine"
    shared.mkdir(exist_ok=True)
    with (shared / "users").open("w") as users:
        with _exclusive(shared / "start"):
            fcntl.flock(users, fcntl.LOCK_SH)
            if not (shared / "folder").exists():
                (shared / "folder").write_text(str(daemon.start()), encoding="utf-8")
        folder = Path((shared / "folder").read_text(encoding="utf-8"))
        yield daemon.address(folder)
        with _exclusive(shared / "start"):
            try:
                fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return
            (shared / "folder").unlink()
            daemon.stop(folder)


@pytest.fixture(scope="session")
def image(engine_address: str) -> str:
    """ID of the real image for the CPU, which the engine has."""
    with closing(connect(engine_address)) as client:
        return built_image(client)


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder that everybody may read: a container of root is not root's."""
    folder = tiny.write_model(tmp_path_factory.mktemp("tiny") / "model")
    for file in folder.iterdir():
        file.chmod(0o644)
    return folder


@pytest.fixture(scope="session")
def on_host(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Finished:
    """What the recipe gives in a process of this machine."""
    return write_workspace(tmp_path_factory.mktemp("host") / "space", model).run()


@pytest.fixture
def workspace(tmp_path: Path, model: Path, engine: Any) -> Workspace:
    """A folder with a recipe where nothing has been run, and an engine for it."""
    del engine
    return write_workspace(tmp_path / "space", model)


@pytest.fixture
def boxed(workspace: Workspace, image: str) -> Workspace:
    """The same, and all stages run in the image."""
    workspace.append(f'[container]\nimage = "{image}"\n')
    return workspace


@pytest.fixture
def engine(engine_address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A client of the engine; commands that a test starts find the same one. A container that it leaves fails it."""
    monkeypatch.setenv("DOCKER_HOST", engine_address)
    with closing(connect(engine_address)) as client:
        yield client
        found = client.containers.list(all=True, ignore_removed=True)
        left = [each.name for each in found if each.labels.get(HOME_LABEL, "").startswith(str(tmp_path))]
        assert left == [], "the test left containers"


def _exclusive(path: Path) -> Any:
    stream = path.open("w")
    fcntl.flock(stream, fcntl.LOCK_EX)
    return stream
