"""Engines that end, fill up or have not what is asked for: each has an engine or an answer of its own."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from tests.docker import daemon
from tests.docker.conftest import LONG
from tests.docker.going_on import goes_on
from tests.docker.images import image_archive
from tests.e2e.engine import Finished, Workspace, write_workspace

from recipe_containers.arguments import Job, Limits
from recipe_containers.client import connect
from recipe_containers.container import Container
from recipe_containers.engine_images import load
from recipe_containers.errors import EngineRefused, ImageMissing
from recipe_containers.progress import silent
from recipe_engine.errors import UnfitEnvironment, UnresolvedInput
from recipe_engine.images import bring_image

pytestmark = pytest.mark.slow
NOBODYS = "sha256:" + "0" * 64


def ignore(_done: int, _total: int) -> None:
    """No progress is shown."""


@pytest.fixture
def own_engine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of an engine that may be killed; commands find it."""
    folder = daemon.make_folder()
    daemon.start(folder)
    monkeypatch.setenv("DOCKER_HOST", daemon.address(folder))
    yield folder
    daemon.stop(folder)


@pytest.fixture
def small_engine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The same, with room for nothing."""
    folder = daemon.make_folder()
    (folder / "data").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(folder / "data")], check=True)
    daemon.start(folder)
    monkeypatch.setenv("DOCKER_HOST", daemon.address(folder))
    yield folder
    daemon.kill(folder)
    subprocess.run(["umount", "--recursive", str(folder / "data")], check=True)
    shutil.rmtree(folder)


def test_an_engine_that_is_killed(
    own_engine: Path, tmp_path: Path, model: Path, image: str, long_on_host: Finished
) -> None:
    with closing(connect(daemon.address(own_engine))) as client:
        load(client, image_archive(image), image, silent)
    workspace = write_workspace(tmp_path / "space", model)
    workspace.append(f'[container]\nimage = "{image}"\n')
    workspace.edit(*LONG)
    running = workspace.start()
    running.until(lambda event: event["type"] == "node_metrics" and event["step"] >= 7)
    daemon.kill(own_engine)
    assert "The container is gone: the engine ended, or somebody removed it." in running.finish().said(5)
    daemon.start(own_engine)
    goes_on(workspace, long_on_host)
    with closing(connect(daemon.address(own_engine))) as client:
        assert client.containers.list(all=True) == []


def test_an_engine_without_room(small_engine: Path, base: str) -> None:
    del small_engine
    with pytest.raises(UnfitEnvironment, match=r"cannot be kept: .*no space left.*docker system prune"):
        bring_image(base, "", ignore)


def test_an_image_that_is_not_here(boxed: Workspace, image: str) -> None:
    boxed.edit(image, NOBODYS)
    errors = boxed.recipe("run", "tiny.toml").said(3)
    assert f"The engine has no image {NOBODYS}. Build or load it" in errors.replace("\n       ", " ")


def test_a_digest_that_nobody_knows(engine: Any, registry: str) -> None:
    del engine
    with pytest.raises(UnresolvedInput, match=r"cannot be pulled: .*Check the name and the digest"):
        bring_image(f"{registry}/base@{NOBODYS}", "", ignore)


def test_an_image_of_another_content(engine: Any, image: str) -> None:
    del engine
    with pytest.raises(UnresolvedInput, match=rf"not the locked {NOBODYS}"):
        bring_image(image, NOBODYS, ignore)


def test_an_image_is_pulled_by_its_digest(engine: Any, base: str) -> None:
    found = bring_image(base, "", ignore)
    assert bring_image(base, found.content, ignore) == found
    engine.images.remove(base, force=True)


def test_a_tag_is_answered_with_what_to_write(boxed: Workspace, engine: Any, image: str) -> None:
    engine.api.tag(image, "recipe-test", "here")
    try:
        boxed.edit(image, "recipe-test:here")
        errors = boxed.recipe("validate", "tiny.toml").said(2)
    finally:
        engine.api.remove_image("recipe-test:here", noprune=True)
    assert '"recipe-test:here" does not pin an image' in errors
    assert f'Write image = "{image}".' in errors


def job(**changes: Any) -> Job:
    given: dict[str, Any] = {
        "image": NOBODYS,
        "command": ("true",),
        "environment": {},
        "folder": Path("/"),
        "mounts": (),
        "user": "65532:65532",
        "labels": {"recipe-engine.test": "gpu"},
    }
    return Job(**(given | changes))


def test_a_gpu_without_the_runtime_for_it(engine_address: str, engine: Any, image: str) -> None:
    with pytest.raises(EngineRefused, match=r"cannot give a container a GPU.*NVIDIA Container Toolkit"):
        Container(connect(engine_address), job(image=image, limits=Limits(gpus=("all",))), print)
    assert engine.containers.list(all=True, filters={"label": "recipe-engine.test"}) == []


def test_no_container_without_its_image(engine_address: str) -> None:
    with pytest.raises(ImageMissing, match=f"The engine has no image {NOBODYS}"):
        Container(connect(engine_address), job(), print)
