"""What a training logs is drawn: each step once, also by a training that goes on, and never at the price of one."""

from __future__ import annotations

import resource
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
from tensorboard.compat.proto.event_pb2 import Event

from recipe_engine.curves import EVENTS_FILE, LOGGED_FILE, WRITERS, Curves, chosen_writers


def read_curves(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Name of each curve -> its steps and values, as TensorBoard's own reader finds them."""
    found: dict[str, list[tuple[int, float]]] = {}
    for raw in RawEventFileLoader(str(folder / EVENTS_FILE)).Load():
        event = Event.FromString(raw)
        for value in event.summary.value:
            found.setdefault(value.tag, []).append((event.step, value.simple_value))
    return found


def no_warning(text: str) -> None:
    raise AssertionError(text)


def test_each_number_is_a_point(tmp_path: Path) -> None:
    curves = Curves(tmp_path / "run" / "train", tmp_path, no_warning)
    curves.add(1, {"loss": 2.5, "grad_norm": 0.5})
    curves.add(2, {"loss": float("nan")})
    assert read_curves(tmp_path / "run" / "train")["loss"][0] == (1, 2.5), "before the file is closed"
    curves.add(3, {"loss": 1.25})
    curves.close()
    found = read_curves(tmp_path / "run" / "train")
    assert found["grad_norm"] == [(1, 0.5)]
    assert [step for step, _ in found["loss"]] == [1, 2, 3]
    assert found["loss"][2] == (3, 1.25)


def test_a_training_that_goes_on_begins_with_what_was_logged(tmp_path: Path) -> None:
    first = Curves(tmp_path / "first", tmp_path, no_warning)
    for step in (1, 2, 3):
        first.add(step, {"loss": 4.0 - step})
    first.close()
    with (tmp_path / LOGGED_FILE).open("a", encoding="utf-8") as file:
        file.write('{"step": 4, "at"')  # the process was killed in the middle of a line
    times = [
        Event.FromString(raw).wall_time for raw in RawEventFileLoader(str(tmp_path / "first" / EVENTS_FILE)).Load()
    ]
    for name in ("second", "third"):
        again = Curves(tmp_path / name, tmp_path, no_warning)
        for step in (3, 4, 5):  # from the checkpoint of step 2
            again.add(step, {"loss": 4.0 - step})
        again.close()
        assert read_curves(tmp_path / name) == {"loss": [(step, 4.0 - step) for step in (1, 2, 3, 4, 5)]}
        found = [
            Event.FromString(raw).wall_time for raw in RawEventFileLoader(str(tmp_path / name / EVENTS_FILE)).Load()
        ]
        assert found[1:4] == times[1:4], "steps keep the time at which they were logged"


def test_a_number_that_was_not_logged_of_a_step_is_added(tmp_path: Path) -> None:
    curves = Curves(tmp_path / "curves", tmp_path, no_warning)
    curves.add(1, {"loss": 1.0})
    curves.add(1, {"loss": 1.0, "eval_loss": 2.0})
    curves.close()
    assert read_curves(tmp_path / "curves") == {"loss": [(1, 1.0)], "eval_loss": [(1, 2.0)]}


def test_a_disk_that_is_full_is_told_once(tmp_path: Path) -> None:
    warnings: list[str] = []
    curves = Curves(tmp_path / "curves", tmp_path, warnings.append)
    curves.add(1, {"loss": 1.0})
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200, before[1]))
    try:
        for step in range(2, 20):
            curves.add(step, {"loss": 1.0})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    curves.close()
    assert warnings == ["its curves are not written any more: [Errno 27] File too large"]


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    warnings: list[str] = []
    (tmp_path / "run").write_text("no folder")
    curves = Curves(tmp_path / "run" / "train", tmp_path, warnings.append)
    curves.add(1, {"loss": 1.0})
    curves.close()
    assert len(warnings) == 1
    assert warnings[0].startswith("its curves are not written any more: [Errno 20] Not a directory: ")


def test_no_training_stack_is_imported(tmp_path: Path) -> None:
    code = f"""
        import sys
        from pathlib import Path
        from recipe_engine.curves import Curves
        curves = Curves(Path({str(tmp_path / "curves")!r}), Path({str(tmp_path)!r}), print)
        curves.add(1, {{"loss": 1.0}})
        curves.close()
        print(sorted({{"torch", "tensorflow", "transformers", "huggingface_hub"}} & sys.modules.keys()))
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, check=True, text=True)
    assert (done.stdout, done.stderr) == ("[]\n", "")
    assert read_curves(tmp_path / "curves") == {"loss": [(1, 1.0)]}


@pytest.mark.parametrize(
    ("options", "found"),
    [({}, ()), ({"report_to": []}, ()), ({"report_to": ["tensorboard"]}, ("tensorboard",))],
)
def test_who_is_reported_to(options: dict[str, object], found: tuple[str, ...]) -> None:
    assert chosen_writers(options) == found
    assert set(found) <= set(WRITERS)
