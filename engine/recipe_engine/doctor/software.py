"""Probes of what is installed: Python, torch and the extras."""

from __future__ import annotations

import platform
import re
import sys
from importlib.metadata import PackageNotFoundError, distribution, requires, version
from pathlib import Path
from typing import TYPE_CHECKING

from recipe_engine.doctor.finding import Finding
from recipe_engine.lock import why_no_cuda

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

_DISTRIBUTION = "recipe-engine"
_NEEDED_EXTRA = "run"
_REQUIREMENT = re.compile(r"""(?P<package>[\w.-]+).*\bextra == ['"](?P<extra>[\w-]+)['"]""")
_INSTALL_RUN = 'Install it: pip install "recipe-engine[run]"'


def look_at_python() -> Sequence[Finding]:
    """The interpreter."""
    return [Finding("python", "ok", f"{platform.python_version()} ({sys.executable})")]


def look_at_torch() -> Sequence[Finding]:
    """Version of torch, what it was built for, and where a stage would run; torch is not imported."""
    try:
        found = distribution("torch")
    except PackageNotFoundError:
        return [Finding("torch", "problem", "torch is not installed", _INSTALL_RUN)]
    cuda = built_for(Path(str(found.locate_file("torch/version.py"))).read_text(encoding="utf-8"))
    build = f"torch {found.version}, built for {f'CUDA {cuda}' if cuda else 'the CPU'}"
    missing = why_no_cuda(torch_is_here=True)
    text = f"{build}; the device is {'cpu' if missing else 'cuda'}"
    if not cuda and Path("/proc/driver/nvidia/version").exists():
        public = found.version.partition("+")[0]
        mend = f'Install a build with CUDA: pip install --force-reinstall "torch=={public}"'
        return [Finding("torch", "warning", text, mend)]
    return [Finding("torch", "ok", text)]


def built_for(source: str) -> str:
    """The CUDA version in torch's own ``version.py``, ``""`` for a build without."""
    found = re.search(r"^cuda\b[^=\n]*= *'([\d.]+)'", source, re.MULTILINE)
    return found[1] if found else ""


def look_at_extras() -> Sequence[Finding]:
    """Which of this program's extras are installed whole."""
    missing = {extra: [name for name in names if not _is_here(name)] for extra, names in extras(_declared()).items()}
    here = [extra for extra, names in missing.items() if not names]
    gone = [f"{extra} ({', '.join(names)})" for extra, names in missing.items() if names]
    text = "; ".join(
        f"{label} {', '.join(found)}" for label, found in (("installed:", here), ("not installed:", gone)) if found
    )
    if missing.get(_NEEDED_EXTRA):
        return [Finding("extras", "problem", text, _INSTALL_RUN)]
    return [Finding("extras", "ok", text or "none")]


def extras(declared: Iterable[str]) -> Mapping[str, list[str]]:
    """Extra -> the packages that it adds, from the requirements of a distribution's metadata."""
    found: dict[str, list[str]] = {}
    for requirement in declared:
        match = _REQUIREMENT.match(requirement)
        if match and match["package"] != _DISTRIBUTION:
            found.setdefault(match["extra"], []).append(match["package"])
    return dict(sorted(found.items()))


def _declared() -> Sequence[str]:
    try:
        return requires(_DISTRIBUTION) or ()
    except PackageNotFoundError:  # run from a source tree that is not installed
        return ()


def _is_here(package: str) -> bool:
    try:
        version(package)
    except PackageNotFoundError:
        return False
    return True
