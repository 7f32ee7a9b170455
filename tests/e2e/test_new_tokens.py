"""Tokens that the tokenizer gets: prepared, trained, exported, and loaded by others."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests import tiny
from tests.e2e.engine import write_workspace

TOKEN = "<next>"


@pytest.mark.slow
@pytest.mark.parametrize("tied", [False, True])
def test_a_new_token_is_one_token_and_its_row_is_learned(tmp_path: Path, tied: bool) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    workspace = write_workspace(tmp_path / "w", tied=tied)
    rows = [{**row, "prompt": f"{row['prompt']} {TOKEN}"} for row in tiny.instruction_rows(32)]
    tiny.write_jsonl(workspace.folder / "rows.jsonl", rows)
    workspace.edit("rank = 4", f'rank = 4\nnew_tokens = ["{TOKEN}"]')
    done = workspace.recipe("run", "tiny.toml", "--json").result
    assert done["status"] == "succeeded"
    assert [node["id"] for node in done["nodes"]][4:7] == ["load", "extend", "evaluate.perplexity@base"]

    export = workspace.folder / "export"
    tokenizer = AutoTokenizer.from_pretrained(export)
    (new,) = tokenizer.convert_tokens_to_ids([TOKEN])
    assert tokenizer(f"a{TOKEN}b", add_special_tokens=False)["input_ids"].count(new) == 1
    base = AutoModelForCausalLM.from_pretrained(workspace.folder / "model")
    old = base.get_input_embeddings().weight.detach().clone()
    assert new == len(old)
    base.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    with torch.no_grad():
        for layer in {base.get_input_embeddings(), base.get_output_embeddings()}:
            layer.weight[new:] = layer.weight[:new].mean(dim=0)
    model = PeftModel.from_pretrained(base, export).eval()
    row = model.get_input_embeddings()(torch.tensor([new]))[0]
    assert not torch.equal(row, old.mean(dim=0))
    assert torch.equal(model.get_input_embeddings()(torch.arange(new)), old)

    # The loss that others get is the loss that the run reported.
    again = workspace.recipe("run", "tiny.toml", "--json", "--set", "evaluate.perplexity.batch_size=3")
    assert again.result["metrics"]["perplexity.loss"]["after"] == pytest.approx(
        done["metrics"]["perplexity.loss"]["after"], rel=1e-5
    )
    config = json.loads((export / "adapter_config.json").read_text())
    assert config["trainable_token_indices"] == [new]


@pytest.mark.slow
def test_a_token_that_is_there_already_is_refused(tmp_path: Path) -> None:
    workspace = write_workspace(tmp_path / "w")
    workspace.edit("rank = 4", f'rank = 4\nnew_tokens = ["{tiny.START}"]')
    done = workspace.recipe("run", "tiny.toml")
    assert f'the tokenizer has the token "{tiny.START}" already. Leave it out.' in " ".join(done.said(5).split())
