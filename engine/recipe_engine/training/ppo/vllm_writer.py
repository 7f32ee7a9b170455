"""Answers of the policy by vLLM, which takes turns with the training on its GPU."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING, Any

import torch  # noqa: TID253 -- this module is imported in the worker only

from recipe_engine.errors import StageFailed
from recipe_engine.training.joined_adapter import write_base, write_joined_adapter

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from recipe_engine.training.choice import Decoding

ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # what stops the worker stops it too
    "VLLM_CONFIGURE_LOGGING": "0",  # it would write between the lines of the worker
    "VLLM_NO_USAGE_STATS": "1",
}
"""What vLLM reads when it is imported."""
_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""Those that vLLM can keep room for; a smaller adapter fits into it."""


class VllmWriter:
    """vLLM with the base of a policy; before each batch it reads the policy's adapters as they are then.

    It has a copy of the base's weights. While the policy learns it sleeps: its weights wait in the machine's memory,
    and the GPU is the training's alone.

    Args:
        model: the policy, whose adapters are the only thing that changes.
        folder: where what it reads is written; it may be gone after :meth:`close`.
        longest: tokens of the longest prompt and its answer.
        memory: share of the GPU's memory that it may take while it is awake.

    Raises:
        StageFailed: vLLM cannot run this model here.
    """

    def __init__(self, model: Any, folder: Path, *, longest: int, memory: float) -> None:
        os.environ.update(ENVIRONMENT)
        from vllm import LLM

        self._model = model
        self._base, self._adapter = folder / "vllm-base", folder / "vllm-adapter"
        write_base(model, self._base)
        rank = write_joined_adapter(model, self._adapter)
        try:
            with torch.random.fork_rng():  # it seeds the generators of this process anew
                self._llm = LLM(**arguments(self._base, rank, longest, memory))
        except (ValueError, NotImplementedError) as error:
            raise StageFailed(
                f"train: vLLM cannot write the answers of this model: {error}",
                'Remove rollout = "vllm", or change vllm_memory.',
            ) from error
        self._llm.sleep(level=1)

    def __call__(self, prompts: Sequence[Sequence[int]], decoding: Decoding, ends: Sequence[int]) -> list[list[int]]:
        """Tokens of an answer to each prompt, the one that ends it included."""
        from vllm import SamplingParams
        from vllm.lora.request import LoRARequest

        write_joined_adapter(self._model, self._adapter)
        # From the generator whose state a checkpoint keeps, so that a run that goes on draws as one that never stopped.
        seeds = torch.randint(2**31, (len(prompts),)).tolist()
        self._llm.wake_up()
        outputs = self._llm.generate(
            [{"prompt_token_ids": list(prompt)} for prompt in prompts],
            [SamplingParams(seed=seed, **sampling(decoding, ends)) for seed in seeds],
            use_tqdm=False,
            lora_request=LoRARequest("policy", 1, str(self._adapter), load_inplace=True),
        )
        self._llm.sleep(level=1)
        return [list(output.outputs[0].token_ids) for output in outputs]

    def close(self) -> None:
        """Give back the GPU's memory and the files."""
        self._llm.llm_engine.engine_core.shutdown()
        del self._llm
        for folder in (self._base, self._adapter):
            shutil.rmtree(folder)


def arguments(base: Path, rank: int, longest: int, memory: float) -> dict[str, Any]:
    """Those of ``vllm.LLM``.

    Args:
        base: the folder of the model.
        rank: of the adapters, all of them as one.
        longest: tokens of the longest prompt and its answer.
        memory: share of the GPU's memory.

    Raises:
        StageFailed: the adapters have a higher rank than vLLM can hold.
    """
    room = next((size for size in _RANKS if size >= rank), None)
    if room is None:
        raise StageFailed(
            f"train: vLLM holds adapters of rank {_RANKS[-1]} at most, and those of this policy have {rank} together.",
            'Lower adapt.lora.rank, or remove rollout = "vllm".',
        )
    return {
        "model": str(base),
        "skip_tokenizer_init": True,
        "trust_remote_code": False,
        "generation_config": "vllm",  # nothing of the model's own defaults
        "max_model_len": longest,
        "enable_lora": True,
        "max_loras": 1,
        "max_lora_rank": room,
        # What was kept of a prompt was made by the adapter of a step before.
        "enable_prefix_caching": False,
        "enable_sleep_mode": True,
        "gpu_memory_utilization": memory,
    }


def sampling(decoding: Decoding, ends: Sequence[int]) -> dict[str, Any]:
    """Arguments of ``vllm.SamplingParams``, without the seed.

    Args:
        decoding: how.
        ends: tokens that end an answer.
    """
    return {
        "temperature": decoding.temperature,
        "top_k": decoding.top_k,
        "top_p": decoding.top_p,
        "min_tokens": decoding.min_new_tokens,
        "max_tokens": decoding.max_new_tokens,
        "stop_token_ids": list(ends),
        "detokenize": False,
    }
