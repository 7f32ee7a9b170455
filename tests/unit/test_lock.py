"""What names stand for: packages, the machine, and files of this machine."""

from __future__ import annotations

import hashlib
import os
import re
import socket
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Literal

import pytest
from tests.unit.written import SMALL, TRAIN, builtins, composed, recipe_of, small_inputs

from recipe_engine.contract import Reporter, ResolvedSource, SourceFile, SourceRequest
from recipe_engine.descriptors import Source
from recipe_engine.errors import StageFailed, UnfitEnvironment, UnresolvedInput
from recipe_engine.hookmark import hookimpl
from recipe_engine.lock import (
    Hardware,
    check_unchanged,
    hardware,
    package_identity,
    packages_identity,
    peek,
    physical_cores,
    resolve,
    source_requests,
)
from recipe_engine.methods.sources.file import FileSource
from recipe_engine.plugins import load_catalogue

RECORD = """\
pkg/__init__.py,sha256=aaaa,10
pkg/kernels.so,sha256=bbbb,2000
pkg-1.0.dist-info/METADATA,sha256=cccc,50
"""
OF_ONE_INSTALLATION = """\
../../../bin/pkg,sha256=dddd,200
pkg/__pycache__/__init__.cpython-311.pyc,,
pkg-1.0.dist-info/INSTALLER,sha256=eeee,4
pkg-1.0.dist-info/REQUESTED,sha256=ffff,0
pkg-1.0.dist-info/direct_url.json,sha256=abab,90
"""


class Absent:
    """The source of a plugin, and its bug."""

    def peek(self, request: SourceRequest) -> ResolvedSource:
        raise LookupError(request.name)

    def fetch(self, request: SourceRequest, reporter: Reporter) -> ResolvedSource:
        raise LookupError(request.name)


class Share:
    """A plugin."""

    __name__ = "share"

    @hookimpl
    def recipe_sources(self) -> list[Source]:
        code = f"{__name__}:Absent"
        return [Source(scheme="nfs", summary="s", example="nfs:a", check=lambda _name: "", implementation=code)]


def test_a_bug_of_a_source_names_its_plugin(tmp_path: Path) -> None:
    catalogue = load_catalogue([Share()], entry_points=False)
    recipe = recipe_of('version = 1\nname = "x"\n[model]\nbase = "nfs:a"\n[load.full]\n', catalogue=catalogue)
    for ask in (peek, partial(resolve, reporter=Silent())):
        with pytest.raises(StageFailed, match="LookupError: a") as failed:
            ask(recipe, catalogue, tmp_path)
        assert failed.value.hint == "This is a bug of the plugin share, not of the recipe."


