"""Reward models: the loss by hand, where the score is taken, how pairs lie in memory, what others load."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

import pytest
import torch
from tests import tiny

from recipe_engine.errors import DataRejected, Interrupted, StageFailed
from recipe_engine.methods.evaluate import PreferenceAccuracy
from recipe_engine.methods.options import EvaluatePreference
from recipe_engine.methods.train_reward import TrainReward
from recipe_engine.training.loop import plan_steps
from recipe_engine.training.options import TrainReward as Options
from recipe_engine.training.reward import BradleyTerry, bradley_terry
from recipe_engine.training.reward_model import RewardModel, lay, load_reward_model, scores
from recipe_engine.training.rows import read_pairs

if TYPE_CHECKING:
    from recipe_engine.contract import StageResult
    from recipe_engine.training.rows import Pair

PAD = 297
JOB: dict[str, Any] = {"epochs": 2, "batch_size": 4, "learning_rate": 5e-3}
STEPS = 5


@pytest.fixture(scope="module")
def data(llama: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pairs")
    rows = {"train": tiny.preference_rows(10), "eval": tiny.preference_rows(5, start=10)}
    return {
        role: tiny.prepare_data(folder / role, given, llama, data_format="preference") for role, given in rows.items()
    }


@pytest.fixture(scope="module")
def pairs(data: dict[str, Path]) -> list[Pair]:
    return read_pairs(data["train"])


def reward(
    root: Path,
    folder: Path,
    data: dict[str, Path],
    *,
    reporter: tiny.Recorder | None = None,
    dropout: float = 0.0,
    **options: Any,
) -> tuple[StageResult, Path]:
    """One ``train.reward`` on a freshly adapted model; the result and the output folder."""
    root.mkdir(parents=True, exist_ok=True)
    request = tiny.stage_request(
        root,
        Options(**(JOB | options)),
        model=tiny.adapted_model(root, folder, dropout=dropout),
        tokenizer=folder,
        data=data,
        reporter=reporter,
    )
    return tiny.run_stage(TrainReward(), request), request.output


@pytest.fixture(scope="module")
def trained(llama: Path, data: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[StageResult, Path]:
    return reward(tmp_path_factory.mktemp("whole"), llama, data, dropout=0.1, checkpoint_steps=2)


@pytest.mark.parametrize(
    ("chosen", "rejected", "margin", "centering", "loss"),
    [
        (0.0, 0.0, 0.0, 0.0, math.log(2)),
        (2.0, 0.5, 0.0, 0.0, math.log(1 + math.exp(-1.5))),
        (0.5, 2.0, 0.0, 0.0, math.log(1 + math.exp(1.5))),
        (2.0, 0.5, 1.0, 0.0, math.log(1 + math.exp(-0.5))),
        (2.0, 0.5, 1.0, 0.01, math.log(1 + math.exp(-0.5)) + 0.01 * 6.25),
        (-3.0, 3.0, 0.0, 0.5, math.log(1 + math.exp(6.0))),
    ],
)
def test_the_loss_by_hand(chosen: float, rejected: float, margin: float, centering: float, loss: float) -> None:
    better, worse = (torch.tensor([value], dtype=torch.float64, requires_grad=True) for value in (chosen, rejected))
    found = bradley_terry(better, worse, torch.tensor([margin], dtype=torch.float64), centering)
    assert found.item() == pytest.approx(loss, rel=1e-12)
    found.sum().backward()
    # d/dx -log sigmoid(x) = -sigmoid(-x)
    pull = -1 / (1 + math.exp(chosen - rejected - margin))
    push = 2 * centering * (chosen + rejected)
    assert better.grad is not None
    assert worse.grad is not None
    assert better.grad.item() == pytest.approx(pull + push, rel=1e-9, abs=1e-12)
    assert worse.grad.item() == pytest.approx(-pull + push, rel=1e-9, abs=1e-12)


def test_scores_that_move_together_cost_nothing_without_centering() -> None:
    scores_, margins = torch.randn(2, 9, dtype=torch.float64), torch.zeros(9, dtype=torch.float64)
    for shift in (0.0, 5.0):
        assert torch.allclose(
            bradley_terry(scores_[0] + shift, scores_[1] + shift, margins, 0.0),
            bradley_terry(scores_[0], scores_[1], margins, 0.0),
        )
    shifted = bradley_terry(scores_[0] + 5, scores_[1] + 5, margins, 0.01).mean()
    assert shifted > bradley_terry(scores_[0], scores_[1], margins, 0.01).mean()


def test_the_first_loss_is_that_of_a_coin(trained: tuple[StageResult, Path]) -> None:
    """The head starts at 0: nothing is preferred."""
    first = trained[0].facts["trace"][0]
    assert (first["loss"], first["accuracy"], first["margin"]) == (pytest.approx(math.log(2)), 0.0, 0.0)


def test_what_is_right_becomes_more(trained: tuple[StageResult, Path]) -> None:
    *_, last = later = trained[0].facts["trace"][1:]
    assert fmean(step["loss"] for step in later) < 0.68  # ln 2, 0.693, is that of a model that tells nothing apart
    assert fmean(step["margin"] for step in later) > 0.05
    assert trained[0].metrics == {name: last[name] for name in ("loss", "accuracy", "margin")}


def filled(root: Path, folder: Path) -> RewardModel:
    """A reward model whose head says something."""
    model = RewardModel(tiny.adapted_model(root, folder))
    with torch.no_grad():
        model.score.weight.copy_(torch.randn(model.score.weight.shape, generator=torch.Generator().manual_seed(3)))
    return model


@pytest.mark.parametrize("layout", ["packed", "padded"])
def test_the_score_is_that_of_the_last_token(layout: Any, tmp_path: Path, llama: Path, pairs: list[Pair]) -> None:
    """Each text alone, by transformers itself; the token that ends a text is the one that pads, too."""
    from recipe_engine.training.packed_attention import packed_attention

    model = filled(tmp_path, llama)
    texts = [pair.chosen.input_ids for pair in pairs[:4]]
    assert all(text[-1] == PAD for text in texts)
    with torch.no_grad():
        if layout == "packed":
            with packed_attention(model.language_model):
                found = model(lay(texts, PAD, layout))
        else:
            found = model(lay(texts, PAD, layout))
        for text, score in zip(texts, found, strict=True):
            state = model.plain.model(input_ids=torch.tensor([text])).last_hidden_state[0, len(text) - 1]
            assert score.item() == pytest.approx((model.score.weight[0] @ state).item(), rel=1e-4, abs=1e-5)


def test_a_score_does_not_depend_on_its_company(tmp_path: Path, llama: Path, pairs: list[Pair]) -> None:
    model = filled(tmp_path, llama)
    texts = [pair.chosen.input_ids for pair in pairs]
    alone = [score for text in texts for score in scores(model, [text], PAD, batch_size=1)]
    assert scores(model, texts, PAD, batch_size=4) == pytest.approx(alone, rel=1e-4, abs=1e-5)


def test_a_step_counts_the_tokens_of_both_answers(pairs: list[Pair]) -> None:
    options = Options(batch_tokens=200, micro_batch_tokens=90)
    lengths = [len(pair.chosen.input_ids) + len(pair.rejected.input_ids) for pair in pairs]
    plan = plan_steps(options, lengths, 7)
    assert sorted(position for step in plan.micro_batches for position in step) == list(range(len(pairs)))
    assert all(sum(lengths[position] for position in step) <= 200 for step in plan.micro_batches if len(step) > 1)


def test_packed_is_padded(tmp_path: Path, llama: Path, data: dict[str, Path]) -> None:
    traces = [
        reward(tmp_path / layout, llama, data, layout=layout, centering=0.01)[0].facts["trace"]
        for layout in ("auto", "padded")
    ]
    for packed, padded in zip(*traces, strict=True):
        for name in ("loss", "grad_norm", "margin"):
            assert packed[name] == pytest.approx(padded[name], rel=2e-3, abs=1e-4), name


def test_micro_batches_are_one_batch(tmp_path: Path, llama: Path, data: dict[str, Path]) -> None:
    whole, cut = (
        reward(tmp_path / name, llama, data, micro_batch_size=size)[0].facts["trace"]
        for name, size in (("whole", None), ("cut", 1))
    )
    for one, other in zip(whole, cut, strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=2e-3)
        assert one["accuracy"] == other["accuracy"]
        assert one["margin"] == pytest.approx(other["margin"], rel=1e-2, abs=1e-4)


def test_stopped_and_gone_on(
    tmp_path: Path, llama: Path, data: dict[str, Path], trained: tuple[StageResult, Path]
) -> None:
    """To the bit, the head included."""
    with pytest.raises(Interrupted):
        reward(tmp_path, llama, data, dropout=0.1, checkpoint_steps=2, reporter=tiny.Recorder(stop_after=3))
    result, output = reward(tmp_path, llama, data, dropout=0.1, checkpoint_steps=2)
    assert result.facts["trace"] == trained[0].facts["trace"]
    assert tiny.folder_digests(output) == tiny.folder_digests(trained[1])


def test_peft_loads_it(llama: Path, pairs: list[Pair], trained: tuple[StageResult, Path]) -> None:
    """On transformers' own class, with the scores that it has here."""
    import peft
    from transformers import AutoModelForSequenceClassification

    result, folder = trained
    config = json.loads((folder / "adapter_config.json").read_text())
    assert (config["task_type"], config["modules_to_save"]) == ("SEQ_CLS", ["score"])
    base = AutoModelForSequenceClassification.from_pretrained(llama, num_labels=1, dtype=torch.float32)
    base.config.pad_token_id = None
    loaded = peft.PeftModel.from_pretrained(base, folder).eval()
    texts = [pair.chosen.input_ids for pair in pairs]
    with torch.no_grad():
        theirs = [loaded(input_ids=torch.tensor([text])).logits.item() for text in texts]
    assert scores(result.live, texts, PAD, batch_size=4) == pytest.approx(theirs, rel=1e-3, abs=1e-5)


