"""PPO on the bench's model by two programs, each in a process of its own: a line of input asks for one measurement.

``python -m tests.bench.ppo_stacks NAME FOLDER`` answers ``batch`` with the CPU seconds of one batch, of 32 prompts,
answers of 48 tokens and four passes, without the set-up, ``writing`` with those of the answers alone, ``drift`` with
the MiB by which the process grew from its fifth to its fiftieth batch, ``peak 8`` with the MiB that it held at most by
the end of a batch of 8 prompts. Nothing of the peer's process is ours.
"""

from __future__ import annotations

import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from tests.bench.precision import autocast, quick

PROMPTS, NEW_TOKENS, PASSES, EVERY = 32, 48, 4, 2
FIRST, LAST = 5, 50
PAD = 0
DRIFT, PEAK = "drift", "peak"


def batch(asked: str) -> int:
    """Prompts of a batch."""
    return int(asked.removeprefix(PEAK)) if asked.startswith(PEAK) else PROMPTS


def prompts(vocabulary: int, count: int) -> list[list[int]]:
    """Prompts of 12 to 40 random tokens."""
    generator = torch.Generator().manual_seed(1)
    lengths = torch.randint(12, 41, (count,), generator=generator).tolist()
    return [torch.randint(3, vocabulary, (length,), generator=generator).tolist() for length in lengths]


def resident() -> float:
    """MiB of this process in memory."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize() / 2**20


def high_water() -> float:
    """MiB that this process held in memory at most."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def lora() -> Any:
    """The adapters of both."""
    from peft import LoraConfig

    return LoraConfig(r=16, lora_alpha=32, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM")


def ours(folder: Path, asked: str) -> float:
    """The loop of ``train.ppo``."""
    from peft import get_peft_model
    from tests import tiny
    from transformers import AutoModelForCausalLM

    from recipe_engine.training.ppo.loop import train_ppo
    from recipe_engine.training.ppo.options import TrainPpo
    from recipe_engine.training.ppo.rollout import open_writer, write_answers
    from recipe_engine.training.rows import Row
    from recipe_engine.training.tokenizer import open_tokenizer

    torch.manual_seed(0)
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(folder, dtype=quick()), lora()).eval()
    steps = LAST if asked == DRIFT else 1
    rows = [
        Row(number, tuple(ids), (False,) * len(ids), len(ids), "", "")
        for number, ids in enumerate(prompts(model.config.vocab_size, batch(asked) * steps))
    ]
    options = TrainPpo(
        reward=(),  # the loop is given its score
        batch_size=batch(asked),
        max_new_tokens=NEW_TOKENS,
        ppo_epochs=PASSES,
        learning_rate=1e-3,
        kl_coef=0.01,
    )
    tokenizer, marks = open_tokenizer(folder), Marks(asked)
    if asked == "writing":
        with open_writer(model, tokenizer, rows, options, folder) as writer:
            began = time.process_time()
            write_answers(writer, model, tokenizer, rows[:PROMPTS], options)
            return time.process_time() - began

    class Told(tiny.Recorder):
        def progress(self, done: int, total: int, unit: str) -> None:
            super().progress(done, total, unit)
            marks.note()

    with tempfile.TemporaryDirectory() as work:
        request = tiny.stage_request(Path(work), options, model=model, tokenizer=folder, reporter=Told())
        train_ppo(request, rows, tokenizer, score)
    return marks.found()


def score(answers: Any) -> Any:
    """Share of even tokens."""
    total = []
    for answer in answers:
        tokens = answer.tokens[answer.prompt_tokens :]
        total.append(sum(token % EVERY == 0 for token in tokens) / len(tokens))
    return SimpleNamespace(total=total, parts={})


class Marks:
    """CPU seconds and memory at the end of each batch.

    Args:
        asked: what is measured.
    """

    def __init__(self, asked: str) -> None:
        self._asked = asked
        self._seconds: list[float] = []
        self._memory: list[float] = []

    def note(self) -> None:
        """Before the first batch, and after each."""
        self._seconds.append(time.process_time())
        self._memory.append(resident())

    def found(self) -> float:
        """What was asked."""
        if self._asked.startswith(PEAK):
            return high_water()
        if self._asked == DRIFT:
            return self._memory[LAST] - self._memory[FIRST]
        return self._seconds[1] - self._seconds[0]


class Evenness(torch.nn.Module):
    """The same reward in the form that TRL takes: a backbone and a score."""

    base_model_prefix = "backbone"

    def __init__(self) -> None:
        super().__init__()
        self.backbone = self._Backbone()
        self.score = torch.nn.Identity()

    class _Backbone(torch.nn.Module):
        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, **_: Any) -> Any:
            seen = attention_mask.float().cumsum(1).clamp(min=1)
            even = ((input_ids % EVERY == 0) * attention_mask).float().cumsum(1)
            return SimpleNamespace(hidden_states=[(even / seen)[..., None]])


def trl(folder: Path, asked: str, dtype: torch.dtype = torch.float32, **options: Any) -> float:
    """TRL's PPOTrainer: float32 under autocast where bfloat16 is quick, a value model of its own."""
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer
    from trl.experimental.ppo import PPOConfig, PPOTrainer, ppo_trainer

    batches = LAST if asked == DRIFT else 1
    policy = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
    data = Dataset.from_dict({"input_ids": prompts(policy.config.vocab_size, batch(asked) * batches)})
    arguments = PPOConfig(
        output_dir="build/bench/out",
        per_device_train_batch_size=8,
        gradient_accumulation_steps=batch(asked) // 8,
        num_ppo_epochs=PASSES,
        total_episodes=batch(asked) * batches,
        response_length=NEW_TOKENS,
        temperature=1.0,
        learning_rate=1e-3,
        kl_coef=0.01,
        report_to="none",
        save_strategy="no",
        num_sample_generations=0,
        use_cpu=True,
        bf16=autocast(),
        disable_tqdm=True,
        **options,
    )
    trainer = PPOTrainer(
        arguments,
        tokenizer,
        policy,
        None,
        Evenness(),
        data,
        AutoModelForSequenceClassification.from_pretrained(folder, num_labels=1, dtype=dtype),
        peft_config=lora(),
    )
    marks, written, write = Marks(asked), [], ppo_trainer.batch_generation

    def timed(*given: Any) -> Any:
        began = time.process_time()
        answers = write(*given)
        written.append(time.process_time() - began)
        return answers

    ppo_trainer.batch_generation = timed
    trainer.log = lambda *_, **__: marks.note()
    marks.note()
    trainer.train()
    ppo_trainer.batch_generation = write
    return written[0] if asked == "writing" else marks.found()


def trl_tuned(folder: Path, asked: str) -> float:
    """The same, with activations kept."""
    return trl(folder, asked, gradient_checkpointing=False)


def trl_bfloat16(folder: Path, asked: str) -> float:
    """The same with all weights in bfloat16, those of the value model, which learn, too."""
    return trl(folder, asked, torch.bfloat16)


STACKS: dict[str, Callable[[Path, str], float]] = {
    "ours": ours,
    "trl": trl,
    "trl-tuned": trl_tuned,
    "trl-bfloat16": trl_bfloat16,
}


def _questions() -> Iterator[str]:
    yield from (line.strip() for line in sys.stdin)


def main() -> None:
    """Answer lines until there are no more."""
    name, folder = sys.argv[1:]
    torch.set_num_threads(1)
    os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"
    answers, sys.stdout = sys.stdout, sys.stderr  # what trainers print is no answer
    for asked in _questions():
        print(STACKS[name](Path(folder), asked), file=answers, flush=True)


if __name__ == "__main__":
    main()
