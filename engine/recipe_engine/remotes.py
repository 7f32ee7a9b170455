"""The remote of a registry: opening one, and taking from it what was computed elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

from recipe_engine.errors import InvalidArguments, UnfitEnvironment
from recipe_registry.errors import RemoteUnreachable
from recipe_registry.remote import Remote, shown
from recipe_registry.sync import pull_key

if TYPE_CHECKING:
    from collections.abc import Callable

    from recipe_registry import Registry

REMOTE_VARIABLE = "RECIPE_REMOTE"
_INSTALL = {
    "s3": '"recipe-engine[s3]"',
    "s3a": '"recipe-engine[s3]"',
    "gs": "gcsfs",
    "gcs": "gcsfs",
    "az": "adlfs",
    "abfs": "adlfs",
    "sftp": "paramiko",
    "ssh": "paramiko",
}


def open_remote(url: str) -> Remote:
    """Open a remote; it is not asked for anything yet.

    Args:
        url: of any file system of fsspec, such as ``s3://bucket/folder``. Credentials come from the environment or the
            configuration of the library behind it.

    Raises:
        InvalidArguments: there is no such kind of remote.
        UnfitEnvironment: its library is not installed.
        RemoteUnreachable: the library refuses the address or its own configuration.
    """
    import fsspec

    protocol = url.partition("://")[0] if "://" in url else "file"
    name = shown(url)
    try:
        file_system, root = fsspec.core.url_to_fs(url, use_listings_cache=False, skip_instance_cache=True)
    except ImportError:
        package = _INSTALL.get(protocol, protocol)
        raise UnfitEnvironment(
            f"{name}: the library for {protocol}:// is not installed.", f"Install it: pip install {package}"
        ) from None
    except ValueError:
        hint = "Give an address such as s3://bucket/folder, gs://, hf:// or file:///folder."
        raise InvalidArguments(f"{name} is the address of no kind of remote.", hint) from None
    except Exception as error:
        message = f"{name} cannot be opened: {type(error).__name__}."
        raise RemoteUnreachable(message, "Look at its address and the login.") from error
    return Remote(file_system, root, url)


class ReadThrough:
    """A remote that a run takes results from, until it is found to be out of reach.

    Args:
        registry: where they go.
        url: of the remote; ``""`` for none.
    """

    def __init__(self, registry: Registry, url: str) -> None:
        self._registry = registry
        self._url = url
        self._remote: Remote | None = None

    def take(self, key: str, say: Callable[[str], None]) -> bool:
        """Whether the artifact of a key could be had.

        Args:
            key: of a node.
            say: called with a line for the person who watches.

        Raises:
            DamagedRemote: it holds something else than it says; the message names the file.
            NewerFormat: a later version of this program wrote it.
            UnfitEnvironment: its library is not installed.
            InvalidArguments: there is no such kind of remote.
        """
        if not self._url:
            return False
        try:
            if self._remote is None:
                self._remote = open_remote(self._url)
                self._remote.check()
            found = pull_key(self._registry, self._remote, key)
        except RemoteUnreachable as error:
            self._url = ""
            say(f"warning: {error.message} The run goes on without it.")
            return False
        if found is None:
            return False
        say(f"taken from {self._remote.name}, where run {found.run} made it")
        return True
