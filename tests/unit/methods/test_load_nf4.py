"""``load.nf4``: what it writes, that live is restored, and that an evaluation leaves no trace on a later training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from bitsandbytes import functional
from bitsandbytes.nn import Linear4bit
from safetensors import safe_open
from safetensors.torch import load_file
from tests import tiny
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from recipe_engine.errors import UnresolvedInput
from recipe_engine.methods.adapt_lora import AdaptLora
from recipe_engine.methods.load_nf4 import LoadNf4
from recipe_engine.methods.options import AdaptLora as LoraOptions
from recipe_engine.methods.options import LoadNf4 as Options
from recipe_engine.methods.train_sft import TrainSft
from recipe_engine.training.batches import collate
from recipe_engine.training.generation import greedy
from recipe_engine.training.loss import label_loss, mean_loss
from recipe_engine.training.options import TrainSft as SftOptions
from recipe_engine.training.rows import Row, read_rows

pytestmark = [
    # transformers has new names for it; PEFT and transformers 5.0 know the old ones only.
    pytest.mark.filterwarnings("ignore:`[a-z_]*gradient_checkpointing[a-z_]*` is deprecated:FutureWarning"),
    # PEFT finds out by itself that GPT-2's layers are transposed.
    pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to False:UserWarning"),
]

# One block of 64 weights a row, or more: that is what bitsandbytes repacks on the CPU where it is allowed to.
SHAPES: dict[str, dict[str, Any]] = {
    "llama": {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    | {"num_key_value_heads": 2, "tie_word_embeddings": False},
    "gpt2": {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 512},
}
PAD = tiny.VOCABULARY - 3


@pytest.fixture(scope="session", params=["llama", "gpt2"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder, weights in float32."""
    path = tmp_path_factory.mktemp("wide") / request.param
    ends = {"bos_token_id": None, "eos_token_id": PAD}
    config = AutoConfig.for_model(
        request.param, vocab_size=tiny.VOCABULARY, initializer_range=0.2, **ends, **SHAPES[request.param]
    )
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(path)
    return tiny.write_tokenizer(path)


@pytest.fixture(scope="session")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[Row]:
    return read_rows(prepared(tmp_path_factory.mktemp("rows")))


def prepared(folder: Path) -> Path:
    tokenizer = tiny.write_tokenizer(folder / "tokenizer")
    return tiny.prepare_data(folder, tiny.instruction_rows(8), tokenizer)


def load(root: Path, folder: Path, **options: Any) -> tuple[Any, Path]:
    """A model as it is handed on live, and its artifact."""
    request = tiny.stage_request(root, Options(**options), node="load", source=tiny.resolve(folder))
    return LoadNf4().run(request).live, request.output


def restore(root: Path, artifact: Path, **options: Any) -> Any:
    """The model of an artifact, without its source."""
    return LoadNf4().restore(tiny.stage_request(root, Options(**options), node="load"), artifact)


def with_lora(root: Path, model: Any) -> Any:
    """Adapters on every linear layer whose second factor is not 0, so that every factor has a gradient."""
    request = tiny.stage_request(root, LoraOptions(rank=4, alpha=8), node="adapt", model=model)
    adapted = tiny.run_stage(AdaptLora(), request).live
    torch.manual_seed(1)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return adapted


def gradients(model: Any, rows: list[Row]) -> dict[str, torch.Tensor]:
    """Of one training step's loss."""
    model.train()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0  # GPT-2 has its own
    model.zero_grad()
    label_loss(model, collate(rows, PAD)).backward()
    return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.requires_grad}


def loss(model: Any, rows: list[Row]) -> float:
    return mean_loss(model, rows, 4, PAD, lambda _done, _total: None)[0]


def evaluate(model: Any, folder: Path, rows: list[Row]) -> None:
    """Both ways in which an evaluation uses a model."""
    loss(model, rows)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    prompts = [row.prompt_ids for row in rows[:3]]
    greedy(model, tokenizer, prompts, max_new_tokens=4, batch_size=3, progress=lambda _done, _total: None)


def state(model: Any) -> dict[str, torch.Tensor]:
    """Every bit that would be saved, quantization constants included."""
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def assert_equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert list(one) == list(other)
    different = [
        name for name in one if one[name].dtype != other[name].dtype or not torch.equal(one[name], other[name])
    ]
    assert different == []


def quantized_layers(model: Any) -> dict[str, Linear4bit]:
    return {name: module for name, module in model.named_modules() if isinstance(module, Linear4bit)}


def logits(model: Any, rows: list[Row]) -> torch.Tensor:
    batch = collate(rows[:4], PAD)
    with torch.no_grad():
        result: torch.Tensor = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    return result


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


def write_gguf(path: Path) -> Path:
    """A Llama of two layers, its weights in float32."""
    import gguf
    import numpy as np

    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(2)
    writer.add_context_length(128)
    writer.add_embedding_length(64)
    writer.add_feed_forward_length(128)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(tiny.VOCABULARY)
    generator = np.random.default_rng(0)
    shapes = {"token_embd": (tiny.VOCABULARY, 64), "output": (tiny.VOCABULARY, 64), "output_norm": (64,)}
    for layer in range(2):
        parts = {"attn_q": (64, 64), "attn_k": (32, 64), "attn_v": (32, 64), "attn_output": (64, 64)}
        parts |= {"ffn_gate": (128, 64), "ffn_up": (128, 64), "ffn_down": (64, 128)}
        shapes |= {f"blk.{layer}.{name}": shape for name, shape in parts.items()}
        shapes |= {f"blk.{layer}.attn_norm": (64,), f"blk.{layer}.ffn_norm": (64,)}
    for name, shape in shapes.items():
        writer.add_tensor(f"{name}.weight", generator.standard_normal(shape).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
