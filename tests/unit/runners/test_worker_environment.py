"""What a worker sees of the environment that it is started in."""

from __future__ import annotations

import pytest

from recipe_engine.lock import Hardware
from recipe_engine.runners.process import worker_environment

CPU = Hardware("cpu", 3, ("avx2",))
GPU = Hardware("cuda", 3, ())


def test_threads_are_fixed_for_every_numeric_library() -> None:
    found = worker_environment({"OMP_NUM_THREADS": "64"}, CPU)

    assert {found[f"{library}_NUM_THREADS"] for library in ("OMP", "MKL", "OPENBLAS")} == {"3"}


@pytest.mark.parametrize("name", ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "AWS_SECRET_ACCESS_KEY", "WANDB_API_KEY"])
def test_no_secret_gets_in(name: str) -> None:
    assert name not in worker_environment({name: "x", "LANG": "C"}, CPU)


@pytest.mark.parametrize(
    ("hardware", "given", "seen"),
    [(CPU, "0,1", ""), (GPU, "2,3", "2"), (GPU, "GPU-8f5c", "GPU-8f5c"), (GPU, None, "0")],
)
def test_a_worker_sees_one_gpu_or_none(hardware: Hardware, given: str | None, seen: str) -> None:
    environment = {} if given is None else {"CUDA_VISIBLE_DEVICES": given}

    assert worker_environment(environment, hardware)["CUDA_VISIBLE_DEVICES"] == seen


def test_nothing_is_compiled_on_a_cpu() -> None:
    assert worker_environment({"TORCHDYNAMO_DISABLE": "0"}, CPU)["TORCHDYNAMO_DISABLE"] == "1"
    assert "TORCHDYNAMO_DISABLE" not in worker_environment({}, GPU)
