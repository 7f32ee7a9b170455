"""Configurations of other programs become recipes that are valid here, and nothing is lost without a word."""

from __future__ import annotations

import importlib
import itertools
import json
import tomllib
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.unit.written import builtins, recipe_of

from recipe_engine.errors import InvalidRecipe
from recipe_engine.importing.convert import PEERS, Imported, import_config

AXOLOTL = """\
base_model: org/model
revision_of_model: 0123456789012345678901234567890123456789
load_in_8bit: false
load_in_4bit: true
strict: false
datasets:
  - path: rows.jsonl
    type:
      field_instruction: question
      field_output: answer
      format: "Q: {instruction}\\nA: "
val_set_size: 0.05
output_dir: ./out
sequence_len: 2048
sample_packing: true
adapter: qlora
lora_r: 32
lora_alpha: 64
lora_dropout: 0.05
lora_target_modules: [q_proj, v_proj]
gradient_accumulation_steps: 4
micro_batch_size: 2
num_epochs: 2
optimizer: lion_8bit
lr_scheduler: cosine
learning_rate: 2e-4
train_on_inputs: true
bf16: auto
tf32: false
gradient_checkpointing: true
early_stopping_patience:
logging_steps: 1
warmup_steps: 10
eval_steps: 20
weight_decay: 0.01
seed: 7
"""

LLAMAFACTORY = """\
model_name_or_path: org/model
stage: sft
do_train: true
finetuning_type: lora
quantization_bit: 8
lora_rank: 8
lora_dropout: 0.1
lora_target: q_proj,v_proj
dataset: mine
template: llama3
cutoff_len: 512
max_samples: 1000
output_dir: saves/x
logging_steps: 10
save_steps: 500
per_device_train_batch_size: 1
gradient_accumulation_steps: 8
learning_rate: 1.0e-4
num_train_epochs: 3.0
lr_scheduler_type: cosine
warmup_ratio: 0.1
bf16: true
weight_decay: 0.1
"""

