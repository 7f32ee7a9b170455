"""LoRA's products against PEFT's own, and against a step that was derived by hand."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from tests import tiny
from transformers.pytorch_utils import Conv1D

from recipe_engine.training.adapter_inputs import Inputs, _dropped, _mask, _positions, _without
from recipe_engine.training.adapter_products import LoraLinears, LoraProduct, adapter_products
from recipe_engine.training.batches import collate
from recipe_engine.training.loss import label_loss
from recipe_engine.training.rows import Row, read_rows

PAD = 297


@pytest.fixture(scope="module")
def rows(llama: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Row]:
    folder = tmp_path_factory.mktemp("data")
    return read_rows(tiny.prepare_data(folder, tiny.instruction_rows(4), llama))


def step(model: Any, rows: list[Row]) -> tuple[float, torch.Tensor]:
    """Loss and the gradients of all factors, one after the other."""
    model.zero_grad()
    loss = label_loss(model, collate(rows, PAD))
    loss.backward()
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    assert all(weight.grad is not None and weight.grad.dtype == torch.float32 for weight in trained)
    return loss.item(), torch.cat([weight.grad.flatten() for weight in trained])


def distance(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found.double() - expected.double()).norm() / expected.double().norm())


@pytest.mark.parametrize("options", [{}, {"rslora": True, "alpha": 3.0}, {"target_modules": ("down_proj", "c_proj")}])
@pytest.mark.parametrize("base", ["llama", "gpt2"])
def test_in_float32_it_is_peft(
    base: str, options: dict[str, Any], rows: list[Row], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    folder: Path = request.getfixturevalue(base)
    targets = options.get("target_modules")
    options = options | ({"target_modules": targets[:1] if base == "llama" else targets[1:]} if targets else {})
    model = tiny.adapted_model(tmp_path, folder, **options)
    expected, gradients = step(model, rows)
    with adapter_products(model):
        found, others = step(model, rows)
    assert found == pytest.approx(expected, rel=1e-6)
    assert distance(others, gradients) < 1e-5


def test_in_bfloat16_it_is_as_near_to_the_truth_as_peft(rows: list[Row], tmp_path: Path, llama: Path) -> None:
    model, exact = (tiny.adapted_model(tmp_path, llama, dtype=dtype) for dtype in ("bfloat16", "float32"))
    with torch.no_grad():  # the base in both has the weights that bfloat16 can hold
        for weight, rounded in zip(exact.parameters(), model.parameters(), strict=True):
            weight.copy_(rounded)
    truth, true_gradients = step(exact, rows)
    peft, peft_gradients = step(model, rows)
    with adapter_products(model):
        ours, our_gradients = step(model, rows)
    assert ours == pytest.approx(truth, rel=5e-3)
    assert peft == pytest.approx(truth, rel=5e-3)
    # Most of the distance is the model's own rounding, which both share.
    assert distance(our_gradients, true_gradients) < 1.5 * distance(peft_gradients, true_gradients)


def test_in_bfloat16_one_layer_is_right_to_half_a_percent() -> None:
    """Against the same numbers in float64."""
    torch.manual_seed(0)
    result, x, gradient = (torch.randn(50, 64).bfloat16() for _ in range(3))
    first, second = torch.randn(16, 64), torch.randn(64, 16)
    found = products(result, x, first, second, gradient)
    exact = products(*(tensor.double() for tensor in (result, x, first, second, gradient)))
    assert [tensor.dtype for tensor in found] == [torch.bfloat16] * 3 + [torch.float32] * 2
    for one, other in zip(found, exact, strict=True):
        assert distance(one, other) < 5e-3


def products(*given: torch.Tensor) -> list[torch.Tensor]:
    """The sum, and the gradients of y, x, A and B."""
    result, x, first, second = tensors = [tensor.requires_grad_() for tensor in given[:4]]
    out = product(result, x, first, second, 0.5)
    return [out.detach(), *torch.autograd.grad(out, tensors, given[4])]


def product(
    result: torch.Tensor,
    x: torch.Tensor,
    first: torch.Tensor,
    second: torch.Tensor,
    scale: float,
    dropout: float = 0.0,
) -> torch.Tensor:
    """y + s dropout(x) A^T B^T."""
    given = Inputs().of([first], x, dropout, result.dtype)
    out: torch.Tensor = LoraProduct.apply(result, x, *given, scale / (1 - dropout), first, second)
    return out


def test_a_step_by_hand() -> None:
    """y = W x + s B A x at one row: x = (1, 2), A = (1, -1), B = (3, 5), s = 2; the gradient of y is (1, 10)."""
    result, x = torch.zeros(1, 2, requires_grad=True), torch.tensor([[1.0, 2.0]], requires_grad=True)
    first, second = torch.tensor([[1.0, -1.0]], requires_grad=True), torch.tensor([[3.0], [5.0]], requires_grad=True)
    out = product(result, x, first, second, 2.0)
    out.backward(torch.tensor([[1.0, 10.0]]))
    # A x = -1, so s B A x = (-6, -10); B^T dy = 53, so dA = 2 * 53 x and dx = 2 * 53 A; dB = 2 * (-1) dy.
    assert out.tolist() == [[-6.0, -10.0]]
    for tensor, gradient in (
        (result, [[1.0, 10.0]]),
        (x, [[106.0, -106.0]]),
        (first, [[106.0, 212.0]]),
        (second, [[-2.0], [-20.0]]),
    ):
        assert tensor.grad is not None
        assert tensor.grad.tolist() == gradient


@pytest.mark.parametrize("dropout", [0.1, 0.25])
def test_dropout_by_hand(dropout: float) -> None:
    """With what is drawn, it is the plain formula; autograd finds the gradients."""
    torch.manual_seed(3)
    result, x = torch.randn(5, 7, 6, requires_grad=True), torch.randn(5, 7, 4, requires_grad=True)
    first, second = torch.randn(2, 4, requires_grad=True), torch.randn(6, 2, requires_grad=True)
    gradient = torch.randn(5, 7, 6)
    tensors = (result, x, first, second)
    torch.manual_seed(4)
    out = product(*tensors, 1.5, dropout)
    found = torch.autograd.grad(out, tensors, gradient)
    torch.manual_seed(4)
    mask = _without(torch.ones(35, 4), _dropped(x.reshape(-1, 4), dropout)).view(x.shape)
    assert 0 < mask.sum() < mask.numel()
    plain = result + 1.5 * ((x * mask / (1 - dropout)) @ first.T @ second.T)
    torch.testing.assert_close(out, plain)
    torch.testing.assert_close(found, torch.autograd.grad(plain, tensors, gradient))


LAYERS = (torch.nn.Linear(4, 6), torch.nn.Linear(4, 3, bias=False), Conv1D(5, 4))


@pytest.mark.parametrize("dropout", [0.0, 0.1, 0.25])
@pytest.mark.parametrize("chosen", [LAYERS[:1], LAYERS[1:2], LAYERS[2:], LAYERS])
def test_layers_and_their_adapters_are_the_plain_formula(chosen: Sequence[torch.nn.Module], dropout: float) -> None:
    """In float64, where the order of sums does not count; ranks differ, and autograd finds the gradients."""
    torch.manual_seed(3)
    bases = [layer.double().requires_grad_(requires_grad=False) for layer in chosen]
    x = torch.randn(5, 7, 4, dtype=torch.float64, requires_grad=True)
    shapes = [base(x).shape for base in bases]
    firsts = [torch.randn(rank, 4, dtype=torch.float64, requires_grad=True) for rank, _ in enumerate(bases, 2)]
    seconds = [
        torch.randn(shape[-1], rank, dtype=torch.float64, requires_grad=True) for rank, shape in enumerate(shapes, 2)
    ]
    tensors, gradients = (x, *firsts, *seconds), [torch.randn(shape, dtype=torch.float64) for shape in shapes]
    torch.manual_seed(4)
    read = Inputs().of(firsts, x, dropout, x.dtype)
    outs = LoraLinears.apply(x, *read, bases, 1.5 / (1 - dropout), *firsts, *seconds)
    found = torch.autograd.grad(outs, tensors, gradients)
    torch.manual_seed(4)
    dropped = _dropped(x.reshape(-1, 4), dropout) if dropout else None
    kept = x * _without(torch.ones(35, 4), dropped).view(x.shape) / (1 - dropout)
    plain = [
        base(x) + 1.5 * (kept @ first.T @ second.T) for base, first, second in zip(bases, firsts, seconds, strict=True)
    ]
    torch.testing.assert_close(outs, tuple(plain))
    torch.testing.assert_close(found, torch.autograd.grad(plain, tensors, gradients))


def test_what_reads_the_same_tensor_has_the_same_left_out() -> None:
    torch.manual_seed(0)
    inputs, x = Inputs(), torch.ones(3, 5, 40)
    kept, _ = inputs.of(["query"], x, 0.1, x.dtype)
    assert kept.shape == (15, 40)
    assert inputs.of(["key"], x, 0.1, x.dtype)[0] is kept
    assert (inputs.of(["other"], x, 0.0, x.dtype)[0] == 1.0).all()
    again, _ = inputs.of(["query"], x, 0.1, x.dtype)
    assert not torch.equal(again, kept), "one that reads it once more has numbers of its own"
    assert inputs.of(["key"], x, 0.1, x.dtype)[0] is again
    assert not torch.equal(inputs.of(["other"], x, 0.2, x.dtype)[0], again)
    assert not torch.equal(inputs.of(["other"], x.clone(), 0.1, x.dtype)[0], again)
    x.add_(1.0)
    last, _ = inputs.of(["other"], x, 0.1, x.dtype)
    assert set(last.unique().tolist()) == {0.0, 2.0}
    alive = weakref.ref(last)
    del last
    assert alive() is not None
    del x
    assert alive() is None, "it goes with what was read"


@pytest.fixture
def joined(monkeypatch: pytest.MonkeyPatch) -> list[list[torch.nn.Module]]:
    """The layers that are computed at once, call by call."""
    calls: list[list[torch.nn.Module]] = []
    forward = LoraLinears.forward

    def spied(*given: Any) -> tuple[torch.Tensor, ...]:
        calls.append(given[4])
        return forward(*given)

    monkeypatch.setattr(LoraLinears, "forward", staticmethod(spied))
    return calls


def test_what_is_computed_at_once(rows: list[Row], tmp_path: Path, llama: Path, joined: list[Any]) -> None:
    """Queries, keys and values are; so are gate and up; nothing else is."""
    model = tiny.adapted_model(tmp_path, llama, dropout=0.1).train()
    with adapter_products(model):
        step(model, rows)
    names = {layer.base_layer: name for name, layer in model.named_modules() if hasattr(layer, "base_layer")}
    parts = [["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"], ["self_attn.o_proj"]]
    parts += [["mlp.gate_proj", "mlp.up_proj"], ["mlp.down_proj"]]
    expected = [[f"{layer}.{name}" for name in part] for layer in range(2) for part in parts]
    assert [[names[base].split("layers.")[-1] for base in call] for call in joined] == expected


def test_an_adapter_that_is_scaled_otherwise_is_computed_alone(
    rows: list[Row], tmp_path: Path, llama: Path, joined: list[Any]
) -> None:
    model = tiny.adapted_model(tmp_path, llama)
    for layer in model.modules():
        if hasattr(layer, "k_proj"):
            layer.k_proj.scaling["default"] *= 2
    expected, gradients = step(model, rows)
    with adapter_products(model):
        found, others = step(model, rows)
    assert [len(call) for call in joined] == [2, 1, 1, 2, 1] * 2
    assert found == pytest.approx(expected, rel=1e-6)
    assert distance(others, gradients) < 1e-5


class Attention(torch.nn.Module):
    """Queries of one sequence, keys and values of another."""

    def __init__(self) -> None:
        super().__init__()
        self.q_proj, self.k_proj, self.v_proj = (torch.nn.Linear(8, 8) for _ in range(3))

    def forward(self, asking: torch.Tensor, asked: torch.Tensor) -> torch.Tensor:
        query, key, value = self.q_proj(asking), self.k_proj(asked), self.v_proj(asked)
        out: torch.Tensor = torch.softmax(query @ key.mT, -1) @ value
        return out


def test_what_reads_another_tensor_after_all_is_computed_for_that() -> None:
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    names = ["q_proj", "k_proj", "v_proj"]
    model: Any = get_peft_model(Attention(), LoraConfig(r=2, target_modules=names, init_lora_weights=False))
    asking, asked = torch.randn(1, 3, 8), torch.randn(1, 5, 8)
    results = []
    for products in (nullcontext(), adapter_products(model)):
        model.zero_grad()
        with products:
            out = model(asking, asked)
            out.square().sum().backward()
        factors = [weight.grad for weight in model.parameters() if weight.requires_grad]
        results.append((out.detach(), factors))
    torch.testing.assert_close(results[1], results[0])


def test_a_layer_whose_bias_is_trained_gets_its_gradient(rows: list[Row], tmp_path: Path, gpt2: Path) -> None:
    model = tiny.adapted_model(tmp_path, gpt2, target_modules=("c_attn", "c_proj"))
    bias = next(weight for name, weight in model.named_parameters() if name.endswith("c_attn.base_layer.bias"))
    bias.requires_grad_()
    step(model, rows)
    expected = bias.grad
    assert expected is not None
    with adapter_products(model):
        step(model, rows)
    assert bias.grad is not None
    torch.testing.assert_close(bias.grad, expected)


@pytest.mark.parametrize(("draw", "dropout"), [(_mask, 0.05), (_mask, 0.5), (_positions, 0.05), (_positions, 0.125)])
def test_dropout_leaves_out_the_right_share(draw: Callable[..., torch.Tensor], dropout: float) -> None:
    torch.manual_seed(0)
    mask = _without(torch.ones(1001, 999), draw(torch.empty(1001, 999), dropout))
    share = 1 - mask.float().mean().item()
    assert share == pytest.approx(dropout, abs=4 * (dropout * (1 - dropout) / mask.numel()) ** 0.5)
    columns = mask.float().mean(dim=0)
    assert columns.std().item() == pytest.approx((dropout * (1 - dropout) / 1001) ** 0.5, rel=0.1)
    neighbours = (mask[:, 1:].float() - columns[1:]) * (mask[:, :-1].float() - columns[:-1])
    assert abs(neighbours.mean().item()) < 4 * dropout * (1 - dropout) / 1000


def test_positions_reach_both_ends_and_no_further() -> None:
    """At one half, each of three numbers is left out about half of the time, alone and together."""
    torch.manual_seed(0)
    drawn = [tuple(_positions(torch.empty(3), 0.5).tolist()) for _ in range(4000)]
    shares = {subset: drawn.count(subset) / len(drawn) for subset in set(drawn)}
    assert shares.keys() == {(), (0,), (1,), (2,), (0, 1), (0, 2), (1, 2), (0, 1, 2)}
    assert all(share == pytest.approx(1 / 8, abs=0.02) for share in shares.values())


def test_dropout_is_off_in_evaluation_and_nothing_stays_behind(rows: list[Row], tmp_path: Path, llama: Path) -> None:
    model = tiny.adapted_model(tmp_path, llama, dropout=0.5)
    before = tiny.model_state(model)
    expected = label_loss(model, collate(rows, PAD)).item()
    with adapter_products(model):
        assert label_loss(model, collate(rows, PAD)).item() == pytest.approx(expected, rel=1e-6)
        model.train()
        assert label_loss(model, collate(rows, PAD)).item() != pytest.approx(expected, rel=1e-3)
        model.eval()
    after = tiny.model_state(model)
    tiny.assert_same_state(after, before, generators=False)
    assert not any("forward" in vars(module) for module in model.modules())


def test_dora_keeps_its_own_way(tmp_path: Path, llama: Path) -> None:
    model = tiny.adapted_model(tmp_path, llama, dora=True)
    with adapter_products(model):
        assert not any("forward" in vars(module) for module in model.modules())


def test_a_frozen_adapter_below_gets_no_gradient(rows: list[Row], tmp_path: Path, llama: Path) -> None:
    from peft import LoraConfig

    model = tiny.adapted_model(tmp_path, llama)
    model.add_adapter("below", LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False))
    model.base_model.set_adapter(["below", "default"])
    for name, weight in model.named_parameters():
        weight.requires_grad_(".default." in name)
    expected, gradients = step(model, rows)
    with adapter_products(model):
        found, others = step(model, rows)
    assert found == pytest.approx(expected, rel=1e-6)
    assert distance(others, gradients) < 1e-5
