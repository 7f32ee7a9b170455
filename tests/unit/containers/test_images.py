"""What is said of an image: how it differs from another, what is in it, how else it may be built."""

from __future__ import annotations

import json
import tempfile
import uuid
from dataclasses import replace
from pathlib import Path

import pytest
from tests.unit.containers.made import definition, wheel

from recipe_containers.archive import Image, make_image
from recipe_containers.bytecode import Interpreter, compile_libraries, find_interpreter
from recipe_containers.debian import Base, Package, make_base
from recipe_containers.definition import DEFINITIONS
from recipe_containers.dockerfile import dockerfile
from recipe_containers.errors import BuildFailed, ImageMissing
from recipe_containers.image_lock import (
    LockedImage,
    differences,
    locked_image,
    read_image_lock,
    write_image_lock,
)
from recipe_containers.progress import silent
from recipe_containers.public_base import fetch_base
from recipe_containers.reference import ImageReference
from recipe_containers.sbom import bill_of_materials
from recipe_containers.wheels import Wheel
from recipe_containers.work import work_folder

IMAGE = LockedImage(
    image_id="sha256:" + "1" * 64,
    layers=("sha256:" + "2" * 64, "sha256:" + "3" * 64),
    manifest_digest="sha256:" + "4" * 64,
    content="sha256:" + "5" * 64,
    lock_sha256="6" * 64,
    driver_floor=None,
    base_reference="",
    base={"bash": {"version": "5.2", "sha256": "7" * 64}},
    packages={"torch": "2.13.0"},
    wheels={"torch": "8" * 64},
)


def test_an_image_lock_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "images.lock.json"
    write_image_lock("cpu", IMAGE, path)
    write_image_lock("cuda", replace(IMAGE, driver_floor="580"), path)
    text = path.read_bytes()
    write_image_lock("cpu", IMAGE, path)
    assert path.read_bytes() == text
    assert read_image_lock(path) == {"cpu": IMAGE, "cuda": replace(IMAGE, driver_floor="580")}


def test_an_image_that_was_never_built(tmp_path: Path) -> None:
    with pytest.raises(ImageMissing, match="recipe containers build cuda --update-lock"):
        locked_image("cuda", tmp_path / "none.json")


def test_an_image_is_like_itself() -> None:
    assert differences(IMAGE, IMAGE) == []


def test_every_difference_is_named_and_causes_come_first() -> None:
    other = replace(
        IMAGE,
        image_id="sha256:" + "a" * 64,
        layers=("sha256:" + "2" * 64, "sha256:" + "b" * 64),
        lock_sha256="c" * 64,
        base={"bash": {"version": "5.3", "sha256": "d" * 64}, "zstd": {"version": "1", "sha256": "e" * 64}},
        wheels={"torch": "f" * 64},
    )
    assert differences(IMAGE, other) == [
        "Debian package bash 5.2 -> 5.3",
        "Debian package zstd is new",
        "the lock of the libraries",
        "library torch 2.13.0 has other bytes",
        f"layer 2 sha256:{'3' * 64} -> sha256:{'b' * 64}",
        f"image ID sha256:{'1' * 64} -> sha256:{'a' * 64}",
    ]


def test_a_bill_of_materials(tmp_path: Path) -> None:
    made = wheel(tmp_path)
    tiny = definition(tmp_path, made)
    wheels = [Wheel("small", "1.0", made, "9" * 64)]
    image: Image = make_image(tiny, (), wheels, "")
    base = Base((), (Package("libstdc++6", "12.2.0-14+deb12u1", "amd64", "7" * 64),))
    bill = bill_of_materials(tiny, image, base, wheels)
    assert json.dumps(bill) == json.dumps(bill_of_materials(tiny, image, base, wheels))
    assert (bill["bomFormat"], bill["specVersion"], bill["version"]) == ("CycloneDX", "1.5", 1)
    uuid.UUID(bill["serialNumber"].removeprefix("urn:uuid:"))
    debian, library = bill["components"]
    assert debian["purl"] == "pkg:deb/debian/libstdc%2B%2B6@12.2.0-14%2Bdeb12u1?arch=amd64&distro=bookworm"
    assert debian["hashes"] == [{"alg": "SHA-256", "content": "7" * 64}]
    assert library["purl"] == "pkg:pypi/small@1.0"
    assert library["licenses"] == [{"expression": "MIT"}]


def test_a_dockerfile_is_of_the_same_lock_and_says_what_it_is_not() -> None:
    text = dockerfile(DEFINITIONS["cpu"])
    assert "Not reproducible to the bit" in text
    assert "COPY cpu.lock /cpu.lock" in text
    assert "--require-hashes" in text
    assert f"recipe-engine.lock-sha256={DEFINITIONS['cpu'].lock_sha256}" in text


def test_a_base_without_python(tmp_path: Path) -> None:
    with pytest.raises(BuildFailed, match=r"no Python 3\.11"):
        find_interpreter(tmp_path)


def test_without_room_nothing_is_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    with pytest.raises(BuildFailed, match=f"GB in {tmp_path}, which has"), work_folder(1 << 60):
        pass


def test_a_base_that_only_this_machine_has(tmp_path: Path) -> None:
    with pytest.raises(BuildFailed, match="nobody else has it"):
        fetch_base(ImageReference("", "sha256:" + "0" * 64), tmp_path, silent)


def test_without_debians_tool_a_public_base_is_proposed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BuildFailed, match=r"apt-get install mmdebstrap.*--base"):
        make_base(tmp_path, (), silent)


def test_an_interpreter_that_does_not_run_here(tmp_path: Path) -> None:
    (tmp_path / "module.py").write_text("x = 1\n", encoding="utf-8")
    with pytest.raises(BuildFailed, match="does not run on this machine: 1"):
        compile_libraries(tmp_path, Interpreter(("/bin/false",), ()), silent)
