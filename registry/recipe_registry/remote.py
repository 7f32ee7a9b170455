"""A registry's copy somewhere else: any file system of fsspec, with everything in it addressed by content.

::

    format.json                       the version of this layout
    blobs/sha256/<2 digits>/<hex>     the bytes of files
    artifacts/sha256-<hex>.json       manifests, each written after its blobs
    keys/<hex>.json                   records of keys, each written after its artifact
    further/<hex>.<hex>.json          records of other artifacts of a key, which is the first half
    runs/<id>/manifest.json           which files a run has; their bytes are blobs

What can be reached from what is visible is always complete, so any number of writers may be at work.
"""

from __future__ import annotations

import os
import re
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recipe_registry import documents
from recipe_registry.digests import CHUNK_BYTES
from recipe_registry.errors import DamagedRemote, RegistryError, RemoteUnreachable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

FORMAT_FILE = "format.json"
BATCH = 500
_LOCAL = ("file", "local")
# Folders do not exist there: making one would at best do nothing, at worst make a bucket.
_OBJECT_STORES = frozenset({"s3", "s3a", "gs", "gcs", "hf", "az", "abfs", "adl", "oss", "memory"})
_USER = re.compile(r"(\w+://)([^/@\s]*|[^@\s]*:[^@\s]*)@")
_VALUE = re.compile(
    r"(?i)((?:key|token|secret|password|signature|credential)[\w-]*[\"']?\s*[=:]\s*[\"']?)[^\s\"'&,;<]+"
)
_SECRET_NAME = re.compile(r"(?i)key|token|secret|password|credential")
MAX_REASON = 300
MIN_SECRET = 4


