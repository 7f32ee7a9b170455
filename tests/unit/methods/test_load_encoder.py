"""``load.encoder``: what is loaded, what is drawn, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests import tiny
from tests.encoders import BERT, ENCODERS

from recipe_engine.errors import UnresolvedInput
from recipe_engine.methods.fits import full_fits_outline, lora_fits_outline
from recipe_engine.methods.load_encoder import LoadEncoder
from recipe_engine.methods.load_full import looks_both_ways
from recipe_engine.methods.options import AdaptFull, AdaptLora
from recipe_engine.methods.options import LoadEncoder as Options
from recipe_engine.methods.prepare import EncoderTokenizerStage
from recipe_engine.outline import outline_of
from recipe_engine.training.encoder_model import head_modules
from recipe_engine.training.encoders import ENCODER_FAMILIES, is_causal, is_encoder

if TYPE_CHECKING:
    from recipe_engine.contract import StageRequest


def request(root: Path, folder: Path, seed: int = 7, **options: Any) -> StageRequest:
    root.mkdir(exist_ok=True)
    return tiny.stage_request(root, Options(**options), node="load", source=tiny.resolve(folder), seed=seed)


def loaded(root: Path, folder: Path, seed: int = 7, **options: Any) -> tuple[Any, Path]:
    given = request(root, folder, seed, **options)
    return tiny.run_stage(LoadEncoder(), given).live, given.output


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", ENCODERS)
def test_restored_is_live(name: str, dtype: Any, tmp_path: Path) -> None:
    folder = ENCODERS[name].write(tmp_path / "encoder")
    given = request(tmp_path, folder, dtype=dtype)
    live = tiny.run_stage(LoadEncoder(), given).live
    before = tiny.model_state(live)
    assert not any(weight.requires_grad for weight in live.parameters())
    restored = tiny.restore_stage(LoadEncoder(), given, given.output)
    tiny.assert_same_state(tiny.model_state(restored), before, generators=False)
    assert tuple(head_modules(live)) == ENCODERS[name].head


def test_the_encoder_is_that_of_the_files(tmp_path: Path) -> None:
    folder = BERT.write(tmp_path / "encoder")
    model, output = loaded(tmp_path, folder)
    weights, state = load_file(folder / "model.safetensors"), model.state_dict()
    shared = weights.keys() & state.keys()
    assert len(shared) == len(state) - 4
    assert all(torch.equal(weights[name], state[name]) for name in shared)
    drawn = load_file(output / "head.safetensors")
    assert sorted(drawn) == sorted(state.keys() - shared)
    assert sorted(path.name for path in output.iterdir()) == ["head.safetensors", "load.json"]


@pytest.mark.parametrize("name", ENCODERS)
def test_an_encoder_that_was_saved_alone(name: str, tmp_path: Path) -> None:
    """Its tensors have names without the family's beginning, as those of sentence encoders have."""
    folder = ENCODERS[name].write(tmp_path / "encoder", whole="")
    model, output = loaded(tmp_path, folder)
    weights, own = load_file(folder / "model.safetensors"), model.base_model.state_dict()
    assert len(own.keys() & weights.keys()) > 10
    assert all(torch.equal(tensor, weights[path]) for path, tensor in own.items())
    assert sorted({path.split(".")[0] for path in load_file(output / "head.safetensors")}) == [
        part for part in ENCODERS[name].head if "." not in part
    ]


def test_the_head_follows_from_the_seed(tmp_path: Path) -> None:
    folder = BERT.write(tmp_path / "encoder")
    torch.manual_seed(1)
    one = tiny.folder_digests(loaded(tmp_path / "one", folder)[1])
    torch.manual_seed(2)
    assert tiny.folder_digests(loaded(tmp_path / "two", folder)[1]) == one
    assert tiny.folder_digests(loaded(tmp_path / "three", folder, seed=8)[1]) != one


