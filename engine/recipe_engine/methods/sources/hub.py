"""``hub:`` -- a model or a data set of the Hugging Face Hub, at one commit.

The Hub's own client downloads into its own cache. What came of it is noted beside, with digests, so that a plan needs
neither the client nor the network, and 13 GB are hashed once.
"""

from __future__ import annotations

import json
import re
import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any

from recipe_engine.contract import MODEL_FILES, WEIGHT_FILES, Reporter, ResolvedSource, SourceFile, SourceRequest
from recipe_engine.errors import UnresolvedInput
from recipe_engine.methods.content import git_oid
from recipe_engine.methods.hub_client import LOG_IN, open_client, patiently
from recipe_engine.methods.hub_resume import downloads_go_on, interruptible
from recipe_engine.methods.hub_token import find_token
from recipe_registry import sha256_file
from recipe_registry.durable import make_directory, write_json

if TYPE_CHECKING:
    from collections.abc import Iterator

_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_GIT_BLOB = re.compile(r"[0-9a-f]{40}")
_SECONDS_TO_ANSWER = 10
_NOTE_VERSION = 1


@dataclass(frozen=True, slots=True)
class _Repository:
    """A kind of repository.

    Attributes:
        type: what the Hub calls it.
        called: what people call it.
        wanted: patterns of the files that are fetched.
        unwanted: patterns of those that are not.
        needed: suffixes of which there must be one.
        nothing: what is missing where there is none, and what to do about it.
    """

    type: str
    called: str
    wanted: tuple[str, ...]
    unwanted: tuple[str, ...]
    needed: tuple[str, ...]
    nothing: tuple[str, str]

    def wants(self, path: str) -> bool:
        """Whether a file is fetched."""
        wanted = any(fnmatchcase(path, pattern) for pattern in self.wanted)
        return wanted and not any(fnmatchcase(path, pattern) for pattern in self.unwanted)


_ROWS = (".jsonl", ".json", ".csv", ".parquet")
_REPOSITORIES = {
    "model": _Repository(
        type="model",
        called="model",
        wanted=tuple(f"*{suffix}" for suffix in MODEL_FILES),
        # Folders hold other formats of the same weights, and so do Mistral's consolidated files.
        unwanted=("*/*", "consolidated*"),
        needed=WEIGHT_FILES,
        nothing=(
            "no weights as *.safetensors or *.gguf",
            (
                "Pickled weights can run code and are never loaded. Where a pull request of the model converts them, "
                'name it: revision = "refs/pr/1".'
            ),
        ),
    ),
    "data": _Repository(
        type="dataset",
        called="data set",
        wanted=(*(f"*{suffix}" for suffix in _ROWS), "README.md"),
        unwanted=(),
        needed=_ROWS,
        nothing=(
            "no rows as *.jsonl, *.json, *.csv or *.parquet",
            'Loading scripts are never run. The Hub converts most data sets: try revision = "refs/convert/parquet".',
        ),
    ),
}


class HubSource:
    """Fetches what belongs to a model or a data set; never pickles, never code."""

    def peek(self, request: SourceRequest) -> ResolvedSource | None:
        """What was downloaded of a pinned commit; ``None`` for a branch, which may have moved."""
        if not _COMMIT.fullmatch(request.revision or ""):
            return None
        try:
            note = json.loads(_note(request, str(request.revision)).read_bytes())
            files = [_noted_file(request, entry) for entry in note["files"] if note["schema_version"] == _NOTE_VERSION]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return ResolvedSource(request.reference, tuple(files), request.revision) if files else None

    def fetch(self, request: SourceRequest, reporter: Reporter) -> ResolvedSource:
        """Download what is missing; what is there of it is kept when it is interrupted.

        Raises:
            UnresolvedInput: where the Hub does not have it, does not give it, or cannot be reached.
        """
        cached = self.peek(request)
        if cached is not None:
            return cached
        reporter.message(f"downloading {request.name} from the Hub")
        with explained(request):
            folder = _download(request, reporter)
        if folder.name != request.revision:
            reporter.message(f'{request.revision or "main"} may move; today it is revision = "{folder.name}"')
        files = _verified(request, folder)
        _take_note(request, folder.name, files)
        return ResolvedSource(request.reference, tuple(files), folder.name)


def _download(request: SourceRequest, reporter: Reporter) -> Path:
    """The folder of one commit in the client's cache; it is named by the commit."""
    client, say, stop = open_client(find_token(Path.cwd())), reporter.message, Event()
    repository = _REPOSITORIES[request.kind]
    about = partial(client.repo_info, request.name, repo_type=repository.type, timeout=_SECONDS_TO_ANSWER)
    # Whoever is without a network is told at this first question; all later ones are worth a wait.
    commit = patiently(lambda: about(revision=request.revision).sha, say, silence=False)
    fetch = partial(
        client.snapshot_download,
        request.name,
        repo_type=repository.type,
        revision=commit,
        cache_dir=request.cache,
        allow_patterns=list(repository.wanted),
        ignore_patterns=list(repository.unwanted),
        tqdm_class=_bytes(reporter, stop),
    )
    with warnings.catch_warnings(), downloads_go_on():
        warnings.simplefilter("ignore")  # of a disk that will be too small: if it is, the error says so
        return Path(patiently(lambda: interruptible(fetch, stop), say))


