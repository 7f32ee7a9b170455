"""The head and its loss in chunks: the logits of a whole batch never exist."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch  # noqa: TID253 -- this module is imported in the worker only
import torch.nn.functional as F  # noqa: N812, TID253 -- the name that everyone knows

if TYPE_CHECKING:
    from collections.abc import Callable

# 64 MiB of logits in float32; with a vocabulary of 128k that is 128 positions.
LOGITS_AT_ONCE = 2**24


def head_of(model: Any) -> Callable[[torch.Tensor], torch.Tensor]:
    """What turns hidden states (positions, width) into logits (positions, vocabulary), as the model itself does.

    Args:
        model: a causal language model of transformers, without a wrapper around it.
    """
    config = model.config.get_text_config()
    cap = getattr(config, "final_logit_softcapping", None)  # Gemma
    scale = getattr(config, "logit_scale", None) or 1.0  # Cohere
    scale /= getattr(config, "logits_scaling", None) or 1.0  # Granite
    project = model.get_output_embeddings()

    def head(hidden: torch.Tensor) -> torch.Tensor:
        logits = project(hidden)
        if cap is not None:
            logits = torch.tanh(logits / cap) * cap
        return logits * scale if scale != 1.0 else logits

    return head


def positions_at_once(model: Any) -> int:
    """Positions whose logits are computed at once, in a chunk of bounded memory."""
    return max(1, LOGITS_AT_ONCE // int(model.config.get_text_config().vocab_size))


def head_loss(model: Any, hidden: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Summed cross-entropy of the targets, in nats.

    Args:
        model: a causal language model of transformers, without a wrapper around it.
        hidden: last hidden states of the positions that predict, (targets, width).
        targets: token ids, (targets,).

    Returns:
        A scalar in float32.
    """
    module = model.get_output_embeddings()
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    loss: torch.Tensor = _ChunkedLoss.apply(hidden, targets, head_of(model), positions_at_once(model), *trained)
    return loss


class _ChunkedLoss(torch.autograd.Function):
    """The gradient is found chunk by chunk in the forward pass, while the chunk's logits are there."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        targets: torch.Tensor,
        head: Callable[[torch.Tensor], torch.Tensor],
        positions: int,
        *trained: torch.Tensor,
    ) -> torch.Tensor:
        """The loss of all targets; see :func:`head_loss`."""
        is_trained = any(ctx.needs_input_grad)
        loss = torch.zeros((), dtype=torch.float32, device=hidden.device)
        chunks, sums = [], [torch.zeros_like(parameter) for parameter in trained if is_trained]
        for part, wanted in zip(hidden.split(positions), targets.split(positions), strict=True):
            with torch.set_grad_enabled(is_trained):
                part = part.detach().requires_grad_(is_trained)  # noqa: PLW2901 -- cut off from what came before
                summed = F.cross_entropy(head(part).float(), wanted, reduction="sum")
            loss += summed.detach()
            if is_trained:
                gradient, *others = torch.autograd.grad(summed, [part, *trained], materialize_grads=True)
                chunks.append(gradient)
                sums = [so_far + other for so_far, other in zip(sums, others, strict=True)]
        if is_trained:
            ctx.save_for_backward(torch.cat(chunks), *sums)
        return loss

    @staticmethod
    @torch.autograd.function.once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """What was found, times the gradient of the loss."""
        hidden, *trained = ctx.saved_tensors
        return (hidden * gradient, None, None, None, *(found * gradient for found in trained))