class Remote:
    """An opened remote.

    Args:
        file_system: of fsspec.
        root: the folder in it.
        url: of the remote; what may be a credential in it is in no message.
    """

    def __init__(self, file_system: Any, root: str, url: str) -> None:
        protocol = file_system.protocol
        self._protocols = {protocol} if isinstance(protocol, str) else set(protocol)
        self._fs = file_system
        self._root = root.rstrip("/")
        self._secrets = _secrets_of(url)
        self.name = shown(url)

    def check(self) -> bool:
        """Whether there is anything of ours.

        Raises:
            NewerFormat: a later version of this program wrote it.
            DamagedRemote: its marker is unreadable.
            RemoteUnreachable: it does not answer, or refuses.
        """
        data = self.read(FORMAT_FILE)
        if data is None:
            return False
        try:
            documents.parse(data, Path(FORMAT_FILE))
        except ValueError as error:
            raise self.damaged(FORMAT_FILE, f"cannot be used: {error}") from error
        return True

    def mark(self) -> None:
        """Make an empty place a remote.

        Raises:
            RegistryError: see :meth:`check`.
        """
        if not self.check():
            self.write(FORMAT_FILE, documents.encode_file({"schema_version": documents.SCHEMA_VERSION}))

    def size(self, path: str) -> int | None:
        """Bytes of a file, None where there is none."""
        with self._reaching():
            try:
                return int(self._fs.info(self._at(path))["size"])
            except FileNotFoundError:
                return None

    def read(self, path: str) -> bytes | None:
        """The content of a small file, None where there is none."""
        with self._reaching():
            try:
                return bytes(self._fs.cat_file(self._at(path)))
            except FileNotFoundError:
                return None

    def read_many(self, paths: Iterable[str]) -> Iterator[tuple[str, bytes]]:
        """Paths and contents of small files, many requests at once where the file system can; missing ones left out."""
        waiting = list(paths)
        for start in range(0, len(waiting), BATCH):
            places = {self._fs._strip_protocol(self._at(path)): path for path in waiting[start : start + BATCH]}  # noqa: SLF001  # what fsspec's own keys are
            with self._reaching():
                found = self._fs.cat(list(places), on_error="omit")
            yield from ((places[place], found[place]) for place in places if place in found)

    def chunks(self, path: str) -> Iterator[bytes]:
        """The content of a file in pieces.

        Raises:
            DamagedRemote: there is none.
        """
        with self._reaching():
            try:
                with self._fs.open(self._at(path), "rb") as file:
                    while chunk := file.read(CHUNK_BYTES):
                        yield chunk
            except FileNotFoundError:
                raise self.damaged(path, "is missing") from None

    def names(self, folder: str) -> list[str]:
        """Names in a folder, sorted; none where there is no folder."""
        with self._reaching():
            try:
                found = self._fs.ls(self._at(folder), detail=False)
            except FileNotFoundError:
                return []
        return sorted(name for path in found if (name := str(path).rstrip("/").rpartition("/")[2]) != folder)

    def write(self, path: str, data: bytes) -> None:
        """Write a small file: all of it, or nothing."""
        with self._placing(path) as place:
            self._fs.pipe_file(place, data)

    def upload(self, path: str, source: Path) -> None:
        """Write a file: all of it, or nothing."""
        with self._placing(path) as place:
            self._fs.put_file(str(source), place)

    def damaged(self, path: str, what: str) -> DamagedRemote:
        """The error of a file that is not what it should be."""
        hint = "Nothing of it was taken. Push it again from a registry that has it."
        return DamagedRemote(f"{self.name}/{path} {what}.", hint)

    def refused(self, file: str, what: str) -> DamagedRemote:
        """The error of bytes that arrived and are not those that were asked for."""
        hint = "Nothing of it was taken. Push it again from a registry that has it."
        return DamagedRemote(f"{self.name} sent something wrong: {file} {what}.", hint)

    @contextmanager
    def _placing(self, path: str) -> Iterator[str]:
        """Where to write. An object store shows an object once it is whole; elsewhere a rename has to see to that."""
        place = self._at(path)
        with self._reaching():
            if self._protocols & _OBJECT_STORES:
                yield place
                return
            self._fs.makedirs(place.rpartition("/")[0], exist_ok=True)
            temporary = f"{place}.{os.getpid()}-{os.urandom(4).hex()}.tmp"
            try:
                yield temporary
                if self._protocols & set(_LOCAL):
                    Path(temporary).replace(place)
                else:
                    self._fs.mv(temporary, place)
            except BaseException:
                self._remove_quietly(temporary)
                raise

    def _remove_quietly(self, place: str) -> None:
        try:
            self._fs.rm_file(place)
        except Exception:  # noqa: BLE001  # what failed before is what the user must hear of
            return

    @contextmanager
    def _reaching(self) -> Iterator[None]:
        """File systems raise what their libraries raise: each of them means that the remote could not be used."""
        try:
            yield
        except RegistryError:
            raise
        except Exception as error:
            message = f"{self.name} cannot be reached: {self._reason(error)}."
            raise RemoteUnreachable(message, "Look at its address, the network and the login.") from error

    def _reason(self, error: Exception) -> str:
        """What a library says, in one line and without what may be a credential."""
        text = " ".join(str(error).split()).rstrip(".")
        for secret in self._secrets:
            text = text.replace(secret, "***")
        text = _VALUE.sub(r"\1***", _USER.sub(r"\1", text))[:MAX_REASON]
        kind = type(error).__name__
        return f"{kind}: {text}" if text else kind

    def _at(self, path: str) -> str:
        return f"{self._root}/{path}"


def shown(url: str) -> str:
    """A remote's address without what may be a credential: no user, no query."""
    return _USER.sub(r"\1", url.partition("?")[0].partition("#")[0]).rstrip("/")


def blob(sha256: str) -> str:
    """Where the bytes of a digest are."""
    return f"blobs/sha256/{sha256[:2]}/{sha256}"


def _secrets_of(url: str) -> list[str]:
    """What may be a credential in an address and among the variables, the longest first."""
    user = _USER.match(url)
    names = user.group(2) if user else ""
    values = [pair.partition("=")[2] for pair in url.partition("?")[2].split("&")]
    variables = [
        value for name, value in os.environ.items() if _SECRET_NAME.search(name) and len(value) >= 2 * MIN_SECRET
    ]
    found = [names, *names.split(":"), *values, *variables]
    return sorted({text for text in found if len(text) >= MIN_SECRET}, key=len, reverse=True)
