"""The shipped recipes of large models, run whole on tiny models of the same architecture put in their place."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from tests import tiny
from tests.e2e.engine import Workspace, statuses
from tests.hub.contract import ContractHub
from tests.hub.repositories import Account

RECIPES = Path(__file__).parents[2] / "recipes"
# The tiny models' tokens are bytes and little more.
LONGER = ("data.train.max_length=400", "data.eval.max_length=400", "evaluate.exact_match.max_new_tokens=4")
SMALL = ("train.sft.max_steps=2", "evaluate.samples.max_new_tokens=4", "threads=1", 'device="cpu"')


def run(
    folder: Path,
    recipe: str,
    *changes: str,
    expected_to_run: bool = True,
    variables: dict[str, str] | None = None,
    **model: Any,
) -> tuple[Workspace, dict[str, Any]]:
    """The whole recipe with a tiny model; where it ran, and its result."""
    tiny.write_model(folder / "model", **model)
    workspace = Workspace(folder, variables or {})
    # A folder has no revisions, and --set cannot take a key away.
    lines = (RECIPES / recipe).read_text(encoding="utf-8").splitlines(keepends=True)
    text = "".join(line for line in lines if not line.startswith("revision = "))
    (folder / recipe).write_text(text.replace('"file:data/', f'"file:{RECIPES}/data/'), encoding="utf-8")
    given = [f'model.base="file:{folder / "model"}"', *SMALL, *changes]
    overrides = [part for override in given for part in ("--set", override)]
    done = workspace.run(*overrides, recipe=recipe)
    assert done.err == ""
    if expected_to_run:
        assert [node for node, status in statuses(done.result).items() if status != "ran"] == ["resolve"]
    return workspace, done.result


def adapter_config(workspace: Workspace, name: str) -> dict[str, Any]:
    """Of the exported adapter."""
    config: dict[str, Any] = json.loads((workspace.folder / "exports" / name / "adapter_config.json").read_text())
    return config


@pytest.mark.slow
def test_qlora_llama2(tmp_path: Path) -> None:
    shorter = [f"evaluate.{name}.max_new_tokens=4" for name in ("rouge", "bleu")]
    with ContractHub() as hub:
        hub.accounts["hf_me"] = Account("me")
        variables = hub.variables(str(tmp_path / "hf-home")) | {"HF_TOKEN": "hf_me"}
        _, result = run(tmp_path, "qlora_llama2.toml", *shorter, variables=variables, architecture="llama")
        published = hub.repositories["model", "me/llama2-qlora"].files()
    assert {"rouge.rougeL", "bleu.bleu"} <= result["comparisons"].keys()
    config = json.loads(published["adapter_config.json"])
    assert (config["r"], config["lora_alpha"], config["lora_dropout"]) == (64, 16, 0.1)
    assert config["target_modules"] == ["k_proj", "o_proj", "q_proj", "v_proj"]
    artifact = Path(next(node["artifact"]["path"] for node in result["nodes"] if node["id"] == "load"))
    quantization = json.loads((artifact / "config.json").read_text())["quantization_config"]
    assert (quantization["bnb_4bit_quant_type"], quantization["bnb_4bit_use_double_quant"]) == ("nf4", True)
    assert quantization["bnb_4bit_compute_dtype"] == "bfloat16"


@pytest.mark.slow
def test_lora_dialogpt(tmp_path: Path) -> None:
    workspace, result = run(tmp_path, "lora_dialogpt.toml", architecture="gpt2", chat_template=None)
    config = adapter_config(workspace, "lora-dialogpt")
    assert (config["r"], config["lora_alpha"]) == (8, 16)
    assert config["target_modules"] == ["c_attn", "c_fc", "c_proj"]
    # Two factors in each of four modules of two layers: none of GPT-2's linear layers is left out.
    width, rank = tiny.HIDDEN, 8
    sizes = [(width, 3 * width), (width, width), (width, 4 * width), (4 * width, width)]
    assert result["efficiency"]["trainable_parameters"] == tiny.LAYERS * rank * sum(map(sum, sizes))


@pytest.mark.slow
def test_qlora_smollm2(tmp_path: Path) -> None:
    workspace, result = run(tmp_path, "qlora_smollm2.toml", *LONGER, tied=True)
    config = adapter_config(workspace, "qlora-smollm2")
    assert (config["r"], config["lora_alpha"], len(config["target_modules"])) == (16, 32, 7 * tiny.LAYERS)
    artifact = Path(next(node["artifact"]["path"] for node in result["nodes"] if node["id"] == "load"))
    assert json.loads((artifact / "config.json").read_text())["quantization_config"]["load_in_4bit"]


@pytest.mark.slow
def test_sft_full(tmp_path: Path) -> None:
    """The export is a model that transformers loads by itself, its head still the embedding."""
    import torch
    from transformers import AutoModelForCausalLM

    workspace, result = run(tmp_path, "sft_full.toml", *LONGER, tied=True)
    efficiency = result["efficiency"]
    assert efficiency["trainable_parameters"] == efficiency["total_parameters"]
    exported = AutoModelForCausalLM.from_pretrained(workspace.folder / "exports" / "sft-full")
    assert exported.lm_head.weight is exported.model.embed_tokens.weight
    base = AutoModelForCausalLM.from_pretrained(workspace.folder / "model")
    changed = [
        name for name, weight in exported.named_parameters() if not torch.equal(weight, base.get_parameter(name))
    ]
    assert len(changed) == len(list(base.parameters()))
    card = (workspace.folder / "exports" / "sft-full" / "README.md").read_text()
    assert "library_name: transformers" in card
    assert "PeftModel" not in card


@pytest.mark.slow
def test_merged(tmp_path: Path) -> None:
    """The dialogue model once more, exported without PEFT: what its adapter says, it says."""
    import peft
    import torch
    from transformers import AutoModelForCausalLM

    said = []
    for name, merged in (("adapter", "false"), ("merged", "true")):
        workspace, _ = run(
            tmp_path,
            "lora_dialogpt.toml",
            f'push.folder.path="{tmp_path / name}"',
            f"push.folder.merged={merged}",
            'load.full.dtype="float32"',
            architecture="gpt2",
            chat_template=None,
            expected_to_run=merged == "false",
        )
    card = (tmp_path / "merged" / "README.md").read_text()
    assert "library_name: transformers" in card
    assert not (tmp_path / "merged" / "adapter_config.json").exists()
    base = AutoModelForCausalLM.from_pretrained(workspace.folder / "model")
    adapted = peft.PeftModel.from_pretrained(base, tmp_path / "adapter")
    for model in (adapted.eval(), AutoModelForCausalLM.from_pretrained(tmp_path / "merged")):
        with torch.no_grad():
            said.append(model(input_ids=torch.tensor([[5, 80, 12, 40]])).logits)
    torch.testing.assert_close(*said, rtol=1e-4, atol=1e-4)


def copied(folder: Path, recipe: str) -> Workspace:
    """All recipes with a tiny model in place of their own; those that build on others find them."""
    shutil.copytree(RECIPES, folder / "recipes")
    tiny.write_model(folder / "model", tied=True)
    for file in (folder / "recipes").rglob("*.toml"):
        text = re.sub(r'base = "[^"]*"', f'base = "file:{folder / "model"}"', file.read_text(encoding="utf-8"))
        text = re.sub(r"^revision = .*\n", "", text, flags=re.MULTILINE)
        text = re.sub(r"^seed = 42$", 'seed = 42\nthreads = 1\ndevice = "cpu"', text, flags=re.MULTILINE)
        file.write_text(text.replace("max_length = 96", "max_length = 400"), encoding="utf-8")
    return Workspace(folder / "recipes" / Path(recipe).parent)


PPO = ("train.ppo.max_steps=2", "train.ppo.max_new_tokens=8", "evaluate.samples.max_new_tokens=4")


@pytest.mark.slow
def test_rlhf(tmp_path: Path) -> None:
    """Three recipes that are one graph."""
    workspace = copied(tmp_path, "rlhf/ppo.toml")
    overrides = [part for override in PPO for part in ("--set", override)]
    result = workspace.run(*overrides, recipe="ppo.toml").result
    trained = [node for node in statuses(result) if node.rpartition("/")[2] == "train"]
    assert trained == ["rlhf-sft/train", "rlhf-reward/train", "train"]
    measured = workspace.run(recipe="reward.toml").result
    assert statuses(measured)["train"] == "cached"
    assert 0 <= measured["metrics"]["preference.accuracy"]["after"] <= 1


@pytest.mark.slow
def test_three_methods_by_one_header(tmp_path: Path) -> None:
    """What all three start from is trained once."""
    from tests.bench.learning import under

    workspace = copied(tmp_path, "rlhf/cheerful.toml")
    file = workspace.folder / "cheerful.toml"
    text = file.read_text(encoding="utf-8")
    for number, method in enumerate(("ppo", "rloo", "grpo")):
        file.write_text(under(method, text), encoding="utf-8")
        given = (f"train.{method}.max_steps=2", f"train.{method}.max_new_tokens=4")
        done = workspace.run(*(part for override in given for part in ("--set", override)), recipe="cheerful.toml")
        found = statuses(done.result)
        assert (found["rlhf-sft/train"], found["train"]) == ("cached" if number else "ran", "ran")
        steps = [event for event in done.events if event["type"] == "node_metrics" and event["node"] == "train"]
        assert [event["step"] for event in steps] == [1, 2]
        assert steps[0]["values"]["kl"] == 0, "the reference keeps what the first recipe learned"
        assert {"score.cheerful", "kl", "entropy", "clip_fraction", "ended"} <= set(steps[0]["values"])


@pytest.mark.slow
def test_ppo_qlora_llama2(tmp_path: Path) -> None:
    """Policy and reward model on quantized weights."""
    workspace = copied(tmp_path, "ppo_qlora_llama2.toml")
    workspace.edit_file("reward_qlora_llama2.toml", "batch_size = 16", "max_steps = 2\nbatch_size = 16")
    workspace.edit_file("reward_qlora_llama2.toml", 'train.jsonl"', 'train.jsonl"\nsplit = "train[:64]"')
    overrides = [part for override in PPO for part in ("--set", override)]
    result = workspace.run(*overrides, recipe="ppo_qlora_llama2.toml").result
    assert result["status"] == "succeeded"
    assert {"reward-qlora-llama2/train", "train"} <= statuses(result).keys()
    config = adapter_config(workspace, "ppo-qlora-llama2")
    assert (config["r"], config["lora_alpha"], config["task_type"]) == (64, 16, "CAUSAL_LM")


@pytest.mark.slow
def test_ppo_gpt2(tmp_path: Path) -> None:
    """With a pattern in place of the classifier, which no tiny model can be."""
    tiny.write_model(tmp_path / "model", architecture="gpt2", chat_template=None)
    text = (RECIPES / "ppo_gpt2.toml").read_text(encoding="utf-8").replace('"file:data/', f'"file:{RECIPES}/data/')
    classifier = '{ model = "hub:lvwerra/distilbert-imdb", label = "POSITIVE" }'
    assert classifier in text
    (tmp_path / "ppo_gpt2.toml").write_text(text.replace(classifier, '{ pattern = "[aeiou]" }'), encoding="utf-8")
    changes = (f'model.base="file:{tmp_path / "model"}"', "train.ppo.max_steps=2", "threads=1", 'device="cpu"')
    longer = ("data.prompts.max_length=200",)
    overrides = [part for change in (*changes, *longer) for part in ("--set", change)]
    workspace = Workspace(tmp_path)
    result = workspace.run(*overrides, recipe="ppo_gpt2.toml").result
    assert "train" in statuses(result)
    config = adapter_config(workspace, "ppo-gpt2")
    assert (config["r"], config["target_modules"]) == (16, ["c_attn", "c_fc", "c_proj"])


def test_without_a_network_the_gated_model_is_one_clear_line(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path, {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": "http://127.0.0.1:9"})
    workspace.variables["HF_TOKEN"] = "hf_any"  # or it would be missed first: the recipe pushes to the Hub
    error = workspace.recipe("run", str(RECIPES / "qlora_llama2.toml")).said(3)
    assert [line.strip() for line in error.splitlines()] == [
        "error: hub:meta-llama/Llama-2-7b-chat-hf: the Hub cannot be reached (ConnectError).",
        "Connect to the network, or name what is here: a commit that was downloaded, or a folder with file:.",
    ]
