"""Checkpoints: whole or passed over, and nothing in them that runs."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch

from recipe_engine.training import checkpoint

Pair = tuple[torch.nn.Module, torch.optim.Optimizer]


def pair(seed: int = 0) -> Pair:
    """A model with a frozen part, and its optimizer after one step."""
    torch.manual_seed(seed)
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.LayerNorm(4), torch.nn.Linear(4, 2))
    model[0].requires_grad_(requires_grad=False)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=0.1, fused=True)
    model(torch.randn(5, 3)).square().sum().backward()
    optimizer.step()
    optimizer.zero_grad()
    return model, optimizer


def save(folder: Path, step: int, model_and_optimizer: Pair | None = None, **documents: Any) -> Path:
    model, optimizer = model_and_optimizer or pair()
    return checkpoint.save(folder, step, model, optimizer, documents)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def spoil(file: Path, position: int) -> None:
    """Flip a bit of a file that is not meant to be written."""
    content = bytearray(file.read_bytes())
    content[position] ^= 1
    file.chmod(0o644)
    file.write_bytes(bytes(content))


def test_everything_comes_back_bit_for_bit(tmp_path: Path) -> None:
    model, optimizer = pair()
    random.seed(5)
    saved = save(tmp_path, 3, (model, optimizer), loop={"at": [1, 2.5, None]})
    expected = torch.randn(3), random.random()
    other, other_optimizer = pair(seed=9)
    frozen = other[0].weight.clone()
    checkpoint.restore_model_and_optimizer(saved, other, other_optimizer)
    checkpoint.restore_generators(saved)
    found = torch.randn(3), random.random()
    assert torch.equal(found[0], expected[0])
    assert found[1] == expected[1]
    assert checkpoint.read_document(saved, "loop") == {"at": [1, 2.5, None]}
    assert torch.equal(other[0].weight, frozen), "what is frozen is not in a checkpoint"
    for one, two in zip(model[1:].parameters(), other[1:].parameters(), strict=True):
        assert torch.equal(one, two)
        ours, theirs = optimizer.state[one], other_optimizer.state[two]
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)
        assert all(ours[key].dtype == theirs[key].dtype for key in ours)


def test_the_next_step_is_the_same(tmp_path: Path) -> None:
    def step(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
        model(torch.ones(5, 3)).sum().backward()
        optimizer.step()
        return [parameter.detach().clone() for parameter in model[1:].parameters()]

    original = pair()
    saved = save(tmp_path, 1, original)
    other = pair()
    with torch.no_grad():
        for parameter in other[0][1:].parameters():
            parameter.add_(1)
    checkpoint.restore_model_and_optimizer(saved, *other)
    assert all(torch.equal(one, two) for one, two in zip(step(*original), step(*other), strict=True))


def test_two_are_kept(tmp_path: Path) -> None:
    for step in (2, 4, 6, 8):
        save(tmp_path, step)
    assert names(tmp_path) == ["step-00000006", "step-00000008"]
    assert checkpoint.latest(tmp_path) == tmp_path / "step-00000008"


def needing(folder: Path, step: int, needs: int) -> Path:
    return checkpoint.save(folder, step, *pair(), {}, needs=needs)


def test_what_is_needed_is_kept_beside_them(tmp_path: Path) -> None:
    for step, needs in ((2, 0), (4, 2), (6, 2), (8, 6)):
        needing(tmp_path, step, needs)
    assert names(tmp_path) == ["step-00000002", "step-00000006", "step-00000008"], "6 may have to do without 8"
    needing(tmp_path, 10, 6)
    assert names(tmp_path) == ["step-00000006", "step-00000008", "step-00000010"]


def test_one_without_what_it_needs_is_passed_over(tmp_path: Path) -> None:
    save(tmp_path, 2)
    for step in (4, 6):
        needing(tmp_path, step, 4)
    spoil(tmp_path / "step-00000004" / "trainable.safetensors", -1)
    assert checkpoint.latest(tmp_path) is None, "2 was removed when two others were there"
    assert names(tmp_path) == []


def test_none(tmp_path: Path) -> None:
    assert checkpoint.latest(tmp_path) is None


def test_a_half_written_one_is_cleared_away(tmp_path: Path) -> None:
    save(tmp_path, 2)
    torn = tmp_path / ".filling-x"
    torn.mkdir()
    (torn / "trainable.safetensors").write_bytes(b"half")
    assert checkpoint.latest(tmp_path) == tmp_path / "step-00000002"
    assert names(tmp_path) == ["step-00000002"]


FILES = ["trainable.safetensors", "optimizer.safetensors", "generators.safetensors", "python_random.json", "loop.json"]


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("place", [0, 0.5, -1])
def test_a_flipped_bit_is_noticed(tmp_path: Path, file: str, place: float) -> None:
    save(tmp_path, 2, loop={})
    newest = save(tmp_path, 4, loop={})
    assert sorted([*FILES, "checkpoint.json"]) == names(newest)
    size = (newest / file).stat().st_size
    spoil(newest / file, -1 if place == -1 else int(size * place))
    assert checkpoint.latest(tmp_path) == tmp_path / "step-00000002"


@pytest.mark.parametrize("damage", ["shortened", "gone", "manifest gone", "manifest torn", "manifest of another kind"])
def test_a_torn_one_is_passed_over(tmp_path: Path, damage: str) -> None:
    save(tmp_path, 2)
    newest = save(tmp_path, 4)
    weights, manifest = newest / "trainable.safetensors", newest / "checkpoint.json"
    for file in (weights, manifest):
        file.chmod(0o644)
    if damage == "shortened":
        weights.write_bytes(weights.read_bytes()[:-1])
    elif damage == "gone":
        weights.unlink()
    elif damage == "manifest gone":
        manifest.unlink()
    elif damage == "manifest torn":
        manifest.write_bytes(manifest.read_bytes()[:20])
    else:
        manifest.write_text("[]", encoding="utf-8")
    assert checkpoint.latest(tmp_path) == tmp_path / "step-00000002"


def test_the_step_of_a_damaged_one_can_be_written_again(tmp_path: Path) -> None:
    """The training that goes on from the one before comes to the same step."""
    save(tmp_path, 2)
    spoil(save(tmp_path, 4) / "trainable.safetensors", -1)
    assert checkpoint.latest(tmp_path) == tmp_path / "step-00000002"
    save(tmp_path, 4)
    assert checkpoint.latest(tmp_path) == tmp_path / "step-00000004"


def test_damaged_ones_do_not_count_among_those_that_are_kept(tmp_path: Path) -> None:
    save(tmp_path, 2)
    spoil(save(tmp_path, 8) / "trainable.safetensors", -1)
    checkpoint.latest(tmp_path)
    save(tmp_path, 3)
    spoil(tmp_path / "step-00000003" / "trainable.safetensors", -1)
    assert checkpoint.latest(tmp_path) == tmp_path / "step-00000002"


def test_nothing_is_pickled(tmp_path: Path) -> None:
    saved = save(tmp_path, 1, loop={"x": 1})
    for file in saved.iterdir():
        content = file.read_bytes()
        if file.suffix == ".json":
            json.loads(content)
        else:
            assert file.suffix == ".safetensors"
            length = int.from_bytes(content[:8], "little")
            json.loads(content[8 : 8 + length])
        assert not content.startswith((b"\x80", b"PK"))
