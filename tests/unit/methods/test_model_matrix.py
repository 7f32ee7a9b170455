"""Every way of loading with every way of adapting: what is handed on live is what the artifacts give back, bit for bit.

What PEFT loads by itself on the plain base says the same, too: to the bit, but for adapters that are written as a
difference, and up to the rounding of the base's weights for those.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from tests import tiny

from recipe_engine.lazy import load_symbol
from recipe_engine.methods import options
from recipe_engine.methods.adapt_full import AdaptFull
from recipe_engine.methods.adapt_lora import AdaptLora
from recipe_engine.methods.fits import lora_clashes
from recipe_engine.methods.train_sft import TrainSft
from recipe_engine.training.options import TrainSft as SftOptions

pytestmark = pytest.mark.slow

IDS = torch.tensor([[5, 80, 12, 297, 40, 7, 9, 33], [8, 8, 1, 2, 250, 91, 17, 3]])
TWO_STEPS: dict[str, Any] = {"epochs": 1, "batch_size": 4, "learning_rate": 5e-3}
LOADS: dict[str, Any] = {
    "full-bf16": options.LoadFull(),
    "full-fp32": options.LoadFull(dtype="float32"),
    "nf4": options.LoadNf4(),
    "nf4-single": options.LoadNf4(double_quant=False),
    "nf4-fp32": options.LoadNf4(compute_dtype="float32"),
    "int8": options.LoadInt8(),
    "int8-fp32": options.LoadInt8(compute_dtype="float32"),
}
ADAPTERS: dict[str, dict[str, Any]] = {
    "lora": {},
    "dora": {"dora": True},
    "rslora": {"rslora": True},
    "gaussian": {"init": "gaussian"},
    "bias": {"bias": "all"},
    "bias-lora": {"bias": "lora_only"},
    "whole": {"modules_to_save": ("ln_f",)},
    "pissa": {"init": "pissa"},
    "olora": {"init": "olora"},
    "pissa-rslora": {"init": "pissa", "rslora": True},
}
PAIRS = [
    (load, adapter)
    for load in LOADS
    for adapter in ADAPTERS
    if not lora_clashes(options.AdaptLora(**ADAPTERS[adapter]), {"load": LOADS[load]})
]
FAST = {("full-bf16", "pissa"), ("full-fp32", "bias"), ("nf4", "dora"), ("int8", "lora")}
# GPT-2 has biases and transposed layers, which is where adapters go wrong; Llama's head is untied.
MATRIX = [
    *(pytest.param((*pair, "gpt2"), marks=[] if pair in FAST else pytest.mark.slow) for pair in PAIRS),
    *(pytest.param((*pair, "llama"), marks=pytest.mark.slow) for pair in PAIRS if pair[1] in ("lora", "dora", "pissa")),
]
# The largest difference of a logit, of logits up to 4.5. Measured: 3e-6 and 0.08.
BOUNDS = {torch.float32: 2e-5, torch.bfloat16: 0.15}


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(input_ids=IDS).logits.float()
    return found


def implementation(chosen: Any) -> Any:
    name = type(chosen).__name__
    return load_symbol(f"recipe_engine.methods.{name.replace('Load', 'load_').lower()}:{name}")()


@pytest.fixture
def loaded(tmp_path: Path, llama: Path, gpt2: Path) -> Callable[[Any, str], Callable[[], Any]]:
    """``loaded(options, base)``: a function that gives the model of one artifact, as often as it is called."""

    def load(chosen: Any, base: str) -> Callable[[], Any]:
        source = tiny.resolve({"llama": llama, "gpt2": gpt2}[base])
        request = tiny.stage_request(tmp_path, chosen, node="load", source=source)
        implementation(chosen).run(request)
        return lambda: implementation(chosen).restore(request, request.output)

    return load


@pytest.fixture(scope="module")
def data(llama: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {"train": tiny.prepare_data(tmp_path_factory.mktemp("data"), tiny.instruction_rows(8), llama)}


def assert_same(restored: Any, live: Any) -> None:
    tiny.assert_same_state(tiny.model_state(restored), tiny.model_state(live), generators=False)
    assert torch.equal(logits(restored), logits(live))


def train(root: Path, code: Any, chosen: Any, base: Callable[[], Any], **inputs: Any) -> tuple[Any, Path]:
    """Adapt and train two steps, comparing live with restored after each; the trained model and its artifact."""
    adapt = tiny.stage_request(root, chosen, node="adapt", model=base())
    logits(adapt.inputs.model)  # as an evaluation does before
    live = tiny.run_stage(code, adapt).live

    def adapted() -> Any:
        return tiny.restore_stage(code, tiny.stage_request(root, chosen, node="adapt", model=base()), adapt.output)

    assert_same(adapted(), live)
    request = tiny.stage_request(root, SftOptions(**TWO_STEPS), model=live, **inputs)
    trained = tiny.run_stage(TrainSft(), request).live
    again = tiny.stage_request(root, request.options, model=adapted())
    assert_same(tiny.restore_stage(TrainSft(), again, request.output), trained)
    return trained, request.output


@pytest.mark.parametrize("case", MATRIX, ids="-".join)
def test_adapters(
    case: tuple[str, str, str],
    tmp_path: Path,
    llama: Path,
    data: dict[str, Path],
    loaded: Callable[..., Callable[[], Any]],
) -> None:
    load, adapter, base = case
    chosen = options.AdaptLora(rank=4, alpha=8, dropout=0.1, **ADAPTERS[adapter])
    plain = loaded(LOADS[load], base)
    trained, artifact = train(tmp_path, AdaptLora(), chosen, plain, tokenizer=llama, data=data)
    said = logits(trained)
    assert (said - logits(plain())).abs().max() > 0.1, "it learned something"
    alone = logits(peft.PeftModel.from_pretrained(plain(), artifact))
    if not chosen.changes_base:
        assert torch.equal(alone, said)
    else:
        assert (alone - said).abs().max() < BOUNDS[trained.get_input_embeddings().weight.dtype]
        ranks = {module.r["default"] for module in trained.modules() if hasattr(module, "lora_A")}
        config = peft.LoraConfig.from_pretrained(artifact)
        assert (ranks, config.r, config.init_lora_weights) == ({4}, 8, True)


@pytest.mark.parametrize("init", ["pissa", "olora"])
@pytest.mark.parametrize("base", ["llama", "gpt2"])
def test_what_is_taken_out_is_what_peft_takes_out(
    init: str, base: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    folder: Path = request.getfixturevalue(base)
    chosen = options.AdaptLora(rank=4, alpha=8, init=init)  # type: ignore[arg-type]
    model = tiny.load_model(folder)
    before = logits(model)
    ours = tiny.run_stage(AdaptLora(), tiny.stage_request(tmp_path, chosen, node="adapt", model=model)).live
    torch.testing.assert_close(logits(ours), before, rtol=1e-5, atol=1e-5)
    if (base, init) == ("gpt2", "olora"):
        return  # PEFT decomposes the transposed weight
    config = copy.copy(ours.peft_config["default"])
    theirs = peft.get_peft_model(tiny.load_model(folder), config).eval()
    weights = dict(theirs.named_parameters())
    for name, weight in ours.named_parameters():
        torch.testing.assert_close(weight, weights[name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("train_only", [None, ("ln_f", "mlp.c_fc")])
def test_whole_weights(
    train_only: Any, tmp_path: Path, gpt2: Path, data: dict[str, Path], loaded: Callable[..., Callable[[], Any]]
) -> None:
    plain = loaded(LOADS["full-fp32"], "gpt2")
    chosen = options.AdaptFull(train_only=train_only)
    trained, artifact = train(tmp_path, AdaptFull(), chosen, plain, tokenizer=gpt2, data=data)
    assert sorted(tiny.folder_digests(artifact)) == ["config.json", "generation_config.json", "model.safetensors"]
    alone = tiny.load_model(artifact)
    assert alone.lm_head.weight is alone.transformer.wte.weight
    assert torch.equal(logits(alone), logits(trained))
    base = plain()
    changed = {name for name, weight in trained.named_parameters() if not torch.equal(weight, base.get_parameter(name))}
    wanted = {
        name for name, _ in base.named_parameters() if train_only is None or ".ln_f." in name or ".mlp.c_fc." in name
    }
    # Positions beyond the longest row have no gradient, but decay and rounding leave them alone too.
    assert changed == wanted


def test_whole_weights_of_nothing(tmp_path: Path, gpt2: Path) -> None:
    from recipe_engine.errors import StageFailed

    chosen = options.AdaptFull(train_only=("w_pack",))
    request = tiny.stage_request(tmp_path, chosen, node="adapt", model=tiny.load_model(gpt2))
    with pytest.raises(StageFailed, match=r"^adapt: train_only: no module of this model is named w_pack\."):
        AdaptFull().run(request)


def test_a_quantized_module_is_not_trained_whole(tmp_path: Path, loaded: Callable[..., Callable[[], Any]]) -> None:
    from recipe_engine.errors import StageFailed

    chosen = options.AdaptLora(target_modules=("c_fc",), modules_to_save=("c_attn",))
    request = tiny.stage_request(tmp_path, chosen, node="adapt", model=loaded(LOADS["nf4-fp32"], "gpt2")())
    with pytest.raises(
        StageFailed,
        match=r"^adapt: modules_to_save: transformer\.h\.0\.attn\.c_attn is quantized and cannot be trained whole\.",
    ):
        AdaptLora().run(request)
