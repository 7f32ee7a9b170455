"""One answer, piece by piece as it is written."""

from __future__ import annotations

from dataclasses import replace
from threading import Event, Thread
from typing import TYPE_CHECKING, Any

from recipe_engine.errors import StageFailed
from recipe_engine.training.generation import answering, generation_config, stopping_tokens

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from recipe_engine.training.choice import Decoding

THREAD = "answer"
"""Name of the thread that writes."""


def never() -> bool:
    """The default of ``stopped``: nobody stops the answer."""
    return False


def stream(
    model: Any, tokenizer: Any, prompt: str, decoding: Decoding, stopped: Callable[[], bool] = never
) -> Iterator[str]:
    """Continue a prompt. An iterator that is closed early ends the answer, and its thread, within a token.

    Args:
        model: a causal language model; it is left as it was.
        tokenizer: its tokenizer.
        prompt: the whole text that the model sees.
        decoding: how; the answer is cut where the model can read no more, too.
        stopped: asked after each token; true ends the answer there.

    Raises:
        StageFailed: where the prompt is longer than the model can read.
    """
    import torch
    from transformers import StoppingCriteriaList, TextIteratorStreamer

    batch = tokenizer(prompt, add_special_tokens=False, return_tensors="pt").to(model.device)
    room = _room(model, batch["input_ids"].shape[1], decoding.max_new_tokens)
    streamer = TextIteratorStreamer(tokenizer, skip_prompt=True, skip_special_tokens=True)
    ends_with = stopping_tokens(model, tokenizer, decoding)
    config = generation_config(tokenizer, replace(decoding, max_new_tokens=room), ends_with)
    failures: list[Exception] = []
    closed = Event()

    def ends(input_ids: Any, _scores: Any, **_: Any) -> Any:
        """Of each row, whether it ends here: ``(batch,)``."""
        return torch.full((len(input_ids),), closed.is_set() or stopped(), device=input_ids.device)

    def write() -> None:
        try:
            with torch.no_grad():
                criteria = StoppingCriteriaList([ends])
                model.generate(**batch, generation_config=config, streamer=streamer, stopping_criteria=criteria)
        except Exception as error:  # noqa: BLE001 -- raised again where somebody waits for the text
            failures.append(error)
            streamer.end()

    with answering(model):
        writer = Thread(target=write, name=THREAD, daemon=True)
        writer.start()
        try:
            yield from (piece for piece in streamer if piece)
        finally:
            closed.set()
            writer.join()
    if failures:
        raise failures[0]


def _room(model: Any, length: int, wanted: int) -> int:
    """How many tokens can follow a prompt of ``length`` tokens, at most ``wanted``."""
    limit = getattr(model.config, "max_position_embeddings", None)
    if limit is None or length + wanted <= limit:
        return wanted
    if length >= limit:
        raise StageFailed(f"The prompt has {length} tokens, and the model reads {limit} at most.", "Shorten it.")
    return int(limit - length)
