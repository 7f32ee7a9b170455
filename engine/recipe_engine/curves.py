"""The numbers of a training's steps as curves, in files that another program draws.

They are written in the engine's own process, which hears what every worker reports, also of one in a container; no
worker imports a writer. A training that goes on begins its curves with the steps that were logged before it: they are
kept in its work area, beside its checkpoints.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from typing import IO, TYPE_CHECKING, Any

from recipe_engine.descriptors import Requirement
from recipe_registry import write_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

WRITERS: Mapping[str, Requirement] = {
    "tensorboard": Requirement(package="tensorboard", specifier=">=2.20", extra="tracking")
}
"""What ``report_to`` can name -> the package that writes it."""
LOGGED_FILE = "logged.jsonl"
"""In the work area of a training: what was logged of each step, a line each."""
EVENTS_FILE = "events.out.tfevents.recipe"
"""In the folder of a training's curves. TensorBoard looks for ``tfevents`` in the name."""


@dataclass(frozen=True, slots=True)
class Point:
    """What was logged of a step.

    Attributes:
        step: of the training, from 1.
        at: when it was logged, in seconds since 1970.
        values: name of a curve -> its value.
    """

    step: int
    at: float
    values: Mapping[str, float]


Draw = Callable[[int, Mapping[str, float]], None]
"""Takes a step and its numbers, name -> value."""


def chosen_writers(options: Mapping[str, Any]) -> tuple[str, ...]:
    """The writers that a node's options name; none where they have no ``report_to``."""
    return tuple(name for name in WRITERS if name in options.get("report_to", ()))


@contextmanager
def drawn(options: Mapping[str, Any], folder: Path, work: Path, warn: Callable[[str], None]) -> Iterator[Draw]:
    """What takes the numbers of a node's steps for its curves; where its options want none, it leaves them.

    Args:
        options: of the node.
        folder: where curves go; it is made.
        work: the node's work area.
        warn: told why there are no curves any more.
    """
    if not chosen_writers(options):
        yield lambda _step, _values: None
        return
    curves = Curves(folder, work, warn)
    try:
        yield curves.add
    finally:
        curves.close()


class TensorBoard:
    """An event file of TensorBoard; each step is in the file before the next one comes.

    Args:
        folder: of the curves of one training; it is made.

    Raises:
        OSError: it cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.record_writer import RecordWriter

        folder.mkdir(parents=True)
        # Not its EventFileWriter: that writes in a thread, where a full disk is noticed late or never.
        self._records = RecordWriter((folder / EVENTS_FILE).open("xb"))
        self._event, self._summary = Event, Summary
        self._records.write(Event(wall_time=time.time(), file_version="brain.Event:2").SerializeToString())

    def write(self, point: Point) -> None:
        """Add one step to the curves."""
        values = [self._summary.Value(tag=name, simple_value=value) for name, value in point.values.items()]
        event = self._event(wall_time=point.at, step=point.step, summary=self._summary(value=values))
        self._records.write(event.SerializeToString())
        self._records.flush()

    def close(self) -> None:
        """Close the file."""
        self._records.close()


class Curves:
    """The curves of one training. What goes wrong with them is told once, and the training goes on without them.

    Args:
        folder: where they go; it is made.
        work: the training's work area; what was logged in it before comes first.
        warn: told why there are no curves any more.
    """

    def __init__(self, folder: Path, work: Path, warn: Callable[[str], None]) -> None:
        self._warn = warn
        self._files = ExitStack()
        self._seen: set[tuple[int, str]] = set()
        self._open: tuple[TensorBoard, IO[str]] | None = None
        with self._forgiving():
            self._begin(folder, work / LOGGED_FILE)

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Log a step, as far as it is not logged yet: a training goes on from a checkpoint, some steps before the last.

        Args:
            step: of the training.
            values: name of a curve -> its value.
        """
        new = {name: value for name, value in values.items() if (step, name) not in self._seen}
        if self._open is None or not new:
            return
        writer, logged = self._open
        with self._forgiving():
            point = Point(step, time.time(), new)
            writer.write(point)
            logged.write(_line(point))
            logged.flush()
            self._note(point)

    def close(self) -> None:
        """Close the files; what is in them stays."""
        self._open = None
        with self._forgiving():
            self._files.close()

    def _begin(self, folder: Path, logged: Path) -> None:
        before = _points(logged)
        # A line that was torn off by the end of the process before must not spoil the next one.
        write_bytes(logged, "".join(map(_line, before)).encode())
        writer = TensorBoard(folder)
        self._files.callback(writer.close)
        for point in before:
            writer.write(point)
            self._note(point)
        self._open = writer, self._files.enter_context(logged.open("a", encoding="utf-8"))

    def _note(self, point: Point) -> None:
        self._seen.update((point.step, name) for name in point.values)

    @contextmanager
    def _forgiving(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # noqa: BLE001 -- whatever becomes of its curves, the training is worth more
            self._open = None
            self._warn(f"its curves are not written any more: {error}")


def _points(logged: Path) -> Sequence[Point]:
    """What was logged, up to the first line that is not whole."""
    points: list[Point] = []
    for line in logged.read_text(encoding="utf-8").splitlines() if logged.exists() else ():
        try:
            points.append(Point(**json.loads(line)))
        except (ValueError, TypeError):
            break
    return points


def _line(point: Point) -> str:
    return json.dumps(asdict(point)) + "\n"
