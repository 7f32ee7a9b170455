"""``train.rloo`` and ``train.grpo``: gradients by hand, cuts into micro-batches, resuming, what is left, learning."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tests import tiny
from tests.unit.training.groups.group_jobs import KINDS, Options, ending_model, request, train
from tests.unit.training.ppo.ppo_jobs import END, evenness, fresh_model, prompts, scoring
from tests.unit.training.training_jobs import Fragile, Killed

from recipe_engine.errors import Interrupted, StageFailed
from recipe_engine.methods.adapt_full import AdaptFull
from recipe_engine.methods.load_nf4 import LoadNf4
from recipe_engine.methods.options import AdaptFull as FullOptions
from recipe_engine.methods.options import LoadNf4 as Nf4Options
from recipe_engine.training.groups.options import TrainGrpo, TrainRloo
from recipe_engine.training.ppo.loop import Trace
from recipe_engine.training.rows import write_rows

# Importing TRL takes seconds.
pytestmark = [pytest.mark.slow, pytest.mark.parametrize("kind", KINDS)]

Found = tuple[Trace, Any]
STEPS = 4
JOB: dict[str, Any] = {
    "epochs": 4,
    "max_steps": STEPS,
    "batch_size": 6,
    "minibatch_size": 3,
    "ppo_epochs": 2,
    "checkpoint_steps": 2,
    "warmup_steps": 1,
    "schedule": "cosine",
    "learning_rate": 5e-3,
}


def weights(model: Any) -> dict[str, torch.Tensor]:
    return {name: weight.detach().clone() for name, weight in model.named_parameters() if weight.requires_grad}


@pytest.fixture(scope="module")
def whole(llama: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[type[Options], Found]:
    """The trainings that nothing happened to."""
    return {kind: train(tmp_path_factory.mktemp("whole"), llama, kind, **JOB) for kind in KINDS}


def assert_same(found: Found, expected: Found) -> None:
    """To the bit: all weights, the numbers of all steps and the answers."""
    assert found[0].steps == expected[0].steps
    assert found[0].samples == expected[0].samples
    for name, weight in expected[1].state_dict().items():
        assert torch.equal(found[1].state_dict()[name], weight), name


def steps_of(root: Path) -> list[int]:
    return sorted(int(path.name.removeprefix("step-")) for path in (root / "work-train").glob("step-*"))


def test_the_trace_is_whole(kind: type[Options], whole: dict[type[Options], Found]) -> None:
    steps = whole[kind][0].steps
    assert [entry["step"] for entry in steps] == list(range(1, STEPS + 1))
    assert [entry["step"] for entry in steps if "weights" in entry] == [1]
    assert {entry["updates"] for entry in steps} == {4}
    assert steps[0]["kl"] == 0
    assert [sample["step"] for sample in whole[kind][0].samples] == [1, 1, 2, 2, 3, 3, 4, 4]
    assert whole[kind][0].tokens > 0


def test_the_guide_explains_every_curve(kind: type[Options], whole: dict[type[Options], Found]) -> None:
    guide = Path("docs/rlhf.md").read_text(encoding="utf-8")
    for name in set(whole[kind][0].steps[1]) - {"step"}:
        assert f"`{name}`" in guide


@pytest.mark.parametrize("step", [1, 3])
def test_stopped_and_gone_on(
    kind: type[Options], step: int, tmp_path: Path, llama: Path, whole: dict[type[Options], Found]
) -> None:
    with pytest.raises(Interrupted, match=f"stopped after step {step} of {STEPS}; a checkpoint is kept"):
        train(tmp_path, llama, kind, reporter=tiny.Recorder(stop_after=step), **JOB)
    again = tiny.Recorder()
    assert_same(train(tmp_path, llama, kind, reporter=again, **JOB), whole[kind])
    assert again.messages == [f"going on from the checkpoint of step {step}"]
    assert [logged for logged, _ in again.logged] == list(range(step + 1, STEPS + 1))
    assert again.progressed[0] == (step, STEPS, "steps")


def test_killed_and_gone_on(
    kind: type[Options], tmp_path: Path, llama: Path, whole: dict[type[Options], Found]
) -> None:
    with pytest.raises(Killed):
        train(tmp_path, llama, kind, reporter=Fragile(4), **JOB)
    assert steps_of(tmp_path) == [8], "optimizer steps of the Trainer"
    again = tiny.Recorder()
    assert_same(train(tmp_path, llama, kind, reporter=again, **JOB), whole[kind])
    assert again.logged[0][0] == 3


def test_micro_batches_add_up(kind: type[Options], tmp_path: Path, llama: Path) -> None:
    """Answers are of different lengths, and the gradient of a step is the same however it is cut."""
    found = []
    for size in (4, 1):
        (tmp_path / str(size)).mkdir()
        model = ending_model(tmp_path / str(size), llama)
        trace, _ = train(tmp_path / str(size), llama, kind, model=model, micro_batch_size=size)
        found.append((trace.steps[0], weights(model)))
    (one, of_one), (other, of_other) = found
    assert one["grad_norm"] == pytest.approx(other["grad_norm"], rel=1e-3)
    for name, weight in of_one.items():
        torch.testing.assert_close(of_other[name], weight, rtol=1e-2, atol=1e-5)


@pytest.mark.parametrize("base", ["llama", "gpt2"])
def test_padding_shifts_nothing(kind: type[Options], base: str, tmp_path: Path, llama: Path, gpt2: Path) -> None:
    """Prompts of different lengths, which TRL pads on the left: probabilities are those of each answer alone."""
    folder = {"llama": llama, "gpt2": gpt2}[base]
    answers: list[Any] = []

    def score(given: Any) -> Any:
        answers[:] = given
        return scoring(evenness)(given)

    model = fresh_model(tmp_path, folder)
    (step,) = train(tmp_path, folder, kind, model=model, score=score, batch_size=12, learning_rate=1e-12)[0].steps
    assert len({answer.prompt_tokens for answer in answers}) > 1
    found = []
    for answer in answers:
        with torch.no_grad():
            log_probs = model(input_ids=torch.tensor([answer.tokens[:-1]])).logits[0].log_softmax(-1)
        found.append(-(log_probs.exp() * log_probs).sum(-1)[answer.prompt_tokens - 1 :])
    assert step["entropy"] == pytest.approx(torch.cat(found).mean().item(), rel=1e-5)


def test_a_reward_of_nothing_moves_nothing(kind: type[Options], tmp_path: Path, llama: Path) -> None:
    model = fresh_model(tmp_path, llama)
    before = weights(model)
    (step,) = train(tmp_path, llama, kind, model=model, score=scoring(lambda _: 3.0))[0].steps
    assert all(torch.equal(weight, before[name]) for name, weight in weights(model).items())
    assert (step["grad_norm"], step["flat_groups"], step["score_deviation"]) == (0, 1, 0)


def test_answers_that_are_cut_can_be_left_out(kind: type[Options], tmp_path: Path, llama: Path) -> None:
    """No answer of this model ends within two tokens: there is nothing to learn, and nothing to say of it."""
    model = fresh_model(tmp_path, llama)
    before = weights(model)
    (step,) = train(tmp_path, llama, kind, model=model, max_new_tokens=2, cut_answers="leave_out")[0].steps
    assert (step["ended"], step["kl"], step["entropy"], step["answer_tokens"]) == (0, 0, 0, 2)
    assert all(torch.equal(weight, before[name]) for name, weight in weights(model).items())


def test_answers_of_different_lengths(kind: type[Options], tmp_path: Path, llama: Path) -> None:
    steps = train(tmp_path, llama, kind, model=ending_model(tmp_path, llama), batch_size=8, missing_eos_penalty=1.0)
    (step,) = steps[0].steps
    assert 0 < step["ended"] < 1
    assert 1 < step["answer_tokens"] < 6


def test_too_few_prompts_for_a_step(kind: type[Options], tmp_path: Path, llama: Path) -> None:
    with pytest.raises(StageFailed, match="a step answers 16 prompts, and 1 epochs of 8 are fewer"):
        train(tmp_path, llama, kind, batch_size=32)


def test_a_loss_that_is_no_number_stops_the_training(kind: type[Options], tmp_path: Path, llama: Path) -> None:
    score = scoring(lambda tokens: 1e38 * (tokens[0] % 2 - 0.5))
    plain: dict[str, Any] = {"whiten_advantages": False} if kind is TrainRloo else {"scale_rewards": "none"}
    with pytest.raises(StageFailed, match="its gradient's norm"):
        train(tmp_path, llama, kind, score=score, max_grad_norm=0.0, max_steps=3, epochs=4, learning_rate=1.0, **plain)


@pytest.mark.parametrize("adapted", [True, False])
def test_as_a_stage(kind: type[Options], adapted: bool, tmp_path: Path, llama: Path, tokenizer: Any) -> None:
    """What it writes is an adapter or a model, and what it hands on is what that gives back."""
    from recipe_engine.methods.train_groups import TrainGroups

    def asked(root: Path) -> Any:
        root.mkdir()
        if adapted:
            model = fresh_model(root, llama)
        else:
            full = tiny.stage_request(root, FullOptions(), node="adapt", model=tiny.load_model(llama))
            model = AdaptFull().run(full).live
        (root / "rows").mkdir()
        write_rows(root / "rows", prompts(tokenizer, 5))
        return request(root, kind, model, tokenizer=llama, data={"prompts": root / "rows"}, max_steps=2, epochs=2)

    first, second = asked(tmp_path / "1"), asked(tmp_path / "2")
    before = tiny.model_state(first.inputs.model)
    result = TrainGroups().run_with(first, scoring(evenness))
    assert set(tiny.model_state(result.live)) == set(before), "nothing of TRL's stays on the model"
    restored = TrainGroups().restore(second, first.output)
    tiny.assert_same_state(tiny.model_state(restored), tiny.model_state(result.live), generators=False)
    assert set(result.metrics) == {"score", "kl"}
    files = set(tiny.folder_digests(first.output))
    if adapted:
        assert files == {"adapter_config.json", "adapter_model.safetensors"}
        assert json.loads((first.output / "adapter_config.json").read_text())["base_model_name_or_path"] == "file:tiny"
    else:
        assert "model.safetensors" in files


def test_the_adapter_below_stays_on_in_the_reference(kind: type[Options], tmp_path: Path, llama: Path) -> None:
    model = fresh_model(tmp_path, llama)
    model.add_adapter("base", model.peft_config["default"])
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if ".base." in name:
                weight.fill_(0.05)
    model.base_model.set_adapter(["base", "default"])
    for name, weight in model.named_parameters():
        weight.requires_grad_(".default." in name)
    (step,) = train(tmp_path, llama, kind, model=model)[0].steps
    assert step["kl"] == 0


def test_a_quantized_base_stays_as_it_is(kind: type[Options], tmp_path: Path, llama: Path) -> None:
    load = tiny.stage_request(tmp_path, Nf4Options(), node="load", source=tiny.resolve(llama))
    model = fresh_model(tmp_path, llama, model=LoadNf4().run(load).live)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    attributes = {part: set(vars(part)) for part in (model, model.get_base_model())}
    dtypes = {weight.dtype for weight in weights(model).values()}
    train(tmp_path, llama, kind, model=model, max_steps=2, epochs=2, score=scoring(lambda tokens: sum(tokens) % 7))
    after = model.state_dict()
    assert all(torch.equal(tensor, after[name]) == ("lora_" not in name) for name, tensor in before.items())
    assert {part: set(vars(part)) for part in attributes} == attributes
    assert {weight.dtype for weight in weights(model).values()} == dtypes


@pytest.mark.parametrize("seed", [1, 2])
def test_a_reward_is_learned(kind: type[Options], seed: int, tmp_path: Path, llama: Path) -> None:
    """Liked are the tokens on one side of a plane through the head, as in the test of ``train.ppo``."""
    head = load_file(llama / "model.safetensors")["lm_head.weight"]
    direction = torch.randn(tiny.HIDDEN, generator=torch.Generator().manual_seed(0))
    liked = set((head @ direction > 0).nonzero()[:, 0].tolist())
    assert END not in liked or len(liked) > 1
    reward = scoring(lambda tokens: sum(token in liked for token in tokens) / len(tokens))
    job: dict[str, Any] = {"epochs": 80, "max_steps": 20, "batch_size": 32, "minibatch_size": 16, "num_generations": 8}
    trace, _ = train(tmp_path, llama, kind, score=reward, seed=seed, learning_rate=1e-2, ppo_epochs=2, **job)
    scores = [step["score"] for step in trace.steps]
    assert sum(scores[-5:]) / 5 > sum(scores[:5]) / 5 + 0.12


def test_rloo_by_hand(kind: type[Options], tmp_path: Path, llama: Path) -> None:
    """One step without divergence: the gradient is that of -mean(A log π), A the score less the others' mean."""
    options: dict[str, Any] = {"kl_coef": 0.0, "batch_size": 3, "num_generations": 3, "max_grad_norm": 0.0, "seed": 5}
    if kind is TrainGrpo:
        options |= {"loss_type": "grpo", "scale_rewards": "none"}
    answers: list[Any] = []

    def score(given: Any) -> Any:
        answers[:] = given
        return scoring(evenness)(given)

    model = fresh_model(tmp_path, llama)
    (step,) = train(tmp_path, llama, kind, model=model, score=score, learning_rate=1e-12, **options)[0].steps
    scores = [evenness(answer.tokens[answer.prompt_tokens :]) for answer in answers]
    model.zero_grad()
    for answer, own in zip(answers, scores, strict=True):
        others = (sum(scores) - own) / 2 if kind is TrainRloo else sum(scores) / 3
        ids = torch.tensor([answer.tokens])
        log_probs = model(input_ids=ids).logits[0, :-1].log_softmax(-1).gather(1, ids[0, 1:, None])
        of_answer = log_probs[answer.prompt_tokens - 1 :]
        value = of_answer.sum() if kind is TrainRloo else of_answer.mean()
        (-(own - others) * value / 3).backward()
    norm = torch.stack([weight.grad.norm() for weight in model.parameters() if weight.grad is not None]).norm()
    assert step["grad_norm"] == pytest.approx(norm.item(), rel=1e-3)
