"""A plain Dockerfile from the same locks, for those who build with their own tools."""

from __future__ import annotations

from typing import TYPE_CHECKING

from recipe_containers.archive import ENVIRONMENT
from recipe_containers.definition import FOLDER, SITE_PACKAGES, SOURCES, SUITE, USER, base_packages

if TYPE_CHECKING:
    from recipe_containers.definition import Definition

_TEXT = """\
# {title}, with the libraries that {lock} pins.
#
# Not reproducible to the bit: each build has other times, other Debian packages and another image ID, whatever the lock
# says. `recipe containers build {name}` builds the image that is. Build this one with the locks at hand:
#
#   recipe containers build {name} --dockerfile | docker build --tag recipe-{name} --file - {folder}
FROM debian:{suite}-slim AS libraries
RUN apt-get update && apt-get install --yes --no-install-recommends {packages} python3-pip
COPY {lock} /{lock}
RUN python3 -m pip install --no-cache-dir --require-hashes --no-deps --only-binary=:all: --no-binary={sources} \\
    --target {site} --requirement /{lock}

FROM debian:{suite}-slim
RUN apt-get update && apt-get install --yes --no-install-recommends {packages} && rm -rf /var/lib/apt/lists/*
COPY --from=libraries {site} {site}
ENV {environment}
LABEL recipe-engine.lock-sha256={digest}
USER {user}:{user}
WORKDIR /
"""


def dockerfile(definition: Definition) -> str:
    """The text. It needs Debian's Python to be the one that the lock is for."""
    return _TEXT.format(
        title=definition.title,
        name=definition.name,
        lock=definition.lock.name,
        digest=definition.lock_sha256,
        folder=FOLDER,
        sources=",".join(SOURCES),
        suite=SUITE,
        packages=" ".join(base_packages()),
        site=SITE_PACKAGES,
        environment=" \\\n    ".join(f"{name}={value}" for name, value in sorted(ENVIRONMENT.items())),
        user=USER,
    )
