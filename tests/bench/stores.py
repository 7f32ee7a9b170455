"""Registries of any size, written without the care of the registry itself: nothing is synced."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from recipe_registry import Registry, RunRecord, digest_of, sha256_bytes
from recipe_registry.keys import KeyRecord
from recipe_registry.manifest import Entry, Manifest

NODES_PER_RUN = 10


def generate(home: Path, artifacts: int, kept: int) -> None:
    """A registry of so many artifacts, each with a key; the first ``kept`` of them belong to runs.

    Args:
        home: its folder; empty.
        artifacts: how many.
        kept: how many of them runs reach; a multiple of ``NODES_PER_RUN``.
    """
    Registry.open(home)
    for folder in ("artifacts", "keys", "runs", "work", "tmp"):
        (home / folder).mkdir()
    digests: list[str] = []
    for number in range(artifacts):
        run = _run_id(number // NODES_PER_RUN)
        before = digests[-1] if number % NODES_PER_RUN else ""
        digests.append(_artifact(home, number, run, before))
        if number % NODES_PER_RUN == NODES_PER_RUN - 1 and number < kept:
            _run(home, run, digests[-NODES_PER_RUN:])


def _artifact(home: Path, number: int, run: str, before: str) -> str:
    data = json.dumps({"number": number}).encode()
    content = Manifest((Entry("metrics.json", sha256_bytes(data), len(data)),), ())
    folder = home / "artifacts" / content.digest.replace(":", "-")
    folder.mkdir()
    (folder / "metrics.json").write_bytes(data)
    (folder / "manifest.json").write_text(json.dumps(content.to_json()))
    inputs = {"model": {"load": before}} if before else {}
    components = {"format": 2, "stage": "train", "method": "sft", "inputs": inputs, "seed": number}
    key = digest_of(components)
    record = KeyRecord(key, content.digest, "train", run, components, {"cpu_seconds": 1.5})
    (home / "keys" / f"{key.removeprefix('sha256:')}.json").write_text(json.dumps(record.to_json()))
    return content.digest


def _run(home: Path, run: str, digests: list[str]) -> None:
    nodes = [{"id": f"train.{index}", "artifact": {"digest": digest}} for index, digest in enumerate(digests)]
    record = RunRecord(run, "generated", "succeeded", "2026-11-24T06:45:12Z", digest_of(run), nodes=nodes)
    (home / "runs" / run).mkdir()
    (home / "runs" / run / "run.json").write_text(json.dumps(record.to_json()))


def _run_id(number: int) -> str:
    return f"20261124-{number // 65536:06d}-{number % 65536:04x}"


if __name__ == "__main__":
    generate(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
