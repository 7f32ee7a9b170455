"""A real container engine for tests: the machine's own, or a dockerd that is started for them."""

from __future__ import annotations

import fcntl
import json
import signal
import socket
import subprocess
import tarfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from tests import tiny
from tests.docker import daemon
from tests.docker.images import built_image, image_archive
from tests.e2e.engine import Finished, Workspace, write_workspace

from recipe_containers.archive import Image, canonical, write_archive
from recipe_containers.client import connect, engine_url
from recipe_containers.engine_images import load, push
from recipe_containers.errors import EngineUnavailable
from recipe_containers.layers import Layer, digest_of
from recipe_containers.progress import silent
from recipe_engine.runners.container import HOME_LABEL

_SECONDS_TO_START = 30
LONG = ("epochs = 2", "epochs = 12")
"""An edit of the recipe: a training that can be stopped in its middle."""
METRICS = "\n[evaluate.rouge]\nmax_new_tokens = 8\n\n[evaluate.bleu]\nmax_new_tokens = 8\n\n"
"""Tables for the recipe: evaluations by libraries that an image has to have."""


def pytest_itemcollected(item: pytest.Item) -> None:
    """Give a test time for the image: whichever is the first that needs one builds it, minutes on a busy machine."""
    item.add_marker(pytest.mark.timeout(900))


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
                folder = daemon.make_folder()
                daemon.start(folder)
                (shared / "folder").write_text(str(folder), encoding="utf-8")
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
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of an image registry on loopback, which needs neither certificate nor password."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    folder = tmp_path_factory.mktemp("registry")
    config = {
        "version": 0.1,
        "log": {"level": "error"},
        "storage": {"filesystem": {"rootdirectory": str(folder / "data")}},
        "http": {"addr": f"127.0.0.1:{port}"},
    }
    (folder / "config.yml").write_text(json.dumps(config), encoding="utf-8")
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(["docker-registry", "serve", folder / "config.yml"], stdout=log, stderr=log)
    deadline = time.monotonic() + _SECONDS_TO_START
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            break
        except OSError:
            time.sleep(0.1)
    yield f"127.0.0.1:{port}"
    process.send_signal(signal.SIGTERM)
    process.wait()


@pytest.fixture(scope="session")
def base(engine_address: str, registry: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """``name@sha256:…`` of a public base: the Debian of the real image, as the registry gives it out."""
    folder = tmp_path_factory.mktemp("base")
    client = connect(engine_address)
    with tarfile.open(image_archive(built_image(client))) as archive:
        # The archive begins with the lowest layer.
        first = archive.next()
        assert first is not None
        stream = archive.extractfile(first)
        assert stream is not None
        (folder / "base.tar").write_bytes(stream.read())
    layer = Layer(folder / "base.tar", digest_of(folder / "base.tar"), first.size, "")
    config = {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [layer.digest]}}
    image = Image(canonical({**config, "config": {}}), (layer,))
    with (folder / "archive.tar").open("wb") as target:
        write_archive(image, "recipe-test-base:1", target, silent)
    load(client, folder / "archive.tar", image.image_id, silent)
    reference = push(client, image.image_id, f"{registry}/base", silent)
    client.images.remove(image.image_id, force=True)
    client.close()
    return reference


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder that everybody may read: a container of root is not root's."""
    folder = tiny.write_model(tmp_path_factory.mktemp("tiny") / "model")
    for file in folder.iterdir():
        file.chmod(0o644)
    return folder


@pytest.fixture(scope="session")
def on_host(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Finished:
    """What the recipe gives in a process of this machine, measured by the libraries for metrics too."""
    workspace = write_workspace(tmp_path_factory.mktemp("host") / "space", model)
    workspace.append(METRICS)
    return workspace.run()


@pytest.fixture(scope="session")
def long_on_host(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Finished:
    """A longer training in a process of this machine."""
    workspace = write_workspace(tmp_path_factory.mktemp("long") / "space", model)
    workspace.edit(*LONG)
    return workspace.run()


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
