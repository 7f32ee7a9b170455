"""What every name of a recipe stands for: the files of its sources, and the packages and processor at hand."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recipe_engine.contract import Reporter, ResolvedSource, SourceRequest
from recipe_engine.errors import UnfitEnvironment, UnresolvedInput
from recipe_engine.lazy import bugs_named, load_symbol
from recipe_engine.model import MODEL
from recipe_engine.options import REWARD, folder_of, rewards_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from recipe_containers import ImageFacts
    from recipe_engine.contract import SourceCode
    from recipe_engine.model import Recipe
    from recipe_engine.plugins import Catalogue

Pins = Mapping[tuple[str, str | None], str]
"""Reference and revision as a recipe gives them -> the commit that they are to stand for."""
NO_PINS: Pins = {}
# Instructions that change the order or the width of floating-point sums in the numeric libraries.
_NUMERIC_FLAGS = ("avx", "avx2", "fma", "f16c", "avx512", "avx_vnni", "amx", "asimd", "sve", "bf16", "i8mm")


@dataclass(frozen=True, slots=True)
class Resolution:
    """The inputs of a recipe, as far as they are known.

    Attributes:
        sources: ``model``, ``data.<name>``, ``reward.<name>``, ``evaluate.<instance>`` and, of a recipe that this one
            builds on, ``<recipe>/data.<name>`` and so on, ``<recipe>/model`` where it starts from another one -> its
            files; ``None`` where they are not known without the network.
        images: reference to each image that stages run in -> what is known of it; ``None`` where nothing is.
    """

    sources: Mapping[str, ResolvedSource | None]
    images: Mapping[str, ImageFacts | None] = field(default_factory=dict)

    @property
    def model(self) -> ResolvedSource | None:
        """Files of the model that everything starts from."""
        return self.sources[MODEL]

    def known(self) -> dict[str, ResolvedSource]:
        """The sources whose files are known."""
        return {name: source for name, source in self.sources.items() if source is not None}

    @property
    def is_local(self) -> bool:
        """Whether every byte is on this machine."""
        return all(source is not None and source.is_local for source in self.sources.values()) and all(
            image is not None for image in self.images.values()
        )


@dataclass(frozen=True, slots=True)
class Hardware:
    """What of this machine can change a result.

    Attributes:
        device: ``cpu`` or ``cuda``.
        threads: of the numeric libraries.
        flags: instruction sets in use, sorted; empty on a GPU.
    """

    device: str
    threads: int
    flags: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """The form that enters keys and run records."""
        return {"device": self.device, "threads": self.threads, "cpu_flags": list(self.flags)}


def peek(recipe: Recipe, catalogue: Catalogue, cache_folder: Path, pins: Pins = NO_PINS) -> Resolution:
    """What is known of the inputs without the network.

    Args:
        recipe: the recipe.
        catalogue: has the sources.
        cache_folder: where fetched files are kept.
        pins: what moving revisions are to stand for.
    """
    requests = source_requests(recipe, cache_folder, pins)
    found: dict[str, ResolvedSource | None] = {}
    for name, request in requests.items():
        with _code(request, catalogue) as code:
            found[name] = code.peek(request)
    return Resolution(found)


def resolve(
    recipe: Recipe, catalogue: Catalogue, cache_folder: Path, reporter: Reporter, pins: Pins = NO_PINS
) -> Resolution:
    """Every input on this machine, verified; arguments as in :func:`peek`.

    Raises:
        UnresolvedInput: where one cannot be had.
    """
    requests = source_requests(recipe, cache_folder, pins)
    found: dict[str, ResolvedSource | None] = {}
    for name, request in requests.items():
        with _code(request, catalogue) as code:
            found[name] = code.fetch(request, reporter)
    return Resolution(found)


def check_unchanged(locked: Mapping[str, Any], sources: Mapping[str, ResolvedSource]) -> None:
    """Whether every source is, byte by byte, what a lock says.

    Args:
        locked: the sources of a lock: name -> its ``files``, path -> sha256.
        sources: those at hand.

    Raises:
        UnresolvedInput: for the first file that is another one, that is gone or that was not there.
    """
    for name, source in sources.items():
        before = locked.get(name, {}).get("files", {})
        now = {file.path: file.sha256 for file in source.files}
        for path in sorted({*before, *now}):
            if before.get(path) != now.get(path):
                found = f"{path} has the sha256 {now[path]}" if path in now else f"there is no {path}"
                known = before.get(path, "that there was none")
                raise UnresolvedInput(
                    f"{source.reference}: {found}, but the record says {known}.", "Put back what the run was made of."
                )


def source_requests(recipe: Recipe, cache_folder: Path, pins: Pins = NO_PINS) -> dict[str, SourceRequest]:
    """What a run asks the sources for, by its name. The data comes first: it is small and most often wrong."""
    requests = {}
    for part in recipe.computed():
        prefix = "" if part is recipe else f"{part.name}/"
        for name, data in part.data.items():
            requests[f"{prefix}data.{name}"] = SourceRequest(
                reference=data.table.source,
                folder=part.folder,
                cache=cache_folder,
                kind="data",
                revision=_pinned(data.table.source, data.table.revision, pins),
            )
        rewards = rewards_of(part.train.options) if part.train else ()
        for reward in rewards:
            if reward.reference:
                requests[f"{prefix}{REWARD}.{reward.name}"] = SourceRequest(
                    reference=reward.reference,
                    folder=part.folder,
                    cache=cache_folder,
                    kind=reward.kind,
                    revision=_pinned(reward.reference, reward.revision, pins),
                )
    for table in recipe.evaluate:  # those of the recipes that it builds on are not run
        if folder := folder_of(table.options):
            requests[f"evaluate.{table.instance}"] = SourceRequest(
                reference=folder, folder=recipe.folder, cache=cache_folder, kind="folder"
            )
    for part in (recipe, *recipe.computed()):
        first = part.lineage()[0]
        requests[f"{recipe.model_prefix(part)}{MODEL}"] = SourceRequest(
            reference=first.source,
            folder=first.folder,
            cache=cache_folder,
            kind="model",
            revision=_pinned(first.source, first.model.revision, pins),
        )
    return requests


def _pinned(reference: str, revision: str | None, pins: Pins) -> str | None:
    return pins.get((reference, revision), revision)


def hardware(recipe: Recipe, locked_threads: int | None = None) -> Hardware:
    """The device and threads that a recipe gets on this machine.

    Args:
        recipe: the recipe.
        locked_threads: threads where the recipe gives none: results depend on them, not on the cores.

    Raises:
        UnfitEnvironment: where it asks for a GPU that is not there, or that torch was not built for.
    """
    device = recipe.top.device
    if device != "cpu":
        contained = recipe.container is not None and recipe.container.image is not None
        missing = why_no_cuda(torch_is_here=not contained)
        if missing and device == "cuda":
            raise UnfitEnvironment(f"the recipe asks for a GPU, but {missing}.", 'Write device = "cpu".')
        device = "cpu" if missing else "cuda"
    flags = cpu_flags() if device == "cpu" else ()
    return Hardware(device, recipe.top.threads or locked_threads or physical_cores(), flags)


def physical_cores() -> int:
    """Cores that this process may use, hyper-threads of one core counted once."""
    allowed = os.sched_getaffinity(0)
    cores = {_core_of(cpu) for cpu in allowed}
    return max(len(cores), 1)


def why_no_cuda(*, torch_is_here: bool) -> str:
    """Why there is no usable GPU, ``""`` where there is one; without importing torch."""
    if not Path("/proc/driver/nvidia/version").exists():
        return "this machine has no NVIDIA driver"
    if not torch_is_here:
        return ""
    try:
        version = distribution("torch").version
    except PackageNotFoundError:
        return "torch is not installed"
    return f"torch {version} is a build without CUDA" if "+cpu" in version else ""


@cache
def cpu_flags() -> tuple[str, ...]:
    """Instruction sets that can change a sum, as Linux names them, sorted."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return ()
    for line in lines:
        name, _, value = line.partition(":")
        if name.strip() in ("flags", "Features"):
            return tuple(sorted(flag for flag in value.split() if flag.startswith(_NUMERIC_FLAGS)))
    return ()


