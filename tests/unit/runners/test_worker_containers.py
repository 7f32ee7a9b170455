"""What the container of a worker is made with, and what is said when one ends: no engine is asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest

from recipe_containers.arguments import create_arguments
from recipe_containers.container import Container, Ending
from recipe_engine.lock import Hardware
from recipe_engine.model import StageContainer
from recipe_engine.runners.base import WorkerRequest
from recipe_engine.runners.container import ContainerHandle, worker_job

IMAGE = "sha256:" + "0" * 64
CPU, GPU = Hardware("cpu", 1, ()), Hardware("cuda", 1, ())


def request(hardware: Hardware = CPU, estimate: int = 0, **table: Any) -> WorkerRequest:
    return WorkerRequest(
        hardware=hardware,
        log=Path("/log"),
        home=Path("/home"),
        writable=(Path("/out"),),
        container=StageContainer(image=IMAGE, **table),
        expected=lambda: estimate,
    )


ODD = 'GPU-$(touch pwned) "x",\n'


@pytest.mark.parametrize(
    ("hardware", "gpus", "asked"),
    [
        (CPU, None, None),
        (CPU, "all", None),
        (GPU, None, (-1, [])),
        (GPU, "all", (-1, [])),
        (GPU, "none", None),
        (GPU, ("0", "2"), (0, ["0", "2"])),
        (GPU, (ODD,), (0, [ODD])),
    ],
)
def test_gpus_are_asked_for_where_the_model_lives_on_one(
    hardware: Hardware, gpus: Any, asked: tuple[int, list[str]] | None
) -> None:
    found = create_arguments(worker_job(request(hardware, gpus=gpus)))["HostConfig"]["DeviceRequests"]
    assert [(each["Count"], each["DeviceIDs"]) for each in found] == ([asked] if asked else [])


class Ended:
    """A container that has ended."""

    def __init__(self, ending: Ending) -> None:
        self.close = lambda: ending


@pytest.mark.parametrize(
    ("ending", "estimate", "told"),
    [
        (Ending(-9, out_of_memory=True), 3 << 29, "container.memory is 1GiB, and the estimate was 1.5 GiB."),
        (Ending(-9, out_of_memory=True), 0, "container.memory is 1GiB."),
        (Ending(None), 0, "the engine ended, or somebody removed it."),
        (Ending(-9), 0, "most likely because the memory was used up."),
        (Ending(3), 0, "The worker ended with status 3."),
    ],
)
def test_why_a_container_ended(ending: Ending, estimate: int, told: str) -> None:
    handle = ContainerHandle(cast("Container", Ended(ending)), request(estimate=estimate, memory="1GiB"))
    assert handle.death().message.endswith(told)
