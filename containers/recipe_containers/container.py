"""One container from its creation to its removal, spoken to through its standard input and output."""

from __future__ import annotations

import socket
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from recipe_containers.arguments import create_arguments
from recipe_containers.errors import EngineRefused, ImageMissing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from recipe_containers.arguments import Job

_STDOUT = 1
_KILLED = 137
_SECONDS_TO_END = 10
_NO_RUNTIME = ("could not select device driver", "unknown or invalid runtime name", "nvidia-container-cli")
_TOOLKIT = "Install the NVIDIA Container Toolkit, run nvidia-ctk runtime configure, and restart the engine."


@dataclass(frozen=True, slots=True)
class Ending:
    """How a container ended.

    Attributes:
        status: exit status; negative for a signal; ``None`` where the engine does not know it any more.
        out_of_memory: whether the kernel killed it at its memory limit.
    """

    status: int | None
    out_of_memory: bool = False


class Container:
    """A started container. :meth:`close` must be called, whatever happens.

    Args:
        client: of the engine; closed with the container.
        job: what runs in it.
        errors: called with each piece of its standard error.

    Raises:
        ImageMissing: the engine does not have the image.
        EngineRefused: it will not create or start it.
    """

    def __init__(self, client: Any, job: Job, errors: Callable[[bytes], object]) -> None:
        self._client = client
        self._errors = errors
        self._rest = b""
        self._id = ""
        self._socket: Any = None
        self._input: Any = None
        try:
            with _refusals(job):
                self._id = client.api.create_container_from_config(create_arguments(job))["Id"]
                streams = {"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1}
                self._socket = client.api.attach_socket(self._id, params=streams)
                # docker-py hands out a reader; what is beneath it is written to.
                self._input = self._socket._sock  # noqa: SLF001 -- there is no other way to it
                self._input.settimeout(None)
                client.api.start(self._id)
        except BaseException:
            self._remove()
            raise
        self._frames = self._read()

    def send(self, line: bytes) -> None:
        """Write to its input; one that has ended is noticed when its output ends."""
        with suppress(OSError):
            self._input.sendall(line)

    def readline(self) -> bytes:
        """The next line of its output; without a line break, or empty, once it has ended."""
        while b"\n" not in self._rest:
            piece = next(self._frames, b"")
            if not piece:
                line, self._rest = self._rest, b""
                return line
            self._rest += piece
        line, _, self._rest = self._rest.partition(b"\n")
        return line + b"\n"

    def kill(self) -> None:
        """End it at once."""
        from docker.errors import APIError
        from requests.exceptions import RequestException

        with suppress(APIError, RequestException, OSError):
            self._client.api.kill(self._id)

    def close(self) -> Ending:
        """End it in good order, remove it, and say how it ended."""
        with suppress(OSError):
            self._input.shutdown(socket.SHUT_WR)
        try:
            return self._ending()
        finally:
            self._remove()

    def _ending(self) -> Ending:
        from docker.errors import APIError
        from requests.exceptions import RequestException

        try:
            try:
                self._client.api.wait(self._id, timeout=_SECONDS_TO_END)
            except RequestException:  # it takes longer
                self.kill()
                self._client.api.wait(self._id, timeout=_SECONDS_TO_END)
            state = self._client.api.inspect_container(self._id)["State"]
        except (APIError, RequestException):
            return Ending(None)
        status = state["ExitCode"]
        return Ending(-9 if status == _KILLED else status, bool(state.get("OOMKilled")))

    def _remove(self) -> None:
        from docker.errors import APIError
        from requests.exceptions import RequestException

        for each in (self._socket, self._input):
            if each is not None:
                with suppress(OSError):
                    each.close()
        with suppress(APIError, RequestException):
            if self._id:
                self._client.api.remove_container(self._id, force=True, v=True)
        self._client.close()

    def _read(self) -> Iterator[bytes]:
        """Pieces of standard output; what goes to standard error is handed on."""
        from docker.utils.socket import frames_iter

        try:
            for stream, piece in frames_iter(self._socket, tty=False):
                if stream == _STDOUT:
                    yield piece
                else:
                    self._errors(piece)
        except OSError:
            return


def sweep(client: Any, labels: dict[str, str], is_alive: Callable[[dict[str, str]], bool]) -> int:
    """Remove the containers that have these labels and whose owner is gone.

    Args:
        client: of the engine.
        labels: that ours have.
        is_alive: from all labels of a container to whether its owner is.

    Returns:
        How many were removed.
    """
    from docker.errors import APIError

    removed = 0
    wanted = [f"{name}={value}" for name, value in labels.items()]
    for found in client.api.containers(all=True, filters={"label": wanted}):
        if not is_alive(found["Labels"]):
            with suppress(APIError):  # another process sweeps too
                client.api.remove_container(found["Id"], force=True, v=True)
                removed += 1
    return removed


class _refusals:  # noqa: N801 -- used as a block, like contextlib's own
    """What the engine says when it will not, in words that one can act on."""

    def __init__(self, job: Job) -> None:
        self._job = job

    def __enter__(self) -> None:
        return None

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        from docker.errors import APIError, ImageNotFound

        if isinstance(error, ImageNotFound):
            raise ImageMissing(
                f"The engine has no image {self._job.image}.", "Pull, build or load it: recipe containers pull."
            ) from None
        if isinstance(error, APIError):
            raise refused(self._job, (error.explanation or str(error)).strip()) from None


def refused(job: Job, why: str) -> EngineRefused:
    """What an engine's refusal means, in words that one can act on."""
    if any(text in why for text in _NO_RUNTIME):
        return EngineRefused(f"The engine cannot give a container a GPU: {why}.", _TOOLKIT)
    if "no space left" in why:
        return EngineRefused(f"The engine's disk is full: {why}.", "Free some of it: docker system prune")
    return EngineRefused(f"The engine will not start {job.image}: {why}.")
