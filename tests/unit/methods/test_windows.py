"""Perplexity of rows that are longer than a window, against the loop that the documentation of transformers shows."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from tests import tiny

from recipe_engine.methods.evaluate import Perplexity
from recipe_engine.methods.options import EvaluatePerplexity
from recipe_engine.training.rows import Row, read_rows
from recipe_engine.training.windows import longest_input, windows

LONG = 2**31 - 1


def row_of(supervised: list[bool]) -> Row:
    return Row(1, tuple(range(len(supervised))), tuple(supervised), 0, "", "")


def spans(row: Row, length: int | None, stride: int | None) -> list[tuple[list[int], list[int]]]:
    """(tokens, those that are measured) of each window; a token's id is its position."""
    return [
        (list(part.input_ids), [token for token, counts in zip(part.input_ids, part.supervised, strict=True) if counts])
        for part in windows(row, length, stride)
    ]


def test_windows_by_hand() -> None:
    text = row_of([True] * 10)
    assert spans(text, 4, 2) == [
        ([0, 1, 2, 3], [1, 2, 3]),
        ([2, 3, 4, 5], [4, 5]),
        ([4, 5, 6, 7], [6, 7]),
        ([6, 7, 8, 9], [8, 9]),
    ]
    assert spans(text, 4, None) == spans(text, 4, 2)
    assert spans(text, 6, 5) == [([0, 1, 2, 3, 4, 5], [1, 2, 3, 4, 5]), ([5, 6, 7, 8, 9], [6, 7, 8, 9])]
    answer = row_of([False] * 7 + [True] * 3)
    assert spans(answer, 4, 2) == [([4, 5, 6, 7], [7]), ([6, 7, 8, 9], [8, 9])], (
        "windows of the prompt alone are left out"
    )


def test_what_fits_is_not_touched() -> None:
    text = row_of([True] * 5)
    for length in (None, 5, 6):
        assert windows(text, length, 1) == [text]


@pytest.mark.parametrize("length", [2, 3, 7, 16])
def test_each_token_is_measured_once(length: int) -> None:
    text = row_of([True] * 33)
    for stride in range(1, length):
        parts = spans(text, length, stride)
        assert [token for _, measured in parts for token in measured] == list(range(1, 33))
        assert all(len(tokens) <= length for tokens, _ in parts)
        for tokens, measured in parts[1:]:
            assert measured[0] - tokens[0] >= 1, "each has something before it"


def documented(model: Any, row: Row, length: int, stride: int) -> tuple[float, int]:
    """Summed loss and number of tokens: huggingface.co/docs/transformers/perplexity, with labels for some tokens."""
    ids, total, tokens, previous = torch.tensor([row.input_ids]), 0.0, 0, 0
    wanted = torch.tensor([row.supervised])
    for begin in range(0, ids.shape[1], stride):
        end = min(begin + length, ids.shape[1])
        inputs = ids[:, begin:end]
        labels = inputs.where(wanted[:, begin:end], -100).clone()
        labels[:, : -(end - previous)] = -100
        with torch.no_grad():
            loss = model(inputs, labels=labels).loss
        counted = int((labels[:, 1:] != -100).sum())
        total += loss.item() * counted if counted else 0.0
        tokens, previous = tokens + counted, end
        if end == ids.shape[1]:
            break
    return total, tokens


@pytest.fixture(scope="module")
def texts(llama: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Long and short rows, of which all or the answer is learned."""
    folder = tmp_path_factory.mktemp("texts")
    lines = [" ".join(f"{n} comes before {n + 1}." for n in range(start, start + 9)) for start in (0, 40)]
    texts = [{"text": text} for text in (*lines, "One.")]
    answers = [{"prompt": lines[0], "completion": lines[1]}, {"prompt": "One?", "completion": "Two."}]
    table: dict[str, Any] = {"max_length": LONG}
    return {
        "text": tiny.prepare_data(folder / "text", texts, llama, data_format="text", **table),
        "answer": tiny.prepare_data(folder / "answer", answers, llama, **table),
    }


def measured(root: Path, model: Any, tokenizer: Path, data: Path, **options: Any) -> tuple[dict[str, float], str]:
    """Metrics, and the counts of each row."""
    request = tiny.stage_request(
        root, EvaluatePerplexity(**options), model=model, tokenizer=tokenizer, data={"eval": data}
    )
    result = Perplexity().run(request)
    assert result.facts["tokens"] == sum(count for _, count in json.loads((request.output / "counts.json").read_text()))
    return dict(result.metrics), (request.output / "counts.json").read_text()


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
@pytest.mark.parametrize(("data", "prompts"), [("text", False), ("answer", False), ("answer", True)])
def test_equal_to_the_documented_loop(
    request: pytest.FixtureRequest, texts: dict[str, Path], tmp_path: Path, architecture: str, data: str, prompts: bool
) -> None:
    """In windows, and, the last time, each row as a whole."""
    folder: Path = request.getfixturevalue(architecture)
    model = tiny.load_model(folder)
    rows = read_rows(texts[data])
    assert max(len(row.input_ids) for row in rows) > 96
    for length, stride in ((32, 16), (50, 7), (LONG, LONG)):
        wanted = [row_with(row, prompts) for row in rows]
        parts = [documented(model, row, length, stride) for row in wanted]
        loss = sum(total for total, _ in parts) / sum(tokens for _, tokens in parts)
        chosen = {"window": length, "stride": stride} if length < LONG else {}
        found, counts = measured(tmp_path, model, folder, texts[data], prompts=prompts, batch_size=3, **chosen)
        assert [tokens for _, tokens in json.loads(counts)] == [tokens for _, tokens in parts]
        assert f"{found['loss']:.4g}" == f"{loss:.4g}"
        assert f"{found['perplexity']:.4g}" == f"{math.exp(loss):.4g}"
        assert found["loss"] == pytest.approx(loss, rel=2e-6)


def row_with(row: Row, prompts: bool) -> Row:
    return Row(1, row.input_ids, (True,) * len(row.input_ids) if prompts else row.supervised, 0, "", "")


def test_a_window_as_long_as_the_text_changes_no_bit(texts: dict[str, Path], llama: Path, tmp_path: Path) -> None:
    model = tiny.load_model(llama)
    longest = max(len(row.input_ids) for row in read_rows(texts["text"]))
    assert measured(tmp_path, model, llama, texts["text"], window=longest) == measured(
        tmp_path, model, llama, texts["text"]
    )


def test_every_option_is_read(texts: dict[str, Path], llama: Path, tmp_path: Path) -> None:
    model = tiny.load_model(llama)
    found = {
        measured(tmp_path, model, llama, texts["answer"], **options)[0]["loss"]
        for options in ({}, {"window": 32}, {"window": 32, "stride": 3}, {"window": 32, "prompts": True})
    }
    assert len(found) == 4


def test_a_row_longer_than_the_model_is_read_in_windows(llama: Path, gpt2: Path, tmp_path: Path) -> None:
    """GPT-2 has no more positions to give; without windows it could not read the row."""
    rows = [{"text": "a b c " * 200}]
    data = tiny.prepare_data(tmp_path / "data", rows, llama, data_format="text", max_length=LONG)
    model = tiny.load_model(gpt2)
    assert longest_input(model) == tiny.POSITIONS < len(read_rows(data)[0].input_ids)
    found = measured(tmp_path, model, gpt2, data)
    assert found == measured(tmp_path, model, gpt2, data, window=tiny.POSITIONS, stride=tiny.POSITIONS // 2)
