"""Recipes on top of one that trained a whole model, from the text to the plan."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
from tests import tiny
from tests.unit.written import SMALL, builtins, small_inputs

from recipe_engine.compose import compose
from recipe_engine.descriptors import Method
from recipe_engine.errors import InvalidRecipe
from recipe_engine.estimate.fitting import estimates
from recipe_engine.graph import build_graph
from recipe_engine.hookmark import hookimpl
from recipe_engine.lock import Hardware, peek, source_requests
from recipe_engine.model import Pinned, Recipe
from recipe_engine.node import Node, needed_for
from recipe_engine.outline import outline_of, unfit_methods
from recipe_engine.plan import Planner, make_plan
from recipe_engine.plugins import Catalogue, load_catalogue
from recipe_engine.relations import adapters_below, result_kind, whole_base
from recipe_engine.runners.trained import name_of, trained_model
from recipe_engine.validate import validate
from recipe_registry import Registry, RunRecord, digest_of

CPU = Hardware("cpu", 1, ())
RUN = "20261124-120000-0000"
WHOLE = (
    SMALL.partition("[evaluate")[0]
    .replace('"small"', '"whole"')
    .replace("[adapt.lora]\nrank = 4", "[adapt.full]")
    .replace("[load.full]", '[load.full]\ndtype = "float32"')
    .replace("[train.sft]", "[train.sft]\neval_steps = 5")
)
TOP = """\
version = 1
name = "top"
threads = 1
device = "cpu"
[model]
base = { recipe = "whole.toml" }
[data.more]
source = "file:train.jsonl"
format = "instruction"
[load.full]
dtype = "float32"
[adapt.lora]
[train.sft]
data = "more"
"""
PAIRS = 'source = "file:train.jsonl"\nformat = "preference"\n'
JUDGE = TOP.replace('"top"', '"judge"').replace('source = "file:train.jsonl"\nformat = "instruction"\n', PAIRS)
JUDGE = JUDGE.replace("[train.sft]", "[train.reward]")
PPO = TOP.replace('"instruction"', '"prompt"').replace("[train.sft]", "[train.ppo]")
PPO += 'reward = { recipe = "judge.toml" }\n'


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a recipe that trains a whole model, and one on top of it."""
    monkeypatch.chdir(small_inputs(tmp_path))
    Path("whole.toml").write_text(WHOLE)
    Path("top.toml").write_text(TOP)
    return tmp_path


def recipe(file: str = "top.toml", catalogue: Catalogue | None = None) -> Recipe:
    return validate(compose(file), catalogue or builtins())


def nodes_of(file: str = "top.toml") -> dict[str, Node]:
    return {node.id: node for node in build_graph(recipe(file), builtins())}


def above(text: str, name: str, base: str) -> None:
    """Write a recipe of that name on top of another one."""
    Path(f"{name}.toml").write_text(text.replace('"top"', f'"{name}"').replace("whole.toml", f"{base}.toml"))


def refusal(file: str = "top.toml", catalogue: Catalogue | None = None) -> str:
    with pytest.raises(InvalidRecipe) as refused:
        recipe(file, catalogue)
    return str(refused.value)


def planner_of(file: str, registry: Registry) -> Planner:
    found, catalogue = recipe(file), builtins()
    return Planner(found, registry, CPU, peek(found, catalogue, registry.sources), build_graph(found, catalogue))


def test_the_trained_model_is_loaded_in_place_of_the_source(here: Path) -> None:
    nodes = nodes_of()
    assert list(nodes) == [
        *("resolve", "tokenizer", "whole/prepare.train", "whole/prepare.eval", "prepare.more"),
        *("whole/load", "whole/adapt", "whole/train", "load", "adapt", "train"),
    ]
    assert (nodes["load"].source, nodes["load"].inputs) == ("", {"weights": "whole/train"})
    assert (nodes["whole/load"].source, nodes["whole/load"].inputs) == ("model", {})
    assert nodes["adapt"].inputs == {"model": "load"}


def test_a_load_that_reads_a_source_is_told_no_other(here: Path) -> None:
    """What a worker is told of all other loads, and so their keys, is what it was."""
    assert nodes_of("whole.toml")["load"].to_json()["inputs"] == {}
    assert whole_base(recipe("whole.toml"), builtins()) is None


def test_a_stack(here: Path) -> None:
    """A whole model, a second one trained from it, and two adapters on that."""
    above(TOP.replace("[adapt.lora]", "[adapt.full]"), "second", "whole")
    above(TOP, "third", "second")
    above(TOP, "fourth", "third")
    nodes = nodes_of("fourth.toml")
    loads = {node.id: dict(node.inputs) for node in nodes.values() if node.stage == "load"}
    assert loads == {
        "whole/load": {},
        "second/load": {"weights": "whole/train"},
        "third/load": {"weights": "second/train"},
        "load": {"weights": "second/train"},
    }
    assert {node.id: dict(node.inputs) for node in nodes.values() if node.stage == "attach"} == {
        "attach.third": {"model": "load", "adapter": "third/train"}
    }
    found = recipe("fourth.toml")
    assert [part.name for part in adapters_below(found, builtins())] == ["third"]
    assert result_kind(recipe("second.toml"), builtins()) == "causal_lm"
    assert result_kind(found, builtins()) == "adapter"