TRL = """\
model_name_or_path: org/model
dataset_name: rows.jsonl
use_peft: true
lora_r: 32
lora_alpha: 16
lora_target_modules: [q_proj, v_proj]
load_in_4bit: true
learning_rate: 2.0e-4
num_train_epochs: 1
per_device_train_batch_size: 2
gradient_accumulation_steps: 8
lr_scheduler_type: constant_with_warmup
warmup_steps: 0.03
weight_decay: 0.01
max_length: 256
packing: true
bf16: false
output_dir: out
seed: 1
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with the data that the configurations name."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.jsonl").write_text('{"question": "1 + 1?", "answer": "2"}\n')
    (tmp_path / "data").mkdir()
    entry = {"file_name": "mine.jsonl", "columns": {"prompt": "q", "response": "a"}}
    (tmp_path / "data" / "dataset_info.json").write_text(json.dumps({"mine": entry}))
    return tmp_path


def imported(peer: str, text: str, folder: Path) -> Imported:
    (folder / "my config.yml").write_text(text)
    found = import_config(peer, "my config.yml", builtins(), Path())
    recipe_of(found.text)
    return found


def tree(peer: str, text: str, folder: Path) -> dict[str, Any]:
    return tomllib.loads(imported(peer, text, folder).text)


def lost(peer: str, text: str, folder: Path) -> dict[str, tuple[int, str]]:
    return {item.key: (item.line, item.reason) for item in imported(peer, text, folder).lost}


def refusal(peer: str, text: str, folder: Path) -> str:
    with pytest.raises(InvalidRecipe) as refused:
        imported(peer, text, folder)
    return str(refused.value)


def test_axolotl(folder: Path) -> None:
    data = {
        "source": "file:rows.jsonl",
        "format": "instruction",
        "fields": {"prompt": "question", "completion": "answer"},
        "template": "Q: {prompt}\nA: ",
        "max_length": 2048,
        "overlong": "drop",
    }
    assert tree("axolotl", AXOLOTL, folder) == {
        "version": 1,
        "name": "my-config",
        "seed": 7,
        "model": {"base": "hub:org/model", "revision": "0123456789012345678901234567890123456789"},
        "data": {"train": data | {"split": "train[:95%]"}, "eval": data | {"split": "train[95%:]"}},
        "load": {"nf4": {"compute_dtype": "bfloat16"}},
        "adapt": {"lora": {"rank": 32, "alpha": 64, "dropout": 0.05, "target_modules": ["q_proj", "v_proj"]}},
        "train": {
            "sft": {
                "learning_rate": 2e-4,
                "gradient_checkpointing": True,
                "epochs": 2,
                "batch_size": 8,
                "micro_batch_size": 2,
                "schedule": "cosine",
                "warmup_steps": 10,
                "weight_decay": 0.01,
                "loss_on": "all",
                "eval_steps": 20,
            }
        },
        "evaluate": {"perplexity": {}},
        "push": {"folder": {"path": "./out"}},
    }
    assert lost("axolotl", AXOLOTL, folder) == {
        "sample_packing": (15, "rows are not packed into one"),
        "optimizer": (24, "AdamW with states in full precision is taken"),
        "logging_steps": (32, "every step is recorded"),
    }


def test_llamafactory(folder: Path) -> None:
    assert tree("llamafactory", LLAMAFACTORY, folder) == {
        "version": 1,
        "name": "my-config",
        "seed": 42,
        "model": {"base": "hub:org/model"},
        "data": {
            "train": {
                "source": "file:data/mine.jsonl",
                "split": "train[:1000]",
                "format": "instruction",
                "fields": {"prompt": "q", "completion": "a"},
                "max_length": 512,
                "overlong": "truncate",
            }
        },
        "load": {"int8": {"compute_dtype": "bfloat16"}},
        "adapt": {"lora": {"rank": 8, "alpha": 16, "dropout": 0.1, "target_modules": ["q_proj", "v_proj"]}},
        "train": {
            "sft": {
                "learning_rate": 1e-4,
                "epochs": 3,
                "checkpoint_steps": 500,
                "batch_size": 8,
                "micro_batch_size": 1,
                "schedule": "cosine",
                "warmup_ratio": 0.1,
                "weight_decay": 0.1,
                "gradient_checkpointing": True,
            }
        },
        "push": {"folder": {"path": "saves/x"}},
    }
    assert lost("llamafactory", LLAMAFACTORY, folder) == {
        "template": (10, "the tokenizer's own chat template is taken"),
        "logging_steps": (14, "every step is recorded"),
    }


def test_trl(folder: Path) -> None:
    assert tree("trl", TRL, folder) == {
        "version": 1,
        "name": "my-config",
        "seed": 1,
        "model": {"base": "hub:org/model"},
        "data": {
            "train": {
                "source": "file:rows.jsonl",
                "split": "train",
                "format": "instruction",
                "fields": {"prompt": "question", "completion": "answer"},
                "max_length": 256,
                "overlong": "truncate",
            }
        },
        "load": {"nf4": {"compute_dtype": "float32"}},
        "adapt": {"lora": {"rank": 32, "alpha": 16, "dropout": 0.05, "target_modules": ["q_proj", "v_proj"]}},
        "train": {
            "sft": {
                "learning_rate": 2e-4,
                "gradient_checkpointing": True,
                "epochs": 1,
                "batch_size": 16,
                "micro_batch_size": 2,
                "schedule": "constant",
                "warmup_ratio": 0.03,
                "weight_decay": 0.01,
            }
        },
        "push": {"folder": {"path": "out"}},
    }
    assert lost("trl", TRL, folder) == {"packing": (16, "rows are not packed into one")}


def test_the_list_stands_at_the_end_of_the_recipe(folder: Path) -> None:
    text = imported("trl", TRL, folder).text
    assert text.startswith("# From my config.yml, a configuration of TRL.\nversion = 1\n")
    assert text.endswith(
        "# What my config.yml says besides, and this recipe does not:\n"
        "#   line 16: packing: rows are not packed into one\n"
    )


JOBS: dict[str, tuple[dict[str, Any], ...]] = {
    "axolotl": (
        yaml.safe_load(AXOLOTL),
        {"load_in_4bit": False, "load_in_8bit": True, "adapter": "lora"},
        {"lora_modules_to_save": ["embed_tokens"], "peft_use_dora": True, "peft_use_rslora": True},
        {"bf16": False, "fp16": True},
        {"val_set_size": 100, "warmup_ratio": 0.1, "datasets": [{"path": "org/rows", "type": "chat_template"}]},
        {"adapter": None, "load_in_8bit": False, "load_in_4bit": False},
    ),
    "llamafactory": (
        yaml.safe_load(LLAMAFACTORY),
        {"val_size": 0.1, "eval_strategy": "steps", "eval_steps": 50},
        {"quantization_bit": 4, "additional_target": "lm_head", "use_dora": True},
        {"lora_target": "all", "pissa_init": True},
        {"bf16": False, "fp16": True, "num_train_epochs": 0.5},
        {"finetuning_type": "full", "quantization_bit": None},
    ),
    "trl": (
        yaml.safe_load(TRL),
        {"load_in_4bit": False, "load_in_8bit": True, "use_dora": True},
        {"lora_target_modules": None, "lora_modules_to_save": ["lm_head"], "bf16": True},
        {"dataset_name": "org/rows", "eval_strategy": "steps", "eval_steps": 5},
        {"fp16": True, "max_steps": 10, "warmup_steps": 5},
        {"use_peft": False, "load_in_4bit": False, "load_in_8bit": False},
    ),
}


@pytest.mark.parametrize("peer", PEERS)
def test_every_combination_of_settings_is_valid_here(folder: Path, peer: str) -> None:
    """Also where our rules forbid what the other program allows: that is left out, and said."""
    config, *changes = JOBS[peer]
    for count in range(len(changes) + 1):
        for chosen in itertools.combinations(changes, count):
            changed = dict(config)
            for change in chosen:
                changed |= change
            imported(peer, yaml.safe_dump(changed, sort_keys=False), folder)


anything = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 10**20) | st.floats() | st.text("a/.[]:\0\n😀", max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(("path", "type", "a b")), inner),
    max_leaves=5,
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(PEERS), st.data())
def test_whatever_a_setting_holds_there_is_a_recipe_or_our_error(folder: Path, peer: str, data: st.DataObject) -> None:
    program = importlib.import_module(f"recipe_engine.importing.{peer}").PEER
    keys = sorted({key for job in JOBS[peer] for key in job} | program.defaults.keys())
    changed = data.draw(st.dictionaries(st.sampled_from(keys), anything, min_size=1, max_size=2))
    with suppress(InvalidRecipe):
        imported(peer, yaml.safe_dump(JOBS[peer][0] | changed, sort_keys=False), folder)


def test_whole_models_are_trained_in_float32_with_products_in_half_precision(folder: Path) -> None:
    found = tree("axolotl", AXOLOTL.replace("adapter: qlora", "").replace("4bit: true", "4bit: false"), folder)
    assert found["adapt"] == {"full": {}}
    assert found["load"] == {"full": {"dtype": "float32"}}
    assert found["train"]["sft"]["mixed_precision"] == "bf16"


@pytest.mark.parametrize(
    ("name", "ours"),
    [
        ("adamw_torch", None),
        ("adamw_8bit", "adamw_8bit"),
        ("adamw_bnb_8bit", "adamw_8bit"),
        ("paged_adamw_32bit", "paged_adamw"),
        ("paged_adamw_8bit", "paged_adamw_8bit"),
    ],
)
def test_optimizers_by_the_names_of_other_programs(folder: Path, name: str, ours: str | None) -> None:
    for peer, text in (
        ("axolotl", AXOLOTL.replace("lion_8bit", name)),
        ("llamafactory", f"{LLAMAFACTORY}optim: {name}\n"),
        ("trl", f"{TRL}optim: {name}\n"),
    ):
        assert tree(peer, text, folder)["train"]["sft"].get("optimizer") == ours
        assert not {"optim", "optimizer"} & lost(peer, text, folder).keys()


@pytest.mark.parametrize(
    ("peer", "text", "key"),
    [
        ("axolotl", AXOLOTL, "torch_compile"),
        ("llamafactory", LLAMAFACTORY, "torch_compile"),
        ("llamafactory", LLAMAFACTORY, "enable_liger_kernel"),
        ("trl", TRL, "torch_compile"),
        ("trl", TRL, "use_liger_kernel"),
    ],
)
def test_faster_kernels_that_keep_no_promise_are_left_out_and_said(
    folder: Path, peer: str, text: str, key: str
) -> None:
    assert "must" in lost(peer, f"{text}{key}: true\n", folder)[key][1]
    assert key not in lost(peer, f"{text}{key}: false\n", folder)


def test_activations_that_wait_elsewhere_are_imported(folder: Path) -> None:
    text = TRL.replace("gradient_checkpointing: true\n", "") + "gradient_checkpointing: false\n"
    found = tree("trl", f"{text}activation_offloading: true\n", folder)["train"]["sft"]
    assert found["activation_offload"] is True


def test_what_is_refused_here_is_left_out_and_said(folder: Path) -> None:
    text = AXOLOTL.replace("lora_dropout: 0.05", "lora_dropout: 1.5").replace("cosine", "polynomial")
    found = lost("axolotl", text, folder)
    assert found["lora_dropout"] == (19, "adapt.lora.dropout: expected less than 1, found 1.5")
    assert found["lr_scheduler"][0] == 25
    assert 'found "polynomial"' in found["lr_scheduler"][1]


@pytest.mark.parametrize(
    ("peer", "text", "said"),
    [
        ("axolotl", AXOLOTL.replace("r: 32", "r: many"), "17:1: lora_r: expected a number, found 'many'."),
        ("axolotl", AXOLOTL.replace("r: 32", "r: 1.5"), "17:1: lora_r: expected a whole number, found 1.5."),
        ("axolotl", AXOLOTL + "rl: dpo\n", "37:1: rl: dpo is no supervised fine-tuning"),
        ("axolotl", AXOLOTL.replace("qlora", "llama-adapter"), "16:1: adapter: llama-adapter has no counterpart"),
        ("axolotl", AXOLOTL.replace("org/model", "https://x.org/m"), "1:1: base_model: model.base: "),
        ("axolotl", "learning_rate: 1\n", "base_model: base_model is missing: it names the base model."),
        ("axolotl", AXOLOTL.replace("size: 2", "size: 0"), "22:1: micro_batch_size: expected at least 1."),
        ("axolotl", AXOLOTL.replace("size: 0.05", "size: -1"), "12:1: val_set_size: expected a share below 1"),
        ("axolotl", "base_model: a/b\ndatasets: [x]\n", "2:1: datasets: expected a list of data sets"),
        (
            "axolotl",
            "base_model: a/b\ndatasets:\n- path: x/y\n  type: reflection\n",
            "4:3: datasets[0].type: rows of the type 'reflection' have no counterpart.",
        ),
        ("axolotl", AXOLOTL.replace("adapter: qlora\n", ""), "4:1: load_in_4bit: quantized weights cannot be trained"),
        ("llamafactory", LLAMAFACTORY.replace("sft", "dpo"), "2:1: stage: dpo is no supervised fine-tuning"),
        ("llamafactory", LLAMAFACTORY.replace("mine", "other"), "9:1: dataset: data/dataset_info.json does not"),
        ("llamafactory", LLAMAFACTORY.replace("bit: 8", "bit: 3"), "5:1: quantization_bit: 3 bits have no counter"),
        ("trl", TRL.replace("peft: true", "peft: perhaps"), "3:1: use_peft: expected true or false, found 'perhaps'."),
        ("trl", TRL.replace("dataset_name: rows.jsonl\n", ""), "dataset_name: dataset_name is missing"),
        ("trl", TRL + "dtype: int3\n", "20:1: dtype: int3 is no precision that can be imported."),
    ],
)
def test_what_cannot_be_imported_is_told_at_its_line(folder: Path, peer: str, text: str, said: str) -> None:
    assert said in refusal(peer, text, folder)


def test_all_problems_are_told_at_once(folder: Path) -> None:
    text = refusal("axolotl", AXOLOTL.replace("r: 32", "r: many").replace("epochs: 2", "epochs: -1"), folder)
    assert text.endswith("2 problems")


def test_paths_lead_from_the_recipe_to_the_data(folder: Path) -> None:
    (folder / "c.yml").write_text(TRL)
    found = import_config("trl", "c.yml", builtins(), Path("recipes"))
    assert tomllib.loads(found.text)["data"]["train"]["source"] == "file:../rows.jsonl"


def test_conversations_whose_fields_have_other_names_are_told(folder: Path) -> None:
    text = "base_model: a/b\nadapter: lora\nlora_r: 8\nlora_alpha: 16\ndatasets:\n- path: x/y\n  type: sharegpt\n"
    found = lost("axolotl", text, folder)
    assert found["datasets[0].type"] == (
        7,
        "messages have the fields role and content here: rename from and content in the file",
    )


def test_the_defaults_of_the_other_program_are_written_out(folder: Path) -> None:
    found = tree("trl", "model_name_or_path: a/b\ndataset_name: rows.jsonl\nuse_peft: true\n", folder)
    assert found["adapt"]["lora"] == {"rank": 16, "alpha": 32, "dropout": 0.05}
    assert found["train"]["sft"] == {
        "learning_rate": 2e-5,
        "gradient_checkpointing": True,
        "epochs": 3,
        "batch_size": 8,
        "schedule": "linear",
    }
    assert found["load"]["full"]["dtype"] == "bfloat16"


def test_a_configuration_and_a_revision_of_a_hubs_data_set_arrive(folder: Path) -> None:
    rows = "datasets:\n- path: x/y\n  name: en\n  revision: abc\n  type: completion\n  field: body\n"
    found = tree("axolotl", "base_model: a/b\n" + rows, folder)["data"]["train"]
    expected = {"source": "hub:x/y", "subset": "en", "revision": "abc", "format": "text", "field": "body"}
    assert found.items() >= expected.items()
