"""Rows that lie end to end learn what rows side by side learn."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from tests import tiny
from tests.unit.training.packing_models import tiny_model
from tests.unit.training.training_jobs import Fragile, Killed, prepared_data, sft

from recipe_engine.errors import StageFailed
from recipe_engine.training.batches import collate, collate_packed, cut, plan_batches, plan_token_batches
from recipe_engine.training.isolation import prove_isolation
from recipe_engine.training.layout import PACKED_FAMILIES, layout_of
from recipe_engine.training.loss import label_loss, packed_states
from recipe_engine.training.options import TrainSft
from recipe_engine.training.packed_attention import packed_attention
from recipe_engine.training.rows import Row, read_rows
from recipe_engine.training.segments import Segments

PAD = 297


@pytest.fixture(scope="module")
def rows(llama: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Row]:
    folder = tmp_path_factory.mktemp("data")
    return read_rows(tiny.prepare_data(folder, tiny.instruction_rows(4), llama))


def loss_and_gradients(model: Any, batch: dict[str, Any]) -> tuple[float, dict[str, torch.Tensor]]:
    model.zero_grad()
    loss = label_loss(model, batch)
    loss.backward()
    return loss.item(), {
        name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None
    }


def assert_near(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    """Up to the rounding of float32 against the largest gradient."""
    assert found.keys() == expected.keys()
    largest = max(gradient.abs().max().item() for gradient in expected.values())
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-3, atol=1e-6 * largest)


COMMON = {"llama", "qwen3", "gemma2", "mistral", "gpt2", "gpt_neox"}
FAMILIES = [
    pytest.param(family, marks=() if family in COMMON else pytest.mark.slow) for family in sorted(PACKED_FAMILIES)
]


@pytest.mark.parametrize("family", FAMILIES)
def test_packed_is_padded(family: str, rows: list[Row]) -> None:
    """Loss and gradients of all weights, with the model's own attention on padded rows as the reference."""
    model = tiny_model(family).train()
    padded, expected = loss_and_gradients(model, collate(rows, PAD))
    before = model.config.to_dict()
    with packed_attention(model):
        packed, found = loss_and_gradients(model, collate_packed(rows))
    assert model.config.to_dict() == before
    assert packed == pytest.approx(padded, rel=1e-5)
    assert_near(found, expected)


def test_masks_by_hand() -> None:
    segments = Segments([3])
    like = torch.zeros(1, dtype=torch.bfloat16)
    whole, windowed = segments.mask((3, 3), 0, 1, None, like), segments.mask((3, 3), 0, 2, 2, like)
    assert whole.isneginf().tolist() == [[False, True, True], [False, False, True], [False, False, False]]
    rows = [[False, True, True], [False, False, True], [True, False, False]]
    assert windowed.isneginf().tolist() == [*rows, *rows], "once for each query head that shares the key head"
    assert whole[0, 0] == 0
    assert whole.dtype == torch.bfloat16
    assert segments.mask((3, 3), 0, 1, None, like) is whole, "made once for all layers"


@pytest.mark.parametrize("family", ["llama", "mistral"])
def test_long_rows_take_the_fused_kernel(family: str, rows: list[Row], monkeypatch: pytest.MonkeyPatch) -> None:
    """To the rounding, it does not matter which of the two ways a row takes."""
    model = tiny_model(family)
    with packed_attention(model):
        expected, gradients = loss_and_gradients(model, collate_packed(rows))
        monkeypatch.setattr("recipe_engine.training.packed_attention.LONGEST_IN_PRODUCTS", 0)
        found, others = loss_and_gradients(model, collate_packed(rows))
    assert found == pytest.approx(expected, rel=1e-5)
    assert_near(others, gradients)


def test_a_model_that_hands_on_no_segments(rows: list[Row]) -> None:
    model = tiny_model("llama")
    batch = collate_packed(rows)
    with packed_attention(model), pytest.raises(ValueError, match="does not hand on where the rows"):
        model(input_ids=batch["input_ids"], position_ids=batch["position_ids"])


