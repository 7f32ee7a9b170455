"""``load.int8`` -- linear layers in 8-bit integers, by bitsandbytes."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from recipe_engine.contract import StageRequest, StageResult
from recipe_engine.methods.quantized import load_quantized, save_quantized

if TYPE_CHECKING:
    from pathlib import Path


class LoadInt8:
    """Quantizes once; the artifact owns the 8-bit weights, and whoever wants the model loads it from there.

    Embeddings, norms and the head stay in ``compute_dtype``. In evaluation mode the inputs of a layer are quantized
    too, row by row, but for the columns that hold an outlier *anywhere in the batch*: what else is in the batch moves
    a row's result a little. In training mode on a CPU bitsandbytes multiplies with the dequantized weights instead.
    """

    def run(self, request: StageRequest) -> StageResult:
        """Quantize, save before any forward pass, and load what was saved.

        Raises:
            UnresolvedInput: where the source holds no weights that can be loaded safely, or quantized ones.
        """
        from transformers import BitsAndBytesConfig

        quantization = BitsAndBytesConfig(load_in_8bit=True, llm_int8_threshold=request.options.threshold)
        save_quantized(request, request.options.precision, quantization)
        return StageResult(live=self.restore(request, request.output))

    def restore(self, request: StageRequest, artifact: Path) -> Any:
        """The quantized model in evaluation mode, frozen."""
        # It warns in each layer of each forward pass that bfloat16 becomes float16: megabytes of one known line.
        logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)
        return load_quantized(request, artifact)
