"""A dockerd of our own, for tests and benchmarks on machines where no engine runs."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from contextlib import closing
from pathlib import Path

import pytest

from recipe_containers.client import connect
from recipe_containers.errors import EngineUnavailable

INSTALL = "There is no container engine to test with: apt-get install docker.io (or start yours)"
_SECONDS_TO_START = 60


def address(folder: Path) -> str:
    """Where the dockerd of a folder listens."""
    return f"unix://{folder / 'socket'}"


def make_folder() -> Path:
    """A folder for a dockerd, in memory where there is room; its path is short, as a socket's has at most 107 bytes."""
    memory = Path("/dev/shm")
    roomy = memory.is_dir() and shutil.disk_usage(memory).free > 8 << 30
    return Path(tempfile.mkdtemp(prefix="engine-", dir=memory if roomy else None))


def start(folder: Path) -> None:
    """Start dockerd in a folder, or start it again."""
    if shutil.which("dockerd") is None or os.geteuid() != 0:
        pytest.fail(INSTALL, pytrace=False)
    command = [
        # A process of nobody: it outlives the test process that comes first.
        *("setsid", "--fork", "dockerd", "--host", address(folder), "--pidfile", str(folder / "pid")),
        *("--data-root", str(folder / "data"), "--exec-root", str(folder / "exec")),
        # No test needs a network, and not every machine can make one.
        *("--bridge=none", "--iptables=false", "--ip-forward=false"),
    ]
    with (folder / "log").open("a") as log:
        subprocess.run(command, stdout=log, stderr=log, check=True)
    deadline = time.monotonic() + _SECONDS_TO_START
    while time.monotonic() < deadline:
        try:
            connect(address(folder)).close()
        except EngineUnavailable:
            time.sleep(0.1)
        else:
            return
    pytest.fail(f"dockerd did not start:\n{(folder / 'log').read_text(encoding='utf-8')[-2000:]}", pytrace=False)


def kill(folder: Path) -> None:
    """End it at once; what it runs is told nothing."""
    pid = int((folder / "pid").read_text(encoding="utf-8"))
    os.kill(pid, signal.SIGKILL)
    _wait_until_gone(pid)


def stop(folder: Path) -> None:
    """End it and remove its folder; fail where somebody left something in it that is no image."""
    left = leftovers(address(folder))
    pid = int((folder / "pid").read_text(encoding="utf-8"))
    os.kill(pid, signal.SIGTERM)
    _wait_until_gone(pid)
    # Each dockerd mounts its folder onto itself, and one that is killed leaves that behind.
    while subprocess.run(["umount", "--quiet", str(folder / "data")], check=False).returncode == 0:
        pass
    shutil.rmtree(folder)
    assert left == [], "containers, networks or volumes were left"


def leftovers(url: str) -> list[str]:
    """Containers, networks and volumes of an engine, without those networks that each has."""
    with closing(connect(url)) as client:
        containers = [f"container {found.name}" for found in client.containers.list(all=True, ignore_removed=True)]
        names = {network.name for network in client.networks.list()} - {"bridge", "host", "none"}
        volumes = [f"volume {volume.name}" for volume in client.volumes.list()]
    return [*containers, *(f"network {name}" for name in sorted(names)), *volumes]


def _wait_until_gone(pid: int) -> None:
    deadline = time.monotonic() + _SECONDS_TO_START
    while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
