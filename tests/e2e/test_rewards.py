"""PPO with every kind of reward, run for real: a reward recipe is one graph with it, and each part runs once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests import tiny
from tests.e2e.engine import Workspace, assert_output, digests, ran, statuses
from tests.e2e.test_reward_models import REWARD, write_reward

PPO = """\
version = 1
name = "ppo"
seed = 7
threads = 1
device = "cpu"

[model]
base = { recipe = "tiny.toml" }

[data.prompts]
source = "file:rows.jsonl"
split = "train[:8]"
format = "prompt"

[load.full]
dtype = "float32"

[adapt.lora]
rank = 2

[train.ppo]
batch_size = 4
max_new_tokens = 6
ppo_epochs = 1
reward = [
    { recipe = "polite.toml", name = "quality" },
    { pattern = "[aeiou]", weight = 0.5 },
]
"""
POLITE = REWARD.replace('"file:model"', '{ recipe = "tiny.toml" }').partition("[push")[0]
"""On top of the recipe that the policy starts from, too."""
PLUGIN = '''\
from dataclasses import dataclass

from recipe_engine.descriptors import RewardSource
from recipe_engine.hookmark import hookimpl
from recipe_engine.options import option


@dataclass(frozen=True)
class Options:
    """Answers of some length."""

    words: int = option("How many words are best.", default=3, minimum=0, unit="words")


class Brief:
    def open(self, request):
        self._words = request.options.words

    def score(self, answers):
        return [-abs(len(answer.text.split()) - self._words) for answer in answers]


@hookimpl
def recipe_reward_sources():
    yield RewardSource(name="brief", summary="Brief", options=Options, implementation="brief_answers:Brief")
'''


def write_ppo(folder: Path, text: str = PPO) -> Workspace:
    workspace = write_reward(folder)
    (workspace.folder / "polite.toml").write_text(POLITE)
    (workspace.folder / "ppo.toml").write_text(text)
    return workspace


def alone(reward: str) -> str:
    """The recipe with one reward, on the base model."""
    return PPO.replace('{ recipe = "tiny.toml" }', '"file:model"').partition("reward = [")[0] + f"reward = {reward}\n"


def steps(workspace: Workspace, run: dict[str, Any]) -> list[dict[str, Any]]:
    """The trace of the training."""
    file = workspace.home / "runs" / run["run"] / "train.trace.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()]


@pytest.mark.slow
def test_each_part_runs_once_and_is_taken_from_its_own_run(tmp_path: Path) -> None:
    workspace = write_ppo(tmp_path / "w")
    result = workspace.run(recipe="ppo.toml").result
    nodes = list(statuses(result))
    assert len(nodes) == len(set(nodes))
    assert [node for node in nodes if node.rpartition("/")[2] == "train"] == ["tiny/train", "polite/train", "train"]
    assert [node for node in nodes if "evaluate" in node] == []
    # What each recipe makes alone is what it made here.
    assert not {"load", "adapt", "train"} & {*ran(workspace.run().result)}
    polite = ran(workspace.run(recipe="polite.toml").result)
    assert polite == ["prepare.eval", "evaluate.preference@result"]
    lineage = json.loads(workspace.recipe("lineage", result["run"], "--json").out)
    assert_output("lineage", lineage)
    assert [recipe["name"] for recipe in lineage["recipes"]] == ["tiny", "polite", "ppo"]
    trace = steps(workspace, result)
    for step in trace:
        assert step["score"] == pytest.approx(step["score.quality"] + 0.5 * step["score.pattern"])
    # Nothing is computed twice, and the name of the reward's recipe is no part of any key.
    assert ran(workspace.run(recipe="ppo.toml").result) == []
    workspace.edit_file("polite.toml", 'name = "polite"', 'name = "kind"')
    renamed = workspace.run(recipe="ppo.toml").result
    assert "kind/train" in statuses(renamed)
    assert ran(renamed) == []
    # A reward that learned something else is another reward.
    workspace.edit_file("polite.toml", "epochs = 4", "epochs = 3")
    plan = json.loads(workspace.recipe("plan", "ppo.toml", "--json").out)
    states = {node["id"]: node["state"] for node in plan["nodes"]}
    assert (states["tiny/train"], states["kind/train"], states["train"]) == ("cached", "will run", "depends on")


@pytest.mark.slow
def test_a_single_file_brings_a_reward(tmp_path: Path) -> None:
    text = alone('{ function = "brief", words = 2 }').replace("seed = 7", 'seed = 7\nplugins = ["./brief_answers.py"]')
    workspace = write_ppo(tmp_path / "w", text)
    (workspace.folder / "brief_answers.py").write_text(PLUGIN)
    first = workspace.run(recipe="ppo.toml").result
    assert all(step["score.brief"] <= 0 for step in steps(workspace, first))
    lock = json.loads((workspace.folder / "ppo.lock.json").read_text())
    assert list(lock["inputs"]["plugins"]) == ["brief_answers.py"]
    assert ran(workspace.run(recipe="ppo.toml").result) == []
    workspace.edit_file("brief_answers.py", "-abs(", "-2.0 * abs(")
    assert "train " in (told := workspace.recipe("plan", "ppo.toml").out)
    assert "brief_answers.py changed" in told
    workspace.edit_file("brief_answers.py", "return [", "raise KeyError('no')\n        return [")
    failed = workspace.recipe("run", "ppo.toml")
    assert failed.code == 5
    assert "error: train: the reward brief raised KeyError: 'no'." in failed.err
    assert "This is a bug of the plugin brief_answers.py, not of the recipe." in failed.err
    assert "Traceback" in failed.err


@pytest.mark.slow
def test_a_classifier_and_a_schema_in_a_file(tmp_path: Path) -> None:
    text = alone('[{ model = "file:judge", label = "YES" }, { json_schema = "file:number.json", weight = 2 }]')
    workspace = write_ppo(tmp_path / "w", text)
    write_classifier(workspace.folder / "judge")
    (workspace.folder / "number.json").write_text('{ "type": "number" }')
    first = workspace.run(recipe="ppo.toml").result
    assert {"score.model", "score.json_schema"} <= steps(workspace, first)[0].keys()
    lock = json.loads((workspace.folder / "ppo.lock.json").read_text())
    assert {"reward.model", "reward.json_schema"} <= lock["inputs"]["sources"].keys()
    lineage = json.loads(workspace.recipe("lineage", first["run"], "--json").out)
    assert_output("lineage", lineage)
    assert {"reward.model", "reward.json_schema"} <= {source["name"] for source in lineage["sources"]}
    # Where it lies does not matter, what is in it does.
    (workspace.folder / "number.json").rename(workspace.folder / "moved.json")
    workspace.edit_file("ppo.toml", "number.json", "moved.json")
    assert digests(workspace.run(recipe="ppo.toml").result)["train"] == digests(first)["train"]
    workspace.edit_file("moved.json", "number", "string")
    assert "reward.json_schema changed" in workspace.recipe("plan", "ppo.toml").out


def write_classifier(folder: Path) -> Path:
    """A tiny encoder that says YES or NO."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(3)
    config = BertConfig(
        vocab_size=tiny.VOCABULARY,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        id2label={0: "NO", 1: "YES"},
        label2id={"NO": 0, "YES": 1},
        initializer_range=0.5,
    )
    BertForSequenceClassification(config).save_pretrained(folder)
    return tiny.write_tokenizer(folder, pad="own", chat_template=None)
