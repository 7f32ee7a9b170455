"""What a worker in a container checks around it before a weight is loaded."""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recipe_engine.errors import UnfitEnvironment, UnresolvedInput

if TYPE_CHECKING:
    from collections.abc import Mapping

# The kernel module of the machine shows through in every container.
_DRIVER = Path("/proc/driver/nvidia/version")
_MAX_NAMED = 5


def check_surroundings(expected: Mapping[str, Any]) -> None:
    """Whether this is the place that was promised.

    Args:
        expected: ``packages`` (name -> version), ``driver`` (the oldest that will do, or ``""``) and ``gpu``; nothing
            outside of a container.

    Raises:
        UnresolvedInput: a package has another version than the image says.
        UnfitEnvironment: the driver is too old, or the GPU is not there.
    """
    if not expected:
        return
    wrong = [
        f"{name} {found or 'is missing'}, not {wanted}"
        for name, wanted in sorted(expected["packages"].items())
        if (found := _version(name)) != wanted
    ]
    if wrong:
        raise UnresolvedInput(
            f"The image does not hold what it says: {', '.join(wrong[:_MAX_NAMED])}.", "Build or pull it again."
        )
    if expected["driver"]:
        _check_driver(expected["driver"])
    if expected["gpu"]:
        _check_gpu()


def _check_driver(floor: str) -> None:
    found = re.search(r"Kernel Module\D*([0-9][0-9.]*)", _DRIVER.read_text("utf-8")) if _DRIVER.exists() else None
    if found is not None and _numbers(found[1]) < _numbers(floor):
        raise UnfitEnvironment(
            f"The NVIDIA driver {found[1]} is too old: the image needs {floor} or newer.", "Upgrade the driver."
        )


def _check_gpu() -> None:
    """The engine may have taken the request for a GPU and done nothing: Podman's socket does."""
    import torch

    if not torch.cuda.is_available():
        raise UnfitEnvironment(
            "The container was promised a GPU and has none that torch can use.",
            "Use Docker with the NVIDIA Container Toolkit, and an image with a CUDA build of torch.",
        )


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".") if part)
