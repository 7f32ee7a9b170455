"""What a plan says of each node, against a real registry in which keys are recorded by hand."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests import tiny
from tests.unit.written import SMALL, builtins, composed, small_inputs

from recipe_engine.descriptors import Source
from recipe_engine.device_memory import gib, machine_memory
from recipe_engine.errors import UnresolvedInput
from recipe_engine.estimate.fitting import LIBRARIES
from recipe_engine.graph import build_graph
from recipe_engine.hookmark import hookimpl
from recipe_engine.lock import Hardware, peek
from recipe_engine.node import METRICS_FILE
from recipe_engine.plan import PlannedNode, Planner, base_name, make_plan, planned_outlook
from recipe_engine.plugins import load_catalogue
from recipe_engine.validate import validate
from recipe_registry import Registry, RunRecord

if TYPE_CHECKING:
    from recipe_engine.model import Recipe

CPU = Hardware("cpu", 1, ("avx2",))
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Bench:
    """A folder with a recipe's inputs, and a registry."""

    folder: Path
    registry: Registry
    runs: int = 0
    keys: dict[str, str] = field(default_factory=dict)

    def recipe(self, *overrides: str, text: str = SMALL) -> Recipe:
        return validate(composed(text, overrides, file=str(self.folder / "r.toml")), builtins())

    def plan(
        self, *overrides: str, text: str = SMALL, hardware: Hardware = CPU, any_environment: bool = False
    ) -> dict[str, PlannedNode]:
        recipe = self.recipe(*overrides, text=text)
        planned = make_plan(recipe, builtins(), self.registry, hardware, any_environment=any_environment)
        return {node.node.id: node for node in planned}

    def states(self, *overrides: str, text: str = SMALL) -> dict[str, str]:
        return {name: node.state for name, node in self.plan(*overrides, text=text).items()}

    def run(self, *overrides: str, name: str | None = None) -> str:
        """Record a run in which every node made an artifact that says the node's key."""
        recipe = self.recipe(*overrides)
        planner = Planner(
            recipe, self.registry, CPU, peek(recipe, builtins(), self.registry.sources), build_graph(recipe, builtins())
        )
        self.runs += 1
        run_id = f"20261124-1200{self.runs:02}-0000"
        made: dict[str, str] = {}
        nodes: list[Mapping[str, Any]] = [{"id": "resolve", "key": ""}]
        for planned in make_plan(recipe, builtins(), self.registry, CPU):
            node = planned.node
            if node.stage in ("resolve", "push"):
                continue
            key, components = planner.key(node, made)
            staging = self.registry.artifacts.stage(node.id)
            (staging / "content").write_text(key)
            (staging / METRICS_FILE).write_text("{}")
            made[node.id] = self.registry.artifacts.commit(staging).digest
            self.registry.artifacts.record_key(
                key, made[node.id], node=node.id, run=run_id, components=components, facts={}
            )
            nodes.append({"id": node.id, "key": key})
            self.keys[node.id] = key
        self.save(run_id, name or recipe.name, nodes)
        return run_id

    def save(self, run_id: str, name: str, nodes: Sequence[Mapping[str, Any]]) -> None:
        record = RunRecord(
            id=run_id,
            name=name,
            status="succeeded",
            started=f"2026-11-24T12:00:{self.runs:02}+00:00",
            recipe_digest="sha256:" + "0" * 64,
            nodes=nodes,
        )
        self.registry.runs.save(record)

    def lose(self, node: str) -> None:
        """Remove the artifact of a node of the last run."""
        found = self.registry.artifacts.lookup(self.keys[node])
        assert found is not None
        shutil.rmtree(self.registry.artifacts.get(found.artifact).path)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    # Every artifact is synchronized to the disk: in memory, where there is one, that costs nothing.
    shared = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shared if os.access(shared, os.W_OK) else None) as folder:
        yield Bench(small_inputs(tmp_path / "recipe"), Registry.open(Path(folder)))


def test_before_the_first_run(bench: Bench) -> None:
    plan = bench.plan()
    assert {name: (node.state, node.why) for name, node in plan.items()} == {
        "resolve": ("cached", "every input is on this machine"),
        "tokenizer": ("will run", "never run"),
        "prepare.train": ("depends on", "tokenizer"),
        "prepare.eval": ("depends on", "tokenizer"),
        "load": ("will run", "never run"),
        "evaluate.perplexity@base": ("depends on", "load"),
        "answers.eval-64x32@base": ("depends on", "load"),
        "evaluate.exact_match@base": ("depends on", "answers.eval-64x32@base"),
        "adapt": ("depends on", "load"),
        "train": ("depends on", "adapt"),
        "evaluate.perplexity@result": ("depends on", "train"),
        "answers.eval-64x32@result": ("depends on", "train"),
        "evaluate.exact_match@result": ("depends on", "answers.eval-64x32@result"),
        "push.folder": ("depends on", "train"),
    }
    assert plan["load"].key.startswith("sha256:")
    assert plan["adapt"].key == plan["load"].artifact == ""


