"""Recipes that train a reward model: what fits into them, and what does not."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.unit.written import HEAD, LOAD, TRAIN, builtins, recipe_of, refusal, small_inputs

from recipe_engine.compose import compose
from recipe_engine.descriptors import RewardSource
from recipe_engine.diff import recipe_tree
from recipe_engine.errors import InvalidRecipe
from recipe_engine.graph import build_graph
from recipe_engine.hookmark import hookimpl
from recipe_engine.lock import Hardware, peek, source_requests
from recipe_engine.options import option
from recipe_engine.plan import Planner
from recipe_engine.plugins import Catalogue, load_catalogue
from recipe_engine.relations import result_kind
from recipe_engine.schema import recipe_schema
from recipe_engine.validate import validate
from recipe_registry import Registry, digest_of

if TYPE_CHECKING:
    from tests.conftest import Golden

    from recipe_engine.model import Recipe

CPU = Hardware("cpu", 1, ())
PAIRS = """\
[data.train]
source = "file:pairs.jsonl"
format = "preference"
split = "train[:90%]"
[data.eval]
source = "file:pairs.jsonl"
format = "preference"
split = "train[90%:]"
"""
REWARD = LOAD + "[adapt.lora]\n[train.reward]\n[evaluate.preference]\n" + PAIRS


def test_a_reward_model_is_what_it_makes() -> None:
    assert result_kind(recipe_of(REWARD), builtins()) == "reward_model"
    assert result_kind(recipe_of(LOAD), builtins()) == "causal_lm"


@pytest.mark.parametrize(
    ("recipe", "says"),
    [
        (
            REWARD + "[evaluate.perplexity]\n",
            "or a quantized model, and train.reward gives a reward model",
        ),
        (
            REWARD.replace("[train.reward]", "[train.sft]"),
            'data.train.format: train.sft cannot read the format "preference"',
        ),
        (
            REWARD.replace("[adapt.lora]\n", '[adapt.lora]\ntarget_modules = ["q_proj", "lm_head"]\n'),
            "train.reward: a reward model has no lm_head, which predicts tokens; see adapt.lora.target_modules",
        ),
        (
            REWARD + "[push.folder]\nmerged = true\n",
            "push.folder.merged: a reward model is exported as an adapter",
        ),
        (REWARD.replace("preference]", "preference]\nbatch_size = 0"), "evaluate.preference.batch_size"),
        (REWARD.replace("reward]", "reward]\ncentering = -1"), "train.reward.centering: expected at least 0"),
        (REWARD.replace("reward]", 'reward]\nloss_on = "all"'), "train.reward.loss_on: unknown key"),
    ],
)
def test_what_does_not_fit(recipe: str, says: str) -> None:
    assert says in refusal(recipe)


def test_pairs_are_measured_on_reward_models_alone() -> None:
    sft = LOAD + '[evaluate.preference]\n[data.eval]\nsource = "file:p.jsonl"\nformat = "preference"\n'
    assert "preference works on a reward model, and load.full gives a model with weights" in refusal(sft)
    assert HEAD in sft


PPO = """\
version = 1
name = "ppo"
[model]
base = { recipe = "sft.toml" }
[data.prompts]
source = "file:prompts.jsonl"
format = "prompt"
[load.full]
[adapt.lora]
[train.ppo]
reward = REWARD
"""
SFT = TRAIN.replace('name = "x"', 'name = "sft"')
POLITE = REWARD.replace('name = "x"', 'name = "polite"').replace('"file:model"', '{ recipe = "sft.toml" }')
GOOD = """\
[{ recipe = "polite.toml", name = "quality" }, { pattern = "!$", weight = -0.5 }, \
{ json_schema = "file:answer.json" }, { model = "file:judge", label = "POSITIVE" }]"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with two recipes that a third one builds on."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sft.toml").write_text(SFT)
    (tmp_path / "polite.toml").write_text(POLITE)
    return tmp_path


def judged_by(reward: str, *overrides: str, file: str = "ppo.toml", catalogue: Catalogue | None = None) -> Recipe:
    Path(file).write_text(PPO.replace("REWARD", reward))
    return validate(compose(file, overrides), catalogue or builtins())


def refused(reward: str) -> str:
    with pytest.raises(InvalidRecipe) as caught:
        judged_by(reward)
    return str(caught.value)


