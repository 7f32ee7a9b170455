"""Bytes of the parts of a job: weights, adapters, optimizer state, activations.

The counts follow what this package's own training keeps: samples end to end, adapters in the precision of their layer,
logits in chunks. A decoder of the Llama kind is exact; the feed-forward layers of others differ a little.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from recipe_engine.methods.fits import last
from recipe_engine.methods.options import AdaptLora, LoadFull, LoadInt8, LoadNf4

if TYPE_CHECKING:
    from collections.abc import Iterable

    from recipe_engine.estimate.shapes import Shapes

LOADS = (LoadFull, LoadNf4, LoadInt8)
FLOAT32 = 4
_BYTES = {"bfloat16": 2, "float16": 2, "float32": FLOAT32}
# bitsandbytes: a scale for each 64 weights; doubly quantized to a byte, with a float for each 256 of those.
_BLOCK, _SCALES = 64, 256
# bitsandbytes' optimizers: numbers that share a scale, from how many on a tensor's moments are in 8 bits, and from how
# many on they are paged.
_OPTIMIZER_BLOCK, _SMALL_FROM, _PAGED_FROM = 256, 4096, 100_000
# Largest chunk of logits (recipe_engine.training.head), its positions on a CPU, and how many of these are gone over at
# a time, in float32 and with logarithms of their shares (recipe_engine.training.readout).
LOGITS_AT_ONCE, ON_A_CPU, GONE_OVER, _OF_ONE_GONE_OVER = 2**24, 256, 64, 2 * FLOAT32
# What is there of a logit while the next token is drawn: itself, in float32, at the temperature, its share of the
# probability, and their sums in float64 (recipe_engine.training.sampling).
OF_A_DRAW = 2 + 3 * FLOAT32 + 8
# Up to this length a layer keeps the attention weights (recipe_engine.training.packed_attention).
LONGEST_IN_PRODUCTS = 512
# Up to this size weights are copied to write answers on a CPU (recipe_engine.training.packed_weights).
LARGEST_COPY = 2**30
_TRAINER = 10 << 20
# What gaps between activations that are computed again take, in activations of a layer, by the bytes of a number.
_GAPS = {2: 1.6, FLOAT32: 2.6}
_QUERY_PARTS = frozenset({"q_proj", "k_proj", "v_proj", "c_attn", "query_key_value", "qkv_proj"})
_OUTPUT_PARTS = frozenset({"o_proj", "out_proj", "dense"})
_LAST_PARTS = frozenset({"down_proj", "fc2", "dense_4h_to_h", "c_proj"})


def precision(load: object) -> int:
    """Bytes of a number in products and in whatever is not quantized."""
    return _BYTES[load.precision] if isinstance(load, LOADS) else FLOAT32


def weights(shapes: Shapes, load: object) -> int:
    """The model in memory."""
    others = shapes.others * precision(load)
    if isinstance(load, LoadNf4):
        scales = 1 / _BLOCK + FLOAT32 / (_BLOCK * _SCALES) if load.double_quant else FLOAT32 / _BLOCK
        return round(shapes.linear_numbers * (0.5 + scales)) + others
    if isinstance(load, LoadInt8):
        return shapes.linear_numbers + others
    return shapes.linear_numbers * precision(load) + others


def factors(shapes: Shapes, options: AdaptLora) -> list[int]:
    """Numbers of each factor of the adapters."""
    return [options.rank * width for widths in shapes.targets(options).values() for width in widths]


def adapter_numbers(shapes: Shapes, options: AdaptLora) -> int:
    """Weights of the adapters' factors."""
    return sum(factors(shapes, options))


def optimizer_state(kind: str, tensors: Iterable[int], embedding: int = 0) -> int:
    """AdamW's two moments, as bitsandbytes keeps those that are not PyTorch's; pages need not lie on the device.

    Args:
        kind: the option ``optimizer``.
        tensors: numbers of each trained tensor but the embedding.
        embedding: numbers of the embedding, where it is trained: its moments are never in 8 bits.
    """
    found = 0
    for numbers, small in [*((numbers, kind.endswith("8bit")) for numbers in tensors), (embedding, False)]:
        if kind.startswith("paged") and numbers >= _PAGED_FROM:
            continue
        found += (
            round(2 * (1 + FLOAT32 / _OPTIMIZER_BLOCK) * numbers)
            if small and numbers >= _SMALL_FROM
            else (2 * FLOAT32 * numbers)
        )
    return found


def trained_tensors(shapes: Shapes, adapt: object) -> tuple[list[int], int]:
    """Numbers of each tensor that is trained, without the embedding, and of the embedding, where that is trained."""
    if isinstance(adapt, AdaptLora):
        return factors(shapes, adapt), 0
    embedding = min(shapes.others, shapes.vocabulary * shapes.hidden)
    return [*(one * other for one, other in shapes.linear.values()), shapes.others - embedding], embedding


def trained_numbers(shapes: Shapes, adapt: object) -> int:
    """Weights that are trained: those of the adapters, or all."""
    tensors, embedding = trained_tensors(shapes, adapt)
    return sum(tensors) + embedding


