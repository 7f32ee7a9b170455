"""The hooks. A plugin implements any of them with :data:`recipe_engine.hookmark.hookimpl`.

Registration hooks yield descriptors (:mod:`recipe_engine.descriptors`). Lifecycle hooks observe: what they return is
ignored, and what they raise ends the run with the plugin's name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pluggy

from recipe_engine.hookmark import PROJECT

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from recipe_engine.contract import NodeInfo
    from recipe_engine.descriptors import DataFormat, Method, RewardSource, Runner, Source

hookspec = pluggy.HookspecMarker(PROJECT)


@hookspec
def recipe_load_methods() -> Iterable[Method]:  # type: ignore[empty-body]
    """Ways to load a model: ``[load.<name>]``.

    Example::

        from dataclasses import dataclass
        from recipe_engine.descriptors import Method
        from recipe_engine.hookmark import hookimpl

        @dataclass(frozen=True)
        class Options:
            pass

        @hookimpl
        def recipe_load_methods():
            yield Method(name="mmap", summary="Load without reading", options=Options,
                         implementation="my_plugin.code:Mmap")
    """


@hookspec
def recipe_adapt_methods() -> Iterable[Method]:  # type: ignore[empty-body]
    """Ways to make a loaded model trainable: ``[adapt.<name>]``.

    Example::

        from dataclasses import dataclass
        from recipe_engine.descriptors import Method
        from recipe_engine.hookmark import hookimpl
        from recipe_engine.options import option

        @dataclass(frozen=True)
        class Options:
            scale: float = option("Initial scale of the learned vectors.", default=1.0, above=0)

        @hookimpl
        def recipe_adapt_methods():
            yield Method(name="ia3", summary="Learned rescaling vectors", options=Options,
                         implementation="my_plugin.code:IA3", seeded=True, packages=("torch", "peft"))
    """


@hookspec
def recipe_train_methods() -> Iterable[Method]:  # type: ignore[empty-body]
    """Ways to train: ``[train.<name>]``.

    Example::

        from dataclasses import dataclass
        from recipe_engine.descriptors import Method
        from recipe_engine.hookmark import hookimpl
        from recipe_engine.options import option

        @dataclass(frozen=True)
        class Options:
            beta: float = option("Strength of the pull towards the reference.", default=0.1, above=0)

        @hookimpl
        def recipe_train_methods():
            yield Method(name="dpo", summary="Direct preference optimization", options=Options,
                         implementation="my_plugin.code:Dpo", seeded=True,
                         data=lambda options: {"train": "train"})
    """


@hookspec
def recipe_evaluate_methods() -> Iterable[Method]:  # type: ignore[empty-body]
    """Ways to measure a model: ``[evaluate.<name>]``; each runs before and after training.

    Example::

        from dataclasses import dataclass
        from recipe_engine.descriptors import Method
        from recipe_engine.hookmark import hookimpl
        from recipe_engine.options import option

        @dataclass(frozen=True)
        class Options:
            data: str = option("Data set to measure on.", default="eval")

        @hookimpl
        def recipe_evaluate_methods():
            yield Method(name="brevity", summary="Mean length of the answers", options=Options,
                         implementation="my_plugin.code:Brevity", data=lambda options: {"eval": options.data})
    """


@hookspec
def recipe_push_methods() -> Iterable[Method]:  # type: ignore[empty-body]
    """Ways to publish a result: ``[push.<name>]``.

    Example::

        from dataclasses import dataclass
        from recipe_engine.descriptors import Method
        from recipe_engine.hookmark import hookimpl
        from recipe_engine.options import option

        @dataclass(frozen=True)
        class Options:
            bucket: str = option("Name of the bucket.")

        @hookimpl
        def recipe_push_methods():
            yield Method(name="bucket", summary="Copy into a bucket", options=Options,
                         implementation="my_plugin.code:Bucket")
    """


@hookspec
def recipe_sources() -> Iterable[Source]:  # type: ignore[empty-body]
    """Places that models and data come from: ``base = "<scheme>:…"``.

    Example::

        from recipe_engine.descriptors import Source
        from recipe_engine.hookmark import hookimpl

        @hookimpl
        def recipe_sources():
            yield Source(scheme="nfs", summary="A share", example="nfs:models/llama",
                         check=lambda reference: "" if reference else "the path is missing",
                         implementation="my_plugin.code:Nfs")
    """


@hookspec
def recipe_data_formats() -> Iterable[DataFormat]:  # type: ignore[empty-body]
    """Shapes of rows: ``format = "<name>"``.

    Example::

        from dataclasses import dataclass
        from recipe_engine.descriptors import DataFormat
        from recipe_engine.hookmark import hookimpl
        from recipe_engine.options import option

        @dataclass(frozen=True)
        class Options:
            field: str = option("Field that holds the poem.", default="poem")

        @hookimpl
        def recipe_data_formats():
            yield DataFormat(name="poem", summary="One poem a row", options=Options,
                             implementation="my_plugin.code:Poem")
    """


@hookspec
def recipe_reward_sources() -> Iterable[RewardSource]:  # type: ignore[empty-body]
    """Ways to judge answers: ``reward = { function = "<name>" }``, or a key of its own, ``reward = { <name> = … }``.

    Example::

        from dataclasses import dataclass
        from recipe_engine.descriptors import RewardSource
        from recipe_engine.hookmark import hookimpl
        from recipe_engine.options import option

        @dataclass(frozen=True)
        class Options:
            words: int = option("Most words that cost nothing.", default=20, minimum=0, unit="words")

        class Brief:
            def open(self, request):
                self._words = request.options.words

            def score(self, answers):
                return [-max(0.0, len(answer.text.split()) - self._words) for answer in answers]

        @hookimpl
        def recipe_reward_sources():
            yield RewardSource(name="brief", summary="Short answers", options=Options,
                               implementation="my_plugin.code:Brief")
    """


@hookspec
def recipe_runners() -> Iterable[Runner]:  # type: ignore[empty-body]
    """Places to execute stages.

    Example::

        from recipe_engine.descriptors import Runner
        from recipe_engine.hookmark import hookimpl

        @hookimpl
        def recipe_runners():
            yield Runner(name="slurm", summary="A batch job", implementation="my_plugin.code:Slurm")
    """


@hookspec
def recipe_before_stage(node: NodeInfo) -> None:
    """A node is about to run; it is not called for a node whose artifact is taken from the registry.

    Example::

        from recipe_engine.hookmark import hookimpl

        @hookimpl
        def recipe_before_stage(node):
            print("starting", node.id)
    """


@hookspec
def recipe_after_stage(node: NodeInfo, artifact: str, metrics: Mapping[str, float]) -> None:
    """A node ran, and its artifact (a digest; ``""`` for a push) is committed.

    Example::

        from recipe_engine.hookmark import hookimpl

        @hookimpl
        def recipe_after_stage(node, artifact, metrics):
            print(node.id, artifact, dict(metrics))
    """


@hookspec
def recipe_stage_failed(node: NodeInfo, error: Exception) -> None:
    """A node ended with an error; the run ends after this.

    Example::

        from recipe_engine.hookmark import hookimpl

        @hookimpl
        def recipe_stage_failed(node, error):
            print(node.id, "failed:", error)
    """


@hookspec
def recipe_metrics_logged(node: NodeInfo, step: int, metrics: Mapping[str, float]) -> None:
    """A running node reported numbers of one step.

    Example::

        from recipe_engine.hookmark import hookimpl

        @hookimpl
        def recipe_metrics_logged(node, step, metrics):
            if node.stage == "train":
                print(step, metrics["loss"])
    """
