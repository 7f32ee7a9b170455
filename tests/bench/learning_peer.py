"""The task of recipes/rlhf/cheerful.toml by TRL 1.12's PPOTrainer, in a process of its own.

``build/trl-peer/bin/python -m tests.bench.learning_peer RECIPE MODEL SEED``, where ``MODEL`` is a folder with the whole
weights that the recipe starts from, prints a line of JSON a step. Nothing of its process is ours.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
import tomllib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from tests.bench.ppo_stacks import lora
from tests.bench.precision import autocast

TURNS = 3
"""System, question, answer: what is written begins after the header of the third."""
HEADER = 3
"""Tokens of a header: its mark, the role, a line break."""


class Pattern(torch.nn.Module):
    """The recipe's reward in the form that TRL takes: a backbone and a score.

    Args:
        pattern: a regular expression; 1 where it is found in the text of an answer, 0 elsewhere.
        tokenizer: of the policy.
    """

    base_model_prefix = "backbone"

    def __init__(self, pattern: str, tokenizer: Any) -> None:
        super().__init__()
        self.backbone = self._Backbone(re.compile(pattern), tokenizer)
        self.score = torch.nn.Identity()

    class _Backbone(torch.nn.Module):
        def __init__(self, pattern: re.Pattern[str], tokenizer: Any) -> None:
            super().__init__()
            self._pattern, self._tokenizer = pattern, tokenizer
            self._mark = tokenizer.convert_tokens_to_ids("<|im_start|>")

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, **_: Any) -> Any:
            """One score for all tokens of an answer, (batch, sequence, 1)."""
            scores = [
                self._score([token for token, seen in zip(*row, strict=True) if seen])
                for row in zip(input_ids.tolist(), attention_mask.tolist(), strict=True)
            ]
            return SimpleNamespace(hidden_states=[torch.tensor(scores)[:, None, None].expand(*input_ids.shape, 1)])

        def _score(self, tokens: list[int]) -> float:
            begins = [place for place, token in enumerate(tokens) if token == self._mark][TURNS - 1] + HEADER
            text = self._tokenizer.decode(tokens[begins:], skip_special_tokens=True)
            return float(self._pattern.search(text) is not None)


def prompts(recipe: Path, tokenizer: Any) -> list[list[int]]:
    """The recipe's prompts as tokens."""
    table = tomllib.loads(recipe.read_text(encoding="utf-8"))["data"]["prompts"]
    lines = (recipe.parent / table["source"].removeprefix("file:")).read_text(encoding="utf-8").splitlines()
    system = {"role": "system", "content": table["system"]}
    return [
        tokenizer.apply_chat_template(
            [system, {"role": "user", "content": json.loads(line)["prompt"]}],
            add_generation_prompt=True,
            return_dict=False,
        )
        for line in lines
    ]


def trainer(recipe: Path, folder: Path, seed: int) -> Any:
    """PPOTrainer with the recipe's options, as far as it has them.

    float32 under autocast where bfloat16 is quick; activations are kept, which is faster. The value model is the whole
    base with a head, at the one learning rate that there is.
    """
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer
    from trl.experimental.ppo import PPOConfig, PPOTrainer

    torch.manual_seed(seed)  # the head of the value model is drawn
    options = tomllib.loads(recipe.read_text(encoding="utf-8"))["train"]["ppo"]
    # What pads must not end a turn: TRL hides it wherever it stands, in the prompt too.
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left", pad_token="<|endoftext|>")
    policy = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    policy.generation_config.pad_token_id = tokenizer.pad_token_id
    value = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=1, dtype=torch.float32)
    arguments = PPOConfig(
        output_dir="build/bench/out",
        seed=seed,
        per_device_train_batch_size=options["batch_size"],  # an optimizer step each minibatch: nothing accumulates
        num_mini_batches=options["batch_size"] // options["minibatch_size"],
        num_ppo_epochs=options["ppo_epochs"],
        total_episodes=options["batch_size"] * options["max_steps"],
        response_length=options["max_new_tokens"],
        stop_token="eos",
        temperature=1.0,
        learning_rate=options["learning_rate"],
        kl_coef=options["kl_coef"],
        gradient_checkpointing=False,
        report_to="none",
        save_strategy="no",
        num_sample_generations=0,
        use_cpu=True,
        bf16=autocast(),
        disable_tqdm=True,
    )
    data = Dataset.from_dict({"input_ids": prompts(recipe, tokenizer)})
    reward = Pattern(options["reward"]["pattern"], tokenizer)
    return PPOTrainer(arguments, tokenizer, policy, None, reward, data, value, peft_config=lora())


def main() -> None:
    """Train, and say what each step came to."""
    recipe, folder, seed = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    torch.set_num_threads(1)
    os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"
    answers, sys.stdout = sys.stdout, sys.stderr  # what trainers print is no answer
    peer, steps = trainer(recipe, folder, seed), []
    began = time.process_time()

    def told(metrics: dict[str, float], *_: Any, **__: Any) -> None:
        steps.append(metrics)
        entry = {
            "step": len(steps),
            "cpu": time.process_time() - began,
            "score": metrics["objective/scores"],
            "kl": metrics["objective/kl"],
        }
        print(json.dumps(entry), file=answers, flush=True)

    peer.log = told
    peer.train()


if __name__ == "__main__":
    main()
