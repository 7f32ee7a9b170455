"""The node that gives the model a row for each token that was added to its tokenizer."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from recipe_engine.contract import StageRequest, StageResult
from recipe_engine.training.tokenizer import open_tokenizer

if TYPE_CHECKING:
    from pathlib import Path

_SETTINGS = "vocabulary.json"


class ExtendStage:
    """Makes the embedding, and a head of its own, as long as the tokenizer.

    A new row is the mean of the old ones, so that a new token is as likely as an average one (Hewitt, 2021:
    "Initializing New Word Embeddings for Pretrained Language Models"). A model with rows to spare keeps them.
    """

    def run(self, request: StageRequest) -> StageResult:
        """Lengthen; the artifact says how many rows there are."""
        assert request.inputs.tokenizer is not None  # the graph gives every extension a tokenizer
        settings = {"rows": len(open_tokenizer(request.inputs.tokenizer))}
        (request.output / _SETTINGS).write_text(json.dumps(settings) + "\n", encoding="utf-8")
        return StageResult(live=self.restore(request, request.output))

    def restore(self, request: StageRequest, artifact: Path) -> Any:
        """The model with its new rows, frozen, in evaluation mode."""
        import torch

        model = request.inputs.model
        rows = json.loads((artifact / _SETTINGS).read_bytes())["rows"]
        old = model.get_input_embeddings().weight.shape[0]
        if rows <= old:
            return model
        model.resize_token_embeddings(rows, mean_resizing=False)
        layers = [layer for layer in (model.get_input_embeddings(), model.get_output_embeddings()) if layer is not None]
        with torch.no_grad():
            for layer in layers:
                layer.weight[old:] = layer.weight[:old].float().mean(dim=0)
        model.requires_grad_(requires_grad=False)
        return model.eval()
