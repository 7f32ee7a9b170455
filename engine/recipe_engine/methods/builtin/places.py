"""Where models and data come from, where results go, and where stages are executed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from recipe_engine.descriptors import Method, Runner, Source
from recipe_engine.hookmark import hookimpl
from recipe_engine.methods import fits, options
from recipe_engine.methods.builtin.requirements import HUB
from recipe_engine.methods.hub_token import hub_needs
from recipe_engine.methods.sources import references

if TYPE_CHECKING:
    from collections.abc import Iterator

    from recipe_engine.descriptors import Payload


@hookimpl(trylast=True)
def recipe_sources() -> Iterator[Source]:
    """Where models and data come from."""
    yield Source(
        scheme="file",
        summary="A file or folder of this machine, relative to the recipe",
        example="file:rows.jsonl",
        check=references.check_file,
        implementation="recipe_engine.methods.sources.file:FileSource",
    )
    yield Source(
        scheme="hub",
        summary="A model of the Hugging Face Hub",
        example="hub:owner/name",
        check=references.check_hub,
        implementation="recipe_engine.methods.sources.hub:HubSource",
        revisions=True,
        requires=(HUB,),
    )
    yield Source(
        scheme="wheel",
        summary="A file inside a Python wheel, pinned by version and digest",
        example="wheel:package==1.0/folder/file#sha256=…",
        check=references.check_wheel,
        implementation="recipe_engine.methods.sources.wheel:WheelSource",
    )


@hookimpl(trylast=True)
def recipe_push_methods() -> Iterator[Method]:
    """Where it goes."""
    yield Method(
        name="folder",
        summary="Export into a folder",
        options=options.PushFolder,
        implementation="recipe_engine.methods.push_folder:PushFolder",
        clashes=fits.push_clashes,
        payload=_payload,
    )
    yield Method(
        name="hub",
        summary="Publish on the Hugging Face Hub, and read it back",
        options=options.PushHub,
        implementation="recipe_engine.methods.push_hub:PushHub",
        check=lambda chosen: chosen.contradictions(),
        clashes=fits.push_clashes,
        payload=_payload,
        needs=hub_needs,
        requires=(HUB,),
    )


def _payload(chosen: options.Published) -> Payload:
    return "merged" if chosen.merged else "adapter"


@hookimpl(trylast=True)
def recipe_runners() -> Iterator[Runner]:
    """Where stages are executed."""
    yield Runner(
        name="process",
        summary="A worker process of this machine",
        implementation="recipe_engine.runners.process:ProcessRunner",
    )
    yield Runner(
        name="container",
        summary="A worker in a container of a pinned image, without a network",
        implementation="recipe_engine.runners.container:ContainerRunner",
    )
