"""The files that a lock pins: found by their bytes, fetched by pip, laid out without anything of this machine."""

from __future__ import annotations

import hashlib
import tarfile
from pathlib import Path

import pytest
from tests.unit.containers.made import definition, sources, wheel

from recipe_containers.errors import BuildFailed, ImageDiffers
from recipe_containers.progress import silent
from recipe_containers.sources import as_wheel
from recipe_containers.wheels import Wheel, fetch, find, unpack


def taken(path: Path) -> Wheel:
    return Wheel("small", "1.0", path, "0" * 64)


def test_what_is_here_needs_no_network(tmp_path: Path) -> None:
    made = wheel(tmp_path)
    (found,) = fetch(definition(tmp_path, made), tmp_path, silent)
    assert (found.name, found.version, found.path) == ("small", "1.0", made)


def test_a_file_of_the_right_name_and_other_bytes_is_not_taken(tmp_path: Path) -> None:
    tiny = definition(tmp_path, wheel(tmp_path))
    wheel(tmp_path, small__more="x = 1\n")
    assert find(tiny.libraries(), tmp_path) == {}


def test_pip_fetches_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index, cache = tmp_path / "index", tmp_path / "cache"
    index.mkdir()
    tiny = definition(tmp_path, wheel(index), wheel(index, "other"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    told: list[tuple[int, int]] = []
    found = fetch(tiny, cache, lambda _, done, total: told.append((done, total)))
    assert [each.path for each in found] == [cache / "other-1.0-py3-none-any.whl", cache / "small-1.0-py3-none-any.whl"]
    assert (told[0], told[-1]) == ((0, 2), (2, 2))


def test_what_pip_cannot_find_is_said_in_its_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = definition(tmp_path, wheel(tmp_path))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "nothing"))
    with pytest.raises(BuildFailed, match=r"No matching distribution found for small==1\.0"):
        fetch(tiny, tmp_path / "cache", silent)


def test_a_file_that_was_tampered_with_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = tmp_path / "index"
    index.mkdir()
    tiny = definition(tmp_path, wheel(index))
    wheel(index, small__evil="x = 1\n")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    with pytest.raises(BuildFailed, match="THESE PACKAGES DO NOT MATCH THE HASHES"):
        fetch(tiny, tmp_path / "cache", silent)


def test_modules_are_laid_out_and_nothing_else(tmp_path: Path) -> None:
    data = "small-1.0.data"
    files = {f"{data}/purelib/small/more.py": "1\n", f"{data}/scripts/tool": "#!\n", f"{data}/data/share/man": "x\n"}
    made = wheel(tmp_path, **{name.replace("/", "__"): text for name, text in files.items()})
    unpack([taken(made)], tmp_path / "out", silent)
    found = sorted(path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.*"))
    assert found == [
        "small-1.0.dist-info",
        "small/__init__.py",
        "small/more.py",
    ]


@pytest.mark.parametrize("name", ["../evil.py", "/evil.py", "small/../../evil.py"])
def test_a_wheel_that_would_write_elsewhere(tmp_path: Path, name: str) -> None:
    made = wheel(tmp_path, **{name.replace("/", "__"): "x"})
    with pytest.raises(ImageDiffers, match="outside of the image"):
        unpack([taken(made)], tmp_path / "out", silent)


def test_sources_that_a_lock_pins_are_laid_out_without_their_set_up(tmp_path: Path) -> None:
    made = sources(tmp_path)
    (found,) = fetch(definition(tmp_path, made), tmp_path, silent)
    assert (found.name, found.version) == ("small-er", "1.0")
    assert found.sha256 == hashlib.sha256(made.read_bytes()).hexdigest()
    unpack([found], tmp_path / "out", silent)
    files = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert files == {"small_er/__init__.py", "small_er-1.0.dist-info/METADATA", "small_er-1.0.dist-info/WHEEL"}
    # What was made of them stands beside them, and is not taken for what the lock pins.
    assert fetch(definition(tmp_path, made), tmp_path, silent) == (found,)


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"small_er__fast.c": "int x;"}, "small_er/fast.c, which is no Python module"),
        ({"small_er.egg-info__top_level.txt": "small_er fast", "fast__fast.pyx": ""}, "fast/fast.pyx"),
    ],
)
def test_sources_that_have_to_be_built(tmp_path: Path, files: dict[str, str], said: str) -> None:
    with pytest.raises(BuildFailed, match=said):
        as_wheel(sources(tmp_path, **files))
    assert list(tmp_path.glob("*.whl")) == []


def test_a_tar_that_is_no_source_distribution(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "other-1.0.tar.gz", "w:gz"):
        pass
    with pytest.raises(BuildFailed, match="no source distribution"):
        as_wheel(tmp_path / "other-1.0.tar.gz")
