"""The shipped recipes of large models, run whole on tiny models of the same architecture put in their place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests import tiny
from tests.e2e.engine import Workspace, statuses

RECIPES = Path(__file__).parents[2] / "recipes"
SMALL = ("train.sft.max_steps=2", "evaluate.samples.max_new_tokens=4", "threads=1", 'device="cpu"')


def run(folder: Path, recipe: str, **model: Any) -> tuple[Workspace, dict[str, Any]]:
    """The whole recipe with a tiny model; where it ran, and its result."""
    tiny.write_model(folder / "model", **model)
    workspace = Workspace(folder)
    given = [f'model.base="file:{folder / "model"}"', *SMALL]
    overrides = [part for override in given for part in ("--set", override)]
    done = workspace.run(*overrides, recipe=str(RECIPES / recipe))
    assert done.err == ""
    assert [node for node, status in statuses(done.result).items() if status != "ran"] == ["resolve"]
    return workspace, done.result


def adapter_config(workspace: Workspace, name: str) -> dict[str, Any]:
    """Of the exported adapter."""
    config: dict[str, Any] = json.loads((workspace.folder / "exports" / name / "adapter_config.json").read_text())
    return config


@pytest.mark.slow
def test_qlora_llama2(tmp_path: Path) -> None:
    workspace, result = run(tmp_path, "qlora_llama2.toml", architecture="llama")
    config = adapter_config(workspace, "qlora-llama2")
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


def test_without_a_network_the_gated_model_is_one_clear_line(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path, {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": "http://127.0.0.1:9"})
    error = workspace.recipe("run", str(RECIPES / "qlora_llama2.toml")).said(3)
    assert [line.strip() for line in error.splitlines()] == [
        "error: hub:meta-llama/Llama-2-7b-chat-hf: the Hub cannot be reached (ConnectError).",
        "Connect to the network, or name what is here: a commit that was downloaded, or a folder with file:.",
    ]
