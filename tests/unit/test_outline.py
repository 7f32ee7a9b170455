"""What is known of a model before it is loaded, and what is held against it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any

import pytest
from tests import tiny
from tests.unit.written import PPO, SMALL, composed, recipe_of, small_inputs

from recipe_engine import lazy
from recipe_engine.contract import ModelOutline
from recipe_engine.descriptors import Device, Method
from recipe_engine.errors import InvalidRecipe, UnfitEnvironment
from recipe_engine.graph import build_graph
from recipe_engine.hookmark import hookimpl
from recipe_engine.lock import Hardware
from recipe_engine.methods.options import EvaluatePerplexity
from recipe_engine.outline import check_device, check_model, check_requirements, outline_of
from recipe_engine.plan import make_plan
from recipe_engine.plugins import load_catalogue
from recipe_engine.validate import validate
from recipe_registry import Registry

CPU = Hardware("cpu", 1, ())


def wants_a_third_layer(_options: Any, outline: ModelOutline) -> Sequence[tuple[str, str, str]]:
    if any(name.startswith("model.layers.2.") for name in outline.tensors):
        return ()
    return (("batch_size", f"a {outline.config['model_type']} of two layers is too small", "Take a larger one."),)


def only_on_a_gpu(_options: Any) -> frozenset[Device]:
    return frozenset({"cuda"})


class Picky:
    """A plugin with an evaluation that does not work everywhere."""

    def __init__(self, **fields: Any) -> None:
        self._fields = fields

    @hookimpl
    def recipe_evaluate_methods(self) -> list[Method]:
        given: Mapping[str, Any] = {
            "data": lambda options: {"eval": options.data},
            **self._fields,
        }
        return [Method(name="picky", summary="Picky", options=EvaluatePerplexity, implementation="a:B", **given)]


PICKY = SMALL.replace("[evaluate.perplexity]", "[evaluate.picky]\nbatch_size = 4")


def test_names_and_shapes_come_from_the_headers(tmp_path: Path) -> None:
    folder = tiny.write_model(tmp_path / "model")
    outline = outline_of(sorted(folder.iterdir()))
    assert outline.config["model_type"] == "llama"
    assert outline.tensors["model.layers.1.self_attn.q_proj.weight"] == (32, 32)
    assert outline.tensors["model.norm.weight"] == (32,)
    from safetensors import safe_open

    with safe_open(folder / "model.safetensors", framework="np") as weights:
        assert set(outline.tensors) == set(weights.keys())


@pytest.mark.parametrize("content", [b"", b"\xff" * 7, b"\xff" * 64, (8).to_bytes(8, "little") + b"not json"])
def test_a_file_that_cannot_be_read_tells_nothing(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.safetensors").write_bytes(content)
    (tmp_path / "config.json").write_text("[1]")
    assert outline_of(sorted(tmp_path.iterdir())) == ModelOutline({}, {})


def test_a_model_that_does_not_fit_is_told_at_its_key() -> None:
    catalogue = load_catalogue([Picky(check_model=wants_a_third_layer)], entry_points=False)
    recipe = recipe_of(PICKY, catalogue=catalogue)
    outline = ModelOutline({"model_type": "llama"}, {"model.layers.1.mlp.up_proj.weight": (2, 2)})
    with pytest.raises(InvalidRecipe) as refused:
        check_model(recipe, catalogue, outline)
    (problem,) = refused.value.problems
    assert str(problem) == (
        "r.toml:27:14: evaluate.picky.batch_size: a llama of two layers is too small. Take a larger one."
    )
    check_model(recipe, catalogue, ModelOutline({}, {"model.layers.2.mlp.up_proj.weight": (2, 2)}))


def test_the_plan_looks_at_the_model(tmp_path: Path) -> None:
    folder = small_inputs(tmp_path / "here")
    tiny.write_model(folder / "model")
    catalogue = load_catalogue([Picky(check_model=wants_a_third_layer)], entry_points=False)
    recipe = validate(composed(PICKY, file=str(folder / "r.toml")), catalogue)
    registry = Registry.open(tmp_path / "home", create=False)
    with pytest.raises(InvalidRecipe, match="of two layers is too small"):
        make_plan(recipe, catalogue, registry, CPU)


def test_a_device_that_a_method_does_not_run_on_is_told_before_anything_runs(tmp_path: Path) -> None:
    catalogue = load_catalogue([Picky(devices=only_on_a_gpu)], entry_points=False)
    recipe = recipe_of(PICKY, catalogue=catalogue)
    check_device(recipe, catalogue, "cuda")
    with pytest.raises(UnfitEnvironment) as refused:
        make_plan(recipe, catalogue, Registry.open(tmp_path, create=False), CPU)
    assert str(refused.value) == (
        "r.toml:26:11: evaluate.picky: it does not run on cpu with these options. It runs on cuda."
    )


@pytest.mark.parametrize(
    ("text", "change"), [(SMALL, "train.sft.optimizer=paged_adamw_8bit"), (PPO, "train.ppo.rollout=vllm")]
)
def test_what_is_a_matter_of_gpus(text: str, change: str) -> None:
    recipe = recipe_of(text, [change])
    check_device(recipe, load_catalogue(), "cuda")
    with pytest.raises(UnfitEnvironment, match=r"train\.\w+: it does not run on cpu .* It runs on cuda\."):
        check_device(recipe, load_catalogue(), "cpu")


def test_what_options_need_is_told_and_its_version_enters_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    catalogue = load_catalogue()
    plain, small = recipe_of(SMALL), recipe_of(SMALL, ["train.sft.optimizer=adamw_8bit"])
    nodes = {name: build_graph(recipe, catalogue) for name, recipe in (("plain", plain), ("small", small))}
    packages = {name: next(node.packages for node in found if node.id == "train") for name, found in nodes.items()}
    assert set(packages["small"]) - set(packages["plain"]) == {"bitsandbytes"}

    def version(package: str) -> str:
        if package == "bitsandbytes":
            raise PackageNotFoundError(package)
        return installed_version(package)

    monkeypatch.setattr(lazy, "version", version)
    check_requirements(plain, catalogue, nodes["plain"])
    with pytest.raises(UnfitEnvironment) as refused:
        check_requirements(small, catalogue, nodes["small"])
    assert str(refused.value) == ('bitsandbytes is not installed. Install it: pip install "recipe-engine[nf4]"')
