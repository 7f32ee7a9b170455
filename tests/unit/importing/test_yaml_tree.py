"""A YAML file becomes values with lines, or a refusal at its place; never anything else."""

from __future__ import annotations

import tempfile
import time
from contextlib import suppress
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from recipe_engine.errors import InvalidRecipe, UnresolvedInput
from recipe_engine.importing.yaml_tree import MAX_BYTES, YamlTree, read_yaml


def tree_of(tmp_path: Path, text: str | bytes) -> YamlTree:
    file = tmp_path / "c.yml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_yaml(file)


def refusal(tmp_path: Path, text: str | bytes) -> str:
    with pytest.raises(InvalidRecipe) as refused:
        tree_of(tmp_path, text)
    return str(refused.value).replace(f"{tmp_path}/", "")


def test_values_and_their_places(tmp_path: Path) -> None:
    tree = tree_of(tmp_path, "a: 1\nb:\n  - c: true\n    d: 2.5\n  - x\ne:\ndate: 2024-01-02\n")
    assert tree.values == {"a": 1, "b": [{"c": True, "d": 2.5}, "x"], "e": None, "date": "2024-01-02"}
    assert tree.place(("b", 0, "d")) == (4, 5)
    assert tree.place(("b", 1)) == (5, 5)
    assert tree.place(("b", 0, "nothing")) == (3, 5)
    assert tree.place(("nothing",)) == (0, 0)


def test_aliases_and_merged_keys_are_written_out(tmp_path: Path) -> None:
    tree = tree_of(tmp_path, "base: &b {lr: 1, wd: 2}\nother: {<<: *b, wd: 3}\nlist: [*b]\n")
    assert tree.values["other"] == {"lr": 1, "wd": 3}
    assert tree.values["list"] == [{"lr": 1, "wd": 2}]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: ${HOME}\n", "c.yml:1:4: a: an environment variable (${HOME}) is filled in by nobody here."),
        ("x: 1\na: 'run-{{ name }}'\n", "c.yml:2:4: a: a template ({{) is filled in by nobody here."),
        ("a: {{ name }}\n", "c.yml:1:5: a: expected a key, found a mapping or a list."),
        ("a: 1\na: 2\n", "c.yml:2:1: a: this key was given before."),
        ("a: !!python/object:os.system x\n", "c.yml:1:4: a: the tag tag:yaml.org,2002:python/object:os.system"),
        ("a: 1\n--- \nb: 2\n", "c.yml:2:1: the file holds several documents."),
        ("- a\n- b\n", "c.yml:1:1: expected a mapping of settings"),
        ("just text\n", "c.yml:1:1: expected a mapping of settings"),
        ("", "c.yml: the file holds no settings."),
        ("a: [1, 2\nb: 3\n", "c.yml:2:2: this is not YAML: "),
        ("\ta: 1\n", "c.yml:1:1: this is not YAML: "),
        ("a: *gone\n", "c.yml:1:4: this is not YAML: found undefined alias 'gone'."),
        ("a: &a [*a]\n", "mappings and lists are nested more than 32 deep."),
        ("a: " + "[" * 1000, "mappings and lists are nested more than 32 deep."),
        ("a: " + "9" * 5000, "is no value of the type int."),
        ("<<: 3\n", "<< merges mappings alone."),
        (b"a: caf\xe9\n", "c.yml:1:7: expected UTF-8 text, found the byte 0xe9."),
        (b"a: \x00\n", "c.yml:1:1: this is not YAML: "),
        (b"a: 1\n" * (MAX_BYTES // 5 + 1), "the file is larger than 262,144 bytes."),
    ],
)
def test_what_is_refused(tmp_path: Path, text: str | bytes, said: str) -> None:
    assert said in refusal(tmp_path, text)


def test_a_chat_template_may_hold_what_a_template_holds(tmp_path: Path) -> None:
    assert tree_of(tmp_path, "chat_template_jinja: '{{ messages }}'\n").values


def test_a_few_lines_that_stand_for_billions_are_refused_at_once(tmp_path: Path) -> None:
    lines = ["l0: &l0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 9)}]" for n in range(1, 12)]
    started = time.process_time()
    assert "its aliases stand for more than 10,000 values." in refusal(tmp_path, "\n".join(lines))
    assert time.process_time() - started < 2


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    for name in ("gone.yml", "", "nul\0"):
        with pytest.raises(UnresolvedInput):
            read_yaml(tmp_path / name)


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text("abc $#:-'\n", max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", min_size=1), inner, max_size=3),
    max_leaves=12,
)


@settings(max_examples=40)
@given(st.dictionaries(st.text("abcdef_", min_size=1), plain, min_size=1))
def test_it_reads_what_yaml_writes(values: dict[str, object]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        assert tree_of(Path(folder), yaml.safe_dump(values)).values == values


@settings(max_examples=40)
@given(st.binary(max_size=200) | st.text("a:-[]{}&*!|>'\"%@`#?, \n\t1", max_size=60).map(str.encode))
def test_any_bytes_give_values_or_our_error(source: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder, suppress(InvalidRecipe):
        tree_of(Path(folder), source)
