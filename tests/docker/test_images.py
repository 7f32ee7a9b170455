"""Images on a real engine and through a real registry: the same bytes wherever they come from."""

from __future__ import annotations

import io
import json
import os
import socket
import tarfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.docker.images import built_image, image_archive
from tests.unit.containers.made import definition, wheel

from recipe_containers.archive import tag_of
from recipe_containers.build import Built, Choices, build
from recipe_containers.client import connect
from recipe_containers.engine_images import load, pull, push, save, verify
from recipe_containers.errors import EngineRefused, ImageDiffers, ImageMissing
from recipe_containers.image_lock import differences, locked_image
from recipe_containers.images import find_image
from recipe_containers.layers import digest_of
from recipe_containers.progress import silent
from recipe_containers.reference import parse_image

if TYPE_CHECKING:
    from recipe_containers.definition import Definition

pytestmark = [pytest.mark.slow, pytest.mark.network]  # the real image's parts come from the network, once
_SECONDS_TO_START = 30


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With the wheels of a small image in ``wheels``."""
    found = tmp_path_factory.mktemp("tiny")
    (found / "wheels").mkdir()
    return found


@pytest.fixture(scope="module")
def tiny(folder: Path) -> Definition:
    wheels = folder / "wheels"
    return definition(folder, wheel(wheels), wheel(wheels, "other", small__data="x = 1\n"))


@pytest.fixture(scope="module")
def archived(engine_address: str, base: str, tiny: Definition, folder: Path) -> Iterator[Built]:
    """The small image, as an archive."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DOCKER_HOST", engine_address)
        found = build(tiny, Choices(folder / "out", parse_image(base), wheels=folder / "wheels"), silent)
    yield found
    with closing(connect(engine_address)) as client:
        for each in (found.locked.image_id, base):
            if find_image(client, each):
                client.images.remove(each, force=True)


@pytest.fixture
def built(engine: Any, archived: Built) -> Built:
    """The small image, in the engine."""
    if find_image(engine, archived.locked.image_id) is None:
        load(engine, archived.archive, archived.locked.image_id, silent)
    return archived


def test_built_twice_it_is_the_same_image(
    engine: Any, archived: Built, base: str, tiny: Definition, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "disk").mkdir()
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    definition(wheels, wheel(wheels), wheel(wheels, "other", small__data="x = 1\n"))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "disk"))
    before = os.umask(0o077)
    again = build(tiny, Choices(tmp_path / "again", parse_image(base), wheels=wheels), silent)
    os.umask(before)
    assert differences(archived.locked, again.locked) == []
    assert digest_of(again.archive) == digest_of(archived.archive)
    assert again.bill.read_bytes() == archived.bill.read_bytes()
    assert list((tmp_path / "disk").iterdir()) == []


def test_what_is_in_it_runs(engine: Any, built: Built) -> None:
    code = "import small, sys, os; print(small.VERSION, small.__cached__, os.getuid(), sys.version_info[:2])"
    output = engine.containers.run(
        built.locked.image_id, ["python3", "-c", code], network_mode="none", read_only=True, remove=True
    )
    place = "/opt/recipe/site-packages/small/__pycache__/__init__.cpython-311.pyc"
    assert output.decode().split("\n")[0] == f"1.0 {place} 65532 (3, 11)"
    listing = engine.containers.run(built.locked.image_id, ["ls", place], network_mode="none", remove=True)
    assert listing.decode().strip() == place


def test_the_engine_has_what_was_built(engine: Any, built: Built) -> None:
    verify(engine, built.locked, silent)
    assert find_image(engine, built.locked.image_id).content == built.locked.content  # type: ignore[union-attr]
    other = replace(built.locked, layers=(built.locked.layers[0], "sha256:" + "0" * 64))
    with pytest.raises(ImageDiffers, match=f"layer 2 {built.locked.layers[1]} instead of sha256:0000"):
        verify(engine, other, silent)


def test_an_image_that_the_engine_lacks(engine: Any, built: Built) -> None:
    with pytest.raises(ImageMissing, match="recipe containers build"):
        verify(engine, replace(built.locked, image_id="sha256:" + "0" * 64), silent)


