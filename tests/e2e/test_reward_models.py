"""A reward model from its recipe to its export, run for real."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests import tiny
from tests.e2e.engine import Workspace, digests, ran, statuses, write_workspace

REWARD = """\
version = 1
name = "polite"
seed = 7
threads = 1
device = "cpu"

[model]
base = "file:model"

[data.train]
source = "file:pairs.jsonl"
split = "train[:20]"
format = "preference"

[data.eval]
source = "file:pairs.jsonl"
split = "train[20:]"
format = "preference"

[load.full]
dtype = "float32"

[adapt.lora]
rank = 4

[train.reward]
batch_size = 5
epochs = 4
learning_rate = 5e-3

[evaluate.preference]

[push.folder]
"""


def write_reward(folder: Path) -> Workspace:
    """A workspace whose pairs can be told apart by what they say."""
    workspace = write_workspace(folder)
    tiny.write_jsonl(workspace.folder / "pairs.jsonl", tiny.preference_rows(30))
    (workspace.folder / "polite.toml").write_text(REWARD)
    return workspace


@pytest.mark.slow
def test_a_reward_model(tmp_path: Path) -> None:
    workspace = write_reward(tmp_path / "w")
    first = workspace.run(recipe="polite.toml").result
    assert "evaluate.preference@base" not in statuses(first)
    found = {name: sides for name, sides in first["metrics"].items() if name.startswith("preference.")}
    assert [*found] == ["preference.accuracy", "preference.margin", "preference.calibration_error"]
    assert all(sides.keys() == {"after"} for sides in found.values())
    assert found["preference.accuracy"]["after"] > 0.8
    card = (workspace.folder / "exports" / "polite" / "README.md").read_text()
    assert "pipeline_tag: text-classification" in card
    assert "AutoModelForSequenceClassification.from_pretrained(base_model, num_labels=1)" in card
    # Measured by a process of its own, the restored model says the same.
    text = REWARD.replace("[evaluate.preference]", "[evaluate.preference]\nbatch_size = 3")
    (workspace.folder / "polite.toml").write_text(text)
    again = workspace.run(recipe="polite.toml").result
    assert [node for node in ran(again) if node.startswith("evaluate")] == ["evaluate.preference@result"]
    assert digests(again)["train"] == digests(first)["train"]
    assert again["metrics"]["preference.margin"]["after"] == pytest.approx(found["preference.margin"]["after"])
    error = workspace.recipe("generate", "latest", "--prompt", "What comes after 3?").said(2)
    assert "made a reward model, which scores answers and gives none" in error


@pytest.mark.slow
def test_a_reward_model_on_top_of_another_recipe(tmp_path: Path) -> None:
    workspace = write_reward(tmp_path / "w")
    text = REWARD.replace('"file:model"', '{ recipe = "tiny.toml" }').partition("[push")[0]
    (workspace.folder / "polite.toml").write_text(text)
    result = workspace.run(recipe="polite.toml").result
    assert {"tiny/train", "attach.tiny", "train", "evaluate.preference@result"} <= statuses(result).keys()
    assert result["metrics"]["preference.accuracy"]["after"] > 0.8