def test_a_policy_and_its_reward_model_start_from_one_whole_model(here: Path) -> None:
    Path("judge.toml").write_text(JUDGE)
    above(PPO, "ppo", "whole")
    nodes = nodes_of("ppo.toml")
    assert [name for name in nodes if name.endswith("train")] == [
        *("whole/prepare.train", "whole/train", "judge/train", "train")
    ]
    assert nodes["judge/load"].inputs == nodes["load"].inputs == {"weights": "whole/train"}
    assert nodes["train"].inputs["reward.recipe"] == "judge/train"


def test_what_an_adapter_on_a_whole_model_can_be(here: Path) -> None:
    """Everything that it can be on a model from a source: nothing lies below it that is frozen."""
    above(TOP.replace("[adapt.lora]", "[adapt.lora]\ndora = true") + "[push.folder]\n", "dora", "whole")
    above(TOP.replace("[adapt.lora]", '[adapt.lora]\ninit = "pissa"'), "pissa", "whole")
    above(TOP.replace("[load.full]\ndtype", "[load.nf4]\ncompute_dtype"), "nf4", "whole")
    above(TOP + "[push.folder]\nmerged = true\n", "merged", "whole")
    assert nodes_of("dora.toml")["push.folder"].inputs["adapter"] == "train"
    assert nodes_of("merged.toml")["push.folder"].inputs["adapter"] == "merge"
    assert nodes_of("nf4.toml")["load"].inputs == {"weights": "whole/train"}
    assert nodes_of("pissa.toml")["load"].inputs == {"weights": "whole/train"}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (TOP.replace("[adapt.lora]", '[adapt.lora]\nnew_tokens = ["<x>"]'), "only the first of several recipes"),
        (TOP.replace('[load.full]\ndtype = "float32"\n[adapt.lora]', "[load.nf4]\n[adapt.full]"), "full works on"),
        (TOP.replace("whole.toml", "judge.toml"), "the result of judge.toml is a reward model"),
        (TOP.replace("threads = 1", "threads = 2"), "whole.toml says threads = 1 and this recipe 2"),
        (TOP.replace("whole.toml", "third.toml") + "[push.folder]\n", "works on top of that of its base only"),
        (TOP.replace("whole.toml", "third.toml").replace("[adapt.lora]", "[adapt.full]"), "a model with adapters"),
        (TOP.replace("whole.toml", "top.toml"), "in a circle: top.toml -> top.toml"),
    ],
)
def test_what_it_cannot_be(here: Path, text: str, says: str) -> None:
    Path("judge.toml").write_text(JUDGE)
    above(TOP, "third", "whole")
    Path("top.toml").write_text(text)
    assert says in refusal()


@dataclass(frozen=True)
class Nothing:
    """No options."""


class OddPlugin:
    @hookimpl
    def recipe_adapt_methods(self) -> list[Method]:
        return [Method(name="odd", summary="Odd", options=Nothing, implementation="odd:Odd")]


def test_a_plugin_that_does_not_say_what_it_gives_is_no_base(here: Path) -> None:
    catalogue = load_catalogue(entry_points=False, extra=[OddPlugin()])
    Path("whole.toml").write_text(WHOLE.replace("[adapt.full]", "[adapt.odd]"))
    assert (
        "top.toml:6:8: model.base: the result of whole.toml is neither an adapter nor a whole model. "
        "Export it, and name the folder."
    ) in refusal(catalogue=catalogue)


def test_the_key_of_the_load_is_that_of_the_trained_bytes(here: Path) -> None:
    planner, nodes = planner_of("top.toml", Registry.open(here / "home")), nodes_of()
    one, other = digest_of("one"), digest_of("other")
    key, components = planner.key(nodes["load"], {"whole/train": one})
    assert components["inputs"] == {"weights": one}
    assert planner.key(nodes["load"], {"whole/train": other})[0] != key
    # Neither what the recipe below is called nor where everything started from matters.
    Path("whole.toml").write_text(WHOLE.replace('"whole"', '"renamed"').replace('"file:model"', '"file:model/x"'))
    (here / "model" / "x").mkdir()
    for file in ("config.json", "model.safetensors", "tokenizer.json"):
        (here / "model" / "x" / file).write_text("other")
    renamed = planner_of("top.toml", Registry.open(here / "home"))
    assert renamed.key(nodes_of()["load"], {"renamed/train": one})[0] == key


