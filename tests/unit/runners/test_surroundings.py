"""What a worker in a container checks before it does anything."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

import pytest

from recipe_engine.errors import UnfitEnvironment, UnresolvedInput
from recipe_engine.runners import surroundings
from recipe_engine.runners.surroundings import check_surroundings

NOTHING = {"packages": {}, "driver": "", "gpu": False}


def test_outside_of_a_container_nothing_is_checked() -> None:
    check_surroundings({})


def test_packages_as_the_image_says() -> None:
    check_surroundings(NOTHING | {"packages": {"click": version("click")}})


def test_other_packages() -> None:
    packages = {"click": "0.0.1", "no-such-package": "1.0"}
    with pytest.raises(UnresolvedInput) as refused:
        check_surroundings(NOTHING | {"packages": packages})
    assert refused.value.message == (
        "The image does not hold what it says: "
        f"click {version('click')}, not 0.0.1, no-such-package is missing, not 1.0."
    )


@pytest.mark.parametrize(
    ("driver", "floor", "old"),
    [
        ("525.60.13", "525.60.13", False),
        ("535.104.05", "525.60.13", False),
        ("1000.1", "525.60.13", False),
        ("470.57.02", "525.60.13", True),
        ("525.60.11", "525.60.13", True),
    ],
)
def test_the_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, driver: str, floor: str, *, old: bool) -> None:
    file = tmp_path / "version"
    file.write_text(f"NVRM version: NVIDIA UNIX x86_64 Kernel Module  {driver}  Thu Nov 10 2022\nGCC version: 12\n")
    monkeypatch.setattr(surroundings, "_DRIVER", file)
    expected = NOTHING | {"driver": floor}
    if not old:
        check_surroundings(expected)
        return
    with pytest.raises(UnfitEnvironment, match=rf"driver {driver} is too old: the image needs {floor} or newer"):
        check_surroundings(expected)


def test_a_gpu_that_was_promised_and_is_not_there() -> None:
    with pytest.raises(UnfitEnvironment, match="promised a GPU and has none"):
        check_surroundings(NOTHING | {"gpu": True})
