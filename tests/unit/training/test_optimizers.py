"""AdamW by other means: near the one of PyTorch, small where it says so, and a training on it goes on to the bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tests import tiny
from tests.unit.training.training_jobs import Fragile, Killed, prepared_data, sft

from recipe_engine.training import checkpoint
from recipe_engine.training.optimizers import adamw

# With this rank the factors of the tiny model's adapters are as large as the smallest tensors that are kept in 8 bits.
RANK = 128
JOB: dict[str, Any] = {"epochs": 2, "checkpoint_steps": 2, "weight_decay": 0.1, "warmup_steps": 1}


@pytest.fixture(scope="module")
def data(llama: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return prepared_data(tmp_path_factory.mktemp("data"), llama)


def trained(root: Path, llama: Path, data: dict[str, Path], **more: Any) -> tuple[Any, Path]:
    root.mkdir(parents=True, exist_ok=True)
    model = tiny.adapted_model(root, llama, rank=RANK, dropout=0.1)
    return sft(root, llama, data, model=model, **(JOB | more))


@pytest.fixture(scope="module")
def whole(llama: Path, data: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """The training in 8 bits that nothing happened to."""
    return trained(tmp_path_factory.mktemp("whole"), llama, data, optimizer="adamw_8bit")


def test_it_learns_nearly_what_full_precision_learns(
    tmp_path: Path, llama: Path, data: dict[str, Path], whole: tuple[Any, Path]
) -> None:
    exact = trained(tmp_path, llama, data)[0].facts["trace"]
    small = whole[0].facts["trace"]
    assert [entry["loss"] for entry in small] == pytest.approx([entry["loss"] for entry in exact], abs=0.1)
    assert small != exact
    assert small[-1]["loss"] < small[0]["loss"] - 0.2


def test_a_killed_training_goes_on_to_the_same_bytes(
    tmp_path: Path, llama: Path, data: dict[str, Path], whole: tuple[Any, Path]
) -> None:
    with pytest.raises(Killed):
        trained(tmp_path, llama, data, optimizer="adamw_8bit", reporter=Fragile(4))
    state = load_file(tmp_path / "work-train" / "step-00000002" / "optimizer.safetensors")
    small = {key.rpartition(":")[2] for key, tensor in state.items() if tensor.dtype == torch.uint8}
    assert small == {"state1", "state2"}
    again = trained(tmp_path, llama, data, optimizer="adamw_8bit")
    assert again[0].facts["trace"] == whole[0].facts["trace"]
    assert tiny.folder_digests(again[1]) == tiny.folder_digests(whole[1])


class Words(torch.nn.Module):
    """An embedding, a product and a norm, each with at least as many numbers as are kept in 8 bits, but the norm."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.embedding = torch.nn.Embedding(128, 64)
        self.product = torch.nn.Linear(64, 64, bias=False)
        self.norm = torch.nn.LayerNorm(64, bias=False)

    def forward(self, words: torch.Tensor) -> torch.Tensor:
        """(words,) -> (words, 64)"""
        found: torch.Tensor = self.norm(self.product(self.embedding(words)))
        return found


def step(model: Words, optimizer: Any) -> None:
    model(torch.arange(9)).square().sum().backward()
    optimizer.step()
    optimizer.zero_grad()


def made(model: Words, kind: str) -> Any:
    return adamw(kind, model, [{"params": list(model.parameters()), "weight_decay": 0.1}], lr=0.1, betas=(0.9, 0.99))


def test_moments_of_embeddings_and_of_small_tensors_stay_in_full_precision() -> None:
    model = Words()
    optimizer = made(model, "adamw_8bit")
    step(model, optimizer)
    kept = {name: optimizer.state[weight]["state2"].dtype for name, weight in model.named_parameters()}
    assert kept == {
        "embedding.weight": torch.float32,
        "product.weight": torch.uint8,
        "norm.weight": torch.float32,
    }


@pytest.mark.parametrize("kind", ["adamw", "adamw_8bit"])
def test_state_comes_back_bit_for_bit_and_the_next_step_is_the_same(kind: str, tmp_path: Path) -> None:
    model, other = Words(), Words()
    optimizer, again = made(model, kind), made(other, kind)
    step(model, optimizer)
    saved = checkpoint.save(tmp_path, 1, model, optimizer, {})
    checkpoint.restore_model_and_optimizer(saved, other, again)
    for one, two in zip(model.parameters(), other.parameters(), strict=True):
        ours, theirs = optimizer.state[one], again.state[two]
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(torch.as_tensor(ours[key]), torch.as_tensor(theirs[key])) for key in ours)
        assert all(type(ours[key]) is type(theirs[key]) for key in ours)
    step(model, optimizer)
    step(other, again)
    assert all(torch.equal(one, two) for one, two in zip(model.parameters(), other.parameters(), strict=True))


def test_pages_are_asked_for() -> None:
    """A GPU alone has them; a CPU keeps the moments where it keeps everything else."""
    model = Words()
    assert [made(model, kind).is_paged for kind in ("adamw_8bit", "paged_adamw", "paged_adamw_8bit")] == [
        False,
        True,
        True,
    ]
    assert [made(model, kind).args.optim_bits for kind in ("paged_adamw", "paged_adamw_8bit")] == [32, 8]
