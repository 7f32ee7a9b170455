"""What can go wrong with images and the engine that runs them, and is not a bug.

::

    ContainerError             exit 4   the base
    ├── EngineUnavailable      exit 4   no engine answers, or it does not let this user in
    ├── BuildFailed            exit 4   this machine cannot build the image: a tool, a file or space is missing
    ├── ImageMissing           exit 3   the engine does not have the image, and no registry gave it
    ├── ImageDiffers           exit 6   an image is not, byte for byte, what the lock says
    └── EngineRefused          exit 4   the engine cannot do what is asked: no GPU runtime, no space, no such limit
"""

from __future__ import annotations

from typing import ClassVar


class ContainerError(Exception):
    """Base of every error of this package that is not a bug.

    Args:
        message: what happened, in one sentence.
        hint: what to do about it.
    """

    exit_code: ClassVar[int] = 4

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} {self.hint}" if self.hint else self.message


class EngineUnavailable(ContainerError):
    """No container engine can be used: none is there, none answers, or this user may not speak to it."""


class BuildFailed(ContainerError):
    """An image cannot be built here: a tool, a file or space is missing."""


class ImageMissing(ContainerError):
    """An image is neither here nor where it would be pulled from."""

    exit_code: ClassVar[int] = 3


class ImageDiffers(ContainerError):
    """An image is not, byte for byte, what its lock says."""

    exit_code: ClassVar[int] = 6


class EngineRefused(ContainerError):
    """The engine is there and says no."""