def layer_activations(shapes: Shapes, tokens: int, longest: int, size: int, adapters: AdaptLora | None) -> int:
    """What one decoder layer keeps of a micro-batch for its backward pass.

    Args:
        shapes: of the model.
        tokens: of the micro-batch.
        longest: tokens of its longest sample.
        size: bytes of a number in the products.
        adapters: what is trained; ``None`` for the weights themselves.
    """
    # What the two norms were given (recipe_engine.training.norms), or what they computed in float32.
    kept = 2 * shapes.hidden * (FLOAT32 if adapters is None or shapes.wide_norms else size)
    kept += size * shapes.inner * (3 if shapes.gated else 2)
    if longest <= LONGEST_IN_PRODUCTS:  # queries, keys, values, and the weights of each block with those before it
        block = attention_block(longest)
        whole = -(-longest // block) * block
        kept += size * (
            shapes.hidden + 2 * shapes.keys + shapes.heads * whole * (whole + block) // 2 // max(1, longest)
        )
    else:  # the fused kernel keeps keys and values once for each query head, and its result
        kept += size * 4 * shapes.hidden + FLOAT32 * shapes.heads
    return tokens * (kept + (_inputs(shapes, size) if adapters is None else _adapter_inputs(shapes, size, adapters)))


def left_out(shapes: Shapes, tokens: int, adapters: AdaptLora | None, device: str) -> int:
    """What one decoder layer keeps of what its adapters' dropout left out of a micro-batch.

    On a CPU that is a position of eight bytes for each number that is left out, where these take less than a mask, a
    byte for each number (recipe_engine.training.adapter_inputs).
    """
    if adapters is None or not adapters.dropout:
        return 0
    return round(tokens * _read(shapes, adapters) * (min(1.0, 8 * adapters.dropout) if device == "cpu" else 1.0))


def attention_block(tokens: int) -> int:
    """Queries of a block of a row's attention (recipe_engine.training.block_attention)."""
    return max(32, 1 << (-(-tokens // 4) - 1).bit_length())


def head_activations(shapes: Shapes, labels: int, size: int, device: str) -> int:
    """Logits of one chunk, and what is computed of them."""
    positions = min(labels, max(1, LOGITS_AT_ONCE // shapes.vocabulary))
    gone_over = positions
    if device == "cpu":
        positions, gone_over = min(positions, ON_A_CPU), min(positions, GONE_OVER)
    return shapes.vocabulary * (positions * size + gone_over * _OF_ONE_GONE_OVER)


def cache(shapes: Shapes, rows: int, length: int, size: int) -> int:
    """Keys and values of all layers while answers are generated; the layer that grows is there twice."""
    return 2 * (shapes.layers + 1) * rows * length * shapes.keys * size


def packed_weights(shapes: Shapes, load: object) -> int:
    """The copy of the linear layers, the head among them, that are not quantized."""
    linear = shapes.linear_numbers if isinstance(load, LoadFull) else 0
    copy = (linear + shapes.vocabulary * shapes.hidden) * precision(load)
    return copy if copy <= LARGEST_COPY else 0


def _inputs(shapes: Shapes, size: int) -> int:
    """Inputs of all linear layers, a token; each norm's result is there before and after its weight."""
    return size * (2 * 2 * shapes.hidden + shapes.hidden + shapes.inner)


def _adapter_inputs(shapes: Shapes, size: int, adapters: AdaptLora) -> int:
    """Inputs of the layers that have adapters, and the adapters' inner results, a token."""
    return size * (_read(shapes, adapters) + adapters.rank * len(shapes.targets(adapters)) // max(1, shapes.layers))


def _read(shapes: Shapes, adapters: AdaptLora) -> int:
    """Numbers a token that the adapters of a decoder layer read; what several read counts once."""
    names = {last(name) for name in shapes.targets(adapters)}
    read = shapes.hidden * _any(names & _QUERY_PARTS)
    read += shapes.hidden * _any(names & _OUTPUT_PARTS)
    read += shapes.hidden * _any(names - _QUERY_PARTS - _OUTPUT_PARTS - _LAST_PARTS)
    return read + shapes.inner * _any(names & _LAST_PARTS)


def _any(found: object) -> int:
    return 1 if found else 0


def heap(kept: int, layer: int) -> int:
    """What the allocator holds beside what is used, and the trainer's own objects.

    Measured on a CPU with glibc's allocator: layers of activations come and go between those that stay.

    Args:
        kept: bytes of all activations that wait for the backward pass.
        layer: bytes of one layer's.
    """
    return _TRAINER + 4 * layer + round(0.15 * kept)


def heap_recomputing(shapes: Shapes, layer: int, size: int, adapters: AdaptLora | None, load: object) -> int:
    """The same where activations are computed again on a CPU (recipe_engine.training.recomputing).

    Args:
        shapes: of the model.
        layer: bytes of one layer's activations.
        size: bytes of a number in the products.
        adapters: what is trained; ``None`` for the weights themselves.
        load: options of the load method.
    """
    ends_trained = adapters is None or any(last(name) in _LAST_PARTS for name in shapes.targets(adapters))
    if ends_trained or isinstance(load, LoadFull):
        return _TRAINER + round(_GAPS[size] * layer)
    return _TRAINER + round(0.3 * shapes.layers * layer)  # the gaps of all layers stay
