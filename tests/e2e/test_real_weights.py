"""The quickstart on its real 135M-parameter model, with few rows and steps."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.network, pytest.mark.timeout(900)]

COMMAND = Path(sys.executable).parent / "recipe"
FEW = ("train.sft.max_steps=3", 'data.eval.split="train[:12]"', "evaluate.exact_match.max_new_tokens=8")


def run(home: Path, hash_seed: str) -> dict[str, Any]:
    """The result of a short quickstart run whose export goes into ``home``."""
    overrides = [*FEW, f"push.folder.path='{home / 'export'}'"]
    command = [str(COMMAND), "run", "recipes/quickstart.toml", "--json"]
    command += [part for override in overrides for part in ("--set", override)]
    environment = {**os.environ, "RECIPE_HOME": str(home), "PYTHONHASHSEED": hash_seed}
    finished = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    result: dict[str, Any] = json.loads(finished.stdout.splitlines()[-1])
    return result


def digests(result: dict[str, Any]) -> dict[str, str]:
    return {node["id"]: node["artifact"]["digest"] for node in result["nodes"] if node["artifact"]}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    home = tmp_path_factory.mktemp("registry")
    return home, run(home, "1")


def test_the_loss_falls_within_a_few_steps(finished: tuple[Path, dict[str, Any]]) -> None:
    metrics = finished[1]["metrics"]["perplexity.loss"]

    assert metrics["after"] < metrics["before"]


def test_a_second_run_takes_every_node_from_the_registry(finished: tuple[Path, dict[str, Any]]) -> None:
    home, first = finished

    again = run(home, "2")

    assert {node["status"] for node in again["nodes"]} == {"cached"}
    assert digests(again) == digests(first)


def test_another_registry_and_hash_seed_give_the_same_bytes(
    finished: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    home, first = finished
    # The wheel need not be fetched twice; everything that is computed is computed again.
    (tmp_path / "sources").symlink_to(home / "sources")

    assert digests(run(tmp_path, "12345")) == digests(first)


def test_plain_peft_gives_the_logits_of_the_run_s_own_model(finished: tuple[Path, dict[str, Any]]) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    home, result = finished
    folders = {node["id"]: node["artifact"]["path"] for node in result["nodes"] if node["artifact"]}
    tokenizer = AutoTokenizer.from_pretrained(home / "export")
    batch = tokenizer("Lunch with Anna on Friday at 12:30.", return_tensors="pt")
    with torch.no_grad():
        base = AutoModelForCausalLM.from_pretrained(folders["load"], dtype="auto")
        exported = PeftModel.from_pretrained(base, home / "export").eval()(**batch).logits
        own = own_model(folders, str(base.dtype).removeprefix("torch."))(**batch).logits

    assert torch.equal(exported, own)


def own_model(folders: dict[str, str], dtype: Any) -> Any:
    """The trained model as the engine itself restores it, node by node."""
    from recipe_engine.contract import Inputs, ResolvedSource, StageRequest
    from recipe_engine.methods.adapt_lora import AdaptLora
    from recipe_engine.methods.load_full import LoadFull
    from recipe_engine.methods.options import AdaptLora as LoraOptions
    from recipe_engine.methods.options import LoadFull as LoadOptions
    from recipe_engine.methods.train_sft import TrainSft
    from recipe_engine.training.options import TrainSft as SftOptions

    model: Any = None
    stages = (
        (LoadFull(), LoadOptions(dtype=dtype), "load"),
        (AdaptLora(), LoraOptions(dropout=0.05), "adapt"),
        (TrainSft(), SftOptions(), "train"),
    )
    for code, options, node in stages:
        artifact = Path(folders[node])
        request = StageRequest(
            node=node,
            options=options,
            inputs=Inputs(source=ResolvedSource("file:.", ()), model=model),
            output=artifact,
            work=artifact,
            seed=0,
            device="cpu",
            reporter=None,  # type: ignore[arg-type]  # restoring reports nothing
        )
        model = code.restore(request, artifact)
    return model