def test_through_a_registry_and_back_it_is_the_same_image(engine: Any, built: Built, registry: str) -> None:
    reference = push(engine, built.locked.image_id, f"{registry}/recipe-tiny", silent)
    # The digest is known before anything is pushed.
    assert reference == f"{registry}/recipe-tiny@{built.locked.manifest_digest}"
    engine.images.remove(built.locked.image_id, force=True)
    assert find_image(engine, built.locked.image_id) is None
    pull(engine, built.locked, reference, silent)
    verify(engine, built.locked, silent)
    assert push(engine, built.locked.image_id, f"{registry}/recipe-tiny", silent) == reference


def test_without_skopeo_the_engine_pushes_the_same_image(
    engine: Any, built: Built, registry: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    reference = push(engine, built.locked.image_id, f"{registry}/by-engine", silent)
    engine.images.remove(built.locked.image_id, force=True)
    pull(engine, built.locked, reference, silent)
    verify(engine, built.locked, silent)


def test_a_registry_that_gives_another_image(engine: Any, built: Built, base: str) -> None:
    with pytest.raises(ImageDiffers, match="is another image"):
        pull(engine, built.locked, base, silent)


def test_a_digest_that_nobody_knows(engine: Any, built: Built, registry: str) -> None:
    with pytest.raises(ImageMissing, match="cannot be pulled"):
        pull(engine, built.locked, f"{registry}/recipe-tiny@sha256:{'0' * 64}", silent)


def test_a_registry_that_does_not_answer(engine: Any, built: Built) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        with pytest.raises(EngineRefused, match="does not take the image"):
            push(engine, built.locked.image_id, f"127.0.0.1:{nobody.getsockname()[1]}/recipe-tiny", silent)


def test_an_archive_that_is_damaged_is_refused(engine: Any, built: Built, tmp_path: Path) -> None:
    content = built.archive.read_bytes()
    damaged = tmp_path / "damaged.tar"
    damaged.write_bytes(content.replace(b"VERSION = '1.0'", b"VERSION = '2.0'"))
    engine.images.remove(built.locked.image_id, force=True)
    with pytest.raises(EngineRefused, match="could not load"):
        load(engine, damaged, built.locked.image_id, silent)


def test_what_is_saved_can_be_kept(engine: Any, built: Built, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    saved = save(engine, built.locked.image_id, kept, silent)
    assert [digest_of(layer.path) for layer in saved.layers] == list(built.locked.layers)
    assert tag_of("tiny", saved.image_id) == built.tag


def test_the_real_image_is_the_locked_one_or_differs_in_debian_alone(engine: Any) -> None:
    """Debian may have moved on since the lock was written; the libraries may not."""
    image_id = built_image(engine)
    locked = locked_image("cpu")
    saved = save(engine, image_id, None, silent)
    assert saved.image_id == image_id
    assert saved.layers[-1].digest == locked.layers[-1]


def test_the_real_image_holds_what_a_worker_imports(engine: Any) -> None:
    modules = "torch transformers peft datasets bitsandbytes accelerate click jsonschema pluggy yaml rfc8785 sqlalchemy"
    code = f"import {', '.join(modules.split())}, getpass; print(torch.__version__, getpass.getuser())"
    output = engine.containers.run(
        built_image(engine),
        ["python3", "-c", code],
        network_mode="none",
        read_only=True,
        tmpfs={"/tmp": ""},
        remove=True,
    )
    assert output.decode().split() == ["2.13.0+cpu", "recipe"]


def test_nothing_of_this_machine_is_in_the_real_image(engine: Any) -> None:
    config = json.dumps(engine.api.inspect_image(built_image(engine))["Config"])
    names = {socket.gethostname(), str(Path.home()), os.environ.get("PIP_FIND_LINKS", socket.gethostname())}
    assert [name for name in names if name in config] == []
    with tarfile.open(image_archive(built_image(engine))) as archive:
        layer = next(iter(archive))
        stream = archive.extractfile(layer)
        assert stream is not None
        with tarfile.open(fileobj=io.BytesIO(stream.read())) as files:
            found = set(files.getnames())
    assert found.isdisjoint({"etc/hostname", "etc/resolv.conf", "etc/apt/sources.list"})
    assert [name for name in found if name.startswith(("var/log/", "var/cache/", "dev/", "tmp/"))] == []
