"""Everything the registry can report that is not a bug.

::

    RegistryError              exit 8   the base; also raised itself for a home that makes no sense
    ├── DamagedArtifact        exit 8   an artifact on disk is not what its digest says
    │   └── MissingArtifact    exit 8   there is no artifact of this digest
    ├── DamagedRun             exit 8   a run record cannot be read
    ├── NewerFormat            exit 8   written by a later version of this program
    ├── RefusedArchive         exit 8   an archive is not what an export writes
    ├── DamagedRemote          exit 8   a remote holds something else than it says
    ├── RefusedArtifact        exit 5   a producer left something that cannot become an artifact
    ├── DamagedName            exit 8   a named result cannot be read
    ├── UnknownName            exit 2   no result has this name and version
    ├── NameTaken              exit 2   the version stands for another result
    ├── UnknownRun             exit 2   no run has this id
    ├── AmbiguousRun           exit 2   several runs begin like this
    ├── UnknownArtifact        exit 2   no artifact has this digest, or several begin like this
    ├── RemoteUnreachable      exit 3   a remote does not answer, or refuses
    ├── BusyRun                exit 2   the run is still running
    ├── InvalidTag             exit 2   this cannot be a tag
    ├── IndexUnavailable       exit 4   the database of the run index cannot be used
    └── StoreNotWritable       exit 4   a read-only or full disk
"""

from __future__ import annotations

import errno
from contextlib import contextmanager
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# What to do about each errno that means "the store cannot be written", as opposed to a bug of ours.
WRITE_HINTS = {
    errno.EROFS: "The file system is read-only: point RECIPE_HOME at a folder that can be written.",
    errno.EACCES: "Give this user write permission, or point RECIPE_HOME at a folder that can be written.",
    errno.EPERM: "Give this user write permission, or point RECIPE_HOME at a folder that can be written.",
    errno.ENOSPC: "The disk is full: free some space or point RECIPE_HOME at another disk, then run again.",
    errno.EDQUOT: "The quota is used up: free some space or point RECIPE_HOME elsewhere, and run again.",
}


class RegistryError(Exception):
    """Base of every registry error that is not a bug.

    Args:
        message: what happened, in one sentence.
        hint: what to do about it.
    """

    exit_code: ClassVar[int] = 8

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} {self.hint}" if self.hint else self.message


class DamagedArtifact(RegistryError):
    """An artifact on disk is not what its digest says. The message names the file and what differs."""


class MissingArtifact(DamagedArtifact):
    """The registry holds no artifact of this digest."""


class DamagedRun(RegistryError):
    """A run record exists but cannot be read."""


class NewerFormat(RegistryError):
    """A file was written by a later version of this program, so this one must not interpret it."""


class RefusedArchive(RegistryError):
    """An archive is not what an export writes; nothing of it was taken. The message names the member."""


class DamagedRemote(RegistryError):
    """A remote holds something else than it says. The message names the file; nothing of it was taken."""


class RemoteUnreachable(RegistryError):
    """A remote does not answer, or refuses."""

    exit_code = 3


class UnknownArtifact(RegistryError):
    """What a user named is the digest of no artifact, or the beginning of several."""

    exit_code = 2


class RefusedArtifact(RegistryError):
    """A producer left something in its output directory that cannot become an artifact."""

    exit_code = 5


class DamagedName(RegistryError):
    """A named result exists but cannot be read."""


class UnknownName(RegistryError):
    """No result has this name, or none this version."""

    exit_code = 2


class NameTaken(RegistryError):
    """A version stands for another result already; it never changes."""

    exit_code = 2


class UnknownRun(RegistryError):
    """No run has this id, or none begins with this prefix."""

    exit_code = 2


class AmbiguousRun(RegistryError):
    """Several runs begin with this prefix: the message lists them."""

    exit_code = 2


class BusyRun(RegistryError):
    """The run is still running, in this process or another one."""

    exit_code = 2


class InvalidTag(RegistryError):
    """This cannot be a tag of a run."""

    exit_code = 2


class IndexUnavailable(RegistryError):
    """The database of the run index cannot be reached or used. What it holds can be had from the runs as well."""

    exit_code = 4


class StoreNotWritable(RegistryError):
    """The store cannot be written: a read-only or full disk, or missing permission."""

    exit_code = 4

    @classmethod
    def from_os_error(cls, path: Path, error: OSError) -> StoreNotWritable:
        """Say which path failed and what to do; ``error.errno`` is one of ``WRITE_HINTS``."""
        reason = (error.strerror or str(error)).lower()
        return cls(f"{path} cannot be written: {reason}.", WRITE_HINTS[error.errno or 0])


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn an ``OSError`` that means "cannot be written" into one that tells the user what to do.

    Raises:
        StoreNotWritable: the body raised EROFS, EACCES, EPERM, ENOSPC or EDQUOT.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in WRITE_HINTS:
            raise
        raise StoreNotWritable.from_os_error(path, error) from error
