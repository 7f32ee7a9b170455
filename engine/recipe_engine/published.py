"""A recipe that was published with its result: fetched with its lock, and what comes of it held against the result."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recipe_engine import document
from recipe_engine.compose import compose
from recipe_engine.contract import SourceRequest
from recipe_engine.errors import InvalidArguments, UnresolvedInput
from recipe_engine.lockfile import SUFFIX as LOCK_SUFFIX
from recipe_engine.methods.content import content_of
from recipe_engine.methods.hub_client import open_client, patiently
from recipe_engine.methods.hub_repository import Listing, listed
from recipe_engine.methods.hub_token import find_token
from recipe_engine.methods.sources.hub import explained
from recipe_engine.methods.sources.references import check_repository
from recipe_engine.model import BASES_FOLDER, PLUGIN_FILE_SUFFIX
from recipe_registry import sha256_file, write_bytes
from recipe_registry.durable import make_directory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from recipe_engine.compose import Composition
    from recipe_engine.model import Recipe

SCHEME = "hub:"
_RECIPES = ("recipe.toml", "recipe.json")
_LOCK = f"recipe{LOCK_SUFFIX}"
_BASE = re.compile(rf"{BASES_FOLDER}[A-Za-z0-9][A-Za-z0-9._-]*\.(toml|json)")
_PLUGIN = re.compile(rf"[A-Za-z_][A-Za-z0-9_]*\{PLUGIN_FILE_SUFFIX}")


@dataclass(frozen=True, slots=True)
class Published:
    """A published recipe on this machine.

    Attributes:
        name: of the repository.
        commit: that it comes from.
        file: the recipe.
        listing: the files of the commit.
    """

    name: str
    commit: str
    file: Path
    listing: Listing


def fetch(reference: str, folder: Path, work: Path, say: Callable[[str], None]) -> Published:
    """Fetch recipe, lock, the recipes that it builds on, and code beside it that a recipe may name; nothing is run.

    Args:
        reference: ``hub:owner/name``, or ``hub:owner/name@revision``.
        folder: where a folder is made that is called like the repository.
        work: a folder for what is fetched on the way.
        say: called with a line for the person who watches.

    Raises:
        InvalidArguments: the reference is none, or another file is in the way.
        UnresolvedInput: the Hub does not have it, does not give it, or cannot be reached; or other bytes arrived.
    """
    name, _, revision = reference.removeprefix(SCHEME).partition("@")
    if wrong := check_repository(name):
        raise InvalidArguments(f"{wrong}.", "Write hub:owner/name.")
    request = SourceRequest(reference=SCHEME + name, folder=folder, cache=work, kind="model", revision=revision or None)
    with explained(request):
        client = open_client(find_token(folder))
        commit = patiently(lambda: client.model_info(name, revision=request.revision).sha, say)
        listing = patiently(lambda: listed(client, name, commit), say)
        wanted = [path for path in listing if _is_wanted(path)]
        recipe = next((path for path in _RECIPES if path in wanted), "")
        if not recipe:
            raise UnresolvedInput(
                f"{reference} holds no recipe.", "Only what the engine has published can be made again."
            )
        get = client.hf_hub_download
        found = {path: Path(patiently(_fetching(get, name, path, commit, work), say)) for path in wanted}
    if damaged := [path for path, source in found.items() if not _is_same(source, listing[path])]:
        raise UnresolvedInput(f"{reference}: {damaged[0]} was damaged on its way.", "Give the same command again.")
    target = folder / name.partition("/")[2]
    for path, source in found.items():
        _write(target / path, source)
    return Published(name, commit, target / recipe, listing)


def check_trust(published: Published, trusted: Iterable[str]) -> None:
    """Whether all code that the recipe names is trusted. It is not imported for this.

    Args:
        published: the recipe.
        trusted: sha256 of the files that are.

    Raises:
        InvalidArguments: where a file is not, or lies elsewhere.
    """
    digests, folder = set(trusted), published.file.parent.resolve()
    for file in _code(compose(published.file)):
        if not file.resolve().is_relative_to(folder) or not file.is_file():
            raise InvalidArguments(f"{published.name} names code that it does not hold: {file}.", "It cannot be run.")
        digest = sha256_file(file)
        if digest not in digests:
            raise InvalidArguments(
                f"{published.name} names code of its own: {file}.", f"Read it, and then give --trust-code {digest}"
            )


def without_pushes(recipe: Recipe) -> Recipe:
    """The recipe that makes the result again, and publishes it nowhere: where it went is somebody else's."""
    return replace(recipe, push=(), text=None)


def comparison(published: Published, nodes: Iterable[Mapping[str, Any]]) -> str:
    """How what was trained compares with what was published, in a sentence.

    Args:
        published: what was published.
        nodes: of the run that made it again.
    """
    folders = [Path(node["artifact"]["path"]) for node in nodes if node["id"] == "train" and node["artifact"]]
    files = [path for folder in folders for path in sorted(folder.iterdir()) if path.name in published.listing]
    other = [path.name for path in files if not _is_same(path, published.listing[path.name])]
    where = f"{SCHEME}{published.name} at {published.commit}"
    if not files:
        return f"{where} holds no file of the training itself, such as an adapter: there is nothing to compare"
    if other:
        return f"not the bytes of {where}: {', '.join(other)} differ; other hardware or packages can do that"
    return f"identical to {where}: {', '.join(path.name for path in files)}"


def _is_wanted(path: str) -> bool:
    return path in (*_RECIPES, _LOCK) or _BASE.fullmatch(path) is not None or _PLUGIN.fullmatch(path) is not None


def _fetching(get: Any, name: str, path: str, commit: str, work: Path) -> Callable[[], str]:
    return lambda: str(get(name, path, revision=commit, cache_dir=work))


def _write(target: Path, source: Path) -> None:
    """Put a fetched file where it belongs, unless another one is there.

    Raises:
        InvalidArguments: where one is.
    """
    if source.stat().st_size > document.MAX_BYTES:
        raise InvalidArguments(f"{target.name} is larger than a recipe can be.", "It is not what the engine publishes.")
    content = source.read_bytes()
    if target.exists() and (not target.is_file() or target.read_bytes() != content):
        raise InvalidArguments(f"{target} is there already, and is another one.", "Move it away, or go elsewhere.")
    make_directory(target.parent)
    write_bytes(target, content)


def _code(composition: Composition) -> list[Path]:
    return [file for part in composition.parts() for file in part.plugin_files()]


def _is_same(path: Path, oid: str) -> bool:
    content = content_of(path)
    return oid in (content.sha256, content.git_oid)
