"""What trainings with rewards hold, beside counts by hand and beside what a training really keeps."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests import tiny
from tests.unit.written import HEAD, LOAD, builtins, recipe_of

from recipe_engine.compose import compose
from recipe_engine.errors import UnfitEnvironment
from recipe_engine.estimate import answers, parts
from recipe_engine.estimate.fitting import CERTAINTY, check_memory, outlook
from recipe_engine.estimate.job import Job, Lengths, job_of
from recipe_engine.estimate.shapes import Shapes, shapes_of
from recipe_engine.estimate.stages import StageMemory, micro_batch
from recipe_engine.methods.options import AdaptLora
from recipe_engine.outline import outline_of
from recipe_engine.training.groups.options import TrainGrpo
from recipe_engine.training.options import TrainReward
from recipe_engine.training.ppo.options import TrainPpo
from recipe_engine.validate import validate

if TYPE_CHECKING:
    from recipe_engine.contract import ModelOutline
    from recipe_engine.training.on_policy import OnPolicy

PROMPTS = '[data.prompts]\nsource = "file:prompts.jsonl"\nformat = "prompt"\n'
PAIRS = '[data.train]\nsource = "file:pairs.jsonl"\nformat = "preference"\n'
PATTERN = 'reward = { pattern = "x" }\n'
LORA = "[adapt.lora]\nrank = 4\n"
WHOLE = 'dtype = "float32"\n[adapt.full]\n'
PREPARED = {"prepare.prompts": {"rows": 10, "tokens": 200, "longest_row": 30}}
WEIGHTS = 2 * (2 * (2 * 32 * 32 + 2 * 16 * 32 + 3 * 64 * 32) + 2 * 300 * 32 + 5 * 32)


@pytest.fixture(scope="module")
def outline(tmp_path_factory: pytest.TempPathFactory) -> ModelOutline:
    return outline_of(sorted(tiny.write_model(tmp_path_factory.mktemp("model")).iterdir()))


@pytest.fixture(scope="module")
def shapes(outline: ModelOutline) -> Shapes:
    found = shapes_of(outline)
    assert found is not None
    return found


def training(text: str, outline: ModelOutline, device: str = "cpu") -> StageMemory:
    return outlook(recipe_of(text), builtins(), outline, PREPARED, None, device).stages["train"]


def trained(method: str, more: str = "", adapt: str = LORA) -> str:
    return f"{LOAD}{adapt}[train.{method}]\n{PATTERN}{more}{PROMPTS}"


@pytest.mark.parametrize("method", ["ppo", "rloo", "grpo"])
def test_an_adapter_is_held_to_the_model_without_it(method: str, outline: ModelOutline) -> None:
    found = training(trained(method), outline).parts
    adapter = 4 * 4 * 2 * (64 + 48 + 48 + 64 + 3 * 96)
    assert {name: found.get(name) for name in ("weights", "adapter", "gradients", "optimizer", "reference")} == {
        "weights": WEIGHTS,
        "adapter": adapter,
        "gradients": adapter,
        "optimizer": 2 * adapter,
        "reference": None,
    }


@pytest.mark.parametrize("method", ["ppo", "rloo", "grpo"])
def test_whole_weights_are_held_to_a_copy(method: str, outline: ModelOutline) -> None:
    found = training(trained(method, adapt=WHOLE), outline).parts
    assert found["reference"] == found["weights"] == found["gradients"] == 2 * WEIGHTS
    assert found["optimizer"] == 4 * WEIGHTS


def test_pairs_are_two_texts(outline: ModelOutline) -> None:
    lengths = Lengths(longest=100, mean=40.0)
    assert micro_batch(TrainReward(batch_size=4), lengths) == 200 + 3 * 80
    assert micro_batch(TrainReward(micro_batch_tokens=50), lengths) == 200
    prepared = {"prepare.train": {"rows": 2, "tokens": 60, "longest_row": 40}}
    recipe = recipe_of(f"{LOAD}{LORA}[train.reward]\nbatch_size = 1\n{PAIRS}")
    found = outlook(recipe, builtins(), outline, prepared, None).stages["train"].parts
    shapes = shapes_of(outline)
    assert shapes is not None
    layer = parts.layer_activations(shapes, 80, 40, 2, AdaptLora(rank=4))
    assert found["activations"] == shapes.layers * layer + layer, "there are no logits"


@pytest.mark.parametrize(
    ("options", "tokens"),
    [
        ({"batch_size": 4}, 30 + 10 + 3 * (20 + 10)),
        ({"batch_size": 4, "minibatch_size": 2}, 40 + 30),
        ({"micro_batch_tokens": 100}, 100),
        ({"micro_batch_tokens": 1}, 40),
    ],
)
def test_what_ppo_learns_from_at_once(options: dict[str, int], tokens: int) -> None:
    chosen = TrainPpo(reward=(), max_new_tokens=10, **options)  # type: ignore[arg-type]
    assert answers.tokens_at_once(chosen, Lengths(longest=30, mean=20.0)) == tokens


@pytest.mark.parametrize(
    ("options", "tokens"),
    [({}, 16 * 40), ({"minibatch_size": 8}, 8 * 40), ({"minibatch_size": 8, "micro_batch_size": 2}, 2 * 40)],
)
def test_what_a_group_training_learns_from_at_once(options: dict[str, int], tokens: int) -> None:
    chosen = TrainGrpo(reward=(), max_new_tokens=10, **options)  # type: ignore[arg-type]
    assert answers.tokens_at_once(chosen, Lengths(longest=30, mean=20.0)) == tokens


def phase(outline: ModelOutline, options: OnPolicy, **more: Any) -> dict[str, int]:
    recipe = recipe_of(trained("ppo"))
    lengths = {"prompts": Lengths(longest=30, mean=20.0)}
    job = job_of(recipe, builtins(), lengths)
    shapes = shapes_of(outline)
    assert isinstance(job, Job)
    assert shapes is not None
    return answers.answering(shapes, replace(job, **more), options)


def test_the_larger_of_writing_and_learning_counts(outline: ModelOutline, shapes: Shapes) -> None:
    few: Any = {"reward": (), "max_new_tokens": 10, "micro_batch_tokens": 1}
    learning = phase(outline, TrainPpo(batch_size=1, **few))
    layer = parts.layer_activations(shapes, 40, 40, 2, AdaptLora(rank=4))
    assert learning["activations"] == 2 * layer + 300 * 40 * (2 + 8)
    writing = phase(outline, TrainPpo(batch_size=10_000, generation_size=5_000, **few))
    assert writing["keys and values"] == 2 * 3 * 5_000 * 40 * 16 * 2
    assert writing["weights in another order"] == WEIGHTS - 2 * (300 * 32 + 5 * 32)
    on_gpu = phase(outline, TrainPpo(batch_size=10_000, generation_size=5_000, **few), device="cuda")
    assert on_gpu["weights in another order"] == 0


def test_a_tile_of_logits_without_triton_is_there_eight_times(outline: ModelOutline, shapes: Shapes) -> None:
    options = TrainGrpo(reward=(), batch_size=200, max_new_tokens=10)
    layer = parts.layer_activations(shapes, 200 * 40, 513, 2, AdaptLora(rank=4))
    on_cpu, on_gpu = (phase(outline, options, device=device)["activations"] for device in ("cpu", "cuda"))
    assert on_cpu == 2 * layer + max(layer, 4096 * 300 * (2 + 29))
    assert on_gpu == 2 * layer + max(layer, 4096 * 300 * 2)


def test_a_reward_model_on_the_same_weights_is_its_adapter(tmp_path: Path, outline: ModelOutline) -> None:
    def held(load: str, adapt: str = LORA, reward_adapt: str = LORA) -> int:
        reward = HEAD.replace('"x"', '"judge"') + f"{load}{reward_adapt}[train.reward]\n{PAIRS}"
        (tmp_path / "reward.toml").write_text(reward)
        policy = trained("ppo", adapt=adapt).replace(PATTERN, 'reward = { recipe = "reward.toml" }\n')
        (tmp_path / "policy.toml").write_text(policy)
        recipe = validate(compose(tmp_path / "policy.toml"), builtins())
        return outlook(recipe, builtins(), outline, PREPARED, None).stages["train"].parts["reward models"]

    adapter = 4 * 4 * 2 * (64 + 48 + 48 + 64 + 3 * 96)
    assert held("[load.full]\n") == adapter
    assert held('[load.full]\ndtype = "float32"\n') == adapter + 2 * WEIGHTS
    assert held("[load.full]\n", adapt=WHOLE) == adapter + WEIGHTS
    assert held("[load.full]\n", reward_adapt=WHOLE) == 2 * WEIGHTS


def test_adapters_of_the_base_are_held_too(tmp_path: Path, outline: ModelOutline) -> None:
    base = HEAD.replace('"x"', '"sft"') + f"[load.full]\n{LORA}[train.sft]\n" + PAIRS.replace("preference", "text")
    (tmp_path / "sft.toml").write_text(base)
    text = trained("ppo").replace('base = "file:model"', 'base = { recipe = "sft.toml" }')
    (tmp_path / "policy.toml").write_text(text)
    recipe = validate(compose(tmp_path / "policy.toml"), builtins())
    stages = outlook(recipe, builtins(), outline, PREPARED, None).stages
    assert stages["train"].parts["adapters of the base"] == stages["train"].parts["adapter"]
    assert "adapters of the base" not in stages["sft/train"].parts


@pytest.mark.parametrize(
    ("text", "change"),
    [
        (trained("ppo", "max_new_tokens = 64\n"), "micro_batch_tokens = 94 saves"),
        (trained("rloo"), "micro_batch_size = 1 saves"),
        (trained("grpo"), "micro_batch_size = 1 saves"),
        (trained("ppo", "batch_size = 20000\nmicro_batch_tokens = 1\n"), "generation_size = 5000 saves"),
        (
            f"{LOAD}{LORA}[train.reward]\nbatch_size = 400\ngradient_checkpointing = false\n{PAIRS}",
            "gradient_checkpointing = true saves",
        ),
        (
            f"{LOAD}{LORA}[train.reward]\nbatch_size = 400\ngradient_checkpointing = false\n{PAIRS}",
            "micro_batch_tokens = 2048 saves",
        ),
    ],
)
def test_what_does_not_fit_is_refused_with_what_would(text: str, change: str, outline: ModelOutline) -> None:
    recipe = recipe_of(text)
    needed = outlook(recipe, builtins(), outline, PREPARED, there=None).needed
    enough = round(needed / CERTAINTY) + 1
    check_memory(recipe, outlook(recipe, builtins(), outline, PREPARED, there=enough))
    with pytest.raises(UnfitEnvironment, match="train needs about") as raised:
        check_memory(recipe, outlook(recipe, builtins(), outline, PREPARED, there=enough - 2))
    assert change in raised.value.hint


def test_the_limits_are_those_of_the_trainings() -> None:
    """They are written down twice, as the trainings' modules import PyTorch and a plan must not."""
    from trl.kernels import chunked_logprob
    from trl.trainer import utils

    from recipe_engine.training import decoding

    assert answers._READ_AT_ONCE == decoding._TOKENS_AT_ONCE
    assert answers.TILE == chunked_logprob.TOKEN_CHUNK_SIZE
    assert answers.TILE_WORDS == utils._CHUNKED_LOGPROB_CHUNK_SIZE


