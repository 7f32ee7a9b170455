"""What ``train.dpo`` of recipe-dpo computes, on a model of two layers."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests import tiny

from recipe_engine.errors import Interrupted, StageFailed
from recipe_engine.lazy import load_symbol
from recipe_engine.methods.options import AdaptLora
from recipe_engine.methods.prepare import PrepareStage
from recipe_engine.model import build_data_set
from recipe_engine.plugins import load_catalogue
from recipe_engine.training import Pair, read_pairs

if TYPE_CHECKING:
    from recipe_engine.contract import StageRequest

# Importing TRL takes seconds.
pytestmark = pytest.mark.slow

Requested = Callable[..., "StageRequest"]
BETA = 0.5
STEPS: dict[str, Any] = {"epochs": 2, "batch_size": 4, "learning_rate": 5e-3}


def preferences(count: int) -> list[dict[str, str]]:
    return [
        {"prompt": f"What comes after {n}?", "chosen": f"{n + 1}", "rejected": "No idea" + ", really" * (n % 3)}
        for n in range(count)
    ]


def prepared(folder: Path, rows: Sequence[Mapping[str, Any]], tokenizer: Path) -> Path:
    """Rows through the real ``prepare`` stage, as the engine makes it of the format's descriptor."""
    described = load_catalogue(entry_points=False).formats["preference"].descriptor
    file = tiny.write_jsonl(folder / "rows.jsonl", rows)
    data_set = build_data_set("train", {"source": "file:rows.jsonl", "format": "preference"}, described.options)
    source = tiny.resolve(file, "data")
    request = tiny.stage_request(folder, data_set, node="prepare", source=source, tokenizer=tokenizer)
    PrepareStage(load_symbol(described.implementation)(), described.kind).run(request)
    return request.output


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("bases")
    return {
        "llama": tiny.write_model(folder / "llama"),
        # Its configuration has dropout 0.1.
        "gpt2": tiny.write_model(folder / "gpt2", architecture="gpt2"),
    }


@pytest.fixture(scope="module")
def data(bases: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepared(tmp_path_factory.mktemp("data"), preferences(8), bases["llama"])


@pytest.fixture
def requested(bases: dict[str, Path], data: Path, tmp_path: Path) -> Requested:
    """``requested("name", …options)``: equal names share a work area, as a run that is started again does."""

    def make(name: str = "a", *, base: str = "llama", model: Any = None, pairs: Path = data, **given: Any) -> Any:
        root = tmp_path / name
        root.mkdir(exist_ok=True)
        options = load_symbol("recipe_dpo.options:TrainDpo")(**(STEPS | given))
        model = model if model is not None else tiny.adapted_model(root, bases[base])
        return tiny.stage_request(root, options, model=model, tokenizer=bases[base], data={"train": pairs})

    return make


def run(request: StageRequest) -> Any:
    return tiny.run_stage(load_symbol("recipe_dpo.method:Dpo")(), request)


def log_probability(model: Any, row: Any) -> float:
    """Of the learned tokens of a row, given all before them; written down anew."""
    import torch

    model.eval()
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([row.input_ids])).logits[0].double()
    chances = torch.log_softmax(logits, dim=-1)
    learned = [place for place, supervised in enumerate(row.supervised) if supervised]
    return sum(float(chances[place - 1, row.input_ids[place]]) for place in learned)


def both(model: Any, pair: Pair) -> tuple[float, float]:
    return log_probability(model, pair.chosen), log_probability(model, pair.rejected)


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def expected_loss(kind: str, chosen: float, rejected: float, pair: Pair) -> float:
    """Of one pair.

    Args:
        kind: the loss.
        chosen: log-ratio of policy and reference of the better answer.
        rejected: of the worse one.
        pair: for the lengths of its answers.
    """
    margin = BETA * (chosen - rejected)
    match kind:
        case "sigmoid":
            return -math.log(sigmoid(margin))
        case "hinge":
            return max(0.0, 1 - margin)
        case "ipo":
            mean = chosen / sum(pair.chosen.supervised) - rejected / sum(pair.rejected.supervised)
            return (mean - 1 / (2 * BETA)) ** 2
    return (-0.9 * math.log(sigmoid(margin)) + 0.1 * math.log(sigmoid(-margin))) / (1 - 2 * 0.1)


@pytest.mark.parametrize("kind", ["sigmoid", "hinge", "ipo", "robust"])
def test_the_loss_of_one_pair_is_what_the_papers_say(
    kind: str, requested: Requested, bases: dict[str, Path], tmp_path: Path
) -> None:
    one = prepared(tmp_path, preferences(1), bases["llama"])
    (pair,) = read_pairs(one)
    options: dict[str, Any] = {"loss_type": kind, "beta": BETA, "schedule": "constant", "batch_size": 1, "pairs": one}
    options |= {"label_smoothing": 0.1} if kind == "robust" else {}
    before = both(requested("before", **options).inputs.model, pair)
    after = both(run(requested("one", **options, max_steps=1)).live, pair)
    steps = run(requested("two", **options)).facts["trace"]
    chosen, rejected = (now - then for now, then in zip(after, before, strict=True))
    assert steps[0]["loss"] == pytest.approx(expected_loss(kind, 0.0, 0.0, pair), abs=1e-6)
    assert steps[1]["loss"] == pytest.approx(expected_loss(kind, chosen, rejected, pair), abs=1e-4)
    assert steps[1]["margin"] == pytest.approx(BETA * (chosen - rejected), abs=1e-4)
    assert abs(chosen - rejected) > 0.1


