"""What a training costs: parameters, memory, time."""

from __future__ import annotations

import resource
import time
from typing import Any


class Usage:
    """Measures from its creation to :meth:`report`. Nothing here enters a key or an artifact."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._wall = time.perf_counter()
        self._cpu = time.process_time()

    def report(self, tokens: int) -> dict[str, float | int]:
        """Efficiency metrics.

        Args:
            tokens: that went through the model, padding not counted.

        Returns:
            Parameters as counts (a quantized weight counts as one), memory in bytes, times in seconds.
        """
        wall, cpu = time.perf_counter() - self._wall, time.process_time() - self._cpu
        total, trainable, footprint = count_parameters(self._model)
        return {
            "total_parameters": total,
            "trainable_parameters": trainable,
            "trainable_ratio": trainable / total,
            "footprint_bytes": footprint,
            "tokens": tokens,
            "tokens_per_second": tokens / wall if wall else 0.0,
            "peak_memory_bytes": peak_memory(),
            "wall_seconds": wall,
            "cpu_seconds": cpu,
        }


def count_parameters(model: Any) -> tuple[int, int, int]:
    """(all parameters, those that are trained, bytes of all parameters and buffers)."""
    total = trainable = 0
    for parameter in model.parameters():
        # A 4-bit parameter holds two weights in each byte of its storage.
        shape = getattr(getattr(parameter, "quant_state", None), "shape", None)
        count = shape.numel() if shape is not None else parameter.numel()
        total += count
        trainable += count if parameter.requires_grad else 0
    tensors = [*model.parameters(), *model.buffers()]
    return total, trainable, sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def peak_memory() -> int:
    """High-water mark of this process in bytes: on the GPU where there is one, resident otherwise."""
    import torch

    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
