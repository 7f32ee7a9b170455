"""``wheel:`` -- a file inside a Python wheel, fetched by pip and kept by its digest."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from recipe_engine.contract import Reporter, ResolvedSource, SourceFile, SourceRequest
from recipe_engine.errors import UnfitEnvironment, UnresolvedInput
from recipe_engine.methods.sources.references import WheelReference, parse_wheel
from recipe_registry import sha256_file
from recipe_registry.durable import place_file

_PROGRESS = re.compile(r"Progress (\d+) of (\d+)")


class WheelSource:
    """Fetches a wheel as a binary only, so that no code of it ever runs, and takes one file out of it."""

    def peek(self, request: SourceRequest) -> ResolvedSource | None:
        """The pinned digest says all; whether the bytes are here is another question."""
        wanted = parse_wheel(request.name)
        cached = _cached(request, wanted)
        size = cached.stat().st_size if cached else 0
        return ResolvedSource(request.reference, (SourceFile(Path(wanted.path).name, cached, wanted.sha256, size),))

    def fetch(self, request: SourceRequest, reporter: Reporter) -> ResolvedSource:
        """The file, from the cache or from the package index.

        Raises:
            UnresolvedInput: where the index does not have it, or its bytes are not the pinned ones.
            UnfitEnvironment: without pip.
        """
        wanted = parse_wheel(request.name)
        if _cached(request, wanted) is None:
            _fetch(request, wanted, reporter)
        found = self.peek(request)
        if found is None or not found.is_local:
            raise UnresolvedInput(f"{request.reference}: the cache {request.cache} lost the file while it was read.")
        return found


def _cache_path(request: SourceRequest, wanted: WheelReference) -> Path:
    return request.cache / wanted.sha256 / Path(wanted.path).name


def _cached(request: SourceRequest, wanted: WheelReference) -> Path | None:
    path = _cache_path(request, wanted)
    return path if path.is_file() and sha256_file(path) == wanted.sha256 else None


def _fetch(request: SourceRequest, wanted: WheelReference, reporter: Reporter) -> None:
    request.cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=request.cache, prefix=".wheel-") as folder:
        wheel = _download(request, wanted, Path(folder), reporter)
        extracted = Path(folder) / "extracted"
        _extract(request, wanted, wheel, extracted)
        place_file(extracted, _cache_path(request, wanted))


def _download(request: SourceRequest, wanted: WheelReference, folder: Path, reporter: Reporter) -> Path:
    if importlib.util.find_spec("pip") is None:
        raise UnfitEnvironment(
            f"{request.reference} is fetched by pip, which this environment has not.",
            "Install it: uv pip install pip",
        )
    # Isolated from the recipe: every part was matched against a strict pattern, and no shell is involved.
    command = [
        *(sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-input"),
        *("--disable-pip-version-check", "--progress-bar", "raw", "--dest", str(folder)),
        f"{wanted.project}=={wanted.version}",
    ]
    with (
        tempfile.TemporaryFile(mode="w+", encoding="utf-8", errors="replace") as errors,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, errors="replace") as process,
    ):
        try:
            for line in process.stdout or ():
                if match := _PROGRESS.match(line):
                    reporter.progress(int(match[1]), int(match[2]), "bytes")
        except BaseException:
            process.kill()
            raise
        if process.wait() != 0:
            errors.seek(0)
            raise _pip_failed(request, errors.read())
    return next(folder.glob("*.whl"))


def _pip_failed(request: SourceRequest, errors: str) -> UnresolvedInput:
    # Only pip's own error lines: what else it prints may name the index, and with it a password.
    lines = [line.removeprefix("ERROR: ").strip() for line in errors.splitlines() if line.startswith("ERROR:")]
    reason = lines[-1] if lines else "pip gave no reason"
    return UnresolvedInput(
        f"{request.reference}: pip could not fetch it: {reason}.".replace("..", "."),
        "Check the name and version, and that this machine reaches its package index.",
    )


def _extract(request: SourceRequest, wanted: WheelReference, wheel: Path, target: Path) -> None:
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(wanted.path) as packed, target.open("wb") as out:
            shutil.copyfileobj(packed, out, 1 << 20)
    except KeyError:
        raise UnresolvedInput(f"{request.reference}: the wheel holds no {wanted.path}.") from None
    except zipfile.BadZipFile as error:
        raise UnresolvedInput(f"{request.reference}: the wheel is damaged: {error}.") from error
    found = sha256_file(target)
    if found != wanted.sha256:
        raise UnresolvedInput(
            f"{request.reference}: the file's sha256 is {found}, not the pinned one.",
            "Either the pin is wrong, or these are not the bytes that the recipe means.",
        )