def test_a_group_training_keeps_what_was_counted(shapes: Shapes, tmp_path: Path) -> None:
    kept = kept_bytes(tiny.write_model(tmp_path / "model"), rows=4, length=100)
    layer = parts.layer_activations(shapes, 400, parts.LONGEST_IN_PRODUCTS + 1, 2, AdaptLora(rank=4))
    last_norm, mask = 400 * 32 * (4 + 2), 4 * 100 * 100  # of a model of two layers, they are worth counting
    assert shapes.layers * layer + last_norm + mask == pytest.approx(kept, rel=0.02)


def kept_bytes(folder: Path, rows: int, length: int) -> int:
    """Bytes that autograd keeps of answers side by side through all layers, each storage once, parameters apart."""
    import torch
    from peft import LoraConfig, get_peft_model

    from recipe_engine.methods.load_full import load_pretrained
    from recipe_engine.training.layers import quick_layers

    model: Any = get_peft_model(
        load_pretrained(folder, "bfloat16", "cpu"), LoraConfig(r=4, target_modules="all-linear")
    )
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    found: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            found[storage.data_ptr()] = storage.nbytes()
        return tensor

    ids, mask = torch.arange(rows * length).view(rows, length) % 297, torch.ones(rows, length, dtype=torch.long)
    mask[0, :9] = 0
    backbone = model.get_base_model().base_model
    hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
    with quick_layers(model), hooks:
        states = backbone(input_ids=ids, attention_mask=mask, use_cache=False)  # noqa: F841 -- it holds the graph
        return sum(found.values())
