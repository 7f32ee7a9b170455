"""A training that was stopped or killed and goes on ends exactly as the one that was left alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from tests import tiny
from tests.unit.training.training_jobs import ROWS, Fragile, Killed, prepared_data, sft

from recipe_engine.errors import Interrupted, StageFailed
from recipe_engine.training import checkpoint
from recipe_engine.training.batches import plan_batches
from recipe_engine.training.rows import read_rows

if TYPE_CHECKING:
    from recipe_engine.contract import StageResult

STEPS = 6
# Ten rows twice in steps of four: five steps; a third epoch ends within the eighth. max_steps ends it before.
JOB: dict[str, Any] = {
    "epochs": 3,
    "max_steps": STEPS,
    "micro_batch_size": 2,
    "eval_steps": 2,
    "checkpoint_steps": 2,
    "warmup_steps": 2,
    "weight_decay": 0.1,
    "schedule": "cosine",
}


@pytest.fixture(scope="module")
def data(llama: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return prepared_data(tmp_path_factory.mktemp("data"), llama)


@pytest.fixture(scope="module")
def whole(llama: Path, data: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[StageResult, Path]:
    """The training that nothing happened to."""
    return sft(tmp_path_factory.mktemp("whole"), llama, data, **JOB)


def assert_same(found: tuple[StageResult, Path], expected: tuple[StageResult, Path]) -> None:
    """To the bit: the adapter, the metrics and the trace of all steps."""
    assert found[0].facts["trace"] == expected[0].facts["trace"]
    assert tiny.folder_digests(found[1]) == tiny.folder_digests(expected[1])
    assert found[0].metrics == expected[0].metrics


def steps_of(root: Path) -> list[int]:
    return sorted(int(path.name.removeprefix("step-")) for path in (root / "work-train").glob("step-*"))


def test_the_trace_is_whole(whole: tuple[StageResult, Path]) -> None:
    trace = whole[0].facts["trace"]
    assert [entry["step"] for entry in trace] == list(range(1, STEPS + 1))
    assert [entry["step"] for entry in trace if "eval_loss" in entry] == [2, 4, 6]
    assert [entry["step"] for entry in trace if "weights" in entry] == [1, 5]
    assert all({"loss", "grad_norm", "learning_rate"} <= entry.keys() for entry in trace)
    assert whole[0].metrics == {"loss": trace[-1]["loss"]}


def test_the_same_seed_twice_is_the_same(
    tmp_path: Path, llama: Path, data: dict[str, Path], whole: tuple[StageResult, Path]
) -> None:
    assert_same(sft(tmp_path, llama, data, **JOB), whole)


def test_how_often_checkpoints_are_written_changes_nothing(
    tmp_path: Path, llama: Path, data: dict[str, Path], whole: tuple[StageResult, Path]
) -> None:
    assert_same(sft(tmp_path, llama, data, **JOB | {"checkpoint_steps": 99}), whole)
    assert steps_of(tmp_path) == []


def test_no_checkpoint_of_the_last_step(tmp_path: Path, llama: Path, data: dict[str, Path]) -> None:
    """The artifact follows at once and makes it needless."""
    sft(tmp_path, llama, data, **JOB)
    assert steps_of(tmp_path) == [2, 4]


@pytest.mark.parametrize("step", [1, 2, 3, 5])
def test_stopped_and_gone_on(
    step: int, tmp_path: Path, llama: Path, data: dict[str, Path], whole: tuple[StageResult, Path]
) -> None:
    reporter = tiny.Recorder(stop_after=step)
    with pytest.raises(Interrupted, match=f"stopped after step {step} of {STEPS}; a checkpoint is kept"):
        sft(tmp_path, llama, data, reporter=reporter, **JOB)
    assert reporter.logged[-1][0] == step
    assert steps_of(tmp_path)[-1] == step
    again = tiny.Recorder()
    assert_same(sft(tmp_path, llama, data, reporter=again, **JOB), whole)
    assert again.messages == [f"going on from the checkpoint of step {step}"]
    assert [logged for logged, _ in again.logged] == list(range(step + 1, STEPS + 1))
    assert again.progressed[0] == (step, STEPS, "steps")


@pytest.mark.parametrize(("killed_at", "goes_on_after"), [(1, None), (3, 2), (4, 2), (6, 4)])
def test_killed_and_gone_on(
    killed_at: int,
    goes_on_after: int | None,
    tmp_path: Path,
    llama: Path,
    data: dict[str, Path],
    whole: tuple[StageResult, Path],
) -> None:
    with pytest.raises(Killed):
        sft(tmp_path, llama, data, reporter=Fragile(killed_at), **JOB)
    again = tiny.Recorder()
    assert_same(sft(tmp_path, llama, data, reporter=again, **JOB), whole)
    assert again.logged[0][0] == (goes_on_after or 0) + 1


def test_stopped_again_and_again(
    tmp_path: Path, llama: Path, data: dict[str, Path], whole: tuple[StageResult, Path]
) -> None:
    for step in range(1, STEPS):
        with pytest.raises(Interrupted):
            sft(tmp_path, llama, data, reporter=tiny.Recorder(stop_after=step), **JOB)
    assert_same(sft(tmp_path, llama, data, **JOB), whole)


def test_a_damaged_checkpoint_costs_steps_and_nothing_else(
    tmp_path: Path, llama: Path, data: dict[str, Path], whole: tuple[StageResult, Path]
) -> None:
    with pytest.raises(Interrupted):
        sft(tmp_path, llama, data, reporter=tiny.Recorder(stop_after=5), **JOB)
    damaged = tmp_path / "work-train" / "step-00000005" / "trainable.safetensors"
    damaged.chmod(0o644)
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"?")
    again = tiny.Recorder()
    assert_same(sft(tmp_path, llama, data, reporter=again, **JOB), whole)
    assert again.logged[0][0] == 5


def test_a_stop_in_the_last_step_comes_too_late(
    tmp_path: Path, llama: Path, data: dict[str, Path], whole: tuple[StageResult, Path]
) -> None:
    assert_same(sft(tmp_path, llama, data, reporter=tiny.Recorder(stop_after=STEPS), **JOB), whole)


def test_a_checkpoint_of_the_last_step_leaves_nothing_to_do(
    tmp_path: Path, llama: Path, data: dict[str, Path], whole: tuple[StageResult, Path]
) -> None:
    """No training leaves one, but a later version might have: what is done is not done again."""
    result, _ = sft(tmp_path, llama, data, **JOB)
    work = tmp_path / "work-train"
    # The state of step 4, told as if it were the end: the weights are the trained ones.
    last = work / "step-00000004"
    state = checkpoint.read_document(last, "trainer_state")
    state |= {"global_step": STEPS, "epoch": 1.0, "log_history": result.facts["trace"]}
    optimizer = torch.optim.AdamW([weight for weight in result.live.parameters() if weight.requires_grad])
    unchanged = {name: checkpoint.read_document(last, name) for name in ("scheduler", "progress")}
    documents = {"trainer_state": state, **unchanged}
    checkpoint.save(work, STEPS, result.live, optimizer, documents)
    again = tiny.Recorder()
    found = sft(tmp_path, llama, data, reporter=again, **JOB)
    assert_same(found, whole)
    assert again.logged == []
    assert found[0].facts["efficiency"]["tokens"] == 0


def test_tokens_of_this_process_alone_are_counted(tmp_path: Path, llama: Path, data: dict[str, Path]) -> None:
    rows = read_rows(data["train"])
    found, _ = sft(tmp_path / "whole", llama, data, **JOB)
    seed = tiny.stage_request(tmp_path / "whole", None).seed
    plan = plan_batches(ROWS, epochs=3, batch_size=4, micro_batch_size=2, max_steps=STEPS, seed=seed)
    lengths = [sum(len(rows[row].input_ids) for row in batch) for batch in plan.micro_batches]
    assert found.facts["efficiency"]["tokens"] == sum(lengths)
    with pytest.raises(Interrupted):
        sft(tmp_path / "cut", llama, data, reporter=tiny.Recorder(stop_after=4), **JOB)
    rest, _ = sft(tmp_path / "cut", llama, data, **JOB)
    assert rest.facts["efficiency"]["tokens"] == sum(lengths[2 * 4 :])


def test_dropout_is_drawn_anew_in_each_step(tmp_path: Path, llama: Path, data: dict[str, Path]) -> None:
    """Or the tests above would pass for a training whose generators are not restored."""
    without, _ = sft(tmp_path / "without", llama, data, dropout=0.0, **JOB)
    within, _ = sft(tmp_path / "within", llama, data, dropout=0.1, **JOB)
    losses = [[entry["loss"] for entry in result.facts["trace"]] for result in (without, within)]
    assert all(one != other for one, other in zip(*losses, strict=True))


def test_what_the_person_sees(tmp_path: Path, llama: Path, data: dict[str, Path]) -> None:
    reporter = tiny.Recorder()
    result, _ = sft(tmp_path, llama, data, reporter=reporter, **JOB)
    steps = [entry for entry in reporter.progressed if entry[2] == "steps"]
    assert steps == [(done, STEPS, "steps") for done in range(STEPS + 1)]
    told = [{name: value for name, value in entry.items() if name != "weights"} for entry in result.facts["trace"]]
    assert [{"step": step, **values} for step, values in reporter.logged] == told


@pytest.mark.parametrize("poisoned", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_stops_the_training(
    poisoned: float, tmp_path: Path, llama: Path, data: dict[str, Path]
) -> None:
    model = tiny.adapted_model(tmp_path, llama)
    with torch.no_grad():
        next(weight for weight in model.parameters() if weight.requires_grad).fill_(poisoned)
    with pytest.raises(StageFailed, match=r"^train: the loss of step 1 is nan, its gradient's norm nan\.") as caught:
        sft(tmp_path, llama, data, model=model, **JOB)
    assert caught.value.hint == "Lower learning_rate, or give it a warmup."
    assert steps_of(tmp_path) == []


class Poisons(tiny.Recorder):
    """Spoils the model while it watches step 3, as a training that diverges does."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self._model = model

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        super().metrics(step, values)
        if step == 3:
            with torch.no_grad():
                next(weight for weight in self._model.parameters() if weight.requires_grad).fill_(float("nan"))


def test_the_step_that_failed_is_named_and_the_checkpoint_before_it_is_sound(
    tmp_path: Path, llama: Path, data: dict[str, Path], whole: tuple[StageResult, Path]
) -> None:
    model = tiny.adapted_model(tmp_path, llama, dropout=0.1)
    reporter = Poisons(model)
    with pytest.raises(StageFailed, match="the loss of step 4 is nan"):
        sft(tmp_path, llama, data, model=model, reporter=reporter, **JOB)
    assert [step for step, _ in reporter.logged] == [1, 2, 3]
    assert steps_of(tmp_path) == [2]
    assert_same(sft(tmp_path, llama, data, **JOB), whole)