def whole_model(root: Path, folder: Path, data: dict[str, Path]) -> tuple[StageResult, Path]:
    """A reward model all of whose weights are trained."""
    model = tiny.load_model(folder).requires_grad_()
    request = tiny.stage_request(root, Options(**JOB), model=model, tokenizer=folder, data=data)
    return tiny.run_stage(TrainReward(), request), request.output


def test_a_whole_model(tmp_path: Path, llama: Path, data: dict[str, Path], pairs: list[Pair]) -> None:
    from transformers import AutoModelForSequenceClassification

    result, folder = whole_model(tmp_path, llama, data)
    loaded = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    assert type(loaded).__name__ == "LlamaForSequenceClassification"
    texts = [pair.rejected.input_ids for pair in pairs]
    with torch.no_grad():
        theirs = [loaded(input_ids=torch.tensor([text])).logits.item() for text in texts]
    ours = scores(result.live, texts, PAD, batch_size=4)
    assert ours == pytest.approx(theirs, rel=1e-3, abs=1e-5)
    restored = load_reward_model(tiny.load_model(llama), folder)
    assert scores(restored, texts, PAD, batch_size=4) == ours


def test_no_class_for_a_whole_model(tmp_path: Path, llama: Path, data: dict[str, Path]) -> None:
    model = tiny.load_model(llama).requires_grad_()
    model.config.model_type = "unheard_of"
    model.config.__class__ = type("Unheard", (type(model.config),), {})
    request = tiny.stage_request(tmp_path, Options(**JOB), model=model, tokenizer=llama, data=data)
    with pytest.raises(StageFailed, match=r"no reward model of the architecture unheard_of\."):
        tiny.run_stage(TrainReward(), request)


