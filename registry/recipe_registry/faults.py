"""Steps at which a write can be made to fail, so that tests can prove crash safety in a real process.

Every step of a durable write passes ``fault_point(NAME)``. The environment variable ``RECIPE_FAULT`` makes
one fail:

- ``RECIPE_FAULT=file.synced`` kills the process with SIGKILL the first time that step is reached;
- ``RECIPE_FAULT=file.synced@3`` does so the third time;
- ``RECIPE_FAULT=file.synced:enospc`` (or ``file.synced@3:enospc``) raises ``OSError(ENOSPC)`` there instead.
"""

from __future__ import annotations

import errno
import os
import signal
from collections import Counter

FAULT_VARIABLE = "RECIPE_FAULT"
_passes: Counter[str] = Counter()


def fault_point(name: str) -> None:
    """Die or fail here if ``RECIPE_FAULT`` says so; otherwise do nothing. See the module's docstring.

    Raises:
        OSError: ENOSPC, where the variable asks for it.
    """
    wanted = os.environ.get(FAULT_VARIABLE)
    if not wanted:
        return
    place, _, kind = wanted.partition(":")
    target, _, nth = place.partition("@")
    if target != name:
        return
    _passes[name] += 1
    if _passes[name] != int(nth or 1):
        return
    if kind == "enospc":
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    os.kill(os.getpid(), signal.SIGKILL)  # pragma: no cover -- nobody is left to count it
