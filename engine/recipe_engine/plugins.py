"""The plugin manager: who brings which method, and what failed to load."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from importlib.metadata import Distribution, EntryPoint, distributions
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import pluggy

from recipe_engine import hookspecs
from recipe_engine.descriptors import STAGES, DataFormat, Method, RewardSource, Runner, Source
from recipe_engine.errors import UnfitEnvironment
from recipe_engine.hookmark import PROJECT
from recipe_engine.model import PLUGIN_FILE_SUFFIX

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from types import ModuleType

ENTRY_POINTS = "recipe_engine.plugins"
BUILTIN = "recipe-engine"
D = TypeVar("D")


@dataclass(frozen=True, slots=True)
class Registered(Generic[D]):
    """A descriptor and what brought it.

    Attributes:
        distribution: the package, or the name of the file.
        sha256: of the file, bare hexadecimal; ``""`` for a package.
    """

    descriptor: D
    distribution: str
    sha256: str = ""

    @property
    def plugin(self) -> str:
        """The distribution, ``""`` for what is built in."""
        return "" if self.distribution == BUILTIN else self.distribution


@dataclass(frozen=True, slots=True)
class PluginInfo:
    """A plugin as ``recipe plugins`` lists it.

    Attributes:
        name: of the entry point.
        distribution: the package that it comes in.
        version: of that package.
        provides: such as ``train.sft`` or ``source file``.
        error: why it could not be loaded, ``""`` where it was.
        sha256: of a plugin that is a single file.
    """

    name: str
    distribution: str
    version: str
    provides: tuple[str, ...] = ()
    error: str = ""
    sha256: str = ""


@dataclass(frozen=True, slots=True)
class Catalogue:
    """Everything that is installed: what recipes can name."""

    methods: Mapping[tuple[str, str], Registered[Method]]
    formats: Mapping[str, Registered[DataFormat]]
    sources: Mapping[str, Registered[Source]]
    rewards: Mapping[str, Registered[RewardSource]]
    runners: Mapping[str, Registered[Runner]]
    plugins: tuple[PluginInfo, ...]
    hooks: pluggy.HookRelay = field(repr=False)
    files: tuple[Path, ...] = ()

    def of_stage(self, stage: str) -> dict[str, Registered[Method]]:
        """The methods of one stage by name, sorted."""
        return {name: found for (of, name), found in sorted(self.methods.items()) if of == stage}

    @property
    def broken(self) -> tuple[PluginInfo, ...]:
        """Plugins that could not be loaded."""
        return tuple(plugin for plugin in self.plugins if plugin.error)

    def why_missing(self, named: str) -> tuple[str, str]:
        """Why a plugin that a recipe names cannot be used, and a hint; two empty texts where it can.

        Args:
            named: the name of a package, or the path of a file.
        """
        wanted = Path(named).name if named.endswith(PLUGIN_FILE_SUFFIX) else _canonical(named)
        for plugin in self.plugins:
            if wanted in (plugin.distribution, _canonical(plugin.distribution)):
                return (f"the plugin {named} cannot be loaded: {plugin.error}", "") if plugin.error else ("", "")
        return f"the plugin {named} is not installed", f"Install the package: pip install {named}"


def load_catalogue(extra: Iterable[object] = (), *, entry_points: bool = True, files: Iterable[Path] = ()) -> Catalogue:
    """Load the built-in methods, then each installed plugin on its own.

    A plugin that fails to load is noted with its cause and left out: it must not break recipes that do not use it.

    Args:
        extra: plugin objects to register besides, in tests and notebooks.
        entry_points: whether installed distributions are searched for plugins.
        files: plugins that are single files; they are never loaded unless they are named here.

    Raises:
        UnfitEnvironment: where two plugins bring the same method.
    """
    from recipe_engine import __version__
    from recipe_engine.methods import builtin

    loader = _Loader()
    loader.load(PluginInfo("builtin", BUILTIN, __version__), lambda: builtin)
    if entry_points:
        for entry_point, distribution in _entry_points():
            loader.load(PluginInfo(entry_point.name, distribution.name, distribution.version), entry_point.load)
    files = tuple(files)
    for file in files:
        source = file.read_bytes() if file.is_file() else b""
        digest = hashlib.sha256(source).hexdigest()
        loader.load(PluginInfo(file.stem, file.name, "", sha256=digest), functools.partial(_module_of, file))
    for number, plugin in enumerate(extra):
        name = getattr(plugin, "__name__", f"plugin-{number}")
        loader.load(PluginInfo(name, name, ""), functools.partial(_itself, plugin))
    return replace(loader.catalogue(), files=files)


def _itself(plugin: object) -> object:
    return plugin


def _module_of(file: Path) -> ModuleType:
    """Import a plugin that is a single file. Its implementations name it as a module: ``"mine:Dpo"``.

    Raises:
        ImportError: where there is no such file, or a module of that name is installed already.
    """
    if not file.is_file():
        raise ImportError(f"there is no file {file}")
    loaded = sys.modules.get(file.stem)
    if loaded is not None and getattr(loaded, "__file__", None) == str(file.absolute()):
        return loaded
    if loaded is not None or not file.stem.isidentifier() or importlib.util.find_spec(file.stem) is not None:
        raise ImportError(f"{file.stem} is the name of another module, or cannot be one: rename the file")
    spec = importlib.util.spec_from_file_location(file.stem, file.absolute())
    assert spec is not None and spec.loader is not None  # noqa: PT018 -- a file that ends in .py has both
    module = importlib.util.module_from_spec(spec)
    sys.modules[file.stem] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[file.stem]
        raise
    return module


def _canonical(distribution: str) -> str:
    """The name of a package as indexes compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", distribution).lower()


