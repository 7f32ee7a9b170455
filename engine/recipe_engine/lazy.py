"""Implementations by name: imported where they run, checked before."""

from __future__ import annotations

import importlib
import traceback
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from recipe_engine.errors import StageFailed, UnfitEnvironment

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from recipe_engine.descriptors import Requirement


def load_symbol(name: str) -> Any:
    """The object that ``package.module:Name`` names.

    Raises:
        UnfitEnvironment: where the module or the name does not exist; the cause says which import failed.
    """
    module, _, attribute = name.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise UnfitEnvironment(f"{name} cannot be loaded: {error}.") from error


@contextmanager
def bugs_named(plugin: str) -> Iterator[None]:
    """What a plugin's code raises and no user can act on is its bug: it names the plugin and keeps the traceback.

    Args:
        plugin: its distribution; ``""`` for the engine's own code, whose bugs stay as they are.

    Raises:
        StageFailed: for a bug of the plugin.
    """
    try:
        yield
    except Exception as error:
        if not plugin or hasattr(error, "exit_code"):
            raise
        hint = f"This is a bug of the plugin {plugin}, not of the recipe."
        failed = StageFailed(f"{type(error).__name__}: {error}", hint)
        failed.add_note("".join(traceback.format_exception(error)))
        raise failed from error


def unmet(requirements: Iterable[Requirement], plugin: str = "") -> Iterator[UnfitEnvironment]:
    """An error for each package that is not installed in a version that will do. Imports none of them.

    Args:
        requirements: what is needed.
        plugin: the distribution that needs it; ``""`` for the engine, which has an extra for everything.
    """
    for needed in requirements:
        wanted = f"{needed.package}{needed.specifier}" if plugin else f"recipe-engine[{needed.extra}]"
        command = f'Install it: pip install "{wanted}"'
        try:
            found = version(needed.package)
        except PackageNotFoundError:
            yield UnfitEnvironment(f"{needed.package} is not installed.", command)
            continue
        if needed.specifier and not _satisfies(found, needed.specifier):
            yield UnfitEnvironment(f"{needed.package} {found} is installed, {needed.specifier} is needed.", command)


def check_symbols(requirements: Iterable[Requirement]) -> None:
    """Whether what is used of the packages is there. Imports them.

    Raises:
        UnfitEnvironment: for the first symbol that is missing.
    """
    for needed in requirements:
        for symbol in needed.symbols:
            load_symbol(symbol)


def _satisfies(found: str, specifier: str) -> bool:
    from packaging.specifiers import SpecifierSet

    return SpecifierSet(specifier).contains(found, prereleases=True)
