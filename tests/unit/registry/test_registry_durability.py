"""Killed, full, read-only or crowded: an artifact is complete, or it does not exist."""

from __future__ import annotations

import ast
import os
import signal
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.unit.registry import scenario

import recipe_registry
from recipe_registry import Registry, StoreNotWritable, durable, faults
from recipe_registry.errors import WRITE_HINTS

if TYPE_CHECKING:
    from tests.unit.registry.scenario import Spawn

PACKAGE = Path(recipe_registry.__file__).parent
FAULT_POINTS = [
    "aside.moved",
    "commit.begun",
    "commit.durable",
    "commit.lost",
    "commit.renamed",
    "commit.sealed",
    "commit.synced",
    "directory.made",
    "empty.created",
    "empty.durable",
    "file.created",
    "file.durable",
    "file.replaced",
    "file.synced",
    "file.written",
    "line.opened",
    "line.written",
    "place.replaced",
    "place.synced",
    "tree.removed",
    "tree.removing",
]
# Of the index: an error there never reaches who saves a run.
INDEX_FAULT_POINTS = ["index.begun", "index.committed", "index.noted"]
# A process in a mount namespace of its own can have a small or read-only disk, and leaves nothing behind.
UNSHARE = ("unshare", "--mount") if os.geteuid() == 0 else ("unshare", "--mount", "--map-root-user")


def calls(tree: ast.AST) -> list[ast.Call]:
    return [node for node in ast.walk(tree) if isinstance(node, ast.Call)]


def test_every_fault_point_of_the_source_is_tested() -> None:
    names = [
        call.args[0].value
        for path in PACKAGE.glob("*.py")
        for call in calls(ast.parse(path.read_text()))
        if isinstance(call.func, ast.Name) and call.func.id == "fault_point" and isinstance(call.args[0], ast.Constant)
    ]
    # The scenario of this module neither collects garbage nor takes anything in.
    others = ["all.moved", "fill.written"]
    assert sorted(names) == sorted([*FAULT_POINTS, *INDEX_FAULT_POINTS, *others])  # type: ignore[type-var]


def test_only_one_module_writes() -> None:
    writers = {
        "write_text",
        "write_bytes",
        "unlink",
        "rename",
        "replace",
        "mkdir",
        "rmdir",
        "rmtree",
        "touch",
    }
    for path in PACKAGE.glob("*.py"):
        used = {
            call.func.attr
            for call in calls(ast.parse(path.read_text()))
            if isinstance(call.func, ast.Attribute)
            and not (isinstance(call.func.value, ast.Name) and call.func.value.id == "durable")
        }
        # A remote is written through fsspec; what is a folder of this machine needs a rename that replaces.
        others = {name: {"replace"} for name in ("database.py", "remote.py", "statements.py")}
        allowed = {"durable.py": writers, **others}.get(path.name, set())
        assert used & writers <= allowed, path


def assert_sound(home: Path) -> None:
    """Whatever is there is whole, and the registry can be used."""
    registry = Registry.open(home, create=False)
    for path in (home / "artifacts").glob("*"):
        registry.artifacts.get(path.name.removeprefix("sha256-"), verify=True)
    if found := registry.artifacts.lookup(scenario.KEY):
        assert registry.artifacts.get(found.artifact, verify=True).entries
    saved = {path.parent.name for path in (home / "runs").glob("*/run.json")}
    assert {run.id for run in registry.runs.list()} == saved
    for run in saved:
        list(registry.runs.events(run))


def assert_goes_on(home: Path) -> None:
    """The same work done again succeeds and leaves nothing behind."""
    scenario.main(home)
    registry = Registry.open(home)
    found = registry.artifacts.lookup(scenario.KEY)
    assert found is not None
    assert registry.artifacts.get(found.artifact, verify=True).references == (scenario.REFERENCE,)
    assert [path.name for path in (home / "tmp").iterdir()] == [".lock"]
    assert list((home / "work").iterdir()) == []
    assert registry.runs.resolve("latest").status == "succeeded"


@pytest.mark.slow
@pytest.mark.parametrize("point", [*FAULT_POINTS, *INDEX_FAULT_POINTS])
def test_killed_at_every_step(memory: Path, spawn: Spawn, point: str) -> None:
    times = 0
    while True:
        home = memory / str(times)
        process = spawn("scenario.py", home, fault=f"{point}@{times + 1}")
        _, errors = process.communicate()
        assert_sound(home)
        if process.returncode == 0:
            break
        assert (process.returncode, errors) == (-signal.SIGKILL, "")
        assert_goes_on(home)
        times += 1
    assert times


