"""A merged model says what the adapted one says, and the adapted one is left as it was."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from tests import tiny

from recipe_engine.errors import VerificationFailed
from recipe_engine.methods.merge import BOUNDS, MergeStage

IDS = torch.tensor([[5, 80, 12, 297, 40]])


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(input_ids=IDS).logits.float()
    return found


def merged(root: Path, base: Path, model: Any) -> tuple[float, Path]:
    """The difference that was found, and the artifact."""
    request = tiny.stage_request(root, None, node="merge", model=model, tokenizer=base)
    result = MergeStage().run(request)
    assert result.live is None
    assert MergeStage().restore(request, request.output) is None
    return result.facts["difference"], request.output


@pytest.fixture(scope="module")
def tied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_model(tmp_path_factory.mktemp("tied") / "tied", tied=True)


CHANGES: dict[str, dict[str, Any]] = {
    "lora": {},
    "dora": {"dora": True},
    "rslora": {"rslora": True},
    "pissa": {"init": "pissa"},
    "head": {"target_modules": ("q_proj", "lm_head")},
    "norm": {"modules_to_save": ("norm",)},
}


@pytest.mark.parametrize(
    "change", [pytest.param(name, marks=[] if name in ("lora", "head") else pytest.mark.slow) for name in CHANGES]
)
def test_it_says_the_same_without_peft(change: str, tmp_path: Path, llama: Path) -> None:
    model = tiny.adapted_model(tmp_path, llama, **CHANGES[change])
    before, said = tiny.model_state(model), logits(model)
    difference, folder = merged(tmp_path, llama, model)
    assert difference < 0.1 * BOUNDS["float32"]
    tiny.assert_same_state(tiny.model_state(model), before)
    assert torch.equal(logits(model), said)
    plain = tiny.load_model(folder)
    torch.testing.assert_close(logits(plain), said, rtol=1e-4, atol=1e-4)
    assert (said - logits(tiny.load_model(llama))).abs().max() > 0.1, "the adapter has something to say"


@pytest.mark.parametrize("base", ["gpt2", "tied"])
@pytest.mark.parametrize("dtype", ["float32", pytest.param("bfloat16", marks=pytest.mark.slow)])
def test_tied_weights_stay_tied_and_the_dtype_stays(
    base: str, dtype: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    folder: Path = request.getfixturevalue(base)
    model = tiny.adapted_model(tmp_path, folder, dtype=dtype)
    before = tiny.model_state(model)
    difference, output = merged(tmp_path, folder, model)
    assert difference < 0.5 * BOUNDS[dtype]
    tiny.assert_same_state(tiny.model_state(model), before)
    plain = tiny.load_model(output, dtype)
    assert plain.get_output_embeddings().weight is plain.get_input_embeddings().weight
    with safe_open(output / "model.safetensors", "pt") as opened:
        names = list(opened.keys())
        assert {opened.get_slice(name).get_dtype() for name in names} == {{"float32": "F32", "bfloat16": "BF16"}[dtype]}
    assert sorted(names) == sorted(name for name, _ in tiny.load_model(folder).named_parameters())


def test_equal_models_are_equal_bytes_and_name_no_path(tmp_path: Path, llama: Path) -> None:
    folders = [merged(tmp_path, llama, tiny.adapted_model(tmp_path, llama))[1] for _ in range(2)]
    assert tiny.folder_digests(folders[0]) == tiny.folder_digests(folders[1])
    assert sorted(tiny.folder_digests(folders[0])) == ["config.json", "generation_config.json", "model.safetensors"]
    assert str(llama.parent) not in (folders[0] / "config.json").read_text(encoding="utf-8")


def test_a_merged_model_that_says_something_else_is_no_result(
    tmp_path: Path, llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(BOUNDS, "bfloat16", 1e-5)
    model = tiny.adapted_model(tmp_path, llama, dtype="bfloat16")
    before = tiny.model_state(model)
    with pytest.raises(VerificationFailed) as caught:
        merged(tmp_path, llama, model)
    assert re.fullmatch(
        r"merge: the merged model differs from the adapted one by 0\.0\d+ of its logits; rounding to bfloat16 explains "
        r"1e-05\.",
        caught.value.message,
    )
    assert caught.value.hint == 'Load with dtype = "float32", or export the adapter.'
    tiny.assert_same_state(tiny.model_state(model), before)


@pytest.mark.parametrize("base", ["llama", "tied"])
def test_rows_of_new_tokens_are_merged(base: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    from recipe_engine.methods.adapt_lora import AdaptLora
    from recipe_engine.methods.options import AdaptLora as Options
    from recipe_engine.training.tokenizer import open_tokenizer

    folder: Path = request.getfixturevalue(base)
    tokenizer = open_tokenizer(folder)
    tokenizer.add_tokens(["<new>"])
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    model = tiny.load_model(folder)
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    asked = tiny.stage_request(
        tmp_path, Options(rank=4, new_tokens=("<new>",)), node="adapt", model=model, tokenizer=tmp_path / "tokenizer"
    )
    model = tiny.run_stage(AdaptLora(), asked).live
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.05)
    before = tiny.model_state(model)
    _, output = merged(tmp_path, tmp_path / "tokenizer", model)
    tiny.assert_same_state(tiny.model_state(model), before)
    ids = torch.tensor([[5, len(tokenizer) - 1, 40]])
    plain = tiny.load_model(output)
    with torch.no_grad():
        torch.testing.assert_close(plain(input_ids=ids).logits, model(input_ids=ids).logits, rtol=1e-4, atol=1e-4)
    assert (plain.get_output_embeddings().weight is plain.get_input_embeddings().weight) == (base == "tied")


def test_the_adapter_below_is_merged_too(tmp_path: Path, llama: Path) -> None:
    from recipe_engine.methods.adapt_lora import AdaptLora
    from recipe_engine.methods.attach import AttachStage
    from recipe_engine.methods.options import AdaptLora as Options
    from recipe_engine.training.adapters import save_adapter

    below = tmp_path / "below"
    below.mkdir()
    save_adapter(tiny.adapted_model(tmp_path, llama), below, "file:tiny")
    attached = AttachStage().restore(tiny.stage_request(tmp_path, None, model=tiny.load_model(llama)), below)
    asked = tiny.stage_request(tmp_path, Options(rank=2), node="adapt", model=attached)
    model = tiny.run_stage(AdaptLora(), asked).live
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.05)
    before = tiny.model_state(model)
    _, output = merged(tmp_path, llama, model)
    tiny.assert_same_state(tiny.model_state(model), before)
    torch.testing.assert_close(logits(tiny.load_model(output)), logits(model), rtol=1e-4, atol=1e-4)
