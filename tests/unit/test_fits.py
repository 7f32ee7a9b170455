"""What does not fit the model or the stages before is known before anything is loaded."""

from __future__ import annotations

from typing import Any

import pytest

from recipe_engine.contract import ModelOutline
from recipe_engine.methods.fits import (
    full_clashes,
    full_fits_outline,
    lora_clashes,
    lora_fits_outline,
    outlined_layers,
    perplexity_fits_outline,
    ppo_clashes,
    push_clashes,
)
from recipe_engine.methods.options import (
    AdaptFull,
    AdaptLora,
    EvaluatePerplexity,
    LoadFull,
    LoadInt8,
    LoadNf4,
    PushFolder,
)
from recipe_engine.training.ppo.options import TrainPpo

LLAMA: dict[str, tuple[int, ...]] = {
    "model.embed_tokens.weight": (300, 32),
    "model.layers.0.self_attn.q_proj.weight": (32, 32),
    "model.layers.0.self_attn.k_proj.weight": (16, 32),
    "model.layers.0.mlp.down_proj.weight": (32, 64),
    "model.layers.0.input_layernorm.weight": (32,),
    "model.norm.weight": (32,),
    "lm_head.weight": (300, 32),
}
# As the Hub has it: without the name of the outer module, with a mask that is no weight.
GPT2: dict[str, tuple[int, ...]] = {
    "wte.weight": (300, 32),
    "wpe.weight": (512, 32),
    "h.0.attn.bias": (1, 1, 512, 512),
    "h.0.attn.c_attn.weight": (32, 96),
    "h.0.attn.c_attn.bias": (96,),
    "h.0.mlp.c_fc.weight": (32, 128),
    "h.0.ln_1.weight": (32,),
}
NAMES = "Its linear layers are down_proj, k_proj, lm_head, q_proj."


def outline(tensors: dict[str, tuple[int, ...]] = LLAMA, **config: Any) -> ModelOutline:
    return ModelOutline(config=config, tensors=tensors)


def found(tensors: dict[str, tuple[int, ...]] = LLAMA, tied: bool = False, **options: Any) -> list[Any]:
    config = outline(tensors, tie_word_embeddings=tied)
    return list(lora_fits_outline(AdaptLora(**options), config))


def test_a_window_is_no_longer_than_what_the_model_reads() -> None:
    longer = [("window", "this model reads 512 tokens at most", "Lower it to 512.")]
    for config in ({"max_position_embeddings": 512}, {"n_positions": 512}, {"text_config": {"n_positions": 512}}):
        fitting = [perplexity_fits_outline(EvaluatePerplexity(window=n), outline(**config)) for n in (512, 513)]
        assert fitting == [[], longer]
    assert perplexity_fits_outline(EvaluatePerplexity(window=513), outline()) == []
    assert perplexity_fits_outline(EvaluatePerplexity(), outline(n_positions=4)) == []


def test_linear_layers_are_those_with_a_matrix_that_is_no_embedding() -> None:
    assert outlined_layers(outline()).linear == {
        "model.layers.0.self_attn.q_proj": (32, 32),
        "model.layers.0.self_attn.k_proj": (16, 32),
        "model.layers.0.mlp.down_proj": (32, 64),
        "lm_head": (300, 32),
    }
    assert outlined_layers(outline(GPT2)).linear == {"h.0.attn.c_attn": (32, 96), "h.0.mlp.c_fc": (32, 128)}


@pytest.mark.parametrize(
    ("tensors", "config", "tied"),
    [
        (LLAMA, {"tie_word_embeddings": False}, False),
        (LLAMA, {"tie_word_embeddings": True}, True),
        (LLAMA, {}, False),
        (GPT2, {}, True),
    ],
    ids=["said apart", "said tied", "a head in the files", "no head in the files"],
)
def test_whether_the_head_is_the_embedding(tensors: Any, config: dict[str, Any], tied: bool) -> None:
    assert outlined_layers(outline(tensors, **config)).tied is tied


@pytest.mark.parametrize(
    "targets",
    ["all-linear", ("q_proj",), ("self_attn.q_proj", "mlp.down_proj"), ("model.layers.0.mlp.down_proj",), ("lm_head",)],
)
def test_names_that_fit(targets: Any) -> None:
    assert found(target_modules=targets) == []


def test_names_that_fit_nothing() -> None:
    assert found(target_modules=("q_proj", "w_pack", "proj", "embed_tokens", "norm")) == [
        ("target_modules", f"no linear layer of this model is named {name}", NAMES)
        for name in ("w_pack", "proj", "embed_tokens", "norm")
    ]


def test_a_tied_head_gets_no_adapter_and_is_not_trained_apart() -> None:
    assert [key for key, _, _ in found(tied=True, target_modules=("lm_head",))] == ["target_modules"]
    for name in ("lm_head", "embed_tokens"):
        assert [key for key, _, _ in found(tied=True, modules_to_save=(name,))] == ["modules_to_save"]
        assert found(modules_to_save=(name,)) == []


def test_modules_to_save_may_be_anything_that_is_there() -> None:
    assert found(modules_to_save=("norm", "mlp", "layers.0")) == []
    [(key, message, hint)] = found(modules_to_save=("orm",))
    assert (key, message) == ("modules_to_save", "no module of this model is named orm")
    assert hint.startswith("It has 0, down_proj, embed_tokens, input_layernorm, k_proj, layers, lm_head, mlp, model, ")


def test_biases_that_are_not_there() -> None:
    assert found(bias="all") == [("bias", "this model has no biases", "Remove it.")]
    assert found(GPT2, tied=True, bias="all") == []