@pytest.mark.parametrize("point", FAULT_POINTS)
def test_full_disk_at_every_step(memory: Path, monkeypatch: pytest.MonkeyPatch, point: str) -> None:
    times = 0
    while (error := fill_up(monkeypatch, memory / str(times), f"{point}@{times + 1}:enospc")) is not None:
        assert "cannot be written: no space left on device. The disk is full" in str(error)
        assert error.exit_code == 4
        assert_sound(memory / str(times))
        assert not list((memory / str(times)).rglob("*.tmp"))
        times += 1
    assert times


def fill_up(monkeypatch: pytest.MonkeyPatch, home: Path, fault: str) -> StoreNotWritable | None:
    faults._passes.clear()
    with monkeypatch.context() as patch:
        patch.setenv(faults.FAULT_VARIABLE, fault)
        try:
            scenario.main(home)
        except StoreNotWritable as error:
            return error
    return None


def test_a_failed_commit_can_be_repeated(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    staging = registry.artifacts.stage("train")
    (staging / "x").write_bytes(b"x")
    faults._passes.clear()
    monkeypatch.setenv(faults.FAULT_VARIABLE, "commit.synced:enospc")
    with pytest.raises(StoreNotWritable):
        registry.artifacts.commit(staging)
    made = registry.artifacts.commit(staging)
    assert registry.artifacts.get(made.digest, verify=True) == made


FULL = """
import errno, sys
from pathlib import Path
from recipe_registry import Registry, StoreNotWritable
home = Path(sys.argv[1])
registry = Registry.open(home)
run = registry.runs.new_id()
staging = registry.artifacts.stage("train")
try:
    with (staging / "big").open("wb", buffering=0) as file:
        while True:
            file.write(b"x" * 4096)
except OSError as error:
    assert error.errno == errno.ENOSPC
try:
    registry.artifacts.commit(staging)
except StoreNotWritable as error:
    print(error)
assert not list((home / "artifacts").iterdir())
(staging / "big").write_bytes(b"")
made = registry.artifacts.commit(staging)
assert registry.artifacts.get(made.digest, verify=True).size == 0
"""

READ_ONLY = """
import subprocess, sys
from pathlib import Path
from recipe_registry import Registry, RunRecord, StoreNotWritable
home = Path(sys.argv[1])
registry = Registry.open(home)
run = RunRecord(registry.runs.new_id(), "demo", "succeeded", "t", "d")
registry.runs.save(run)
made = registry.artifacts.commit(registry.artifacts.stage("x"))
subprocess.run(["mount", "-o", "remount,ro", sys.argv[1]], check=True)
registry = Registry.open(home)
assert registry.runs.list() == [run] and registry.runs.resolve("latest") == run
assert registry.artifacts.get(made.digest, verify=True) == made
assert registry.artifacts.lookup("00" * 32) is None
record = dict(node="", run="", components={}, facts={})
for write in (lambda: registry.artifacts.stage("x"), lambda: registry.runs.save(run), registry.runs.new_id,
              lambda: registry.artifacts.record_key("00" * 32, made.digest, **record),
              lambda: registry.artifacts.work_area("00" * 32).__enter__(),
              lambda: registry.runs.append_event(run.id, {})):
    try:
        write()
    except StoreNotWritable as error:
        print(error)
"""


def on_own_disk(spawn: Spawn, code: str, folder: Path) -> list[str]:
    folder.mkdir()
    mount = 'mount -t tmpfs -o size=1m tmpfs "$0" && exec "$@"'
    process = spawn(code, folder, before=(*UNSHARE, "sh", "-c", mount, str(folder)))
    output, errors = process.communicate()
    assert (process.returncode, errors) == (0, "")
    return output.splitlines()


def test_a_disk_that_is_really_full(home: Path, spawn: Spawn) -> None:
    (line,) = on_own_disk(spawn, FULL, home)
    assert line.startswith(f"{home}/tmp/train-")
    assert "cannot be written: no space left on device. The disk is full: free some space" in line


def test_a_disk_that_is_really_read_only(home: Path, spawn: Spawn) -> None:
    lines = on_own_disk(spawn, READ_ONLY, home)
    assert len(lines) == 6
    assert all("cannot be written: read-only file system. The file system is read-only: point" in x for x in lines)


def test_a_folder_of_somebody_else(spawn: Spawn) -> None:
    code = (
        "import os, sys; from pathlib import Path; from recipe_registry import Registry, StoreNotWritable\n"
        "if os.geteuid() == 0: os.seteuid(65534)\n"
        "for home in map(Path, (sys.argv[1], sys.argv[1] + '/home')):\n"
        "    try: Registry.open(home)\n"
        "    except StoreNotWritable as error: print(error)\n"
        "os.seteuid(os.getuid())"
    )
    # pytest's own folders are closed to other users, which would hide the difference between the two modes.
    with tempfile.TemporaryDirectory() as folder:
        for mode in (0o555, 0o444):
            Path(folder).chmod(mode)
            output, errors = spawn(code, folder).communicate()
            assert errors == ""
            lines = output.splitlines()
            assert lines[0].startswith(folder)
            assert all("be written: permission denied. Give this user write" in line for line in lines)
            assert len(lines) == 2
        Path(folder).chmod(0o755)


def test_a_folder_that_another_process_made_is_not_in_the_way(tmp_path: Path) -> None:
    # It made it and took it away again between our attempt and our look: it was a folder, so we may try again.
    assert durable._in_the_way(tmp_path / "gone") is False
    assert durable._in_the_way(tmp_path) is False


def test_other_errors_are_not_disguised(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        durable.write_bytes(tmp_path / "missing" / "file", b"")
    with pytest.raises(IsADirectoryError):
        durable.write_bytes(tmp_path, b"")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreNotWritable, match="is a file where a folder is needed"):
        durable.make_directory(tmp_path / "file")
    (tmp_path / "dangling").symlink_to("nowhere")
    with pytest.raises(StoreNotWritable, match="is a file where a folder is needed"):
        durable.make_directory(tmp_path / "dangling")
    (tmp_path / "staging").mkdir()
    with pytest.raises(FileNotFoundError):
        durable.commit_directory(tmp_path / "staging", tmp_path / "missing" / "final")
    assert durable.move_aside(tmp_path / "missing", tmp_path / "aside") is False
    assert set(WRITE_HINTS) == {1, 13, 28, 30, 122}


def test_two_processes_commit_the_same_content_at_once(tmp_path: Path, spawn: Spawn) -> None:
    home = tmp_path / "home"
    code = (
        "import sys; from pathlib import Path; from recipe_registry import ArtifactStore\n"
        "store = ArtifactStore(Path(sys.argv[1]))\n"
        "for number in range(20):\n"
        "    s = store.stage('x'); (s / 'n').write_text(str(number)); print(store.commit(s).digest)"
    )
    outputs = [process.communicate() for process in [spawn(code, home) for _ in range(2)]]
    assert [errors for _, errors in outputs] == ["", ""]
    assert outputs[0] == outputs[1]
    assert len(list((home / "artifacts").iterdir())) == 20
    assert_sound(home)


def test_copy_file(tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"x" * (durable.CHUNK_BYTES + 1))
    for _ in range(2):
        durable.copy_file(tmp_path / "source", tmp_path / "new/folder/copy")
    assert (tmp_path / "new/folder/copy").read_bytes() == (tmp_path / "source").read_bytes()
    assert [path.name for path in (tmp_path / "new/folder").iterdir()] == ["copy"]
    with pytest.raises(FileNotFoundError):
        durable.copy_file(tmp_path / "missing", tmp_path / "copy")


def test_file_modes_do_not_depend_on_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        durable.write_json(tmp_path / "x.json", {"b": 1, "a": "é"})
    finally:
        os.umask(before)
    assert (tmp_path / "x.json").stat().st_mode & 0o777 == 0o644
    assert (tmp_path / "x.json").read_text() == '{\n  "a": "é",\n  "b": 1\n}\n'


def test_a_fault_of_another_name_does_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(faults.FAULT_VARIABLE, "other.point")
    durable.fault_point("file.synced")


def test_start_up_is_light(spawn: Spawn) -> None:
    """What is imported says it; seconds depend on what else the machine does."""
    code = (
        "import sys; before = set(sys.modules); import recipe_registry\n"
        "print(*{name.partition('.')[0] for name in set(sys.modules) - before})"
    )
    modules = set(spawn(code).communicate()[0].split())
    assert modules - set(sys.stdlib_module_names) == {"recipe_registry", "rfc8785"}
    assert modules.isdisjoint({"sqlite3", "asyncio", "http", "ssl", "subprocess"})
