"""Rows that no model reads at once, measured whole."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests import tiny

if TYPE_CHECKING:
    from tests.e2e.engine import Workspace

RECIPE = """\
version = 1
name = "book"
threads = 1
device = "cpu"

[model]
base = "file:model"

[data.eval]
source = "file:book.jsonl"
format = "text"

[load.full]
dtype = "float32"

[evaluate.perplexity]
"""


@pytest.mark.slow
def test_a_text_longer_than_the_model(workspace: Workspace) -> None:
    text = " ".join(f"{n} comes before {n + 1}." for n in range(200))
    tiny.write_jsonl(workspace.folder / "book.jsonl", [{"text": text}, {"text": "The end."}])
    recipe = workspace.folder / "book.toml"
    recipe.write_text(RECIPE)
    assert "1 row is longer than max_length = 1024 tokens: 1." in workspace.recipe("run", "book.toml").said(5)

    recipe.write_text(RECIPE + "window = 513\n")
    assert "this model reads 512 tokens at most" in workspace.recipe("run", "book.toml").said(2)

    recipe.write_text(RECIPE + "window = 256\nstride = 64\nbatch_size = 4\n")
    workspace.run(recipe="book.toml")
    record = workspace.last_record()
    nodes = {node["id"]: node for node in record["nodes"]}
    prepared = nodes["prepare.eval@whole"]["metrics"]
    assert prepared["longest_row"] > 1024
    assert nodes["evaluate.perplexity@base"]["facts"]["tokens"] == prepared["supervised_tokens"] - prepared["rows"]
    shown = workspace.recipe("data", "show", "book.toml", "--rows", "2").out
    assert f"2 rows, {prepared['tokens']} tokens" in shown
