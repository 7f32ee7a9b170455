"""Answers to many prompts at once."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from recipe_engine.training.batches import by_length
from recipe_engine.training.borrow import borrowed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from recipe_engine.training.choice import Decoding


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
        batch_size: prompts that are continued at once.
        progress: called with the finished and all prompts.

    Returns:
        The answers as text, without special tokens, in the order of the prompts.
    """
    written = write(model, tokenizer, prompts, decoding, at_once=batch_size, progress=progress)
    texts: list[str] = tokenizer.batch_decode(written, skip_special_tokens=True)
    return texts


def write(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Sequence[int]],
    decoding: Decoding,
    *,
    at_once: int,
    progress: Callable[[int, int], None],
) -> list[list[int]]:
    """Continue prompts.

    Architectures whose attention takes rows end to end are decoded by :mod:`recipe_engine.training.decoding`, all
    others by transformers.

    Args:
        model: a causal language model; it is left as it was.
        tokenizer: its tokenizer.
        prompts: token ids of each prompt.
        decoding: how.
        at_once: prompts that are continued at once.
        progress: called with the finished and all prompts.

    Returns:
        Tokens of each answer in the order of the prompts, the one that ends it included.
    """
    from recipe_engine.training.decoding import can_decode, decode

    ends = stopping_tokens(model, tokenizer, decoding)
    with answering(model):
        if can_decode(model.config.to_dict()):
            return decode(model, prompts, decoding, ends, at_once=at_once, progress=progress)
        config = generation_config(tokenizer, decoding, ends)
        return _generate(model, prompts, config, at_once=at_once, progress=progress)


def _generate(
    model: Any,
    prompts: Sequence[Sequence[int]],
    config: Any,
    *,
    at_once: int,
    progress: Callable[[int, int], None],
) -> list[list[int]]:
    """By transformers, padded on the left."""
    import torch

    written: list[list[int]] = [[] for _ in prompts]
    done = 0
    for numbers in by_length(prompts, at_once):
        batch = left_padded([prompts[number] for number in numbers], config.pad_token_id, model.device)
        with torch.no_grad():
            tokens = model.generate(**batch, generation_config=config)[:, batch["input_ids"].shape[1] :]
        for number, answer in zip(numbers, tokens.tolist(), strict=True):
            written[number] = up_to_end(answer, config.eos_token_id)
        done += len(numbers)
        progress(done, len(prompts))
    return written


def up_to_end(tokens: Sequence[int], ends: Sequence[int]) -> list[int]:
    """The tokens up to the first that ends an answer, that one included; what follows is padding."""
    places = [place for place, token in enumerate(tokens) if token in ends]
    return list(tokens[: places[0] + 1] if places else tokens)


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


def stopping_tokens(model: Any, tokenizer: Any, decoding: Decoding) -> list[int]:
    """What ends an answer: the tokenizer's end-of-sequence token, those that the model names, ``decoding.stops``."""
    named = model.generation_config.eos_token_id
    named = named if isinstance(named, list) else [named]
    return sorted({tokenizer.eos_token_id, *decoding.stops, *(token for token in named if token is not None)})


def generation_config(tokenizer: Any, decoding: Decoding, ends: Sequence[int]) -> Any:
    """Greedy decoding, or sampling at a temperature; nothing of the model's own defaults.

    Args:
        tokenizer: of the model.
        decoding: how.
        ends: of :func:`stopping_tokens`.
    """
    from transformers import GenerationConfig

    temperature = decoding.temperature
    drawn = {"temperature": temperature, "top_k": decoding.top_k, "top_p": decoding.top_p}
    return GenerationConfig(
        **({"do_sample": True, **drawn} if temperature else {"do_sample": False}),
        max_new_tokens=decoding.max_new_tokens,
        min_new_tokens=decoding.min_new_tokens or None,
        repetition_penalty=1.0,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=list(ends),
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
