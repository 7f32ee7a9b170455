"""``train.ppo`` as a stage: what it writes is an adapter or a model, and what it hands on is what that gives back."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from tests import tiny
from tests.unit.training.ppo.ppo_jobs import evenness, fresh_model, prompts, request, scoring
from tests.unit.written import HEAD, recipe_of, refusal

from recipe_engine.methods.adapt_full import AdaptFull
from recipe_engine.methods.options import AdaptFull as FullOptions
from recipe_engine.methods.train_ppo import TrainPpo
from recipe_engine.training.rows import write_rows

if TYPE_CHECKING:
    from recipe_engine.contract import StageRequest, StageResult

PPO = '[train.ppo]\nreward = { pattern = "^Dear " }\n[data.prompts]\nsource = "file:p.jsonl"\nformat = "prompt"\n'
KINDS = ("adapter", "half", "full")


def asked(root: Path, kind: str, llama: Path, tokenizer: Any) -> StageRequest:
    """A request with a model of its own, as another process would have it."""
    root.mkdir()
    if kind == "full":
        adapt = tiny.stage_request(root, FullOptions(), node="adapt", model=tiny.load_model(llama))
        model = AdaptFull().run(adapt).live
    else:
        model = fresh_model(root, llama, dtype="bfloat16" if kind == "half" else "float32")
    rows = root / "rows"
    rows.mkdir()
    write_rows(rows, prompts(tokenizer, 5))
    return request(root, model, folder=llama, data={"prompts": rows}, max_steps=2, epochs=2)


def run(made: StageRequest) -> StageResult:
    from recipe_engine.runners.worker import seed_everything

    seed_everything(made.seed)
    return TrainPpo().run_with(made, scoring(evenness))


@pytest.mark.parametrize("kind", KINDS)
def test_live_is_restored_and_twice_is_the_same(kind: str, tmp_path: Path, llama: Path, tokenizer: Any) -> None:
    first, second, third = (asked(tmp_path / str(number), kind, llama, tokenizer) for number in range(3))
    before = {name: weight.clone() for name, weight in first.inputs.model.named_parameters()}
    result = run(first)
    live = result.live
    trained = {name for name, weight in live.named_parameters() if not torch.equal(weight, before[name])}
    assert trained
    assert all(kind == "full" or "lora_" in name for name in trained)
    restored = TrainPpo().restore(second, first.output)
    tiny.assert_same_state(tiny.model_state(restored), tiny.model_state(live), generators=False)
    again = run(third)
    assert tiny.folder_digests(third.output) == tiny.folder_digests(first.output)
    assert again.facts["trace"] == result.facts["trace"]
    assert set(result.metrics) == {"score", "kl"}
    assert len(result.facts["samples"]) == 4
    assert result.facts["efficiency"]["tokens"] > 0


def test_the_guide_explains_every_curve(tmp_path: Path, llama: Path, tokenizer: Any) -> None:
    guide = Path("docs/rlhf.md").read_text(encoding="utf-8").partition("## Reading the curves")[2].partition("\n## ")[0]
    named = {name for cell in re.findall(r"^\| (`.*?) \|", guide, re.MULTILINE) for name in re.findall("`(.*?)`", cell)}
    (step, _) = run(asked(tmp_path / "one", "adapter", llama, tokenizer)).facts["trace"]
    assert named - {"score.NAME"} == set(step) - {"step", "weights"}


def test_an_adapter_is_in_pefts_format(tmp_path: Path, llama: Path, tokenizer: Any) -> None:
    made = asked(tmp_path / "one", "adapter", llama, tokenizer)
    run(made)
    assert set(tiny.folder_digests(made.output)) == {"adapter_config.json", "adapter_model.safetensors"}
    assert json.loads((made.output / "adapter_config.json").read_text())["base_model_name_or_path"] == "file:tiny"


def test_a_recipe_of_it() -> None:
    recipe = recipe_of(HEAD + "[load.full]\n[adapt.lora]\n" + PPO)
    assert recipe.train is not None
    assert recipe.train.method == "ppo"


@pytest.mark.parametrize(
    ("adapt", "expected"),
    [
        ("[adapt.lora]\ndropout = 0.1\n", "train.ppo: it trains without dropout"),
        ('[adapt.lora]\ninit = "pissa"\n', "train.ppo: without an adapter of pissa"),
        ('[adapt.lora]\nbias = "all"\n', "train.ppo: biases stay changed where the adapter is off"),
    ],
)
def test_adapters_that_it_cannot_hold_to_the_base(adapt: str, expected: str) -> None:
    assert expected in refusal(HEAD + '[load.full]\ndtype = "float32"\n' + adapt + PPO)


def test_data_that_are_no_prompts() -> None:
    table = PPO.replace('"prompt"', '"instruction"')
    assert 'train.ppo cannot read the format "instruction"' in refusal(HEAD + "[load.full]\n[adapt.lora]\n" + table)