def test_a_plan_writes_nothing(bench: Bench, tmp_path: Path) -> None:
    bench.registry = Registry.open(tmp_path / "none", create=False)
    bench.plan()
    assert not (tmp_path / "none").exists()


def test_after_a_run_everything_is_cached_but_the_push(bench: Bench) -> None:
    run_id = bench.run()
    plan = bench.plan()
    others = [node for name, node in plan.items() if name not in ("resolve", "push.folder")]
    assert {(node.state, node.why) for node in others} == {("cached", f"made by run {run_id}")}
    assert (plan["push.folder"].state, plan["push.folder"].why) == (
        "will run",
        "a push is compared with its target each time",
    )


def test_a_node_as_json(bench: Bench) -> None:
    bench.run()
    load, push = (bench.plan()[name].to_json() for name in ("load", "push.folder"))
    found = bench.registry.artifacts.lookup(bench.keys["load"])
    assert found is not None
    assert load == {
        "id": "load",
        "stage": "load",
        "instance": "full",
        "method": "full",
        "state": "cached",
        "why": f"made by run {found.run}",
        "settled": {"dtype": "float32"},
        "key": bench.keys["load"],
        "artifact": {"digest": found.artifact},
    }
    assert (push["key"], push["artifact"]) == (None, None)


def test_the_layout_of_a_training_follows_from_the_model(bench: Bench) -> None:
    assert bench.plan()["train"].settled == {}, "the model's files tell nothing"
    (bench.folder / "model" / "config.json").write_text('{"model_type": "llama"}')
    assert bench.plan()["train"].settled == {"layout": "packed"}
    assert bench.plan("train.sft.layout=padded")["train"].settled == {"layout": "padded"}
    (bench.folder / "model" / "config.json").write_text('{"model_type": "bloom"}')
    assert bench.plan()["train"].settled == {"layout": "padded"}


OTHER_CPU = Hardware("cpu", 4, ("avx2",))


def test_a_rule_on_the_result_is_judged_each_time(bench: Bench) -> None:
    bench.run()
    planned = bench.plan(text=f'{SMALL}\n[gate]\nexact_match = ">= 0.5"\n')
    assert (planned["gate"].state, planned["gate"].why) == ("will run", "what was measured is judged each time")


def test_the_memory_that_a_recipe_needs_follows_from_the_model(bench: Bench) -> None:
    assert not planned_outlook(bench.recipe(), builtins(), bench.registry, CPU, None).stages
    tiny.write_model(bench.folder / "model")
    found = planned_outlook(bench.recipe(), builtins(), bench.registry, CPU, None)
    assert list(found.stages) == ["load", "train", "evaluate.perplexity", "evaluate.exact_match"]
    assert found.there == machine_memory()
    assert bench.plan()["train"].settled["memory"] == gib(found.stages["train"].total + LIBRARIES)


def test_a_result_of_another_environment_is_taken_where_that_is_wanted(bench: Bench) -> None:
    run_id = bench.run()
    files = sorted(bench.registry.home.rglob("*"))
    plain = bench.plan(hardware=OTHER_CPU)
    assert (plain["load"].state, plain["load"].why) == ("will run", "threads 1 -> 4")
    plan = bench.plan(hardware=OTHER_CPU, any_environment=True)
    assert {node.state for name, node in plan.items() if name != "push.folder"} == {"cached"}
    assert plan["tokenizer"].why == f"made by run {run_id}"
    assert {plan[name].why for name in ("load", "train")} == {f"made by run {run_id} with 1 thread"}
    assert plan["train"].key == bench.keys["train"]
    assert sorted(bench.registry.home.rglob("*")) == files


def test_another_environment_is_the_only_thing_that_may_differ(bench: Bench) -> None:
    bench.run()
    plan = bench.plan("train.sft.learning_rate=0.0005", hardware=OTHER_CPU, any_environment=True)
    assert (plan["adapt"].state, plan["train"].state) == ("cached", "will run")
    assert bench.plan("seed=8", hardware=OTHER_CPU, any_environment=True)["train"].state != "cached"
    bench.lose("train")
    assert bench.plan(hardware=OTHER_CPU, any_environment=True)["train"].state == "will run"


