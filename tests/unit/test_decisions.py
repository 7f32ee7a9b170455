"""What ``auto`` stands for: the same in every plan and run, and no news to keys where nothing speaks against it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from tests import tiny
from tests.unit.written import PPO, SMALL, builtins, composed, recipe_of, small_inputs

from recipe_engine.decisions import on_device, slow_precision
from recipe_engine.device_memory import gpu_capability, machine_memory
from recipe_engine.errors import InvalidRecipe
from recipe_engine.estimate.fitting import check_memory, outlook, recomputes
from recipe_engine.estimate.parts import layer_activations
from recipe_engine.estimate.shapes import shapes_of
from recipe_engine.graph import build_graph
from recipe_engine.lock import Hardware, peek
from recipe_engine.methods.options import AdaptLora
from recipe_engine.node import METRICS_FILE, Node
from recipe_engine.outline import outline_of
from recipe_engine.plan import PlannedNode, Planner, make_plan
from recipe_engine.validate import validate
from recipe_registry import Registry

CPU = Hardware("cpu", 1, ())
CUDA = Hardware("cuda", 1, ())
LONG_ROWS = "data.train.max_length=4000000"  # longer than any machine bears, of whatever model
NF4 = SMALL.replace("[load.full]", "[load.nf4]")


def give_gpus(folder: Path, monkeypatch: pytest.MonkeyPatch, answers: str) -> None:
    """A program that answers as NVIDIA's does where there are GPUs."""
    program = folder / "bin" / "nvidia-smi"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\n{answers}\n", encoding="utf-8")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=os.pathsep)


def nodes_of(text: str, hardware: Hardware, *overrides: str) -> dict[str, Node]:
    recipe = recipe_of(text, overrides)
    return {node.id: node for node in on_device(build_graph(recipe, builtins()), recipe, hardware)}


