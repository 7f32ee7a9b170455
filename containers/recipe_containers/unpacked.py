"""The part of an image's system that its Python needs to run, unpacked."""

from __future__ import annotations

import re
import tarfile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from recipe_containers.layers import Layer

_NEEDED = re.compile(
    r"(lib|lib64|usr/lib64)(/.*)?|usr/(local/)?bin/python[0-9.]*|usr/(local/)?lib/(python3[0-9.]*/.*|[^/]*\.so[^/]*)"
    r"|usr/lib/x86_64-linux-gnu/[^/]*\.so[^/]*"
)


def unpack_python(layers: Sequence[Layer], root: Path) -> None:
    """Lay out interpreter, standard library and loader of a system.

    Args:
        layers: of the system, the lowest first.
        root: an empty folder.
    """
    for layer in layers:
        with tarfile.open(layer.path) as archive:
            for member in archive:
                member.name = member.name.removeprefix("./")
                if _NEEDED.fullmatch(member.name) and not member.isdev() and not member.linkname.startswith("/"):
                    archive.extract(member, root, filter="tar")
