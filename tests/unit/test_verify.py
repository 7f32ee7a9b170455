"""Holding a replay against its record: what counts as a difference, and which is the first."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import save_file
from tests.unit.written import SMALL, builtins, recipe_of

from recipe_engine.graph import build_graph
from recipe_engine.journal import trace_file
from recipe_engine.recorded import Recorded
from recipe_engine.verify import ComparedNode, Difference, compare, environment_changes
from recipe_registry import Reference, Registry, RunRecord, digest_of, durable

if TYPE_CHECKING:
    from recipe_engine.plugins import Catalogue

NODES = build_graph(recipe_of(SMALL), builtins())
WEIGHTS = torch.tensor([3.0, 4.0])
STEPS = (
    {"step": 1, "loss": 2.0, "grad_norm": 0.5, "weights": "sha256:aa"},
    {"step": 2, "loss": 1.0, "grad_norm": 0.25},
)
COMPONENTS: Mapping[str, Any] = MappingProxyType({"revision": 1, "options": {"rank": 4}, "hardware": {"threads": 1}})


def run_in(
    home: Path,
    *,
    weights: torch.Tensor = WEIGHTS,
    steps: Any = STEPS,
    loss: float = 1.0,
    measured: float = 3.0,
    components: Mapping[str, Any] = COMPONENTS,
) -> Recorded:
    """A registry with a run that trained and evaluated."""
    registry = Registry.open(home)
    run = registry.runs.new_id()
    nodes = []
    for node, metrics in (("train", {"loss": loss}), ("evaluate.perplexity@result", {"loss": measured})):
        staging = registry.artifacts.stage(node)
        (staging / "metrics.json").write_text(json.dumps(metrics))
        if node == "train":
            save_file({"w": weights}, staging / "adapter_model.safetensors")
        artifact = registry.artifacts.commit(staging).digest
        made = {**components, "node": node}
        key = digest_of(made)
        registry.artifacts.record_key(key, artifact, node=node, run=run, components=made, facts={})
        entry = {"id": node, "status": "ran", "key": key, "artifact": {"digest": artifact}, "metrics": metrics}
        nodes.append(entry)
    (registry.runs.directory(run) / trace_file("train")).write_text("".join(json.dumps(step) + "\n" for step in steps))
    record = RunRecord(run, "small", "succeeded", "2026-11-24T00:00:00+00:00", "sha256:0", nodes=nodes)
    return Recorded(registry, record)


def stating(level: Any, tolerance: float = 0.0) -> Catalogue:
    """The built-in methods, with another statement of train.sft."""
    catalogue = builtins()
    sft = catalogue.methods["train", "sft"]
    changed = dataclasses.replace(sft.descriptor, determinism=level, tolerance=tolerance)
    methods = {**catalogue.methods, ("train", "sft"): dataclasses.replace(sft, descriptor=changed)}
    return dataclasses.replace(catalogue, methods=methods)


def compared(tmp_path: Path, catalogue: Catalogue | None = None, **changed: Any) -> dict[str, ComparedNode]:
    before, now = run_in(tmp_path / "before"), run_in(tmp_path / "now", **changed)
    return {node.node: node for node in compare(before, now, NODES, catalogue or builtins())}


def verdicts(found: Mapping[str, ComparedNode]) -> list[str]:
    return [node.verdict for node in found.values()]


def test_the_same_is_identical(tmp_path: Path) -> None:
    found = compared(tmp_path)
    assert list(found) == ["train", "evaluate.perplexity@result"]
    assert verdicts(found) == ["identical", "identical"]
    assert (found["train"].steps, found["train"].difference) == (2, None)


def other_steps(at: int, **values: Any) -> list[dict[str, Any]]:
    return [{**step, **values} if step["step"] == at else dict(step) for step in STEPS]


@pytest.mark.parametrize(
    ("changed", "difference"),
    [
        ({"steps": other_steps(2, loss=1.0000000000000002)}, (2, "loss", 1.0, 1.0000000000000002)),
        ({"steps": other_steps(1, grad_norm=9.0, weights="sha256:bb")}, (1, "grad_norm", 0.5, 9.0)),
        ({"steps": other_steps(1, weights="sha256:bb"), "loss": 5.0}, (1, "weights", "sha256:aa", "sha256:bb")),
        ({"steps": [STEPS[0]]}, (None, "steps", 2, 1)),
        ({"loss": 5.0}, (None, "loss", 1.0, 5.0)),
        ({"weights": torch.tensor([3.0, 4.5])}, (None, "adapter_model.safetensors: w[1]", 4.0, 4.5)),
        ({"components": {**COMPONENTS, "revision": 2}, "loss": 5.0}, (None, "revision", 1, 2)),
        ({"components": {**COMPONENTS, "options": {"rank": 8}}}, (None, "options.rank", 4, 8)),
    ],
)
def test_the_first_difference(tmp_path: Path, changed: dict[str, Any], difference: tuple[Any, ...]) -> None:
    assert compared(tmp_path, **changed)["train"].difference == Difference("train", *difference)


def test_another_environment_alone_is_no_difference(tmp_path: Path) -> None:
    assert verdicts(compared(tmp_path, components={**COMPONENTS, "hardware": {"threads": 2}})) == ["identical"] * 2


def test_a_stored_artifact_that_was_changed_since(tmp_path: Path) -> None:
    before, now = run_in(tmp_path / "before"), run_in(tmp_path / "now")
    artifact = before.artifact("train")
    assert artifact is not None
    file = artifact.path / "adapter_model.safetensors"
    file.chmod(0o644)
    save_file({"w": torch.tensor([3.0, 5.0])}, file)
    (train, _) = compare(before, now, NODES, builtins())
    assert str(train.difference) == "train: adapter_model.safetensors: w[1] was 5.0, and is 4.0 now."


def test_the_same_bytes_of_a_source_that_is_spelled_otherwise(tmp_path: Path) -> None:
    runs = []
    for name, source in (("before", "file:model"), ("now", "file:../model")):
        run = run_in(tmp_path / name)
        registry = Registry.open(tmp_path / name)
        staging = registry.artifacts.stage("load")
        reference = Reference("model.safetensors", source, "0" * 64, 10)
        artifact = registry.artifacts.commit(staging, [reference])
        load = {"id": "load", "status": "ran", "key": None, "artifact": {"digest": artifact.digest}, "metrics": {}}
        runs.append(Recorded(registry, dataclasses.replace(run.record, nodes=[load])))
    assert runs[0].digest("load") != runs[1].digest("load")
    assert [node.verdict for node in compare(runs[0], runs[1], NODES, builtins())] == ["identical"]


def test_numbers_that_were_not_recorded_yet_are_no_difference(tmp_path: Path) -> None:
    assert verdicts(compared(tmp_path, steps=other_steps(2, weights="sha256:cc"))) == ["identical", "identical"]


@pytest.mark.parametrize(("level", "verdict"), [("bitwise", "different"), ("tolerance", "not compared")])
def test_an_artifact_that_is_gone(tmp_path: Path, level: str, verdict: str) -> None:
    before, now = run_in(tmp_path / "before"), run_in(tmp_path / "now", weights=WEIGHTS * 1.0005)
    same = run_in(tmp_path / "same")
    artifact = before.artifact("train")
    assert artifact is not None
    durable.remove_tree(artifact.path)
    (train, _) = compare(before, now, NODES, stating(level, 1e-3))
    assert train.verdict == verdict
    (train, _) = compare(before, same, NODES, stating(level, 1e-3))
    assert (train.verdict, train.steps) == ("identical", 2)


@pytest.mark.parametrize(
    ("device", "factor", "verdict"),
    [("cuda", 1.04, "within tolerance"), ("cuda", 1.06, "different"), ("cpu", 1.04, "different")],
)
def test_a_gpu_is_held_to_a_tolerance(tmp_path: Path, device: str, factor: float, verdict: str) -> None:
    components = {**COMPONENTS, "hardware": {"device": device}}
    before = run_in(tmp_path / "before", components=components)
    now = run_in(tmp_path / "now", components=components, weights=WEIGHTS * factor)
    (train, _) = compare(before, now, NODES, builtins())
    assert (train.verdict, train.determinism) == (verdict, "tolerance" if device == "cuda" else "bitwise")


def test_within_its_tolerance(tmp_path: Path) -> None:
    near = {"weights": WEIGHTS * 1.0005, "steps": other_steps(1, loss=2.001, weights="sha256:bb"), "loss": 1.0005}
    found = compared(tmp_path, stating("tolerance", 1e-3), **near, measured=3.001)
    assert verdicts(found) == ["within tolerance", "within tolerance"]
    # An evaluation is bitwise, but what it evaluates is not.
    assert {(node.determinism, node.tolerance) for node in found.values()} == {("tolerance", 1e-3)}


@pytest.mark.parametrize(
    ("changed", "name"),
    [
        ({"weights": WEIGHTS * 1.01}, "adapter_model.safetensors: w (relative difference)"),
        ({"steps": other_steps(1, loss=2.01), "weights": WEIGHTS * 1.01}, "loss"),
        ({"loss": 1.01}, "loss"),
    ],
)
def test_beyond_its_tolerance(tmp_path: Path, changed: dict[str, Any], name: str) -> None:
    difference = compared(tmp_path, stating("tolerance", 1e-3), **changed)["train"].difference
    assert difference is not None
    assert difference.name == name


def test_what_builds_on_an_equal_result_is_held_to_the_bit(tmp_path: Path) -> None:
    found = compared(tmp_path, stating("tolerance", 1e-3), measured=3.0001)
    assert verdicts(found) == ["identical", "different"]
    assert found["evaluate.perplexity@result"].determinism == "bitwise"


def test_without_a_statement_nothing_is_compared(tmp_path: Path) -> None:
    found = compared(tmp_path, stating("none"), weights=WEIGHTS * 2, loss=7.0, measured=8.0)
    assert verdicts(found) == ["not compared", "not compared"]


def test_options_may_say_that_nothing_is_to_be_compared(tmp_path: Path) -> None:
    """As ``rollout = "vllm"`` does; the method itself is bitwise."""
    loose = tuple(dataclasses.replace(node, determinism="none") if node.id == "train" else node for node in NODES)
    found = compare(run_in(tmp_path / "before"), run_in(tmp_path / "now", loss=7.0), loose, builtins())
    assert verdicts({node.node: node for node in found}) == ["not compared", "not compared"]


def test_the_host_is_no_environment() -> None:
    then = {"host": "a", "threads": 1, "packages": {"torch": {"version": "2.9"}}}
    now = {"host": "b", "threads": 1, "packages": {"torch": {"version": "2.10"}}}
    changes = [change.to_json() for change in environment_changes(then, now)]
    assert changes == [{"path": "packages.torch.version", "before": "2.9", "after": "2.10"}]