def computes_in_bfloat16(flags: Iterable[str]) -> bool:
    """Whether a processor multiplies in bfloat16; with AVX2 alone it takes eight times as long as float32.

    Args:
        flags: as of :func:`cpu_flags`.
    """
    return not {"amx_bf16", "avx512_bf16", "bf16"}.isdisjoint(flags)


@cache
def package_identity(name: str) -> Mapping[str, str]:
    """Version and content of an installed package.

    A version does not name a build, so the digest is that of the installed files, by their RECORD. Scripts (they
    name the interpreter's path), bytecode and the installer's own notes are left out.

    Raises:
        UnfitEnvironment: where it is not installed.
    """
    try:
        found = distribution(name)
    except PackageNotFoundError:
        raise UnfitEnvironment(
            f"the package {name} is not installed.", 'Install it: pip install "recipe-engine[run]"'
        ) from None
    digest = hashlib.sha256()
    for line in sorted((found.read_text("RECORD") or "").splitlines()):
        path = line.partition(",")[0]
        if not path.startswith("..") and not path.endswith((".pyc", "INSTALLER", "REQUESTED", "direct_url.json")):
            digest.update(line.encode() + b"\n")
    return {"version": found.version, "record_sha256": digest.hexdigest()}


def packages_identity(names: Iterable[str]) -> dict[str, Mapping[str, str]]:
    """:func:`package_identity` of several packages."""
    return {name: package_identity(name) for name in sorted(names)}


@contextmanager
def _code(request: SourceRequest, catalogue: Catalogue) -> Iterator[SourceCode]:
    source = catalogue.sources[request.reference.partition(":")[0]]
    with bugs_named(source.plugin):
        code: SourceCode = load_symbol(source.descriptor.implementation)()
        yield code


def _core_of(cpu: int) -> tuple[str, str]:
    topology = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology")
    try:
        return (
            (topology / "physical_package_id").read_text(encoding="ascii").strip(),
            (topology / "core_id").read_text(encoding="ascii").strip(),
        )
    except OSError:
        return ("", str(cpu))
