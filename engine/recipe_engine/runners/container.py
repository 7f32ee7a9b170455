"""Runner ``container``: the worker is a process in a pinned image, with no network and nothing but its mounts."""

from __future__ import annotations

import json
import os
import shlex
import stat
from functools import partial
from importlib.metadata import Distribution, distribution
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recipe_containers import ContainerError
from recipe_containers.arguments import SHARED_MEMORY, Job, Limits, Mount
from recipe_engine.device_memory import gib
from recipe_engine.errors import RecipeError, StageFailed, UnfitEnvironment
from recipe_engine.images import bring_image
from recipe_engine.plugins import BUILTIN
from recipe_engine.runners.failures import LESS_MEMORY
from recipe_engine.runners.process import worker_environment
from recipe_registry import Registry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from recipe_containers.container import Container
    from recipe_engine.plugins import PluginInfo
    from recipe_engine.runners.base import WorkerRequest

CODE = Path("/opt/recipe/code")
"""Where the engine and plugins are mounted."""
HOME_LABEL, OUTPUT_LABEL = "recipe-engine.home", "recipe-engine.output"
# An owner of its own for what root's containers write; others write as themselves.
_NOBODY = 65532
_ROOMS = ("recipe_engine", "recipe_registry", "recipe_containers")
# The image's own variables stay as they are, PYTHONPATH among them.
_START = (
    f"import runpy, sys; sys.path.insert(0, {str(CODE)!r}); "
    "runpy.run_module('recipe_engine.runners.worker', run_name='__main__', alter_sys=True)"
)


class ContainerRunner:
    """Starts the worker in the container of the request."""

    def start(self, request: WorkerRequest, progress: Callable[[int, int], None]) -> ContainerHandle:
        """See ``WorkerRunner.start``."""
        from recipe_containers.client import connect
        from recipe_containers.container import Container, sweep

        job = worker_job(request)
        bring_image(job.image, request.image.content if request.image else "", progress)
        registry = Registry.open(request.home)
        (request.home / "artifacts").mkdir(exist_ok=True)  # a mount needs its source
        _check_readable(request.readable)
        _lend(request.writable, job.user)
        try:
            client = connect()
            # What is left of a killed run must not go on writing into a work area that this run takes up.
            ours = {HOME_LABEL: str(request.home)}
            sweep(client, ours, lambda labels: registry.artifacts.is_staged(Path(labels[OUTPUT_LABEL])))
            return ContainerHandle(Container(client, job, partial(_append, request.log)), request)
        except ContainerError as error:
            raise UnfitEnvironment(error.message, error.hint) from None


class ContainerHandle:
    """A worker in a container."""

    def __init__(self, container: Container, request: WorkerRequest) -> None:
        self._container = container
        self._request = request

    def send(self, message: Mapping[str, Any]) -> None:
        """See ``WorkerHandle.send``."""
        self._container.send(json.dumps(message).encode() + b"\n")

    def receive(self) -> dict[str, Any] | None:
        """See ``WorkerHandle.receive``."""
        line = self._container.readline()
        return json.loads(line) if line.endswith(b"\n") else None

    def stop(self) -> None:
        """See ``WorkerHandle.stop``."""
        self.send({"type": "stop"})

    def kill(self) -> None:
        """See ``WorkerHandle.kill``."""
        self._container.kill()

    def reaches(self, paths: Iterable[Path]) -> bool:
        """See ``WorkerHandle.reaches``."""
        return all(path in self._request.writable for path in paths)

    def close(self) -> None:
        """See ``WorkerHandle.close``."""
        self._container.close()

    def death(self) -> RecipeError:
        """See ``WorkerHandle.death``."""
        ending = self._container.close()
        limit = self._request.container.memory if self._request.container else None
        if ending.out_of_memory and limit:
            estimated = self._request.expected()
            expected = f", and the estimate was {gib(estimated)}" if estimated else ""
            return StageFailed(
                f"The container used up its memory: container.memory is {limit}{expected}.",
                f"Raise it. {LESS_MEMORY}",
            )
        if ending.status is None:
            return StageFailed(
                "The container is gone: the engine ended, or somebody removed it.",
                "Run the recipe again: it goes on from the last checkpoint.",
            )
        if ending.status == -9:
            return StageFailed("The container was killed, most likely because the memory was used up.", LESS_MEMORY)
        return StageFailed(f"The worker ended with status {ending.status}.", f"See {self._request.log}.")


