"""Finding the engine: each way in which it is not there has its own words."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import pytest

from recipe_containers.client import connect, engine_url
from recipe_containers.errors import EngineUnavailable

pytestmark = pytest.mark.slow


def test_an_engine_answers(engine: Any) -> None:
    assert engine.ping()
    assert engine.version()["ApiVersion"]


def test_a_socket_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(EngineUnavailable, match=r"socket .*none.sock is not there\. Install Docker"):
        connect(f"unix://{tmp_path}/none.sock")


def test_a_socket_that_nobody_answers(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(f"{tmp_path}/dead.sock")
    with pytest.raises(EngineUnavailable, match=r"the engine is not running\. Start it"):
        connect(f"unix://{tmp_path}/dead.sock")


def test_a_socket_that_this_user_may_not_use(tmp_path: Path) -> None:
    path = tmp_path / "closed.sock"
    with socket.socket(socket.AF_UNIX) as closed:
        closed.bind(str(path))
        closed.listen()
        path.chmod(0)
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:  # root may use every socket, so somebody else asks
            os.seteuid(65534) if os.geteuid() == 0 else None
            try:
                connect(f"unix://{path}")
            except EngineUnavailable as error:
                os.write(writer, str(error).encode())
            os._exit(0)
        os.waitpid(child, 0)
        os.close(writer)
        with os.fdopen(reader) as told:
            assert "may not be used by this user. Join its group" in told.read()


def test_the_environment_names_the_engine(tmp_path: Path) -> None:
    assert engine_url({"DOCKER_HOST": "tcp://127.0.0.1:2375"}) == "tcp://127.0.0.1:2375"
    rootless = tmp_path / "docker.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(rootless))
        found = engine_url({"XDG_RUNTIME_DIR": str(tmp_path)})
    assert found in (f"unix://{rootless}", "unix:///var/run/docker.sock")
