"""Greedy answers, streams, and what a model looks like after it was borrowed."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from tests import tiny

from recipe_engine.errors import StageFailed
from recipe_engine.training.borrow import borrowed
from recipe_engine.training.choice import Decoding
from recipe_engine.training.generation import greedy, stopping_tokens
from recipe_engine.training.loss import mean_loss
from recipe_engine.training.rows import Row, read_rows
from recipe_engine.training.streaming import THREAD, stream

PROMPTS = ["What?", "What comes after the number 12?", "a", "And then the answer is the one that we all know: "]


def nothing(_done: int, _total: int) -> None:
    """For whom progress does not matter."""


def answers(model: Any, tokenizer: Any, *, batch_size: int, max_new_tokens: int = 12) -> list[str]:
    prompts = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in PROMPTS]
    decoding = Decoding(max_new_tokens=max_new_tokens)
    return greedy(model, tokenizer, prompts, decoding, batch_size=batch_size, progress=nothing)


def by_hand(model: Any, tokenizer: Any, prompt: str, max_new_tokens: int) -> list[int]:
    """The most likely tokens, one at a time, without a cache."""
    ids: list[int] = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    start = len(ids)
    while len(ids) - start < max_new_tokens and tokenizer.eos_token_id not in ids[start:]:
        with torch.no_grad():
            ids.append(int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
    return ids[start:]


def ends_early(model: Any) -> Any:
    """The same model, whose end-of-sequence logit is so high that it says little."""
    with torch.no_grad():
        model.lm_head.weight[297] *= 2.5
    return model


@pytest.fixture(scope="module", params=["llama", "gpt2", "adapted"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder: Path = request.getfixturevalue("gpt2" if request.param == "gpt2" else "llama")
    if request.param == "adapted":
        return tiny.adapted_model(tmp_path_factory.mktemp("adapted"), folder)
    return tiny.load_model(folder)


@pytest.fixture(scope="module")
def rows(llama: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Row]:
    return read_rows(tiny.prepare_data(tmp_path_factory.mktemp("data"), tiny.instruction_rows(3), llama))


def test_a_batch_answers_as_one_at_a_time(model: Any, tokenizer: Any) -> None:
    alone = answers(model, tokenizer, batch_size=1)
    assert answers(model, tokenizer, batch_size=4) == alone
    assert answers(model, tokenizer, batch_size=3) == alone
    assert len(set(alone)) > 1


def test_the_answers_are_the_most_likely_tokens(model: Any, tokenizer: Any) -> None:
    expected = [tokenizer.decode(by_hand(model, tokenizer, text, 12), skip_special_tokens=True) for text in PROMPTS]
    assert answers(model, tokenizer, batch_size=4) == expected


def test_answers_stop_at_the_end_of_sequence(llama: Path, tokenizer: Any) -> None:
    model = tiny.load_model(llama)
    long = answers(model, tokenizer, batch_size=4, max_new_tokens=40)
    short = answers(ends_early(model), tokenizer, batch_size=4, max_new_tokens=40)
    cut = [one != other for one, other in zip(short, long, strict=True)]
    assert any(cut)
    for one, other in zip(short, long, strict=True):
        assert other.startswith(one)
        assert "<|im_end|>" not in one


def test_answers_stop_at_tokens_that_the_model_names_besides(llama: Path, tokenizer: Any) -> None:
    model = tiny.load_model(llama)
    written = by_hand(model, tokenizer, PROMPTS[0], 12)
    model.generation_config.eos_token_id = [written[3], 5]
    assert stopping_tokens(model, tokenizer, Decoding(max_new_tokens=9)) == sorted({297, written[3], 5})
    stop = written.index(written[3]) + 1
    assert answers(model, tokenizer, batch_size=1)[0] == tokenizer.decode(written[:stop])


def test_the_answers_do_not_follow_the_defaults_of_the_model(llama: Path, tokenizer: Any) -> None:
    model = tiny.load_model(llama)
    expected = answers(model, tokenizer, batch_size=4)
    own = model.generation_config
    own.update(
        do_sample=True,
        temperature=5.0,
        top_p=0.5,
        top_k=3,
        no_repeat_ngram_size=1,
        num_beams=2,
        min_new_tokens=10,
        suppress_tokens=list(range(200)),
        repetition_penalty=3.0,
    )
    assert answers(model, tokenizer, batch_size=4) == expected
    assert "".join(stream(model, tokenizer, PROMPTS[1], Decoding(max_new_tokens=12))) == expected[1]
    assert model.generation_config is own


def test_progress_counts_prompts(llama: Path, tokenizer: Any) -> None:
    calls: list[tuple[int, int]] = []
    greedy(
        tiny.load_model(llama),
        tokenizer,
        [[1, 2], [3], [4, 5, 6]],
        Decoding(max_new_tokens=1),
        batch_size=2,
        progress=lambda done, total: calls.append((done, total)),
    )
    assert calls == [(2, 3), (3, 3)]


def test_a_stream_says_what_greedy_says(model: Any, tokenizer: Any) -> None:
    expected = answers(model, tokenizer, batch_size=1)
    for prompt, answer in zip(PROMPTS, expected, strict=True):
        assert "".join(stream(model, tokenizer, prompt, Decoding(max_new_tokens=12))) == answer


def test_a_warm_stream_follows_the_seed(llama: Path, tokenizer: Any) -> None:
    model = tiny.load_model(llama)

    def said(seed: int) -> str:
        torch.manual_seed(seed)
        return "".join(stream(model, tokenizer, "Tell me", Decoding(max_new_tokens=12, temperature=2.0)))

    assert said(1) == said(1)
    assert said(1) != said(2)


def test_a_stream_that_is_stopped_ends_there(llama: Path, tokenizer: Any) -> None:
    model = tiny.load_model(llama)
    whole = "".join(stream(model, tokenizer, PROMPTS[1], Decoding(max_new_tokens=40)))
    asked = iter(range(100))
    said = "".join(stream(model, tokenizer, PROMPTS[1], Decoding(max_new_tokens=40), stopped=lambda: next(asked) >= 5))
    assert whole.startswith(said)
    assert said != whole
    assert next(asked) == 6  # tokens


def test_a_stream_that_is_closed_leaves_no_thread_and_the_model_as_it_was(llama: Path, tokenizer: Any) -> None:
    model = tiny.load_model(llama)
    before = tiny.model_state(model)
    pieces = stream(model, tokenizer, PROMPTS[1], Decoding(max_new_tokens=400))
    next(pieces)
    assert THREAD in {thread.name for thread in threading.enumerate()}
    pieces.close()  # type: ignore[attr-defined]
    assert THREAD not in {thread.name for thread in threading.enumerate()}
    tiny.assert_same_state(tiny.model_state(model), before)


def test_a_stream_ends_where_the_model_can_read_no_more(llama: Path, tokenizer: Any) -> None:
    model = tiny.load_model(llama)
    long = "a" * (tiny.POSITIONS - 3)
    ids = tokenizer(long, add_special_tokens=False)["input_ids"]
    assert len(ids) == tiny.POSITIONS - 3
    assert list(stream(model, tokenizer, long, Decoding(max_new_tokens=40)))
    with pytest.raises(StageFailed, match="The prompt has 512 tokens, and the model reads 512 at most"):
        next(stream(model, tokenizer, f"{long}aaa", Decoding(max_new_tokens=1)))


def test_a_failure_in_a_stream_is_raised(llama: Path, tokenizer: Any) -> None:
    model = tiny.load_model(llama)
    model.lm_head = torch.nn.Linear(3, 3)
    with pytest.raises(RuntimeError):
        list(stream(model, tokenizer, "Hi", Decoding(max_new_tokens=2)))


def fail_while_borrowed(model: Any) -> None:
    with borrowed(model):
        assert not any(module.training for module in model.modules())
        raise KeyError


@pytest.mark.parametrize("mode", ["eval", "train", "mixed"])
def test_a_borrowed_model_comes_back_as_it_was(model: Any, mode: str, tokenizer: Any, rows: list[Row]) -> None:
    model.train(mode != "eval")
    if mode == "mixed":
        for module in list(model.modules())[::3]:
            module.training = False
    torch.manual_seed(3)
    before = tiny.model_state(model)
    mean_loss(model, rows, 2, tokenizer.pad_token_id, nothing)
    answers(model, tokenizer, batch_size=2)
    list(stream(model, tokenizer, "Hi", Decoding(max_new_tokens=3)))
    tiny.assert_same_state(tiny.model_state(model), before)
    with pytest.raises(KeyError):
        fail_while_borrowed(model)
    tiny.assert_same_state(tiny.model_state(model), before)
    model.eval()


def test_dropout_is_off_while_borrowed(llama: Path, tokenizer: Any, tmp_path: Path) -> None:
    model = tiny.adapted_model(tmp_path, llama, dropout=0.5)
    expected = answers(model, tokenizer, batch_size=4)
    model.train()
    assert answers(model, tokenizer, batch_size=4) == expected
