"""What the tests of the quantizing load methods share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from tests import tiny
from transformers import AutoTokenizer

from recipe_engine.methods.adapt_lora import AdaptLora
from recipe_engine.methods.options import AdaptLora as LoraOptions
from recipe_engine.training.adapter_products import adapter_products
from recipe_engine.training.batches import collate, collate_packed
from recipe_engine.training.choice import Decoding
from recipe_engine.training.generation import greedy
from recipe_engine.training.isolation import prove_isolation
from recipe_engine.training.loss import label_loss, mean_loss
from recipe_engine.training.packed_attention import packed_attention

if TYPE_CHECKING:
    from recipe_engine.training.rows import Row

PAD = tiny.VOCABULARY - 3


def prepared(folder: Path) -> Path:
    tokenizer = tiny.write_tokenizer(folder / "tokenizer")
    return tiny.prepare_data(folder, tiny.instruction_rows(8), tokenizer)


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


def assert_as_with_peft(model: Any, rows: list[Row]) -> None:
    """Without padding and with products of our own, the gradients are those of padded rows and PEFT's products."""
    expected = gradients(model, rows)
    expected = {name: gradient.clone() for name, gradient in expected.items()}
    model.zero_grad()
    with packed_attention(model), adapter_products(model):
        prove_isolation(model, rows)
        label_loss(model, collate_packed(rows)).backward()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            distance = (parameter.grad - expected[name]).norm() / expected[name].norm()
            assert distance < 1e-4, name


def loss(model: Any, rows: list[Row]) -> float:
    return mean_loss(model, rows, 4, PAD, lambda _done, _total: None)[0]


def evaluate(model: Any, folder: Path, rows: list[Row]) -> None:
    """Both ways in which an evaluation uses a model."""
    loss(model, rows)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    prompts = [row.prompt_ids for row in rows[:3]]
    greedy(model, tokenizer, prompts, Decoding(max_new_tokens=4), batch_size=3, progress=lambda _done, _total: None)


def state(model: Any) -> dict[str, torch.Tensor]:
    """Every bit that would be saved, quantization constants included."""
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def assert_equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert list(one) == list(other)
    different = [
        name for name in one if one[name].dtype != other[name].dtype or not torch.equal(one[name], other[name])
    ]
    assert different == []


def logits(model: Any, rows: list[Row]) -> torch.Tensor:
    batch = collate(rows[:4], PAD)
    with torch.no_grad():
        result: torch.Tensor = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    return result


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
