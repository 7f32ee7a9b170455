"""A plugin whose methods are the built-in ones, except that they wait where ``SLOW`` names their node.

The tests install its text into a folder of their own (:func:`tests.e2e.engine.write_plugin`).
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from recipe_engine.hookmark import hookimpl
from recipe_engine.methods import builtin
from recipe_engine.methods.push_folder import PushFolder

if TYPE_CHECKING:
    from recipe_engine.contract import PushRequest, Reporter
    from recipe_engine.descriptors import Method


def wait(node: str, reporter: Reporter) -> None:
    if os.environ.get("SLOW") != node:
        return
    if os.environ.get("DEAF"):
        reporter.stop_requested()  # it asks, and takes no notice of the answer
    reporter.message("slow")
    time.sleep(60)


def slow(base: Any) -> Any:
    def run(self: Any, request: Any) -> Any:
        wait(request.node, request.reporter)
        return base.run(self, request)

    return type("Slow", (base,), {"run": run})


class SlowPush(PushFolder):
    def push(self, request: PushRequest) -> Mapping[str, Any]:
        wait("push.slow", request.reporter)
        return super().push(request)


def __getattr__(name: str) -> Any:
    """Load, Adapt, Evaluate: made where they are asked for, since their bases import the training stack."""
    from recipe_engine.methods import adapt_lora, evaluate, load_full

    bases = {"Load": load_full.LoadFull, "Adapt": adapt_lora.AdaptLora, "Evaluate": evaluate.Perplexity}
    if name not in bases:
        raise AttributeError(name)
    return slow(bases[name])


def renamed(methods: Iterator[Method], original: str, code: str) -> Method:
    method = next(method for method in methods if method.name == original)
    return replace(method, name="slow", implementation=f"slow_plugin:{code}")


@hookimpl
def recipe_load_methods() -> Iterator[Method]:
    yield renamed(builtin.recipe_load_methods(), "full", "Load")


@hookimpl
def recipe_adapt_methods() -> Iterator[Method]:
    yield renamed(builtin.recipe_adapt_methods(), "lora", "Adapt")


@hookimpl
def recipe_evaluate_methods() -> Iterator[Method]:
    yield renamed(builtin.recipe_evaluate_methods(), "perplexity", "Evaluate")


@hookimpl
def recipe_push_methods() -> Iterator[Method]:
    yield renamed(builtin.recipe_push_methods(), "folder", "SlowPush")
