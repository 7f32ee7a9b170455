"""Every hook's docstring has an example, and each example does what the hook promises."""

from __future__ import annotations

import inspect
import textwrap
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

from recipe_engine import hookspecs
from recipe_engine.contract import NodeInfo
from recipe_engine.plugins import Catalogue, load_catalogue
from recipe_engine.schema import data_schema, method_schema, reward_schema

if TYPE_CHECKING:
    from recipe_engine.descriptors import DataFormat, Method, RewardSource, Runner, Source

NODE = NodeInfo("20261124-120000-0000", "train", "train", "sft", "sft", "sha256:" + "0" * 64)
HOOKS = {name: function for name, function in vars(hookspecs).items() if name.startswith("recipe_")}


def example(hook: str) -> str:
    """The code after ``Example::``."""
    _, marker, code = (inspect.getdoc(HOOKS[hook]) or "").partition("Example::\n")
    return textwrap.dedent(code) if marker else ""


def plugin_of(hook: str) -> Catalogue:
    """The built-in methods and the example, run as a module of its own."""
    module = ModuleType("example")
    exec(compile(example(hook), f"<example of {hook}>", "exec", dont_inherit=True), vars(module))
    catalogue = load_catalogue([module], entry_points=False)
    assert catalogue.broken == ()
    return catalogue


def method_of(hook: str, stage: str, name: str) -> Method:
    catalogue = plugin_of(hook)
    assert catalogue.plugins[1].provides == (f"{stage}.{name}",)
    method = catalogue.methods[stage, name].descriptor
    assert method_schema(method)["additionalProperties"] is False
    assert method.implementation.startswith("my_plugin.code:")
    return method


def test_no_hook_is_without_an_example_and_a_test() -> None:
    assert len(HOOKS) == 13
    assert [hook for hook in HOOKS if f"def {hook}(" not in example(hook)] == []
    assert [hook for hook in HOOKS if f"test_hook_{hook}" not in globals()] == []


def test_every_hook_is_a_hook_of_pluggy() -> None:
    manager_hooks = vars(load_catalogue(entry_points=False).hooks)
    assert set(HOOKS) == {name for name in manager_hooks if not name.startswith("_")}


def test_hook_recipe_load_methods() -> None:
    assert method_of("recipe_load_methods", "load", "mmap").options() is not None


def test_hook_recipe_adapt_methods() -> None:
    method = method_of("recipe_adapt_methods", "adapt", "ia3")
    assert method.options().scale == 1.0
    assert (method.seeded, method.packages) == (True, ("torch", "peft"))


def test_hook_recipe_train_methods() -> None:
    method = method_of("recipe_train_methods", "train", "dpo")
    assert method.options().beta == 0.1
    assert method.data(method.options()) == {"train": "train"}


def test_hook_recipe_evaluate_methods() -> None:
    method = method_of("recipe_evaluate_methods", "evaluate", "brevity")
    assert method.data(method.options(data="poems")) == {"eval": "poems"}


def test_hook_recipe_push_methods() -> None:
    assert method_of("recipe_push_methods", "push", "bucket").options(bucket="b").bucket == "b"


def test_hook_recipe_sources() -> None:
    source: Source = plugin_of("recipe_sources").sources["nfs"].descriptor
    assert [source.check("models/llama"), source.check("")] == ["", "the path is missing"]


def test_hook_recipe_data_formats() -> None:
    data_format: DataFormat = plugin_of("recipe_data_formats").formats["poem"].descriptor
    assert data_schema(data_format)["properties"]["field"]["default"] == "poem"


def test_hook_recipe_reward_sources() -> None:
    source: RewardSource = plugin_of("recipe_reward_sources").rewards["brief"].descriptor
    assert (source.has_key, source.options().words) == (False, 20)
    assert reward_schema(source)["required"] == ["function"]


def test_hook_recipe_runners() -> None:
    runner: Runner = plugin_of("recipe_runners").runners["slurm"].descriptor
    assert runner.implementation == "my_plugin.code:Slurm"


Said = pytest.CaptureFixture[str]


def said_by(hook: str, capsys: Said, **arguments: Any) -> str:
    getattr(plugin_of(hook).hooks, hook)(**arguments)
    return capsys.readouterr().out


def test_hook_recipe_before_stage(capsys: Said) -> None:
    assert said_by("recipe_before_stage", capsys, node=NODE) == "starting train\n"


def test_hook_recipe_after_stage(capsys: Said) -> None:
    said = said_by("recipe_after_stage", capsys, node=NODE, artifact="sha256:aa", metrics={"loss": 0.5})
    assert said == "train sha256:aa {'loss': 0.5}\n"


def test_hook_recipe_stage_failed(capsys: Said) -> None:
    assert said_by("recipe_stage_failed", capsys, node=NODE, error=ValueError("no")) == "train failed: no\n"


def test_hook_recipe_metrics_logged(capsys: Said) -> None:
    assert said_by("recipe_metrics_logged", capsys, node=NODE, step=3, metrics={"loss": 0.5}) == "3 0.5\n"
