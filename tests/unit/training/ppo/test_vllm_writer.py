"""``rollout = "vllm"``: what vLLM is told. In its place stands what reads the files with transformers and PEFT."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar

import pytest
import torch
from peft import LoraConfig, PeftModel
from tests import tiny
from tests.unit.training.ppo.ppo_jobs import END, fresh_model, ppo, prompts
from transformers import AutoModelForCausalLM, GenerationConfig

from recipe_engine.errors import Interrupted, StageFailed
from recipe_engine.training.choice import Decoding
from recipe_engine.training.joined_adapter import write_base, write_joined_adapter
from recipe_engine.training.ppo.options import TrainPpo
from recipe_engine.training.ppo.vllm_writer import VllmWriter, arguments, sampling

ROWS = torch.tensor([[21, 22, 23, 24, 25, 26], [31, 32, 33, 34, 35, 36]])


class StandIn:
    """Answers as ``vllm.LLM`` does, the likeliest tokens alone, with what lies in the folders that it is given."""

    made: ClassVar[list[StandIn]] = []

    def __init__(self, **given: Any) -> None:
        torch.manual_seed(given.get("seed", 0))  # as vLLM does
        self.given, self.states = given, ["awake"]
        self.asked: list[tuple[Any, Any]] = []
        self.llm_engine = SimpleNamespace(engine_core=SimpleNamespace(shutdown=lambda: self.states.append("gone")))
        StandIn.made.append(self)

    def sleep(self, level: int) -> None:
        self.states.append(f"asleep {level}")

    def wake_up(self) -> None:
        self.states.append("awake")

    def generate(self, prompts: Any, parameters: Any, *, use_tqdm: bool, lora_request: Any) -> list[Any]:
        assert self.states[-1] == "awake"
        assert not use_tqdm
        self.asked.append((parameters, lora_request))
        base = AutoModelForCausalLM.from_pretrained(self.given["model"])
        model = PeftModel.from_pretrained(base, lora_request.lora_path)
        found = []
        for prompt, of in zip(prompts, parameters, strict=True):
            tokens = likeliest(model, prompt["prompt_token_ids"], of.max_tokens, of.stop_token_ids)
            found.append(SimpleNamespace(outputs=[SimpleNamespace(token_ids=tuple(tokens))]))
        return found


def likeliest(model: Any, prompt: Sequence[int], most: int, ends: Sequence[int]) -> list[int]:
    """The likeliest answer, by transformers."""
    config = GenerationConfig(do_sample=False, max_new_tokens=most, eos_token_id=list(ends), pad_token_id=0)
    tokens: list[int] = model.generate(input_ids=torch.tensor([list(prompt)]), generation_config=config)[0].tolist()
    return tokens[len(prompt) :]


@pytest.fixture
def vllm(monkeypatch: pytest.MonkeyPatch) -> list[StandIn]:
    """The stand-ins that were made."""
    package, lora, request = ModuleType("vllm"), ModuleType("vllm.lora"), ModuleType("vllm.lora.request")
    vars(package).update(LLM=StandIn, SamplingParams=SimpleNamespace)
    vars(request)["LoRARequest"] = lambda name, number, path, *, load_inplace: SimpleNamespace(
        name=name, number=number, lora_path=path, load_inplace=load_inplace
    )
    for module in (package, lora, request):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(StandIn, "made", [])
    for name in ("VLLM_ENABLE_V1_MULTIPROCESSING", "VLLM_CONFIGURE_LOGGING", "VLLM_NO_USAGE_STATS"):
        monkeypatch.setenv(name, "")
    return StandIn.made


def stacked(root: Path, folder: Path) -> Any:
    """A policy on top of another recipe's adapter, of another rank, on fewer layers, scaled otherwise."""
    model = fresh_model(root, folder, rank=4, alpha=8)
    model.add_adapter("below", LoraConfig(r=2, lora_alpha=12, use_rslora=True, target_modules=["q_proj", "down_proj"]))
    model.base_model.set_adapter(["default", "below"])
    torch.manual_seed(3)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if ".lora_" in name:
                weight.normal_(std=0.2)
    return model.eval()