def test_padding_is_refused(rows: list[Row]) -> None:
    model = tiny_model("llama")
    batch = collate(rows, PAD)
    with packed_attention(model), pytest.raises(ValueError, match="takes no attention mask"):
        model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])


def test_dropout_within_a_model_falls_on_every_row(rows: list[Row]) -> None:
    model = tiny_model("gpt2", attn_pdrop=0.5).train()
    states = []
    with packed_attention(model), torch.no_grad():
        for seed in (1, 1, 2):
            torch.manual_seed(seed)
            states.append(packed_states(model, collate_packed(rows))[0])
        quiet = packed_states(model.eval(), collate_packed(rows))[0]
    assert torch.equal(states[0], states[1])
    ends = [sum(len(row.input_ids) for row in rows[: number + 1]) - 1 for number in range(len(rows))]
    for other in (states[2], quiet):
        assert (states[0][ends] != other[ends]).any(dim=1).all()


def test_families_that_are_not_known_are_padded() -> None:
    assert layout_of({"model_type": "llama"}) == "packed"
    assert layout_of({"model_type": "llama"}, "padded") == "padded"
    assert layout_of({"model_type": "gptj"}) == layout_of({}) == "padded"


@pytest.mark.parametrize("count", [1, 3])
def test_rows_that_stay_apart(count: int, rows: list[Row], llama: Path) -> None:
    model = tiny.load_model(llama)
    before = tiny.model_state(model)
    with packed_attention(model):
        prove_isolation(model, rows[:count])
    tiny.assert_same_state(tiny.model_state(model), before)


def test_rows_that_leak_are_noticed(rows: list[Row], llama: Path) -> None:
    """Each embedding takes a little of the one before it, over the border of a row too."""
    model = tiny.load_model(llama)
    model.get_input_embeddings().register_forward_hook(lambda _module, _inputs, out: out + 1e-3 * out.roll(1, 1))
    with (
        packed_attention(model),
        pytest.raises(StageFailed, match=r"^train: in this model \(llama\) samples") as caught,
    ):
        prove_isolation(model, rows)
    assert caught.value.hint == 'Set layout = "padded".'


def test_steps_by_tokens_by_hand() -> None:
    lengths = [30, 30, 30, 30, 90]
    plan = plan_token_batches(lengths, epochs=2, batch_tokens=60, max_steps=None, seed=0)
    order = [row for step in plan.micro_batches for row in step]
    assert sorted(order[:5]) == sorted(order[5:]) == [0, 1, 2, 3, 4]
    assert order == [row for step in plan_batches(**ORDER).micro_batches for row in step]
    for step, following in itertools.pairwise(plan.micro_batches):
        tokens = sum(lengths[row] for row in step)
        assert tokens <= 60 or len(step) == 1
        assert tokens + lengths[following[0]] > 60, "the next row would have fitted"
    assert plan.accumulate == 1
    assert plan.steps == len(plan.micro_batches)
    short = plan_token_batches(lengths, epochs=2, batch_tokens=60, max_steps=2, seed=0)
    assert short.micro_batches == plan.micro_batches[:2]


ORDER: dict[str, Any] = {
    "rows": 5,
    "epochs": 2,
    "batch_size": 1,
    "micro_batch_size": None,
    "max_steps": None,
    "seed": 0,
}


@pytest.mark.parametrize(
    ("limits", "parts"),
    [
        ({}, [(3, 0, 1, 2)]),
        ({"rows": 3}, [(3, 0, 1), (2,)]),
        ({"tokens": 5}, [(3,), (0, 1), (2,)]),
        ({"tokens": 9}, [(3,), (0, 1, 2)]),
        ({"rows": 1, "tokens": 100}, [(3,), (0,), (1,), (2,)]),
    ],
)
def test_parts_by_hand(limits: dict[str, int], parts: list[tuple[int, ...]]) -> None:
    assert cut([3, 0, 1, 2], [2, 3, 4, 8], **limits) == parts


