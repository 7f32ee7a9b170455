"""In which precision the benches compute: the one that a processor is quick in, for both sides of a comparison."""

from __future__ import annotations

import torch


def quick() -> torch.dtype:
    """What ``dtype = "auto"`` is here. It is asked of torch: the process of a peer has nothing of ours."""
    able = torch.cpu.get_capabilities()
    return torch.bfloat16 if any(able.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16")) else torch.float32


def autocast() -> bool:
    """Whether a peer that keeps its weights in float32 multiplies in bfloat16 beside them."""
    return quick() is torch.bfloat16
