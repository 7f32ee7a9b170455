"""Built-in ways to load a model and to make it trainable."""

from __future__ import annotations

from typing import TYPE_CHECKING

from recipe_engine.descriptors import LANGUAGE_MODELS, Method
from recipe_engine.hookmark import hookimpl
from recipe_engine.methods import fits, options
from recipe_engine.methods.builtin.requirements import MODEL_PACKAGES, PEFT, TORCH, TRANSFORMERS, bitsandbytes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from recipe_engine.descriptors import ModelKind

_QUANTIZED_PACKAGES = (*MODEL_PACKAGES, "bitsandbytes")
_ADAPTABLE: frozenset[ModelKind] = frozenset({*LANGUAGE_MODELS, "encoder"})


@hookimpl(trylast=True)
def recipe_load_methods() -> Iterator[Method]:
    """Weights into memory."""
    yield Method(
        name="full",
        summary="Load the weights without quantization",
        options=options.LoadFull,
        implementation="recipe_engine.methods.load_full:LoadFull",
        gives="causal_lm",
        check_model=fits.language_model_fits_outline,
        requires=(TORCH, TRANSFORMERS),
        packages=MODEL_PACKAGES,
    )
    yield Method(
        name="encoder",
        summary="Load an encoder with a head that gives a score",
        options=options.LoadEncoder,
        implementation="recipe_engine.methods.load_encoder:LoadEncoder",
        gives="encoder",
        check_model=fits.encoder_fits_outline,
        seeded=True,
        requires=(TORCH, TRANSFORMERS),
        packages=MODEL_PACKAGES,
    )
    yield Method(
        name="nf4",
        summary="Quantize to 4-bit NormalFloat",
        options=options.LoadNf4,
        implementation="recipe_engine.methods.load_nf4:LoadNf4",
        gives="quantized_lm",
        check_model=fits.language_model_fits_outline,
        requires=(TORCH, TRANSFORMERS, bitsandbytes("nn:Linear4bit")),
        packages=_QUANTIZED_PACKAGES,
    )
    yield Method(
        name="int8",
        summary="Quantize to 8-bit integers",
        options=options.LoadInt8,
        implementation="recipe_engine.methods.load_int8:LoadInt8",
        gives="quantized_lm",
        check_model=fits.language_model_fits_outline,
        requires=(TORCH, TRANSFORMERS, bitsandbytes("nn:Linear8bitLt")),
        packages=_QUANTIZED_PACKAGES,
    )


@hookimpl(trylast=True)
def recipe_adapt_methods() -> Iterator[Method]:
    """What becomes trainable."""
    yield Method(
        name="lora",
        summary="Low-rank adapters",
        options=options.AdaptLora,
        implementation="recipe_engine.methods.adapt_lora:AdaptLora",
        takes=_ADAPTABLE,
        gives="adapter",
        gives_for={"encoder": "encoder_adapter"},
        new_tokens=lambda chosen: chosen.new_tokens or (),
        check=lambda chosen: chosen.contradictions(),
        clashes=fits.lora_clashes,
        check_model=fits.lora_fits_outline,
        seeded=True,
        requires=(TORCH, PEFT),
        packages=(*MODEL_PACKAGES, "peft"),
    )
    yield Method(
        name="full",
        summary="All weights of the model",
        options=options.AdaptFull,
        implementation="recipe_engine.methods.adapt_full:AdaptFull",
        takes=frozenset({"causal_lm", "encoder"}),
        gives="causal_lm",
        gives_for={"encoder": "encoder"},
        clashes=fits.full_clashes,
        check_model=fits.full_fits_outline,
        requires=(TORCH, TRANSFORMERS),
        packages=MODEL_PACKAGES,
    )