BAD = [
    *("3", "[3]", "[]", "{}", "{ weight = 2 }", '{ patern = "x" }', "{ pattern = 3 }", '{ pattern = "(" }'),
    *('{ pattern = "x", wole = true }', '{ pattern = "x", timeout = 0 }', '{ pattern = "x", name = "a b" }'),
    *('{ pattern = "x", json_schema = {} }', '[{ pattern = "a" }, { pattern = "b" }]', "{ json_schema = 3 }"),
    *("{ json_schema = { type = 3 } }", '{ json_schema = "answer.json" }', '{ function = "polite" }'),
    *('{ function = "pattern" }', '{ model = "distilbert" }', '{ model = "file:m", revision = "main" }'),
    *('{ model = "file:m", output = "loss" }', '{ model = "file:m", timeout = 3 }', '{ recipe = "no.toml" }'),
    *('{ recipe = "ppo.toml" }', '{ recipe = "sft.toml" }', '{ recipe = "polite.toml", timeout = 5 }'),
]


def test_messages(here: Path, golden: Golden) -> None:
    golden("validate-rewards.txt", "\n".join(f"# {reward}\n{refused(reward)}\n" for reward in BAD))


@pytest.mark.parametrize(
    ("polite", "says"),
    [
        (POLITE.replace("rward", "reward") + "[push.fold]\n", "polite.toml:"),
        (
            POLITE.replace('{ recipe = "sft.toml" }', '"file:model"').replace("name", "threads = 2\nname"),
            "polite.toml says threads = 2 and this recipe nothing",
        ),
        (POLITE.replace('"polite"', '"ppo"'), "two of the recipes sft, ppo, ppo have one name"),
        (POLITE.replace('"polite"', '"sft"'), "in a circle"),
        (
            POLITE.replace('{ recipe = "sft.toml" }', '"file:another"'),
            "polite.toml does not start from the model of this recipe, whose tokens it would be asked about",
        ),
        (
            POLITE.replace('{ recipe = "sft.toml" }', '"file:model"').replace(
                "[adapt.lora]", '[adapt.lora]\nnew_tokens = ["<x>"]'
            ),
            "polite.toml does not start from the model of this recipe",
        ),
    ],
)
def test_recipes_that_cannot_be_a_reward(here: Path, polite: str, says: str) -> None:
    if says == "in a circle":
        polite = POLITE.replace("sft.toml", "ppo.toml")
    (here / "polite.toml").write_text(polite)
    assert says in refused('{ recipe = "polite.toml" }')


def test_a_reward_model_on_top_of_another_recipe_is_used_by_its_recipe(here: Path) -> None:
    (here / "polite.toml").write_text(POLITE + "[push.folder]\n")
    with pytest.raises(InvalidRecipe, match=r"works on top of that of its base only.*reward = \{ recipe = "):
        validate(compose("polite.toml"), builtins())


def test_a_reward_model_is_nothing_to_start_from(here: Path) -> None:
    (here / "top.toml").write_text(SFT.replace('"sft"', '"top"').replace('"file:model"', '{ recipe = "polite.toml" }'))
    with pytest.raises(InvalidRecipe, match=r"the result of polite\.toml is a reward model, which gives no answers"):
        validate(compose("top.toml"), builtins())


def test_one_graph_in_which_each_part_is_once(here: Path) -> None:
    recipe = judged_by(GOOD)
    assert [part.name for part in recipe.parts()] == ["sft", "polite", "ppo"]
    nodes = {node.id: node for node in build_graph(recipe, builtins())}
    assert [name for name in nodes if name.endswith("/load") or name == "load"] == ["sft/load", "polite/load", "load"]
    assert nodes["polite/attach.sft"].inputs == {"model": "polite/load", "adapter": "sft/train"}
    train = nodes["train"]
    assert train.inputs["reward.quality"] == "polite/train"
    assert train.sources == {"reward.json_schema": "reward.json_schema", "reward.model": "reward.model"}
    assert train.reward_sources == ("recipe", "pattern", "json_schema", "model")
    assert {"jsonschema", "tokenizers"} <= set(train.packages)
    assert set(source_requests(recipe, here)) == {
        *("model", "sft/data.train", "polite/data.train", "polite/data.eval", "data.prompts"),
        *("reward.json_schema", "reward.model"),
    }
    order = list(nodes)
    assert all(order.index(parent) < order.index(node.id) for node in nodes.values() for parent in node.inputs.values())


