"""How far an upload has come, byte by byte, whichever way the Hub's client sends it."""

from __future__ import annotations

import io
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_SECONDS_BETWEEN = 0.2


class CountedFile(io.BufferedReader):
    """A file that tells how much of it was read; a part that is sent again takes it back.

    Args:
        path: of the file.
        tell: called with the bytes so far, now and then and at the end.
    """

    def __init__(self, path: Path, tell: Callable[[int], None]) -> None:
        super().__init__(io.FileIO(path))
        self._size = path.stat().st_size
        self._tell = tell
        self._next = time.monotonic() + _SECONDS_BETWEEN

    def read(self, size: int | None = -1, /) -> bytes:
        """As of any file."""
        found = super().read(size)
        if time.monotonic() >= self._next or self.tell() == self._size:
            self._next = time.monotonic() + _SECONDS_BETWEEN
            self._tell(self.tell())
        return found


def counted_addition(name: str, path: Path, tell: Callable[[int], None]) -> Any:
    """A file of a commit whose upload is counted.

    Args:
        name: in the repository.
        path: of the file.
        tell: called with the bytes that were sent.
    """
    from huggingface_hub import CommitOperationAdd

    class Counted(CommitOperationAdd):
        @contextmanager
        def as_file(self, with_tqdm: bool = False) -> Iterator[Any]:
            # The client draws a bar where it sends, and none where it hashes.
            with CountedFile(path, tell) if with_tqdm else path.open("rb") as file:
                yield file

    return Counted(name, path)


@contextmanager
def xet_counted(tell: Callable[[int], None]) -> Iterator[None]:
    """For the time of the block, what is sent by Xet is told instead of drawn.

    Args:
        tell: called with the bytes that were sent of all files of one call.
    """
    from huggingface_hub import utils
    from huggingface_hub.utils import _xet_progress_reporting as reporting

    class Told:
        def update_progress(self, whole: Any, _files: Any = None) -> None:
            tell(int(whole.total_bytes_completed))

        def close(self) -> None:
            pass

    drawn, disabled = reporting.XetUploadProgressReporter, utils.are_progress_bars_disabled
    reporting.XetUploadProgressReporter = Told
    # The client reports nothing where bars are off. This is what it asks there; the bars themselves stay off.
    utils.are_progress_bars_disabled = lambda: False
    try:
        yield
    finally:
        utils.are_progress_bars_disabled = disabled
        reporting.XetUploadProgressReporter = drawn
