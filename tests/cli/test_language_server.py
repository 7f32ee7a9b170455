"""Editors: a language server that reads the committed schema completes keys and says what they mean."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from importlib.metadata import files
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

RECIPES = Path(__file__).parents[2] / "recipes"
SERVER = next(file.locate() for file in files("tombi") or () if file.name == "tombi")
LINES = """\
#:schema ./schema/recipe.v1.schema.json
version = 1
[data.train]

source = "file:rows.jsonl"
format = "instruction"
[adapt.lora]
rank = 16
[train.sft]

learning_rte = 1
""".splitlines()
SECONDS = 30


class Server:
    """The server's end of a conversation in LSP."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._stdin, self._stdout = process.stdin, process.stdout
        self._asked = 0
        self.diagnostics: list[str] = []

    def tell(self, method: str, params: Any) -> None:
        self._send({"method": method, "params": params})

    def ask(self, method: str, params: Any) -> Any:
        self._asked += 1
        self._send({"id": self._asked, "method": method, "params": params})
        while True:
            message = self._receive()
            if message.get("id") == self._asked and "method" not in message:
                return message.get("result")
            if message.get("method") == "textDocument/publishDiagnostics":
                self.diagnostics = [found["message"] for found in message["params"]["diagnostics"]]
            elif "id" in message:  # it asks for a setting, or to be told of changed files: neither is here
                self._send({"id": message["id"], "result": None})

    def _send(self, message: dict[str, Any]) -> None:
        body = json.dumps({"jsonrpc": "2.0", **message}).encode()
        self._stdin.write(b"Content-Length: %d\r\n\r\n" % len(body) + body)
        self._stdin.flush()

    def _receive(self) -> Any:
        length = 0
        while header := self._stdout.readline().strip():
            name, _, value = header.partition(b":")
            length = int(value) if name.lower() == b"content-length" else length
        return json.loads(self._stdout.read(length))


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("editor")
    shutil.copytree(RECIPES / "schema", folder / "schema")
    file = folder / "x.toml"
    file.write_text("\n".join(LINES))
    return file.as_uri()


@pytest.fixture(scope="module")
def server(uri: str) -> Iterator[Server]:
    command = [str(SERVER), "lsp", "--offline", "--no-cache"]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, **pipes) as process:
        found = Server(process)
        found.ask("initialize", {"processId": None, "rootUri": uri.rpartition("/")[0], "capabilities": {}})
        found.tell("initialized", {})
        document = {"uri": uri, "languageId": "toml", "version": 1, "text": "\n".join(LINES)}
        found.tell("textDocument/didOpen", {"textDocument": document})
        yield found
        found.ask("shutdown", None)
        found.tell("exit", None)


def answer(server: Server, method: str, uri: str, line: int, column: int) -> Any:
    """The first answer that says something: a server that still reads the schema has none."""
    deadline = time.monotonic() + SECONDS
    where = {"textDocument": {"uri": uri}, "position": {"line": line, "character": column}}
    while not (found := server.ask(method, where)):
        assert time.monotonic() < deadline, f"no answer to {method}"
        time.sleep(0.1)
    return found


def completions(server: Server, uri: str, table: str) -> set[str]:
    found = answer(server, "textDocument/completion", uri, LINES.index(table) + 1, 0)
    return {item["label"] for item in found}


def test_keys_are_completed_in_the_table_of_a_method(server: Server, uri: str) -> None:
    found = completions(server, uri, "[train.sft]")
    assert {"learning_rate", "epochs", "warmup_ratio"} <= found
    assert "rank" not in found


def test_keys_of_a_data_set_are_those_of_its_format(server: Server, uri: str) -> None:
    found = completions(server, uri, "[data.train]")
    assert {"split", "max_length", "template"} <= found


def test_a_key_says_what_it_means(server: Server, uri: str) -> None:
    found = answer(server, "textDocument/hover", uri, LINES.index("rank = 16"), 1)
    assert "Rank of the update: the width of the two factors." in found["contents"]["value"]


def test_a_wrong_key_is_marked(server: Server, uri: str) -> None:
    answer(server, "textDocument/hover", uri, LINES.index("rank = 16"), 1)
    assert [message for message in server.diagnostics if "learning_rte" in message]


def test_recipes_that_ship_have_nothing_to_remark() -> None:
    command = [str(SERVER), "lint", "--offline", "--error-on-warnings", *map(str, sorted(RECIPES.glob("*.toml")))]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (found.returncode, found.stderr.count("arning")) == (0, 0), found.stdout + found.stderr
