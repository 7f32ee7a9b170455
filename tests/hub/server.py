"""A Hub on loopback: what the real client asks of one repository, answered as the Hub answers it.

Large files are redirected to a store that knows them by their sha256, as on the Hub; small ones are sent at once.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self
from urllib.parse import unquote

from tests.hub.http import Asked, Handler

COMMIT = "0123456789abcdef0123456789abcdef01234567"
_LARGE = (".safetensors", ".gguf", ".bin", ".parquet")


@dataclass
class Hub:
    """A server with one repository; ``with Hub(folder) as hub`` runs it.

    Attributes:
        folder: its files.
        name: of the repository.
        kind: ``models`` or ``datasets``.
        commit: the only one.
        branch: points at the commit.
        token: who bears it may read the files; anybody where ``None``.
        account: what the Hub says of the bearer of the token (``whoami-v2``).
        broken: the status of every answer; normal where ``None``.
        damaged: suffixes of the files that arrive with one bit changed.
        bytes_per_second: of large files; as fast as it goes where ``None``.
        asked: every request, in order.
    """

    folder: Path
    name: str = "me/tiny"
    kind: str = "models"
    commit: str = COMMIT
    branch: str = "main"
    token: str | None = None
    account: Mapping[str, Any] = field(default_factory=dict)
    broken: int | None = None
    damaged: tuple[str, ...] = ()
    bytes_per_second: int | None = None
    asked: list[Asked] = field(default_factory=list)

    def __enter__(self) -> Self:
        self._server = ThreadingHTTPServer(
            ("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self, "asked": self.asked})
        )
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Take it off the network, for good."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()

    def variables(self) -> dict[str, str]:
        """What sends the client here; it reads them when it is imported."""
        return {
            "HF_ENDPOINT": self.url,
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_XET": "1",
            "HF_HOME": str(self.folder.parent / "hf-home"),
            "NO_PROXY": "127.0.0.1,localhost",
            "no_proxy": "127.0.0.1,localhost",
        }

    def fetched(self) -> set[str]:
        """Names of the files whose bytes were asked for, or whose existence was."""
        marker = f"/{self.name}/resolve/"
        return {asked.path.partition(marker)[2].partition("/")[2] for asked in self.asked if marker in asked.path}

    def files(self) -> dict[str, Path]:
        """Path in the repository -> file."""
        found = (path for path in sorted(self.folder.rglob("*")) if path.is_file())
        return {path.relative_to(self.folder).as_posix(): path for path in found}

    def tree(self) -> list[dict[str, Any]]:
        """The listing of the commit."""
        return [_entry(name, path) for name, path in self.files().items()]


def _entry(name: str, path: Path) -> dict[str, Any]:
    content = path.read_bytes()
    entry: dict[str, Any] = {"type": "file", "path": name, "size": len(content), "oid": git_oid(content)}
    if name.endswith(_LARGE):
        entry["lfs"] = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 134}
    return entry


def git_oid(content: bytes) -> str:
    """What git calls a blob."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class _Handler(Handler):
    hub: Hub

    def route(self) -> None:
        hub, path = self.hub, unquote(self.asked_path)
        api = f"/api/{hub.kind}/"
        # The files of a model have no prefix.
        parts = path.removeprefix("" if hub.kind == "models" else f"/{hub.kind}").strip("/").split("/")
        if hub.broken is not None:
            self.fail(hub.broken)
        elif path == "/api/whoami-v2":
            self._whoami()
        elif path.startswith(api):
            self._api(path.removeprefix(api))
        elif parts[0] == "store":
            self._stored(parts[1])
        elif parts[2:3] == ["resolve"]:
            self._file("/".join(parts[:2]), parts[3], "/".join(parts[4:]))
        else:
            self.fail(404)

    def _api(self, path: str) -> None:
        name, kind, revision = "/".join(path.split("/")[:2]), *[*path.split("/")[2:4], "revision", self.hub.branch][:2]
        if name != self.hub.name:
            self.fail(404, "RepoNotFound")
        elif revision not in (self.hub.commit, self.hub.branch):
            self.fail(404, "RevisionNotFound")
        elif kind == "tree":
            self.send_json(self.hub.tree())
        else:
            siblings = [{"rfilename": file} for file in self.hub.files()]
            self.send_json({"id": name, "sha": self.hub.commit, "private": False, "siblings": siblings})

    def _whoami(self) -> None:
        if self.hub.token is not None and self.headers.get("Authorization") == f"Bearer {self.hub.token}":
            self.send_json(self.hub.account)
        else:
            self.fail(401)

    def _file(self, name: str, revision: str, path: str) -> None:
        hub = self.hub
        if name != hub.name:
            self.fail(404, "RepoNotFound")
        elif revision not in (hub.commit, hub.branch):
            self.fail(404, "RevisionNotFound")
        elif hub.token is not None and self.headers.get("Authorization") != f"Bearer {hub.token}":
            self.fail(403 if "Authorization" in self.headers else 401, "GatedRepo")
        elif path not in hub.files():
            self.fail(404, "EntryNotFound")
        else:
            self._send_file(hub.files()[path], _entry(path, hub.files()[path]))

    def _send_file(self, path: Path, entry: dict[str, Any]) -> None:
        headers = {"X-Repo-Commit": self.hub.commit, "ETag": f'"{entry["oid"]}"'}
        if "lfs" not in entry:
            self.send_bytes(self._sent(path), headers)
            return
        oid = entry["lfs"]["oid"]
        headers |= {"X-Linked-Etag": f'"{oid}"', "X-Linked-Size": str(entry["size"])}
        # Another host, so that the client keeps the token to itself.
        store = self.hub.url.replace("127.0.0.1", "localhost")
        self.send(302, b"", headers | {"Location": f"{store}/store/{oid}"})

    def _stored(self, oid: str) -> None:
        for path in self.hub.files().values():
            if hashlib.sha256(path.read_bytes()).hexdigest() == oid:
                self.send_bytes(self._sent(path), {"ETag": f'"{oid}"'}, self.hub.bytes_per_second)
                return
        self.fail(404, "EntryNotFound")

    def _sent(self, path: Path) -> bytes:
        """What arrives of a file."""
        content = path.read_bytes()
        damaged = content[:-1] + bytes([content[-1] ^ 1])
        return damaged if path.name.endswith(self.hub.damaged) else content
