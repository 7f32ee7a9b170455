"""Results of other environments: which is taken, and how it is said what was other there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from recipe_engine.keys import key_of
from recipe_engine.reuse import AnyEnvironment, made_with
from recipe_registry import Registry

TORCH = {"version": "2.13.0", "record_sha256": "aa"}
HARDWARE = {"device": "cpu", "threads": 1, "cpu_flags": ["avx2"]}
WANTED: dict[str, Any] = {"stage": "train", "seed": 1, "packages": {"torch": TORCH}, "hardware": HARDWARE}


def with_(**hardware: Any) -> dict[str, Any]:
    return {**WANTED, "hardware": {**HARDWARE, **hardware}}


def with_torch(**torch: str) -> dict[str, Any]:
    return {**WANTED, "packages": {"torch": {**TORCH, **torch}}}


IN_AN_IMAGE = {**WANTED, "packages": {}, "image": f"sha256:{'ab' * 32}"}


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (with_(threads=4), "4 threads"),
        (with_(threads=1, device="cuda"), "device cuda"),
        (with_(cpu_flags=[]), "other processor features"),
        (with_torch(version="2.12.0", record_sha256="bb"), "torch 2.12.0"),
        (with_torch(record_sha256="bb"), "another build of torch"),
        ({**with_(threads=2), "packages": {"peft": TORCH}}, "peft 2.13.0, no torch, 2 threads"),
        (IN_AN_IMAGE, "image sha256:abababababab"),
        ({**WANTED, "other": 1}, "another environment"),
    ],
)
def test_what_was_other(made: dict[str, Any], said: str) -> None:
    assert made_with(made, WANTED) == said


def test_what_was_other_outside_of_an_image() -> None:
    assert made_with(WANTED, IN_AN_IMAGE) == "no image"


def remember(registry: Registry, components: dict[str, Any], run: str) -> str:
    staging = registry.artifacts.stage("made")
    (staging / "content").write_text(run)
    made = registry.artifacts.commit(staging).digest
    registry.artifacts.record_key(key_of(components), made, node="train", run=run, components=components, facts={})
    return made


def found(registry: Registry, *, keep: bool = True) -> str | None:
    record = AnyEnvironment(registry, keep=keep).find(WANTED)
    return record.run if record else None


def test_the_nearest_is_taken_and_of_several_the_newest(tmp_path: Path) -> None:
    registry = Registry.open(tmp_path)
    assert found(registry) is None
    for components, run in (
        (with_(threads=2, device="cuda"), "run 4"),
        (with_(threads=2), "run 1"),
        (with_(threads=3), "run 3"),
        (with_(threads=4), "run 2"),
        ({**with_(threads=2), "seed": 2}, "run 5"),
    ):
        remember(registry, components, run)
    assert found(registry) == "run 3"


@pytest.mark.parametrize("content", [None, "", "without-environment-1\n", "another\n", "without-environment-1\nx y\n"])
def test_what_is_remembered_of_groups_may_be_anything(tmp_path: Path, content: str | None) -> None:
    registry = Registry.open(tmp_path)
    remember(registry, with_(threads=2), "run 1")
    file = tmp_path / "groups.txt"
    if content is not None:
        file.write_text(content)
    assert found(registry, keep=False) == "run 1"
    assert (file.read_text() if file.exists() else None) == content
    assert found(registry) == "run 1"
    assert file.read_text().count("\n") == 2


def test_a_wrong_group_leads_to_no_wrong_result(tmp_path: Path) -> None:
    registry = Registry.open(tmp_path)
    remember(registry, with_(threads=2), "run 1")
    assert found(registry) == "run 1"
    right = (tmp_path / "groups.txt").read_text()
    other = {**WANTED, "seed": 2}
    remember(registry, other, "run 2")
    key = key_of(other).removeprefix("sha256:")
    (tmp_path / "groups.txt").write_text(f"{right}{key} {right.split()[-1]}\n")
    assert found(registry) == "run 1"