def test_margins_come_from_the_rows(tmp_path: Path, llama: Path) -> None:
    rows = [row | {"rating": position / 2} for position, row in enumerate(tiny.preference_rows(4))]
    folder = tiny.prepare_data(tmp_path / "rated", rows, llama, data_format="preference", fields={"margin": "rating"})
    rated = read_pairs(folder)
    assert [pair.margin for pair in rated] == [0.0, 0.5, 1.0, 1.5]
    # Without anything learned, the loss is that of the margins alone.
    first = reward(tmp_path / "job", llama, {"train": folder}, max_steps=1)[0].facts["trace"][0]
    expected = sum(math.log(1 + math.exp(pair.margin)) for pair in rated) / 4
    assert first["loss"] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("rating", [None, "much", True, float("inf")])
def test_a_margin_is_a_number(rating: Any, tmp_path: Path, llama: Path) -> None:
    rows = [row | {"rating": rating} for row in tiny.preference_rows(1)]
    with pytest.raises(DataRejected, match='the field "rating" holds no finite number'):
        tiny.prepare_data(tmp_path, rows, llama, data_format="preference", fields={"margin": "rating"})


def test_how_a_model_judges_by_hand(tmp_path: Path, llama: Path, data: dict[str, Path]) -> None:
    from recipe_engine.methods.metrics.measures import Preference

    measure = Preference()
    # Sure to 0.5, 0.88, 0.88 and 0.98; wrong, right, wrong, right.
    counts = measure.count([0.0, 2.0, -2.0, 4.0])
    sure = [1 / (1 + math.exp(-margin)) for margin in (0.0, 2.0, 2.0, 4.0)]
    sums = [sum(column) for column in zip(*counts, strict=True)]
    error = (sure[0] + abs(sure[1] + sure[2] - 1) + (1 - sure[3])) / 4
    assert measure.values(sums, 4) == pytest.approx([0.5, 1.0, error])
    request = tiny.stage_request(
        tmp_path,
        EvaluatePreference(batch_size=2),
        model=filled(tmp_path, llama),
        tokenizer=llama,
        data={"eval": data["eval"]},
    )
    result = PreferenceAccuracy().run(request)
    assert result.metrics.keys() == {"accuracy", "margin", "calibration_error"}
    assert result.facts == {"pairs": 5}
    chosen, rejected = (
        scores(
            request.inputs.model,
            [getattr(pair, side).input_ids for pair in read_pairs(data["eval"])],
            PAD,
            batch_size=1,
        )
        for side in ("chosen", "rejected")
    )
    gaps = [one - other for one, other in zip(chosen, rejected, strict=True)]
    assert result.metrics["accuracy"] == sum(gap > 0 for gap in gaps) / 5
    assert result.metrics["margin"] == pytest.approx(sum(gaps) / 5, rel=1e-4)


