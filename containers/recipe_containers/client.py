"""The way to the container engine: Docker's, or Podman's which speaks the same protocol."""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recipe_containers.errors import EngineUnavailable

if TYPE_CHECKING:
    from collections.abc import Mapping

_UNIX = "unix://"
_SECONDS = 60
_INSTALL = "Install Docker (apt-get install docker.io) or Podman, or name the engine's socket in DOCKER_HOST."
_MENDS = {
    errno.ENOENT: ("is not there", _INSTALL),
    errno.ECONNREFUSED: ("is not answered: the engine is not running", "Start it: sudo systemctl start docker"),
    errno.EACCES: (
        "may not be used by this user",
        'Join its group, then log in again: sudo usermod --append --groups docker "$USER"',
    ),
}


def engine_url(environment: Mapping[str, str] = os.environ) -> str:
    """Where the engine listens: ``DOCKER_HOST``, or the first usual socket that exists.

    Sources: Docker, "Protect the Docker daemon socket" and "Rootless mode"; podman-system-service(1).
    """
    if environment.get("DOCKER_HOST"):
        return environment["DOCKER_HOST"]
    runtime = environment.get("XDG_RUNTIME_DIR", f"/run/user/{os.getuid()}")
    usual = Path("/var/run/docker.sock")
    sockets = (
        usual,
        Path(runtime, "docker.sock"),
        Path(runtime, "podman/podman.sock"),
        Path("/run/podman/podman.sock"),
    )
    return _UNIX + str(next((path for path in sockets if _exists(path)), usual))


def connect(url: str | None = None) -> Any:
    """A ``docker.DockerClient`` that has been answered once. Close it.

    Args:
        url: of the engine; by default :func:`engine_url`.

    Raises:
        EngineUnavailable: there is none, it does not answer, or this user may not speak to it.
    """
    url = url or engine_url()
    if url.startswith(_UNIX):
        _check_socket(url.removeprefix(_UNIX))
    try:
        import docker
    except ImportError:
        raise EngineUnavailable(
            "The package docker is not installed.", 'Install it: pip install "recipe-engine[docker]"'
        ) from None
    from docker.errors import DockerException

    tls: Any = docker.tls.TLSConfig(verify=True) if os.environ.get("DOCKER_TLS_VERIFY") else False
    try:
        return docker.DockerClient(base_url=url, version="auto", timeout=_SECONDS, tls=tls)
    except DockerException as error:
        raise EngineUnavailable(f"The container engine at {url} cannot be used: {error}.", _INSTALL) from None


def _check_socket(path: str) -> None:
    """docker-py tells of a missing socket, a dead engine and a missing permission in one and the same words."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(_SECONDS)
        try:
            probe.connect(path)
        except OSError as error:
            what, hint = _MENDS.get(error.errno or 0, (f"cannot be used ({error})", _INSTALL))
            raise EngineUnavailable(f"The container engine's socket {path} {what}.", hint) from None


def _exists(path: Path) -> bool:
    try:
        return path.is_socket()
    except OSError:
        return False
