"""Bytecode for what is in an image, made by the image's own Python on this machine.

Without it every stage would compile some four thousand modules anew, since a container's root is read-only: torch and
transformers then take 21 seconds to import instead of 7.
"""

from __future__ import annotations

import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from recipe_containers.definition import PYTHON, SITE_PACKAGES
from recipe_containers.errors import BuildFailed

if TYPE_CHECKING:
    from recipe_containers.progress import Tell

_LOADER = "ld-linux-x86-64.so.2"
_LIBRARIES = ("lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu", "usr/local/lib", "usr/lib64", "usr/lib")
_PREFIXES = ("usr", "usr/local")


@dataclass(frozen=True, slots=True)
class Interpreter:
    """The Python of an unpacked system, started by that system's own loader: no root, no container is needed.

    Attributes:
        command: what its arguments follow.
        environment: all that it is given.
    """

    command: tuple[str, ...]
    environment: tuple[tuple[str, str], ...]


def find_interpreter(root: Path) -> Interpreter:
    """The Python of the system in ``root``.

    Raises:
        BuildFailed: it has none of the right version.
    """
    loader = next((root / each / _LOADER for each in _LIBRARIES if (root / each / _LOADER).is_file()), None)
    prefix = next((root / each for each in _PREFIXES if (root / each / f"bin/python{PYTHON}").is_file()), None)
    if prefix is None or loader is None:
        hint = f"Name one that has Debian's or python.org's Python {PYTHON} for x86-64."
        raise BuildFailed(f"The base has no Python {PYTHON}.", hint)
    libraries = ":".join(str(root / each) for each in _LIBRARIES)
    command = (str(loader), "--library-path", libraries, str(prefix / f"bin/python{PYTHON}"), "-B", "-s", "-S")
    return Interpreter(command, (("PYTHONHOME", str(prefix)), ("PYTHONHASHSEED", "0"), ("LC_ALL", "C.UTF-8")))


def compile_libraries(folder: Path, interpreter: Interpreter, tell: Tell) -> None:
    """Compile every package in ``folder``, on all processors.

    Each package has a process of its own: what an interpreter did before shows in the bytes of what it compiles.

    Raises:
        BuildFailed: the interpreter does not run here.
    """
    packages = sorted(path.name for path in folder.iterdir() if path.is_dir() or path.suffix == ".py")
    sizes = {name: _modules(folder / name) for name in packages}
    total = sum(sizes.values())
    done = 0
    tell("compiling libraries", done, total)
    # The largest first, so that none of them is left for the end.
    order = sorted(packages, key=lambda name: -sizes[name])
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        for name, _ in zip(order, pool.map(lambda name: _compile(folder, name, interpreter), order), strict=True):
            done += sizes[name]
            tell("compiling libraries", done, total)


def _modules(path: Path) -> int:
    return sum(1 for _ in path.rglob("*.py")) if path.is_dir() else 1


def _compile(folder: Path, name: str, interpreter: Interpreter) -> None:
    script = str(Path(__file__).with_name("compile_tree.py"))
    command = [*interpreter.command, script, str(folder), SITE_PACKAGES, name]
    done = subprocess.run(command, env=dict(interpreter.environment), capture_output=True, check=False)
    if done.returncode:
        reason = done.stderr.decode(errors="replace").strip().splitlines()
        raise BuildFailed(
            f"The Python of the base does not run on this machine: {reason[-1] if reason else done.returncode}.",
            "Build on Linux on x86-64.",
        )
