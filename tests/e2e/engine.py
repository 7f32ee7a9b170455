"""The real command in processes of its own, on a model that fits into a glance."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from importlib.resources import files
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator
from tests import tiny
from tests.leaks import PROBE

COMMAND = str(Path(sys.executable).with_name("recipe"))
# A process in a mount namespace of its own can have a disk of its own, and leaves nothing behind.
UNSHARE = ("unshare", "--mount") if os.geteuid() == 0 else ("unshare", "--mount", "--map-root-user")
# What a developer's shell may hold and a test must not see.
_FOREIGN = ("RECIPE_", "HF_TOKEN", "PIP_", "NO_COLOR", "FORCE_COLOR", "TTY_")
ROWS = 32
SECRET = PROBE
NODES = (
    *("resolve", "tokenizer", "prepare.train", "prepare.eval", "load"),
    *("evaluate.perplexity@base", "answers.eval-8x32@base", "evaluate.exact_match@base", "evaluate.samples@base"),
    *("adapt", "train"),
    *("evaluate.perplexity@result", "answers.eval-8x32@result"),
    *("evaluate.exact_match@result", "evaluate.samples@result"),
    "push.folder",
)
RECIPE = """\
version = 1
name = "tiny"
seed = 7
threads = 1
device = "cpu"

[model]
base = "file:model"

[data.train]
source = "file:rows.jsonl"
split = "train[:24]"
format = "instruction"

[data.eval]
source = "file:rows.jsonl"
split = "train[24:]"
format = "instruction"

[load.full]
dtype = "float32"

[adapt.lora]
rank = 4
alpha = 8

[train.sft]
epochs = 2
batch_size = 8
learning_rate = 1e-3
warmup_ratio = 0.1
checkpoint_steps = 3

[evaluate.perplexity]

[evaluate.exact_match]
max_new_tokens = 8

[evaluate.samples]
count = 2
max_new_tokens = 8

[push.folder]
path = "export"
"""


OBSERVER = """
import os
from pathlib import Path
from recipe_engine.hookmark import hookimpl

def note(line):
    with Path(os.environ["TRANSCRIPT"]).open("a") as file:
        file.write(line + "\\n")

def call(name, node, **more):
    given = "".join(f" {key}={value}" for key, value in more.items())
    key = "key" if node.key else "no key"
    note(f"{name} {node.id} [{node.stage}.{node.instance} {node.method}, {key}]{given}")

@hookimpl
def recipe_before_stage(node):
    call("recipe_before_stage", node)

@hookimpl
def recipe_after_stage(node, artifact, metrics):
    call("recipe_after_stage", node, artifact="sha256" if artifact else "none", metrics=",".join(sorted(metrics)))

@hookimpl
def recipe_stage_failed(node, error):
    call("recipe_stage_failed", node, error=type(error).__name__)

@hookimpl
def recipe_metrics_logged(node, step, metrics):
    call("recipe_metrics_logged", node, step=step, metrics=",".join(sorted(metrics)))
