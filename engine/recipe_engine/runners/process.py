"""Runner ``process``: the worker is a process of this machine."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from recipe_engine.errors import StageFailed
from recipe_engine.runners.failures import LESS_MEMORY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from recipe_engine.errors import RecipeError
    from recipe_engine.lock import Hardware
    from recipe_engine.runners.base import WorkerRequest

_SECRETS = ("TOKEN", "SECRET", "PASSWORD", "CREDENTIAL", "API_KEY", "ACCESS_KEY")
_URL_WITH_PASSWORD = re.compile(r"://[^/\s@]*:[^/\s@]*@")
_SECONDS_TO_END = 10


class ProcessRunner:
    """Starts the worker with the same interpreter."""

    def start(self, request: WorkerRequest, progress: Callable[[int, int], None]) -> ProcessHandle:
        """See ``WorkerRunner.start``."""
        del progress  # nothing is fetched
        return ProcessHandle(request.hardware, request.log)


class ProcessHandle:
    """A worker process, spoken to through its standard input and output."""

    def __init__(self, hardware: Hardware, log: Path) -> None:
        self._log = log
        with log.open("ab") as errors:
            # A session of its own: Ctrl-C in the terminal reaches the engine only, which decides what happens.
            # -P: a file in the current folder must not pass for a library.
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "recipe_engine.runners.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=worker_environment(os.environ, hardware),
                start_new_session=True,
            )

    def send(self, message: Mapping[str, Any]) -> None:
        """See ``WorkerHandle.send``."""
        assert self._process.stdin is not None  # it is a pipe
        with suppress(BrokenPipeError):
            # One system call, so that a stop from a signal handler never lands inside another message.
            os.write(self._process.stdin.fileno(), json.dumps(message).encode() + b"\n")

    def receive(self) -> dict[str, Any] | None:
        """See ``WorkerHandle.receive``."""
        assert self._process.stdout is not None  # it is a pipe
        line = self._process.stdout.readline()
        return json.loads(line) if line.endswith(b"\n") else None

    def stop(self) -> None:
        """See ``WorkerHandle.stop``."""
        self.send({"type": "stop"})

    def kill(self) -> None:
        """See ``WorkerHandle.kill``."""
        with suppress(ProcessLookupError):
            self._process.kill()

    def reaches(self, paths: Iterable[Path]) -> bool:
        """See ``WorkerHandle.reaches``."""
        del paths  # it sees all of the machine
        return True

    def close(self) -> None:
        """See ``WorkerHandle.close``."""
        self._end()

    def death(self) -> RecipeError:
        """See ``WorkerHandle.death``."""
        status = self._end()
        if status == -signal.SIGKILL:
            return StageFailed("The worker was killed, most likely because the memory was used up.", LESS_MEMORY)
        return StageFailed(f"The worker ended with status {status}.", f"See {self._log}.")

    def _end(self) -> int:
        assert self._process.stdin is not None and self._process.stdout is not None  # noqa: PT018 -- pipes
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            status = self._process.wait(_SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            self.kill()
            status = self._process.wait()
        self._process.stdout.close()
        return status


def worker_environment(environment: Mapping[str, str], hardware: Hardware) -> dict[str, str]:
    """The environment of a worker: no secret, no network for the Hub's client, threads fixed before torch is there."""
    kept = {name: value for name, value in environment.items() if not _is_secret(name, value)}
    threads = str(hardware.threads)
    # One GPU: with several in sight, the Trainer would split batches over them and change the numbers.
    gpu = environment.get("CUDA_VISIBLE_DEVICES", "0").partition(",")[0] if hardware.device == "cuda" else ""
    # bitsandbytes compiles some functions on a CPU wherever it finds a C++ compiler, so that numbers could depend
    # on one, and to ask for it takes every start a second. On a GPU vLLM compiles.
    kept |= {"TORCHDYNAMO_DISABLE": "1"} if hardware.device == "cpu" else {}
    return kept | {
        "OMP_NUM_THREADS": threads,
        "MKL_NUM_THREADS": threads,
        "OPENBLAS_NUM_THREADS": threads,
        "OMP_DYNAMIC": "FALSE",
        "MKL_DYNAMIC": "FALSE",
        # Threads that wait by spinning cost ten times the work itself as soon as another process wants the cores, and
        # those that wait asleep are woken late. A thousand turns awake, and then sleep: docs/performance.md has what
        # that saves alone and costs beside others.
        "OMP_WAIT_POLICY": "PASSIVE",
        "GOMP_SPINCOUNT": "1000",
        # oneDNN keeps what it made for each shape of a product, and batches without padding have a new shape each
        # time: by default a training of a small model grew by 1.3 GB in 80 steps. What a step multiplies has about 80
        # shapes, and making one anew takes a millisecond, so all of them must have room.
        "LRU_CACHE_CAPACITY": "64",
        "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "128",
        "CUDA_VISIBLE_DEVICES": gpu,
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "TRANSFORMERS_VERBOSITY": "error",
        "PYTHONUNBUFFERED": "1",
        # cuBLAS is deterministic only with a fixed workspace (NVIDIA, cuBLAS documentation, "Results reproducibility").
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
    }


def _is_secret(name: str, value: str) -> bool:
    return any(word in name.upper() for word in _SECRETS) or _URL_WITH_PASSWORD.search(value) is not None
