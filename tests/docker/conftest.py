"""A real container engine for tests: the machine's own, or a dockerd that is started for them."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from recipe_containers.client import connect, engine_url
from recipe_containers.errors import EngineUnavailable

INSTALL = "There is no container engine to test with: apt-get install docker.io (or start yours)"
_SECONDS_TO_START = 60


@pytest.fixture(scope="session")
def engine_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where an engine listens that tests may use, as ``DOCKER_HOST`` has it."""
    try:
        connect().close()
        yield engine_url()
        return
    except EngineUnavailable:
        pass
    # The processes of one test session share an engine; who comes first starts it, who goes last stops it.
    shared = tmp_path_factory.getbasetemp().parent / "engine"
    shared.mkdir(exist_ok=True)
    with (shared / "users").open("w") as users:
        with _exclusive(shared / "start"):
            fcntl.flock(users, fcntl.LOCK_SH)
            if not (shared / "folder").exists():
                (shared / "folder").write_text(str(_start()), encoding="utf-8")
        folder = Path((shared / "folder").read_text(encoding="utf-8"))
        yield f"unix://{folder / 'socket'}"
        with _exclusive(shared / "start"):
            try:
                fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return
            (shared / "folder").unlink()
            _stop(folder)


@pytest.fixture
def engine(engine_address: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A client of the engine; commands that a test starts find the same one. Whatever a test leaves fails it."""
    monkeypatch.setenv("DOCKER_HOST", engine_address)
    with closing(connect(engine_address)) as client:
        before = _things(client)
        yield client
        assert _things(client) - before == set(), "the test left something in the engine"


def _things(client: Any) -> set[str]:
    containers = {f"container {each.name}" for each in client.containers.list(all=True, ignore_removed=True)}
    networks = {f"network {each.name}" for each in client.networks.list()}
    return containers | networks | {f"volume {each.name}" for each in client.volumes.list()}


def _exclusive(path: Path) -> Any:
    stream = path.open("w")
    fcntl.flock(stream, fcntl.LOCK_EX)
    return stream


def _start() -> Path:
    """Start dockerd; its folder."""
    if shutil.which("dockerd") is None or os.geteuid() != 0:
        pytest.fail(INSTALL, pytrace=False)
    # A short path: that of a socket has at most 107 bytes. In memory, where there is room for images.
    memory = Path("/dev/shm")
    roomy = memory.is_dir() and shutil.disk_usage(memory).free > 8 << 30
    folder = Path(tempfile.mkdtemp(prefix="engine-", dir=memory if roomy else None))
    command = [
        # A process of nobody: it outlives the test process that comes first.
        *("setsid", "--fork", "dockerd", "--host", f"unix://{folder / 'socket'}", "--pidfile", str(folder / "pid")),
        *("--data-root", str(folder / "data"), "--exec-root", str(folder / "exec")),
        # No test needs a network, and not every machine can make one.
        *("--bridge=none", "--iptables=false", "--ip-forward=false"),
    ]
    with (folder / "log").open("w") as log:
        subprocess.run(command, stdout=log, stderr=log, check=True)
    deadline = time.monotonic() + _SECONDS_TO_START
    while time.monotonic() < deadline:
        try:
            connect(f"unix://{folder / 'socket'}").close()
            return folder
        except EngineUnavailable:
            time.sleep(0.1)
    pytest.fail(f"dockerd did not start:\n{(folder / 'log').read_text(encoding='utf-8')[-2000:]}", pytrace=False)


def _stop(folder: Path) -> None:
    pid = int((folder / "pid").read_text(encoding="utf-8"))
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + _SECONDS_TO_START
    while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    shutil.rmtree(folder, ignore_errors=True)