@pytest.mark.parametrize(
    ("answers", "capability"),
    [
        ("echo 8.6; echo 7.5", (7, 5)),
        ("echo 12.0; echo 9.0", (9, 0)),
        ("echo '[Not Supported]'", None),
        ("echo no driver; exit 9", None),
    ],
)
def test_the_oldest_gpu_counts(
    answers: str, capability: tuple[int, int] | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    give_gpus(tmp_path, monkeypatch, f'[ "$1" = --query-gpu=compute_cap ] || exit 1\n{answers}')
    assert gpu_capability() == capability


@pytest.mark.parametrize("load", [("full", "dtype"), ("nf4", "compute_dtype"), ("int8", "compute_dtype")])
@pytest.mark.parametrize(
    ("answer", "found"),
    [("8.0", ("bfloat16", "no")), ("7.5", ("float16", "fp16")), ("unknown", ("bfloat16", "no"))],
)
def test_precision_follows_from_the_gpu(
    load: tuple[str, str], answer: str, found: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (method, key), (held, products) = load, found
    give_gpus(tmp_path, monkeypatch, f"echo {answer}")
    nodes = nodes_of(SMALL.replace("[load.full]", f"[load.{method}]"), CUDA)
    assert nodes["load"].options[key] == held
    assert nodes["load"].changed_options == ({} if held == "bfloat16" else {key: held})
    assert nodes["load"].decided == {key: held}
    assert nodes["train"].options["mixed_precision"] == products
    assert nodes["train"].changed_options == {"learning_rate": 1e-3} | (
        {} if products == "no" else {"mixed_precision": products}
    )


def test_a_training_that_does_not_scale_its_loss_gets_full_precision_on_an_old_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    give_gpus(tmp_path, monkeypatch, "echo 7.0")
    assert nodes_of(PPO, CUDA)["load"].options["dtype"] == "float32"
    assert nodes_of(SMALL, CUDA, "train.sft.mixed_precision=no")["load"].options["dtype"] == "float32"
    assert nodes_of(SMALL, CUDA, "train.sft.mixed_precision=fp16")["load"].options["dtype"] == "float16"


def test_what_a_recipe_says_is_not_decided(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    give_gpus(tmp_path, monkeypatch, "echo 7.0")
    nodes = nodes_of(SMALL, CUDA, "load.full.dtype=bfloat16", "train.sft.mixed_precision=bf16")
    assert (nodes["load"].options["dtype"], nodes["load"].decided) == ("bfloat16", {})
    assert (nodes["train"].options["mixed_precision"], nodes["train"].decided) == ("bf16", {})
    # Whoever wants float16 gets the scaled loss with it, on any GPU.
    assert nodes_of(SMALL, CUDA, "load.full.dtype=float16")["train"].options["mixed_precision"] == "fp16"


@pytest.mark.parametrize(
    ("flags", "held"),
    [
        (("avx2", "fma"), "float32"),
        (("asimd", "sve"), "float32"),
        (("avx2", "avx512_bf16", "avx512f"), "bfloat16"),
        (("amx_bf16", "amx_tile"), "bfloat16"),
        (("asimd", "bf16"), "bfloat16"),
        ((), "bfloat16"),
    ],
)
@pytest.mark.parametrize("load", [("full", "dtype"), ("nf4", "compute_dtype"), ("int8", "compute_dtype")])
def test_precision_follows_from_the_processor(load: tuple[str, str], flags: tuple[str, ...], held: str) -> None:
    method, key = load
    nodes = nodes_of(SMALL.replace("[load.full]", f"[load.{method}]"), Hardware("cpu", 1, flags))
    assert nodes["load"].options[key] == held
    assert nodes["load"].changed_options == ({} if held == "bfloat16" else {key: held})
    assert nodes["train"].options["mixed_precision"] == "no"


@pytest.mark.parametrize(
    ("flags", "override", "node", "left_out"),
    [
        (("avx2",), "load.full.dtype=bfloat16", "load", "dtype"),
        (("avx2",), "train.sft.mixed_precision=bf16", "train", "mixed_precision"),
        (("avx2",), "load.full.dtype=auto", "load", ""),
        (("avx2",), "load.full.dtype=float32", "load", ""),
        (("avx2", "avx512_bf16"), "load.full.dtype=bfloat16", "load", ""),
        ((), "load.full.dtype=bfloat16", "load", ""),
    ],
)
def test_a_precision_that_is_slow_here_is_told(flags: tuple[str, ...], override: str, node: str, left_out: str) -> None:
    hardware = Hardware("cpu", 1, flags)
    told = slow_precision(nodes_of(SMALL, hardware, override)[node], hardware)
    assert told.rpartition("leave out ")[2] == left_out


def test_half_precision_is_for_gpus() -> None:
    nodes = nodes_of(NF4, CPU)
    assert nodes["load"].options["compute_dtype"] == "bfloat16"
    assert nodes["train"].options["mixed_precision"] == "no"
    assert nodes_of(SMALL, CPU, "load.full.dtype=float16")["train"].options["mixed_precision"] == "no"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    found = small_inputs(tmp_path / "recipe")
    tiny.write_model(found / "model")
    return found


class Desk:
    """A recipe of a real model, whose nodes before the training have artifacts."""

    def __init__(self, folder: Path, *overrides: str, home: str = "home", rows: dict[str, float] | None = None) -> None:
        self.recipe = validate(composed(SMALL, overrides, file=str(folder / "r.toml")), builtins())
        self.registry = Registry.open(folder.parent / home)
        resolution = peek(self.recipe, builtins(), self.registry.sources)
        nodes = build_graph(self.recipe, builtins())
        self.planner = Planner(self.recipe, self.registry, CPU, resolution, nodes)
        made: dict[str, str] = {}
        for node in nodes:
            if node.id == "train":
                break
            if node.stage != "resolve":
                key, components = self.planner.key(node, made)
                staging = self.registry.artifacts.stage(node.id)
                (staging / METRICS_FILE).write_text(json.dumps(rows or {} if node.stage == "prepare" else {}))
                made[node.id] = self.registry.artifacts.commit(staging).digest
                self.registry.artifacts.record_key(
                    key, made[node.id], node=node.id, run="r", components=components, facts={}
                )

    def plan(self) -> PlannedNode:
        return next(node for node in make_plan(self.recipe, builtins(), self.registry, CPU) if node.node.id == "train")


def test_what_does_not_fit_is_computed_again(folder: Path) -> None:
    small, large = Desk(folder).plan(), Desk(folder, LONG_ROWS).plan()
    assert (small.settled["gradient_checkpointing"], large.settled["gradient_checkpointing"]) == ("false", "true")
    assert small.node.decided == {"mixed_precision": "no", "gradient_checkpointing": False}
    assert large.node.options["gradient_checkpointing"] is True
    keys = {
        said: Desk(folder, LONG_ROWS, f"train.sft.gradient_checkpointing={said}").plan().key
        for said in ("true", "false")
    }
    assert large.key == keys["true"] != keys["false"]


def test_keys_are_those_of_the_defaults_before(folder: Path) -> None:
    said = ("train.sft.gradient_checkpointing=false", "train.sft.mixed_precision=no", "load.full.dtype=bfloat16")
    plain, spelled = Desk(folder).plan(), Desk(folder, *said).plan()
    assert plain.key == spelled.key != ""
    assert plain.node.changed_options == spelled.node.changed_options == {"learning_rate": 1e-3}
    assert Desk(folder, "train.sft.gradient_checkpointing=true").plan().key != plain.key


def test_the_decision_does_not_depend_on_what_is_prepared(folder: Path) -> None:
    before = Desk(folder, LONG_ROWS).plan()
    after = Desk(folder, LONG_ROWS, home="other", rows={"rows": 2, "tokens": 40, "longest_row": 25}).plan()
    assert before.settled["gradient_checkpointing"] == after.settled["gradient_checkpointing"] == "true"
    assert before.node.changed_options == after.node.changed_options
    assert before.settled["memory"] != after.settled["memory"], "the estimate itself goes by the rows"


def test_a_plan_and_its_run_ask_the_same(folder: Path) -> None:
    desk = Desk(folder, LONG_ROWS)
    (train,) = [node for node in build_graph(desk.recipe, builtins()) if node.id == "train"]
    assert desk.planner.decided(train, {}).decided == {"gradient_checkpointing": True}


def test_without_the_models_files_nothing_is_decided(folder: Path) -> None:
    (folder / "model" / "model.safetensors").write_bytes(b"?")
    found = Desk(folder, LONG_ROWS).plan()
    assert found.node.decided == {"mixed_precision": "no"}
    assert "gradient_checkpointing" not in found.node.changed_options
    assert "gradient_checkpointing" not in found.settled


def test_a_model_that_must_be_fetched_first_decides_then(folder: Path) -> None:
    wheel = f'model.base="wheel:tiny==1.0/tiny/model.gguf#sha256={"a" * 64}"'
    assert (Desk(folder, wheel).plan().state, Desk(folder, wheel).plan().why) == ("depends on", "resolve")
    said = Desk(folder, wheel, "train.sft.gradient_checkpointing=false").plan()
    assert (said.state, said.why) == ("will run", "never run")


def test_activations_that_wait_elsewhere_are_kept(folder: Path) -> None:
    offload = ["train.sft.activation_offload=true"]
    recipe, outline = recipe_of(SMALL, offload), outline_of(sorted((folder / "model").iterdir()))
    assert recomputes(recipe, outline, 1) is False
    kept = outlook(recipe_of(SMALL), builtins(), outline, {}, None).stages["train"].parts
    moved = outlook(recipe, builtins(), outline, {}, None).stages["train"].parts
    shapes = shapes_of(outline)
    assert shapes is not None
    layer = layer_activations(shapes, 16 * 1024, 1024, 2, AdaptLora(rank=4))
    assert kept["activations"] - moved["activations"] == 2 * layer


def test_total_memory_decides_and_nothing_else(folder: Path) -> None:
    recipe, outline = recipe_of(SMALL), outline_of(sorted((folder / "model").iterdir()))
    kept = recipe_of(SMALL, ["train.sft.gradient_checkpointing=false"])
    needed = outlook(kept, builtins(), outline, {}, None).needed
    assert [recomputes(recipe, outline, there) for there in (needed, needed - 1, None)] == [False, True, False]
    chosen = outlook(recipe, builtins(), outline, {}, needed - 1)
    assert chosen.needed < needed
    check_memory(recipe, chosen)
    assert "gradient_checkpointing" not in "".join(map(str, chosen.changes)), "it is on already"
    assert recomputes(recipe, outline, machine_memory()) is False


@pytest.mark.parametrize("value", ["yes", "1", '"true"'])
def test_anything_else_is_refused(value: str) -> None:
    with pytest.raises(InvalidRecipe, match=r"gradient_checkpointing: expected true or false or \"auto\""):
        recipe_of(SMALL, [f"train.sft.gradient_checkpointing={value}"])
