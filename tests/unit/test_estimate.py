"""What a recipe needs in memory, beside counts by hand and beside what a training really keeps."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests import tiny
from tests.unit.written import SMALL, recipe_of

from recipe_engine.errors import UnfitEnvironment
from recipe_engine.estimate import parts
from recipe_engine.estimate.fitting import CERTAINTY, check_memory, outlook
from recipe_engine.estimate.job import Lengths
from recipe_engine.estimate.shapes import Shapes, shapes_of
from recipe_engine.estimate.stages import micro_batch
from recipe_engine.methods.options import AdaptLora, LoadFull, LoadInt8, LoadNf4
from recipe_engine.outline import outline_of
from recipe_engine.plugins import load_catalogue
from recipe_engine.training.options import TrainSft

if TYPE_CHECKING:
    from recipe_engine.contract import ModelOutline

# Of the tiny model: q, k, v, o, gate, up and down of a layer, twice; embedding, head and five norms.
LINEAR = 2 * (32 * 32 + 16 * 32 + 16 * 32 + 32 * 32 + 3 * 64 * 32)
OTHERS = 2 * 300 * 32 + 5 * 32
LORA = AdaptLora(rank=4)


@pytest.fixture(scope="module")
def outline(tmp_path_factory: pytest.TempPathFactory) -> ModelOutline:
    return outline_of(sorted(tiny.write_model(tmp_path_factory.mktemp("model")).iterdir()))


@pytest.fixture(scope="module")
def shapes(outline: ModelOutline) -> Shapes:
    found = shapes_of(outline)
    assert found is not None
    return found


def test_weights_by_hand(shapes: Shapes) -> None:
    assert (shapes.linear_numbers, shapes.others) == (LINEAR, OTHERS)
    assert parts.weights(shapes, LoadFull(dtype="bfloat16")) == 2 * (LINEAR + OTHERS)
    assert parts.weights(shapes, LoadFull(dtype="float32")) == 4 * (LINEAR + OTHERS)
    assert parts.weights(shapes, LoadInt8()) == LINEAR + 2 * OTHERS
    # Half a byte each, a scale of a byte for 64 of them, a float for 256 scales; or a float for 64.
    assert parts.weights(shapes, LoadNf4()) == round(LINEAR / 2 + LINEAR / 64 + LINEAR / 64 / 256 * 4) + 2 * OTHERS
    assert parts.weights(shapes, LoadNf4(double_quant=False)) == LINEAR // 2 + LINEAR // 16 + 2 * OTHERS


def test_adapters_and_their_optimizer_by_hand(shapes: Shapes) -> None:
    widths = 2 * (64 + 48 + 48 + 64 + 3 * 96)
    assert parts.adapter_numbers(shapes, LORA) == 4 * widths
    assert parts.adapter_numbers(shapes, AdaptLora(rank=4, target_modules=("q_proj",))) == 4 * 2 * 64
    assert sum(parts.factors(shapes, LORA)) == 4 * widths


@pytest.mark.parametrize(
    ("kind", "device_bytes"),
    [
        ("adamw", 8 * (4095 + 4096 + 100_000 + 200_000)),
        # Two bytes, and a float each for 256 of them; small tensors and the embedding in full.
        ("adamw_8bit", 8 * 4095 + 2 * (4096 + 100_000) + round(8 / 256 * (4096 + 100_000)) + 8 * 200_000),
        ("paged_adamw", 8 * (4095 + 4096)),
        ("paged_adamw_8bit", 8 * 4095 + 2 * 4096 + 8 * 4096 // 256),
    ],
)
def test_the_optimizers_state_by_hand(kind: str, device_bytes: int) -> None:
    assert parts.optimizer_state(kind, [4095, 4096, 100_000], embedding=200_000) == device_bytes


def test_a_smaller_optimizer_makes_the_training_smaller(outline: ModelOutline) -> None:
    def state(kind: str) -> int:
        recipe = recipe_of(SMALL, [f"train.sft.optimizer={kind}", "adapt.lora.rank=256"])
        return outlook(recipe, load_catalogue(), outline, {}, None).stages["train"].parts["optimizer"]

    assert state("adamw_8bit") == pytest.approx(state("adamw") * (2 + 8 / 256) / 8, rel=1e-3)


def test_activations_of_a_layer_by_hand(shapes: Shapes) -> None:
    norms, feed_forward, inputs, inner = 2 * 2 * 32, 2 * 3 * 64, 2 * (3 * 32 + 64), 2 * 4 * 7
    # 100 tokens fill four blocks of 32, which see 32, 64, 96 and 128.
    attention = 2 * (32 + 2 * 16 + 4 * 32 * (32 + 64 + 96 + 128) // 100)
    token = norms + feed_forward + attention + inputs + inner
    assert parts.layer_activations(shapes, 200, 100, 2, LORA) == 200 * token


@pytest.mark.parametrize(
    ("dropout", "device", "each"), [(0.05, "cpu", 0.4), (0.2, "cpu", 1), (0.05, "cuda", 1), (0.0, "cpu", 0)]
)
def test_what_dropout_left_out_of_a_layer_by_hand(shapes: Shapes, dropout: float, device: str, each: float) -> None:
    numbers = 3 * 32 + 64  # queries, keys and values share theirs; so do gate and up
    assert parts.left_out(shapes, 200, AdaptLora(rank=4, dropout=dropout), device) == 200 * numbers * each


def test_norms_that_keep_float32(shapes: Shapes) -> None:
    wide, kept = replace(shapes, wide_norms=True), parts.layer_activations(shapes, 10, 5, 2, LORA)
    assert parts.layer_activations(wide, 10, 5, 2, LORA) - kept == 10 * 2 * 2 * 32
    assert parts.layer_activations(wide, 10, 5, 2, None) == parts.layer_activations(shapes, 10, 5, 2, None)


def test_the_attention_of_a_layer_by_hand(shapes: Shapes) -> None:
    def attention(longest: int) -> int:
        without = parts.layer_activations(shapes, 1, 0, 4, LORA) - 4 * (32 + 2 * 16)
        return parts.layer_activations(shapes, 1, longest, 4, LORA) - without

    assert attention(5) == 4 * (32 + 2 * 16 + 4 * 32 * 32 // 5)
    assert attention(300) == 4 * (32 + 2 * 16 + 4 * 128 * (128 + 256 + 384) // 300)


@pytest.mark.parametrize("dropout", [0.0, 0.05, 0.25])
def test_a_training_keeps_what_was_counted(shapes: Shapes, tmp_path: Path, dropout: float) -> None:
    adapters = AdaptLora(rank=4, dropout=dropout)
    kept = kept_bytes(tiny.write_model(tmp_path / "model"), adapters, rows=4, length=100)
    layer = parts.layer_activations(shapes, 400, 100, 2, adapters) + parts.left_out(shapes, 400, adapters, "cpu")
    counted = shapes.layers * layer
    assert counted == pytest.approx(kept, rel=0.08)  # the last norm and the angles of the positions are not counted


def kept_bytes(folder: Path, adapters: AdaptLora, rows: int, length: int) -> int:
    """Bytes that autograd keeps of a batch through all layers, each storage once, parameters apart."""
    import torch
    from peft import LoraConfig, get_peft_model

    from recipe_engine.methods.load_full import load_pretrained
    from recipe_engine.training.batches import collate_packed
    from recipe_engine.training.layers import quick_layers
    from recipe_engine.training.loss import packed_states
    from recipe_engine.training.packed_attention import packed_attention
    from recipe_engine.training.rows import Row

    chosen = LoraConfig(r=adapters.rank, lora_dropout=adapters.dropout, target_modules="all-linear")
    model: Any = get_peft_model(load_pretrained(folder, "bfloat16", "cpu"), chosen).train()
    batch = collate_packed([Row(1, tuple(range(length)), (True,) * length, 1, "", "")] * rows)
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    found: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            found[storage.data_ptr()] = storage.nbytes()
        return tensor

    hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
    with packed_attention(model), quick_layers(model), hooks:
        states = packed_states(model.get_base_model(), batch)  # noqa: F841 -- it holds the graph
        return sum(found.values())


def test_gaps_stay_where_the_last_product_of_a_quantized_layer_has_no_adapter(shapes: Shapes) -> None:
    some, nf4, full = AdaptLora(rank=4, target_modules=("q_proj", "v_proj")), LoadNf4(), LoadFull()
    nothing = parts.heap_recomputing(shapes, 0, 2, LORA, nf4)
    assert parts.heap_recomputing(shapes, 1000, 2, LORA, nf4) - nothing == 1600
    assert parts.heap_recomputing(shapes, 1000, 4, None, full) - nothing == 2600
    assert parts.heap_recomputing(shapes, 1000, 2, some, full) - nothing == 1600
    assert parts.heap_recomputing(shapes, 1000, 2, some, nf4) - nothing == 300 * tiny.LAYERS


def test_the_limits_are_those_of_the_training() -> None:
    """They are written down twice, as the training's modules import PyTorch and a plan must not."""
    from recipe_engine.training import block_attention, head, packed_attention, packed_weights, readout

    assert parts.LOGITS_AT_ONCE == head.LOGITS_AT_ONCE
    assert (parts.ON_A_CPU, parts.GONE_OVER) == (readout.POSITIONS_ON_A_CPU, readout.GONE_OVER_ON_A_CPU)
    assert parts.LONGEST_IN_PRODUCTS == packed_attention.LONGEST_IN_PRODUCTS
    assert all(parts.attention_block(tokens) == block_attention.block_of(tokens) for tokens in range(513))
    assert parts.LARGEST_COPY == packed_weights.LARGEST_COPY