def test_numbers_are_those_of_one_step() -> None:
    objective = BradleyTerry(0.0)
    batch = {"margins": torch.zeros(2)}
    objective.loss(lambda _batch: torch.tensor([1.0, 0.0, 2.0, 3.0]), batch)
    objective.loss(lambda _batch: torch.tensor([4.0, 0.0, 4.0, 0.0]), batch)
    assert objective.numbers() == {"accuracy": 0.75, "margin": 2.0}
    objective.loss(lambda _batch: torch.tensor([0.0, 1.0, 0.0, 1.0]), batch)
    assert objective.numbers() == {"accuracy": 0.0, "margin": -1.0}


CHANGES: dict[str, dict[str, Any]] = {"centering": {"centering": 1.0}, "batch_size": {"batch_size": 5}}
OF_EVERY_TRAINING = {field.name for field in dataclasses.fields(Options)} - CHANGES.keys()


@pytest.mark.parametrize("name", CHANGES)
def test_an_option_is_read(
    name: str, tmp_path: Path, llama: Path, data: dict[str, Path], trained: tuple[StageResult, Path]
) -> None:
    """Those that all trainings have are read in one place: ``test_options_are_read.py``."""
    _, output = reward(tmp_path, llama, data, dropout=0.1, **CHANGES[name])
    assert tiny.folder_digests(output) != tiny.folder_digests(trained[1])


def test_the_other_options_are_those_of_every_training() -> None:
    from recipe_engine.training.options import Training

    assert {field.name for field in dataclasses.fields(Training)} == OF_EVERY_TRAINING | {"batch_size"}
