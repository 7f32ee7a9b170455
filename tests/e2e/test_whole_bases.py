"""Recipes on top of one that trained a whole model, run for real."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.engine import RECIPE, Workspace, assert_output, digests, ran, statuses, write_workspace
from tests.e2e.test_base_recipes import ON_TOP
from tests.e2e.test_rewards import PPO, write_ppo

pytestmark = pytest.mark.slow
WHOLE = RECIPE.replace("[adapt.lora]\nrank = 4\nalpha = 8\n", "[adapt.full]\n")
ASKED = ("--prompt", "What comes after 3?", "--max-new-tokens", "4")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, model: Path) -> tuple[Workspace, dict[str, Any]]:
    """A recipe that trained a whole model, run alone, and the result; read it, do not add to it."""
    workspace = write_workspace(tmp_path_factory.mktemp("whole") / "space", model)
    workspace.recipe_file.write_text(WHOLE)
    (workspace.folder / "top.toml").write_text(ON_TOP)
    return workspace, workspace.run().result


@pytest.fixture(scope="module")
def stacked(
    trained: tuple[Workspace, dict[str, Any]], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Workspace, dict[str, Any]]:
    """The same with a run of the recipe on top, whose adapter is exported; read it, do not add to it."""
    workspace = copied(trained[0], tmp_path_factory.mktemp("stacked") / "space")
    (workspace.folder / "top.toml").write_text(ON_TOP + '\n[push.folder]\npath = "adapter"\n')
    return workspace, workspace.run(recipe="top.toml").result


def copied(workspace: Workspace, folder: Path) -> Workspace:
    shutil.copytree(workspace.folder, folder, symlinks=True)
    return Workspace(folder)


def states(workspace: Workspace) -> dict[str, tuple[str, str]]:
    """Node -> what would become of it, and why."""
    done = workspace.recipe("plan", "top.toml", "--json")
    assert done.code == 0, done.err
    return {node["id"]: (node["state"], node["why"]) for node in json.loads(done.out)["nodes"]}


def test_it_is_trained_once_and_what_it_learned_counts(
    trained: tuple[Workspace, dict[str, Any]], stacked: tuple[Workspace, dict[str, Any]]
) -> None:
    alone, (workspace, top) = trained[1], stacked
    taken = {node: status for node, status in statuses(top).items() if node.startswith("tiny/")}
    assert taken == dict.fromkeys(taken, "cached")
    assert digests(top)["tiny/train"] == digests(alone)["train"]
    assert top["metrics"]["perplexity.loss"]["before"] == alone["metrics"]["perplexity.loss"]["after"]
    assert top["metrics"]["perplexity.loss"]["after"] != top["metrics"]["perplexity.loss"]["before"]
    assert ran(workspace.run(recipe="top.toml").result) == []


def test_live_and_restored_are_one(
    trained: tuple[Workspace, dict[str, Any]], stacked: tuple[Workspace, dict[str, Any]], tmp_path: Path
) -> None:
    """The same evaluation right after the training, in one process from the start, and by one that restores it."""
    text = ON_TOP.replace("[evaluate.perplexity]", "[evaluate.perplexity]\nbatch_size = 3")
    one, other = copied(stacked[0], tmp_path / "one"), write_workspace(tmp_path / "other")
    for workspace in (one, other):
        (workspace.folder / "top.toml").write_text(text)
    other.recipe_file.write_text(WHOLE)
    restored = one.run(recipe="top.toml").result
    assert "evaluate.perplexity@result" in ran(restored)
    assert statuses(restored)["train"] == "cached"
    live = other.run(recipe="top.toml").result
    assert "tiny/train" in ran(live)
    assert digests(live) == digests(restored)
    assert digests(live)["train"] == digests(stacked[1])["train"]
    assert restored["metrics"] == live["metrics"]
    assert digests(live)["tiny/train"] == digests(trained[1])["train"]


def test_what_changes_below_is_computed_again_above(stacked: tuple[Workspace, dict[str, Any]], tmp_path: Path) -> None:
    workspace = copied(stacked[0], tmp_path / "w")
    workspace.edit("learning_rate = 1e-3", "learning_rate = 2e-3")
    planned = states(workspace)
    assert planned["tiny/load"][0] == "cached"
    assert planned["tiny/train"] == ("will run", "learning_rate 0.001 -> 0.002")
    assert planned["load"] == ("depends on", "tiny/train")
    assert planned["train"] == ("depends on", "adapt")
    workspace.run()
    assert states(workspace)["load"] == ("will run", "weights changed")
    again = workspace.run(recipe="top.toml").result
    assert {"load", "adapt", "train", "evaluate.perplexity@base"} <= {*ran(again)}
    assert digests(again)["train"] != digests(stacked[1])["train"]
    # What measures the model below alone is no part of what it is.
    workspace.edit("max_new_tokens = 8", "max_new_tokens = 7")
    assert {state for state, _ in states(workspace).values()} == {"cached", "will run"}
    assert [node for node, (state, _) in states(workspace).items() if state == "will run"] == ["push.folder"]


def test_an_adapter_names_the_model_that_it_is_for(stacked: tuple[Workspace, dict[str, Any]]) -> None:
    workspace, top = stacked
    exported = workspace.folder / "adapter"
    config = json.loads((exported / "adapter_config.json").read_bytes())
    assert config["base_model_name_or_path"] == digests(top)["tiny/train"]
    assert "for the model that the recipe `tiny` made of" in (exported / "README.md").read_text()
    assert "recipe.toml" in {file.name for file in exported.iterdir()}
    assert (exported / "bases" / "tiny.toml").exists()
    # The export of the recipe below is that model: PEFT puts the adapter on it, and it says what was measured.
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(workspace.folder / "export")
    weights = workspace.home / "artifacts" / digests(top)["tiny/train"].replace(":", "-") / "model.safetensors"
    assert weights.read_bytes() == (workspace.folder / "export" / "model.safetensors").read_bytes()
    before = base.get_input_embeddings().weight.clone()
    adapted = PeftModel.from_pretrained(base, exported)
    assert adapted.active_adapter == "default"
    assert before.equal(adapted.get_input_embeddings().weight)


def test_a_merged_model_is_whole(stacked: tuple[Workspace, dict[str, Any]], tmp_path: Path) -> None:
    """Nothing below is needed: its export, measured as a model of its own, is as good as what was merged."""
    workspace = copied(stacked[0], tmp_path / "w")
    (workspace.folder / "top.toml").write_text(ON_TOP + '\n[push.folder]\nmerged = true\npath = "merged"\n')
    measured = workspace.run(recipe="top.toml").result["metrics"]["perplexity.loss"]["after"]
    assert not (workspace.folder / "merged" / "adapter_config.json").exists()
    head, _, rest = ON_TOP.replace('{ recipe = "tiny.toml" }', '"file:merged"').partition("[data.more]")
    measuring = rest.partition("[data.eval]")[2].partition("[adapt.lora]")[0]
    text = f"{head}[data.eval]{measuring}[evaluate.perplexity]\n"
    (workspace.folder / "alone.toml").write_text(text)
    found = workspace.run(recipe="alone.toml").result["metrics"]["perplexity.loss"]
    assert found["before"] == pytest.approx(measured, rel=1e-5)


def test_quantized_weights_are_made_of_the_trained_ones(
    trained: tuple[Workspace, dict[str, Any]], tmp_path: Path
) -> None:
    workspace = copied(trained[0], tmp_path / "w")
    text = ON_TOP.replace('[load.full]\ndtype = "float32"', '[load.nf4]\ncompute_dtype = "float32"')
    (workspace.folder / "top.toml").write_text(text)
    first = workspace.run(recipe="top.toml").result
    # It is the trained model, less what four bits cannot hold.
    learned, before = trained[1]["metrics"]["perplexity.loss"], first["metrics"]["perplexity.loss"]["before"]
    assert abs(before - learned["after"]) < abs(before - learned["before"])
    (workspace.folder / "top.toml").write_text(
        text.replace("[evaluate.perplexity]", "[evaluate.perplexity]\nwindow = 64")
    )
    again = workspace.run(recipe="top.toml").result
    assert {"load", "train"}.isdisjoint(ran(again))
    replayed = workspace.recipe("replay", "latest", "--verify")
    assert replayed.code == 0, replayed.out + replayed.err
    assert "identical: " in replayed.out


def test_a_named_model_is_taken_as_it_is(stacked: tuple[Workspace, dict[str, Any]], tmp_path: Path) -> None:
    workspace, top = copied(stacked[0], tmp_path / "w"), stacked[1]
    (workspace.folder / "top.toml").write_text(ON_TOP)
    run = json.loads(workspace.recipe("runs", "--json").out)["runs"]
    first = next(row["run"] for row in run if row["name"] == "tiny")
    assert workspace.recipe("registry", "tag", first, "bot:1.0").code == 0
    workspace.edit_file("top.toml", '{ recipe = "tiny.toml" }', '"registry:bot:1.0"')
    workspace.recipe_file.unlink()
    named = workspace.run(recipe="top.toml").result
    assert [node["id"] for node in named["nodes"] if node["id"].startswith("tiny/")] == ["tiny/train"]
    assert ran(named) == []
    assert digests(named)["train"] == digests(top)["train"]
    lock = json.loads((workspace.folder / "top.lock.json").read_bytes())
    assert lock["inputs"]["results"]["registry:bot:1.0"]["artifacts"] == {"train": digests(top)["tiny/train"]}
    # The result on top can have a name too, and keeps what it stands on.
    assert workspace.recipe("registry", "tag", "latest", "tone:1.0").code == 0
    assert workspace.recipe("registry", "gc", "--yes").code == 0
    (workspace.folder / "last.toml").write_text(
        ON_TOP.replace('"top"', '"last"').replace('{ recipe = "tiny.toml" }', '"registry:tone:1.0"')
    )
    last = workspace.run(recipe="last.toml").result
    assert [node for node in statuses(last) if "/" in node] == ["tiny/train", "top/train"]
    assert last["metrics"]["perplexity.loss"]["before"] == top["metrics"]["perplexity.loss"]["after"]


def test_it_answers_with_and_without_the_adapter(stacked: tuple[Workspace, dict[str, Any]], tmp_path: Path) -> None:
    workspace = copied(stacked[0], tmp_path / "w")
    first = next(
        row["run"] for row in json.loads(workspace.recipe("runs", "--json").out)["runs"] if row["name"] == "tiny"
    )
    workspace.recipe_file.unlink()  # each run has its own copy
    answers = [
        workspace.recipe("generate", *which, *ASKED)
        for which in (("latest",), ("latest", "--base"), (first,), (first, "--base"))
    ]
    assert [answer.code for answer in answers] == [0, 0, 0, 0], answers
    assert answers[1].out == answers[2].out


def test_it_is_made_again_and_its_origin_is_told(stacked: tuple[Workspace, dict[str, Any]]) -> None:
    workspace, top = stacked
    replayed = workspace.recipe("replay", top["run"], "--verify")
    assert replayed.code == 0, replayed.out + replayed.err
    assert "identical: " in replayed.out
    graph = json.loads(workspace.recipe("lineage", top["run"], "--json").out)
    assert_output("lineage", graph)
    nodes = {node["id"]: node for node in graph["nodes"]}
    assert nodes["load"]["inputs"] == {"weights": "tiny/train"}
    assert nodes["load"]["source"] is None
    assert [recipe["name"] for recipe in graph["recipes"]] == ["tiny", "top"]
    load = json.loads(workspace.recipe("registry", "show", digests(top)["load"], "--json").out)
    assert {entry["source"] for entry in load["references"]} == {f"artifact:{digests(top)['tiny/train']}"}


def test_a_policy_and_its_reward_model_share_it(tmp_path: Path) -> None:
    workspace = write_ppo(tmp_path / "w", PPO)
    workspace.recipe_file.write_text(WHOLE)
    result = workspace.run(recipe="ppo.toml").result
    nodes = list(statuses(result))
    assert [node for node in nodes if node.rpartition("/")[2] == "train"] == ["tiny/train", "polite/train", "train"]
    assert [node for node in nodes if "attach" in node] == []
    found = digests(result)
    assert found["polite/load"] == found["load"] != found["tiny/load"]
    steps = (workspace.home / "runs" / result["run"] / "train.trace.jsonl").read_text().splitlines()
    assert json.loads(steps[0])["kl"] == pytest.approx(0, abs=1e-6)
    assert ran(workspace.run(recipe="ppo.toml").result) == []
