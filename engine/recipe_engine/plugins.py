"""The plugin manager: who brings which method, and what failed to load."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from importlib.metadata import Distribution, EntryPoint, distributions
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import pluggy

from recipe_engine import hookspecs
from recipe_engine.contract import STAGES, DataFormat, Method, Runner, Source
from recipe_engine.errors import UnfitEnvironment
from recipe_engine.hookmark import PROJECT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

ENTRY_POINTS = "recipe_engine.plugins"
BUILTIN = "recipe-engine"
D = TypeVar("D")


@dataclass(frozen=True, slots=True)
class Registered(Generic[D]):
    """A descriptor and the distribution that brought it."""

    descriptor: D
    distribution: str


@dataclass(frozen=True, slots=True)
class PluginInfo:
    """A plugin as ``recipe plugins`` lists it.

    Attributes:
        name: of the entry point.
        distribution: the package that it comes in.
        version: of that package.
        provides: such as ``train.sft`` or ``source file``.
        error: why it could not be loaded, ``""`` where it was.
    """

    name: str
    distribution: str
    version: str
    provides: tuple[str, ...] = ()
    error: str = ""


@dataclass(frozen=True, slots=True)
class Catalogue:
    """Everything that is installed: what recipes can name."""

    methods: Mapping[tuple[str, str], Registered[Method]]
    formats: Mapping[str, Registered[DataFormat]]
    sources: Mapping[str, Registered[Source]]
    runners: Mapping[str, Registered[Runner]]
    plugins: tuple[PluginInfo, ...]
    hooks: pluggy.HookRelay = field(repr=False)

    def of_stage(self, stage: str) -> dict[str, Registered[Method]]:
        """The methods of one stage by name, sorted."""
        return {name: found for (of, name), found in sorted(self.methods.items()) if of == stage}

    @property
    def broken(self) -> tuple[PluginInfo, ...]:
        """Plugins that could not be loaded."""
        return tuple(plugin for plugin in self.plugins if plugin.error)


def load_catalogue(extra: Iterable[object] = (), *, entry_points: bool = True) -> Catalogue:
    """Load the built-in methods, then each installed plugin on its own.

    A plugin that fails to load is noted with its cause and left out: it must not break recipes that do not use it.

    Args:
        extra: plugin objects to register besides, in tests and notebooks.
        entry_points: whether installed distributions are searched for plugins.

    Raises:
        UnfitEnvironment: where two plugins bring the same method.
    """
    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(hookspecs)
    from recipe_engine.methods import builtin

    plugins = [_register(manager, "builtin", BUILTIN, _version(BUILTIN), lambda: builtin)]
    if entry_points:
        for entry_point, distribution in _entry_points():
            plugins.append(
                _register(manager, entry_point.name, distribution.name, distribution.version, entry_point.load)
            )
    for number, plugin in enumerate(extra):
        name = getattr(plugin, "__name__", f"plugin-{number}")
        plugins.append(_register(manager, name, name, "", functools.partial(_itself, plugin)))
    return _collect(manager, plugins)


def _itself(plugin: object) -> object:
    return plugin


def _entry_points() -> list[tuple[EntryPoint, Distribution]]:
    found = {
        (entry_point.name, distribution.name): (entry_point, distribution)
        for distribution in distributions()
        for entry_point in distribution.entry_points
        if entry_point.group == ENTRY_POINTS
    }
    return [found[key] for key in sorted(found)]


def _version(distribution: str) -> str:
    from recipe_engine import __version__

    return __version__ if distribution == BUILTIN else ""


def _register(
    manager: pluggy.PluginManager, name: str, distribution: str, version: str, load: Callable[[], object]
) -> PluginInfo:
    plugin: object | None = None
    unique = f"{distribution}:{name}"
    try:
        plugin = load()
        manager.register(plugin, unique)
        manager.check_pending()
    except Exception as error:  # noqa: BLE001 -- whatever a stranger's import raises is that plugin's failure, not ours
        if plugin is not None and manager.has_plugin(unique):
            manager.unregister(plugin, unique)
        return PluginInfo(name, distribution, version, error=f"{type(error).__name__}: {error}")
    return PluginInfo(name, distribution, version)


class _Collector:
    """Takes what the registration hooks yield, and refuses what two plugins both bring."""

    def __init__(self, manager: pluggy.PluginManager) -> None:
        self._manager = manager
        self.provides: dict[str, list[str]] = {}

    def take(self, hook: str, label: str, key: Callable[[Any], str]) -> dict[str, Registered[Any]]:
        """Name -> descriptor for one hook, built-in methods first."""
        found: dict[str, Registered[Any]] = {}
        for implementation in getattr(self._manager.hook, hook).get_hookimpls():
            owner = implementation.plugin_name
            distribution = owner.partition(":")[0]
            for descriptor in implementation.function():
                name = key(descriptor)
                if name in found:
                    raise UnfitEnvironment(
                        f"{label}{name} is brought by both {found[name].distribution} and {distribution}.",
                        "Uninstall one of them.",
                    )
                found[name] = Registered(descriptor, distribution)
                self.provides.setdefault(owner, []).append(f"{label}{name}")
        return dict(sorted(found.items()))


def _collect(manager: pluggy.PluginManager, plugins: list[PluginInfo]) -> Catalogue:
    collector = _Collector(manager)
    methods: dict[tuple[str, str], Registered[Method]] = {}
    for stage in STAGES:
        for name, found in collector.take(f"recipe_{stage}_methods", f"{stage}.", _name).items():
            methods[stage, name] = found
    formats = collector.take("recipe_data_formats", "format ", _name)
    sources = collector.take("recipe_sources", "source ", lambda source: str(source.scheme))
    runners = collector.take("recipe_runners", "runner ", _name)
    listed = tuple(
        PluginInfo(
            plugin.name,
            plugin.distribution,
            plugin.version,
            tuple(sorted(collector.provides.get(f"{plugin.distribution}:{plugin.name}", ()))),
            plugin.error,
        )
        for plugin in plugins
    )
    return Catalogue(methods, formats, sources, runners, listed, manager.hook)


def _name(descriptor: Any) -> str:
    return str(descriptor.name)
