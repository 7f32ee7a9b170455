"""Keys and work areas."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from recipe_registry import Artifact, ArtifactStore, KeyRecord, NewerFormat, RegistryError, locks
from recipe_registry.keys import read_link

if TYPE_CHECKING:
    from tests.unit.registry.scenario import Spawn

KEY = f"sha256:{'ab' * 32}"
OTHER = f"sha256:{'cd' * 32}"
Make = Callable[[dict[str, bytes]], Artifact]
HOLD = """
import sys, time
from pathlib import Path
from recipe_registry import ArtifactStore
with ArtifactStore(Path(sys.argv[1])).work_area(sys.argv[2]) as area:
    (area / "checkpoint").write_text("step 7")
    print("held", flush=True)
    sys.stdin.read()
"""


def remember(store: ArtifactStore, artifact: Artifact, node: str = "train") -> None:
    store.record_key(KEY, artifact.digest, node=node, run="r", components={"seed": 1}, facts={"loss": float("nan")})


def test_a_key_leads_to_its_artifact(store: ArtifactStore, make: Make) -> None:
    assert store.lookup(KEY) is None
    made = make({"x": b"x"})
    remember(store, made)
    assert store.lookup(KEY.removeprefix("sha256:")) == KeyRecord(
        KEY, made.digest, "train", "r", {"seed": 1}, {"loss": "nan"}
    )


def test_a_key_record_is_never_overwritten(store: ArtifactStore, make: Make, home: Path) -> None:
    remember(store, make({"x": b"x"}))
    before = (home / "keys" / f"{'ab' * 32}.json").read_bytes()
    remember(store, make({"x": b"another result"}), node="other")
    assert (home / "keys" / f"{'ab' * 32}.json").read_bytes() == before


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"\xff", b'{"schema_version": 1}', b'{"schema_version": true}'],
)
def test_a_torn_record_is_unknown_and_can_be_made_again(
    store: ArtifactStore, make: Make, home: Path, content: bytes
) -> None:
    made = make({"x": b"x"})
    remember(store, made)
    (home / "keys" / f"{'ab' * 32}.json").write_bytes(content)
    assert store.lookup(KEY) is None
    remember(store, made)
    assert store.lookup(KEY) is not None


@pytest.mark.parametrize(
    "change",
    [
        {"key": "sha256:" + "00" * 32},
        {"artifact": 5},
        {"artifact": "x"},
        {"components": []},
        {"facts": 1},
        {"run": 1},
    ],
)
def test_a_record_of_something_else_is_unknown(
    store: ArtifactStore, make: Make, home: Path, change: dict[str, object]
) -> None:
    remember(store, make({"x": b"x"}))
    path = home / "keys" / f"{'ab' * 32}.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    assert store.lookup(KEY) is None


def test_a_key_without_its_artifact_is_unknown(store: ArtifactStore, make: Make, home: Path) -> None:
    made = make({"x": b"x"})
    remember(store, made)
    made.path.rename(home / "gone")
    assert store.lookup(KEY) is None


def test_a_newer_record_is_refused_and_kept(store: ArtifactStore, make: Make, home: Path) -> None:
    made = make({"x": b"x"})
    path = home / "keys" / f"{'ab' * 32}.json"
    path.parent.mkdir()
    path.write_text('{"schema_version": 2}')
    with pytest.raises(NewerFormat):
        store.lookup(KEY)
    with pytest.raises(NewerFormat):
        remember(store, made)
    assert path.read_text() == '{"schema_version": 2}'


def test_a_work_area_outlives_its_use_until_it_is_dropped(store: ArtifactStore, home: Path) -> None:
    with store.work_area(KEY) as area:
        assert area == home / "work" / ("ab" * 32)
        (area / "checkpoint").write_text("step 7")
    with store.work_area(KEY) as area:
        assert (area / "checkpoint").read_text() == "step 7"
        store.drop_work_area(KEY)
        assert not area.exists()
    with store.work_area(KEY):
        pass
    store.drop_work_area(KEY)
    store.drop_work_area(KEY)
    assert list((home / "work").iterdir()) == []


def test_the_second_waits_until_the_first_is_killed(store: ArtifactStore, home: Path, spawn: Spawn) -> None:
    first = spawn(HOLD, home, KEY)
    assert first.stdout is not None
    assert first.stdout.readline() == "held\n"
    store.drop_work_area(KEY)
    assert (home / "work" / ("ab" * 32) / "checkpoint").exists()
    waited: list[float] = []

    def on_wait() -> None:
        waited.append(time.monotonic())
        threading.Timer(0.3, first.send_signal, [signal.SIGKILL]).start()

    with store.work_area(KEY, on_wait) as area:
        assert time.monotonic() - waited[0] > 0.2
        assert (area / "checkpoint").read_text() == "step 7"
    assert len(waited) == 1
    assert first.wait() == -signal.SIGKILL
    first.communicate()


def test_a_waiter_gets_a_new_area_if_the_holder_drops_it(store: ArtifactStore, home: Path) -> None:
    other = ArtifactStore(home)
    waiting, got = threading.Event(), threading.Event()

    def wait() -> None:
        with other.work_area(KEY, waiting.set) as area:
            assert list(area.iterdir()) == [area / ".lock"]
            got.set()

    with store.work_area(KEY) as area:
        (area / "checkpoint").write_text("step 7")
        thread = threading.Thread(target=wait)
        thread.start()
        assert waiting.wait(5)
        store.drop_work_area(KEY)
        assert not got.is_set()
    thread.join(5)
    assert got.is_set()


def test_two_that_drop_their_areas_never_meet(store: ArtifactStore, home: Path) -> None:
    failures: list[Exception] = []

    def work(own: ArtifactStore) -> None:
        try:
            for _ in range(100):
                with own.work_area(KEY) as area:
                    (area / "mine").touch(exist_ok=False)
                    own.drop_work_area(KEY)
                own.drop_work_area(KEY)
        except (OSError, RegistryError) as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=[ArtifactStore(home)]) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failures == []
    assert list((home / "tmp").iterdir()) == []


def test_an_interrupted_wait_ends_and_leaks_nothing(store: ArtifactStore, home: Path) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    descriptors = len(list(Path("/proc/self/fd").iterdir()))
    with (
        store.work_area(KEY),
        pytest.raises(KeyboardInterrupt),
        ArtifactStore(home).work_area(KEY, interrupt),
    ):
        pass
    assert len(list(Path("/proc/self/fd").iterdir())) == descriptors


def test_a_lock_whose_file_was_replaced_protects_nothing(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    descriptor = locks.acquire(path)
    path.unlink()
    path.touch()
    assert locks.acquire_if_free(path) is not None
    os.close(descriptor)


def test_staging_of_the_dead_is_cleared_and_of_the_living_kept(store: ArtifactStore, home: Path, spawn: Spawn) -> None:
    store.discard_staging()
    assert not home.exists()
    code = (
        "import sys; from pathlib import Path; from recipe_registry import ArtifactStore\n"
        "s = ArtifactStore(Path(sys.argv[1])).stage('s'); (s / 'x').write_text('x')\n"
        "print(s, flush=True); sys.stdin.read()"
    )
    dead, alive = spawn(code, home), spawn(code, home)
    assert dead.stdout is not None
    assert alive.stdout is not None
    dead_path, alive_path = Path(dead.stdout.readline().strip()), Path(alive.stdout.readline().strip())
    dead.kill()
    dead.communicate()
    (home / "tmp" / "stray").write_text("")
    mine = store.stage("mine")
    ArtifactStore(home).discard_staging()
    assert (dead_path.exists(), alive_path.exists(), mine.exists()) == (False, True, True)
    alive.communicate("")
    store.discard_staging()
    assert (alive_path.exists(), mine.exists()) == (False, True)


@pytest.mark.parametrize("content", ["{", '{"schema_version": 1}', '{"schema_version": 1, "artifact": "x"}', None])
def test_a_link_that_leads_nowhere_is_none(tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "key.json"
    if content is not None:
        file.write_text(content)
    assert read_link(str(file)) is None


def test_a_link_is_an_artifact_and_what_the_record_names(tmp_path: Path) -> None:
    file = tmp_path / "key.json"
    file.write_text(json.dumps({"schema_version": 1, "artifact": KEY, "inputs": [OTHER]}))
    assert read_link(str(file)) == (KEY, (KEY, OTHER))
