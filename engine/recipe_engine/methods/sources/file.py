"""``file:`` -- a file or a model folder of this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from recipe_engine.contract import MODEL_FILES, Reporter, ResolvedSource, SourceFile, SourceRequest
from recipe_engine.errors import UnresolvedInput
from recipe_engine.methods.paths import expanded
from recipe_engine.methods.sources.known_digests import sha256_of

if TYPE_CHECKING:
    from pathlib import Path


_NOTHING = {
    "model": (
        "holds no file of a model.",
        "Expected config.json, tokenizer.json and weights as *.safetensors or *.gguf.",
    ),
    "folder": ("is empty.", "Put the files there."),
}


class FileSource:
    """Names bytes that are here already; they are hashed where they lie and never copied."""

    def peek(self, request: SourceRequest) -> ResolvedSource | None:
        """The same as :meth:`fetch`: a file that is not here will not come by itself.

        Raises:
            UnresolvedInput: where it is not there, not readable, or of the wrong kind.
        """
        return _resolve(request, remember=False)

    def fetch(self, request: SourceRequest, reporter: Reporter) -> ResolvedSource:
        """Hash the file, or the files of the folder that belong to a model.

        Raises:
            UnresolvedInput: where it is not there, not readable, or of the wrong kind.
        """
        del reporter
        return _resolve(request, remember=True)


def _resolve(request: SourceRequest, *, remember: bool) -> ResolvedSource:
    path = request.folder / expanded(request.name, request.reference)
    try:
        files = _folders_files(request, path) if request.kind != "data" and path.is_dir() else {path.name: path}
        if not path.exists():
            raise UnresolvedInput(f"{request.reference}: there is no {path}.", "Paths are relative to the recipe.")
        if request.kind == "data" and path.is_dir():
            raise UnresolvedInput(f"{request.reference}: {path} is a folder.", "Name a file with one JSON row a line.")
        if request.kind == "folder" and path.is_file():
            raise UnresolvedInput(f"{request.reference}: {path} is a file.", "Name the folder that it is in.")
        if not path.is_dir() and not path.is_file():
            raise UnresolvedInput(
                f"{request.reference}: {path} is no file.", "Pipes and devices have no content to pin."
            )
        if not files:
            nothing, hint = _NOTHING[request.kind]
            raise UnresolvedInput(f"{request.reference}: {path} {nothing}", hint)
        found = [
            SourceFile(name, local, sha256_of(local, request.cache, remember=remember), local.stat().st_size)
            for name, local in sorted(files.items())
        ]
    except OSError as error:
        raise UnresolvedInput(f"{request.reference}: cannot read {path}: {error.strerror}.") from error
    return ResolvedSource(request.reference, tuple(found))


def _folders_files(request: SourceRequest, folder: Path) -> dict[str, Path]:
    """Relative path -> file, of those that count."""
    if request.kind == "folder":
        found = {path.relative_to(folder): path for path in folder.rglob("*") if path.is_file()}
        return {name.as_posix(): path for name, path in found.items() if not any(map(_is_ignored, name.parts))}
    return {
        path.name: path
        for path in sorted(folder.iterdir())
        if path.is_file() and path.suffix in MODEL_FILES and not path.name.startswith(".")
    }


def _is_ignored(part: str) -> bool:
    return part.startswith(".") or part == "__pycache__"
