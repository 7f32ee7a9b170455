"""``push.hub`` and ``hub:`` in a process whose environment the client could still read: a command and an answer a line.

The process stays, so that a test costs no start of Python and of the client.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

ROOT = Path(__file__).parents[2]


@dataclass
class Done:
    """What came of a command.

    Attributes:
        value: what the method returned.
        error: class, message and hint of what it raised; empty where it did not.
        messages: lines for people.
        progress: (done, total, unit) of each report.
    """

    value: Any = None
    error: dict[str, str] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)
    progress: list[tuple[int, int, str]] = field(default_factory=list)


class Driver:
    """Runs ``push.hub`` and ``hub:`` elsewhere.

    Args:
        variables: of the environment.
        folder: where the process works.
        before: what stands in front of the command.
    """

    def __init__(self, variables: Mapping[str, str], folder: Path, before: Sequence[str] = ()) -> None:
        self.environment = {**os.environ, **variables, "PYTHONPATH": str(ROOT)}
        self.folder = folder
        self.before = before

    def __enter__(self) -> Self:
        self._said = tempfile.TemporaryFile("w+")
        self._process = subprocess.Popen(
            [*self.before, sys.executable, "-m", "tests.hub.driver"],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            text=True,
        )
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait(10)
        self._said.seek(0)
        said = self._said.read()
        self._said.close()
        assert said == "", "the client is to say nothing to people"

    def __call__(self, action: str, files: Path, token: str = "", **options: Any) -> Done:
        """Call a method of ``PushHub``, or ``fetch`` of ``HubSource``.

        Args:
            action: ``check``, ``is_current`` or ``push``; ``fetch``.
            files: a folder; all that is in it is the payload, or what is fetched goes there.
            token: in the environment of the client.
            **options: of the method; of a fetch, what belongs to the request: reference, kind, revision.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        asked = {"action": action, "files": str(files), "token": token, "options": options}
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        answer = Done(**json.loads(self._process.stdout.readline()))
        answer.progress = [(done, total, unit) for done, total, unit in answer.progress]
        return answer


def _answer(asked: dict[str, Any]) -> Done:
    from tests.tiny import Recorder

    from recipe_engine.errors import RecipeError
    from recipe_engine.methods import hub_client

    hub_client._WAITS_SECONDS = (0,) * 4
    os.environ["HF_TOKEN"] = asked["token"]
    reporter = Recorder()
    done = Done(messages=reporter.messages, progress=reporter.progressed)
    act = _fetch if asked["action"] == "fetch" else _publish
    try:
        done.value = act(asked, reporter)
    except RecipeError as error:
        done.error = {"type": type(error).__name__, "message": error.message, "hint": error.hint}
    return done


def _publish(asked: dict[str, Any], reporter: Any) -> Any:
    from recipe_engine.contract import PushRequest
    from recipe_engine.methods.options import PushHub as Options
    from recipe_engine.methods.push_hub import PushHub

    folder = Path(asked["files"])
    with tempfile.TemporaryDirectory() as work:
        request = PushRequest(
            name="tiny",
            options=Options(**asked["options"]),
            folder=Path.cwd(),
            files={path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()},
            digest="sha256:0",
            work=Path(work),
            reporter=reporter,
        )
        return getattr(PushHub(), asked["action"])(request)


def _fetch(asked: dict[str, Any], reporter: Any) -> dict[str, str]:
    """Name -> sha256 of what was fetched."""
    from recipe_engine.contract import SourceRequest
    from recipe_engine.methods.sources.hub import HubSource

    request = SourceRequest(folder=Path.cwd(), cache=Path(asked["files"]), **asked["options"])
    return {file.path: file.sha256 for file in HubSource().fetch(request, reporter).files}


if __name__ == "__main__":
    for line in sys.stdin:
        print(json.dumps(vars(_answer(json.loads(line)))), flush=True)
