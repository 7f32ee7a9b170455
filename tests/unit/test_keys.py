"""Keys: what changes them, and what does not."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.unit.written import LOAD, SMALL, builtins, composed, small_inputs

from recipe_engine.contract import ResolvedSource, SourceFile
from recipe_engine.descriptors import DataFormat, Method
from recipe_engine.errors import UnfitEnvironment
from recipe_engine.graph import build_graph
from recipe_engine.hookmark import hookimpl
from recipe_engine.keys import differences, key_components, key_of, source_digest
from recipe_engine.lock import Hardware, peek
from recipe_engine.methods.options import EvaluatePerplexity, FormatChat
from recipe_engine.node import node_seed
from recipe_engine.plan import Planner
from recipe_engine.plugins import Catalogue, load_catalogue
from recipe_engine.validate import validate
from recipe_registry import Registry

if TYPE_CHECKING:
    from recipe_engine.model import Recipe

CPU = Hardware("cpu", 1, ("avx2", "fma"))
TEXT_NODES = {"tokenizer", "prepare.train", "prepare.eval"}
METRIC_NODES = {"evaluate.exact_match@base", "evaluate.exact_match@result"}
TRAIN_NODES = {
    "adapt",
    "train",
    "evaluate.perplexity@result",
    "answers.eval-64x32@result",
    "evaluate.exact_match@result",
}
ALL_NODES = TEXT_NODES | TRAIN_NODES | METRIC_NODES | {"load", "evaluate.perplexity@base", "answers.eval-64x32@base"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return small_inputs(tmp_path / "here")


def keys(folder: Path, text: str, overrides: list[str], hardware: Hardware, *, artifacts: str) -> dict[str, str]:
    """The key of each node; the artifacts of nodes are ``fixed`` by their ids, or ``moving`` with their keys."""
    recipe = validate(composed(text, overrides, file=str(folder / "r.toml")), builtins())
    registry = Registry.open(folder / "registry", create=False)
    planner = Planner(
        recipe, registry, hardware, peek(recipe, builtins(), registry.sources), build_graph(recipe, builtins())
    )
    made: dict[str, str] = {}
    found: dict[str, str] = {}
    for node in build_graph(recipe, builtins()):
        if node.stage not in ("resolve", "push"):
            found[node.id], _ = planner.key(node, made)
            seen = node.id if artifacts == "fixed" else found[node.id]
            made[node.id] = f"sha256:{hashlib.sha256(seen.encode()).hexdigest()}"
    return found


def changed(
    folder: Path, *overrides: str, text: str = SMALL, hardware: Hardware = CPU, artifacts: str = "fixed"
) -> set[str]:
    """The nodes whose keys differ from those of ``SMALL``."""
    before = keys(folder, SMALL, [], CPU, artifacts=artifacts)
    after = keys(folder, text, list(overrides), hardware, artifacts=artifacts)
    return {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}


def test_every_node_but_resolve_and_push_has_a_key(folder: Path) -> None:
    found = keys(folder, SMALL, [], CPU, artifacts="fixed")
    assert set(found) == ALL_NODES
    assert len(set(found.values())) == len(found)


def test_an_evaluate_option_never_retrains(folder: Path) -> None:
    answers = {f"answers.eval-{tokens}x32@{side}" for tokens in (7, 64) for side in ("base", "result")}
    assert changed(folder, "evaluate.exact_match.max_new_tokens=7", artifacts="moving") == METRIC_NODES | answers


def test_another_metric_needs_no_new_answers(folder: Path) -> None:
    metric = {"evaluate.bleu@base", "evaluate.bleu@result"}
    assert changed(folder, text=SMALL + "[evaluate.bleu]\n", artifacts="moving") == metric
    assert changed(folder, "evaluate.exact_match.normalize=true", artifacts="moving") == METRIC_NODES


def test_the_seed_changes_what_is_seeded(folder: Path) -> None:
    assert changed(folder, "seed=8") == {"adapt", "train"}


def test_what_follows_a_change_follows_by_content(folder: Path) -> None:
    assert changed(folder, "seed=8", artifacts="moving") == TRAIN_NODES
    assert changed(folder, "train.sft.learning_rate=1e-4") == {"train"}
    assert changed(folder, "adapt.lora.rank=8") == {"adapt"}
    assert changed(folder, "data.train.max_length=77") == {"prepare.train"}


def test_names_change_nothing(folder: Path) -> None:
    assert changed(folder, "name=another") == set()
    assert changed(folder, "push.folder.path=elsewhere") == set()


def test_options_at_their_defaults_change_nothing(folder: Path) -> None:
    assert changed(folder, "train.sft.epochs=1", "adapt.lora.alpha=32", "data.train.split=train") == set()


def test_options_that_only_say_how_often_change_nothing(folder: Path) -> None:
    assert changed(folder, "train.sft.checkpoint_steps=3") == set()
    assert changed(folder, 'train.sft.report_to=["tensorboard"]') == set()


def test_another_name_of_a_data_set_changes_no_key(folder: Path) -> None:
    text = SMALL.replace("[data.train]", "[data.poems]").replace("[train.sft]", '[train.sft]\ndata = "poems"')
    before = keys(folder, SMALL, [], CPU, artifacts="moving")
    after = keys(folder, text, [], CPU, artifacts="moving")
    before["prepare.poems"] = before.pop("prepare.train")
    assert after == before


def test_another_folder_changes_no_key(folder: Path, tmp_path: Path) -> None:
    there = small_inputs(tmp_path / "there" / "deeper")
    here = keys(folder, SMALL, [], CPU, artifacts="moving")
    assert keys(there, SMALL, [], CPU, artifacts="moving") == here


def test_another_name_of_a_data_file_changes_no_key(folder: Path) -> None:
    (folder / "renamed.jsonl").write_bytes((folder / "train.jsonl").read_bytes())
    assert changed(folder, 'data.train.source="file:renamed.jsonl"') == set()


def test_the_machine_changes_what_is_numeric(folder: Path) -> None:
    numeric = ALL_NODES - TEXT_NODES
    assert changed(folder, hardware=Hardware("cpu", 2, CPU.flags)) == numeric
    assert changed(folder, hardware=Hardware("cpu", 1, ("avx2",))) == numeric
    assert changed(folder, hardware=Hardware("cuda", 1, ())) == numeric


def test_other_weights_leave_text_alone(folder: Path) -> None:
    before = keys(folder, SMALL, [], CPU, artifacts="fixed")
    (folder / "model" / "model.safetensors").write_text("other weights")
    after = keys(folder, SMALL, [], CPU, artifacts="fixed")
    # The base model's digest is its name in what adapt and train write.
    assert {name for name in before if before[name] != after[name]} == {"load", "adapt", "train"}


def test_a_weight_file_that_stands_alone_holds_the_tokenizer_too() -> None:
    def source(sha256: str, *names: str) -> ResolvedSource:
        return ResolvedSource("file:m", tuple(SourceFile(name, None, sha256, 1) for name in names))

    assert source_digest(source("aa", "m.gguf"), weights=False) != source_digest(source("bb", "m.gguf"), weights=False)
    assert source_digest(source("aa", "m.gguf")) == source_digest(source("aa", "n.gguf"))
    assert source_digest(source("aa", "a.json", "b.json")) != source_digest(source("aa", "a.json", "c.json"))
    both = SourceFile("t.json", None, "cc", 1)
    first, second = (ResolvedSource("file:m", (*source(sha, "m.gguf").files, both)) for sha in ("aa", "bb"))
    assert source_digest(first, weights=False) == source_digest(second, weights=False)
    assert source_digest(first) != source_digest(second)


def test_a_node_has_its_own_seed_and_an_evaluation_the_same_twice() -> None:
    assert node_seed(7, "evaluate.samples@base") == node_seed(7, "evaluate.samples@result")
    seeds = {node_seed(seed, node) for seed in (0, 7) for node in ("adapt", "train", "evaluate.samples@base")}
    assert len(seeds) == 6
    assert all(0 <= seed < 2**32 for seed in seeds)
    # The first four bytes of sha256("7:train"): the same on every machine, for ever.
    assert node_seed(7, "train") == int(hashlib.sha256(b"7:train").hexdigest()[:8], 16)


def test_components_are_what_they_say() -> None:
    recipe = recipe_with(SMALL, builtins())
    train = next(node for node in build_graph(recipe, builtins()) if node.id == "train")
    components = key_components(train, {"model": "sha256:aa"}, CPU)
    packages = components.pop("packages")
    assert set(packages) == {"torch", "transformers", "peft", "accelerate"}
    assert components == {
        "format": 2,
        "stage": "train",
        "method": "sft",
        "revision": 9,
        "options": {"learning_rate": 1e-3},
        "inputs": {"model": "sha256:aa"},
        "seed": node_seed(7, "train"),
        "hardware": {"device": "cpu", "threads": 1, "cpu_flags": ["avx2", "fma"]},
    }


def recipe_with(text: str, catalogue: Catalogue) -> Recipe:
    return validate(composed(text), catalogue)


class Installed:
    """A plugin that says it comes from a distribution that is installed."""

    __name__ = "pluggy"

    def __init__(self, revision: int) -> None:
        self.revision = revision

    @hookimpl
    def recipe_evaluate_methods(self) -> list[Method]:
        return [
            Method(
                name="mine",
                summary="Mine",
                options=EvaluatePerplexity,
                implementation="a:B",
                revision=self.revision,
                data=lambda options: {"eval": options.data},
            )
        ]

    @hookimpl
    def recipe_data_formats(self) -> list[DataFormat]:
        return [
            DataFormat(name="mine", summary="Mine", options=FormatChat, implementation="a:B", revision=self.revision)
        ]


def components_of(revision: int) -> dict[str, dict[str, Any]]:
    catalogue = load_catalogue([Installed(revision)], entry_points=False)
    text = LOAD + '[data.eval]\nsource = "file:e"\nformat = "mine"\n[evaluate.mine]\n'
    nodes = build_graph(recipe_with(text, catalogue), catalogue)
    return {node.id: key_components(node, {}, CPU) for node in nodes}


def test_the_key_of_a_plugins_method_names_its_distribution_and_revision() -> None:
    first, second = components_of(1), components_of(2)
    # What the engine does with any format's text has a revision too, which is added.
    for name, change in (("evaluate.mine@base", "1 -> 2"), ("prepare.eval", "2 -> 3")):
        assert list(first[name]["plugin"]) == ["pluggy"]
        assert list(differences(first[name], second[name])) == [f"revision {change}"]
        assert key_of(first[name]) != key_of(second[name])
    assert "plugin" not in first["load"]


def test_a_package_that_is_not_installed_has_no_identity() -> None:
    class Missing(Installed):
        __name__ = "no_such_distribution"

    catalogue = load_catalogue([Missing(1)], entry_points=False)
    text = LOAD + '[data.eval]\nsource = "file:e"\nformat = "chat"\n[evaluate.mine]\n'
    node = build_graph(recipe_with(text, catalogue), catalogue)[-1]
    with pytest.raises(UnfitEnvironment, match="the package no_such_distribution is not installed"):
        key_components(node, {}, CPU)


def test_a_plugin_file_that_changed_is_named_without_its_digest() -> None:
    old, new = ({"plugin": {"mine.py": {"sha256": digest * 64}}} for digest in "ab")
    assert list(differences(old, new)) == ["mine.py changed"]


def test_differences_in_words() -> None:
    old = {
        "options": {"learning_rate": 0.001, "epochs": 3, "fields": {"prompt": "q"}},
        "inputs": {"model": "sha256:a", "data.train": "sha256:b"},
        "packages": {
            "torch": {"version": "2.8", "record_sha256": "a"},
            "peft": {"version": "0.19", "record_sha256": "a"},
        },
        "hardware": {"device": "cpu", "threads": 1, "cpu_flags": ["avx2"]},
        "plugin": {"mine": {"version": "1.0", "record_sha256": "a"}},
        "revision": 1,
        "seed": 5,
    }
    new = {
        "options": {"learning_rate": 0.0005, "rank": 8, "fields": {"prompt": "p"}},
        "inputs": {"model": "sha256:c", "data.train": "sha256:b", "data.eval": "sha256:d"},
        "packages": {
            "torch": {"version": "2.9", "record_sha256": "b"},
            "peft": {"version": "0.19", "record_sha256": "b"},
        },
        "hardware": {"device": "cpu", "threads": 2, "cpu_flags": ["avx2", "fma"]},
        "plugin": {"mine": {"version": "1.0", "record_sha256": "b"}},
        "revision": 2,
        "seed": 5,
    }
    assert list(differences(old, new)) == [
        "cpu_flags ['avx2'] -> ['avx2', 'fma']",
        "threads 1 -> 2",
        "data.eval changed",
        "model changed",
        "epochs 3 -> default",
        "fields.prompt q -> p",
        "learning_rate 0.001 -> 0.0005",
        "rank default -> 8",
        "peft is another build",
        "torch is another build",
        "torch 2.8 -> 2.9",
        "mine is another build",
        "revision 1 -> 2",
    ]
    assert list(differences(old, old)) == []


@pytest.mark.parametrize(
    ("source", "read_by"),
    [
        ("file:e.jsonl", False),
        ("file:e.csv", False),
        ("file:e.parquet", True),
        ("file:e.json", True),
        ("hub:a/b", True),
    ],
)
def test_the_library_that_reads_the_rows_is_in_the_key_where_one_does(source: str, read_by: bool) -> None:
    text = LOAD + f'[data.eval]\nsource = "{source}"\nformat = "chat"\n[evaluate.perplexity]\n'
    nodes = {node.id: node for node in build_graph(recipe_with(text, builtins()), builtins())}
    assert ("datasets" in nodes["prepare.eval"].packages) == read_by