def test_drawing_leaves_the_generators_alone(tmp_path: Path) -> None:
    given = request(tmp_path, BERT.write(tmp_path / "encoder"))
    torch.manual_seed(3)
    before = torch.get_rng_state()
    LoadEncoder().run(given)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_head_that_is_there_is_kept(tmp_path: Path) -> None:
    """That of another reward model, say; one for other labels is of no use."""
    scored = BERT.write(tmp_path / "scored", whole="SequenceClassification", num_labels=1)
    model, output = loaded(tmp_path, scored)
    assert torch.equal(model.classifier.weight, load_file(scored / "model.safetensors")["classifier.weight"])
    assert load_file(output / "head.safetensors") == {}
    labelled = BERT.write(tmp_path / "labelled", whole="SequenceClassification", num_labels=3)
    model, output = loaded(tmp_path, labelled)
    assert model.classifier.weight.shape == (1, 32)
    assert sorted(load_file(output / "head.safetensors")) == ["classifier.bias", "classifier.weight"]
    assert torch.equal(
        model.bert.pooler.dense.weight, load_file(labelled / "model.safetensors")["bert.pooler.dense.weight"]
    )


def test_a_tensor_of_the_encoder_is_missing(tmp_path: Path) -> None:
    folder = BERT.write(tmp_path / "encoder")
    weights = load_file(folder / "model.safetensors")
    del weights["bert.encoder.layer.1.output.dense.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(
        UnresolvedInput, match=r"lack bert\.encoder\.layer\.1\.output\.dense\.weight\. Is a shard missing"
    ):
        loaded(tmp_path, folder)


def test_no_encoder(tmp_path: Path) -> None:
    with pytest.raises(UnresolvedInput, match="llama is no encoder that transformers can put a head on"):
        loaded(tmp_path, tiny.write_model(tmp_path / "llama"))
    decoder = BERT.write(tmp_path / "decoder")
    config = json.loads((decoder / "config.json").read_text())
    (decoder / "config.json").write_text(json.dumps({**config, "is_decoder": True}))
    with pytest.raises(UnresolvedInput, match="bert is no encoder"):
        loaded(tmp_path, decoder)


def test_weights_that_could_run_code(tmp_path: Path) -> None:
    folder = BERT.write(tmp_path / "encoder")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(UnresolvedInput, match=r"holds no weights as \*\.safetensors"):
        loaded(tmp_path, folder)
    (folder / "weights.gguf").write_bytes(b"GGUF")
    with pytest.raises(UnresolvedInput, match=r"encoder is a GGUF file\. An encoder is loaded from"):
        loaded(tmp_path, folder)


def test_a_tokenizer_needs_no_end_and_a_token_that_pads(tmp_path: Path) -> None:
    folder = BERT.write(tmp_path / "encoder")
    given = tiny.stage_request(tmp_path, None, node="tokenizer", source=tiny.resolve(folder))
    EncoderTokenizerStage().run(given)
    assert (given.output / "tokenizer.json").exists()
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    del settings["pad_token"]
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    given = tiny.stage_request(tmp_path, None, node="tokenizer", source=tiny.resolve(folder))
    with pytest.raises(UnresolvedInput, match=r"the tokenizer names no padding token\. Set pad_token"):
        EncoderTokenizerStage().run(given)


def test_the_families_are_those_of_transformers() -> None:
    """What is told before transformers is imported is what it says itself."""
    from transformers import CONFIG_MAPPING, MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING

    for name in ENCODER_FAMILIES:
        config = CONFIG_MAPPING[name]()
        assert looks_both_ways(config), name
        assert type(config) in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING, name
    assert not is_encoder({})
    assert not is_causal({})


def test_names_that_a_file_of_an_encoder_has_not(tmp_path: Path) -> None:
    """Its head is not in the file; layers that get adapters are."""
    folder = BERT.write(tmp_path / "encoder")
    outline = outline_of(folder.iterdir())
    assert lora_fits_outline(AdaptLora(modules_to_save=("classifier",), target_modules=("query",)), outline) == []
    (found,) = lora_fits_outline(AdaptLora(target_modules=("q_proj",)), outline)
    assert found[1] == "no linear layer of this model is named q_proj"
    assert full_fits_outline(AdaptFull(train_only=("classifier",)), outline) == []
