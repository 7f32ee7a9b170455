"""The plugin manager: what appears, and what a broken plugin breaks."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.unit.written import LOAD, builtins, refusal

from recipe_engine import __version__
from recipe_engine.descriptors import STAGES, DataFormat, Method, Runner, Source
from recipe_engine.errors import UnfitEnvironment
from recipe_engine.hookmark import hookimpl
from recipe_engine.methods.options import EvaluatePerplexity, LoadFull
from recipe_engine.options import option
from recipe_engine.plugins import ENTRY_POINTS, Catalogue, PluginInfo, load_catalogue

Install = Callable[[str, str], None]


def method(name: str) -> Method:
    return Method(name=name, summary="Of a test", options=EvaluatePerplexity, implementation="a:B")


class Evaluations:
    """A plugin of evaluate methods."""

    def __init__(self, name: str, *methods: str) -> None:
        self.__name__ = name
        self._methods = methods

    @hookimpl
    def recipe_evaluate_methods(self) -> Iterator[Method]:
        yield from map(method, self._methods)


def loaded(*plugins: object) -> Catalogue:
    return load_catalogue(plugins, entry_points=False)


def test_the_builtin_plugin_brings_something_for_every_hook() -> None:
    catalogue = builtins()
    assert {stage for stage, _name in catalogue.methods} == set(STAGES)
    assert list(catalogue.sources) == ["file", "hub", "wheel"]
    assert {"chat", "instruction"} <= set(catalogue.formats)
    assert "process" in catalogue.runners
    (plugin,) = catalogue.plugins
    assert (plugin.name, plugin.distribution, plugin.version) == ("builtin", "recipe-engine", __version__)
    assert {"train.sft", "format chat", "source hub", "runner process"} <= set(plugin.provides)
    assert catalogue.broken == ()


def test_a_plugins_method_appears() -> None:
    catalogue = loaded(Evaluations("mine", "brevity", "accuracy"))
    assert list(catalogue.of_stage("evaluate"))[:3] == ["accuracy", "answers", "bleu"]
    assert catalogue.methods["evaluate", "brevity"].distribution == "mine"
    assert catalogue.methods["evaluate", "perplexity"].distribution == "recipe-engine"
    assert catalogue.plugins[1] == PluginInfo("mine", "mine", "", ("evaluate.accuracy", "evaluate.brevity"))


def test_a_plugin_without_a_name_is_numbered() -> None:
    class Nameless:
        @hookimpl
        def recipe_runners(self) -> list[Runner]:
            return [Runner(name="nowhere", summary="None", implementation="a:B")]

    assert loaded(Nameless()).plugins[1] == PluginInfo("plugin-0", "plugin-0", "", ("runner nowhere",))


def test_two_plugins_with_one_method_are_both_named() -> None:
    with pytest.raises(UnfitEnvironment) as refused:
        loaded(Evaluations("mine", "brevity"), Evaluations("yours", "brevity"))
    assert str(refused.value) == "evaluate.brevity is brought by both mine and yours. Leave one of them out."


def test_a_builtin_method_cannot_be_replaced() -> None:
    with pytest.raises(UnfitEnvironment, match=r"evaluate\.perplexity is brought by both recipe-engine and mine"):
        loaded(Evaluations("mine", "perplexity"))


def test_one_name_in_two_stages_is_two_methods() -> None:
    class Both:
        @hookimpl
        def recipe_load_methods(self) -> list[Method]:
            return [Method(name="perplexity", summary="s", options=LoadFull, implementation="a:B")]

    assert {stage for stage, name in loaded(Both()).methods if name == "perplexity"} == {"load", "evaluate"}


class Misspelled(Evaluations):
    @hookimpl
    def recipe_evaluate_method(self) -> list[Method]:
        return []


class WrongArgument(Evaluations):
    @hookimpl
    def recipe_before_stage(self, nodes: Any) -> None:
        pass


class Raises(Evaluations):
    @hookimpl
    def recipe_sources(self) -> Iterator[Source]:
        yield Source(scheme="nfs", summary="s", example="nfs:a", check=str, implementation="a:B")
        raise RuntimeError("the share is not mounted")


class WrongKind(Evaluations):
    @hookimpl
    def recipe_data_formats(self) -> Iterable[Any]:
        return [method("poem")]


class Nothing(Evaluations):
    @hookimpl
    def recipe_data_formats(self) -> Iterable[DataFormat]:
        return None  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("plugin", "error"),
    [
        (Misspelled, "PluginValidationError: unknown hook 'recipe_evaluate_method' in plugin"),
        (WrongArgument, "PluginValidationError: Plugin 'guilty:guilty' for hook 'recipe_before_stage'"),
        (Raises, "RuntimeError: the share is not mounted"),
        (WrongKind, "TypeError: recipe_data_formats yields Method(name='poem'"),
        (Nothing, "TypeError: 'NoneType' object is not iterable"),
    ],
)
def test_a_wrong_plugin_is_named_and_the_others_stay(plugin: type[Evaluations], error: str) -> None:
    catalogue = loaded(Evaluations("before", "one"), plugin("guilty", "two"), Evaluations("after", "three"))
    (broken,) = catalogue.broken
    assert (broken.distribution, broken.provides) == ("guilty", ())
    assert broken.error.startswith(error)
    assert {"one", "three"} <= set(catalogue.of_stage("evaluate"))
    assert "two" not in catalogue.of_stage("evaluate")
    assert "nfs" not in catalogue.sources
    assert list(catalogue.hooks.recipe_before_stage.get_hookimpls()) == []


def test_the_hooks_reach_the_plugins() -> None:
    heard: list[str] = []

    class Listener:
        @hookimpl
        def recipe_before_stage(self, node: Any) -> None:
            heard.append(node)

    loaded(Listener()).hooks.recipe_before_stage(node="load")
    assert heard == ["load"]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Installs a distribution of one module with an entry point ``methods``, as pip would."""
    monkeypatch.syspath_prepend(tmp_path)

    def installed(name: str, code: str) -> None:
        module = name.replace("-", "_")
        (tmp_path / f"{module}.py").write_text(textwrap.dedent(code))
        info = tmp_path / f"{module}-1.2.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")
        (info / "entry_points.txt").write_text(f"[{ENTRY_POINTS}]\nmethods = {module}\n")

    return installed


