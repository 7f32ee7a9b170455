"""What ``recipe generate`` is asked, before any model is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

COMMAND = Path(sys.executable).parent / "recipe"


@pytest.mark.parametrize(("prompt", "given"), [(b"-", b"caf\xe9"), (b"caf\xe9", b"")])
def test_a_prompt_that_is_no_text(tmp_path: Path, prompt: bytes, given: bytes) -> None:
    command: list[str | bytes | Path] = [COMMAND, "generate", "latest", "--prompt", prompt]

    finished = subprocess.run(command, cwd=tmp_path, input=given, capture_output=True, check=False)

    assert finished.returncode == 2
    assert finished.stderr.decode().splitlines() == [
        "error: The prompt is not UTF-8.",
        "       Convert it, for example with iconv.",
    ]
