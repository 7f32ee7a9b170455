"""Recipes on encoders: what fits into them, the graph with a policy on another model, what is refused before a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.unit.written import HEAD, builtins, refusal

from recipe_engine.compose import compose
from recipe_engine.contract import ModelOutline
from recipe_engine.errors import InvalidRecipe
from recipe_engine.estimate.job import job_of
from recipe_engine.graph import build_graph
from recipe_engine.lock import Hardware, peek, source_requests
from recipe_engine.outline import check_model, settled
from recipe_engine.plan import Planner, base_names, make_plan
from recipe_engine.relations import result_kind
from recipe_engine.validate import validate
from recipe_registry import Registry, digest_of

if TYPE_CHECKING:
    from recipe_engine.node import Node

CPU = Hardware("cpu", 1, ())
PAIRS = """\
[data.train]
source = "file:pairs.jsonl"
format = "preference"
"""
REWARD = (
    HEAD.replace('"x"', '"kind"').replace("file:model", "file:encoder")
    + f"{PAIRS}[load.encoder]\n[adapt.lora]\n[train.reward]\n"
)
PPO = """\
version = 1
name = "kinder"
[model]
base = "file:model"
[data.prompts]
source = "file:prompts.jsonl"
format = "prompt"
[load.full]
[adapt.lora]
[train.ppo]
reward = { recipe = "kind.toml" }
"""
TEXTS = (
    '[data.train]\nsource = "file:t.jsonl"\nformat = "text"\n[data.eval]\nsource = "file:t.jsonl"\nformat = "text"\n'
)
HINT = "An encoder gives a score and no text: it is trained by [train.reward] and measured by [evaluate.preference]."


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a policy, its judge and the files of both; of the models the configuration alone."""
    monkeypatch.chdir(tmp_path)
    for name, config in {"model": {"model_type": "llama"}, "encoder": {"model_type": "bert"}}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps(config))
        (tmp_path / name / "model.safetensors").write_text(name)
        (tmp_path / name / "tokenizer.json").write_text(name)
    for name in ("pairs", "prompts"):
        (tmp_path / f"{name}.jsonl").write_text(name)
    (tmp_path / "kind.toml").write_text(REWARD)
    (tmp_path / "ppo.toml").write_text(PPO)
    return tmp_path


def nodes_of(file: str) -> dict[str, Node]:
    return {node.id: node for node in build_graph(validate(compose(file), builtins()), builtins())}


@pytest.mark.parametrize("adapt", ["[adapt.lora]\n", "[adapt.full]\n"])
def test_a_reward_model_on_an_encoder(adapt: str, here: Path) -> None:
    (here / "kind.toml").write_text(REWARD.replace("[adapt.lora]\n", adapt))
    recipe = validate(compose("kind.toml"), builtins())
    assert result_kind(recipe, builtins()) == "reward_model"
    assert job_of(recipe, builtins(), {}) is None


@pytest.mark.parametrize(
    ("tables", "says"),
    [
        (
            "[adapt.lora]\n[train.sft]\n",
            "weights of full precision, and adapt.lora gives an encoder with adapters; see adapt.lora at r.toml:7:8",
        ),
        ("[adapt.full]\n[train.sft]\n", "adapt.full gives an encoder; see adapt.full"),
        ("[evaluate.perplexity]\n", "a quantized model, and load.encoder gives an encoder; see load.encoder"),
        ("[evaluate.samples]\n", "load.encoder gives an encoder"),
        ("[evaluate.exact_match]\n", "load.encoder gives an encoder"),
        ('[evaluate.harness]\nfolder = "file:tasks"\ntasks = ["x"]\n', "load.encoder gives an encoder"),
        ('[adapt.lora]\n[train.ppo]\nreward = { pattern = "x" }\n', "adapt.lora gives an encoder with adapters"),
    ],
)
def test_what_needs_a_language_model(tables: str, says: str) -> None:
    found = refusal(f"{HEAD}\n[load.encoder]\n{tables}{TEXTS}")
    assert says in found
    assert HINT in found


