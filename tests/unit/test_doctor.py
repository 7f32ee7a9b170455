"""The probes of ``recipe doctor``, on texts and trees that such machines have."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import pytest

from recipe_engine.device_memory import gib
from recipe_engine.doctor.finding import Finding, ask_all
from recipe_engine.doctor.machine import (
    cards,
    driver_version,
    instructions,
    look_at_disk,
    look_at_gpu,
    look_at_memory,
)
from recipe_engine.doctor.services import scope
from recipe_engine.doctor.software import built_for, extras

GIB = 1 << 30
MEMINFO = "MemTotal:       16777216 kB\nMemFree:         1048576 kB\nMemAvailable:    8388608 kB\n"
DRIVER = """\
NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  550.90.07  Release Build  (dvs-builder@U16-I2-C04-35-3)
GCC version:  gcc version 12.2.0 (Debian 12.2.0-14)
"""


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_answers_come_in_the_order_of_the_questions() -> None:
    first, second = Finding("a", "ok", "x"), Finding("b", "ok", "y")
    assert ask_all({"a": lambda: [first], "b": lambda: [second, first]}, 5) == [first, second, first]


def test_a_probe_that_hangs_or_breaks_is_a_finding() -> None:
    never = threading.Event()

    def hangs() -> list[Finding]:
        never.wait()
        return []

    def breaks() -> list[Finding]:
        raise PermissionError(13, "Permission denied", "/proc/meminfo")

    found = ask_all({"disk": hangs, "memory": breaks, "cpu": lambda: [Finding("cpu", "ok", "x")]}, 0.2)
    never.set()
    assert [(finding.name, finding.state) for finding in found] == [
        ("disk", "unknown"),
        ("memory", "unknown"),
        ("cpu", "ok"),
    ]
    assert found[0].text == "no answer within 0.2 seconds"
    assert "PermissionError" in found[1].text


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["amx_tile", "amx_bf16", "avx2", "avx512f"], "AMX and AVX-512, computes in bfloat16"),
        (["avx", "avx2", "fma"], 'AVX2, no bfloat16 instructions: dtype = "auto" is float32'),
        (["asimd", "sve", "bf16"], "SVE, computes in bfloat16"),
        ([], 'no wide vectors, no bfloat16 instructions: dtype = "auto" is float32'),
    ],
)
def test_what_a_processor_can_do(flags: list[str], told: str) -> None:
    assert instructions(flags) == told


@pytest.mark.parametrize(
    ("group", "text", "state"),
    [
        ({}, "8.0 GiB free of 16.0 GiB", "ok"),
        ({"memory.max": "max\n", "memory.current": "5\n"}, "8.0 GiB free of 16.0 GiB", "ok"),
        (
            {"memory.max": str(6 * GIB), "memory.current": str(3 * GIB)},
            "3.0 GiB free of the control group's 6.0 GiB",
            "ok",
        ),
        (
            {"memory/memory.limit_in_bytes": str(2 * GIB), "memory/memory.usage_in_bytes": str(GIB)},
            "1.0 GiB free of the control group's 2.0 GiB",
            "warning",
        ),
    ],
)
def test_memory_ends_where_the_control_group_says(tmp_path: Path, group: dict[str, str], text: str, state: str) -> None:
    files = {f"sys/fs/cgroup/{name}": value for name, value in group.items()}
    (found,) = look_at_memory(write(tmp_path, {"proc/meminfo": MEMINFO, **files}))
    assert (found.text, found.state, bool(found.mend)) == (text, state, state != "ok")


def test_the_disk_is_that_of_a_registry_that_is_not_there_yet(tmp_path: Path) -> None:
    (found,) = look_at_disk(tmp_path / "not" / "yet")
    assert found.state in ("ok", "warning")
    assert not (tmp_path / "not").exists()


def test_a_machine_without_a_gpu_is_well(tmp_path: Path) -> None:
    (found,) = look_at_gpu(tmp_path)
    assert (found.state, found.text) == ("ok", "none, stages run on the processor")


def test_a_gpu_without_a_driver_is_told(tmp_path: Path) -> None:
    devices = "sys/bus/pci/devices/0000:01:00"
    root = write(tmp_path, {f"{devices}.0/vendor": "0x10de\n", f"{devices}.0/class": "0x030200\n"})
    (found,) = look_at_gpu(root)
    assert (found.state, found.text) == ("warning", "there is an NVIDIA GPU, but no NVIDIA driver")

    write(tmp_path, {f"{devices}.0/class": "0x040300\n"})  # the sound that a graphics card makes
    assert look_at_gpu(root)[0].state == "ok"


@pytest.mark.parametrize(
    ("answers", "state", "text"),
    [
        ("echo NVIDIA H100 80GB HBM3, 81559, 80995", "ok", "NVIDIA H100 80GB HBM3, 79.1 GiB free of 79.6 GiB"),
        ("echo Failed to initialize NVML; exit 18", "warning", "driver 550.90.07, but nvidia-smi fails: Failed"),
    ],
)
def test_a_gpu_with_its_driver(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answers: str, state: str, text: str
) -> None:
    program = write(tmp_path, {"bin/nvidia-smi": f"#!/bin/sh\n{answers}\n"}) / "bin" / "nvidia-smi"
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=os.pathsep)
    (found,) = look_at_gpu(write(tmp_path, {"proc/driver/nvidia/version": DRIVER}))
    assert found.state == state
    assert text in found.text


def test_what_the_driver_and_its_tool_say() -> None:
    assert driver_version(DRIVER) == "550.90.07"
    assert driver_version("something else") == "of an unknown version"
    assert cards("A, B, 1024, 512\nC, 2048, 2048\n") == ["A, B, 0.5 GiB free of 1.0 GiB", "C, 2.0 GiB free of 2.0 GiB"]
    assert gib(3 * GIB / 2) == "1.5 GiB"


@pytest.mark.parametrize(
    ("source", "cuda"),
    [
        ("__version__ = '2.13.0'\ncuda: Optional[str] = '12.8'\nhip: Optional[str] = None\n", "12.8"),
        ("__version__ = '2.13.0+cpu'\ncuda: Optional[str] = None\n", ""),
        ("debug = False\n", ""),
    ],
)
def test_what_torch_was_built_for(source: str, cuda: str) -> None:
    assert built_for(source) == cuda


def test_extras_are_read_from_the_metadata() -> None:
    declared = ["click>=8.1", "torch>=2.13; extra == 'run'", 's3fs>=1; extra == "s3"', "rich; extra == 'run'"]
    assert extras([*declared, "recipe-engine[run]; extra == 's3'"]) == {"run": ["torch", "rich"], "s3": ["s3fs"]}


@pytest.mark.parametrize(
    ("token", "told"),
    [
        ({"role": "write"}, "of me, it may write"),
        ({"role": "read"}, "of me, it may read"),
        ({}, "of me; the Hub does not say what it may do"),
        (
            {
                "role": "fineGrained",
                "fineGrained": {
                    "scoped": [
                        {"entity": {"type": "org", "name": "lab"}, "permissions": ["repo.content.read", "repo.write"]},
                        {"entity": {"type": "user", "name": "me"}, "permissions": ["repo.content.read"]},
                    ]
                },
            },
            "of me, it may write to lab (fine-grained)",
        ),
        ({"role": "fineGrained"}, "of me, it may write to nothing (fine-grained)"),
    ],
)
def test_what_a_token_may_do(token: dict[str, Any], told: str) -> None:
    assert scope({"name": "me", "auth": {"type": "access_token", "accessToken": token}}) == told
