"""When a training ends and which of its steps is the result, however often it is killed on the way."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from tests import tiny
from tests.unit.training.training_jobs import Fragile, Killed, prepared_data, sft

from recipe_engine.errors import Interrupted
from recipe_engine.training.watch import Progress

if TYPE_CHECKING:
    from recipe_engine.contract import StageResult

# A rate at which the loss on other rows rises again long before the last step.
JOB: dict[str, Any] = {
    "epochs": 10,
    "eval_steps": 1,
    "checkpoint_steps": 3,
    "learning_rate": 0.08,
    "schedule": "constant",
}
PATIENT = JOB | {"early_stopping_patience": 2, "keep_best": True}


@pytest.fixture(scope="module")
def data(llama: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return prepared_data(tmp_path_factory.mktemp("data"), llama)


@pytest.fixture(scope="module")
def whole(llama: Path, data: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[StageResult, Path]:
    """The training that nothing happened to."""
    return sft(tmp_path_factory.mktemp("whole"), llama, data, **PATIENT)


def eval_losses(result: StageResult) -> dict[int, float]:
    return {int(entry["step"]): entry["eval_loss"] for entry in result.facts["trace"]}


def test_losses_by_hand() -> None:
    progress = Progress()
    found = [progress.add(step, loss, 0.1) for step, loss in enumerate([3.0, 2.95, 2.8, 2.75, 2.72, 3.0], 1)]
    assert found == [True, True, True, True, True, False]
    # 2.95 is no lower than 3.0 by more than 0.1; 2.8 is, and nothing after it is lower than 2.7.
    assert progress == Progress(best_step=5, best_loss=2.72, lasting_loss=2.8, fruitless=3)


def test_the_best_step_is_the_result(
    tmp_path: Path, llama: Path, data: dict[str, Path], whole: tuple[StageResult, Path]
) -> None:
    losses = eval_losses(whole[0])
    best = min(losses, key=lambda step: losses[step])
    assert max(losses) == best + 2 < 30, "it ends after two evaluations that were no better"
    assert whole[0].metrics == {
        "loss": whole[0].facts["trace"][best - 1]["loss"],
        "step": best,
        "eval_loss": losses[best],
    }
    # A training that ends at that step by itself leaves the same weights: its schedule is constant.
    until, folder = sft(tmp_path, llama, data, **JOB, max_steps=best)
    assert eval_losses(until)[best] == losses[best]
    assert tiny.folder_digests(folder) == tiny.folder_digests(whole[1])


def test_without_keep_best_the_last_step_is_the_result(
    tmp_path: Path, llama: Path, data: dict[str, Path], whole: tuple[StageResult, Path]
) -> None:
    found, folder = sft(tmp_path, llama, data, **PATIENT | {"keep_best": False})
    assert found.facts["trace"] == whole[0].facts["trace"]
    assert found.metrics == {"loss": found.facts["trace"][-1]["loss"]}
    assert tiny.folder_digests(folder) != tiny.folder_digests(whole[1])


@pytest.mark.parametrize("step", [1, 2, 3])
@pytest.mark.parametrize("way", ["stopped", "killed"])
def test_gone_on(
    way: str, step: int, tmp_path: Path, llama: Path, data: dict[str, Path], whole: tuple[StageResult, Path]
) -> None:
    reporter = tiny.Recorder(stop_after=step) if way == "stopped" else Fragile(step)
    with pytest.raises(Interrupted if way == "stopped" else Killed):
        sft(tmp_path, llama, data, reporter=reporter, **PATIENT)
    again = sft(tmp_path, llama, data, **PATIENT)
    assert again[0].facts["trace"] == whole[0].facts["trace"]
    assert again[0].metrics == whole[0].metrics
    assert tiny.folder_digests(again[1]) == tiny.folder_digests(whole[1])


def test_a_stop_in_the_step_that_ends_it_comes_too_late(
    tmp_path: Path, llama: Path, data: dict[str, Path], whole: tuple[StageResult, Path]
) -> None:
    last = int(whole[0].facts["trace"][-1]["step"])
    reporter = tiny.Recorder(stop_after=last)
    found, folder = sft(tmp_path, llama, data, reporter=reporter, **PATIENT)
    assert found.metrics == whole[0].metrics
    assert reporter.messages == [f"the evaluation loss has not fallen 2 times: the training ends after step {last}"]
    assert tiny.folder_digests(folder) == tiny.folder_digests(whole[1])


def test_a_damaged_best_checkpoint_is_made_again(
    tmp_path: Path, llama: Path, data: dict[str, Path], whole: tuple[StageResult, Path]
) -> None:
    best = int(whole[0].metrics["step"])
    with pytest.raises(Interrupted):
        sft(tmp_path, llama, data, reporter=tiny.Recorder(stop_after=best + 1), **PATIENT)
    damaged = tmp_path / "work-train" / f"step-{best:08d}" / "trainable.safetensors"
    damaged.chmod(0o644)
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"?")
    again = tiny.Recorder()
    found, folder = sft(tmp_path, llama, data, reporter=again, **PATIENT)
    assert again.logged[0][0] <= best
    assert found.metrics == whole[0].metrics
    assert tiny.folder_digests(folder) == tiny.folder_digests(whole[1])


MIXED: dict[str, Any] = {"epochs": 3, "loss_on": "all", "micro_batch_size": 2, "checkpoint_steps": 2}


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_mixed_precision_is_near_full_precision_and_leaves_no_trace(
    precision: str, tmp_path: Path, llama: Path, data: dict[str, Path]
) -> None:
    """Half precision with a scaled loss works on a CPU too; the recipe asks for a GPU, where it is fast."""
    model = tiny.adapted_model(tmp_path, llama, dropout=0.1)
    before = tiny.model_state(model)
    mixed, _ = sft(tmp_path / "mixed", llama, data, model=model, mixed_precision=precision, **MIXED)
    exact, _ = sft(tmp_path / "exact", llama, data, **MIXED)
    (one, *_, last), (other, *_, exact_last) = mixed.facts["trace"], exact.facts["trace"]
    assert one["loss"] == pytest.approx(other["loss"], abs=0.01)
    assert one["loss"] != other["loss"]
    assert one["grad_norm"] == pytest.approx(other["grad_norm"], rel=0.05), "not that of a scaled loss"
    assert last["loss"] == pytest.approx(exact_last["loss"], abs=0.5)
    after = tiny.model_state(model)
    for part in ("modes", "kinds", "gradients", "hooks", "config", "generation"):
        assert after[part] == before[part], part
    assert "forward" not in vars(model), "the Trainer's own autocast would have replaced it"
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_mixed_precision_goes_on(precision: str, tmp_path: Path, llama: Path, data: dict[str, Path]) -> None:
    job = MIXED | {"mixed_precision": precision}
    whole = sft(tmp_path / "whole", llama, data, **job)
    with pytest.raises(Killed):
        sft(tmp_path / "cut", llama, data, reporter=Fragile(5), **job)
    again = sft(tmp_path / "cut", llama, data, **job)
    assert again[0].facts["trace"] == whole[0].facts["trace"]
    assert tiny.folder_digests(again[1]) == tiny.folder_digests(whole[1])


def test_a_step_that_overflows_is_skipped(
    tmp_path: Path, llama: Path, data: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A scale that no half-precision number can bear is halved until one can; those steps change nothing."""
    scaler = torch.amp.GradScaler
    monkeypatch.setattr(torch.amp, "GradScaler", lambda device: scaler(device, init_scale=2.0**40))
    model = tiny.adapted_model(tmp_path, llama)
    before = tiny.model_state(model)["parameters"]
    found, _ = sft(tmp_path, llama, data, model=model, mixed_precision="fp16", epochs=1, max_steps=2)
    assert ["grad_norm" in entry for entry in found.facts["trace"]] == [False, False]
    assert all(torch.equal(weight, before[name]) for name, weight in model.named_parameters())
