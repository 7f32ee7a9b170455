"""The base of an image, by Debian's own tool."""

from __future__ import annotations

from pathlib import Path

import pytest

from recipe_containers.debian import make_base
from recipe_containers.errors import BuildFailed
from recipe_containers.progress import silent

pytestmark = pytest.mark.slow


@pytest.mark.network
def test_made_twice_it_is_the_same(tmp_path: Path) -> None:
    digests = []
    for name in ("one", "two"):
        work = tmp_path / name
        work.mkdir()
        base = make_base(work, (), silent)
        digests.append(base.layers[0].digest)
        assert all(package.sha256 for package in base.packages)
        base.layers[0].path.unlink()
    assert digests[0] == digests[1]


def test_a_mirror_that_does_not_answer(tmp_path: Path) -> None:
    with pytest.raises(BuildFailed, match=r"mmdebstrap could not install Debian: .*--base"):
        make_base(tmp_path, ["deb http://127.0.0.1:9/debian bookworm main"], silent)