@pytest.mark.parametrize(
    ("load", "adapt", "says"),
    [
        ("", '[adapt.lora]\nnew_tokens = ["<x>"]\n', "an encoder keeps the tokens that it has"),
        ('dtype = "bfloat16"\n', "[adapt.full]\n", 'load with dtype = "float32"'),
        ('dtype = "float16"\n', "[adapt.lora]\n", 'expected "float32" or "bfloat16", found "float16"'),
    ],
)
def test_options_that_do_not_go_together(load: str, adapt: str, says: str) -> None:
    text = REWARD.replace("[load.encoder]\n", f"[load.encoder]\n{load}").replace("[adapt.lora]\n", adapt)
    assert says in refusal(text)


def outlines(model_type: str, **config: object) -> ModelOutline:
    return ModelOutline({"model_type": model_type, **config}, {})


@pytest.mark.parametrize("method", ["full", "nf4", "int8"])
def test_an_encoder_is_no_language_model(method: str, here: Path) -> None:
    (here / "r.toml").write_text(HEAD + f"[load.{method}]\n")
    recipe = validate(compose("r.toml"), builtins())
    with pytest.raises(InvalidRecipe) as refused:
        check_model(recipe, builtins(), outlines("bert"))
    assert str(refused.value).startswith(
        f"r.toml:5:7: load.{method}: bert is an encoder and no causal language model. "
        "Load it with [load.encoder], to train a reward model on it."
    )
    check_model(recipe, builtins(), outlines("bert", is_decoder=True))


@pytest.mark.parametrize("outline", [outlines("llama"), outlines("new", architectures=["NewForCausalLM"])])
def test_a_language_model_is_no_encoder(outline: ModelOutline, here: Path) -> None:
    recipe = validate(compose("kind.toml"), builtins())
    with pytest.raises(InvalidRecipe) as refused:
        check_model(recipe, builtins(), outline)
    name = outline.config["model_type"]
    assert f"kind.toml:8:7: load.encoder: {name} is a causal language model and no encoder." in str(refused.value)
    check_model(recipe, builtins(), outlines("bert", architectures=["BertForMaskedLM"]))


def test_a_plan_says_so(here: Path) -> None:
    (here / "r.toml").write_text(HEAD.replace("file:model", "file:encoder") + "[load.full]\n")
    registry = Registry.open(here / "home")
    with pytest.raises(InvalidRecipe, match=r"r\.toml:5:7: load\.full: bert is an encoder"):
        make_plan(validate(compose("r.toml"), builtins()), builtins(), registry, CPU)


def test_one_graph_with_two_models(here: Path) -> None:
    nodes = nodes_of("ppo.toml")
    assert list(nodes) == [
        *("resolve", "tokenizer", "kind/tokenizer", "kind/prepare.train", "prepare.prompts"),
        *("kind/load", "kind/adapt", "kind/train", "load", "adapt", "train"),
    ]
    assert (nodes["kind/load"].source, nodes["load"].source) == ("kind/model", "model")
    assert nodes["kind/tokenizer"].source == "kind/model"
    assert nodes["kind/prepare.train"].inputs == {"tokenizer": "kind/tokenizer"}
    assert nodes["kind/train"].inputs["tokenizer"] == "kind/tokenizer"
    assert nodes["train"].inputs["tokenizer"] == nodes["prepare.prompts"].inputs["tokenizer"] == "tokenizer"
    assert nodes["train"].inputs["reward.recipe"] == "kind/train"
    plain = [node.id for node in nodes.values() if node.changed_options.get("plain")]
    assert plain == ["kind/prepare.train", "prepare.prompts"]


def test_two_models_are_resolved_and_named(here: Path) -> None:
    recipe = validate(compose("ppo.toml"), builtins())
    assert {name: asked.reference for name, asked in source_requests(recipe, here).items() if "model" in name} == {
        "model": "file:model",
        "kind/model": "file:encoder",
    }
    registry = Registry.open(here / "home")
    resolution = peek(recipe, builtins(), registry.sources)
    names = base_names(recipe, resolution)
    assert sorted(names) == ["kind/model", "model"]
    assert names["kind/model"] != names["model"]
    planner = Planner(recipe, registry, CPU, resolution, build_graph(recipe, builtins()))
    others = planner.other_outlines()
    assert {prefix: outline.config for prefix, outline in others.items()} == {"kind/": {"model_type": "bert"}}
    assert settled(recipe, builtins(), planner.outline(), others) == {
        "kind/train": {"layout": "padded"},
        "train": {"layout": "packed"},
    }
    assert settled(recipe, builtins(), planner.outline()) == {"train": {"layout": "packed"}}
    check_model(recipe, builtins(), planner.outline(), others)
    with pytest.raises(InvalidRecipe, match=r"kind\.toml:8:7: load\.encoder: llama is a causal"):
        check_model(recipe, builtins(), planner.outline(), {"kind/": planner.outline()})


