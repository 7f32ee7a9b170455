"""``load.nf4``: what it writes, that live is restored, and that an evaluation leaves no trace on a later training."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from bitsandbytes import functional
from bitsandbytes.nn import Linear4bit
from safetensors import safe_open
from safetensors.torch import load_file
from tests import tiny
from tests.unit.methods.quantized_jobs import (
    assert_as_with_peft,
    assert_equal,
    evaluate,
    gradients,
    logits,
    loss,
    prepared,
    state,
    with_lora,
    write_gguf,
)

from recipe_engine.errors import UnresolvedInput
from recipe_engine.methods.adapt_lora import AdaptLora
from recipe_engine.methods.load_nf4 import LoadNf4
from recipe_engine.methods.options import AdaptLora as LoraOptions
from recipe_engine.methods.options import LoadNf4 as Options
from recipe_engine.methods.train_sft import TrainSft
from recipe_engine.training.options import TrainSft as SftOptions

if TYPE_CHECKING:
    from recipe_engine.training.rows import Row

pytestmark = [
    # transformers has new names for it; PEFT and transformers 5.0 know the old ones only.
    pytest.mark.filterwarnings("ignore:`[a-z_]*gradient_checkpointing[a-z_]*` is deprecated:FutureWarning"),
    # PEFT finds out by itself that GPT-2's layers are transposed.
    pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to False:UserWarning"),
]


def load(root: Path, folder: Path, **options: Any) -> tuple[Any, Path]:
    """A model as it is handed on live, and its artifact."""
    request = tiny.stage_request(root, Options(**options), node="load", source=tiny.resolve(folder))
    return LoadNf4().run(request).live, request.output


def restore(root: Path, artifact: Path, **options: Any) -> Any:
    """The model of an artifact, without its source."""
    return LoadNf4().restore(tiny.stage_request(root, Options(**options), node="load"), artifact)


def quantized_layers(model: Any) -> dict[str, Linear4bit]:
    return {name: module for name, module in model.named_modules() if isinstance(module, Linear4bit)}


@pytest.mark.parametrize("double_quant", [True, False])
def test_a_weight_is_what_bitsandbytes_makes_of_it(tmp_path: Path, folder: Path, double_quant: bool) -> None:
    model, _ = load(tmp_path, folder, double_quant=double_quant)
    weights = load_file(folder / "model.safetensors")
    layers = quantized_layers(model)
    per_layer = 7 if folder.name == "llama" else 4
    assert len(layers) == 2 * per_layer
    for name, layer in layers.items():
        weight = weights[f"{name}.weight"].to(torch.bfloat16)
        if folder.name == "gpt2":  # Conv1D keeps (in, out)
            weight = weight.T.contiguous()
        packed, expected = functional.quantize_4bit(
            weight, blocksize=64, compress_statistics=double_quant, quant_type="nf4"
        )
        found = layer.weight.quant_state
        assert torch.equal(layer.weight.data, packed), name
        assert found.nested is double_quant
        assert torch.equal(found.absmax, expected.absmax)
        again = functional.dequantize_4bit(layer.weight.data, found)
        assert torch.equal(again, functional.dequantize_4bit(packed, expected))
        # NormalFloat's widest step is 0.3 of a block's largest weight; half of it is the worst rounding.
        assert (again - weight).abs().max() <= 0.16 * weight.abs().max()


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_what_is_not_quantized_has_the_dtype_of_the_products(tmp_path: Path, folder: Path, dtype: str) -> None:
    model, _ = load(tmp_path, folder, compute_dtype=dtype)
    wanted = getattr(torch, dtype)
    assert {layer.compute_dtype for layer in quantized_layers(model).values()} == {wanted}
    assert {name: p.dtype for name, p in model.named_parameters() if p.dtype not in (torch.uint8, wanted)} == {}
    assert model.get_input_embeddings().weight.dtype is wanted
    assert model.get_output_embeddings().weight.dtype is wanted


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_live_is_restored(tmp_path: Path, folder: Path, rows: list[Row], dtype: str) -> None:
    live, artifact = load(tmp_path, folder, compute_dtype=dtype)
    restored = restore(tmp_path, artifact, compute_dtype=dtype)
    assert_equal(state(live), state(restored))
    for model in (live, restored):
        assert not model.training
        assert [name for name, parameter in model.named_parameters() if parameter.requires_grad] == []
        assert {layer.support_avx512bf16_for_cpu for layer in quantized_layers(model).values()} == {False}
    assert torch.equal(logits(live, rows), logits(restored, rows))


def test_equal_weights_give_an_equal_artifact(tmp_path: Path, folder: Path) -> None:
    _, first = load(tmp_path, folder)
    _, second = load(tmp_path, folder)
    files = tiny.folder_digests(first)
    assert files == tiny.folder_digests(second)
    assert set(files) == {"config.json", "generation_config.json", "model.safetensors"}
    here = str(tmp_path.parent).encode()
    assert [name for name in files if here in (first / name).read_bytes()] == []
    with safe_open(first / "model.safetensors", "pt") as opened:
        assert opened.metadata() == {"format": "pt"}


def test_an_evaluation_changes_neither_a_bit_nor_a_gradient(tmp_path: Path, folder: Path, rows: list[Row]) -> None:
    live, artifact = load(tmp_path, folder)
    before = state(live)
    evaluate(live, folder, rows)
    assert_equal(before, state(live))

    evaluated, untouched = with_lora(tmp_path, live), with_lora(tmp_path, restore(tmp_path, artifact))
    expected = gradients(untouched, rows)
    assert len(expected) == 2 * len(quantized_layers(untouched))
    assert [name for name, gradient in expected.items() if not gradient.abs().max() > 0] == []
    assert_equal(expected, gradients(evaluated, rows))

    evaluate(evaluated, folder, rows)  # as it happens between two steps
    assert_equal(expected, gradients(evaluated, rows))


def test_gradients_are_those_of_the_dequantized_model(tmp_path: Path, folder: Path, rows: list[Row]) -> None:
    live, _ = load(tmp_path, folder, compute_dtype="float32")
    plain = tiny.load_model(folder)
    for name, layer in quantized_layers(live).items():
        weight = functional.dequantize_4bit(layer.weight.data, layer.weight.quant_state)
        plain.get_submodule(name).weight.data = weight.T.contiguous() if folder.name == "gpt2" else weight
    quantized = gradients(with_lora(tmp_path, live), rows)
    for name, gradient in gradients(with_lora(tmp_path, plain), rows).items():
        torch.testing.assert_close(quantized[name], gradient, rtol=1e-3, atol=1e-4)


def test_samples_end_to_end_learn_what_peft_learns(tmp_path: Path, folder: Path, rows: list[Row]) -> None:
    model, _ = load(tmp_path, folder, compute_dtype="float32")
    assert_as_with_peft(with_lora(tmp_path, model), rows)


@pytest.mark.slow
def test_lora_learns_on_it_and_the_adapter_is_restored(tmp_path: Path, folder: Path, rows: list[Row]) -> None:
    data, tokenizer = {"train": prepared(tmp_path / "data")}, tmp_path / "data" / "tokenizer"
    live, artifact = load(tmp_path, folder)
    before = loss(live, rows)
    lora = tiny.stage_request(tmp_path, LoraOptions(rank=4, alpha=8), node="adapt", model=live)
    options = SftOptions(epochs=8, batch_size=8, learning_rate=1e-2, gradient_checkpointing=True)
    model = tiny.run_stage(AdaptLora(), lora).live
    train = tiny.stage_request(tmp_path, options, model=model, tokenizer=tokenizer, data=data)
    trained = tiny.run_stage(TrainSft(), train).live
    assert loss(trained, rows) < 0.8 * before

    base = tiny.stage_request(tmp_path, lora.options, node="adapt", model=restore(tmp_path, artifact))
    adapted = tiny.stage_request(tmp_path, options, model=tiny.restore_stage(AdaptLora(), base, lora.output))
    restored = tiny.restore_stage(TrainSft(), adapted, train.output)
    assert torch.equal(logits(trained, rows), logits(restored, rows))
    assert_equal(state(trained), state(restored))


def test_a_gguf_file_is_converted_first(tmp_path: Path) -> None:
    live, artifact = load(tmp_path, write_gguf(tmp_path / "tiny.gguf"))
    assert len(quantized_layers(live)) == 14
    assert set(tiny.folder_digests(artifact)) == {"config.json", "generation_config.json", "model.safetensors"}
    assert_equal(state(live), state(restore(tmp_path, artifact)))


def test_pickled_weights_are_refused(tmp_path: Path) -> None:
    folder = tiny.write_model(tmp_path / "pickled", pickled=True)
    with pytest.raises(UnresolvedInput, match=r"file:pickled holds no weights as \*\.safetensors or \*\.gguf"):
        load(tmp_path, folder)


def test_quantized_weights_are_refused(tmp_path: Path, folder: Path) -> None:
    _, artifact = load(tmp_path, folder)
    with pytest.raises(UnresolvedInput, match=f"file:{artifact.name} is quantized already"):
        load(tmp_path, artifact)
