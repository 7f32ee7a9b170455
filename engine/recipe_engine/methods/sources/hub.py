"""``hub:`` -- a model of the Hugging Face Hub, at one commit."""

from __future__ import annotations

import re
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from recipe_engine.contract import MODEL_FILES, Reporter, ResolvedSource, SourceFile, SourceRequest
from recipe_engine.errors import UnresolvedInput
from recipe_registry import sha256_file

if TYPE_CHECKING:
    from collections.abc import Iterator

_COMMIT = re.compile(r"[0-9a-f]{40}")
_PATTERNS = [f"*{suffix}" for suffix in MODEL_FILES]


class HubSource:
    """Fetches what belongs to a model: configuration, tokenizer, safetensors; never pickles, never code."""

    def peek(self, request: SourceRequest) -> ResolvedSource | None:
        """What is in the cache for a pinned commit; ``None`` for a branch, which may have moved."""
        from huggingface_hub.errors import LocalEntryNotFoundError

        if request.kind != "model" or not _COMMIT.fullmatch(request.revision or ""):
            return None
        try:
            return _snapshot(request, local_only=True)
        except LocalEntryNotFoundError:
            return None

    def fetch(self, request: SourceRequest, reporter: Reporter) -> ResolvedSource:
        """Download what is missing; finished files are kept when it is interrupted.

        Raises:
            UnresolvedInput: where the Hub does not have it, does not give it, or cannot be reached.
        """
        if request.kind == "data":
            raise UnresolvedInput(
                f"{request.reference}: data sets of the Hub are not supported yet.",
                "Save the rows as JSON lines and name them with file:.",
            )
        cached = self.peek(request)
        if cached is not None:
            return cached
        reporter.message(f"downloading {request.name} from the Hub")
        with _explained(request):
            return _snapshot(request, local_only=False)


def _snapshot(request: SourceRequest, *, local_only: bool) -> ResolvedSource:
    from huggingface_hub import snapshot_download

    folder = snapshot_download(
        request.name,
        revision=request.revision,
        cache_dir=request.cache,
        allow_patterns=_PATTERNS,
        local_files_only=local_only,
    )
    files = sorted(path for path in Path(folder).iterdir() if path.suffix in MODEL_FILES and path.is_file())
    found = tuple(SourceFile(path.name, path, sha256_file(path), path.stat().st_size) for path in files)
    return ResolvedSource(request.reference, found)


@contextmanager
def _explained(request: SourceRequest) -> Iterator[None]:
    from huggingface_hub import errors

    name = request.reference
    try:
        yield
    except errors.GatedRepoError:
        raise UnresolvedInput(
            f"{name} is gated, and this account has no access.",
            f"Accept its licence on the page of {request.name}, then log in with: hf auth login",
        ) from None
    except errors.RevisionNotFoundError:
        raise UnresolvedInput(f"{name} has no revision {request.revision}.", "Name one of its commits.") from None
    except errors.RepositoryNotFoundError:
        raise UnresolvedInput(
            f"the Hub has no model {request.name}, or this account may not see it.",
            "Check the name; log in with: hf auth login",
        ) from None
    except errors.LocalEntryNotFoundError:
        raise UnresolvedInput(
            f"{name} is not in the cache, and the Hub cannot be reached.",
            "Connect to the network, or name a local folder with file:.",
        ) from None
    except (errors.HfHubHTTPError, OSError) as error:
        raise UnresolvedInput(f"{name}: the Hub did not answer as expected: {type(error).__name__}.") from error
