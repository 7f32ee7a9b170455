"""Progress bars of libraries, passed on to whoever watches the run."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from recipe_engine.contract import Reporter


@contextmanager
def bars_reported(reporter: Reporter) -> Iterator[None]:
    """For the time of the block, what transformers would draw in the terminal is reported instead."""
    from tqdm import tqdm
    from transformers import modeling_gguf_pytorch_utils
    from transformers.utils import logging

    class Bar(tqdm):
        def display(self, *_: Any, **__: Any) -> None:
            if self.total:
                reporter.progress(self.n, self.total, "tensors")

    # The GGUF reader takes its tqdm by name, past transformers' own hook.
    readers_tqdm = modeling_gguf_pytorch_utils.tqdm
    modeling_gguf_pytorch_utils.tqdm = Bar
    hook = logging.set_tqdm_hook(lambda _factory, args, kwargs: Bar(*args, **kwargs))
    try:
        yield
    finally:
        logging.set_tqdm_hook(hook)
        modeling_gguf_pytorch_utils.tqdm = readers_tqdm