def test_the_base_and_the_sum_of_the_adapters_are_the_policy(tmp_path: Path, llama: Path) -> None:
    model = stacked(tmp_path / "work", llama)
    write_base(model, tmp_path / "base")
    assert write_joined_adapter(model, tmp_path / "adapter") == 6
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    with torch.no_grad():
        expected = model(ROWS).logits
        with model.disable_adapter():
            assert torch.equal(base(ROWS).logits, model(ROWS).logits)
        found = PeftModel.from_pretrained(base, tmp_path / "adapter")(ROWS).logits
    assert not torch.allclose(expected, tiny.load_model(llama)(ROWS).logits, atol=0.1), "the adapters do something"
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_answers_are_those_of_the_policy_as_it_is_now(tmp_path: Path, llama: Path, tokenizer: Any, vllm: Any) -> None:
    model = stacked(tmp_path / "work", llama)
    rows = [row.input_ids for row in prompts(tokenizer, 3)]
    writer = VllmWriter(model, tmp_path / "work", longest=40, memory=0.25)
    answers = []
    for change in (0.0, 0.3):
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if ".lora_B." in name:
                    weight.add_(change)
        answers.append(writer(rows, Decoding(max_new_tokens=5), [END]))
        assert answers[-1] == [likeliest(model, row, 5, [END]) for row in rows]
    assert answers[0] != answers[1], "the change is seen"
    assert vllm[0].states == ["awake", "asleep 1", "awake", "asleep 1", "awake", "asleep 1"]
    request = vllm[0].asked[0][1]
    assert (request.number, request.load_inplace) == (1, True), "the adapter of the step before is not used again"
    writer.close()
    assert vllm[0].states[-1] == "gone"
    assert [path.name for path in (tmp_path / "work").iterdir() if "vllm" in path.name] == []


def test_what_vllm_is_told(tmp_path: Path) -> None:
    assert arguments(tmp_path, 6, 40, 0.25) == {
        "model": str(tmp_path),
        "skip_tokenizer_init": True,
        "trust_remote_code": False,
        "generation_config": "vllm",
        "max_model_len": 40,
        "enable_lora": True,
        "max_loras": 1,
        "max_lora_rank": 8,
        "enable_prefix_caching": False,
        "enable_sleep_mode": True,
        "gpu_memory_utilization": 0.25,
    }
    decoding = Decoding(max_new_tokens=9, temperature=0.7, min_new_tokens=2, top_k=5, top_p=0.9)
    told = {"temperature": 0.7, "top_k": 5, "top_p": 0.9, "min_tokens": 2, "max_tokens": 9}
    assert sampling(decoding, [END, 3]) == told | {"stop_token_ids": [END, 3], "detokenize": False}


def test_how_many_are_written_at_once_is_its_own_matter() -> None:
    asked: dict[str, Any] = {"reward": (), "generation_size": 4}
    assert TrainPpo(**asked).contradictions() == []
    found = TrainPpo(**asked, rollout="vllm").contradictions()
    assert [key for key, _ in found] == ["generation_size"]


def test_adapters_that_are_too_large_for_it(tmp_path: Path) -> None:
    assert arguments(tmp_path, 512, 40, 0.25)["max_lora_rank"] == 512
    with pytest.raises(StageFailed, match="rank 512 at most, and those of this policy have 513 together"):
        arguments(tmp_path, 513, 40, 0.25)


def test_a_model_that_it_does_not_know(tmp_path: Path, llama: Path, vllm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    del vllm

    def refuse(_self: Any, **_given: Any) -> None:
        raise ValueError("Model architectures ['Nobody'] are not supported for now.")

    monkeypatch.setattr(StandIn, "__init__", refuse)
    model = fresh_model(tmp_path / "work", llama)
    with pytest.raises(StageFailed, match=r"vLLM cannot write the answers of this model: .*Nobody"):
        VllmWriter(model, tmp_path / "work", longest=40, memory=0.25)


def test_a_training_that_goes_on_draws_as_one_that_never_stopped(tmp_path: Path, llama: Path, vllm: Any) -> None:
    few: dict[str, Any] = {"rollout": "vllm", "max_steps": 2, "checkpoint_steps": 1, "max_new_tokens": 3}
    whole, _ = ppo(tmp_path / "whole", llama, **few)
    with pytest.raises(Interrupted):
        ppo(tmp_path / "parts", llama, **few, reporter=tiny.Recorder(stop_after=1))
    assert [found.states[-1] for found in vllm] == ["gone", "gone"]
    resumed, _ = ppo(tmp_path / "parts", llama, **few)
    drawn = [[of.seed for of in parameters] for found in vllm for parameters, _ in found.asked]
    assert len({seed for seeds in drawn[:2] for seed in seeds}) == 8, "each answer has a seed of its own"
    assert drawn[2:] == drawn[:2]
    assert resumed.steps == whole.steps