def test_more_directions_than_a_layer_has() -> None:
    assert found(rank=16, init="pissa") == []
    assert found(rank=17, init="pissa") == [
        (
            "rank",
            "pissa takes the 17 main directions of each layer, and one has 16",
            "Lower it to 16, or leave layers out of target_modules.",
        )
    ]
    assert found(rank=17, init="olora", target_modules=("q_proj", "lm_head")) == []
    assert found(rank=17) == []


def test_nothing_is_known_of_a_model_whose_files_are_not_here() -> None:
    assert found({}, target_modules=("w_pack",), modules_to_save=("x",), bias="all", init="pissa", rank=999) == []
    assert full_fits_outline(AdaptFull(train_only=("x",)), outline({})) == []


def test_names_of_what_is_trained_whole() -> None:
    assert full_fits_outline(AdaptFull(), outline()) == []
    assert full_fits_outline(AdaptFull(train_only=("mlp", "norm")), outline()) == []
    assert full_fits_outline(AdaptFull(train_only=("lm_head",)), outline(GPT2)) == [], "tied to what is in the file"
    [(key, message, _)] = full_fits_outline(AdaptFull(train_only=("mlp", "down")), outline())
    assert (key, message) == ("train_only", "no module of this model is named down")


FULL32, FULL16 = LoadFull(dtype="float32"), LoadFull()
INT32 = LoadInt8(compute_dtype="float32")


@pytest.mark.parametrize(
    ("options", "load", "clashing"),
    [
        ({}, LoadNf4(), []),
        ({"init": "pissa"}, FULL16, []),
        ({"init": "pissa"}, LoadNf4(), [("init", "load")]),
        ({"init": "olora"}, LoadInt8(), [("init", "load")]),
        ({"dora": True}, LoadNf4(), []),
        ({"dora": True}, LoadInt8(), [("dora", "load")]),
        ({"bias": "all"}, FULL32, []),
        ({"bias": "all"}, INT32, []),
        ({"bias": "all"}, FULL16, [("bias", "load.dtype")]),
        ({"modules_to_save": ("norm",)}, FULL32, []),
        ({"modules_to_save": ("norm",)}, LoadNf4(), [("modules_to_save", "load.compute_dtype")]),
        ({"modules_to_save": ("norm",), "bias": "all"}, object(), []),
    ],
)
def test_what_the_way_of_loading_forbids(options: dict[str, Any], load: Any, clashing: list[Any]) -> None:
    problems = lora_clashes(AdaptLora(**options), {"load": load})
    assert [(key, other) for key, _, other in problems] == clashing


def test_whole_weights_are_float32() -> None:
    assert full_clashes(AdaptFull(), {"load": FULL32}) == []
    assert full_clashes(AdaptFull(), {"load": LoadNf4()}) == [], "that it takes no quantized model is said already"
    [(key, message, other)] = full_clashes(AdaptFull(), {"load": FULL16})
    assert (key, other) == ("train_only", "load.dtype")
    assert message == (
        "it trains weights of the model itself, which need float32 to take small updates: load with dtype = "
        '"float32", and set mixed_precision = "bf16" in the training for its speed'
    )


@pytest.mark.parametrize(
    ("merged", "before", "other"),
    [
        (False, {"load": LoadNf4(), "adapt": AdaptLora()}, None),
        (True, {"load": FULL16, "adapt": AdaptLora()}, None),
        (True, {"load": LoadNf4(), "adapt": AdaptLora()}, "load"),
        (True, {"load": LoadInt8(), "adapt": AdaptLora()}, "load"),
        (True, {"load": FULL32, "adapt": AdaptFull()}, "adapt"),
    ],
)
def test_what_can_be_merged(merged: bool, before: dict[str, Any], other: str | None) -> None:
    assert [place for _, _, place in push_clashes(PushFolder(merged=merged), before)] == ([other] if other else [])


def test_options_that_contradict_each_other() -> None:
    assert AdaptLora(dora=True, rslora=True).contradictions() == []
    assert [key for key, _ in AdaptLora(dora=True, init="pissa").contradictions()] == ["dora"]
    twice = AdaptLora(target_modules=("q_proj", "v_proj"), modules_to_save=("v_proj", "norm"))
    assert twice.contradictions() == [
        ("modules_to_save", "v_proj gets an adapter too: name it in one of the two"),
    ]
    assert AdaptLora(modules_to_save=("l",)).contradictions() == [], "all-linear is no list of letters"


@pytest.mark.parametrize(
    ("before", "other"),
    [
        ({"load": LoadFull(), "adapt": AdaptLora()}, []),
        ({"load": LoadNf4(), "adapt": AdaptLora()}, ["load"]),
        ({"load": LoadInt8(), "adapt": AdaptLora()}, ["load"]),
        ({"load": LoadFull(), "adapt": AdaptFull()}, ["adapt"]),
        ({"load": LoadFull(), "adapt": AdaptLora(dora=True)}, ["adapt.dora"]),
        ({"load": LoadFull(), "adapt": AdaptLora(modules_to_save=("norm",))}, ["adapt.modules_to_save"]),
        ({"load": LoadFull(), "adapt": AdaptLora(new_tokens=("<a>",))}, ["adapt.new_tokens"]),
    ],
)
def test_what_vllm_cannot_write_with(before: dict[str, Any], other: list[str]) -> None:
    found = ppo_clashes(TrainPpo(reward=(), rollout="vllm"), before)
    assert [(key, stage) for key, _, stage in found] == [("rollout", stage) for stage in other]
    assert ppo_clashes(TrainPpo(reward=()), before) == []
