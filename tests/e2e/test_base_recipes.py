"""A recipe on top of another one's result, run for real."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.e2e.engine import RECIPE, digests, statuses, write_workspace

ON_TOP = """\
version = 1
name = "top"
seed = 7
threads = 1
device = "cpu"

[model]
base = { recipe = "tiny.toml" }

[data.more]
source = "file:rows.jsonl"
split = "train[:16]"
format = "instruction"

[data.eval]
source = "file:rows.jsonl"
split = "train[24:]"
format = "instruction"

[load.full]
dtype = "float32"

[adapt.lora]
rank = 2

[train.sft]
data = "more"
batch_size = 8
learning_rate = 1e-3

[evaluate.perplexity]
"""


@pytest.mark.slow
def test_a_base_is_trained_once_and_what_it_learned_counts(tmp_path: Path) -> None:
    workspace = write_workspace(tmp_path / "w")
    (workspace.folder / "top.toml").write_text(ON_TOP)
    alone = workspace.recipe("run", "tiny.toml", "--json").result
    top = workspace.recipe("run", "top.toml", "--json").result
    assert top["status"] == "succeeded"
    taken = {node: status for node, status in statuses(top).items() if node.startswith("tiny/")}
    assert taken == dict.fromkeys(taken, "cached")
    assert "tiny/train" in taken
    assert digests(top)["tiny/train"] == digests(alone)["train"]
    # What this recipe starts from is what the other one made.
    assert top["metrics"]["perplexity.loss"]["before"] == alone["metrics"]["perplexity.loss"]["after"]
    assert top["metrics"]["perplexity.loss"]["after"] != top["metrics"]["perplexity.loss"]["before"]


@pytest.mark.slow
def test_live_and_restored_are_one_on_top_of_a_base(tmp_path: Path) -> None:
    """The same evaluation right after the training, and by a process that restores the stack."""
    one, other = write_workspace(tmp_path / "one"), write_workspace(tmp_path / "other")
    for workspace in (one, other):
        (workspace.folder / "top.toml").write_text(ON_TOP)
    whole = one.recipe("run", "top.toml", "--json").result
    text = ON_TOP.replace("[evaluate.perplexity]", "[evaluate.perplexity]\nbatch_size = 3")
    (one.folder / "top.toml").write_text(text)
    restored = one.recipe("run", "top.toml", "--json").result
    assert statuses(restored)["train"] == "cached"
    (other.folder / "top.toml").write_text(text)
    live = other.recipe("run", "top.toml", "--json").result
    assert digests(live)["train"] == digests(whole)["train"]
    assert restored["metrics"] == live["metrics"]


@pytest.mark.slow
def test_a_runs_recipe_is_kept_with_its_base(tmp_path: Path) -> None:
    workspace = write_workspace(tmp_path / "w")
    (workspace.folder / "top.toml").write_text(ON_TOP)
    assert workspace.recipe("run", "top.toml", "--json").result["status"] == "succeeded"
    (workspace.folder / "tiny.toml").write_text(RECIPE.replace("rank = 4", "rank = 1"))
    answer = workspace.recipe("generate", "latest", "--prompt", "What comes after 3?", "--max-new-tokens", "4")
    assert answer.code == 0, answer.err
    base = workspace.recipe("generate", "latest", "--prompt", "What comes after 3?", "--max-new-tokens", "4", "--base")
    assert base.code == 0, base.err


@pytest.mark.parametrize("change", ["rank = 0", "rnk = 4"])
def test_a_mistake_in_the_base_stops_both(tmp_path: Path, change: str) -> None:
    workspace = write_workspace(tmp_path / "w")
    (workspace.folder / "top.toml").write_text(ON_TOP)
    (workspace.folder / "tiny.toml").write_text(RECIPE.replace("rank = 4", change))
    done = workspace.recipe("validate", "top.toml")
    assert done.code == 2
    assert done.err.startswith("tiny.toml:")


@pytest.mark.slow
def test_rows_are_shown_of_the_recipe_and_not_of_its_base(tmp_path: Path) -> None:
    """Both have a data set of the same name."""
    workspace = write_workspace(tmp_path / "w")
    own = ON_TOP.replace("[data.more]", "[data.train]").replace('data = "more"', 'data = "train"')
    (workspace.folder / "top.toml").write_text(own.replace("train[:16]", "train[:3]"))
    shown = workspace.recipe("data", "show", "top.toml", "--data", "train", "--rows", "1")
    assert shown.code == 0
    assert "\n3 rows, " in shown.out
