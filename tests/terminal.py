"""A command at a terminal of its own, and the keys that are pressed there."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import subprocess
import termios
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

SECONDS = 60
PATIENCE = 5
"""Seconds after which a key is pressed again: readline does not see a signal that comes just before it listens."""


class Terminal:
    """Starts the command; at the end of the block it is gone.

    Args:
        command: and its arguments.
        folder: where it is given.
        environment: of the command; this process's where left out.

    Attributes:
        shown: what the terminal has shown since the last :meth:`wait_for`.
    """

    def __init__(
        self, command: Sequence[str | Path], folder: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        self._ours, theirs = pty.openpty()
        self._process = subprocess.Popen(
            command,
            cwd=folder,
            env={**(os.environ if environment is None else environment), "TERM": "dumb"},
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            preexec_fn=_own_terminal,  # noqa: PLW1509 -- the child does nothing else
        )
        os.close(theirs)
        self.shown = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._ours)

    def press(self, keys: bytes) -> None:
        """Press keys."""
        os.write(self._ours, keys)

    def wait_for(self, wanted: bytes, again: bytes = b"") -> None:
        """Wait until something is shown; press keys again while it is not."""
        deadline = time.monotonic() + SECONDS
        while wanted not in self.shown:
            assert time.monotonic() < deadline, self.shown
            if not self._read(PATIENCE):
                self.press(again)
        self.shown = self.shown.partition(wanted)[2]

    def ends(self, key: bytes) -> int:
        """The exit status after a key, which is pressed again while nothing happens."""
        self.press(key)
        for _ in range(SECONDS // PATIENCE):
            try:
                status = self._process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                self.press(key)
                continue
            while self._read(0):
                pass
            return status
        raise AssertionError(self.shown)

    def _read(self, seconds: float) -> bool:
        """Whether something was shown within so many seconds."""
        if not select.select([self._ours], [], [], seconds)[0]:
            return False
        try:
            self.shown += os.read(self._ours, 1 << 16)
        except OSError:  # the command has ended, and its side of the terminal is closed
            return False
        return True


def _own_terminal() -> None:
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