def test_the_better_answers_become_likelier_beside_the_worse(requested: Requested, data: Path) -> None:
    request = requested()
    pairs = read_pairs(data)
    before = [both(request.inputs.model, pair) for pair in pairs]
    model = run(request).live
    for pair, (chosen, rejected) in zip(pairs, before, strict=True):
        now_chosen, now_rejected = both(model, pair)
        assert now_chosen - now_rejected > chosen - rejected + 1


@pytest.mark.parametrize("base", ["llama", "gpt2"])
def test_what_is_handed_on_is_what_the_artifact_gives_back(requested: Requested, base: str) -> None:
    request = requested("live", base=base)
    live = tiny.model_state(run(request).live)
    again = requested("restored", base=base)
    restored = tiny.restore_stage(load_symbol("recipe_dpo.method:Dpo")(), again, request.output)
    tiny.assert_same_state(tiny.model_state(restored), live, generators=False)


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(requested: Requested) -> None:
    first, second = requested("first"), requested("second")
    other = dataclasses.replace(requested("other"), seed=8)
    digests = [tiny.folder_digests(request.output) for request in (first, second, other) if run(request)]
    assert digests[0] == digests[1] != digests[2]


def test_a_stopped_training_goes_on_to_the_same_bytes(requested: Requested) -> None:
    whole = requested("whole")
    steps = run(whole).facts["trace"]
    stopping = tiny.Recorder(stop_after=2)
    with pytest.raises(Interrupted, match="stopped after step 2 of 4; a checkpoint is kept"):
        run(dataclasses.replace(requested("cut"), reporter=stopping))
    cut = requested("cut")
    assert run(cut).facts["trace"] == steps
    assert tiny.folder_digests(cut.output) == tiny.folder_digests(whole.output)


def test_everything_is_reported(requested: Requested) -> None:
    request = requested()
    steps = run(request).facts["trace"]
    reporter: Any = request.reporter
    assert reporter.progressed == [(done, 4, "steps") for done in range(5)]
    told = [{name: value for name, value in entry.items() if name != "weights"} for entry in steps]
    assert [{"step": step, **values} for step, values in reporter.logged] == told
    assert ["weights" in entry for entry in steps] == [True, False, False, False]
    assert list(request.work.iterdir()) == []


def test_micro_batches_change_memory_and_nothing_else(requested: Requested) -> None:
    # 16 pairs in steps of 6: the last step has 4, cut in 3 and 1.
    traces = [
        run(requested(name, batch_size=6, micro_batch_size=size)).facts["trace"]
        for name, size in (("whole", None), ("cut", 3))
    ]
    assert len(traces[0]) == 3
    for whole, cut in zip(*traces, strict=True):
        assert (cut["loss"], cut["grad_norm"]) == pytest.approx((whole["loss"], whole["grad_norm"]), rel=1e-3)


def test_activations_computed_again_change_nothing(requested: Requested) -> None:
    kept, again = requested("kept"), requested("again", gradient_checkpointing=True)
    states = [tiny.model_state(run(request).live) for request in (kept, again)]
    tiny.assert_same_state(states[1], states[0], generators=False)


def test_adapters_of_another_recipe_belong_to_the_reference(
    requested: Requested, bases: dict[str, Path], data: Path, tmp_path: Path
) -> None:
    from recipe_engine.methods.adapt_lora import AdaptLora as Adapt
    from recipe_engine.methods.attach import AttachStage

    trained = requested("below")
    below = run(trained).live
    folder = tmp_path / "stack"
    folder.mkdir()
    attach = tiny.stage_request(folder, None, node="attach", model=tiny.load_model(bases["llama"]))
    inputs = dataclasses.replace(attach.inputs, artifacts={"adapter": trained.output})
    stack = AttachStage().run(dataclasses.replace(attach, inputs=inputs)).live
    adapt = tiny.stage_request(folder, AdaptLora(rank=2), node="adapt", model=stack)
    model = tiny.run_stage(Adapt(), adapt).live
    frozen = {name: weight.clone() for name, weight in model.named_parameters() if not weight.requires_grad}
    pair = read_pairs(data)[0]
    assert both(model, pair) == pytest.approx(both(below, pair), abs=1e-4)
    request = requested("above", model=model)
    steps = run(request).facts["trace"]
    assert steps[0]["loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert steps[-1]["margin"] > 0
    assert list(model.peft_config) == ["base0", "default"]
    now = dict(model.named_parameters())
    assert all(weight.equal(now[name]) for name, weight in frozen.items())


def test_a_loss_that_is_no_number_stops_it(requested: Requested) -> None:
    import torch

    request = requested()
    with torch.no_grad():
        next(weight for weight in request.inputs.model.parameters() if weight.requires_grad).fill_(math.nan)
    with pytest.raises(StageFailed, match="the loss of step 1 is nan"):
        run(request)


def test_adapters_on_four_bits_stay_in_full_precision(
    requested: Requested, bases: dict[str, Path], tmp_path: Path
) -> None:
    """TRL by itself would turn them into bfloat16."""
    import torch

    from recipe_engine.methods.adapt_lora import AdaptLora as Adapt
    from recipe_engine.methods.load_nf4 import LoadNf4 as Load
    from recipe_engine.methods.options import LoadNf4

    load = tiny.stage_request(tmp_path, LoadNf4(), node="load", source=tiny.resolve(bases["llama"]))
    adapt = tiny.stage_request(tmp_path, AdaptLora(rank=4), node="adapt", model=tiny.run_stage(Load(), load).live)
    model = run(requested("quantized", model=tiny.run_stage(Adapt(), adapt).live)).live
    assert {weight.dtype for weight in model.parameters() if weight.requires_grad} == {torch.float32}
    assert model.is_loaded_in_4bit
