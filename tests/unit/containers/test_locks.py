"""The locks of the images: what they pin, and that they agree with each other and with the program."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from recipe_containers.definition import DEFINITIONS, FOLDER, Library, base_packages, normalised, read_lock
from recipe_containers.image_lock import read_image_lock

ROOT = Path(__file__).parents[3]
GPU = re.compile(r"torch|triton|nvidia-.*|cuda-.*")


def pins(text: str) -> dict[str, str]:
    found = (line.partition("==") for line in text.splitlines() if "==" in line)
    return {normalised(name): version.partition(" ")[0] for name, _, version in found}


def locked(name: str) -> dict[str, Library]:
    return {library.name: library for library in DEFINITIONS[name].libraries()}


def test_a_lock_is_read() -> None:
    hashes = [f"--hash=sha256:{digit * 64}" for digit in "123"]
    text = f"b_B==2.0+cpu \\\n    {hashes[0]} \\\n    {hashes[1]}\na==1 \\\n    {hashes[2]}\n"
    first, second = read_lock(text)
    assert first == Library("a", "1", frozenset({"3" * 64}))
    assert second == Library("b-b", "2.0+cpu", frozenset({"1" * 64, "2" * 64}))


@pytest.mark.parametrize("name", DEFINITIONS)
def test_every_library_has_a_hash_and_no_place_is_named(name: str) -> None:
    assert len(locked(name)) > 50
    assert all(library.hashes for library in locked(name).values())
    # Every line is a pin or a hash: no index, no path, no option.
    lines = DEFINITIONS[name].lock.read_text(encoding="utf-8").splitlines()
    assert all(re.fullmatch(r"[a-z0-9.-]+==\S+ \\|    --hash=sha256:[0-9a-f]{64}( \\)?", line) for line in lines)


def test_the_locks_differ_only_in_what_speaks_to_a_gpu() -> None:
    cpu, cuda = locked("cpu"), locked("cuda")
    different = {name for name in {*cpu, *cuda} if cpu.get(name) != cuda.get(name)}
    assert {"torch", "triton"} <= different
    assert [name for name in sorted(different) if not GPU.fullmatch(name)] == []
    assert cpu["torch"].version == f"{cuda['torch'].version}+cpu"


def test_both_locks_hold_to_the_constraints_and_those_to_the_programs() -> None:
    ours = pins((FOLDER / "constraints.txt").read_text(encoding="utf-8"))
    theirs = pins((ROOT / "constraints.txt").read_text(encoding="utf-8"))
    for name in DEFINITIONS:
        shared = {each: library.version for each, library in locked(name).items() if not GPU.fullmatch(each)}
        assert shared == ours
    assert {name: version for name, version in ours.items() if theirs.get(name, version) != version} == {}
    assert locked("cuda")["torch"].version == theirs["torch"]


def test_what_is_asked_for_is_what_the_program_needs() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    needed = [*project["dependencies"], *extras["run"], *extras["nf4"], *extras["metrics"]]
    asked = (FOLDER / "requirements.in").read_text(encoding="utf-8").split()
    assert asked == sorted(each for each in needed if not each.startswith("recipe-engine"))
    for line in asked:
        requirement = Requirement(line)
        for name in DEFINITIONS:
            assert requirement.specifier.contains(locked(name)[normalised(requirement.name)].version)


def test_the_image_lock_is_of_these_locks() -> None:
    images = read_image_lock()
    assert "cpu" in images
    for name, image in images.items():
        assert image.lock_sha256 == DEFINITIONS[name].lock_sha256, f"recipe containers build {name} --update-lock"
        assert image.packages == {each.name: each.version for each in DEFINITIONS[name].libraries()}
        assert set(image.wheels) == set(image.packages)
        assert all(image.wheels[each.name] in each.hashes for each in DEFINITIONS[name].libraries())
        assert set(base_packages()) <= set(image.base)
        assert all(re.fullmatch("[0-9a-f]{64}", package["sha256"]) for package in image.base.values())
