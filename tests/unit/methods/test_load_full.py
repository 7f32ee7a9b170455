"""``load.full`` and the tokenizer: what is taken, what is refused, and how that is said."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests import tiny

from recipe_engine.errors import UnresolvedInput
from recipe_engine.methods.load_full import LoadFull
from recipe_engine.methods.options import LoadFull as Options
from recipe_engine.methods.prepare import TokenizerStage, load_tokenizer
from recipe_engine.training.tokenizer import open_tokenizer

if TYPE_CHECKING:
    from recipe_engine.contract import ResolvedSource, StageResult


def load(root: Path, source: ResolvedSource, dtype: str = "float32") -> tuple[StageResult, Path]:
    request = tiny.stage_request(root, Options(dtype=dtype), node="load", source=source)  # type: ignore[arg-type]
    return tiny.run_stage(LoadFull(), request), request.output


def refusal(root: Path, folder: Path) -> UnresolvedInput:
    """How the folder is refused, without the name of the test's folder."""
    with pytest.raises(UnresolvedInput) as caught:
        load(root, tiny.resolve(folder))
    return UnresolvedInput(caught.value.message.replace(f"{root}/", ""), caught.value.hint)


def change_config(folder: Path, **values: Any) -> Path:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text(encoding="utf-8")) | values), encoding="utf-8")
    return folder


