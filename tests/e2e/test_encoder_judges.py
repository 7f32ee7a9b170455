"""A reward model on an encoder, and a policy on another model that it judges: one graph, run for real."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests import tiny
from tests.e2e.engine import Workspace, digests, ran, statuses, write_workspace
from tests.encoders import BERT

REWARD = """\
version = 1
name = "kind"
seed = 7
threads = 1
device = "cpu"

[model]
base = "file:encoder"

[data.train]
source = "file:pairs.jsonl"
split = "train[:20]"
format = "preference"

[data.eval]
source = "file:pairs.jsonl"
split = "train[20:]"
format = "preference"

[load.encoder]

[adapt.lora]
rank = 4

[train.reward]
batch_size = 5
epochs = 12
learning_rate = 1e-2

[evaluate.preference]

[push.folder]
"""
PPO = """\
version = 1
name = "kinder"
seed = 7
threads = 1
device = "cpu"

[model]
base = "file:model"

[data.prompts]
source = "file:prompts.jsonl"
format = "prompt"

[load.full]
dtype = "float32"

[adapt.lora]
rank = 4

[train.ppo]
reward = { recipe = "kind.toml", name = "kindness" }
batch_size = 4
max_new_tokens = 6
learning_rate = 1e-3
"""


def write_judged(folder: Path) -> Workspace:
    """A workspace with an encoder, pairs that can be told apart by what they say, and prompts for a policy."""
    workspace = write_workspace(folder)
    BERT.write(workspace.folder / "encoder")
    tiny.write_jsonl(workspace.folder / "pairs.jsonl", tiny.preference_rows(30))
    asked = [{"prompt": row["prompt"]} for row in tiny.instruction_rows(7)]
    talk = tiny.chat_rows(1)[0]["messages"][:3]
    tiny.write_jsonl(workspace.folder / "prompts.jsonl", [*asked, {"prompt": talk}])
    (workspace.folder / "kind.toml").write_text(REWARD)
    (workspace.folder / "ppo.toml").write_text(PPO)
    return workspace


@pytest.mark.slow
def test_an_encoder_judges_a_policy_of_another_base(tmp_path: Path) -> None:
    workspace = write_judged(tmp_path / "w")
    alone = workspace.run(recipe="kind.toml").result
    assert alone["metrics"]["preference.accuracy"]["after"] >= 0.85
    card = (workspace.folder / "exports" / "kind" / "README.md").read_text()
    assert "AutoModelForSequenceClassification.from_pretrained(base_model, num_labels=1)" in card
    assert "tokenizer(question, answer" in card
    replay = workspace.recipe("replay", alone["run"], "--verify", "--json")
    assert replay.code == 0, replay.err
    # What the reward model is made of is there already.
    result = workspace.run(recipe="ppo.toml").result
    assert {node for node in ran(result) if node.startswith("kind/")} == set()
    assert {"kind/tokenizer", "kind/load", "kind/train", "tokenizer", "load", "train"} <= statuses(result).keys()
    assert digests(result)["kind/train"] == digests(alone)["train"]
    assert ran(workspace.run(recipe="ppo.toml").result) == []
    lock = json.loads((workspace.folder / "ppo.lock.json").read_text())
    assert {"model", "kind/model"} <= lock["inputs"]["sources"].keys()
    (train,) = (node for node in workspace.last_record()["nodes"] if node["id"] == "train")
    assert train["status"] == "cached"
    plan = {node["id"]: node for node in json.loads(workspace.recipe("plan", "ppo.toml", "--json").out)["nodes"]}
    assert plan["kind/train"]["settled"]["layout"] == "padded"
    assert plan["train"]["settled"]["layout"] == "packed"


@pytest.mark.slow
def test_a_judge_that_learned_something_else_is_another_judge(tmp_path: Path) -> None:
    """Its encoder too: another one's bytes make everything after it anew."""
    workspace = write_judged(tmp_path / "w")
    first = workspace.run(recipe="ppo.toml").result
    BERT.write(workspace.folder / "encoder", seed=1)
    again = workspace.run(recipe="ppo.toml").result
    assert [node for node in ran(again) if node != "resolve"] == ["kind/load", "kind/adapt", "kind/train", "train"]
    assert digests(again)["train"] != digests(first)["train"]
