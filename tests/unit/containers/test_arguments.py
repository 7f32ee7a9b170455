"""What an engine is asked for, without one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from recipe_containers.arguments import Job, Limits, Mount, create_arguments, size_of
from recipe_containers.errors import EngineRefused

ODD = "/a:b $(touch pwned) \"q\" 'r' \\ \n;é"


def job(**changes: Any) -> Job:
    given: dict[str, Any] = {
        "image": "sha256:" + "0" * 64,
        "command": ("python3", "-c", ODD),
        "environment": {"B": "2", "A": ODD},
        "folder": Path("/work"),
        "mounts": (Mount(Path(ODD), Path(ODD)), Mount(Path("/out"), Path("/host/out"), writable=True)),
        "user": "1000:1000",
    }
    return Job(**(given | changes))


def test_a_value_is_one_field_whatever_it_holds() -> None:
    asked = create_arguments(job())
    assert asked["Cmd"] == ["python3", "-c", ODD]
    assert asked["Env"] == [f"A={ODD}", "B=2"]
    first, second = asked["HostConfig"]["Mounts"]
    assert (first["Source"], first["Target"], first["ReadOnly"]) == (ODD, ODD, True)
    assert (second["Source"], second["Target"], second["ReadOnly"]) == ("/host/out", "/out", False)
    assert "Binds" not in asked["HostConfig"]


def test_nothing_that_was_not_asked_for() -> None:
    host = create_arguments(job())["HostConfig"]
    assert (host["NetworkMode"], host["ReadonlyRootfs"], host["CapDrop"]) == ("none", True, ["ALL"])
    assert (host["SecurityOpt"], host["PidsLimit"], host["DeviceRequests"]) == (["no-new-privileges"], 1024, [])
    assert (host["Memory"], host["MemorySwap"], host["NanoCpus"], host["ShmSize"]) == (0, 0, 0, 1 << 30)


def test_limits() -> None:
    host = create_arguments(job(limits=Limits(memory="24GiB", shm="512MiB", cpus=1.5)))["HostConfig"]
    assert (host["Memory"], host["MemorySwap"]) == (24 << 30, 24 << 30)
    assert (host["ShmSize"], host["NanoCpus"]) == (512 << 20, 1_500_000_000)


@pytest.mark.parametrize(
    ("gpus", "count", "devices"),
    [(("all",), -1, []), (("0",), 0, ["0"]), (("0", "GPU-5f3c"), 0, ["0", "GPU-5f3c"])],
)
def test_gpus(gpus: tuple[str, ...], count: int, devices: list[str]) -> None:
    (request,) = create_arguments(job(limits=Limits(gpus=gpus)))["HostConfig"]["DeviceRequests"]
    assert request == {
        "Driver": "nvidia",
        "Count": count,
        "DeviceIDs": devices,
        "Capabilities": [["gpu"]],
        "Options": {},
    }


@pytest.mark.parametrize(("text", "size"), [("1KiB", 1024), ("3MiB", 3 << 20), ("2GiB", 2 << 30), ("1TiB", 1 << 40)])
def test_sizes(text: str, size: int) -> None:
    assert size_of(text) == size


@pytest.mark.parametrize(
    ("why", "told"),
    [
        ('could not select device driver "nvidia" with capabilities: [[gpu]]', "Install the NVIDIA Container Toolkit"),
        ("unknown or invalid runtime name: nvidia", "Install the NVIDIA Container Toolkit"),
        ("mkdir /var/lib/docker/x: no space left on device", "docker system prune"),
        ("something else", "something else"),
    ],
)
def test_a_refusal_says_what_to_do(why: str, told: str) -> None:
    from recipe_containers.container import refused

    error = refused(job(), why)
    assert isinstance(error, EngineRefused)
    assert why in error.message
    assert told in str(error)
