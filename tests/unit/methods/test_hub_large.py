"""A file of several gigabytes on its way to the Hub: it is never in memory, and its parts are right to the byte."""

from __future__ import annotations

import hashlib
from math import ceil
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from recipe_engine.methods.content import content_of
from recipe_engine.methods.hub_repository import HubRepository
from recipe_engine.methods.options import PushHub

if TYPE_CHECKING:
    from pathlib import Path

SIZE = (5 << 30) + 12345
PART = 1 << 30
TAIL = b"the last bytes"


class Client:
    """The one call of the Hub's client that sends large files ahead; it keeps what it was given."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, list[Any], dict[str, Any]]] = []

    def preupload_lfs_files(self, name: str, additions: list[Any], **how: Any) -> None:
        self.calls.append((name, list(additions), how))


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five gigabytes, almost all of which is a hole."""
    path = tmp_path_factory.mktemp("large") / "model.safetensors"
    with path.open("wb") as opened:
        opened.truncate(SIZE - len(TAIL))
        opened.seek(0, 2)
        opened.write(TAIL)
    return path


@pytest.mark.slow
def test_a_file_of_five_gigabytes(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import lfs

    content = content_of(file)
    assert (content.size, content.data, content.git_oid) == (SIZE, None, "")
    client, told = Client(), []
    repository = HubRepository(client, PushHub(repo="me/large"), tmp_path, print)
    (addition,) = repository.upload({"model.safetensors": content}, lambda done, total: told.append((done, total)))
    assert client.calls == [
        ("me/large", [addition], {"revision": "main", "create_pr": False, "free_memory": False}),
    ]
    assert addition.path_or_fileobj == str(file), "by its path: the client reads it in pieces"
    assert (addition.upload_info.size, addition.upload_info.sha256.hex()) == (SIZE, content.sha256)
    assert told[-1] == (SIZE, SIZE)

    parts = []

    def put(_method: str, url: str, data: Any) -> SimpleNamespace:
        data.seek(0, 2)
        parts.append((url, data.tell()))
        data.seek(max(0, data.tell() - len(TAIL)))
        last = hashlib.sha256(data.read()).hexdigest()
        return SimpleNamespace(headers={"etag": last}, status_code=200)

    monkeypatch.setattr(lfs, "http_backoff", put)
    monkeypatch.setattr(lfs, "hf_raise_for_status", lambda _answer: None)
    count = ceil(SIZE / PART)
    urls = lfs._get_sorted_parts_urls({str(n): f"part-{n}" for n in range(1, count + 1)}, addition.upload_info, PART)
    headers = lfs._upload_parts_iteratively(addition, urls, PART)
    assert parts == [(f"part-{n}", PART) for n in range(1, count)] + [(f"part-{count}", SIZE % PART)]
    assert headers[-1]["etag"] == hashlib.sha256(TAIL).hexdigest()
    assert told[-1] == (SIZE, SIZE)
