"""What ends a worker, in the engine's own terms where it is not a bug."""

from __future__ import annotations

import os
import re
import traceback
from contextlib import contextmanager
from typing import TYPE_CHECKING

from recipe_engine.errors import Interrupted, RecipeError, StageFailed
from recipe_registry import RegistryError, StoreNotWritable
from recipe_registry.errors import WRITE_HINTS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from recipe_engine.runners.channel import Channel

LESS_MEMORY = "Lower micro_batch_size or max_length, or load in nf4."
"""What to do where a stage does not fit."""


@contextmanager
def bugs_explained(author: str) -> Iterator[None]:
    """What a stage raises and no user can act on names its author, such as ``the plugin recipe-dpo``.

    Raises:
        Exception: the same in the engine's own terms, with its traceback as text.
    """
    try:
        yield
    except Exception as error:
        if hasattr(error, "exit_code"):
            raise
        raise _explain(error, author) from error


@contextmanager
def failures_reported(channel: Channel) -> Iterator[None]:
    """Tell the engine what ended the worker, in its own terms where it is not a bug."""
    try:
        yield
    except KeyboardInterrupt:
        failure: Exception = Interrupted("stopped.")
    except RecipeError as error:
        failure = error
    except Exception as error:  # noqa: BLE001 -- the traceback travels to the engine, which prints it
        failure = _explain(error)
    content = {"error": type(failure).__name__, "message": str(failure), "hint": ""}
    if isinstance(failure, RecipeError | RegistryError):
        content |= {"message": failure.message, "hint": failure.hint}
    channel.send("failed", **content, traceback=getattr(failure, "traceback", ""))


def _explain(error: Exception, author: str = "the engine") -> Exception:
    exit_code = getattr(error, "exit_code", None)
    if exit_code is not None:  # the registry's errors
        return error
    if (unwritable := _unwritable(error)) is not None:
        return unwritable
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return StageFailed("The memory is used up.", LESS_MEMORY)
    failure = StageFailed(f"{type(error).__name__}: {error}", f"This is a bug of {author}, not of the recipe.")
    failure.traceback = traceback.format_exc()  # type: ignore[attr-defined]
    return failure


def _unwritable(error: Exception) -> Exception | None:
    """A full or read-only disk is no bug of the method. Libraries in Rust tell of it in words only."""
    found = re.search(r"\(os error (\d+)\)", str(error))
    number = error.errno if isinstance(error, OSError) else int(found[1]) if found else None
    if number not in WRITE_HINTS:
        return None
    path = getattr(error, "filename", None) or "The registry"
    return StoreNotWritable(f"{path} cannot be written: {os.strerror(number).lower()}.", WRITE_HINTS[number])
