"""Answers that are written here are those that transformers writes."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from tests import tiny
from tests.unit.training.packing_models import tiny_model

from recipe_engine.training import decoding as decoder
from recipe_engine.training.adapter_products import adapter_products
from recipe_engine.training.choice import Decoding
from recipe_engine.training.decoding import can_decode, decode
from recipe_engine.training.generation import generation_config, greedy, left_padded, up_to_end, write
from recipe_engine.training.held_adapters import held_adapters
from recipe_engine.training.layout import PACKED_FAMILIES
from recipe_engine.training.places import Arrival, Places, Step, attention_in_places

END = 297
PROMPTS = [list(range(5, 5 + length)) for length in (3, 38, 9, 21, 1, 27, 14)]
COMMON = {"llama", "qwen3", "gemma2", "mistral", "gpt2", "gpt_neox"}
FAMILIES = [
    pytest.param(family, marks=() if family in COMMON else pytest.mark.slow) for family in sorted(PACKED_FAMILIES)
]


def nothing(_done: int, _total: int) -> None:
    """For whom progress does not matter."""


def written(model: Any, ends: list[int], *, at_once: int = 3, max_new_tokens: int = 24, **more: Any) -> list[list[int]]:
    chosen = Decoding(max_new_tokens=max_new_tokens, **more)
    return decode(model.eval(), PROMPTS, chosen, ends, at_once=at_once, progress=nothing)


def by_transformers(model: Any, tokenizer: Any, ends: list[int], **more: Any) -> list[list[int]]:
    """One batch, padded on the left."""
    config = generation_config(tokenizer, Decoding(max_new_tokens=24, **more), ends)
    batch = left_padded(PROMPTS, END, "cpu")
    tokens = model.eval().generate(**batch, generation_config=config)[:, batch["input_ids"].shape[1] :]
    return [up_to_end(answer, ends) for answer in tokens.tolist()]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_likeliest_tokens_are_those_of_transformers(family: str, tokenizer: Any) -> None:
    """Answers longer than the window of those that have one, and one that ends others early."""
    model = tiny_model(family)
    whole = by_transformers(model, tokenizer, [END])
    assert written(model, [END]) == written(model, [END], at_once=7) == whole
    ends = [END, whole[1][4], whole[3][7]]
    expected = by_transformers(model, tokenizer, ends)
    assert len({len(answer) for answer in expected}) > 1
    assert written(model, ends) == expected
    assert written(model, ends, min_new_tokens=6) == by_transformers(model, tokenizer, ends, min_new_tokens=6)


def test_an_answer_does_not_depend_on_the_others(llama: Path) -> None:
    model = tiny.load_model(llama)
    with torch.no_grad():
        model.lm_head.weight[END] *= 2.5  # some end early
    found = []
    for at_once in (1, 2, 7):
        torch.manual_seed(4)
        found.append(written(model, [END], at_once=at_once, temperature=0.9, top_k=50))
    assert found[0] == found[1] == found[2]
    lengths = {len(answer) for answer in found[0]}
    assert len(lengths) > 2
    assert 24 in lengths


def test_prompts_are_read_in_parts(llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny.load_model(llama)
    expected = written(model, [END])
    monkeypatch.setattr(decoder, "_TOKENS_AT_ONCE", 40)
    assert written(model, [END], at_once=7) == expected


def test_progress_counts_answers(llama: Path) -> None:
    calls: list[tuple[int, int]] = []
    chosen = Decoding(max_new_tokens=2)
    model = tiny.load_model(llama)
    decode(model, PROMPTS, chosen, [END], at_once=3, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(3, 7), (6, 7), (7, 7)]
    assert decode(model, [], chosen, [END], at_once=3, progress=nothing) == []


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_held_adapters_multiply_as_in_training(dtype: str, tmp_path: Path, llama: Path) -> None:
    model = tiny.adapted_model(tmp_path, llama, dtype=dtype, dropout=0.5).eval()
    ids = torch.tensor([PROMPTS[1]])
    with torch.no_grad():
        plain = model(input_ids=ids).logits
        with adapter_products(model):
            expected = model(input_ids=ids).logits
            with held_adapters(model):
                found = model(input_ids=ids).logits
            assert torch.equal(model(input_ids=ids).logits, expected), "what was at work is at work again"
        with held_adapters(model), model.disable_adapter():
            without = model(input_ids=ids).logits
        assert torch.equal(model(input_ids=ids).logits, plain)
        with model.disable_adapter():
            assert torch.equal(model(input_ids=ids).logits, without)
    # In training, adapters of one tensor are one product, whose sums are in another order.
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(found, without, rtol=1e-2)


def test_places_by_hand() -> None:
    """Two sequences, one head of width 1: keys are 0, so a token sees the mean of the values before it and its own."""
    places, layer = Places(3), torch.nn.Identity()

    def tensor(*numbers: float) -> torch.Tensor:
        return torch.tensor(numbers, dtype=torch.float32)[None, None, :, None]

    def attended(forward: Arrival | Step, *values: float) -> list[float]:
        nothing_alike = torch.zeros(1, 1, len(values), 1)
        found = forward.attend(layer, nothing_alike, nothing_alike, tensor(*values))
        return [round(number, 5) for number in found.flatten().tolist()]

    assert attended(Arrival(places, [2, 1]), 2, 4, 8) == [2, 3, 8]
    assert attended(Step(places, torch.device("cpu")), 6, 10) == [4, 9]
    assert places.lengths == [3, 2]
    places.leave(0)
    assert places.lengths == [2]
    assert attended(Arrival(places, [3]), 1, 2, 6) == [1, 1.5, 3]
    assert attended(Step(places, torch.device("cpu")), 12, 3) == [10, 3]
    for number in itertools.count():
        if places.lengths[0] > 40:  # where room was made twice
            break
        attended(Step(places, torch.device("cpu")), 0, 12.0 + number)
    assert attended(Step(places, torch.device("cpu")), 12, 0)[0] == round((30 + 12) / 42, 5)


def test_a_model_that_hands_on_no_pass(llama: Path) -> None:
    model = tiny.load_model(llama)
    with attention_in_places(model), pytest.raises(ValueError, match="does not hand on where its sequences are"):
        model(input_ids=torch.tensor([[1, 2]]))


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"model_type": "llama"}, True),
        ({"model_type": "llama", "rope_parameters": {"rope_type": "llama3", "factor": 8.0}}, True),
        ({"model_type": "llama", "rope_parameters": {"rope_type": "dynamic", "factor": 8.0}}, False),
        ({"model_type": "gemma3_text", "rope_parameters": {"full_attention": {"rope_type": "dynamic"}}}, False),
        ({"model_type": "mamba"}, False),
        ({"model_type": "gptj"}, False),
    ],
)
def test_what_can_be_written_here(config: dict[str, Any], expected: bool) -> None:
    assert can_decode(config) is expected


@pytest.mark.parametrize("family", ["mamba", "gptj"])
def test_other_architectures_are_written_by_transformers(family: str, tokenizer: Any) -> None:
    sizes = {"mamba": {"state_size": 4}, "gptj": {"n_embd": 32, "n_layer": 2, "n_head": 4, "rotary_dim": 4}}[family]
    model = tiny_model(family, **sizes).eval()
    alone = [
        write(model, tokenizer, [prompt], Decoding(max_new_tokens=5), at_once=1, progress=nothing)[0]
        for prompt in PROMPTS
    ]
    assert all(1 <= len(answer) <= 5 for answer in alone)
    texts = greedy(model, tokenizer, PROMPTS, Decoding(max_new_tokens=5), batch_size=1, progress=nothing)
    assert texts == [tokenizer.decode(answer, skip_special_tokens=True) for answer in alone]
