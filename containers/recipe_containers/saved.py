"""What an engine hands out when an image is saved: a tar stream whose every byte is checked as it passes."""

from __future__ import annotations

import hashlib
import io
import json
import posixpath
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

from recipe_containers.errors import ImageDiffers
from recipe_containers.layers import BLOCK, Layer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

_MANIFEST = "manifest.json"
_SMALL = 1 << 20
"""Bytes; configurations and manifests are smaller, and are needed whole."""
_INCOMING = "incoming"


@dataclass(frozen=True, slots=True)
class Saved:
    """An image as the stream has it.

    Attributes:
        image_id: digest of its configuration, recomputed.
        config: the configuration's bytes.
        layers: the lowest first; digests recomputed, files only where the stream was kept.
    """

    image_id: str
    config: bytes
    layers: tuple[Layer, ...]


class _Stream:
    """Blocks of bytes as the file that ``tarfile`` reads."""

    def __init__(self, blocks: Iterable[bytes], passed: Callable[[int], None]) -> None:
        self._blocks: Iterator[bytes] = iter(blocks)
        self._rest = b""
        self._passed = passed

    def read(self, size: int) -> bytes:
        while len(self._rest) < size and (block := next(self._blocks, b"")):
            self._rest += block
            self._passed(len(block))
        taken, self._rest = self._rest[:size], self._rest[size:]
        return taken


def read_saved(blocks: Iterable[bytes], folder: Path | None, passed: Callable[[int], None]) -> Saved:
    """Recompute every digest of an image.

    Args:
        blocks: what the engine sends, or an archive's bytes.
        folder: where layers are kept, each in a file named by its digest; ``None`` keeps none.
        passed: is called with the number of bytes of each block.

    Raises:
        ImageDiffers: the stream is not one whole image.
    """
    digests: dict[str, tuple[str, int]] = {}
    small: dict[str, bytes] = {}
    try:
        with tarfile.open(fileobj=_Stream(blocks, passed), mode="r|", bufsize=BLOCK) as archive:  # type: ignore[call-overload]
            for member in archive:
                if member.isreg():
                    digests[member.name], small[member.name] = _take(archive.extractfile(member), member, folder)
                elif member.issym():
                    # Engines store a layer that occurs twice once, and link to it.
                    digests[member.name] = digests[_target(member)]
        (entry,) = json.loads(small[_MANIFEST])
        config = small[entry["Config"]]
        layers = tuple(_layer(*digests[name], folder) for name in entry["Layers"])
    except (tarfile.TarError, KeyError, ValueError) as error:
        raise ImageDiffers(f"What the engine sent is not one image: {error!r}.", "Try it again.") from None
    return Saved(f"sha256:{hashlib.sha256(config).hexdigest()}", config, layers)


def _take(stream: IO[bytes] | None, member: tarfile.TarInfo, folder: Path | None) -> tuple[tuple[str, int], bytes]:
    """Digest and size of a member; its bytes too where they are few."""
    assert stream is not None
    digest = hashlib.sha256()
    content = b""
    with (folder / _INCOMING).open("wb") if folder else io.BytesIO() as sink:
        while block := stream.read(BLOCK):
            digest.update(block)
            if folder:
                sink.write(block)
            if member.size <= _SMALL:
                content += block
    name = f"sha256:{digest.hexdigest()}"
    if folder:
        (folder / _INCOMING).rename(folder / name)
    return (name, member.size), content


def _target(member: tarfile.TarInfo) -> str:
    return posixpath.normpath(posixpath.join(posixpath.dirname(member.name), member.linkname))


def _layer(digest: str, size: int, folder: Path | None) -> Layer:
    return Layer((folder or Path()) / digest, digest, size, "")