def change_weights(folder: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    from safetensors.numpy import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def test_the_artifact_refers_to_the_source(tmp_path: Path, llama: Path) -> None:
    source = tiny.resolve(llama)
    result, output = load(tmp_path, source, "bfloat16")
    assert [(item.path, item.source) for item in result.references] == [
        ("config.json", "local files"),
        ("model.safetensors", "local files"),
    ]
    for item in result.references:
        content = (llama / item.path).read_bytes()
        assert item.sha256 == hashlib.sha256(content).hexdigest()
        assert item.size == len(content)
    assert {path.name: path.read_text(encoding="utf-8") for path in output.iterdir()} == {
        "load.json": '{"dtype": "bfloat16"}\n'
    }


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_the_model_is_frozen_in_evaluation_mode_and_of_the_dtype(tmp_path: Path, llama: Path, dtype: str) -> None:
    model = load(tmp_path, tiny.resolve(llama), dtype)[0].live
    assert {str(weight.dtype) for weight in model.parameters()} == {f"torch.{dtype}"}
    assert not any(weight.requires_grad for weight in model.parameters())
    assert not any(module.training for module in model.modules())


def test_shards_are_all_named(tmp_path: Path, llama: Path) -> None:
    folder = tiny.write_model(tmp_path / "sharded")
    tiny.load_model(folder).save_pretrained(folder, max_shard_size="50KB")
    (folder / "model.safetensors").unlink(missing_ok=True)
    result, _ = load(tmp_path, tiny.resolve(folder))
    names = [item.path for item in result.references]
    assert names[0] == "config.json"
    assert "model.safetensors.index.json" in names
    assert len(names) > 3
    expected = tiny.load_model(llama).state_dict()
    found = result.live.state_dict()
    assert found.keys() == expected.keys()
    assert all(found[name].equal(weight) for name, weight in expected.items())


def test_pickled_weights_are_never_opened(tmp_path: Path) -> None:
    error = refusal(tmp_path, tiny.write_model(tmp_path / "pickled", pickled=True))
    assert error.message == "file:pickled holds no weights as *.safetensors or *.gguf."
    assert error.hint.startswith("Pickled weights (*.bin, *.pt) can run code and are never loaded. Convert them")


def test_pickled_weights_beside_safetensors_are_no_input(tmp_path: Path, llama: Path) -> None:
    folder = tiny.write_model(tmp_path / "both")
    (folder / "pytorch_model.bin").write_bytes(b"never opened")
    result, _ = load(tmp_path, tiny.resolve(folder))
    assert [item.path for item in result.references] == ["config.json", "model.safetensors"]


def test_missing_config(tmp_path: Path) -> None:
    folder = tiny.write_model(tmp_path / "bare")
    (folder / "config.json").unlink()
    error = refusal(tmp_path, folder)
    assert error.message == "file:bare holds no config.json."
    assert error.hint == "It says which architecture the weights are."


def test_unknown_architecture(tmp_path: Path) -> None:
    error = refusal(tmp_path, change_config(tiny.write_model(tmp_path / "odd"), model_type="zebra"))
    assert error.message.startswith("the model in odd cannot be loaded: ")
    assert "`zebra`" in error.message


def test_an_encoder_is_no_language_model(tmp_path: Path) -> None:
    from transformers import BertConfig, BertForMaskedLM, BertLMHeadModel

    shape = {"vocab_size": 32, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    encoder, decoder = BertConfig(**shape), BertConfig(**shape, is_decoder=True)
    BertForMaskedLM(encoder).save_pretrained(tmp_path / "bert")
    BertLMHeadModel(decoder).save_pretrained(tmp_path / "decoder")
    error = refusal(tmp_path, tmp_path / "bert")
    assert error.message == "the model in bert cannot be loaded: bert is no causal language model"
    result, _ = load(tmp_path, tiny.resolve(tmp_path / "decoder"))
    assert type(result.live) is BertLMHeadModel


def test_remote_code_is_not_run(tmp_path: Path) -> None:
    folder = tiny.write_model(tmp_path / "remote")
    (folder / "theirs.py").write_text("raise SystemExit('it ran')\n", encoding="utf-8")
    auto_map = {"AutoConfig": "theirs.Config", "AutoModelForCausalLM": "theirs.Model"}
    error = refusal(tmp_path, change_config(folder, model_type="theirs", auto_map=auto_map))
    assert error.message.startswith("the model in remote cannot be loaded: ")
    assert "custom code" in error.message


def test_a_configuration_that_makes_no_sense(tmp_path: Path) -> None:
    error = refusal(tmp_path, change_config(tiny.write_model(tmp_path / "odd"), hidden_size="wide"))
    assert "hidden_size" in error.message


def test_missing_weights_are_not_made_up(tmp_path: Path) -> None:
    folder = change_weights(tiny.write_model(tmp_path / "holes"), lambda tensors: tensors.pop("lm_head.weight"))
    error = refusal(tmp_path, folder)
    assert error.message == "the weights in holes lack lm_head.weight."
    assert error.hint == "Is a shard missing, or config.json another's?"
    folder = change_config(tiny.write_model(tmp_path / "short"), num_hidden_layers=3)
    assert refusal(tmp_path, folder).message == (
        "the weights in short lack model.layers.2.input_layernorm.weight and 8 more."
    )


def test_weights_of_another_shape(tmp_path: Path) -> None:
    def narrow(tensors: dict[str, Any]) -> None:
        tensors["lm_head.weight"] = tensors["lm_head.weight"][:100].copy()

    error = refusal(tmp_path, change_weights(tiny.write_model(tmp_path / "odd"), narrow))
    assert error.message == "the weights in odd do not have the shapes that config.json says."


def test_torn_weights(tmp_path: Path) -> None:
    folder = tiny.write_model(tmp_path / "torn")
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[:-100])
    assert refusal(tmp_path, folder).message.startswith("the model in torn cannot be loaded: ")


def test_missing_tokenizer(tmp_path: Path) -> None:
    source = tiny.resolve(tiny.write_model(tmp_path / "mute", tokenizer=False))
    with pytest.raises(UnresolvedInput, match=r"^file:mute holds no tokenizer") as caught:
        load_tokenizer(source)
    assert caught.value.hint == (
        "Expected one of tokenizer.json, tokenizer.model, tokenizer_config.json, vocab.json, vocab.txt, spiece.model, "
        "spm.model beside the weights."
    )


def test_a_tokenizer_that_cannot_be_read(tmp_path: Path) -> None:
    folder = tiny.write_model(tmp_path / "odd")
    (folder / "tokenizer.json").write_text("{}", encoding="utf-8")
    with pytest.raises(UnresolvedInput, match=r"^file:odd: the tokenizer cannot be read: "):
        load_tokenizer(tiny.resolve(folder))


def test_a_tokenizer_without_an_end(tmp_path: Path) -> None:
    folder = tiny.write_tokenizer(tmp_path / "endless")
    file = folder / "tokenizer_config.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    del content["eos_token"]
    del content["pad_token"]
    file.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(UnresolvedInput, match="the tokenizer names no end-of-sequence token") as caught:
        load_tokenizer(tiny.resolve(folder))
    assert caught.value.hint == "Set eos_token in its tokenizer_config.json."


@pytest.mark.parametrize(("pad", "expected"), [("eos", tiny.END), ("own", tiny.PAD), ("none", tiny.END)])
def test_what_pads(tmp_path: Path, pad: tiny.Padding, expected: str) -> None:
    assert load_tokenizer(tiny.resolve(tiny.write_tokenizer(tmp_path / "t", pad=pad))).pad_token == expected


@pytest.mark.parametrize("variant", [{}, {"bos": True}, {"pad": "none"}, {"chat_template": None}])
def test_the_tokenizer_stage_keeps_everything(tmp_path: Path, variant: dict[str, Any]) -> None:
    source = tiny.resolve(tiny.write_model(tmp_path / "model", **variant))
    outputs = []
    for _ in range(2):
        request = tiny.stage_request(tmp_path, None, node="tokenizer", source=source)
        TokenizerStage().run(request)
        outputs.append(request.output)
    assert tiny.folder_digests(outputs[0]) == tiny.folder_digests(outputs[1])
    taken, original = open_tokenizer(outputs[0]), load_tokenizer(source)
    text = "<|im_start|>user\nWhat is the answer? \u00e9\U0001f600<|im_end|>\n"
    assert taken(text)["input_ids"] == original(text)["input_ids"]
    assert taken.decode(taken(text, add_special_tokens=False)["input_ids"]) == text
    assert (taken.eos_token, taken.pad_token, taken.bos_token) == (
        original.eos_token,
        original.pad_token,
        original.bos_token,
    )
    assert taken.chat_template == original.chat_template == variant.get("chat_template", tiny.CHAT_TEMPLATE)
    assert not any(str(tmp_path) in file.read_text(encoding="utf-8") for file in outputs[0].iterdir())


def test_the_tiny_model_is_the_same_each_time(tmp_path: Path) -> None:
    for architecture in ("llama", "gpt2"):
        one = tiny.write_model(tmp_path / "one" / architecture, architecture=architecture)
        two = tiny.write_model(tmp_path / "two" / architecture, architecture=architecture)
        assert tiny.folder_digests(one) == tiny.folder_digests(two)
    other = tiny.write_model(tmp_path / "other", seed=1)
    assert tiny.folder_digests(other) != tiny.folder_digests(tmp_path / "one" / "llama")