def test_what_a_key_knows_of_rewards(here: Path) -> None:
    """Options and weights, and no path: the content of files and recipes enters it apart."""

    def keyed(reward: str) -> Any:
        nodes = {node.id: node for node in build_graph(judged_by(reward), builtins())}
        return nodes["train"].changed_options["reward"]

    assert keyed(GOOD) == [
        {"source": "recipe", "name": "quality", "options": {}, "revision": 1},
        {"source": "pattern", "name": "pattern", "weight": -0.5, "options": {"pattern": "!$"}, "revision": 1},
        {"source": "json_schema", "name": "json_schema", "options": {}, "revision": 1},
        {"source": "model", "name": "model", "options": {"label": "POSITIVE"}, "revision": 1},
    ]
    assert keyed('{ pattern = "a" }') == keyed('[{ pattern = "a", weight = 1.0, timeout = 9, whole = false }]')
    assert keyed('{ json_schema = { type = "string" } }')[0]["options"] == {"json_schema": {"type": "string"}}


def test_what_judges_is_in_the_key_by_its_content(here: Path) -> None:
    """The whole of what made a reward model, and every byte of files: a policy that another judge taught is another."""
    small_inputs(here)
    (here / "judge").mkdir()
    for path in ("prompts.jsonl", "pairs.jsonl", "answer.json", "judge/config.json", "judge/model.safetensors"):
        (here / path).write_text(path)
    recipe, registry = judged_by(GOOD), Registry.open(here / "home")
    nodes = build_graph(recipe, builtins())
    made = {node.id: digest_of(node.id) for node in nodes}

    def keyed(artifacts: dict[str, str]) -> tuple[str, dict[str, Any]]:
        planner = Planner(recipe, registry, CPU, peek(recipe, builtins(), registry.sources), nodes)
        return planner.key(next(node for node in nodes if node.id == "train"), artifacts)

    key, components = keyed(made)
    taught_by = components["inputs"]["reward.quality"]
    assert taught_by[:2] == [made["polite/train"], made["polite/adapt"]]
    assert made["sft/train"] not in taught_by
    assert keyed({**made, "polite/train": digest_of("another")})[0] != key
    (here / "judge" / "model.safetensors").write_text("another")
    assert keyed(made)[0] != key