def _entry_points() -> list[tuple[EntryPoint, Distribution]]:
    found = {
        (entry_point.name, distribution.name): (entry_point, distribution)
        for distribution in distributions()
        for entry_point in distribution.entry_points
        if entry_point.group == ENTRY_POINTS
    }
    return [found[key] for key in sorted(found)]


_Kind = tuple[str, type[Any], Callable[[Any], str]]
_KINDS: Mapping[str, _Kind] = {
    **{f"recipe_{stage}_methods": (f"{stage}.", Method, attrgetter("name")) for stage in STAGES},
    "recipe_data_formats": ("format ", DataFormat, attrgetter("name")),
    "recipe_sources": ("source ", Source, attrgetter("scheme")),
    "recipe_reward_sources": ("reward ", RewardSource, attrgetter("name")),
    "recipe_runners": ("runner ", Runner, attrgetter("name")),
}
"""Registration hook -> how what it brings is called, its type, and its name."""


class _Loader:
    """Registers plugins one by one and takes what each brings; of one that fails, nothing is taken."""

    def __init__(self) -> None:
        self._manager = pluggy.PluginManager(PROJECT)
        self._manager.add_hookspecs(hookspecs)
        self._plugins: list[PluginInfo] = []
        self._found: dict[str, dict[str, Registered[Any]]] = {hook: {} for hook in _KINDS}

    def load(self, plugin: PluginInfo, load: Callable[[], object]) -> None:
        """Load a plugin, or note why it cannot be.

        Raises:
            UnfitEnvironment: where it brings what another one brought.
        """
        module: object | None = None
        unique = f"{plugin.distribution}:{plugin.name}"
        try:
            module = load()
            self._manager.register(module, unique)
            self._manager.check_pending()
            brought = list(self._brought(module))
        except Exception as error:  # noqa: BLE001 -- whatever a stranger's code raises is that plugin's failure, not ours
            if module is not None and self._manager.has_plugin(unique):
                self._manager.unregister(module, unique)
            self._plugins.append(replace(plugin, error=f"{type(error).__name__}: {error}"))
            return
        for hook, descriptor in brought:
            self._take(hook, descriptor, plugin)
        provides = sorted(_label(hook, descriptor) for hook, descriptor in brought)
        self._plugins.append(replace(plugin, provides=tuple(provides)))

    def catalogue(self) -> Catalogue:
        """What all of them bring, sorted by name."""
        found = {hook: dict(sorted(registered.items())) for hook, registered in self._found.items()}
        return Catalogue(
            methods={
                (stage, name): registered
                for stage in STAGES
                for name, registered in found[f"recipe_{stage}_methods"].items()
            },
            formats=found["recipe_data_formats"],
            sources=found["recipe_sources"],
            rewards=found["recipe_reward_sources"],
            runners=found["recipe_runners"],
            plugins=tuple(self._plugins),
            hooks=self._manager.hook,
        )

    def _brought(self, plugin: object) -> Iterator[tuple[str, Any]]:
        """Hook and descriptor, for everything that the plugin yields."""
        for hook, (_, kind, _name) in _KINDS.items():
            for implementation in getattr(self._manager.hook, hook).get_hookimpls():
                for descriptor in implementation.function() if implementation.plugin is plugin else ():
                    if not isinstance(descriptor, kind):
                        raise TypeError(f"{hook} yields {descriptor!r}, which is no {kind.__name__}")
                    yield hook, descriptor

    def _take(self, hook: str, descriptor: Any, plugin: PluginInfo) -> None:
        name = _KINDS[hook][2](descriptor)
        brought = Registered(descriptor, plugin.distribution, plugin.sha256)
        before = self._found[hook].setdefault(name, brought)
        if before.descriptor is not descriptor:
            raise UnfitEnvironment(
                f"{_label(hook, descriptor)} is brought by both {before.distribution} and {plugin.distribution}.",
                "Leave one of them out.",
            )


def _label(hook: str, descriptor: Any) -> str:
    label, _, name = _KINDS[hook]
    return f"{label}{name(descriptor)}"
