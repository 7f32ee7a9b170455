"""The worker's end of the two pipes to the engine, and what a stage reports over them."""

from __future__ import annotations

import json
import os
import queue
import signal
import threading
import time
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

_SECONDS_BETWEEN_PROGRESS = 0.1


class Reporter:
    """Writes what a stage reports; progress is thinned out."""

    def __init__(self, channel: Channel, node: str) -> None:
        self._channel = channel
        self._node = node
        self._last = 0.0

    def progress(self, done: int, total: int, unit: str) -> None:
        """See ``contract.Reporter.progress``."""
        now = time.monotonic()
        if done >= total or now - self._last >= _SECONDS_BETWEEN_PROGRESS:
            self._last = now
            self._channel.send("progress", node=self._node, done=done, total=total, unit=unit)

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """See ``contract.Reporter.metrics``."""
        self._channel.send("metrics", node=self._node, step=step, values=dict(values))

    def message(self, text: str) -> None:
        """See ``contract.Reporter.message``."""
        self._channel.send("message", node=self._node, text=text)

    def stop_requested(self) -> bool:
        """See ``contract.Reporter.stop_requested``."""
        self._channel.asks_for_stop = True
        return self._channel.stopping.is_set()


class Channel:
    """The two pipes to the engine. A thread reads, so that a stop is heard in the middle of a stage."""

    def __init__(self, source: IO[bytes], sink: IO[bytes]) -> None:
        self._source = source
        self._sink = sink
        self._lock = threading.Lock()
        self.commands: queue.Queue[dict[str, Any]] = queue.Queue()
        self.stopping = threading.Event()
        # Set once a stage has shown that it asks; until then a stop interrupts it.
        self.asks_for_stop = False
        threading.Thread(target=self._read, daemon=True).start()

    def send(self, kind: str, **content: Any) -> None:
        """Write one message."""
        line = json.dumps({"type": kind, **content}).encode() + b"\n"
        with self._lock:
            self._sink.write(line)
            self._sink.flush()

    def _read(self) -> None:
        for line in self._source:
            command = json.loads(line)
            if command["type"] != "stop":
                if command["type"] == "generate":
                    self.stopping.clear()  # a stop before it was for the answer before it
                self.commands.put(command)
                continue
            self.stopping.set()
            if not self.asks_for_stop:
                # A real signal, since it also ends a system call that the main thread waits in.
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        # The engine is gone or done. What is running belongs to nobody any more.
        os._exit(0)
