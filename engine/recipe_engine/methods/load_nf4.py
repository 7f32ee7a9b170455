"""``load.nf4`` -- linear layers in 4-bit NormalFloat, by bitsandbytes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from recipe_engine.contract import StageRequest, StageResult
from recipe_engine.methods.quantized import load_quantized, save_quantized

if TYPE_CHECKING:
    from pathlib import Path

    from recipe_engine.methods.options import LoadNf4 as Options


class LoadNf4:
    """Quantizes once; the artifact owns the 4-bit weights, and whoever wants the model loads it from there.

    Embeddings, norms and the head stay in ``compute_dtype``. Nothing is upcast for the training, so a model that is
    restored on another day is the model that was trained on.
    """

    def run(self, request: StageRequest) -> StageResult:
        """Quantize, save before any forward pass, and load what was saved.

        Raises:
            UnresolvedInput: where the source holds no weights that can be loaded safely, or quantized ones.
        """
        save_quantized(request, request.options.precision, _quantization(request.options))
        return StageResult(live=self.restore(request, request.output))

    def restore(self, request: StageRequest, artifact: Path) -> Any:
        """The quantized model in evaluation mode, frozen."""
        from bitsandbytes.nn import Linear4bit

        model = load_quantized(request, artifact)
        for module in model.modules():
            if isinstance(module, Linear4bit):
                # With this on, the first evaluation on such a CPU repacks the weights in place and rounds their
                # scales; afterwards no gradient passes through the layer, and nobody says so.
                module.support_avx512bf16_for_cpu = False
        return model


def _quantization(options: Options) -> Any:
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=options.double_quant,
        bnb_4bit_compute_dtype=options.precision,
    )