def worker_job(request: WorkerRequest) -> Job:
    """The container of a worker, as far as it is known before it is started.

    The machine's paths are the container's too, so messages and requests mean the same on both sides; no path enters
    an artifact.
    """
    table = request.container
    assert table is not None and table.image is not None  # noqa: PT018 -- validation saw to it
    gpus = table.gpus if table.gpus is not None else "all"
    chosen = () if gpus == "none" or request.hardware.device != "cuda" else ("all",) if gpus == "all" else tuple(gpus)
    mounts = [
        *_code(request.plugins),
        *(Mount(path, Path(os.path.realpath(path))) for path in request.readable),
        *(Mount(path, path, writable=True) for path in request.writable),
    ]
    return Job(
        image=table.image,
        command=("python3", "-P", "-c", _START),
        environment=_environment(request),
        folder=Path.cwd(),
        mounts=mounts,
        user=container_user(),
        labels={HOME_LABEL: str(request.home), OUTPUT_LABEL: str(request.writable[0])},
        limits=Limits(
            gpus=chosen,
            memory=table.memory or "",
            shm=table.shm or SHARED_MEMORY,
            cpus=table.cpus or 0,
        ),
    )


def container_user() -> str:
    """``uid:gid`` of the worker: this user's, whose files it writes; root's containers are nobody's."""
    return f"{os.geteuid()}:{os.getegid()}" if os.geteuid() else f"{_NOBODY}:{_NOBODY}"


def _environment(request: WorkerRequest) -> dict[str, str]:
    return worker_environment({}, request.hardware) | {
        "HOME": "/tmp",  # noqa: S108 -- the container's own
        "LANG": "C.UTF-8",
        "PYTHONDONTWRITEBYTECODE": "1",
        # Libraries ask for the name of the user, who is unknown to the image.
        "USER": "recipe",
        "LOGNAME": "recipe",
    }


def _code(plugins: Sequence[PluginInfo]) -> Iterator[Mount]:
    """The engine, and the packages of plugins with what tells that they are installed."""
    for room in _ROOMS:
        folder = _package_folder(room)
        yield Mount(CODE / room, folder)
    packages = {plugin.distribution for plugin in plugins if plugin.version and not plugin.error}
    for name in sorted(packages - {BUILTIN}):
        yield from _distribution(distribution(name))


def _distribution(found: Distribution) -> Iterator[Mount]:
    for package in sorted({entry.module.partition(".")[0] for entry in found.entry_points}):
        folder = _package_folder(package)
        yield Mount(CODE / folder.name, folder)
    places = Path(str(found.locate_file(""))).glob("*.dist-info")
    information = next(place for place in places if Distribution.at(place).name == found.name)
    yield Mount(CODE / information.name, information)


def _package_folder(package: str) -> Path:
    spec = find_spec(package)
    assert spec is not None and spec.origin is not None  # noqa: PT018 -- it was imported
    origin = Path(spec.origin)
    return origin.parent if spec.submodule_search_locations else origin


def _append(log: Path, piece: bytes) -> None:
    with log.open("ab") as stream:
        stream.write(piece)


def _check_readable(files: Iterable[Path]) -> None:
    """Whether the container of root, which is not root's, may read what root gives it.

    Raises:
        UnfitEnvironment: for the first file that it may not.
    """
    for file in files:
        if os.geteuid() == 0 and not file.stat().st_mode & stat.S_IROTH:
            raise UnfitEnvironment(
                f"{file} cannot be read in the container, which does not run as root.",
                f"Let others read it: chmod a+r {shlex.quote(str(file))}",
            )


def _lend(folders: Iterable[Path], user: str) -> None:
    """Let the container's user write: root's folders are lent to it, whole."""
    if os.geteuid():
        return
    owner = int(user.partition(":")[0])
    for folder in folders:
        for path in (folder, *folder.rglob("*")):
            os.chown(path, owner, owner, follow_symlinks=False)
