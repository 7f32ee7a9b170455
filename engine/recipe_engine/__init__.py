"""The recipe engine: one file says how a model is fine-tuned; the engine makes it so, and proves it."""

from __future__ import annotations


def __getattr__(name: str) -> str:
    # importlib.metadata costs more than all of `recipe --help`, so the version is looked up when it is asked for.
    if name == "__version__":
        from importlib.metadata import PackageNotFoundError, version

        try:
            return version("recipe-engine")
        except PackageNotFoundError:  # a checkout on the path, not installed
            return "0+unknown"
    raise AttributeError(name)
