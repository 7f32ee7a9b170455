"""Activations that are computed again: the same gradients to the bit, in less memory."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
import torch
from tests import tiny
from tests.unit.training.packing_models import tiny_model

from recipe_engine.training.adapter_products import adapter_products
from recipe_engine.training.batches import collate_packed
from recipe_engine.training.loss import label_loss
from recipe_engine.training.packed_attention import packed_attention
from recipe_engine.training.recomputing import gradients_in_place, recomputed
from recipe_engine.training.rows import Row

ROWS = [
    Row(number, tuple(range(3, 3 + length)), (False, *[True] * (length - 1)), 1, "", "")
    for number, length in enumerate((9, 30, 17))
]


def gradients(model: Any) -> dict[str, torch.Tensor]:
    """Of one step in training mode, dropout drawn anew from the same seed."""
    model.train().zero_grad()
    torch.manual_seed(1)
    with packed_attention(model), adapter_products(model):
        label_loss(model, collate_packed(ROWS)).backward()
    return {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}


def assert_same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    assert expected
    assert all(torch.equal(found[name], gradient) for name, gradient in expected.items())


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2", "gpt_neox"])
def test_the_same_gradients(family: str) -> None:
    model = tiny_model(family)
    expected = gradients(model)
    with recomputed(model):
        assert_same(gradients(model), expected)
    assert_same(gradients(model), expected)


def test_the_same_gradients_of_adapters_with_dropout(llama: Path, tmp_path: Path) -> None:
    model = tiny.adapted_model(tmp_path, llama, dropout=0.5)
    expected = gradients(model)
    with recomputed(model):
        assert_same(gradients(model), expected)


def test_the_same_gradients_where_adapters_read_what_a_layer_is_given() -> None:
    """In an encoder queries and values do, so the last layer reads the same tensor twice; its dropout draws on."""
    from peft import LoraConfig, get_peft_model
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    encoder = BertModel(BertConfig(vocab_size=50, hidden_dropout_prob=0.2, **shape))
    lora = LoraConfig(r=2, lora_dropout=0.1, target_modules=["query", "value"], init_lora_weights=False)
    model = get_peft_model(encoder, lora).train()

    def step() -> dict[str, torch.Tensor]:
        model.zero_grad()
        torch.manual_seed(1)
        with adapter_products(model):
            model(input_ids=torch.arange(12).view(2, 6)).last_hidden_state.pow(3).sum().backward()
        return {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}

    expected = step()
    with recomputed(model):
        assert_same(step(), expected)


@pytest.mark.parametrize(
    ("quantized", "targets", "times"),
    [(False, ("q_proj", "v_proj"), 2), (True, "all-linear", 2), (True, ("q_proj", "v_proj"), 1)],
)
def test_a_last_quantized_product_that_nobody_trains_is_spared(
    llama: Path, tmp_path: Path, *, quantized: bool, targets: Any, times: int
) -> None:
    """Each layer's last product is computed in the forward pass, and again only where its adapter needs it."""
    from recipe_engine.methods.adapt_lora import AdaptLora
    from recipe_engine.methods.load_full import LoadFull
    from recipe_engine.methods.load_nf4 import LoadNf4
    from recipe_engine.methods.options import AdaptLora as LoraOptions
    from recipe_engine.methods.options import LoadFull as FullOptions
    from recipe_engine.methods.options import LoadNf4 as Nf4Options

    method, options = (LoadNf4(), Nf4Options()) if quantized else (LoadFull(), FullOptions())
    load = tiny.stage_request(tmp_path, options, node="load", source=tiny.resolve(llama))
    base = tiny.run_stage(method, load).live
    lora = LoraOptions(rank=2, target_modules=targets)
    model = tiny.run_stage(AdaptLora(), tiny.stage_request(tmp_path, lora, node="adapt", model=base)).live
    expected = gradients(model)
    computed: list[Any] = []
    for name, module in model.named_modules():
        if name.endswith(("down_proj", "down_proj.base_layer")) and isinstance(module, torch.nn.Linear):
            module.register_forward_hook(lambda module, _, __: computed.append(module))
    with recomputed(model):
        assert_same(gradients(model), expected)
    assert len(computed) == times * tiny.LAYERS


def test_nothing_is_left_behind() -> None:
    model = tiny_model("llama")
    with recomputed(model):
        assert model.is_activation_checkpointing
    assert not model.is_activation_checkpointing
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert not any(weight._post_accumulate_grad_hooks for weight in model.parameters())


def test_gradients_stay_where_they_are() -> None:
    """Step by step and through accumulation; a weight that no loss depends on has no gradient to decay it."""
    used, unused = (torch.nn.Parameter(torch.ones(3)) for _ in range(2))
    places = set()
    with gradients_in_place(torch.nn.ParameterList([used, unused])):
        for _ in range(2):
            for times in (1, 2):
                (2 * used).sum().backward()
                assert used.grad is not None
                assert used.grad.tolist() == [2.0 * times] * 3
                places.add(used.grad.data_ptr())
            used.grad = None
    assert len(places) == 1
    assert unused.grad is None


@pytest.mark.slow
def test_the_memory_of_one_layer() -> None:
    """24 layers, 2,048 tokens, float32; in a new process, as what an allocator holds depends on what came before."""
    code = """
        import sys
        from contextlib import nullcontext
        from pathlib import Path

        import torch
        from peft import LoraConfig, get_peft_model
        from tests.unit.training.packing_models import tiny_model

        from recipe_engine.training.adapter_products import adapter_products
        from recipe_engine.training.recomputing import recomputed

        def held():
            status = Path("/proc/self/status").read_text()
            return int(status.partition("RssAnon:")[2].split()[0]) * 1024

        sizes = {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 24}
        model = get_peft_model(tiny_model("llama", **sizes), LoraConfig(r=8, target_modules="all-linear")).train()
        ids = torch.full((16, 128), 3)
        grown = 0
        with recomputed(model) if sys.argv[1] == "again" else nullcontext(), adapter_products(model):
            before = held()
            for _ in range(2):
                model.zero_grad()
                loss = model(input_ids=ids, labels=ids, use_cache=False).loss
                grown = max(grown, held() - before)
                loss.backward()
                grown = max(grown, held() - before)
        print(grown)
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    kept, again = (
        int(subprocess.run([*command, way], capture_output=True, check=True, text=True).stdout)
        for way in ("kept", "again")
    )
    states = 24 * 2048 * 256 * 4
    assert kept > 8 * states
    assert again < 0.3 * kept