def test_a_judge_has_the_keys_that_it_has_alone(here: Path) -> None:
    """What is called kind/train here is train there; and a policy of another judge is another."""
    registry = Registry.open(here / "home")

    def keys(file: str, made: str = "") -> dict[str, str]:
        recipe = validate(compose(file), builtins())
        nodes = build_graph(recipe, builtins())
        planner = Planner(recipe, registry, CPU, peek(recipe, builtins(), registry.sources), nodes)
        artifacts = {node.id: digest_of(made + node.id.rpartition("/")[2]) for node in nodes}
        return {node.id: planner.key(node, artifacts)[0] for node in nodes if node.id != "resolve"}

    alone, judging = keys("kind.toml"), keys("ppo.toml")
    assert {name: key for name, key in judging.items() if name.startswith("kind/")} == {
        f"kind/{name}": key for name, key in alone.items()
    }
    assert keys("ppo.toml", "other")["train"] != judging["train"]
    (here / "encoder" / "model.safetensors").write_text("another")
    assert keys("ppo.toml")["kind/load"] != judging["kind/load"]
    assert keys("ppo.toml")["load"] == judging["load"]


def test_an_encoder_on_the_hub_that_is_not_here_yet(here: Path) -> None:
    """The plan knows nothing of it, and does not take the policy's files for its own."""
    text = REWARD.replace('"file:encoder"', '"hub:me/encoder"\nrevision = "main"')
    (here / "kind.toml").write_text(text)
    recipe = validate(compose("ppo.toml"), builtins())
    plan = {node.node.id: node for node in make_plan(recipe, builtins(), Registry.open(here / "home"), CPU)}
    assert plan["kind/load"].state == "unknown"
    assert plan["kind/load"].why == "kind/model is not locked"
    assert plan["kind/train"].settled == {}
    assert plan["train"].settled["layout"] == "packed"


def test_nothing_starts_from_a_result_on_an_encoder(here: Path) -> None:
    (here / "top.toml").write_text(
        REWARD.replace('"kind"', '"top"').replace('"file:encoder"', '{ recipe = "kind.toml" }')
    )
    with pytest.raises(InvalidRecipe, match=r"the result of kind\.toml is a reward model, which gives no answers"):
        validate(compose("top.toml"), builtins())


def test_a_judge_on_another_decoder_is_refused_and_told_of_encoders(here: Path) -> None:
    (here / "kind.toml").write_text(REWARD.replace("[load.encoder]", "[load.full]"))
    with pytest.raises(InvalidRecipe, match=r"does not start from the model.*make a reward model of an encoder with"):
        validate(compose("ppo.toml"), builtins())


def test_paths_to_one_model_may_be_spelled_in_two_ways(here: Path) -> None:
    recipe = validate(compose("ppo.toml"), builtins())
    kind = recipe.rewards["recipe"]
    assert recipe.model_prefix(recipe) == ""
    assert recipe.model_prefix(kind) == "kind/"
    (here / "same.toml").write_text(REWARD.replace("file:encoder", "file:../" + here.name + "/encoder"))
    same = validate(compose("same.toml"), builtins())
    assert same.start == kind.start
    assert validate(compose("kind.toml", ['model.base="hub:me/it"', 'model.revision="main"']), builtins()).start == (
        "hub:me/it",
        "main",
    )


def test_memory_of_a_policy_that_an_encoder_judges(here: Path) -> None:
    """The policy is counted, and the encoder is not."""
    job = job_of(validate(compose("ppo.toml"), builtins()), builtins(), {})
    assert job is not None
    assert job.rewards == {}
