"""Small wheels, source distributions, locks and systems for tests of images."""

from __future__ import annotations

import hashlib
import io
import tarfile
import zipfile
from pathlib import Path

from recipe_containers.definition import Definition

METADATA = "Metadata-Version: 2.4\nName: {name}\nVersion: {version}\nLicense-Expression: MIT\n"


def wheel(folder: Path, name: str = "small", version: str = "1.0", **files: str) -> Path:
    """A wheel with a package of one module, and further files: ``__`` in a name stands for ``/``."""
    path = folder / f"{name}-{version}-py3-none-any.whl"
    info = f"{name}-{version}.dist-info"
    whole = {
        f"{name}/__init__.py": f"VERSION = {version!r}\n",
        f"{info}/METADATA": METADATA.format(name=name, version=version),
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": "",
        **{place.replace("__", "/"): text for place, text in files.items()},
    }
    with zipfile.ZipFile(path, "w") as archive:
        for place, text in whole.items():
            archive.writestr(zipfile.ZipInfo(place, (2020, 1, 1, 0, 0, 0)), text)
    return path


def definition(folder: Path, *wheels: Path) -> Definition:
    """A definition whose lock pins these wheels."""
    lines = []
    for path in wheels:
        name, version = path.name.removesuffix(".tar.gz").split("-")[:2]
        lines.append(f"{name}=={version} \\\n    --hash=sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}\n")
    (folder / "tiny.lock").write_text("".join(lines), encoding="utf-8")
    return Definition("tiny", "For tests", download=1, folder=folder)


def system(path: Path, files: dict[str, str], links: dict[str, str] | None = None) -> Path:
    """A tar of a system: what ends in ``/`` is a folder; names begin with ``./``, as mmdebstrap's do."""
    with tarfile.open(path, "w") as archive:
        for name, text in files.items():
            entry = tarfile.TarInfo(f"./{name}".rstrip("/"))
            entry.mtime = 1_000_000_000
            if name.endswith("/"):
                entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            entry.size = len(text.encode())
            archive.addfile(entry, io.BytesIO(text.encode()))
        for name, target in (links or {}).items():
            entry = tarfile.TarInfo(f"./{name}")
            entry.type, entry.linkname = tarfile.LNKTYPE, f"./{target}"
            archive.addfile(entry)
    return path


def sources(folder: Path, name: str = "small_er", version: str = "1.0", **files: str) -> Path:
    """A source distribution with a package of one module, and further files: ``__`` in a name stands for ``/``."""
    path = folder / f"{name}-{version}.tar.gz"
    whole = {
        "PKG-INFO": METADATA.format(name=name, version=version),
        "setup.py": "raise SystemExit('nothing of a source distribution is run')\n",
        f"{name}/__init__.py": f"VERSION = {version!r}\n",
        f"{name}.egg-info/top_level.txt": f"{name}\n",
        **{place.replace("__", "/"): text for place, text in files.items()},
    }
    with tarfile.open(path, "w:gz") as archive:
        for place, text in whole.items():
            entry = tarfile.TarInfo(f"{name}-{version}/{place}")
            entry.size = len(text.encode())
            archive.addfile(entry, io.BytesIO(text.encode()))
    return path
