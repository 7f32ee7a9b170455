"""Libraries that are released as sources alone: their modules as a wheel, without running their set-up."""

from __future__ import annotations

import tarfile
import zipfile
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from recipe_containers.errors import BuildFailed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

_WHEEL = "Wheel-Version: 1.0\nGenerator: recipe-containers\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


def as_wheel(sources: Path) -> Path:
    """Lay the modules of a source distribution and its metadata out as a wheel, beside it.

    What a build would do to them depends on the tools of the day; what is in the file does not. Sources: "Source
    distribution format" and "Binary distribution format" of the Python Packaging User Guide.

    Args:
        sources: ``NAME-VERSION.tar.gz``, as setuptools writes it.

    Raises:
        BuildFailed: there is more in its packages than Python modules, so that it has to be built.
    """
    stem = sources.name.removesuffix(".tar.gz")
    top_level = f"{stem.rpartition('-')[0]}.egg-info/top_level.txt"
    made = sources.with_name(f"{stem}-py3-none-any.whl")
    partial = made.with_suffix(".partial")
    with tarfile.open(sources) as archive:
        files = {
            "/".join(PurePosixPath(member.name).parts[1:]): _read(archive, member)
            for member in archive.getmembers()
            if member.isreg()
        }
    if not {"PKG-INFO", top_level} <= set(files):
        raise BuildFailed(f"{sources.name} is no source distribution of setuptools: its metadata are not there.")
    modules = _modules(sources.name, files, files[top_level].decode().split())
    with zipfile.ZipFile(partial, "w") as wheel:
        for name, content in modules.items():
            wheel.writestr(name, content)
        wheel.writestr(f"{stem}.dist-info/METADATA", files["PKG-INFO"])
        wheel.writestr(f"{stem}.dist-info/WHEEL", _WHEEL)
    partial.replace(made)
    return made


def _modules(sources: str, files: Mapping[str, bytes], packages: Sequence[str]) -> dict[str, bytes]:
    found = {name: files[name] for name in sorted(files) if name.partition("/")[0].removesuffix(".py") in packages}
    for name in found:
        if not name.endswith(".py"):
            raise BuildFailed(f"{sources} holds {name}, which is no Python module: it has to be built.")
    return found


def _read(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    stream = archive.extractfile(member)
    assert stream is not None
    return stream.read()
