"""What a container costs a stage: the same run, all of it in one container or in one process, by the clock."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from tests import tiny
from tests.bench.measure import Comparison, alternate
from tests.docker import daemon
from tests.docker.images import built_image
from tests.e2e.engine import Workspace, write_workspace

from recipe_containers.client import connect, engine_url
from recipe_containers.errors import EngineUnavailable

RUNS = 10


def compare() -> Iterator[Comparison]:
    """A run without a training is one segment: one container. Its overhead is the difference of the two medians."""
    with _engine() as address, tempfile.TemporaryDirectory() as name:
        with closing(connect(address)) as client:
            image = built_image(client)
        folder = Path(name)
        folder.chmod(0o755)
        model = tiny.write_model(folder / "model")
        for file in model.iterdir():
            file.chmod(0o644)
        spaces = {kind: write_workspace(folder / kind, model) for kind in ("container", "process")}
        spaces["container"].append(f'[container]\nimage = "{image}"\n')
        for space in spaces.values():
            space.variables["DOCKER_HOST"] = address
            text = space.recipe_file.read_text()
            for first, last in (("[data.train]", "[data.eval]"), ("[adapt.lora]", "[evaluate.perplexity]")):
                text = text[: text.index(first)] + text[text.index(last) :]
            space.recipe_file.write_text(text.replace('[push.folder]\npath = "export"\n', ""))
        yield alternate(
            "container-start",
            "a run in one container / in one process",
            lambda: _seconds(spaces["container"]),
            lambda: _seconds(spaces["process"]),
            "seconds",
            RUNS,
        )


@contextmanager
def _engine() -> Iterator[str]:
    """The address of the machine's engine, or of one that is started for this."""
    try:
        connect().close()
    except EngineUnavailable:
        folder = daemon.make_folder()
        daemon.start(folder)
        try:
            yield daemon.address(folder)
        finally:
            daemon.stop(folder)
        return
    yield engine_url()


def _seconds(space: Workspace) -> float:
    """Of a run with nothing in the registry."""
    number = len(list(space.folder.glob("home-*")))
    space.variables["RECIPE_HOME"] = str(space.folder / f"home-{number}")
    started = time.perf_counter()
    space.run()
    return time.perf_counter() - started