@pytest.mark.parametrize(
    ("options", "tokens"),
    [
        (TrainSft(), 100 + 15 * 40),
        (TrainSft(batch_size=4), 100 + 3 * 40),
        (TrainSft(micro_batch_size=1), 100),
        (TrainSft(micro_batch_tokens=200), 200),
        (TrainSft(micro_batch_tokens=50), 100),
        (TrainSft(batch_tokens=1000), 1000),
        (TrainSft(batch_tokens=10_000), 4096),
    ],
)
def test_a_micro_batch_is_its_longest_row_among_average_ones(options: TrainSft, tokens: int) -> None:
    assert micro_batch(options, Lengths(longest=100, mean=40.0)) == tokens


def test_a_model_of_another_kind_is_not_guessed(outline: ModelOutline) -> None:
    assert shapes_of(replace(outline, tensors={})) is None
    assert shapes_of(replace(outline, config={"model_type": "mamba"})) is None
    quantized = {**outline.tensors, "model.layers.0.mlp.up_proj.weight.quant_map": (16,)}
    assert shapes_of(replace(outline, tensors=quantized)) is None


def test_what_does_not_fit_is_refused_with_what_would(outline: ModelOutline) -> None:
    recipe, catalogue = recipe_of(SMALL, ["train.sft.gradient_checkpointing=false"]), load_catalogue()
    found = outlook(recipe, catalogue, outline, {}, there=None)
    assert found.largest == "train"
    check_memory(recipe, found)
    enough = round(found.needed / CERTAINTY) + 1
    check_memory(recipe, outlook(recipe, catalogue, outline, {}, there=enough))
    with pytest.raises(UnfitEnvironment, match=r"train needs about 0\.5 GiB of memory, and there are") as raised:
        check_memory(recipe, outlook(recipe, catalogue, outline, {}, there=enough - 2))
    assert "micro_batch_tokens = 1024 saves" in raised.value.hint
    assert "gradient_checkpointing = true saves" in raised.value.hint


def test_rows_that_are_prepared_count_as_they_are(outline: ModelOutline) -> None:
    recipe, catalogue = recipe_of(SMALL), load_catalogue()
    metrics = {"prepare.train": {"rows": 10, "tokens": 400, "longest_row": 100}}
    unknown = outlook(recipe, catalogue, outline, {}, None).stages["train"].parts["activations"]
    known = outlook(recipe, catalogue, outline, metrics, None).stages["train"].parts["activations"]
    assert known < unknown / 10


def test_a_window_is_all_that_an_evaluation_reads_of_a_row(outline: ModelOutline) -> None:
    text = SMALL.replace("[evaluate.perplexity]", "[evaluate.perplexity]\nwindow = {}")

    def activations(window: int, longest: int | None = None) -> int:
        metrics = {"prepare.eval@whole": {"rows": 2, "tokens": longest, "longest_row": longest}} if longest else {}
        recipe = recipe_of(text.format(window))
        return (
            outlook(recipe, load_catalogue(), outline, metrics, None).stages["evaluate.perplexity"].parts["activations"]
        )

    assert activations(100) < activations(400) == activations(400, longest=9000)
    assert activations(400, longest=100) == activations(100)
