"""What the contract Hub holds: repositories with commits and branches, accounts, files by their sha256."""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml
from tests.hub.server import git_oid

LARGE = (".safetensors", ".gguf", ".bin", "tokenizer.json")
"""Ends of the names of files that are kept by their sha256."""
LICENSES = ("apache-2.0", "mit", "llama2", "cc-by-4.0", "other")
_NAME = re.compile(r"(?!.*(?:--|\.\.|\.git$))[\w-][\w.-]{0,95}(?<![.-])", re.ASCII)
_LANGUAGE = re.compile(r"[a-z]{2,3}(-[A-Za-z0-9]+)*|multilingual|code")
_REPOSITORY = re.compile(r"([\w.-]+/)?[\w.-]+", re.ASCII)

Tree = Mapping[str, bytes]


@dataclass
class Account:
    """Who a token belongs to, and what it may do.

    Attributes:
        name: of the account; its own namespace.
        role: of the token: ``read``, ``write`` or ``fineGrained``.
        scopes: of a fine-grained token: namespace or repository -> permissions.
        organizations: that it may write in.
    """

    name: str
    role: str = "write"
    scopes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    organizations: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The answer of ``whoami-v2``."""
        token: dict[str, Any] = {"displayName": "test", "role": self.role}
        if self.role == "fineGrained":
            scoped = [
                {"entity": {"type": "user", "name": name}, "permissions": list(permissions)}
                for name, permissions in self.scopes.items()
            ]
            token["fineGrained"] = {"scoped": scoped, "global": []}
        organizations = [{"type": "org", "name": name, "roleInOrg": "write"} for name in self.organizations]
        return {"type": "user", "name": self.name, "orgs": organizations, "auth": {"accessToken": token}}

    def may_write(self, repository: str) -> bool:
        """Whether the token may write into a repository."""
        owner = repository.partition("/")[0]
        if self.role == "fineGrained":
            granted = (*self.scopes.get(owner, ()), *self.scopes.get(repository, ()))
            return "repo.write" in granted
        return self.role == "write" and owner in (self.name, *self.organizations)


@dataclass
class Repository:
    """Files in commits.

    Attributes:
        name: ``owner/name``.
        kind: ``model`` or ``dataset``.
        commits: oid -> its files.
        refs: ``main``, other branches, ``refs/pr/1`` -> oid.
        gated: ``auto`` or ``manual`` where who wants to read the files must ask; ``False`` where not.
        readers: names of those who were let in.
    """

    name: str
    kind: str = "model"
    private: bool = False
    gated: str | bool = False
    readers: tuple[str, ...] = ()
    commits: dict[str, Tree] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def __post_init__(self) -> None:
        self.commit({".gitattributes": b"*.safetensors filter=lfs\n"}, "main")

    def commit(self, files: Tree, ref: str) -> str:
        """Add files on top of a ref; the oid of the commit."""
        before = self.refs.get(ref, "")
        oid = hashlib.sha1(f"{self.kind}/{self.name}/{next(self._numbers)}/{before}".encode()).hexdigest()
        self.commits[oid] = {**self.commits.get(before, {}), **files}
        self.refs[ref] = oid
        return oid

    def open_pull_request(self, files: Tree, parent: str) -> tuple[int, str]:
        """Its number, and the oid of its commit."""
        number = sum(ref.startswith("refs/pr/") for ref in self.refs) + 1
        self.refs[f"refs/pr/{number}"] = parent
        return number, self.commit(files, f"refs/pr/{number}")

    def oid(self, revision: str) -> str | None:
        """The commit of a revision."""
        return revision if revision in self.commits else self.refs.get(revision)

    def files(self, revision: str = "main") -> Tree:
        """The files of a revision that exists."""
        oid = self.oid(revision)
        assert oid is not None, revision
        return self.commits[oid]


def is_large(path: str, size: int) -> bool:
    """Whether a file is kept by its sha256."""
    return size > 0 and (path.endswith(LARGE) or size > 10_000_000)


def entry(path: str, content: bytes) -> dict[str, Any]:
    """A file in the listing of a commit."""
    found: dict[str, Any] = {"type": "file", "path": path, "size": len(content), "oid": git_oid(content)}
    if is_large(path, len(content)):
        found["lfs"] = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 134}
    return found


def is_name(text: str) -> bool:
    """Whether a repository can be called so."""
    return _NAME.fullmatch(text) is not None


def card_problems(text: str) -> list[str]:
    """What the Hub refuses of a model card: its metadata, as far as these tests know the Hub's rules."""
    if not text.startswith("---\n"):
        return []
    try:
        data = yaml.safe_load(text.split("---\n")[1])
    except yaml.YAMLError as error:
        return [f"not YAML: {error}"]
    if not isinstance(data, dict):
        return ["metadata must be a mapping"]
    problems = []
    if data.get("license", "mit") not in LICENSES:
        problems.append(f'"license" must be one of {", ".join(LICENSES)}')
    problems += [f'"language" {name}' for name in _listed(data, "language") if not _LANGUAGE.fullmatch(str(name))]
    for key in ("base_model", "datasets"):
        names = [name for name in _listed(data, key) if not _REPOSITORY.fullmatch(str(name))]
        problems += [f'"{key}" {name}' for name in names]
    if not all(isinstance(tag, str) for tag in _listed(data, "tags")):
        problems.append('"tags" must be an array of strings')
    for model in data.get("model-index", []):
        problems += _index_problems(model)
    return problems


def _listed(data: Mapping[str, Any], key: str) -> list[Any]:
    value = data.get(key, [])
    return value if isinstance(value, list) else [value]


def _index_problems(model: Mapping[str, Any]) -> Iterator[str]:
    if not isinstance(model.get("name"), str):
        yield '"model-index[0].name" is required'
    for result in model.get("results", [None]):
        if not result or not result.get("task", {}).get("type"):
            yield '"model-index[0].results[0].task.type" is required'
            continue
        if not {"type", "name"} <= result.get("dataset", {}).keys():
            yield '"model-index[0].results[0].dataset" is incomplete'
        for metric in result.get("metrics", [{}]):
            if "type" not in metric or not isinstance(metric.get("value"), int | float):
                yield '"model-index[0].results[0].metrics[0]" is incomplete'
