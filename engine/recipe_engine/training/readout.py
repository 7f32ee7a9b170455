"""Log-probabilities of chosen tokens, and their gradient, in chunks: the logits of a whole batch never exist."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch  # noqa: TID253 -- this module is imported in the worker only

from recipe_engine.training.head import head_of, positions_at_once

if TYPE_CHECKING:
    from collections.abc import Iterator

# Positions of a product on a CPU, and of what is gone over several times while its cache holds it; on a GPU launches
# count more.
POSITIONS_ON_A_CPU, GONE_OVER_ON_A_CPU = 256, 64
Objective = Callable[[torch.Tensor, torch.Tensor, slice], torch.Tensor]
"""A part of the loss, of log-probabilities (tokens,), entropies (tokens,), and which of all tokens these are."""


@dataclass(frozen=True, slots=True)
class Head:
    """From hidden states to the distribution of the next token.

    Attributes:
        project: (positions, width) to logits (positions, vocabulary).
        temperature: that logits are divided by.
        at_once: positions of a chunk, whose logits are one product.
        gone_over: of these, as many as are in float32 at a time.
        trained: parameters of the projection that are trained.
    """

    project: Callable[[torch.Tensor], torch.Tensor]
    temperature: float
    at_once: int
    gone_over: int
    trained: tuple[torch.Tensor, ...]

    @classmethod
    def of(cls, model: Any, temperature: float) -> Head:
        """The head of a causal language model, or of that inside a PEFT model."""
        language_model = model.get_base_model() if hasattr(model, "get_base_model") else model
        weights = language_model.get_output_embeddings().parameters()
        trained = tuple(weight for weight in weights if weight.requires_grad)
        at_once = gone_over = positions_at_once(language_model)
        if language_model.device.type == "cpu":
            at_once, gone_over = min(at_once, POSITIONS_ON_A_CPU), min(at_once, GONE_OVER_ON_A_CPU)
        return cls(head_of(language_model), temperature, at_once, gone_over, trained)

    def spans(self, positions: int) -> Iterator[tuple[slice, list[slice]]]:
        """The chunks, and what of each is gone over at a time; both are slices of all positions."""
        for start in range(0, positions, self.at_once):
            stop = min(start + self.at_once, positions)
            cuts = range(start, stop, self.gone_over)
            yield slice(start, stop), [slice(cut, min(cut + self.gone_over, stop)) for cut in cuts]


def read(head: Head, states: torch.Tensor, tokens: torch.Tensor, *, entropy: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """What a model thinks of tokens; without a gradient.

    Args:
        head: of the model.
        states: hidden states of the positions that predict, (tokens, width).
        tokens: what came there, (tokens,).
        entropy: whether entropies are wanted; without, they are given as 0.

    Returns:
        Log-probability of each token and entropy of its distribution, both in nats, (tokens,), in float32 or wider.
    """
    found = []
    with torch.no_grad():
        for span, cuts in head.spans(len(tokens)):
            logits = head.project(states[span]).split(head.gone_over)
            for cut, part in zip(cuts, logits, strict=True):
                chunk = _Chunk.of(head, part, tokens[cut], entropy=entropy)
                found.append((chunk.chosen, chunk.entropies))
    chosen, entropies = (torch.cat(parts) for parts in zip(*found, strict=True))
    return chosen, entropies


def learn(
    head: Head, states: torch.Tensor, tokens: torch.Tensor, objective: Objective, *, entropy: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """A loss of the tokens' log-probabilities, with its gradient.

    Args:
        head: of the model.
        states: hidden states of the positions that predict, (tokens, width).
        tokens: what came there, (tokens,).
        objective: the loss of some of the tokens; the whole is the sum over all.
        entropy: whether the objective looks at entropies; without, they are given as 0.

    Returns:
        The loss, a scalar, and the log-probabilities, (tokens,), which have no gradient.
    """
    found: tuple[torch.Tensor, torch.Tensor] = _Chunked.apply(states, tokens, head, objective, entropy, *head.trained)
    return found


def summed_loss(model: Any, states: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Summed cross-entropy of tokens, in nats, with its gradient where gradients are wanted.

    Args:
        model: a causal language model of transformers, or a PEFT model around one.
        states: hidden states of the positions that predict, (tokens, width).
        tokens: what came there, (tokens,).

    Returns:
        A scalar in float32 or wider.
    """
    head = Head.of(model, temperature=1.0)
    if not torch.is_grad_enabled():
        return -read(head, states, tokens, entropy=False)[0].sum()
    return learn(head, states, tokens, lambda log_probs, _entropies, _span: -log_probs.sum(), entropy=False)[0]


