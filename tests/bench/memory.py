"""The memory of a command and of the processes that it starts."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

GIB = 2**30
_SECONDS_BETWEEN_LOOKS = 0.02


@dataclass
class Memory:
    """What a process and its children held at most, in bytes, one process at a time: a child of ours is the worker.

    Attributes:
        anonymous: the largest that was seen in fifty looks a second.
        resident: the kernel's own high-water mark, mapped files included.
    """

    anonymous: int = 0
    resident: int = 0

    def look(self, process: int) -> None:
        """Take note of a process and of those that it started."""
        try:
            lines = Path(f"/proc/{process}/status").read_text(encoding="utf-8").splitlines()
            children = [path.read_text(encoding="utf-8") for path in Path(f"/proc/{process}/task").glob("*/children")]
        except OSError:  # it has ended
            return
        found = {name: value for name, _, value in (line.partition(":") for line in lines)}
        self.anonymous = max(self.anonymous, _bytes(found.get("RssAnon", "")))
        self.resident = max(self.resident, _bytes(found.get("VmHWM", "")))
        for child in " ".join(children).split():
            self.look(int(child))


def watched(
    command: Sequence[str | Path], environment: Mapping[str, str], memory: Memory
) -> Iterator[tuple[float, str]]:
    """(seconds since the start, line) of what a command prints, while its memory is watched.

    Raises:
        RuntimeError: where it fails.
    """
    started = time.perf_counter()
    ended = threading.Event()

    def watch(process: int) -> None:
        while not ended.wait(_SECONDS_BETWEEN_LOOKS):
            memory.look(process)

    with subprocess.Popen(
        [str(part) for part in command], env=dict(environment), stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        watcher = threading.Thread(target=watch, args=(process.pid,))
        watcher.start()
        try:
            for line in process.stdout:
                yield time.perf_counter() - started, line
        finally:
            ended.set()
            watcher.join()
    if process.returncode:
        raise RuntimeError(f"{command} ended with {process.returncode}")


def _bytes(kilobytes: str) -> int:
    return int(kilobytes.split(maxsplit=1)[0]) * 1024 if kilobytes else 0
