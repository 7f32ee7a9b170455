"""Compile a part of a tree of modules, in one fixed order. The image's own Python runs this file as a script.

What is compiled never looks at its source again: an image does not change, and its clocks mean nothing.
"""

from __future__ import annotations

import py_compile
import sys
import warnings
from pathlib import Path


def compile_tree(root: str, place: str, parts: list[str]) -> None:
    """Write the bytecode of each module below a part, where Python looks for it.

    Args:
        root: the folder.
        place: what the folder is called when the bytecode is used: tracebacks name it.
        parts: names in the folder, packages and modules.
    """
    for part in parts:
        path = Path(root, part)
        for module in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            if "tests" not in module.parts:
                _compile(module, f"{place}/{module.relative_to(root)}")


def _compile(module: Path, name: str) -> None:
    mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
    try:
        py_compile.compile(str(module), dfile=name, doraise=True, invalidation_mode=mode)
    except py_compile.PyCompileError:
        return  # a template, or for another Python: who imports it is told then


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    compile_tree(sys.argv[1], sys.argv[2], sys.argv[3:])
