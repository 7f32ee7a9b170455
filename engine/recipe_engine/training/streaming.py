"""One answer, piece by piece as it is written."""

from __future__ import annotations

from threading import Thread
from typing import TYPE_CHECKING, Any

from recipe_engine.training.generation import answering, generation_config

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


def stream(
    model: Any,
    tokenizer: Any,
    prompt: str,
    *,
    max_new_tokens: int,
    temperature: float,
    stops: Sequence[int] = (),
) -> Iterator[str]:
    """Continue a prompt.

    Args:
        model: a causal language model; it is left as it was.
        tokenizer: its tokenizer.
        prompt: the whole text that the model sees.
        max_new_tokens: where the answer is cut.
        temperature: 0 for the most likely answer, more for a random one.
        stops: tokens that end an answer, besides those that tokenizer and model name.
    """
    import torch
    from transformers import TextIteratorStreamer

    batch = tokenizer(prompt, add_special_tokens=False, return_tensors="pt").to(model.device)
    streamer = TextIteratorStreamer(tokenizer, skip_prompt=True, skip_special_tokens=True)
    config = generation_config(model, tokenizer, max_new_tokens, temperature, stops)
    failures: list[Exception] = []

    def write() -> None:
        try:
            with torch.no_grad():
                model.generate(**batch, generation_config=config, streamer=streamer)
        except Exception as error:  # noqa: BLE001 -- raised again where somebody waits for the text
            failures.append(error)
            streamer.end()

    with answering(model):
        writer = Thread(target=write, daemon=True)
        writer.start()
        yield from (piece for piece in streamer if piece)
        writer.join()
    if failures:
        raise failures[0]