def test_what_a_run_keeps_is_the_same_recipe_elsewhere(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = judged_by(GOOD)
    kept = recipe.as_run()
    assert list(kept) == ["recipe.toml", "bases/polite.toml", "bases/sft.toml"]
    moved = recipe.as_run(absolute=True)["recipe.toml"].decode()
    assert f'json_schema = "file:{here}/answer.json"' in moved
    assert 'pattern = "!$"' in moved
    (here / "kept" / "bases").mkdir(parents=True)
    for name, text in kept.items():
        (here / "kept" / name).write_bytes(text)
    monkeypatch.chdir(here / "kept")
    again = validate(compose("recipe.toml"), builtins())
    assert [part.name for part in again.parts()] == ["sft", "polite", "ppo"]
    assert set(again.rewards) == {"quality"}
    before, after = recipe.to_table()["train"]["ppo"], again.to_table()["train"]["ppo"]
    assert after["reward"][0].pop("recipe") == "bases/polite.toml"
    assert before["reward"][0].pop("recipe") == "polite.toml"
    assert before == after


def test_the_digest_of_a_recipe_is_that_of_all_of_its_parts(here: Path) -> None:
    before = judged_by(GOOD).digest()
    (here / "polite.toml").rename(here / "kind.toml")
    assert judged_by(GOOD.replace("polite.toml", "kind.toml")).digest() == before
    (here / "kind.toml").write_text(POLITE.replace("[train.reward]", "[train.reward]\nepochs = 2"))
    assert judged_by(GOOD.replace("polite.toml", "kind.toml")).digest() != before


def test_where_a_reward_recipe_was_kept_is_no_difference(here: Path) -> None:
    tree = recipe_tree(judged_by(GOOD))
    assert "recipe" not in tree["train"]["ppo"]["reward"][0]
    assert tree["rewards"]["quality"]["name"] == "polite"
    assert tree["rewards"]["quality"]["base"]["name"] == tree["base"]["name"] == "sft"


def test_a_recipe_extends_another_folders_rewards(here: Path) -> None:
    (here / "other").mkdir()
    judged_by(GOOD)
    (here / "other" / "mine.toml").write_text('extends = "../ppo.toml"\nname = "mine"\n')
    recipe = validate(compose("other/mine.toml"), builtins())
    recipe_table, _, schema_table, model_table = recipe.to_table()["train"]["ppo"]["reward"]
    assert recipe_table["recipe"] == "../polite.toml"
    assert (schema_table["json_schema"], model_table["model"]) == ("file:../answer.json", "file:../judge")
    (here / "other" / "mine.toml").write_text(
        'extends = "../ppo.toml"\nname = "mine"\n[train.ppo]\nreward = { pattern = "file:x" }\n'
    )
    recipe = validate(compose("other/mine.toml"), builtins())
    assert recipe.to_table()["train"]["ppo"]["reward"]["pattern"] == "file:x"
    judged_by('{ json_schema = { type = "string" } }')
    recipe = validate(compose("other/mine.toml"), builtins())
    assert "json_schema" not in recipe.to_table()["train"]["ppo"]["reward"]
    assert not recipe.rewards


@pytest.mark.parametrize("closed", [True, False])
def test_the_schema_of_a_whole_recipe(here: Path, closed: bool) -> None:
    from jsonschema import Draft202012Validator

    checker = Draft202012Validator(recipe_schema(builtins(), closed=closed))

    def is_valid(reward: str) -> bool:
        return checker.is_valid(tomllib.loads(PPO.replace("REWARD", reward)))

    assert is_valid(GOOD)
    assert is_valid('{ pattern = "x" }')
    for reward in ('{ pattern = "x", wole = true }', "3", "{ pattern = 3 }", '{ pattern = "x", recipe = "r.toml" }'):
        assert not is_valid(reward), reward
    # An editor on another machine does not know what plugins bring.
    for reward in ('{ function = "polite", words = 3 }', '{ politeness = "high" }'):
        assert is_valid(reward) != closed, reward


class Polite:
    """A plugin with two rewards: a function, and one that has a key of its own."""

    @dataclass(frozen=True)
    class Function:
        """A function."""

        words: int = option("Words.", default=3, minimum=1)

    @dataclass(frozen=True)
    class Own:
        """One with a key."""

        shortness: float = option("How short.", above=0)

    @hookimpl
    def recipe_reward_sources(self) -> list[RewardSource]:
        return [
            RewardSource(name="polite", summary="Polite", options=self.Function, implementation="a:B", revision=2),
            RewardSource(name="shortness", summary="Short", options=self.Own, implementation="a:C"),
        ]


def test_what_plugins_bring(here: Path) -> None:
    catalogue = load_catalogue([Polite()], entry_points=False)
    recipe = judged_by('[{ function = "polite", words = 2 }, { shortness = 0.5 }]', catalogue=catalogue)
    assert recipe.to_table()["train"]["ppo"]["reward"] == [
        {"function": "polite", "words": 2, "weight": 1.0},
        {"shortness": 0.5, "weight": 1.0},
    ]
    (train,) = [node for node in build_graph(recipe, catalogue) if node.id == "train"]
    assert [reward["revision"] for reward in train.changed_options["reward"]] == [2, 1]
    assert list(train.reward_plugins) == [catalogue.plugins[-1].distribution]
    for reward, says in (
        ('{ function = "polite", words = 0 }', "train.ppo.reward.words: expected at least 1, found 0"),
        ('{ function = "polit" }', 'unknown reward function "polit". Did you mean polite?'),
        ("{ polite = 3 }", 'train.ppo.reward.polite: unknown key. Write function = "polite"'),
        ("{ shortness = 0 }", "train.ppo.reward.shortness: expected more than 0, found 0"),
        ('{ function = "shortness" }', 'unknown reward function "shortness"'),
    ):
        with pytest.raises(InvalidRecipe) as caught:
            judged_by(reward, catalogue=catalogue)
        assert says in str(caught.value), reward


def test_an_override_replaces_a_reward(here: Path) -> None:
    recipe = judged_by('{ pattern = "a" }', 'train.ppo.reward={ pattern = "b", weight = 2 }')
    assert recipe.to_table()["train"]["ppo"]["reward"] == {"pattern": "b", "whole": False, "weight": 2.0}
