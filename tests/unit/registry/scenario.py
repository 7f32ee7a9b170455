"""One pass through everything that the registry writes; run as a program so that it can be killed anywhere.

``python scenario.py HOME``
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from recipe_registry import Artifact, Reference, Registry, RunRecord, place_file

Spawn = Callable[..., "subprocess.Popen[str]"]
KEY = f"sha256:{'ab' * 32}"
CONTENT = {"b.bin": b"b" * 5000, "sub/a.txt": b"hello", "empty": b""}
REFERENCE = Reference("model.safetensors", "hub:owner/model", "cd" * 32, 13_000_000_000)


def produce(registry: Registry) -> Artifact:
    staging = registry.artifacts.stage("train")
    for name, data in CONTENT.items():
        (staging / name).parent.mkdir(exist_ok=True)
        (staging / name).write_bytes(data)
    return registry.artifacts.commit(staging, [REFERENCE])


def record(run: str, status: str) -> RunRecord:
    return RunRecord(run, "demo", status, "2026-11-24T06:45:12Z", f"sha256:{'ef' * 32}", metrics={"loss.after": 0.5})


def main(home: Path) -> None:
    registry = Registry.open(home)
    registry.artifacts.discard_staging()
    run = registry.runs.new_id()
    registry.runs.save_recipe(run, "demo.toml", b"version = 1\n")
    registry.runs.save(record(run, "running"))
    with registry.artifacts.work_area(KEY) as area:
        (area / "checkpoint").write_bytes(b"half way")
        artifact = produce(registry)
        registry.artifacts.record_key(KEY, artifact.digest, node="train", run=run, components={"seed": 1}, facts={})
        registry.artifacts.drop_work_area(KEY)
    produce(registry)
    registry.runs.append_event(run, {"step": 1}, sync=True)
    registry.runs.save(record(run, "succeeded"))
    fetched = home / "fetched"
    fetched.write_bytes(b"rows")
    place_file(fetched, registry.sources / "rows.jsonl")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