"""


@dataclass(frozen=True)
class Finished:
    """A command that has ended."""

    code: int
    out: str
    err: str
    seconds: float = 0.0

    @cached_property
    def events(self) -> list[dict[str, Any]]:
        """Standard output as one JSON object a line."""
        events = [json.loads(line) for line in self.out.splitlines()]
        for event in events:
            assert_output("run_event", event)
        return events

    @property
    def result(self) -> dict[str, Any]:
        """The last event."""
        return self.events[-1]

    def said(self, code: int) -> str:
        """Standard error, once the exit code is the right one and no traceback is in it."""
        assert self.code == code, self.out + self.err
        assert "Traceback" not in self.err
        return self.err


@dataclass
class Workspace:
    """A folder with a recipe, a model, data and a registry.

    Attributes:
        folder: where commands are given.
        variables: that they see besides.
        before: what stands in front of each command.
    """

    folder: Path
    variables: dict[str, str] = field(default_factory=dict)
    before: tuple[str, ...] = ()

    @property
    def home(self) -> Path:
        """The registry."""
        return Path(self.variables.get("RECIPE_HOME", str(self.folder / "home")))

    @property
    def recipe_file(self) -> Path:
        """The recipe."""
        return self.folder / "tiny.toml"

    def edit(self, old: str, new: str) -> None:
        """Change the recipe; what is replaced must be there."""
        self.edit_file(self.recipe_file.name, old, new)

    def append(self, text: str) -> None:
        """Add to the recipe."""
        with self.recipe_file.open("a", encoding="utf-8") as file:
            file.write("\n" + text)

    def edit_file(self, name: str, old: str, new: str) -> None:
        """Change a file; what is replaced must be there."""
        file = self.folder / name
        text = file.read_text(encoding="utf-8")
        assert old in text
        file.write_text(text.replace(old, new), encoding="utf-8")

    def environment(self) -> dict[str, str]:
        """Of every command that is started here."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN)}
        fixed = {"RECIPE_HOME": str(self.home), "OMP_NUM_THREADS": "1", "TMPDIR": str(self.folder)}
        # Where there is a Hub, the test says who asks it.
        token = {} if "HF_ENDPOINT" in self.variables else {"HF_TOKEN": SECRET}
        return kept | fixed | token | self.variables

    def recipe(self, *arguments: str, stdin: str = "") -> Finished:
        """Give a command and wait for its end."""
        started = time.perf_counter()
        done = subprocess.run(
            [*self.before, COMMAND, *arguments],
            cwd=self.folder,
            env=self.environment(),
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        return Finished(done.returncode, done.stdout, done.stderr, time.perf_counter() - started)

    def run(self, *arguments: str, recipe: str = "tiny.toml") -> Finished:
        """``recipe run --json``, which must succeed."""
        done = self.recipe("run", "--json", recipe, *arguments)
        assert done.code == 0, done.err
        return done

    def start(self, *arguments: str) -> Running:
        """``recipe run --json`` without waiting for its end."""
        process = subprocess.Popen(
            [*self.before, COMMAND, "run", "--json", "tiny.toml", *arguments],
            cwd=self.folder,
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        return Running(process)

    def last_record(self) -> dict[str, Any]:
        """``run.json`` of the newest run."""
        newest = max((self.home / "runs").glob("*/run.json"))
        record: dict[str, Any] = json.loads(newest.read_bytes())
        return record

    def leftovers(self) -> list[str]:
        """Staging directories, and files that were being written."""
        staged = [path.name for path in (self.home / "tmp").glob("*") if path.name != ".lock"]
        return [*staged, *(path.name for path in self.home.rglob("*.tmp"))]

    def checkpoints(self) -> list[str]:
        """Checkpoints in work areas."""
        return sorted(path.name for path in (self.home / "work").glob("*/step-*"))


@dataclass
class Running:
    """A command under way, its events read as they come."""

    process: subprocess.Popen[str]
    seen: list[dict[str, Any]] = field(default_factory=list)

    def events(self) -> Iterator[dict[str, Any]]:
        """Each event, once."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            event = json.loads(line)
            self.seen.append(event)
            yield event

    def until(self, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The next event of that kind."""
        for event in self.events():
            if wanted(event):
                return event
        raise AssertionError(f"it ended before that: {self.seen[-2:]} {self.finish().err}")

    def until_started(self, node: str) -> None:
        """Wait until a node is under way."""
        self.until(lambda event: event["type"] == "node_started" and event["node"] == node)

    def workers(self) -> list[int]:
        """Worker processes of this run that are alive."""
        return [pid for pid in self.children() if "recipe_engine.runners.worker" in _command_line(pid)]

    def children(self) -> list[int]:
        """All processes that this run has started and that are alive."""
        return _children(self.process.pid)

    def signal(self, number: int) -> None:
        """Send a signal to the command alone."""
        self.process.send_signal(number)

    def finish(self) -> Finished:
        """Wait for the end; what is still unread goes into the result."""
        timer = threading.Timer(60, self.process.kill)
        timer.start()
        try:
            rest = list(self.events())
            del rest
            assert self.process.stderr is not None
            errors = self.process.stderr.read()
            code = self.process.wait()
        finally:
            timer.cancel()
            for stream in (self.process.stdout, self.process.stderr):
                if stream is not None:
                    stream.close()
        assert SECRET not in json.dumps(self.seen) + errors
        return Finished(code, "".join(json.dumps(event) + "\n" for event in self.seen), errors)


def write_workspace(folder: Path, model: Path | None = None, *, rows: int = ROWS, **model_options: Any) -> Workspace:
    """A folder that a recipe can be run in.

    Args:
        folder: it is made.
        model: a model folder to link to; one is written where left out.
        rows: how many.
        **model_options: of :func:`tests.tiny.write_model`.
    """
    folder.mkdir(parents=True)
    if model is None:
        tiny.write_model(folder / "model", **model_options)
    else:
        (folder / "model").symlink_to(model)
    tiny.write_jsonl(folder / "rows.jsonl", tiny.instruction_rows(rows))
    (folder / "tiny.toml").write_text(RECIPE, encoding="utf-8")
    return Workspace(folder)


def disk(home: Path, options: str) -> tuple[str, ...]:
    """What gives a command a disk of its own under the registry."""
    home.mkdir(exist_ok=True)
    return (*UNSHARE, "sh", "-c", f'mount {options} "$0" && exec "$@"', str(home))


def write_plugin(folder: Path, module: str, code: str) -> dict[str, str]:
    """An installed plugin: a module and its metadata in a folder; the variables that make it seen."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{module}.py").write_text(code, encoding="utf-8")
    metadata = folder / f"{module}-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n", encoding="utf-8")
    (metadata / "entry_points.txt").write_text(f"[recipe_engine.plugins]\n{module} = {module}\n", encoding="utf-8")
    (metadata / "RECORD").write_text(f"{module}.py,,\n", encoding="utf-8")
    return {"PYTHONPATH": str(folder)}


@cache
def _schema() -> dict[str, Any]:
    schema: dict[str, Any] = json.loads((files("recipe_engine.cli") / "output.schema.json").read_text(encoding="utf-8"))
    return schema


@cache
def _validator(name: str) -> Draft202012Validator:
    return Draft202012Validator({**_schema(), "$ref": f"#/$defs/{name}"})


def assert_output(name: str, value: Any) -> None:
    """The value is what the shipped schema says of this output."""
    errors = [f"{error.json_path}: {error.message}" for error in _validator(name).iter_errors(value)]
    assert errors == [], value


def observed(workspace: Workspace) -> Path:
    """Have every call of a lifecycle hook written down; the file."""
    transcript = workspace.folder / "transcript"
    workspace.variables |= write_plugin(workspace.folder / "observer", "observer", OBSERVER)
    workspace.variables["TRANSCRIPT"] = str(transcript)
    return transcript


def digests(result: Mapping[str, Any]) -> dict[str, str]:
    """Node -> digest of its artifact."""
    return {node["id"]: node["artifact"]["digest"] for node in result["nodes"] if node["artifact"]}


def statuses(result: Mapping[str, Any]) -> dict[str, str]:
    """Node -> ``ran`` or ``cached``."""
    return {node["id"]: node["status"] for node in result["nodes"]}


def ran(result: Mapping[str, Any]) -> list[str]:
    """The nodes that were not taken from the registry."""
    return [node for node, status in statuses(result).items() if status == "ran"]


def is_alive(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


def wait_until_gone(pids: Sequence[int], seconds: float = 5.0) -> list[int]:
    """Those processes that are still there after a while; they are ended."""
    deadline = time.monotonic() + seconds
    while (left := [pid for pid in pids if is_alive(pid)]) and time.monotonic() < deadline:
        time.sleep(0.02)
    for pid in left:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return left


def _children(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task")
    found = []
    for task in tasks.glob("*/children"):
        with contextlib.suppress(OSError):
            found += [int(child) for child in task.read_text(encoding="ascii").split()]
    return found


def _command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""
