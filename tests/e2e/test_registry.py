"""``recipe registry``: looking after a real registry, and sharing it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests import s3
from tests.e2e.engine import Finished, Workspace, assert_output, digests, disk, ran


@pytest.fixture(scope="module")
def s3_variables() -> Iterator[dict[str, str]]:
    with s3.server() as variables:
        yield variables


def registry(workspace: Workspace, *arguments: str, output: str = "", code: int = 0) -> Any:
    """``recipe registry … --json``, which prints what the schema says."""
    done = workspace.recipe("registry", *arguments, "--json")
    assert done.code == code, done.err
    value = json.loads(done.out)
    assert_output(output or f"registry_{arguments[0]}", value)
    return value


def flip(file: Path) -> None:
    data = file.read_bytes()
    file.chmod(0o644)
    file.write_bytes(bytes([data[0] ^ 1]) + data[1:])


def artifact_of(workspace: Workspace, node: str) -> str:
    listed = registry(workspace, "ls")["artifacts"]
    return str(next(item["digest"] for item in listed if item["node"] == node))


def folder_of(workspace: Workspace, digest: str) -> Path:
    return workspace.home / "artifacts" / digest.replace(":", "-")


def test_what_is_listed_and_shown(finished: Workspace) -> None:
    made = digests(finished.last_record())
    listed = registry(finished, "ls")["artifacts"]
    assert {item["digest"] for item in listed} == set(made.values())
    assert {item["node"] for item in listed} <= set(made)
    shown = registry(finished, "show", made["train"][:20])
    assert shown["digest"] == made["train"]
    assert shown["runs"] == [finished.last_record()["id"]]
    assert Path(shown["path"]).parent == finished.home / "artifacts"
    assert sum(file["bytes"] for file in shown["files"]) == shown["bytes"]
    text = finished.recipe("registry", "ls").out
    assert f"{made['train'][:19]}" in text
    assert text.splitlines()[-1].startswith(f"{len(listed)} artifacts in {finished.home}: ")
    assert "in runs " in finished.recipe("registry", "show", made["train"]).out
    assert finished.recipe("registry", "show", "sha256:00").said(2).startswith("error: There is no artifact sha256:00")


def test_a_store_that_was_moved(finished: Workspace, tmp_path: Path) -> None:
    shutil.move(finished.home, tmp_path / "elsewhere")
    finished.variables["RECIPE_HOME"] = str(tmp_path / "elsewhere")
    assert registry(finished, "verify")["damaged"] == []
    assert ran(finished.run().result) == []


@pytest.mark.slow
def test_a_result_of_another_environment_is_taken_when_asked_for(finished: Workspace) -> None:
    before = finished.last_record()
    done = finished.run("--reuse", "any-env", "--set", "threads=2")
    assert ran(done.result) == ["push.folder"]  # the recipe that goes with it has other threads
    assert digests(done.result) == digests(before)
    reused = {node["id"]: node["facts"].get("reused") for node in done.result["nodes"]}
    assert reused["train"] == {"run": before["id"], "made_with": "1 thread"}
    assert reused["tokenizer"] is None
    keys = [{node["id"]: node["key"] for node in record["nodes"]} for record in (before, finished.last_record())]
    assert keys[0] == keys[1]
    refused = finished.recipe("run", "--locked", "--reuse", "any-env", "tiny.toml").said(2)
    assert refused.startswith("error: --locked takes no result of another environment.")
    # Nothing was noted that a plain run would take.
    states = json.loads(finished.recipe("plan", "--json", "--set", "threads=2", "tiny.toml").out)["nodes"]
    assert next(node["why"] for node in states if node["id"] == "load") == "threads 1 -> 2"


@pytest.mark.slow
def test_a_flipped_byte_is_found_removed_and_made_anew(finished: Workspace) -> None:
    digest = artifact_of(finished, "train")
    flip(folder_of(finished, digest) / "adapter_model.safetensors")
    shutil.move(folder_of(finished, artifact_of(finished, "prepare.eval")) / "metrics.json", finished.folder / "lost")
    found = registry(finished, "verify", code=8)
    assert {(item["digest"] == digest, item["file"]) for item in found["damaged"]} == {
        (True, "adapter_model.safetensors"),
        (False, "metrics.json"),
    }
    done = finished.recipe("registry", "verify")
    assert done.code == 8
    assert f"{folder_of(finished, digest)}/adapter_model.safetensors has the sha256 " in done.out
    assert "verify --remove" in done.err
    assert registry(finished, "verify", digest, "--remove", code=8)["removed"] == [digest]
    assert len(registry(finished, "verify", "--remove", code=8)["removed"]) == 1
    assert registry(finished, "verify")["damaged"] == []
    # What was exported holds the same bytes, but for what the card says of the time.
    assert set(ran(finished.run().result)) == {"prepare.eval", "train"}
    assert artifact_of(finished, "train") == digest


def test_a_truncated_manifest(finished: Workspace) -> None:
    manifest = folder_of(finished, artifact_of(finished, "load")) / "manifest.json"
    manifest.chmod(0o644)
    manifest.write_bytes(manifest.read_bytes()[:30])
    (damage,) = registry(finished, "verify", code=8)["damaged"]
    assert (damage["file"], damage["problem"]) == ("manifest.json", "cannot be used: it is not JSON")
    assert [item["bytes"] for item in registry(finished, "ls")["artifacts"]].count(None) == 1


@pytest.mark.slow
def test_garbage(finished: Workspace) -> None:
    before = digests(finished.last_record())
    changed = finished.run("--set", "train.sft.learning_rate=1e-4").result
    made = set(digests(changed).values()) - set(before.values())
    assert registry(finished, "gc", "--dry-run")["artifacts"] == []
    shutil.rmtree(finished.home / "runs" / changed["run"])
    (finished.home / "tmp" / "left").mkdir()
    found = registry(finished, "gc", "--dry-run")
    # Where an evaluation says the same of both, its second key still names what the removed run trained.
    gone = set(found["artifacts"])
    assert gone
    assert gone <= made
    assert found["leftovers"] == ["left"]
    text = finished.recipe("registry", "gc", "--dry-run").out
    assert f"{len(gone)} artifact{'' if len(gone) == 1 else 's'}, {len(found['keys'])} record" in text
    # Without an answer, nothing is removed.
    assert finished.recipe("registry", "gc").code == 130
    assert finished.recipe("registry", "gc", "--json").said(2).startswith("error: --json does not ask.")
    assert set(registry(finished, "gc", "--yes")["artifacts"]) == gone
    left = {item["digest"] for item in registry(finished, "ls")["artifacts"]}
    assert left >= set(before.values())
    assert not left & gone
    assert finished.leftovers() == []
    assert finished.recipe("registry", "gc", "--yes").out == "removed 0 artifacts: 0 bytes are free\n"
    assert ran(finished.run().result) == ["push.folder"]


@pytest.mark.slow
def test_garbage_is_collected_once_no_recipe_runs(workspace: Workspace) -> None:
    running = workspace.start()
    running.until_started("train")
    done = workspace.recipe("registry", "gc", "--yes")
    assert done.code == 0
    pid = running.process.pid
    assert done.err == f"waiting for the recipes that run in this registry: process {pid}\n"
    assert running.finish().code == 0
    assert ran(workspace.run().result) == []


@pytest.mark.slow
def test_what_a_killed_run_made_stays(workspace: Workspace) -> None:
    running = workspace.start()
    running.until_started("train")
    running.process.kill()
    running.finish()
    before = {item["digest"] for item in registry(workspace, "ls")["artifacts"]}
    assert registry(workspace, "gc", "--yes")["artifacts"] == []
    assert {item["digest"] for item in registry(workspace, "ls")["artifacts"]} == before
    assert "load" not in ran(workspace.run().result)


@pytest.mark.slow
def test_export_and_import(finished: Workspace, workspace: Workspace) -> None:
    done = registry(finished, "export", "latest", "run.tar", output="registry_transfer")
    assert (done["runs"], done["artifacts"]) == (1, len(set(digests(finished.last_record()).values())))
    registry(finished, "export", "latest", "again.tar", output="registry_transfer")
    archive = finished.folder / "run.tar"
    assert archive.read_bytes() == (finished.folder / "again.tar").read_bytes()
    taken = registry(workspace, "import", str(archive), output="registry_transfer")
    assert taken | {"there": 0} == done
    assert ran(workspace.run().result) == ["push.folder"]
    assert "imported" in workspace.recipe("registry", "import", str(archive)).out
    archive.write_bytes(archive.read_bytes()[:-20_000])
    shutil.rmtree(workspace.home)
    assert workspace.recipe("registry", "import", str(archive)).said(8).startswith(f"error: {archive}: ")
    assert registry(workspace, "ls")["artifacts"] == []
    assert workspace.leftovers() == []
    assert workspace.recipe("registry", "import", "gone.tar").said(3).startswith("error: There is no file gone.tar.")
    assert finished.recipe("registry", "export", "latest", "no/x.tar").said(2)


def test_an_import_that_does_not_fit_on_the_disk(finished: Workspace, workspace: Workspace) -> None:
    registry(finished, "export", "latest", "run.tar", output="registry_transfer")
    workspace.before = disk(workspace.home, "-t tmpfs -o size=100k tmpfs")
    said = workspace.recipe("registry", "import", str(finished.folder / "run.tar")).said(4)
    assert "cannot be written: no space left on device." in said


def test_a_registry_that_cannot_be_written(finished: Workspace) -> None:
    count = len(registry(finished, "ls")["artifacts"])
    read_only = ("sh", "-c", 'mount --bind "$0" "$0" && mount -o remount,ro,bind "$0" && exec "$@"', str(finished.home))
    finished.before = (*(("unshare", "--mount") if os.geteuid() == 0 else ("unshare", "-rm")), *read_only)
    assert registry(finished, "verify")["verified"] == count
    assert len(registry(finished, "ls")["artifacts"]) == count
    assert registry(finished, "gc", "--dry-run")["kept"] == count
    assert registry(finished, "export", "latest", "x.tar", output="registry_transfer")["artifacts"] == count
    assert "read-only file system" in finished.recipe("registry", "gc", "--yes").said(4)


@pytest.mark.slow
def test_a_run_takes_what_the_remote_has(
    finished: Workspace, workspace: Workspace, s3_variables: dict[str, str]
) -> None:
    finished.variables |= s3_variables
    workspace.variables |= s3_variables | {"RECIPE_REMOTE": "s3://bucket/shared"}
    pushed = registry(finished, "push", "--remote", "s3://bucket/shared", output="registry_transfer")
    assert (pushed["there"], pushed["runs"]) == (0, 1)
    done = workspace.run()
    assert ran(done.result) == ["push.folder"]
    assert digests(done.result) == digests(finished.last_record())
    texts = {event["node"]: event["text"] for event in done.events if event["type"] == "node_message"}
    run = finished.last_record()["id"]
    assert texts["train"] == f"taken from s3://bucket/shared, where run {run} made it"
    assert s3.SECRET not in done.out + done.err
    # Once it is here, nobody asks again.
    assert [event for event in workspace.run().events if event["type"] == "node_message"] == []
    shutil.rmtree(workspace.home)
    pulled = registry(workspace, "pull", run, output="registry_transfer")
    assert (pulled["artifacts"], pulled["runs"]) == (pushed["artifacts"], 1)
    assert json.loads(workspace.recipe("show", "--json", run).out)["run"] == run


@pytest.mark.slow
def test_a_remote_that_cannot_be_reached_is_one_warning(workspace: Workspace) -> None:
    workspace.variables |= {
        "RECIPE_REMOTE": "s3://AKIDprobe:hunter2@bucket/shared",
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
        "AWS_ACCESS_KEY_ID": "AKIDprobe",
        "AWS_SECRET_ACCESS_KEY": s3.SECRET,
        "AWS_MAX_ATTEMPTS": "1",
    }
    done = workspace.run()
    said = [event["text"] for event in done.events if event["type"] == "node_message"]
    texts = [text for text in said if "s3://" in text]
    assert len(texts) == 1
    assert texts[0].startswith("warning: s3://bucket/shared cannot be reached: ")
    assert texts[0].endswith("The run goes on without it.")
    assert done.result["status"] == "succeeded"
    assert s3.SECRET not in done.out + done.err
    assert "hunter2" not in done.out + done.err


def test_wrong_bytes_of_a_remote_end_a_run(finished: Workspace, workspace: Workspace) -> None:
    remote = finished.folder / "remote"
    url = f"file://{remote}"
    registry(finished, "push", "--remote", url, output="registry_transfer")
    for blob in remote.glob("blobs/sha256/*/*"):
        flip(blob)
    workspace.variables["RECIPE_REMOTE"] = url
    done: Finished = workspace.recipe("run", "tiny.toml")
    assert f"error: {url} sent something wrong: artifacts/" in done.said(8)
    assert registry(workspace, "ls")["artifacts"] == []
    assert workspace.leftovers() == []


def test_no_remote(finished: Workspace) -> None:
    assert "No remote is named." in finished.recipe("registry", "push").said(2)
    said = finished.recipe("registry", "pull", "--remote", "nowhere://x").said(2)
    assert "nowhere://x is the address of no kind of remote." in said
