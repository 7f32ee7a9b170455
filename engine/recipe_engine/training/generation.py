"""Answers to many prompts at once."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from recipe_engine.training.batches import by_length
from recipe_engine.training.borrow import borrowed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoding:
    """How answers are written.

    Attributes:
        max_new_tokens: where an answer is cut.
        temperature: 0 for the most likely answer, more for a random one.
        stops: tokens that end an answer, besides those that tokenizer and model name.
        min_new_tokens: before which no answer ends.
        top_k: draw from so many most likely tokens; 0 for all.
        top_p: draw from the fewest tokens that are together this likely; 1 for all.
    """

    max_new_tokens: int
    temperature: float = 0.0
    stops: tuple[int, ...] = ()
    min_new_tokens: int = 0
    top_k: int = 0
    top_p: float = 1.0


def greedy(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Sequence[int]],
    decoding: Decoding,
    *,
    batch_size: int,
    progress: Callable[[int, int], None],
) -> list[str]:
    """The most likely continuation of each prompt, up to the end-of-sequence token.

    Args:
        model: a causal language model; it is left as it was.
        tokenizer: its tokenizer.
        prompts: token ids of each prompt.
        decoding: how; its temperature is 0.
        batch_size: prompts that are continued at once, padded on the left.
        progress: called with the finished and all prompts.

    Returns:
        The answers as text, without special tokens, in the order of the prompts.
    """
    import torch

    answers = [""] * len(prompts)
    done = 0
    config = generation_config(model, tokenizer, decoding)
    with answering(model), torch.no_grad():
        for positions in by_length(prompts, batch_size):
            batch = left_padded([prompts[position] for position in positions], tokenizer.pad_token_id, model.device)
            width = batch["input_ids"].shape[1]
            written = model.generate(**batch, generation_config=config)
            texts = tokenizer.batch_decode(written[:, width:], skip_special_tokens=True)
            for position, text in zip(positions, texts, strict=True):
                answers[position] = text
            done += len(positions)
            progress(done, len(prompts))
    return answers


@contextmanager
def answering(model: Any) -> Iterator[None]:
    """Borrow a model to generate with it; its own generation defaults do not count meanwhile.

    ``generate`` fills whatever a configuration leaves open from the model's own: penalties, beams, banned tokens.
    """
    from transformers import GenerationConfig

    language_model = model.get_base_model() if hasattr(model, "get_base_model") else model
    own = language_model.generation_config
    language_model.generation_config = GenerationConfig()
    try:
        with borrowed(model):
            yield
    finally:
        language_model.generation_config = own


def generation_config(model: Any, tokenizer: Any, decoding: Decoding) -> Any:
    """Greedy decoding, or sampling at a temperature; nothing of the model's own defaults.

    Generation stops at the tokenizer's end-of-sequence token, at those that the model names, and at ``decoding.stops``.
    """
    from transformers import GenerationConfig

    named = model.generation_config.eos_token_id
    named = named if isinstance(named, list) else [named]
    ends = sorted({tokenizer.eos_token_id, *decoding.stops, *(token for token in named if token is not None)})
    temperature = decoding.temperature
    drawn = {"temperature": temperature, "top_k": decoding.top_k, "top_p": decoding.top_p}
    return GenerationConfig(
        **({"do_sample": True, **drawn} if temperature else {"do_sample": False}),
        max_new_tokens=decoding.max_new_tokens,
        min_new_tokens=decoding.min_new_tokens or None,
        repetition_penalty=1.0,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=ends,
    )


def left_padded(prompts: Sequence[Sequence[int]], pad: int, device: Any) -> dict[str, Any]:
    """``input_ids`` and ``attention_mask``, each (prompts, longest): every prompt ends at the right edge."""
    import torch

    width = max(len(prompt) for prompt in prompts)
    input_ids = torch.full((len(prompts), width), pad, dtype=torch.long)
    attention_mask = torch.zeros((len(prompts), width), dtype=torch.long)
    for position, prompt in enumerate(prompts):
        input_ids[position, width - len(prompt) :] = torch.tensor(list(prompt), dtype=torch.long)
        attention_mask[position, width - len(prompt) :] = 1
    return {"input_ids": input_ids.to(device), "attention_mask": attention_mask.to(device)}