@dataclass(slots=True)
class _Chunk:
    """The distributions of some positions; its tensors are its own and may be changed in place.

    Attributes:
        chosen: log-probability of the token that came there, (positions,).
        weights: e^x with the largest x of each position taken off all, (positions, vocabulary).
        total: their sums, (positions, 1).
        log_probs: of every token, (positions, vocabulary); ``None`` where nobody asks for entropies.
    """

    chosen: torch.Tensor
    weights: torch.Tensor
    total: torch.Tensor
    log_probs: torch.Tensor | None

    @classmethod
    def of(cls, head: Head, logits: torch.Tensor, tokens: torch.Tensor, *, entropy: bool) -> _Chunk:
        """Of logits (positions, vocabulary), and the tokens that came there."""
        # Further tensors of this size would cost more than what is computed of them, so one is gone over in place.
        wide = logits.detach().to(torch.promote_types(logits.dtype, torch.float32), copy=True)
        if head.temperature != 1.0:
            wide /= head.temperature
        wide -= wide.amax(dim=1, keepdim=True)
        chosen = wide.gather(1, tokens[:, None])
        log_probs = wide.clone() if entropy else None
        weights = wide.exp_()
        total = weights.sum(dim=1, keepdim=True)
        if log_probs is not None:
            log_probs -= total.log()
        return cls((chosen - total.log())[:, 0], weights, total, log_probs)

    @property
    def entropies(self) -> torch.Tensor:
        """Of the distributions, in nats, (positions,); 0 where nobody asks for them."""
        if self.log_probs is None:
            return torch.zeros_like(self.chosen)
        return -torch.linalg.vecdot(self.weights, self.log_probs) / self.total[:, 0]


class _Chunked(torch.autograd.Function):
    """The gradient is found chunk by chunk in the forward pass, while the chunk's logits are there.

    A projection whose gradient needs its own result would be told by autograd that this has changed.

    With p the distribution, H its entropy and x the logits over the temperature: d log p_i / d x_j = [i = j] - p_j, and
    d H / d x_j = -p_j (log p_j + H).
    """

    @staticmethod
    def forward(
        ctx: Any,
        states: torch.Tensor,
        tokens: torch.Tensor,
        head: Head,
        objective: Objective,
        entropy: bool,
        *trained: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """See :func:`learn`."""
        losses, chosen, gradients = [], [], []
        sums = [torch.zeros_like(weight) for weight in trained]
        for span, cuts in head.spans(len(tokens)):
            part = states[span].detach().requires_grad_()
            with torch.enable_grad():
                logits = head.project(part)
            # The gradient takes the place of the logits: there is one tensor of that size less to go over.
            places = logits.detach()
            for cut, place in zip(cuts, places.split(head.gone_over), strict=True):
                loss, of_tokens = _learn(head, place, tokens[cut], _of_span(objective, cut), entropy=entropy)
                losses.append(loss)
                chosen.append(of_tokens)
            of_part, *others = torch.autograd.grad(logits, [part, *trained], places, materialize_grads=True)
            gradients.append(of_part)
            sums = [so_far + other for so_far, other in zip(sums, others, strict=True)]
        ctx.save_for_backward(torch.cat(gradients), *sums)
        log_probs = torch.cat(chosen)
        ctx.mark_non_differentiable(log_probs)
        return torch.stack(losses).sum(), log_probs

    @staticmethod
    @torch.autograd.function.once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, gradient: torch.Tensor, _of_log_probs: Any) -> tuple[torch.Tensor | None, ...]:
        """What was found, times the gradient of the loss."""
        states, *trained = ctx.saved_tensors
        return (states * gradient, None, None, None, None, *(found * gradient for found in trained))


def _of_span(objective: Objective, span: slice) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    return lambda log_probs, entropies: objective(log_probs, entropies, span)


def _learn(
    head: Head,
    logits: torch.Tensor,
    tokens: torch.Tensor,
    objective: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    *,
    entropy: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Loss and log-probabilities of the tokens, (positions,).

    Args:
        head: that the logits are of.
        logits: (positions, vocabulary); their gradient is put in their place.
        tokens: what came there, (positions,).
        objective: of log-probabilities and entropies.
        entropy: whether it looks at these.
    """
    chunk = _Chunk.of(head, logits, tokens, entropy=entropy)
    chosen, entropies = chunk.chosen.requires_grad_(), chunk.entropies.requires_grad_()
    with torch.enable_grad():
        loss = objective(chosen, entropies)
    gradients = torch.autograd.grad(loss, [chosen, entropies], materialize_grads=True)
    of_chosen, of_entropies = (found[:, None] / head.temperature for found in gradients)
    gradient = chunk.weights
    if chunk.log_probs is None:
        gradient *= -of_chosen / chunk.total
    else:
        chunk.log_probs.add_(entropies.detach()[:, None]).mul_(of_entropies).add_(of_chosen)
        gradient.mul_(chunk.log_probs).div_(-chunk.total)
    gradient.scatter_add_(1, tokens[:, None], of_chosen)
    logits.copy_(gradient)
    return loss.detach(), chosen.detach()
