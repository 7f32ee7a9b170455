"""Two models on one base: equal frozen weights lie in memory once, and neither model notices."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
import torch
from tests import tiny

from recipe_engine.training.reward_model import RewardModel, scores
from recipe_engine.training.sharing import share_frozen_weights

TEXTS = [(5, 6, 7, 297), (9, 8, 30, 31, 32)]


def judge(root: Path, folder: Path, **options: Any) -> RewardModel:
    model = RewardModel(tiny.adapted_model(root, folder, **options))
    with torch.no_grad():
        model.score.weight.normal_(generator=torch.Generator().manual_seed(1))
    model.requires_grad_(requires_grad=False)
    return model


def addresses(model: Any) -> set[int]:
    return {weight.data_ptr() for weight in model.parameters()}


@pytest.mark.parametrize("targets", ["all-linear", ("q_proj",)])
def test_the_base_is_there_once(targets: Any, tmp_path: Path, llama: Path) -> None:
    policy, model = tiny.adapted_model(tmp_path, llama, rank=2), judge(tmp_path, llama, target_modules=targets)
    before, base = scores(model, TEXTS, 297, batch_size=2), tiny.load_model(llama)
    state = tiny.model_state(policy)
    freed = share_frozen_weights(model, policy)
    assert freed == sum(weight.numel() * weight.element_size() for weight in base.parameters())
    assert len(addresses(policy) & addresses(model)) == len(list(base.parameters()))
    assert scores(model, TEXTS, 297, batch_size=2) == before
    tiny.assert_same_state(tiny.model_state(policy), state, generators=False)
    assert share_frozen_weights(model, policy) == 0


def test_what_is_trained_or_different_is_not_shared(tmp_path: Path, llama: Path) -> None:
    policy, model = tiny.load_model(llama), judge(tmp_path, llama)
    policy.requires_grad_()
    assert share_frozen_weights(model, policy) == 0
    policy.requires_grad_(requires_grad=False)
    with torch.no_grad():
        for weight in policy.parameters():
            weight[..., 0] += 1.0
    assert share_frozen_weights(model, policy) == 0
    assert share_frozen_weights(model, tiny.load_model(llama, "bfloat16")) == 0
    assert not addresses(policy) & addresses(model)


def test_quantized_weights_are_shared_too(tmp_path: Path, llama: Path) -> None:
    from recipe_engine.methods.adapt_lora import AdaptLora
    from recipe_engine.methods.load_nf4 import LoadNf4
    from recipe_engine.methods.options import AdaptLora as LoraOptions
    from recipe_engine.methods.options import LoadNf4 as Nf4Options

    def quantized(name: str) -> Any:
        root = tmp_path / name
        load = tiny.stage_request(root, Nf4Options(), node="load", source=tiny.resolve(llama))
        model = tiny.run_stage(LoadNf4(), load).live
        adapt = tiny.stage_request(root, LoraOptions(rank=2), node="adapt", model=model)
        return tiny.run_stage(AdaptLora(), adapt).live

    policy, model = quantized("policy"), RewardModel(quantized("judge"))
    model.requires_grad_(requires_grad=False)
    with torch.no_grad():
        model.score.weight.fill_(0.1)
    before = scores(model, TEXTS, 297, batch_size=2)
    assert share_frozen_weights(model, policy) > 0
    assert scores(model, TEXTS, 297, batch_size=2) == before


@pytest.mark.slow
def test_the_memory_of_the_copies_goes_back_to_the_system() -> None:
    """In a process of its own, where nothing else moves the heap; the model that lets go lies below the other."""
    code = """
        import os
        import torch
        from recipe_engine.training.sharing import share_frozen_weights

        def held():
            with open("/proc/self/statm") as file:
                return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

        def model():
            layers = [torch.nn.Linear(512, 512, bias=False) for _ in range(100)]
            for layer in layers:
                torch.nn.init.ones_(layer.weight)
            return torch.nn.ModuleList(layers).requires_grad_(False)

        ones = torch.ones(2**22)
        del ones  # glibc maps pieces apart only from the size of the largest that it has seen go
        judge, policy = model(), model()
        before = held()
        freed = share_frozen_weights(judge, policy)
        print(freed, before - held())
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, check=True, text=True)
    freed, gone = map(int, done.stdout.split())
    assert freed == 100 * 512 * 512 * 4
    assert gone > 0.9 * freed
