"""Downloads over HTTP that go on where an earlier one ended, be it cut, stopped or killed.

The Hub's client asks for the rest of a file within one call only. What it has of the file lies beside it under a name
that it never looks at again: it is removed where the call fails, and stays for good where the process is killed.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from threading import Event

T = TypeVar("T")
_SUFFIX = ".incomplete"


def interruptible(action: Callable[[], T], stop: Event) -> T:
    """What an action gives whose threads the client would wait for, however long they take.

    Args:
        action: ends soon after it is told to stop.
        stop: is set by Ctrl-C, which is passed on once the action has ended.
    """
    with ThreadPoolExecutor(1) as executor:
        future = executor.submit(action)
        try:
            return future.result()
        except KeyboardInterrupt:
            stop.set()
            raise


@contextmanager
def downloads_go_on() -> Iterator[None]:
    """For the time of the block, a file of the client's cache begins with what an earlier download left of it.

    What comes of it is to be compared with its digest: a part is known by its name alone. Files that are sent by Xet
    begin anew.
    """
    from huggingface_hub import file_download

    plain = file_download.http_get
    file_download.http_get = partial(_go_on, plain)
    try:
        yield
    finally:
        file_download.http_get = plain


def _go_on(get: Callable[..., None], url: str, temp_file: Any, **how: Any) -> None:
    """What the client calls to fetch a file; it holds the lock of the file meanwhile.

    Args:
        get: the client's own function.
        url: of the file.
        temp_file: opened by the client, which moves what is at its path then.
        **how: for ``get``.
    """
    if how.get("resume_size"):  # the client goes on by itself
        get(url, temp_file, **how)
        return
    path = Path(temp_file.name)
    begun = _left(path, how.get("expected_size"))
    try:
        if begun is None:
            get(url, temp_file, **how)
            return
        begun.replace(path)
        with path.open("r+b") as file:
            get(url, file, resume_size=file.seek(0, 2), **how)
    except BaseException:
        with suppress(FileNotFoundError):
            path.replace(_kept(path))
        raise


def _kept(path: Path) -> Path:
    """Where a part waits: ``<digest>.<random>.incomplete`` -> ``<digest>.incomplete``."""
    return path.with_name(path.name.partition(".")[0] + _SUFFIX)


def _left(path: Path, size: int | None) -> Path | None:
    """The longest part of earlier downloads; the others are removed.

    Args:
        path: of this download.
        size: of the whole file, in bytes.
    """
    parts = [part for part in path.parent.glob(f"{path.name.partition('.')[0]}*{_SUFFIX}") if part != path]
    parts.sort(key=lambda part: part.stat().st_size)
    longest = parts.pop() if parts and 0 < parts[-1].stat().st_size <= (size or 0) else None
    for part in parts:
        part.unlink(missing_ok=True)
    return longest