def _bytes(reporter: Reporter, stop: Event) -> Any:
    """What the client draws its bars with.

    Args:
        reporter: is told the bytes that were written.
        stop: ends the threads of the client.
    """
    from huggingface_hub.utils import tqdm

    class Bytes(tqdm):
        """Draws nothing."""

        def __init__(self, *args: Any, **options: Any) -> None:
            self._counts = options.get("name") == "huggingface_hub.snapshot_download"
            super().__init__(*args, **(options | {"disable": True}))

        def update(self, n: float | None = 1) -> None:
            if stop.is_set():
                raise KeyboardInterrupt
            self.n += n or 0
            if self._counts:
                reporter.progress(int(self.n), int(max(self.n, self.total or 0)), "bytes")

    return Bytes


def _verified(request: SourceRequest, folder: Path) -> list[SourceFile]:
    """The files of a snapshot with their digests; the client itself compares sizes only."""
    repository = _REPOSITORIES[request.kind]
    found = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    wanted = {name: path for name, path in sorted(found.items()) if repository.wants(name)}
    if not any(name.endswith(repository.needed) for name in wanted):
        nothing, hint = repository.nothing
        raise UnresolvedInput(f"{request.reference} holds {nothing}.", hint)
    files = [SourceFile(name, path, sha256_file(path), path.stat().st_size) for name, path in wanted.items()]
    for path, file in zip(wanted.values(), files, strict=True):
        blob = path.resolve()
        if _is_damaged(blob, file.sha256):
            blob.unlink()
            path.unlink(missing_ok=True)
            raise UnresolvedInput(
                f"{request.reference}: {file.path} was damaged on its way.", "Give the same command again to go on."
            )
    return files


def _is_damaged(blob: Path, sha256: str) -> bool:
    """Whether a file is not what the Hub says: the cache names large files by their sha256, small ones as git does."""
    if _SHA256.fullmatch(blob.name):
        return blob.name != sha256
    if _GIT_BLOB.fullmatch(blob.name):
        return git_oid(blob.read_bytes()) != blob.name
    return False


def _note(request: SourceRequest, commit: str) -> Path:
    prefix = "hub" if request.kind == "model" else "hub-datasets"
    return request.cache / f"{prefix}--{request.name.replace('/', '--')}" / f"{commit}.json"


def _take_note(request: SourceRequest, commit: str, files: list[SourceFile]) -> None:
    entries = [
        {"path": file.path, "sha256": file.sha256, **_stat(_snapshot(request, commit) / file.path)} for file in files
    ]
    note = _note(request, commit)
    make_directory(note.parent)
    write_json(note, {"schema_version": _NOTE_VERSION, "files": entries})


def _noted_file(request: SourceRequest, entry: dict[str, Any]) -> SourceFile:
    """A file as it was noted.

    Raises:
        ValueError: where it has changed since.
    """
    path = _snapshot(request, str(request.revision)) / entry["path"]
    if _stat(path) != {"size": entry["size"], "mtime_ns": entry["mtime_ns"]}:
        raise ValueError(f"{path} has changed")
    return SourceFile(entry["path"], path, entry["sha256"], entry["size"])


def _snapshot(request: SourceRequest, commit: str) -> Path:
    """Where the client keeps the files of a commit."""
    kind = _REPOSITORIES[request.kind].type
    return request.cache / f"{kind}s--{request.name.replace('/', '--')}" / "snapshots" / commit


def _stat(path: Path) -> dict[str, int]:
    found = path.stat()
    return {"size": found.st_size, "mtime_ns": found.st_mtime_ns}


@contextmanager
def explained(request: SourceRequest) -> Iterator[None]:
    """The client's errors in our terms. None of its texts is passed on: they name addresses and requests."""
    from huggingface_hub import errors

    name = request.reference
    try:
        yield
    except errors.GatedRepoError:
        raise UnresolvedInput(
            f"{name} is gated, and this account has no access.",
            f"Accept its licence at {_page(request)} and log in with: hf auth login",
        ) from None
    except errors.RevisionNotFoundError:
        raise UnresolvedInput(f"{name} has no revision {request.revision}.", "Name one of its commits.") from None
    except errors.RepositoryNotFoundError:
        raise UnresolvedInput(
            f"the Hub has no {_REPOSITORIES[request.kind].called} {request.name}, or this account may not see it.",
            f"Check the name. {LOG_IN}",
        ) from None
    except (errors.HTTPError, errors.EntryNotFoundError, OSError, RuntimeError) as error:  # the last is hf_xet's
        raise _failure(name, error) from None


def _page(request: SourceRequest) -> str:
    """The page of a repository, which shows its licence."""
    from huggingface_hub import constants

    return f"{constants.ENDPOINT}/{'datasets/' if request.kind == 'data' else ''}{request.name}"


def _failure(name: str, error: Exception) -> UnresolvedInput:
    """What went wrong on the way; the client wraps it where it looked into its cache afterwards."""
    from huggingface_hub import errors

    cause = error.__cause__ if isinstance(error, errors.LocalEntryNotFoundError) and error.__cause__ else error
    status = getattr(getattr(cause, "response", None), "status_code", None)
    if isinstance(cause, errors.OfflineModeIsEnabled):
        return UnresolvedInput(f"{name} is not downloaded, and HF_HUB_OFFLINE is set.", "Unset it, and try again.")
    if status is not None:
        hint = f"The account or its token is refused. {LOG_IN}" if status in (401, 403) else "Try again later."
        return UnresolvedInput(f"{name}: the Hub answered with status {status}.", hint)
    if isinstance(cause, errors.HTTPError):
        return UnresolvedInput(
            f"{name}: the Hub cannot be reached ({type(cause).__name__}).",
            "Connect to the network, or name what is here: a commit that was downloaded, or a folder with file:.",
        )
    reason = getattr(cause, "strerror", None) or type(cause).__name__
    return UnresolvedInput(f"{name} cannot be downloaded: {reason}.", "Look at the disk and at HF_ENDPOINT.")
