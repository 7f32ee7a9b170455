"""``push.folder`` -- an export that other tools load as it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from recipe_engine.errors import StageFailed, VerificationFailed
from recipe_engine.methods.content import same_card
from recipe_engine.methods.paths import expanded
from recipe_registry import sha256_file
from recipe_registry.durable import copy_file

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from recipe_engine.contract import PushRequest


class PushFolder:
    """Copies the payload into a folder; other files in it are left alone."""

    def check(self, request: PushRequest) -> None:
        """Whether the folder's name means something."""
        _target(request)

    def is_current(self, request: PushRequest) -> bool:
        """Whether every file is there already with the same bytes, but for what is volatile in the card."""
        target = _target(request)
        return all(_same(path, target / name) or _alike(name, path, target) for name, path in request.files.items())

    def push(self, request: PushRequest) -> Mapping[str, Any]:
        """Copy what differs, and read it back.

        Raises:
            StageFailed: a folder stands where a file is needed.
            StoreNotWritable: the disk or a permission forbids it.
            VerificationFailed: what was read back is not what was written.
        """
        target = _target(request)
        for done, (name, path) in enumerate(sorted(request.files.items()), 1):
            if (target / name).is_dir():
                raise StageFailed(f"{target / name} is a folder where a file is needed.", "Move it away.")
            if not _same(path, target / name):
                copy_file(path, target / name)
            if not _same(path, target / name):
                raise VerificationFailed(f"{target / name} does not hold what was written.", "Check the disk.")
            request.reporter.progress(done, len(request.files), "files")
        return {"folder": str(target), "digest": request.digest, "files": sorted(request.files)}


def _target(request: PushRequest) -> Path:
    path: str = request.options.path or f"exports/{request.name}"
    return request.folder / expanded(path, "push.folder")


def _alike(name: str, path: Path, target: Path) -> bool:
    return (target / name).is_file() and same_card(name, path, target / name)


def _same(one: Path, other: Path) -> bool:
    return other.is_file() and other.stat().st_size == one.stat().st_size and sha256_file(other) == sha256_file(one)
