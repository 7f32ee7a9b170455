"""Learning rate, weight decay and clipping, as the real trainer applies them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from tests import tiny
from tests.unit.training.training_jobs import prepared_data, sft

from recipe_engine.training.options import TrainSft as Options
from recipe_engine.training.rows import read_rows
from recipe_engine.training.sft import train
from recipe_engine.training.trainer import decay_groups

PEAK = 5e-3


@pytest.fixture(scope="module")
def data(llama: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return prepared_data(tmp_path_factory.mktemp("data"), llama)


def rates(root: Path, folder: Path, data: dict[str, Path], **options: Any) -> list[float]:
    """Learning rate of each of eight steps."""
    result, _ = sft(root, folder, data, epochs=9, max_steps=8, learning_rate=PEAK, **options)
    return [entry["learning_rate"] for entry in result.facts["trace"]]


def test_linear_with_warmup(tmp_path: Path, llama: Path, data: dict[str, Path]) -> None:
    expected = [PEAK * share for share in (0, 1 / 2, 1, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6)]
    assert rates(tmp_path / "steps", llama, data, warmup_steps=2) == pytest.approx(expected)
    assert rates(tmp_path / "ratio", llama, data, warmup_ratio=0.25) == pytest.approx(expected)


def test_one_step_of_warmup_is_one_step(tmp_path: Path, llama: Path, data: dict[str, Path]) -> None:
    expected = [0.0, *(PEAK * share / 7 for share in range(7, 0, -1))]
    assert rates(tmp_path, llama, data, warmup_steps=1) == pytest.approx(expected)


def test_a_ratio_is_rounded_up_to_whole_steps(tmp_path: Path, llama: Path, data: dict[str, Path]) -> None:
    found = rates(tmp_path, llama, data, warmup_ratio=0.15)
    assert found[:3] == pytest.approx([0, PEAK / 2, PEAK])


def test_cosine_without_warmup(tmp_path: Path, llama: Path, data: dict[str, Path]) -> None:
    expected = [PEAK * (1 + math.cos(math.pi * step / 8)) / 2 for step in range(8)]
    assert rates(tmp_path, llama, data, schedule="cosine") == pytest.approx(expected)


def test_constant_with_warmup(tmp_path: Path, llama: Path, data: dict[str, Path]) -> None:
    expected = [0, PEAK / 4, PEAK / 2, 3 * PEAK / 4, PEAK, PEAK, PEAK, PEAK]
    assert rates(tmp_path, llama, data, schedule="constant", warmup_steps=4) == pytest.approx(expected)


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_no_bias_and_no_norm_decays(architecture: str, request: pytest.FixtureRequest) -> None:
    """On full weights: with adapters alone no norm is trained, and nothing would be tested."""
    model = tiny.load_model(request.getfixturevalue(architecture)).requires_grad_(requires_grad=True)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    decayed, spared = ({names[id(parameter)] for parameter in group} for group in decay_groups(model))
    is_spared = {name: "norm" in name or ".ln_" in name or name.endswith(".bias") for name in names.values()}
    assert spared == {name for name, holds in is_spared.items() if holds}
    assert decayed == {name for name, holds in is_spared.items() if not holds}
    assert len(spared) == (5 if architecture == "llama" else 2 * (4 + 4) + 2)


def test_each_trained_parameter_is_in_one_group(llama: Path, tmp_path: Path) -> None:
    folder = tiny.write_model(tmp_path / "tied", tied=True)
    model = tiny.load_model(folder).requires_grad_(requires_grad=True)
    decayed, spared = decay_groups(model)
    found = [id(parameter) for parameter in (*decayed, *spared)]
    assert sorted(found) == sorted({id(parameter) for parameter in model.parameters()})
    adapted = tiny.adapted_model(tmp_path, llama)
    decayed, spared = decay_groups(adapted)
    assert not spared
    assert {id(parameter) for parameter in decayed} == {
        id(parameter) for parameter in adapted.parameters() if parameter.requires_grad
    }


def fully_trained(root: Path, folder: Path, data: dict[str, Path], **options: Any) -> tuple[Any, Any]:
    """A model all of whose weights went through one step, and its trace."""
    root.mkdir(parents=True, exist_ok=True)
    model = tiny.load_model(folder).requires_grad_(requires_grad=True)
    request = tiny.stage_request(root, Options(batch_size=4, max_steps=1, **options), model=model)
    return model, train(request, read_rows(data["train"]), [], 297)


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_decay_shrinks_weights_and_leaves_norms(
    architecture: str, request: pytest.FixtureRequest, tmp_path: Path, data: dict[str, Path]
) -> None:
    folder = request.getfixturevalue(architecture)
    before = dict(tiny.load_model(folder).named_parameters())
    plain, _ = fully_trained(tmp_path / "plain", folder, data, learning_rate=1e-3)
    decayed, _ = fully_trained(tmp_path / "decayed", folder, data, learning_rate=1e-3, weight_decay=0.5)
    spared = {id(parameter) for parameter in decay_groups(decayed)[1]}
    others = dict(plain.named_parameters())
    for name, parameter in decayed.named_parameters():
        difference = (others[name] - parameter).detach()
        # AdamW takes learning rate * decay * weight off, once.
        expected = torch.zeros_like(difference) if id(parameter) in spared else 1e-3 * 0.5 * before[name]
        torch.testing.assert_close(difference, expected, rtol=1e-2, atol=1e-6, msg=name)


def test_gradients_are_clipped_and_the_norm_is_logged_before(
    tmp_path: Path, llama: Path, data: dict[str, Path]
) -> None:
    """Adam's second moment after one step holds the clipped gradient squared."""
    from recipe_engine.training import checkpoint

    def moments(root: Path, **options: Any) -> tuple[float, float]:
        reporter = tiny.Recorder(stop_after=1)
        with pytest.raises(Exception, match="stopped after step 1"):
            sft(root, llama, data, epochs=2, reporter=reporter, **options)
        from safetensors.torch import load_file

        saved = checkpoint.latest(root / "work-train")
        assert saved is not None
        state = load_file(saved / "optimizer.safetensors")
        squares = sum(tensor.sum().item() for name, tensor in state.items() if name.endswith(":exp_avg_sq"))
        return reporter.logged[0][1]["grad_norm"], math.sqrt(squares / (1 - 0.999))

    norm, applied = moments(tmp_path / "clipped", max_grad_norm=0.25)
    assert norm > 0.5
    assert applied == pytest.approx(0.25, rel=1e-3)
    norm, applied = moments(tmp_path / "wide", max_grad_norm=1e6)
    assert applied == pytest.approx(norm, rel=1e-3)
    assert moments(tmp_path / "off", max_grad_norm=0.0) == pytest.approx((norm, norm), rel=1e-3)