def test_an_adapter_calls_the_model_below_it_by_its_digest(here: Path) -> None:
    above(TOP, "last", "top")
    planner, nodes = planner_of("last.toml", Registry.open(here / "home")), nodes_of("last.toml")
    made = {name: digest_of(name) for name in nodes}
    for name in ("top/adapt", "top/train", "adapt", "train"):
        assert planner.key(nodes[name], made)[1]["base"] == made["whole/train"]
    assert planner.key(nodes["whole/train"], made)[1]["base"] != made["whole/train"]
    makers = planner.key(nodes["train"], made)[1]["inputs"]["model"]
    assert makers == {name: made[name] for name in ("adapt", "attach.top", "load")}


def committed(registry: Registry) -> str:
    """An artifact as a training of all weights leaves it."""
    import numpy as np
    from safetensors.numpy import save

    staging = registry.artifacts.stage("train")
    (staging / "config.json").write_text('{"model_type": "llama"}')
    (staging / "metrics.json").write_text("{}\n")
    (staging / "training_args.bin").write_bytes(b"pickle")
    (staging / "model.safetensors").write_bytes(save({"lm_head.weight": np.zeros((3, 2), np.float32)}))
    return registry.artifacts.commit(staging).digest


def test_a_trained_model_is_read_like_a_source(tmp_path: Path) -> None:
    registry = Registry.open(tmp_path)
    artifact = registry.artifacts.get(committed(registry))
    found = trained_model(artifact.path)
    assert found.reference == f"artifact:{artifact.digest}"
    assert name_of(artifact.path) == artifact.digest
    assert [file.path for file in found.files] == ["config.json", "metrics.json", "model.safetensors"]
    assert {(file.path, file.sha256, file.size) for file in found.files} < {
        (entry.path, entry.sha256, entry.size) for entry in artifact.entries
    }
    assert found.local_path("model.safetensors") == artifact.path / "model.safetensors"


def test_the_outline_of_a_model_that_is_no_safetensors_comes_from_what_was_trained(here: Path) -> None:
    registry = Registry.open(here / "home")
    digest = committed(registry)
    planner = planner_of("top.toml", registry)
    assert planner.outline().tensors == {}
    assert planner.outline({"whole/train": digest, "load": "", "whole/load": ""}).tensors == {"lm_head.weight": (3, 2)}


def pinned(digest: str) -> Recipe:
    Path("top.toml").write_text(TOP.replace('{ recipe = "whole.toml" }', '"registry:whole:1.0"'))
    given = (Path("whole.toml"), Pinned("registry:whole:1.0", {"train": digest}))
    return validate(compose("top.toml", (), lambda _reference: given), builtins())


def test_of_a_named_model_nothing_but_its_weights_is_needed(here: Path) -> None:
    registry = Registry.open(here / "home")
    found = pinned(committed(registry))
    nodes = build_graph(found, builtins())
    assert [node.id for node in nodes] == [
        *("resolve", "tokenizer", "prepare.more", "whole/train", "load", "adapt", "train")
    ]
    # The run knows the artifact once it has begun, and it begins with what it resolves.
    assert [node.id for node in needed_for(nodes, frozenset({"load"}))] == ["resolve", "whole/train", "load"]
    assert set(source_requests(found, here)) == {"model", "data.more"}
    planned = {node.node.id: node for node in make_plan(found, builtins(), registry, CPU)}
    assert (planned["whole/train"].state, planned["load"].state) == ("cached", "will run")
    assert planned["load"].why == "never run"


def test_what_made_a_named_model_needs_no_room_and_no_device_here(here: Path) -> None:
    """It was trained on a GPU, and took more memory than there may be here."""
    Path("whole.toml").write_text(WHOLE.replace("[train.sft]", '[train.sft]\nmixed_precision = "fp16"'))
    catalogue = builtins()
    outline = outline_of(sorted(tiny.write_model(here / "tiny").iterdir()))
    found = pinned(digest_of("one"))
    assert list(estimates(found, catalogue, outline, {}, None)) == ["load", "train"]
    assert list(unfit_methods(found, catalogue, "cpu")) == []
    Path("top.toml").write_text(TOP)
    assert {"whole/load", "whole/train", "load", "train"} == {*estimates(recipe(), catalogue, outline, {}, None)}
    assert [error.message[:19] for error in unfit_methods(recipe(), catalogue, "cpu")] == ["whole.toml:23:8: tr"]


def test_a_source_in_place_of_a_trained_model_is_told(here: Path) -> None:
    registry = Registry.open(here / "home")
    key, components = planner_of("top.toml", registry).key(nodes_of()["load"], {"whole/train": digest_of("one")})
    registry.artifacts.record_key(key, committed(registry), node="load", run=RUN, components=components, facts={})
    nodes = [{"id": "load", "key": key}]
    registry.runs.save(RunRecord(RUN, "top", "succeeded", "2026-11-24T12:00:00+00:00", digest_of("top"), nodes=nodes))
    Path("top.toml").write_text(TOP.replace('{ recipe = "whole.toml" }', '"file:model"'))
    planner, load = planner_of("top.toml", registry), nodes_of()["load"]
    _, components = planner.key(load, {})
    assert planner.why(load, components) == "source changed, weights changed"