@pytest.mark.parametrize("parts", [{"micro_batch_tokens": 60}, {"micro_batch_size": 2}, {"layout": "padded"}])
def test_how_a_step_is_cut_and_laid_out_changes_its_rounding_alone(
    parts: dict[str, Any], tmp_path: Path, llama: Path
) -> None:
    data = prepared_data(tmp_path / "data", llama)
    whole, other = (
        sft(tmp_path / name, llama, data, dropout=0.0, max_steps=2, loss_on="all", **options)[0]
        for name, options in (("whole", {}), ("other", parts))
    )
    for one, two in zip(whole.facts["trace"], other.facts["trace"], strict=True):
        assert two["loss"] == pytest.approx(one["loss"], rel=1e-4)
        assert two["grad_norm"] == pytest.approx(one["grad_norm"], rel=1e-3)
    assert whole.facts["efficiency"]["tokens"] == other.facts["efficiency"]["tokens"]


@pytest.mark.parametrize("family", ["gpt2", "gemma2", pytest.param("phi", marks=pytest.mark.slow)])
def test_the_loss_in_chunks_is_the_loss(family: str, rows: list[Row], monkeypatch: pytest.MonkeyPatch) -> None:
    """Heads that are tied, capped and biased, all of them trained; 7 positions at a time."""
    model = tiny_model(family, vocab_size=tiny.VOCABULARY)
    with packed_attention(model):
        expected, gradients = loss_and_gradients(model, collate_packed(rows))
        monkeypatch.setattr("recipe_engine.training.head.LOGITS_AT_ONCE", 7 * tiny.VOCABULARY)
        found, others = loss_and_gradients(model, collate_packed(rows))
        with torch.no_grad():
            alone = label_loss(model, collate_packed(rows))
    assert found == pytest.approx(expected, rel=1e-6)
    assert alone.item() == pytest.approx(expected, rel=1e-6)
    assert_near(others, gradients)


def test_never_are_there_more_logits_than_a_chunk_has(rows: list[Row], monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model("llama")
    shapes: list[tuple[int, ...]] = []
    model.lm_head.register_forward_hook(lambda _module, _inputs, logits: shapes.append(tuple(logits.shape)))
    monkeypatch.setattr("recipe_engine.training.head.LOGITS_AT_ONCE", 7 * tiny.VOCABULARY)
    with packed_attention(model):
        label_loss(model, collate_packed(rows)).backward()
    learned = sum(sum(row.supervised) for row in rows)
    assert shapes == [*[(7, tiny.VOCABULARY)] * (learned // 7), (learned % 7, tiny.VOCABULARY)]


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({"batch_size": 8, "batch_tokens": 9}, "batch_tokens"),
        ({"micro_batch_size": 8, "micro_batch_tokens": 9}, "micro_batch_tokens"),
        ({"micro_batch_size": 5}, "micro_batch_size"),
        ({"micro_batch_size": 5, "batch_tokens": 100}, None),
        ({"micro_batch_tokens": 5, "batch_size": 3}, None),
    ],
)
def test_options_that_cannot_both_be_meant(options: dict[str, Any], found: str | None) -> None:
    assert [key for key, _ in TrainSft(**options).contradictions()] == ([found] if found else [])


def test_tokens_at_once() -> None:
    assert TrainSft().tokens_at_once is None
    assert TrainSft(batch_tokens=100).tokens_at_once == 100
    assert TrainSft(batch_tokens=10_000).tokens_at_once == 4096
    assert TrainSft(batch_tokens=10_000, micro_batch_tokens=5_000).tokens_at_once == 5_000
    assert TrainSft(batch_tokens=10_000, micro_batch_size=2).tokens_at_once is None


def test_steps_by_tokens_go_on(tmp_path: Path, llama: Path) -> None:
    job: dict[str, Any] = {"batch_size": None, "batch_tokens": 150, "micro_batch_tokens": 60, "checkpoint_steps": 2}
    data = prepared_data(tmp_path / "data", llama)
    whole, folder = sft(tmp_path / "whole", llama, data, **job)
    with pytest.raises(Killed):
        sft(tmp_path / "cut", llama, data, reporter=Fragile(3), **job)
    again, other = sft(tmp_path / "cut", llama, data, **job)
    assert again.facts["trace"] == whole.facts["trace"]
    assert tiny.folder_digests(other) == tiny.folder_digests(folder)
