"""Adapters on disk: PEFT's format, the same bytes for the same adapter."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tests import tiny

from recipe_engine.training.adapters import CONFIG_FILE, WEIGHTS_FILE, load_adapter_weights, save_adapter

WRITES_AN_ADAPTER = """
import sys
from pathlib import Path
from tests import tiny
from recipe_engine.training.adapters import save_adapter
root, base = Path(sys.argv[1]), Path(sys.argv[2])
save_adapter(tiny.adapted_model(root, base), root / "adapter", "file:tiny")
"""


def saved(model: Any, folder: Path) -> Path:
    folder.mkdir(parents=True)
    save_adapter(model, folder, "file:tiny")
    return folder


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        result: torch.Tensor = model(input_ids=torch.tensor([[5, 80, 12, 297, 40]])).logits
    return result


@pytest.mark.slow
def test_equal_adapters_are_equal_bytes_in_every_process(tmp_path: Path, llama: Path) -> None:
    """PEFT keeps module names in a set, which each process lists in an order of its own."""
    (tmp_path / "adapter").mkdir()
    subprocess.run(
        [sys.executable, "-c", WRITES_AN_ADAPTER, str(tmp_path), str(llama)],
        check=True,
        env=os.environ | {"PYTHONHASHSEED": "1"},
        cwd=Path(__file__).parents[3],
        capture_output=True,
    )
    here = saved(tiny.adapted_model(tmp_path, llama), tmp_path / "here" / "adapter")
    assert tiny.folder_digests(here) == tiny.folder_digests(tmp_path / "adapter")


@pytest.mark.parametrize("targets", ["all-linear", ("v_proj", "q_proj")])
def test_the_configuration_is_canonical_and_names_no_path(tmp_path: Path, llama: Path, targets: Any) -> None:
    folder = saved(tiny.adapted_model(tmp_path, llama, target_modules=targets), tmp_path / "adapter")
    text = (folder / CONFIG_FILE).read_text(encoding="utf-8")
    config = json.loads(text)
    assert text == json.dumps(config, indent=2, sort_keys=True) + "\n"
    assert config["base_model_name_or_path"] == "file:tiny"
    assert config["inference_mode"] is True
    assert config["target_modules"] == sorted(config["target_modules"])
    assert str(llama.parent) not in text
    assert sorted(path.name for path in folder.iterdir()) == [CONFIG_FILE, WEIGHTS_FILE]


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_peft_loads_it_without_us(architecture: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    import peft

    base: Path = request.getfixturevalue(architecture)
    model = tiny.adapted_model(tmp_path, base)
    folder = saved(model, tmp_path / "adapter")
    loaded = peft.PeftModel.from_pretrained(tiny.load_model(base), folder)
    assert torch.equal(logits(loaded), logits(model))
    assert not torch.equal(logits(loaded), logits(tiny.load_model(base)))


def test_weights_come_back_bit_for_bit(tmp_path: Path, llama: Path) -> None:
    model = tiny.adapted_model(tmp_path, llama)
    folder = saved(model, tmp_path / "adapter")
    other = tiny.adapted_model(tmp_path, llama)
    with torch.no_grad():
        for parameter in other.parameters():
            if parameter.requires_grad:
                parameter.zero_()
    load_adapter_weights(other, folder)
    assert torch.equal(logits(other), logits(model))
    assert tiny.folder_digests(saved(other, tmp_path / "again")) == tiny.folder_digests(folder)


@pytest.mark.parametrize(
    ("options", "count"),
    [({"target_modules": ("q_proj",)}, 24), ({"rank": 2}, 28)],
    ids=["other modules", "other rank"],
)
def test_another_adapter_is_refused(tmp_path: Path, llama: Path, options: dict[str, Any], count: int) -> None:
    folder = saved(tiny.adapted_model(tmp_path, llama, **options), tmp_path / "adapter")
    model = tiny.adapted_model(tmp_path, llama)
    before = logits(model)
    with pytest.raises(ValueError, match=f"holds another adapter: {count} tensors differ"):
        load_adapter_weights(model, folder)
    assert torch.equal(logits(model), before)
