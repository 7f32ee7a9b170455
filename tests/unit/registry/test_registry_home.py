"""The folder: opened, refused, or left alone. And what the package shows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import recipe_registry
from recipe_registry import NewerFormat, Registry, RegistryError, UnknownRun


def test_open_creates_the_folder_and_its_marker(home: Path) -> None:
    registry = Registry.open(home)
    assert json.loads((home / "format.json").read_text()) == {"schema_version": 1}
    assert registry.sources == home / "sources"
    assert Registry.open(home).home == home


def test_home_is_absolute(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home.parent)
    assert Registry.open(Path("home"), create=False).home == home


def test_looking_creates_nothing(home: Path) -> None:
    registry = Registry.open(home, create=False)
    assert registry.artifacts.lookup("00" * 32) is None
    assert registry.runs.list() == []
    assert registry.runs.index.by_prefix("") == []
    registry.artifacts.drop_work_area("00" * 32)
    registry.artifacts.discard_staging()
    with pytest.raises(UnknownRun):
        registry.runs.resolve("latest")
    with pytest.raises(UnknownRun):
        registry.runs.load("20261124-064512-3f9a")
    assert not home.exists()


def test_the_first_write_creates_what_it_needs(home: Path) -> None:
    registry = Registry.open(home, create=False)
    registry.runs.new_id()
    assert (home / "format.json").exists()


def test_a_newer_home_is_refused_and_left_alone(home: Path) -> None:
    home.mkdir()
    (home / "format.json").write_text('{"schema_version": 2}')
    for create in (True, False):
        with pytest.raises(NewerFormat, match=r"format\.json has schema version 2.*Upgrade recipe-engine"):
            Registry.open(home, create=create)
    assert [path.name for path in home.iterdir()] == ["format.json"]


@pytest.mark.parametrize("content", ["", "{}", "null", '{"schema_version": "1"}', '{"schema_version": 0}'])
def test_a_broken_marker_is_refused(home: Path, content: str) -> None:
    home.mkdir()
    (home / "format.json").write_text(content)
    with pytest.raises(RegistryError, match=r"format\.json cannot be used") as caught:
        Registry.open(home)
    assert caught.value.exit_code == 8


def test_a_file_is_no_home(home: Path) -> None:
    home.write_text("")
    with pytest.raises(RegistryError, match="is a file, not a folder"):
        Registry.open(home)


def test_public_surface() -> None:
    assert all(hasattr(recipe_registry, name) for name in recipe_registry.__all__)
    errors = {
        name
        for name in recipe_registry.__all__
        if isinstance(getattr(recipe_registry, name), type)
        and issubclass(getattr(recipe_registry, name), RegistryError)
    }
    assert {name: getattr(recipe_registry, name).exit_code for name in errors} == {
        "RegistryError": 8,
        "DamagedArtifact": 8,
        "MissingArtifact": 8,
        "DamagedName": 8,
        "DamagedRemote": 8,
        "DamagedRun": 8,
        "NameTaken": 2,
        "NewerFormat": 8,
        "RefusedArchive": 8,
        "RefusedArtifact": 5,
        "RemoteUnreachable": 3,
        "UnknownArtifact": 2,
        "UnknownName": 2,
        "UnknownRun": 2,
        "AmbiguousRun": 2,
        "BusyRun": 2,
        "InvalidTag": 2,
        "IndexUnavailable": 4,
        "StoreNotWritable": 4,
    }
    assert str(RegistryError("What.", "Do.")) == "What. Do."
    assert str(RegistryError("What.")) == "What."
