"""A Hub on loopback that can be written to, and that fails as the Hub and networks do.

It answers what ``huggingface_hub`` asks when it publishes and reads back. Large files go through the protocol of git
LFS, in one piece or in several; Xet is switched off by :meth:`ContractHub.variables`.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import unquote

from tests.hub.http import Fault, FaultyHandler
from tests.hub.repositories import Account, Repository, card_problems, entry, is_large, is_name

if TYPE_CHECKING:
    from tests.hub.http import Asked

KINDS = {"model": "", "dataset": "datasets/"}


@dataclass
class ContractHub:
    """A server with repositories and accounts; ``with ContractHub() as hub`` runs it.

    Attributes:
        accounts: token -> who it belongs to.
        repositories: (kind, name) -> the repository.
        stored: large files by their sha256.
        part_bytes: size of the pieces in which large files come; ``None``: each in one.
        forgetful: whether pieces are forgotten once they are hashed, and what was stored is empty.
        faults: what goes wrong.
        asked: every request, in order.
    """

    accounts: dict[str, Account] = field(default_factory=dict)
    repositories: dict[tuple[str, str], Repository] = field(default_factory=dict)
    stored: dict[str, bytes] = field(default_factory=dict)
    parts: dict[str, dict[int, bytes]] = field(default_factory=dict)
    hashed: dict[str, Any] = field(default_factory=dict)
    part_bytes: int | None = None
    forgetful: bool = False
    faults: list[Fault] = field(default_factory=list)
    asked: list[Asked] = field(default_factory=list)

    def __enter__(self) -> Self:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def reset(self) -> None:
        """As it was in the beginning."""
        for kept in (self.accounts, self.repositories, self.stored, self.parts, self.hashed, self.faults, self.asked):
            kept.clear()
        self.part_bytes, self.forgetful = None, False

    def variables(self, home: str) -> dict[str, str]:
        """What sends the client here; it reads them when it is imported."""
        return {
            "HF_ENDPOINT": self.url,
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_XET": "1",
            "HF_HOME": home,
            "NO_PROXY": "127.0.0.1,localhost",
            "no_proxy": "127.0.0.1,localhost",
        }

    def add(self, name: str, kind: str = "model", **more: Any) -> Repository:
        """A repository that is there already."""
        found = self.repositories[kind, name] = Repository(name, kind, **more)
        return found

    def requests(self, pattern: str) -> list[str]:
        """Method and path of the requests that match."""
        lines = [f"{asked.method} {asked.path}" for asked in self.asked]
        return [line for line in lines if re.search(pattern, line)]


def _handler(hub: ContractHub) -> type[_Handler]:
    return type("Handler", (_Handler,), {"hub": hub, "faults": hub.faults, "asked": hub.asked})


class _Handler(FaultyHandler):
    hub: ContractHub

    def route(self) -> None:
        if "Authorization" in self.headers and self._account is None:
            # Whatever is asked: a token that is wrong or has expired is worth less than none.
            self.fail(401, message="Invalid credentials in Authorization header")
            return
        routes = (
            (r"POST /api/repos/create", self._create),
            (r"POST /api/validate-yaml", self._validate),
            (r"GET /api/whoami-v2", self._whoami),
            (r"POST /(datasets/)?(?P<name>[^/]+/[^/]+)\.git/info/lfs/objects/batch", self._batch),
            (r"PUT /lfs/(?P<oid>\w+)(/(?P<part>\d+))?", self._store),
            (r"POST /lfs/(?P<oid>\w+)/complete", self._complete),
            (r"GET /lfs/(?P<oid>\w+)", self._fetch),
            (r"\w+ /api/(?P<kind>model|dataset)s/(?P<name>[^/]+/[^/]+)(/(?P<rest>.*))?", self._repository),
            (r"\w+ /(?P<kind>datasets/)?(?P<name>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<file>.+)", self._resolve),
        )
        for pattern, handler in routes:
            if found := re.fullmatch(pattern, f"{self.command} {self.asked_path}"):
                handler(**{name: value for name, value in found.groupdict().items() if value is not None})
                return
        self.fail(404)

    @property
    def _account(self) -> Account | None:
        return self.hub.accounts.get(self.headers.get("Authorization", "").removeprefix("Bearer "))

    def _whoami(self) -> None:
        self.send_json(self._account.to_json()) if self._account else self.fail(401)

    def _create(self) -> None:
        asked = json.loads(self.content)
        owner = asked["organization"] or (self._account.name if self._account else "")
        name, kind = f"{owner}/{asked['name']}", asked.get("type", "model")
        url = f"{self.hub.url}/{KINDS[kind]}{name}"
        if self._account is None:
            self.fail(401)
        elif not self._account.may_write(name):
            self.fail(403)
        elif not is_name(asked["name"]):
            self.fail(400)
        elif (kind, name) in self.hub.repositories:
            self.send_json({"error": "You already created this model repo", "url": url}, 409)
        else:
            self.hub.add(name, kind, private=asked.get("visibility") == "private")
            self.send_json({"url": url, "name": name})

    def _validate(self) -> None:
        problems = [{"message": text} for text in card_problems(json.loads(self.content)["content"])]
        self.send_json({"errors": problems, "warnings": []}, 400 if problems else 200)

    def _found(self, kind: str, name: str) -> Repository | None:
        """The repository, as far as the account may know of it; the answer is given where it may not."""
        found = self.hub.repositories.get((kind, name))
        account = self._account
        if found is None or (found.private and not (account and account.may_write(name))):
            self.fail(404 if account else 401, "RepoNotFound")
            return None
        return found

    def _repository(self, kind: str, name: str, rest: str = "") -> None:
        found = self._found(kind, name)
        if found is None:
            return
        action, _, revision = rest.partition("/")
        revision = unquote(revision) or "main"
        if self.command in ("POST", "PUT"):
            self._change(found, action, revision)
        elif action == "refs":
            self.send_json(_refs(found))
        elif found.oid(revision) is None:
            self.fail(404, "RevisionNotFound")
        elif action == "tree":
            self.send_json([entry(path, content) for path, content in found.files(revision).items()])
        else:
            siblings = [{"rfilename": path} for path in found.files(revision)]
            about = {"id": name, "sha": found.oid(revision), "private": found.private, "gated": found.gated}
            self.send_json({**about, "siblings": siblings})

    def _change(self, found: Repository, action: str, revision: str) -> None:
        # Anybody with an account may propose a change.
        proposed = "create_pr" in self.query
        if not self._account or not (proposed or self._account.may_write(found.name)):
            self.fail(403 if self._account else 401)
        elif action == "settings":
            found.gated = json.loads(self.content).get("gated", found.gated)
            self.send_json({})
        elif action == "branch":
            found.refs.setdefault(revision, found.refs["main"])
            self.send_json({})
        elif found.oid(revision) is None:
            self.fail(404, "RevisionNotFound")
        elif action == "preupload":
            self._preupload(found, revision)
        else:
            self._commit(found, revision, proposed=proposed)

    def _preupload(self, found: Repository, revision: str) -> None:
        files = found.files(revision)
        answer = [
            {
                "path": asked["path"],
                "uploadMode": "lfs" if is_large(asked["path"], asked["size"]) else "regular",
                "shouldIgnore": False,
                "oid": _remote_oid(asked["path"], files.get(asked["path"])),
            }
            for asked in json.loads(self.content)["files"]
        ]
        self.send_json({"files": answer})

    def _commit(self, found: Repository, revision: str, *, proposed: bool) -> None:
        lines = [json.loads(line) for line in self.content.splitlines()]
        header = lines[0]["value"]
        parent = header.get("parentCommit", found.oid(revision))
        large = [line["value"] for line in lines if line["key"] == "lfsFile"]
        if not proposed and parent != found.oid(revision):
            self.fail(412)
            return
        if any(file["oid"] not in self.hub.stored for file in large):
            self.fail(400)
            return
        files = {file["path"]: self.hub.stored[file["oid"]] for file in large}
        files |= {
            line["value"]["path"]: base64.b64decode(line["value"]["content"]) for line in lines if line["key"] == "file"
        }
        page = f"{self.hub.url}/{found.name}"
        answer: dict[str, Any] = {"success": True}
        if proposed:
            number, oid = found.open_pull_request(files, parent)
            answer["pullRequestUrl"] = f"{page}/discussions/{number}"
        else:
            oid = found.commit(files, revision)
        self.send_json({**answer, "commitOid": oid, "commitUrl": f"{page}/commit/{oid}"})

    def _batch(self, name: str) -> None:
        if self._account is None or self._found("model", name) is None:
            return
        objects = [
            {**asked, "actions": {"upload": self._upload(asked["oid"], asked["size"])}}
            if asked["oid"] not in self.hub.stored
            else asked
            for asked in json.loads(self.content)["objects"]
        ]
        self.send_json({"transfer": "basic", "objects": objects})

    def _upload(self, oid: str, size: int) -> dict[str, Any]:
        place, part_bytes = f"{self.hub.url}/lfs/{oid}", self.hub.part_bytes
        if not part_bytes:
            return {"href": place}
        parts = {str(number + 1): f"{place}/{number + 1}" for number in range(-(-size // part_bytes))}
        return {"href": f"{place}/complete", "header": {"chunk_size": str(part_bytes), **parts}}

    def _store(self, oid: str, part: str = "") -> None:
        if part and self.hub.forgetful:
            self.hub.hashed.setdefault(oid, hashlib.sha256()).update(self.content)  # they come in order
            self.send(200, b"", {"ETag": f'"{part}"'})
            return
        digest = hashlib.sha256(self.content).hexdigest()
        if part:
            self.hub.parts.setdefault(oid, {})[int(part)] = self.content
        elif digest != oid:
            self.fail(400)
            return
        else:
            self.hub.stored[oid] = self.content
        self.send(200, b"", {"ETag": f'"{digest}"'})

    def _complete(self, oid: str) -> None:
        content = b"".join(content for _, content in sorted(self.hub.parts.pop(oid, {}).items()))
        found = self.hub.hashed.pop(oid, None) or hashlib.sha256(content)
        if found.hexdigest() != oid:
            self.fail(400)
            return
        self.hub.stored[oid] = content
        self.send_json({})

    def _resolve(self, name: str, revision: str, file: str, kind: str = "") -> None:
        found = self._found("dataset" if kind else "model", name)
        if found is None:
            return
        account = self._account
        let_in = account and (account.may_write(name) or account.name in found.readers)
        oid, path = found.oid(unquote(revision)), unquote(file)
        if found.gated and not let_in:
            self.fail(403 if account else 401, "GatedRepo")
        elif oid is None:
            self.fail(404, "RevisionNotFound")
        elif path not in found.commits[oid]:
            self.fail(404, "EntryNotFound")
        else:
            self._send_file(oid, entry(path, found.commits[oid][path]), found.commits[oid][path])

    def _send_file(self, commit: str, about: dict[str, Any], content: bytes) -> None:
        headers = {"X-Repo-Commit": commit, "ETag": f'"{about["oid"]}"'}
        if "lfs" not in about:
            self.send_bytes(content, headers)
            return
        oid = about["lfs"]["oid"]
        self.hub.stored.setdefault(oid, content)
        headers |= {"X-Linked-Etag": f'"{oid}"', "X-Linked-Size": str(about["size"])}
        # Another host, so that the client keeps the token to itself.
        store = self.hub.url.replace("127.0.0.1", "localhost")
        self.send(302, b"", headers | {"Location": f"{store}/lfs/{oid}"})

    def _fetch(self, oid: str) -> None:
        self.send_bytes(self.hub.stored[oid], {"ETag": f'"{oid}"'}) if oid in self.hub.stored else self.fail(404)


def _refs(found: Repository) -> dict[str, Any]:
    def listed(*, proposed: bool) -> list[dict[str, str]]:
        names = [name for name in found.refs if name.startswith("refs/pr/") is proposed]
        return [
            {"name": name, "ref": name if proposed else f"refs/heads/{name}", "targetCommit": found.refs[name]}
            for name in names
        ]

    return {"branches": listed(proposed=False), "converts": [], "tags": [], "pullRequests": listed(proposed=True)}


def _remote_oid(path: str, content: bytes | None) -> str | None:
    if content is None:
        return None
    about = entry(path, content)
    oid: str = about["lfs"]["oid"] if "lfs" in about else about["oid"]
    return oid