class Silent:
    """A reporter that nobody listens to."""

    def progress(self, done: int, total: int, unit: str) -> None:
        pass

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        pass

    def message(self, text: str) -> None:
        pass

    def stop_requested(self) -> bool:
        return False


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of installed packages; identities are forgotten afterwards."""
    monkeypatch.syspath_prepend(tmp_path / "site")
    package_identity.cache_clear()
    yield tmp_path / "site"
    package_identity.cache_clear()


def install(site: Path, record: str) -> Mapping[str, str]:
    """The identity of a package with this record, installed in place of the former."""
    info = site / "a_package_of_this_test-1.0.dist-info"
    info.mkdir(parents=True, exist_ok=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: a-package-of-this-test\nVersion: 1.0\n")
    (info / "RECORD").write_text(record)
    package_identity.cache_clear()
    return package_identity("a-package-of-this-test")


def test_a_package_is_known_by_its_version_and_the_hash_of_its_record(site: Path) -> None:
    lines = b"".join(line.encode() + b"\n" for line in sorted(RECORD.splitlines()))
    assert install(site, RECORD) == {"version": "1.0", "record_sha256": hashlib.sha256(lines).hexdigest()}


def test_what_differs_between_installations_of_one_build_does_not_count(site: Path) -> None:
    known = install(site, RECORD)
    assert install(site, RECORD + OF_ONE_INSTALLATION) == known
    assert install(site, "\n".join(reversed(RECORD.splitlines()))) == known


def test_another_build_of_one_version_is_another_package(site: Path) -> None:
    known = install(site, RECORD)
    other = install(site, RECORD.replace("bbbb", "b0b0"))
    assert other["version"] == known["version"]
    assert other["record_sha256"] != known["record_sha256"]


def test_a_package_that_is_missing_is_named() -> None:
    with pytest.raises(UnfitEnvironment, match="the package no-such-package is not installed") as refused:
        package_identity("no-such-package")
    assert refused.value.hint == 'Install it: pip install "recipe-engine[run]"'


def test_packages_are_sorted() -> None:
    found = packages_identity(["pluggy", "click"])
    assert list(found) == ["click", "pluggy"]
    assert found["click"] == package_identity("click")


def has_driver() -> bool:
    return Path("/proc/driver/nvidia/version").exists()


def test_the_cpu_is_what_the_recipe_asks_for() -> None:
    found = hardware(recipe_of(SMALL, ["threads=3"]))
    assert (found.device, found.threads) == ("cpu", 3)
    assert list(found.flags) == sorted(found.flags)
    assert found.to_json() == {"device": "cpu", "threads": 3, "cpu_flags": list(found.flags)}


def test_the_instruction_sets_are_those_that_change_sums() -> None:
    flags = hardware(recipe_of(SMALL)).flags
    assert all(flag.startswith(("avx", "amx", "fma", "f16c", "asimd", "sve", "bf16", "i8mm")) for flag in flags)
    known = re.search(r"^(?:flags|Features)\s*:(.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    assert known
    assert set(flags) <= set(known[1].split())
    assert "avx2" not in known[1].split() or "avx2" in flags


def test_threads_are_the_physical_cores_where_the_recipe_says_nothing() -> None:
    recipe = recipe_of(SMALL.replace("threads = 1\n", ""))
    assert hardware(recipe).threads == physical_cores()
    assert 1 <= physical_cores() <= len(os.sched_getaffinity(0))


def test_auto_and_cuda_follow_what_is_there() -> None:
    auto, cuda = recipe_of(SMALL, ["device=auto"]), recipe_of(SMALL, ["device=cuda"])
    if hardware(auto).device == "cuda":
        assert hardware(cuda) == hardware(auto) == Hardware("cuda", 1, ())
        return
    reason = "torch .* is a build without CUDA" if has_driver() else "this machine has no NVIDIA driver"
    with pytest.raises(UnfitEnvironment, match=f"^the recipe asks for a GPU, but {reason}") as refused:
        hardware(cuda)
    assert refused.value.hint == 'Write device = "cpu".'


def request(folder: Path, reference: str, kind: Literal["model", "data"]) -> SourceRequest:
    return SourceRequest(reference=reference, folder=folder, cache=folder / "cache", kind=kind)


def source_file(path: Path) -> SourceFile:
    content = path.read_bytes()
    return SourceFile(path.name, path, hashlib.sha256(content).hexdigest(), len(content))


def test_a_data_file_is_hashed_where_it_lies(tmp_path: Path) -> None:
    folder = small_inputs(tmp_path / "recipe")
    found = FileSource().fetch(request(folder, "file:train.jsonl", "data"), Silent())
    assert found == ResolvedSource("file:train.jsonl", (source_file(folder / "train.jsonl"),))
    assert found.is_local
    assert found.local_path("train.jsonl") == folder / "train.jsonl"
    with pytest.raises(KeyError, match="eval"):
        found.local_path("eval.jsonl")


def test_of_a_model_folder_only_the_files_of_a_model_count(tmp_path: Path) -> None:
    folder = small_inputs(tmp_path / "recipe")
    for name in ("pytorch_model.bin", ".hidden.json", "README.md"):
        (folder / "model" / name).write_text("x")
    (folder / "model" / "deeper.json").mkdir()
    found = FileSource().peek(request(folder, "file:model", "model"))
    assert found is not None
    assert [file.path for file in found.files] == ["config.json", "model.safetensors", "tokenizer.json"]


def test_a_model_may_be_one_file_and_its_path_absolute(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(b"gguf")
    found = FileSource().peek(request(tmp_path / "elsewhere", f"file:{tmp_path}/m.gguf", "model"))
    assert found is not None
    assert found.files == (source_file(tmp_path / "m.gguf"),)


@pytest.mark.parametrize(
    ("reference", "kind", "says"),
    [
        ("file:none.jsonl", "data", r"file:none.jsonl: there is no .*/none.jsonl\. Paths are relative to the recipe\."),
        ("file:none", "model", r"file:none: there is no .*/none\."),
        ("file:model", "data", r"file:model: .*/model is a folder\. Name a file with one JSON row a line\."),
        ("file:empty", "model", r"file:empty: .*/empty holds no file of a model\. Expected config\.json"),
        ("file:socket", "data", r"file:socket: .*/socket is no file\. Pipes and devices have no content to pin\."),
        ("file:pipe", "data", r"file:pipe: .*/pipe is no file\."),
        (f"file:{'x' * 300}", "data", r"cannot read .*: File name too long\."),
        (
            "file:~no-such-user/a",
            "data",
            r"there is no user ~no-such-user\. A name that begins with ~ is written \./~\.",
        ),
    ],
)
def test_what_cannot_be_had_is_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reference: str, kind: Literal["model", "data"], says: str
) -> None:
    folder = small_inputs(tmp_path / "recipe")
    (folder / "empty").mkdir()
    os.mkfifo(folder / "pipe")
    monkeypatch.chdir(folder)  # a socket's path is short, or it cannot be bound
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind("socket")
        wanted = request(folder, reference, kind)
        with pytest.raises(UnresolvedInput, match=says):
            FileSource().fetch(wanted, Silent())
        with pytest.raises(UnresolvedInput, match=says):
            FileSource().peek(wanted)


def test_the_home_folder_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "rows.jsonl").write_text("x")
    assert FileSource().peek(request(tmp_path / "elsewhere", "file:~/rows.jsonl", "data")) is not None


def test_peek_and_resolve_find_the_inputs_of_a_recipe(tmp_path: Path) -> None:
    from recipe_engine.validate import validate

    folder = small_inputs(tmp_path / "recipe")
    recipe = validate(composed(SMALL, file=str(folder / "r.toml")), builtins())
    found = peek(recipe, builtins(), tmp_path / "cache")
    assert found == resolve(recipe, builtins(), tmp_path / "cache", Silent())
    assert found.is_local
    assert found.model is not None
    assert found.model.reference == "file:model"
    assert sorted(found.sources) == ["data.eval", "data.train", "model"]
    (folder / "eval.jsonl").unlink()
    for look in (peek, partial(resolve, reporter=Silent())):
        with pytest.raises(UnresolvedInput, match=r"file:eval\.jsonl: there is no"):
            look(recipe, builtins(), tmp_path / "cache")


def test_a_file_whose_bytes_are_elsewhere_is_not_local() -> None:
    known = ResolvedSource("wheel:x", (SourceFile("m.gguf", None, "aa", 0),))
    assert not known.is_local
    with pytest.raises(KeyError):
        known.local_path("m.gguf")


def test_a_data_set_called_model_is_not_the_model(tmp_path: Path) -> None:
    text = TRAIN.replace("data.train", "data.model").replace("[train.sft]", '[train.sft]\ndata = "model"')
    requests = source_requests(recipe_of(text), tmp_path)
    assert {name: request.kind for name, request in requests.items()} == {"data.model": "data", "model": "model"}


@pytest.mark.parametrize(
    ("recorded", "told"),
    [
        ({"a.jsonl": "11", "b.jsonl": "33"}, "file:rows: b.jsonl has the sha256 22, but the record says 33."),
        ({"a.jsonl": "11"}, "file:rows: b.jsonl has the sha256 22, but the record says that there was none."),
        (
            {"a.jsonl": "11", "b.jsonl": "22", "c.jsonl": "44"},
            "file:rows: there is no c.jsonl, but the record says 44.",
        ),
    ],
)
def test_an_input_that_is_not_the_recorded_one(recorded: dict[str, str], told: str) -> None:
    source = ResolvedSource("file:rows", (SourceFile("a.jsonl", None, "11", 1), SourceFile("b.jsonl", None, "22", 1)))

    def locked(files: dict[str, str]) -> dict[str, object]:
        return {"data.train": {"files": files}}

    check_unchanged(locked({"a.jsonl": "11", "b.jsonl": "22"}), {"data.train": source})
    with pytest.raises(UnresolvedInput, match=re.escape(told)):
        check_unchanged(locked(recorded), {"data.train": source})
