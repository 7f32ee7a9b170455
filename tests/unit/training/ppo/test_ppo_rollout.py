"""How answers are written, and that writing them leaves the model as it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests import tiny
from tests.unit.training.ppo.ppo_jobs import END, UNUSED, answers, fresh_model, prompts

from recipe_engine.errors import StageFailed
from recipe_engine.methods.load_nf4 import LoadNf4
from recipe_engine.methods.options import LoadNf4 as Nf4Options
from recipe_engine.training.generation import up_to_end
from recipe_engine.training.ppo.judging import Memory, experience, view
from recipe_engine.training.ppo.options import TrainPpo
from recipe_engine.training.ppo.policy import Policy, Reference
from recipe_engine.training.ppo.rollout import check_room, open_writer, write_answers
from recipe_engine.training.ppo.update import Learner

MEMORY = Memory("packed", END, 4096)


def write(model: Any, tokenizer: Any, *, seed: int = 1, count: int = 6, **options: Any) -> list[Any]:
    torch.manual_seed(seed)
    chosen = TrainPpo(reward=UNUSED, **{"max_new_tokens": 12} | options)
    rows = prompts(tokenizer, count)
    with open_writer(model, tokenizer, rows, chosen, Path()) as writer:
        return write_answers(writer, model, tokenizer, rows, chosen)


def written(found: list[Any]) -> list[tuple[int, ...]]:
    return [answer.tokens[answer.prompt_tokens :] for answer in found]


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [([5, 6, 9, 9, 9], [5, 6, 9]), ([9, 9], [9]), ([8, 5, 9], [8]), ([5, 6], [5, 6])],
)
def test_an_answer_ends_with_its_end(tokens: list[int], expected: list[int]) -> None:
    assert up_to_end(tokens, [8, 9]) == expected


def test_what_an_answer_knows(llama: Path, tokenizer: Any) -> None:
    model = tiny.load_model(llama)
    with torch.no_grad():
        model.lm_head.weight[END] *= 2.5  # it ends often
    rows = prompts(tokenizer, 12)
    found = write(model, tokenizer, count=12)
    assert [answer.row for answer in found] == list(range(1, 13))
    assert {answer.ended for answer in found} == {True, False}
    for answer, row in zip(found, rows, strict=True):
        tokens = answer.tokens[answer.prompt_tokens :]
        assert answer.tokens[: answer.prompt_tokens] == row.input_ids
        assert answer.ended == (tokens[-1] == END)
        assert END not in tokens[:-1]
        assert answer.ended or len(tokens) == 12
        assert (answer.question, answer.prompt) == (row.question, tokenizer.decode(row.input_ids))
        assert answer.text == tokenizer.decode(tokens, skip_special_tokens=True)


def test_an_empty_answer_is_its_end_alone(llama: Path, tokenizer: Any) -> None:
    model = tiny.load_model(llama)
    model.lm_head = torch.nn.Linear(tiny.HIDDEN, tiny.VOCABULARY)
    torch.nn.init.zeros_(model.lm_head.weight)
    with torch.no_grad():
        model.lm_head.bias.fill_(0.0)[END] = 100.0
    found = write(model, tokenizer)
    assert written(found) == [(END,)] * 6
    assert [(answer.text, answer.ended) for answer in found] == [("", True)] * 6


def test_limits_and_choice(llama: Path, tokenizer: Any) -> None:
    model = tiny.load_model(llama)
    with torch.no_grad():
        model.lm_head.weight[END] *= 2.5
    assert {len(tokens) for tokens in written(write(model, tokenizer, max_new_tokens=1))} == {1}
    assert min(len(tokens) for tokens in written(write(model, tokenizer, count=12, min_new_tokens=5))) >= 5
    likeliest = written(write(model, tokenizer, top_k=1))
    assert likeliest == written(write(model, tokenizer, top_k=1, seed=2))
    assert likeliest == written(write(model, tokenizer, top_p=1e-6, seed=3))
    assert likeliest == written(write(model, tokenizer, temperature=1e-4, seed=4))
    assert likeliest == written(write(model, tokenizer, top_k=1, generation_size=1))
    assert likeliest != written(write(model, tokenizer))


def test_the_seed_decides(llama: Path, tokenizer: Any) -> None:
    model = tiny.load_model(llama)
    assert write(model, tokenizer) == write(model, tokenizer)
    assert write(model, tokenizer) != write(model, tokenizer, seed=2)


def test_the_model_is_left_as_it_was(tmp_path: Path, llama: Path, tokenizer: Any) -> None:
    model = tiny.adapted_model(tmp_path, llama)
    torch.manual_seed(1)
    before = tiny.model_state(model)
    write(model, tokenizer)
    tiny.assert_same_state(tiny.model_state(model), before, generators=False)


@pytest.mark.parametrize(
    ("architecture", "dtype", "bound"),
    [("llama", "float32", 1e-4), ("gpt2", "float32", 1e-4), ("llama", "bfloat16", 0.12)],
)
def test_what_was_drawn_had_the_probability_that_is_learned_from(
    architecture: str, dtype: str, bound: float, tmp_path: Path, request: pytest.FixtureRequest, tokenizer: Any
) -> None:
    """Log-probabilities while writing, token by token, against those of the packed forward pass."""
    model = tiny.adapted_model(tmp_path, request.getfixturevalue(architecture), dtype=dtype)
    temperature = 0.8
    seen: list[torch.Tensor] = []
    watch = model.get_output_embeddings().register_forward_hook(lambda _module, _inputs, out: seen.append(out.clone()))
    found = write(model, tokenizer, temperature=temperature, min_new_tokens=12)
    watch.remove()
    log_probs = torch.stack(seen, dim=1).div(temperature).float().log_softmax(-1)
    views = view(Policy(model), Reference(model), found, MEMORY, temperature)
    of_answers = views.log_probs.split([len(tokens) for tokens in written(found)])
    order = sorted(range(6), key=lambda at: -found[at].prompt_tokens)  # as the writer takes them
    for at, place in enumerate(order):
        drawn = log_probs[at].gather(1, torch.tensor(written(found)[place])[:, None])[:, 0]
        assert (drawn - of_answers[place]).abs().max() < bound


def test_a_prompt_that_leaves_no_room_is_named(llama: Path, tokenizer: Any) -> None:
    rows = prompts(tokenizer, 3)
    longest = max(len(row.input_ids) for row in rows)
    check_room(tiny.load_model(llama), rows, tiny.POSITIONS - longest)
    with pytest.raises(
        StageFailed, match=rf"^train: row 3: a prompt of {longest} tokens and an answer of 500 are more"
    ):
        check_room(tiny.load_model(llama), rows, 500)


def gradients(model: Any, tokenizer: Any) -> dict[str, torch.Tensor]:
    """Of one optimizer step on given answers."""
    policy, options = Policy(model), TrainPpo(reward=UNUSED)
    given = answers(tokenizer, (4, 3, 6))
    views = view(policy, Reference(model), given, MEMORY, 1.0)
    known = experience(views, given, [1.0, -1.0, 0.5], 0.1, options)
    Learner(policy, MEMORY, options).gradient(given, range(3), known)
    found = {name: weight.grad.clone() for name, weight in policy.named_parameters() if weight.grad is not None}
    policy.zero_grad()
    return found


@pytest.mark.filterwarnings("ignore:`[a-z_]*gradient_checkpointing[a-z_]*` is deprecated:FutureWarning")
def test_writing_with_quantized_weights_changes_neither_a_bit_nor_a_gradient(
    tmp_path: Path, llama: Path, tokenizer: Any
) -> None:
    load = tiny.stage_request(tmp_path, Nf4Options(), node="load", source=tiny.resolve(llama))
    model = fresh_model(tmp_path, llama, model=LoadNf4().run(load).live)
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    expected = gradients(model, tokenizer)
    write(model, tokenizer)
    after = model.state_dict()
    assert state.keys() == after.keys()
    assert all(torch.equal(tensor, after[name]) for name, tensor in state.items())
    found = gradients(model, tokenizer)
    reached = [name for name, gradient in expected.items() if "lora_B" in name and gradient.abs().max() > 0]
    assert len(reached) == 2 * 7, "every layer learns"
    assert all(torch.equal(gradient, found[name]) for name, gradient in expected.items())
