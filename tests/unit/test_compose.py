"""Overrides: what they change, and where a problem with them is said to be."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.unit.written import LOAD, composed

from recipe_engine.compose import compose
from recipe_engine.errors import InvalidRecipe, UnresolvedInput

COMMIT = "0123456789abcdef0123456789abcdef01234567"
TREE = {"version": 1, "name": "x", "model": {"base": "file:model"}, "load": {"full": {}}}


@pytest.mark.parametrize(
    ("override", "changed"),
    [
        ("name=y", {"name": "y"}),
        ('name="a b"', {"name": "a b"}),
        (" name = y", {"name": "y"}),
        ("seed=3", {"seed": 3}),
        ("rate=1e-4", {"rate": 1e-4}),
        ("flag=true", {"flag": True}),
        ('names=["a", "b"]', {"names": ["a", "b"]}),
        ("model={ base = 'file:other' }", {"model": {"base": "file:other"}}),
        ("model.revision=main", {"model": {"base": "file:model", "revision": "main"}}),
        (f"model.revision={COMMIT}", {"model": {"base": "file:model", "revision": COMMIT}}),
        (f"model.revision={'9' * 40}", {"model": {"base": "file:model", "revision": "9" * 40}}),
        ("train.sft.epochs=2", {"train": {"sft": {"epochs": 2}}}),
        ('"a.b"."c d".e=1', {"a.b": {"c d": {"e": 1}}}),
        ("name=a=b", {"name": "a=b"}),
    ],
)
def test_an_override_takes_a_toml_value_or_a_word(override: str, changed: dict[str, object]) -> None:
    assert composed(LOAD, [override]).tree == TREE | changed


def test_the_document_itself_is_left_alone() -> None:
    composition = composed(LOAD, ["load.full.dtype=float32"])
    assert composition.document.tree == TREE
    assert composition.tree["load"] == {"full": {"dtype": "float32"}}


def test_applied_twice_is_applied_once() -> None:
    once, twice = composed(LOAD, ["seed=3"]), composed(LOAD, ["seed=3", "seed=3"])
    assert (once.tree, once.overrides) == (twice.tree, twice.overrides)


def test_a_later_override_replaces_those_inside_of_it() -> None:
    composition = composed(LOAD, ["train.sft.epochs=2", "seed=1", "train={ sft = { epochs = 3 } }"])
    assert composition.tree["train"] == {"sft": {"epochs": 3}}
    assert list(composition.overrides.values()) == ["seed=1", "train={ sft = { epochs = 3 } }"]


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("seed", "expected key=value, such as train.sft.learning_rate=1e-4."),
        ("=1", "'' is no key: expected words joined by dots, such as train.sft.epochs."),
        (".seed=1", "'.seed' is no key: expected words joined by dots, such as train.sft.epochs."),
        ("seed.=1", "'seed.' is no key: expected words joined by dots, such as train.sft.epochs."),
        ('"a"b=1', "'\"a\"b' is no key: expected words joined by dots, such as train.sft.epochs."),
        ("model.base.name=1", "model.base is no table."),
        ("model.base.name.first=1", "model.base is no table."),
        ("seed=", "expected a value, found nothing."),
    ],
)
def test_an_override_that_cannot_be_applied(override: str, says: str) -> None:
    with pytest.raises(InvalidRecipe) as refused:
        composed(LOAD, [override])
    assert [str(problem) for problem in refused.value.problems] == [f"--set {override}: {says}"]


@pytest.mark.parametrize(
    ("path", "place"),
    [
        (("load", "full", "dtype"), "r.toml:5:1"),
        (("load", "full", "dtpye"), "r.toml:4:7"),
        (("seed",), "--set seed=1"),
        (("train", "sft", "epochs"), "--set train.sft.epochs=2"),
        (("train", "sft"), "--set train.sft.epochs=2"),
        (("train",), "--set train.sft.epochs=2"),
        (("train", "sft", "data"), "--set train.sft.epochs=2"),
        (("model",), "--set model={ base = 3 }"),
        (("model", "base"), "--set model={ base = 3 }"),
        (("zzz",), "r.toml:1:1"),
    ],
)
def test_a_problem_stands_where_its_key_was_written(path: tuple[str, ...], place: str) -> None:
    text = 'version = 1\n[model]\nbase = "file:model"\n[load.full]\ndtype = "float32"\n'
    composition = composed(text, ["seed=1", "train.sft.epochs=2", "model={ base = 3 }"])
    assert str(composition.problem(path, "m")) == f"{place}: {'.'.join(path)}: m."


def test_a_problem_can_stand_at_the_value() -> None:
    assert composed('version = 1\nname = "x"\n').problem(("name",), "m.", value=True).column == 8


def test_a_file_is_read_and_one_that_is_missing_is_named(tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text(LOAD)
    assert compose(tmp_path / "r.toml", ["seed=1"]).tree == TREE | {"seed": 1}
    with pytest.raises(UnresolvedInput, match="there is no such file"):
        compose(tmp_path / "none.toml")
