"""A training that was stopped or killed and goes on ends exactly as the one that was left alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests import tiny
from tests.unit.training.ppo.ppo_jobs import ppo
from tests.unit.training.training_jobs import Fragile, Killed

from recipe_engine.errors import Interrupted
from recipe_engine.training.ppo.loop import Trace

Found = tuple[Trace, Any]
STEPS = 4
# Eight prompts in steps of three: the third step has prompts of two epochs.
JOB: dict[str, Any] = {
    "epochs": 2,
    "max_steps": STEPS,
    "batch_size": 3,
    "checkpoint_steps": 2,
    "warmup_steps": 1,
    "schedule": "cosine",
    "kl_target": 0.01,
    "kl_horizon": 30,
    "normalize_scores": True,
    "max_update_kl": 0.05,
}


@pytest.fixture(scope="module")
def whole(llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Found:
    """The training that nothing happened to."""
    return ppo(tmp_path_factory.mktemp("whole"), llama, **JOB)


def assert_same(found: Found, expected: Found) -> None:
    """To the bit: all weights, the numbers of all steps and the answers."""
    assert found[0].steps == expected[0].steps
    assert found[0].samples == expected[0].samples
    for name, weight in expected[1].state_dict().items():
        assert torch.equal(found[1].state_dict()[name], weight), name


def steps_of(root: Path) -> list[int]:
    return sorted(int(path.name.removeprefix("step-")) for path in (root / "work-train").glob("step-*"))


def test_the_trace_is_whole(whole: Found) -> None:
    steps = whole[0].steps
    assert [entry["step"] for entry in steps] == list(range(1, STEPS + 1))
    assert [entry["step"] for entry in steps if "weights" in entry] == [1]
    assert len({entry["kl_coef"] for entry in steps}) == STEPS, "the controller is at work"
    assert [sample["step"] for sample in whole[0].samples] == [1, 1, 2, 2, 3, 3, 4, 4]
    assert set(whole[0].samples[0]) == {"step", "question", "answer", "score"}
    assert whole[0].tokens > 0


def test_how_often_checkpoints_are_written_changes_nothing(tmp_path: Path, llama: Path, whole: Found) -> None:
    assert_same(ppo(tmp_path, llama, **JOB | {"checkpoint_steps": 1}), whole)
    assert steps_of(tmp_path) == [2, 3], "none of the last step"


@pytest.mark.parametrize("step", [1, 3])
def test_stopped_and_gone_on(step: int, tmp_path: Path, llama: Path, whole: Found) -> None:
    with pytest.raises(Interrupted, match=f"stopped after step {step} of {STEPS}; a checkpoint is kept"):
        ppo(tmp_path, llama, reporter=tiny.Recorder(stop_after=step), **JOB)
    assert steps_of(tmp_path)[-1] == step
    again = tiny.Recorder()
    assert_same(ppo(tmp_path, llama, reporter=again, **JOB), whole)
    assert again.messages == [f"going on from the checkpoint of step {step}"]
    assert [logged for logged, _ in again.logged] == list(range(step + 1, STEPS + 1))
    assert again.progressed[0] == (step, STEPS, "steps")


def test_killed_and_gone_on(tmp_path: Path, llama: Path, whole: Found) -> None:
    with pytest.raises(Killed):
        ppo(tmp_path, llama, reporter=Fragile(4), **JOB)
    again = tiny.Recorder()
    assert_same(ppo(tmp_path, llama, reporter=again, **JOB), whole)
    assert again.logged[0][0] == 3


def test_a_stop_in_the_last_step_comes_too_late(tmp_path: Path, llama: Path, whole: Found) -> None:
    assert_same(ppo(tmp_path, llama, reporter=tiny.Recorder(stop_after=STEPS), **JOB), whole)


def test_what_the_person_sees(whole: Found, tmp_path: Path, llama: Path) -> None:
    reporter = tiny.Recorder()
    ppo(tmp_path, llama, reporter=reporter, **JOB)
    assert reporter.progressed == [(done, STEPS, "steps") for done in range(STEPS + 1)]
    told = [{name: value for name, value in entry.items() if name != "weights"} for entry in whole[0].steps]
    assert [{"step": step, **values} for step, values in reporter.logged] == told
    assert {"score", "kl", "entropy", "clip_fraction", "explained_variance", "answer_tokens"} <= set(told[0])
