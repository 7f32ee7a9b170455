"""A remote: what is visible there is whole, what is taken from there is verified."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests import s3
from tests.unit.registry import gc_scenario

from recipe_engine.errors import InvalidArguments, UnfitEnvironment
from recipe_engine.remotes import open_remote
from recipe_registry import DamagedArtifact, NewerFormat, Registry, UnknownRun
from recipe_registry.errors import DamagedRemote, RemoteUnreachable, UnknownArtifact
from recipe_registry.remote import Remote, shown
from recipe_registry.selection import select
from recipe_registry.sync import pull, pull_key, push


@pytest.fixture(scope="module")
def s3_variables() -> Iterator[dict[str, str]]:
    with s3.server() as variables:
        yield variables


@pytest.fixture
def full(home: Path) -> Registry:
    gc_scenario.fill(home)
    return Registry.open(home)


@pytest.fixture
def other(tmp_path: Path) -> Registry:
    return Registry.open(tmp_path / "other")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "remote"


@pytest.fixture
def remote(folder: Path) -> Remote:
    return open_remote(f"file://{folder}")


def assert_same(one: Registry, two: Registry) -> None:
    assert one.artifacts.digests() == two.artifacts.digests()
    assert list(one.artifacts.records()) == list(two.artifacts.records())
    assert one.runs.list() == two.runs.list()
    for digest in two.artifacts.digests():
        two.artifacts.get(digest, verify=True)


def assert_empty(registry: Registry) -> None:
    assert registry.artifacts.digests() == []
    assert list(registry.artifacts.records()) == []
    assert registry.runs.list() == []
    assert registry.artifacts.leftovers() == []


def visible(folder: Path) -> None:
    """Whatever leads somewhere leads to something whole."""
    for path in folder.glob("artifacts/*.json"):
        for entry in json.loads(path.read_bytes())["entries"]:
            blob = folder / "blobs/sha256" / entry["sha256"][:2] / entry["sha256"]
            assert blob.stat().st_size == entry["size"]
    for path in folder.glob("keys/*.json"):
        digest = json.loads(path.read_bytes())["artifact"]
        assert (folder / "artifacts" / f"{digest.replace(':', '-')}.json").exists()


@pytest.mark.parametrize("kind", ["file", "s3", "memory"])
def test_push_and_pull(
    full: Registry, tmp_path: Path, kind: str, s3_variables: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in s3_variables.items():
        monkeypatch.setenv(name, value)
    url = {"file": f"file://{tmp_path}/remote", "s3": "s3://bucket/one", "memory": "memory://one"}[kind]
    remote = open_remote(url)
    pushed = push(full, select(full), remote)
    assert (pushed.artifacts, pushed.keys, pushed.runs, pushed.there) == (8, 8, 2, 0)
    assert pushed.size > 0
    again = push(full, select(full), remote)
    assert (again.there, again.size) == (8, 0)
    other = Registry.open(tmp_path / "other")
    pulled = pull(other, open_remote(url))
    assert (pulled.artifacts, pulled.keys, pulled.runs, pulled.there) == (8, 8, 2, 0)
    assert_same(full, other)
    assert pull(other, remote).there == 8
    found = pull_key(Registry.open(tmp_path / "third"), remote, gc_scenario.key("orphan"))
    assert found is not None
    assert pull_key(other, remote, "00" * 32) is None


def test_the_layout(full: Registry, remote: Remote, folder: Path) -> None:
    push(full, select(full), remote)
    assert sorted(path.name for path in folder.iterdir()) == ["artifacts", "blobs", "format.json", "keys", "runs"]
    assert {path.stem.replace("-", ":") for path in (folder / "artifacts").iterdir()} == set(full.artifacts.digests())
    assert list(folder.rglob("*.tmp")) == []
    visible(folder)


def test_one_run(full: Registry, remote: Remote, other: Registry) -> None:
    push(full, select(full), remote)
    run = next(run for run in full.runs.list() if run.status == "succeeded")
    pulled = pull(other, remote, [run.id])
    assert (pulled.artifacts, pulled.runs) == (1, 1)
    assert other.runs.list() == [run]
    newest = max(found.id for found in full.runs.list())
    assert pull(other, remote, ["latest"]).runs == 1
    assert newest in {found.id for found in other.runs.list()}
    with pytest.raises(UnknownRun, match="2 runs begin with '2'"):
        pull(other, remote, ["2"])
    with pytest.raises(UnknownRun, match="There is no run '1999'"):
        pull(other, remote, ["1999"])


def test_one_artifact(full: Registry, remote: Remote, other: Registry) -> None:
    push(full, select(full), remote)
    digest = full.artifacts.digests()[2]
    pulled = pull(other, remote, [digest[:25]])
    assert (pulled.artifacts, pulled.keys, pulled.runs) == (1, 1, 0)
    assert other.artifacts.digests() == [digest]
    with pytest.raises(UnknownArtifact):
        pull(other, remote, ["00" * 32])


def test_a_run_that_went_on_is_pushed_again(full: Registry, remote: Remote, other: Registry) -> None:
    running = next(run for run in full.runs.list() if run.status == "running")
    push(full, select(full, [running.id]), remote)
    full.runs.append_event(running.id, {"type": "more"})
    push(full, select(full, [running.id]), remote)
    pull(other, remote, [running.id])
    assert list(other.runs.events(running.id)) == list(full.runs.events(running.id))


@pytest.mark.parametrize("place", ["blobs/sha256/*/*", "artifacts/*.json", "keys/*.json", "runs/*/manifest.json"])
def test_wrong_bytes_are_refused(full: Registry, remote: Remote, folder: Path, other: Registry, place: str) -> None:
    push(full, select(full), remote)
    for path in folder.glob(place):
        data = path.read_bytes()
        path.write_bytes(data[:-3] + b"!" + data[-2:] if len(data) > 3 else b"!" * len(data))
    with pytest.raises(DamagedRemote) as caught:
        pull(other, remote)
    assert caught.value.exit_code == 8
    assert place.partition("/")[0] in caught.value.message or "has the sha256" in caught.value.message
    assert f"file://{folder}" in caught.value.message
    assert_empty(other)


def test_a_missing_blob_is_named(full: Registry, remote: Remote, folder: Path, other: Registry) -> None:
    push(full, select(full), remote)
    for path in folder.glob("blobs/sha256/*/*"):
        path.unlink()
    with pytest.raises(DamagedRemote, match=r"/blobs/sha256/../[0-9a-f]{64} is missing"):
        pull(other, remote)
    assert_empty(other)


def test_a_damaged_artifact_is_not_pushed(full: Registry, remote: Remote, folder: Path) -> None:
    file = full.artifacts.folder(full.artifacts.digests()[0]) / "name"
    size = file.stat().st_size
    file.chmod(0o644)
    file.write_bytes(b"x" * size)
    with pytest.raises(DamagedArtifact):
        push(full, select(full), remote)
    visible(folder)


def test_a_half_uploaded_blob_is_uploaded_again(full: Registry, remote: Remote, folder: Path, other: Registry) -> None:
    push(full, select(full), remote)
    for path in (*folder.glob("artifacts/*"), *folder.glob("blobs/sha256/*/*")):
        if path.parent.name == "artifacts":
            path.unlink()
        else:
            path.write_bytes(path.read_bytes()[:2])
    push(full, select(full), remote)
    pull(other, remote)
    assert_same(full, other)


class Falling:
    """A file system that is gone after so many writes."""

    def __init__(self, file_system: object, writes: int) -> None:
        self._fs, self.writes = file_system, writes

    def __getattr__(self, name: str) -> object:
        if name in ("pipe_file", "put_file"):
            self.writes -= 1
            if self.writes < 0:
                raise ConnectionError("https://user:hunter2@host/?X-Amz-Signature=abc reset, secret_key=hunter3")
        return getattr(self._fs, name)


def test_gone_in_the_middle_of_a_push(full: Registry, remote: Remote, folder: Path, tmp_path: Path) -> None:
    """Wherever it goes, nothing can be seen that is not whole, and the next push goes on."""
    messages: list[str] = []
    writes = 0
    while True:
        falling = Remote(Falling(remote._fs, writes), str(folder), "file://remote")
        try:
            push(full, select(full), falling)
            break
        except RemoteUnreachable as error:
            messages.append(str(error))
        visible(folder)
        assert list(folder.rglob("*.tmp")) == []
        other = Registry.open(tmp_path / f"other{writes}")
        pull(other, remote)
        for record in other.artifacts.records():
            other.artifacts.get(record.artifact, verify=True)
        writes += 7
    (message,) = set(messages)
    assert "ConnectionError: https://host/?X-Amz-Signature=*** reset, secret_key=***." in message
    last = Registry.open(tmp_path / "last")
    pull(last, remote)
    assert_same(full, last)


def test_many_push_at_once(full: Registry, folder: Path, other: Registry) -> None:
    with ThreadPoolExecutor(4) as pool:
        pushes = [pool.submit(push, full, select(full), open_remote(f"file://{folder}")) for _ in range(4)]
    assert [done.result().artifacts for done in pushes] == [8] * 4
    visible(folder)
    pull(other, open_remote(f"file://{folder}"))
    assert_same(full, other)


def test_a_newer_remote(full: Registry, remote: Remote, folder: Path, other: Registry) -> None:
    folder.mkdir()
    (folder / "format.json").write_text('{"schema_version": 2}')
    with pytest.raises(NewerFormat):
        push(full, select(full), remote)
    with pytest.raises(NewerFormat):
        pull(other, remote)
    (folder / "format.json").write_text("{")
    with pytest.raises(DamagedRemote, match=r"format\.json cannot be used"):
        pull(other, remote)


def test_a_remote_that_is_not_there(full: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDprobe")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3.SECRET)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(RemoteUnreachable, match=r"^s3://bucket/x cannot be reached: ") as caught:
        push(full, select(full), open_remote("s3://bucket/x"))
    assert s3.SECRET not in str(caught.value)


def test_a_bucket_that_is_not_there(
    full: Registry, s3_variables: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in s3_variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(RemoteUnreachable, match="s3://nowhere/x cannot be reached"):
        push(full, select(full), open_remote("s3://nowhere/x"))


def test_addresses() -> None:
    assert shown("s3://key:secret@bucket/x/?token=abc#y") == "s3://bucket/x"
    assert shown("s3://key:se/cret@bucket/x") == "s3://bucket/x"
    assert shown("hf://datasets/owner/name@main/x") == "hf://datasets/owner/name@main/x"
    with pytest.raises(InvalidArguments, match="nowhere://x is the address of no kind of remote"):
        open_remote("nowhere://user:hunter2@x")


def test_a_library_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(UnfitEnvironment) as caught:
        open_remote("gs://bucket")
    assert str(caught.value) == ("gs://bucket: the library for gs:// is not installed. Install it: pip install gcsfs")
