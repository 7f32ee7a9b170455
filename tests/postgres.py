"""A PostgreSQL server for tests: made for a session in a temporary folder, on a free port, and gone afterwards."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

INSTALL = "PostgreSQL is not installed: apt-get install postgresql"
USER = "recipe"


class PostgresServer:
    """A server that can be stopped and started again.

    Args:
        folder: of its own; empty.
    """

    def __init__(self, folder: Path) -> None:
        self._programs = _programs()
        self._folder = folder
        self._data = folder / "data"
        self._identity = _identity(folder)
        self.port = _free_port()
        self._call(
            "initdb", "-D", self._data, "-U", USER, "-A", "trust", "-E", "UTF8", "--no-sync", "--no-instructions"
        )

    def start(self) -> None:
        """Accept connections on loopback."""
        settings = {
            "port": self.port,
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": self._folder,
            "fsync": "off",
            "max_connections": 150,
        }
        options = " ".join(f"-c {name}={value}" for name, value in settings.items())
        self._call("pg_ctl", "start", "-w", "-D", self._data, "-l", self._folder / "log", "-o", options)

    def stop(self) -> None:
        """Break all connections off."""
        self._call("pg_ctl", "stop", "-w", "-m", "immediate", "-D", self._data)

    def url(self, database: str) -> str:
        """Of a database of this server."""
        return f"postgresql://{USER}@127.0.0.1:{self.port}/{database}"

    def new_database(self) -> str:
        """The URL of a new empty database."""
        name = f"test_{uuid.uuid4().hex}"
        self._call("createdb", "-h", "127.0.0.1", "-p", self.port, "-U", USER, name)
        return self.url(name)

    def _call(self, program: str, *arguments: object) -> None:
        command = [str(self._programs / program), *map(str, arguments)]
        # A server inherits the output of pg_ctl, so a pipe would stay open as long as it runs.
        with (self._folder.parent / f"{self._folder.name}.output").open("w+") as output:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=self._folder,
                check=False,
                **self._identity,
            )
            output.seek(0)
            assert done.returncode == 0, f"{program}: {output.read()}"


def _programs() -> Path:
    found = shutil.which("initdb")
    if found:
        return Path(found).resolve().parent
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not folders:
        pytest.fail(INSTALL, pytrace=False)
    return folders[-1].parent


def _identity(folder: Path) -> dict[str, Any]:
    """PostgreSQL refuses to be root: root lends the folder to another user."""
    if os.geteuid() != 0:
        return {}
    names = {entry.pw_name for entry in pwd.getpwall()}
    user = pwd.getpwnam("postgres" if "postgres" in names else "nobody")
    os.chown(folder, user.pw_uid, user.pw_gid)
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A running server; a test that stops it starts it again."""
    # pytest's own folders are closed to other users.
    with tempfile.TemporaryDirectory() as parent:
        Path(parent).chmod(0o755)
        folder = Path(parent, "postgres")
        folder.mkdir()
        server = PostgresServer(folder)
        server.start()
        try:
            yield server
        finally:
            server.stop()


@pytest.fixture
def database_url(postgres: PostgresServer) -> str:
    """A new empty database."""
    return postgres.new_database()
