"""Layers and what is made of them: the same bytes from the same files, whenever and in whatever order they came."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from pathlib import Path

import pytest
from tests.unit.containers.made import definition, system, wheel

from recipe_containers.archive import Image, make_image, write_archive, write_layout
from recipe_containers.debian import installed, scrub
from recipe_containers.definition import CREATED, SITE_PACKAGES
from recipe_containers.errors import ImageDiffers
from recipe_containers.images import content_digest
from recipe_containers.layers import Layer, libraries_layer
from recipe_containers.progress import silent
from recipe_containers.saved import read_saved
from recipe_containers.wheels import Wheel

STATUS = """\
Package: python3
Status: install ok installed
Architecture: amd64
Version: 3.11.2-1+b1
Description: interactive
 Version: not this one

Package: gone
Status: deinstall ok config-files
Architecture: all
Version: 1
"""
PACKAGES = f"Package: python3\nVersion: 3.11.2-1+b1\nArchitecture: amd64\nSHA256: {'a' * 64}\n"


def tree(folder: Path, names: list[str], umask: int, time: int) -> Path:
    before = os.umask(umask)
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name, encoding="utf-8")
        os.utime(path, (time, time))
    os.umask(before)
    return folder


def digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def test_a_layer_depends_on_names_and_bytes_alone(tmp_path: Path) -> None:
    names = ["b/__init__.py", "a.py", f"a/{'long' * 40}.py"]
    first = tree(tmp_path / "1", names, 0o022, 1_000_000_000)
    second = tree(tmp_path / "2", names[::-1], 0o077, 1_700_000_000)
    one = libraries_layer(first, tmp_path / "1.tar", silent)
    two = libraries_layer(second, tmp_path / "2.tar", silent)
    assert one.digest == two.digest == digest((tmp_path / "1.tar").read_bytes())
    assert one.size == (tmp_path / "1.tar").stat().st_size
    with tarfile.open(one.path) as archive:
        members = archive.getmembers()
    assert [member.name for member in members[:3]] == ["opt", "opt/recipe", SITE_PACKAGES[1:]]
    assert {(member.uid, member.gid, member.uname, member.mtime) for member in members} == {(0, 0, "", CREATED)}
    assert {member.mode for member in members} == {0o755, 0o644}


def test_a_base_loses_what_names_the_machine_and_the_moment(tmp_path: Path) -> None:
    kept = {"etc/": "", "etc/passwd": "root", "var/lib/dpkg/status": STATUS, "tmp/": "", "var/log/": "", "dev/": ""}
    lost = {
        "etc/hostname": "mine",
        "etc/resolv.conf": "mine",
        "etc/apt/sources.list": "mine",
        "etc/passwd-": "old",
        "etc/apt/sources.list.d/mine.sources": "x",
        "var/log/dpkg.log": "now",
        "tmp/x": "x",
        "dev/null": "",
        "var/lib/apt/lists/mine_Packages": PACKAGES,
    }
    raw = system(tmp_path / "raw.tar", {**kept, **lost, "usr/": "", "usr/a": "a"}, {"usr/b": "usr/a"})
    base = scrub(raw, tmp_path / "base.tar", silent)
    with tarfile.open(tmp_path / "base.tar") as archive:
        names = archive.getnames()
        assert archive.getmember("usr/b").linkname == "usr/a"
        assert {member.mtime for member in archive} == {1_000_000_000, 0}
    assert names == [name.rstrip("/") for name in kept] + ["usr", "usr/a", "usr/b"]
    (package,) = base.packages
    assert (package.name, package.version, package.sha256) == ("python3", "3.11.2-1+b1", "a" * 64)
    assert base.layers[0].digest == digest((tmp_path / "base.tar").read_bytes())


def test_only_what_is_installed_counts() -> None:
    assert installed(STATUS) == [("python3", "3.11.2-1+b1", "amd64")]


@pytest.fixture
def image(tmp_path: Path) -> Image:
    layers = []
    for name in ("one", "two"):
        (tmp_path / name).write_text(name, encoding="utf-8")
        layers.append(Layer(tmp_path / name, digest(name.encode()), 3, f"makes {name}"))
    made = wheel(tmp_path)
    return make_image(definition(tmp_path, made), layers, [Wheel("small", "1.0", made, "0" * 64)], "")


def test_the_configuration_of_an_image(image: Image) -> None:
    config = json.loads(image.config)
    assert config["created"] == "2026-01-01T00:00:00Z"
    assert config["rootfs"]["diff_ids"] == [digest(b"one"), digest(b"two")]
    assert config["config"]["User"] == "65532:65532"
    assert f"PYTHONPATH={SITE_PACKAGES}" in config["config"]["Env"]
    assert config["config"]["Labels"]["recipe-engine.packages"] == '{"small":"1.0"}'
    assert image.image_id == digest(image.config)
    assert image.content == content_digest([digest(b"one"), digest(b"two")], config["config"]["Env"])


def test_the_manifest_names_what_the_image_is_made_of(image: Image) -> None:
    manifest = json.loads(image.manifest())
    assert manifest["config"]["digest"] == image.image_id
    assert [layer["digest"] for layer in manifest["layers"]] == [digest(b"one"), digest(b"two")]
    assert image.manifest_digest == digest(image.manifest())


def test_an_archive_is_the_same_twice_and_reads_back(image: Image, tmp_path: Path) -> None:
    first, second = io.BytesIO(), io.BytesIO()
    for target in (first, second):
        write_archive(image, "recipe-tiny:1", target, silent)
    assert first.getvalue() == second.getvalue()
    passed: list[int] = []
    content = first.getvalue()
    kept = tmp_path / "kept"
    kept.mkdir()
    blocks = (content[start : start + 1000] for start in range(0, len(content), 1000))
    saved = read_saved(blocks, kept, passed.append)
    assert saved.image_id == image.image_id
    assert [layer.digest for layer in saved.layers] == [layer.digest for layer in image.layers]
    assert [layer.path.read_text(encoding="utf-8") for layer in saved.layers] == ["one", "two"]
    assert sum(passed) == len(content)


def test_a_layer_that_occurs_twice_is_a_link_in_what_an_engine_saves() -> None:
    stream = io.BytesIO()
    config = b"{}"
    entry = [{"Config": "c.json", "Layers": ["a/layer.tar", "b/layer.tar"]}]
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, content in (("a/layer.tar", b"same"), ("c.json", config)):
            header = tarfile.TarInfo(name)
            header.size = len(content)
            archive.addfile(header, io.BytesIO(content))
        link = tarfile.TarInfo("b/layer.tar")
        link.type, link.linkname = tarfile.SYMTYPE, "../a/layer.tar"
        archive.addfile(link)
        manifest = json.dumps(entry).encode()
        header = tarfile.TarInfo("manifest.json")
        header.size = len(manifest)
        archive.addfile(header, io.BytesIO(manifest))
    saved = read_saved([stream.getvalue()], None, lambda _: None)
    assert [layer.digest for layer in saved.layers] == [digest(b"same")] * 2


@pytest.mark.parametrize("content", [b"", b"x" * 4096, b"\0" * 10240])
def test_a_stream_that_is_no_image(content: bytes) -> None:
    with pytest.raises(ImageDiffers, match="not one image"):
        read_saved([content], None, lambda _: None)


def test_a_stream_that_ends_early(image: Image) -> None:
    stream = io.BytesIO()
    write_archive(image, "recipe-tiny:1", stream, silent)
    with pytest.raises(ImageDiffers, match="not one image"):
        read_saved([stream.getvalue()[:1500]], None, lambda _: None)


def test_a_layout_has_every_blob_under_its_digest(image: Image, tmp_path: Path) -> None:
    write_layout(image, tmp_path / "layout")
    blobs = tmp_path / "layout/blobs/sha256"
    assert all(digest(path.read_bytes()) == f"sha256:{path.name}" for path in blobs.iterdir())
    assert {f"sha256:{path.name}" for path in blobs.iterdir()} == {
        image.image_id,
        image.manifest_digest,
        *(layer.digest for layer in image.layers),
    }
    index = json.loads((tmp_path / "layout/index.json").read_text(encoding="utf-8"))
    assert index["manifests"][0]["digest"] == image.manifest_digest