def test_why_names_what_changed(bench: Bench) -> None:
    bench.run()
    plan = bench.plan("train.sft.learning_rate=0.0005")
    assert (plan["train"].state, plan["train"].why) == ("will run", "learning_rate 0.001 -> 0.0005")
    assert plan["adapt"].state == "cached"
    assert plan["evaluate.perplexity@base"].state == "cached"
    assert (plan["evaluate.perplexity@result"].state, plan["evaluate.perplexity@result"].why) == ("depends on", "train")
    assert (plan["push.folder"].state, plan["push.folder"].why) == ("depends on", "train")


def test_why_names_three_changes_and_counts_the_others(bench: Bench) -> None:
    bench.run()
    several = [f"train.sft.{key}" for key in ("epochs=2", "batch_size=4", "warmup_steps=5", "max_steps=9")]
    assert bench.plan(*several)["train"].why == (
        "batch_size default -> 4, epochs default -> 2, max_steps default -> 9 and 1 more"
    )


def test_why_names_an_input_whose_content_changed(bench: Bench) -> None:
    bench.run()
    (bench.folder / "train.jsonl").write_text("other rows")
    plan = bench.plan()
    assert (plan["prepare.train"].state, plan["prepare.train"].why) == ("will run", "data.train changed")
    assert (plan["train"].state, plan["train"].why) == ("depends on", "prepare.train")


def test_why_compares_with_the_last_run_of_that_recipe(bench: Bench) -> None:
    bench.run("train.sft.epochs=3")
    bench.run("train.sft.epochs=5")
    bench.run("train.sft.epochs=7", name="another")
    assert bench.plan("train.sft.epochs=9")["train"].why == "epochs 5 -> 9"


def test_an_artifact_that_is_gone(bench: Bench) -> None:
    bench.run()
    bench.lose("train")
    plan = bench.plan()
    assert (plan["train"].state, plan["train"].why) == ("will run", "its artifact is gone")
    assert plan["train"].key == bench.keys["train"]


def test_an_artifact_that_is_gone_while_an_older_one_is_left(bench: Bench) -> None:
    bench.run("train.sft.epochs=3")
    bench.run()
    bench.lose("train")
    assert bench.plan()["train"].why == "its artifact is gone"
    assert bench.plan("train.sft.epochs=2")["train"].why == "epochs 3 -> 2"


def test_nothing_to_compare_with_is_left(bench: Bench) -> None:
    bench.run()
    bench.lose("train")
    assert bench.plan("train.sft.epochs=2")["train"].why == "its artifact is gone"


def test_a_file_that_is_not_there_is_said_at_once(bench: Bench) -> None:
    (bench.folder / "train.jsonl").unlink()
    with pytest.raises(UnresolvedInput, match=r"file:train\.jsonl: there is no"):
        bench.plan()


@pytest.mark.parametrize("revision", [[], ["model.revision=main"], [f"model.revision={COMMIT}"]], ids=str)
def test_a_model_of_the_hub_that_is_not_here_is_unknown(bench: Bench, revision: list[str]) -> None:
    states = bench.states('model.base="hub:owner/name"', *revision)
    assert states.pop("resolve") == "will run"
    assert set(states.values()) == {"unknown"}


def test_a_pinned_file_of_a_wheel_is_known_before_it_is_here(bench: Bench) -> None:
    digest = "a" * 64
    plan = bench.plan(f'model.base="wheel:tiny==1.0/tiny/model.gguf#sha256={digest}"')
    assert (plan["resolve"].state, plan["load"].state) == ("will run", "will run")
    assert plan["load"].key


class Share:
    @hookimpl
    def recipe_sources(self) -> list[Source]:
        return [
            Source(
                scheme="share",
                summary="A share",
                example="share:model",
                check=lambda _reference: "",
                implementation="recipe_engine.methods.sources.file:FileSource",
            )
        ]


def name_of(bench: Bench, base: str) -> str:
    catalogue = load_catalogue([Share()], entry_points=False)
    text = SMALL.replace("file:model", base)
    recipe = validate(composed(text, file=str(bench.folder / "r.toml")), catalogue)
    return base_name(recipe, peek(recipe, catalogue, bench.registry.sources))


def test_base_models_are_named_so_that_others_can_find_them(bench: Bench) -> None:
    assert name_of(bench, "hub:owner/name") == "owner/name"
    assert name_of(bench, "share:model") == "share:model"
    wheel = "wheel:tiny==1.0/tiny/model.gguf"
    assert name_of(bench, f"{wheel}#sha256={'a' * 64}") == wheel


def test_a_model_of_this_machine_is_named_by_its_content(bench: Bench) -> None:
    name = name_of(bench, "file:model")
    shutil.copytree(bench.folder / "model", bench.folder / "copy")
    assert name.startswith("sha256:")
    assert name_of(bench, "file:copy") == name
