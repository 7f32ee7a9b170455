"""The node before a push of whole models: the trained adapter becomes a part of the weights."""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from recipe_engine.contract import StageRequest, StageResult
from recipe_engine.errors import VerificationFailed
from recipe_engine.methods.load_full import load_pretrained
from recipe_engine.training.tokenizer import open_tokenizer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import torch

# What PEFT puts between a module and its weight, and what it puts beside it.
_WRAPPERS = re.compile(r"(\.token_adapter)?\.base_layer\.|\.modules_to_save\.[^.]+\.")
_OF_ADAPTERS = re.compile(r"\.lora_|\.original_module\.|\.trainable_tokens_")
TEXTS = (
    "The capital of France is Paris, which lies on the river Seine.",
    "def add(a, b):\n    return a + b\n",
    "1, 2, 3, 4, 5, 6, 7, 8",
)
BOUNDS = {"float32": 1e-4, "float16": 0.03, "bfloat16": 0.1}
"""Largest difference allowed between the logits before and after, as root mean square over that of the logits.

An update that is added to a weight is rounded to the weight's dtype; beside the weight it was not. Measured on random
models of 2 and of 30 layers whose adapters change a lot: 1e-6 and 1e-5 in float32, 0.003 and 0.01 in float16, 0.02 and
0.08 in bfloat16."""


class MergeStage:
    """Writes the model with its adapter merged, in the dtype in which it was loaded.

    The live model is only borrowed: afterwards every bit of it is what it was.
    """

    def run(self, request: StageRequest) -> StageResult:
        """Merge, write, load what was written, and compare what both say to a few texts.

        Raises:
            VerificationFailed: where the merged model does not say what the adapted one says.
        """
        model = request.inputs.model
        base = model.get_base_model()
        dtype = str(base.get_input_embeddings().weight.dtype).removeprefix("torch.")
        before = _logits(request, model)
        with _merged(model):
            base.save_pretrained(request.output, state_dict=_plain_state(base))
        after = _logits(request, load_pretrained(request.output, dtype, request.device))
        difference = ((after - before).square().mean().sqrt() / before.square().mean().sqrt()).item()
        if not difference <= BOUNDS[dtype]:
            raise VerificationFailed(
                f"merge: the merged model differs from the adapted one by {difference:.2g} of its logits; "
                f"rounding to {dtype} explains {BOUNDS[dtype]:.2g}.",
                "Export the adapter." if dtype == "float32" else 'Load with dtype = "float32", or export the adapter.',
            )
        return StageResult(facts={"difference": difference, "bound": BOUNDS[dtype]})

    def restore(self, request: StageRequest, artifact: Path) -> Any:
        """Nothing is live."""
        del request, artifact


def _logits(request: StageRequest, model: Any) -> torch.Tensor:
    """What the model says to each of :data:`TEXTS`, (tokens of all texts, vocabulary), in float32 on the CPU."""
    import torch

    assert request.inputs.tokenizer is not None  # the graph gives the merge a tokenizer
    tokenizer = open_tokenizer(request.inputs.tokenizer)
    found = []
    with torch.no_grad():
        for text in TEXTS:
            ids = torch.tensor([tokenizer(text)["input_ids"]], device=request.device)
            found.append(model(input_ids=ids, use_cache=False).logits[0].float().cpu())
    return torch.cat(found)


@contextmanager
def _merged(model: Any) -> Iterator[None]:
    """All adapters at work merged into the weights for the time of the block.

    Subtracting an update again would leave its rounding behind, so the weights are put back from copies.
    """
    import torch
    from peft.tuners.tuners_utils import BaseTunerLayer

    layers = [module for module in model.modules() if isinstance(module, BaseTunerLayer)]
    copies = [
        [(parameter, parameter.detach().to("cpu", copy=True)) for parameter in layer.get_base_layer().parameters()]
        for layer in layers
    ]
    try:
        model.merge_adapter(safe_merge=True)
        yield
    finally:
        with torch.no_grad():
            for layer, kept in zip(layers, copies, strict=True):
                layer.unmerge()
                for parameter, copy in kept:
                    parameter.copy_(copy)


def _plain_state(base: Any) -> dict[str, Any]:
    """The weights by the names that they have in a model without adapters."""
    return {
        _WRAPPERS.sub(".", name): tensor for name, tensor in base.state_dict().items() if not _OF_ADAPTERS.search(name)
    }
