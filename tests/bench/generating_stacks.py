"""Greedy answers of SmolLM2-135M by three programs, each in a process of its own: a line of input asks for one number.

``python -m tests.bench.generating_stacks NAME FOLDER`` answers each line, a number of rows, with the rows that were
answered in a CPU second. All take the same prompts, of events as the quickstart has them, the same weights,
and write up to 64 new tokens. Nothing of the peers' processes is ours.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from tests.bench.precision import quick

NEW_TOKENS, AT_ONCE = 64, 32
DATA = Path("recipes/data")
SYSTEM = "Extract the event as JSON."
Write = Callable[[Sequence[str]], list[str]]


def questions() -> list[str]:
    """Of all events."""
    files = [DATA / f"events.{part}.jsonl" for part in ("train", "heldout")]
    return [json.loads(line)["prompt"] for file in files for line in file.read_text(encoding="utf-8").splitlines()]


def prompts(tokenizer: Any) -> list[str]:
    """As the chat template has them."""
    chats = [[{"role": "system", "content": SYSTEM}, {"role": "user", "content": text}] for text in questions()]
    return [tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True) for chat in chats]


def ours(folder: Path) -> Write:
    """What evaluations answer with."""
    from recipe_engine.methods.load_full import load_pretrained
    from recipe_engine.training.choice import Decoding
    from recipe_engine.training.generation import greedy
    from recipe_engine.training.tokenizer import open_tokenizer

    model, tokenizer = load_pretrained(folder, str(quick()).removeprefix("torch."), "cpu"), open_tokenizer(folder)

    def write(texts: Sequence[str]) -> list[str]:
        ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
        decoding = Decoding(max_new_tokens=NEW_TOKENS)
        return greedy(model, tokenizer, ids, decoding, batch_size=AT_ONCE, progress=lambda _done, _total: None)

    return write


def pipeline(folder: Path) -> Write:
    """Transformers' pipeline, a row at a time as it comes."""
    from transformers import pipeline as make

    pipe = make("text-generation", str(folder), dtype=quick(), device="cpu")

    def write(texts: Sequence[str]) -> list[str]:
        options = {"max_new_tokens": NEW_TOKENS, "do_sample": False, "return_full_text": False}
        return [pipe(text, **options)[0]["generated_text"] for text in texts]

    return write


def lm_eval(folder: Path) -> Write:
    """The batches of lm-evaluation-harness, of as many rows as ours."""
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    model = HFLM(str(folder), dtype=quick(), device="cpu", batch_size=AT_ONCE)

    def write(texts: Sequence[str]) -> list[str]:
        asked = {"until": ["<|im_end|>"], "max_gen_toks": NEW_TOKENS, "do_sample": False}
        requests = [Instance("generate_until", {}, (text, dict(asked)), row) for row, text in enumerate(texts)]
        answers: list[str] = model.generate_until(requests, disable_tqdm=True)
        return answers

    return write


STACKS: dict[str, Callable[[Path], Write]] = {"ours": ours, "pipeline": pipeline, "lm-eval": lm_eval}


def main() -> None:
    """Answer lines until there are no more."""
    from transformers import AutoTokenizer

    name, folder = sys.argv[1:]
    torch.set_num_threads(1)
    answers, sys.stdout = sys.stdout, sys.stderr  # what the programs print is no answer
    texts, write = prompts(AutoTokenizer.from_pretrained(folder)), STACKS[name](Path(folder))
    for line in sys.stdin:
        count = int(line)
        began = time.process_time()
        write(texts[:count])
        print(count / (time.process_time() - began), file=answers, flush=True)


if __name__ == "__main__":
    main()
