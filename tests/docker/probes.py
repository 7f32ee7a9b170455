"""A plugin of evaluations that look around, and that try what they may not.

The tests install its text into a folder of their own (:func:`tests.e2e.engine.write_plugin`).
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recipe_engine.contract import StageRequest, StageResult
from recipe_engine.descriptors import Method
from recipe_engine.hookmark import hookimpl

SECONDS = 2
# TEST-NET-1: an address that belongs to nobody (RFC 5737).
FAR_AWAY = ("192.0.2.1", 80)


@dataclass(frozen=True)
class Options:
    """None."""


class Probe:
    def restore(self, request: StageRequest, artifact: Path) -> None:
        del request, artifact


class Surroundings(Probe):
    def run(self, request: StageRequest) -> StageResult:
        del request
        status = Path("/proc/self/status").read_text()
        return StageResult(
            facts={
                "capabilities": re.findall(r"^Cap\w+:\s+(\w+)$", status, re.MULTILINE),
                "no_new_privileges": re.findall(r"^NoNewPrivs:\s+(\d)$", status, re.MULTILINE)[0],
                "uid": os.getuid(),
                "gid": os.getgid(),
                "interfaces": sorted(name for _, name in socket.if_nameindex()),
                "writable": [
                    place for place in ("/", "/dev/shm", "/etc", "/opt", "/tmp", "/var") if is_writable(place)
                ],
                "processes": limit("pids/pids.max", "pids.max"),
                "memory": limit("memory/memory.limit_in_bytes", "memory.max"),
                "secrets": [name for name, value in os.environ.items() if "secretprobe" in value],
                "engine": Path("/var/run/docker.sock").exists(),
                "network": connect(),
            }
        )


class Writer(Probe):
    def run(self, request: StageRequest) -> StageResult:
        (request.output.parents[2] / "artifacts" / "mine").write_text("x")
        return StageResult()


class Caller(Probe):
    def run(self, request: StageRequest) -> StageResult:
        del request
        socket.create_connection(FAR_AWAY, SECONDS)
        return StageResult()


class Bomb(Probe):
    def run(self, request: StageRequest) -> StageResult:
        del request
        while True:
            os.posix_spawn("/bin/sleep", ["sleep", "60"], {})


class Glutton(Probe):
    def run(self, request: StageRequest) -> StageResult:
        del request
        kept = []
        while True:
            kept.append(bytearray(b"x") * (64 << 20))


def is_writable(folder: str) -> bool:
    try:
        file = Path(folder, "probe")
        file.touch()
        file.unlink()
    except OSError:
        return False
    return True


def limit(first: str, second: str) -> str:
    """A limit of the control group, by the names of its version 1 and 2."""
    for path in (Path("/sys/fs/cgroup", first), Path("/sys/fs/cgroup", second)):
        if path.exists():
            return path.read_text().strip()
    return ""


def connect() -> str:
    try:
        socket.create_connection(FAR_AWAY, SECONDS).close()
    except OSError as error:
        return str(error.strerror)
    return ""


@hookimpl
def recipe_evaluate_methods() -> Iterator[Any]:
    for kind in (Surroundings, Writer, Caller, Bomb, Glutton):
        yield Method(
            name=kind.__name__.lower(),
            summary="A probe",
            options=Options,
            implementation=f"probes:{kind.__name__}",
            data=lambda _options: {"eval": "eval"},
        )
