"""Implementations by name: imported where they run, checked before."""

from __future__ import annotations

import importlib
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from recipe_engine.errors import UnfitEnvironment

if TYPE_CHECKING:
    from collections.abc import Iterable

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


def check_versions(requirements: Iterable[Requirement]) -> None:
    """Whether the packages are installed in versions that will do. Imports none of them.

    Raises:
        UnfitEnvironment: for the first that is not, with the command that installs it.
    """
    for needed in requirements:
        command = f'Install it: pip install "recipe-engine[{needed.extra}]"'
        try:
            found = version(needed.package)
        except PackageNotFoundError:
            raise UnfitEnvironment(f"{needed.package} is not installed.", command) from None
        if needed.specifier and not _satisfies(found, needed.specifier):
            raise UnfitEnvironment(f"{needed.package} {found} is installed, {needed.specifier} is needed.", command)


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