BREVITY = """
    from recipe_engine.descriptors import Method
    from recipe_engine.hookmark import hookimpl
    from recipe_engine.methods.options import EvaluatePerplexity

    @hookimpl
    def recipe_evaluate_methods():
        yield Method(name="brevity", summary="s", options=EvaluatePerplexity, implementation="a:B")
"""


def of_distribution(catalogue: Catalogue, name: str) -> PluginInfo:
    (plugin,) = [plugin for plugin in catalogue.plugins if plugin.distribution == name]
    return plugin


def test_an_installed_distribution_is_found(install: Install) -> None:
    install("plugin-of-a-test", BREVITY)
    catalogue = load_catalogue()
    assert catalogue.methods["evaluate", "brevity"].distribution == "plugin-of-a-test"
    found = of_distribution(catalogue, "plugin-of-a-test")
    assert found == PluginInfo("methods", "plugin-of-a-test", "1.2", ("evaluate.brevity",))
    assert "brevity" not in load_catalogue(entry_points=False).of_stage("evaluate")


def test_a_distribution_that_cannot_be_imported_breaks_nothing(install: Install) -> None:
    install("broken-of-a-test", "import a_module_that_is_not_there\n")
    install("whole-of-a-test", BREVITY)
    catalogue = load_catalogue()
    found = of_distribution(catalogue, "broken-of-a-test")
    assert found.error == "ModuleNotFoundError: No module named 'a_module_that_is_not_there'"
    assert (found.name, found.version, found.provides) == ("methods", "1.2", ())
    assert "brevity" in catalogue.of_stage("evaluate")
    assert found in catalogue.broken


def test_two_distributions_with_one_method_are_both_named(install: Install) -> None:
    install("first-of-a-test", BREVITY)
    install("second-of-a-test", BREVITY)
    with pytest.raises(UnfitEnvironment, match="brought by both first-of-a-test and second-of-a-test"):
        load_catalogue()


@dataclass(frozen=True)
class Strict:
    """Options of which one needs another."""

    data: str = option("Data.", default="eval", in_key=False)
    kind: str = option("Kind.", default="plain", in_key=False)
    share: float = option("Share.", default=0.1, needs="kind=mixed")
    every: int | None = option("Steps.", default=None)
    patience: int = option("Times.", default=1, needs="every")


class Demanding:
    @hookimpl
    def recipe_evaluate_methods(self) -> Iterator[Method]:
        yield Method(
            name="demanding",
            summary="s",
            options=Strict,
            implementation="a:B",
            data=lambda options: {"eval": options.data},
            clashes=lambda _options, before: [("", "it cannot follow this", "load.dtype")] if before else [],
        )


def test_an_option_that_cannot_matter_is_refused_and_a_clash_may_be_the_whole_tables() -> None:
    text = LOAD + '[data.eval]\nsource = "file:e"\nformat = "chat"\n[evaluate.demanding]\nshare = 0.2\npatience = 3\n'
    said = refusal(text, catalogue=loaded(Demanding()))
    assert said.splitlines() == [
        "r.toml:9:11: evaluate.demanding: it cannot follow this; see load.full.dtype at r.toml:5:7.",
        "r.toml:10:1: evaluate.demanding.share: it cannot matter here: it needs kind = mixed. Remove it.",
        "r.toml:11:1: evaluate.demanding.patience: it cannot matter here: it needs every. Remove it.",
        "3 problems",
    ]
    given = ("evaluate.demanding.kind=mixed", "evaluate.demanding.every=2")
    assert refusal(text, given, catalogue=loaded(Demanding())).endswith("1 problem")
