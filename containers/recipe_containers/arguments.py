"""The exact arguments of a container, in the Engine API's own words, made without an engine."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

MAX_PROCESSES = 1024
"""Processes and threads of one container; a fork bomb ends here."""
_UNITS = {"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}
SHARED_MEMORY = "1GiB"
"""What processes of a container share where nobody says otherwise; the engine's 64 MiB are few for data loaders."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What of the machine a container gets.

    Attributes:
        gpus: ``all``, indexes or UUIDs; empty for none.
        memory: such as ``24GiB``; ``""`` for all of it.
        shm: size of the memory that its processes share.
        cpus: processor time in cores; 0 for all of it.
    """

    gpus: tuple[str, ...] = ()
    memory: str = ""
    shm: str = SHARED_MEMORY
    cpus: float = 0


@dataclass(frozen=True, slots=True)
class Mount:
    """A file or folder of the machine as the container sees it.

    Attributes:
        target: absolute path in the container.
        source: absolute path on the machine.
    """

    target: Path
    source: Path
    writable: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A command in an image.

    Attributes:
        image: as the engine finds it: ``name@sha256:…`` or an ID.
        command: program and arguments.
        environment: variables, beside those of the image.
        folder: absolute path that relative ones begin at.
        mounts: all that it sees of the machine.
        user: ``uid:gid``, never root's.
        labels: to find it again.
        limits: what it gets.
    """

    image: str
    command: Sequence[str]
    environment: Mapping[str, str]
    folder: Path
    mounts: Sequence[Mount]
    user: str
    labels: Mapping[str, str] = field(default_factory=dict)
    limits: Limits = Limits()


def create_arguments(job: Job) -> dict[str, Any]:
    """The body of ``POST /containers/create`` (Docker Engine API 1.41).

    No network, a read-only root, no capability, no new privileges, no root, bounded processes. Paths are fields of
    their own, so that none of them can be read as anything else.
    """
    limits = job.limits
    memory = size_of(limits.memory) if limits.memory else 0
    return {
        "Image": job.image,
        "Entrypoint": [],
        "Cmd": list(job.command),
        "Env": [f"{name}={value}" for name, value in sorted(job.environment.items())],
        "User": job.user,
        "WorkingDir": str(job.folder),
        "Labels": dict(job.labels),
        "NetworkDisabled": True,
        "Tty": False,
        # The engine closes its input when the one who started it is gone, and so the worker ends.
        "OpenStdin": True,
        "StdinOnce": True,
        "AttachStdin": True,
        "AttachStdout": True,
        "AttachStderr": True,
        "HostConfig": {
            "NetworkMode": "none",
            "ReadonlyRootfs": True,
            "CapDrop": ["ALL"],
            "SecurityOpt": ["no-new-privileges"],
            "PidsLimit": MAX_PROCESSES,
            "Memory": memory,
            "MemorySwap": memory,
            "NanoCpus": round(limits.cpus * 1e9),
            "ShmSize": size_of(limits.shm),
            "IpcMode": "private",
            "Tmpfs": {"/tmp": "rw,nosuid,nodev,mode=1777"},  # noqa: S108 -- the container's own
            "LogConfig": {"Type": "none"},
            "Mounts": [_mount(mount) for mount in job.mounts],
            "DeviceRequests": [_gpus(limits.gpus)] if limits.gpus else [],
        },
    }


def size_of(text: str) -> int:
    """Bytes of a size such as ``24GiB``."""
    return int(text[:-3]) * _UNITS[text[-3:]]


def _mount(mount: Mount) -> dict[str, Any]:
    return {
        "Type": "bind",
        "Source": str(mount.source),
        "Target": str(mount.target),
        "ReadOnly": not mount.writable,
        "BindOptions": {"Propagation": "rprivate"},
    }


def _gpus(gpus: tuple[str, ...]) -> dict[str, Any]:
    every = gpus == ("all",)
    return {
        "Driver": "nvidia",
        "Count": -1 if every else 0,
        "DeviceIDs": [] if every else list(gpus),
        "Capabilities": [["gpu"]],
        "Options": {},
    }
