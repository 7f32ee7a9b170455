"""What every built-in method promises: what it hands on live is what its artifact gives back.

``nf4``, ``int8``, ``encoder``, ``ppo``, ``rloo`` and ``grpo`` keep it in tests of their own, as they need bitsandbytes,
another model or a reward.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests import tiny

from recipe_engine.contract import StageRequest
from recipe_engine.lazy import load_symbol
from recipe_engine.methods import options
from recipe_engine.methods.answers import read_answers
from recipe_engine.methods.metrics import options as metrics
from recipe_engine.plugins import load_catalogue
from recipe_engine.training.batches import collate
from recipe_engine.training.choice import Decoding
from recipe_engine.training.generation import greedy
from recipe_engine.training.options import TrainReward, TrainSft
from recipe_engine.training.reward_model import RewardModel, scores
from recipe_engine.training.rows import read_rows

CATALOGUE = load_catalogue(entry_points=False)
ELSEWHERE = {
    *(("load", name) for name in ("nf4", "int8", "encoder")),
    *(("train", name) for name in ("ppo", "rloo", "grpo")),
}
SFT: dict[str, Any] = {"epochs": 2, "batch_size": 4, "learning_rate": 5e-3}
PAIRS = {"reward", "preference"}
"""Methods that read pairs of answers."""
MODELS = ("llama", "gpt2", "tied")


@dataclasses.dataclass(frozen=True)
class Case:
    """A method with options, on a base model in a precision."""

    stage: str
    method: str
    options: Any
    base: str = "llama"
    dtype: str = "float32"

    @property
    def code(self) -> Any:
        """A new instance, as in every process."""
        return load_symbol(CATALOGUE.methods[self.stage, self.method].descriptor.implementation)()

    @property
    def is_seeded(self) -> bool:
        """Whether its method says so."""
        return CATALOGUE.methods[self.stage, self.method].descriptor.seeded

    def __str__(self) -> str:
        changed = [
            f"{field.name}={getattr(self.options, field.name)}"
            for field in dataclasses.fields(self.options)
            if getattr(self.options, field.name) != field.default
        ]
        return f"{self.stage}.{self.method}-{self.base}-{self.dtype}-{','.join(changed)}"


CASES = [
    *(Case("load", "full", options.LoadFull(dtype="float32"), base) for base in MODELS),
    Case("load", "full", options.LoadFull(dtype="bfloat16")),
    Case("adapt", "lora", options.AdaptLora(rank=4, dropout=0.1)),
    Case("adapt", "lora", options.AdaptLora(rank=4), "llama", "bfloat16"),
    Case("adapt", "lora", options.AdaptLora(rank=2, alpha=8.0, target_modules=("q_proj", "v_proj")), "tied"),
    Case("adapt", "lora", options.AdaptLora(rank=4), "gpt2"),
    Case("adapt", "full", options.AdaptFull()),
    Case("train", "sft", TrainSft(**SFT, weight_decay=0.1, eval_steps=2)),
    Case("train", "sft", TrainSft(**SFT), "llama", "bfloat16"),
    Case("train", "sft", TrainSft(**SFT, loss_on="all", micro_batch_size=2), "tied"),
    Case("train", "sft", TrainSft(**SFT), "gpt2"),
    Case("train", "sft", TrainSft(**SFT, gradient_checkpointing=True)),
    Case("train", "reward", TrainReward(**SFT, centering=0.01, eval_steps=2)),
    Case("train", "reward", TrainReward(**SFT, max_steps=2, gradient_checkpointing=True), "gpt2"),
]
TRAININGS = [case for case in CASES if case.stage == "train"]
Requests = Callable[..., StageRequest]


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("bases")
    return {
        "llama": tiny.write_model(folder / "llama"),
        "gpt2": tiny.write_model(folder / "gpt2", architecture="gpt2"),
        "tied": tiny.write_model(folder / "tied", tied=True),
    }


@pytest.fixture(scope="module")
def data(bases: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The three models share one tokenizer."""
    folder = tmp_path_factory.mktemp("data")
    return {
        "train": tiny.prepare_data(folder / "train", tiny.instruction_rows(10), bases["llama"]),
        "eval": tiny.prepare_data(folder / "eval", tiny.instruction_rows(4, start=10), bases["llama"]),
    }


@pytest.fixture(scope="module")
def pairs(bases: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pairs")
    rows = {"train": tiny.preference_rows(10), "eval": tiny.preference_rows(4, start=10)}
    return {
        role: tiny.prepare_data(folder / role, given, bases["llama"], data_format="preference")
        for role, given in rows.items()
    }


@pytest.fixture
def requested(bases: dict[str, Path], data: dict[str, Path], pairs: dict[str, Path], tmp_path: Path) -> Requests:
    """``requested(case)``: a request with inputs of its own, as another process would have them."""
    count = iter(range(99))

    def make(case: Case, seed: int = 7) -> StageRequest:
        root = tmp_path / str(next(count))
        root.mkdir()
        base = bases[case.base]
        model: Any = None
        if case.stage == "adapt":
            model = tiny.load_model(base, case.dtype)
        elif case.stage == "train":
            model = tiny.adapted_model(root, base, dtype=case.dtype, dropout=0.1)
        return tiny.stage_request(
            root,
            case.options,
            node=case.stage,
            source=tiny.resolve(base) if case.stage == "load" else None,
            model=model,
            tokenizer=base,
            data=pairs if case.method in PAIRS else data,
            seed=seed,
        )

    return make


def logits(model: Any, data: dict[str, Path]) -> torch.Tensor:
    """What it says to a few rows: logits, or scores."""
    if isinstance(model, RewardModel):
        return torch.tensor(scores(model, [row.input_ids for row in read_rows(data["eval"])], 297, batch_size=2))
    batch = collate(read_rows(data["eval"]), 297)
    del batch["labels"]
    with torch.no_grad():
        found: torch.Tensor = model(**batch).logits
    return found


def test_every_method_has_a_case() -> None:
    handing_on = {key for key in CATALOGUE.methods if key[0] in ("load", "adapt", "train")}
    assert {(case.stage, case.method) for case in CASES} | ELSEWHERE == handing_on


@pytest.mark.parametrize("case", CASES, ids=str)
def test_live_is_restored(case: Case, requested: Requests, data: dict[str, Path]) -> None:
    request = requested(case)
    live = tiny.run_stage(case.code, request).live
    restored = tiny.restore_stage(case.code, requested(case), request.output)
    tiny.assert_same_state(tiny.model_state(restored), tiny.model_state(live), generators=False)
    assert torch.equal(logits(restored, data), logits(live, data))
    assert [name for name in live.state_dict()] == [name for name in restored.state_dict()]  # noqa: C416
    assert not any(module.training for module in live.modules()), "a model is handed on in evaluation mode"


@pytest.mark.parametrize("case", [case for case in CASES if case.is_seeded], ids=str)
def test_the_same_seed_gives_the_same_bytes(case: Case, requested: Requests) -> None:
    digests = []
    for seed in (7, 7, 8):
        request = requested(case, seed)
        tiny.run_stage(case.code, request)
        digests.append(tiny.folder_digests(request.output))
    assert digests[0] == digests[1]
    assert digests[0] != digests[2], "the method says that it is seeded"


@pytest.mark.parametrize("case", TRAININGS, ids=str)
def test_a_training_trains_the_adapters_and_nothing_else(case: Case, requested: Requests) -> None:
    request = requested(case)
    before = tiny.model_state(request.inputs.model)
    live = tiny.run_stage(case.code, request).live
    live = live.language_model if isinstance(live, RewardModel) else live
    assert live is request.inputs.model
    after = tiny.model_state(live)
    for name, weight in before["parameters"].items():
        assert torch.equal(weight, after["parameters"][name]) == ("lora_" not in name), name
    for part in ("modes", "kinds", "gradients", "hooks", "config", "generation"):
        assert after[part] == before[part], part


def test_activations_that_are_computed_again_change_nothing(requested: Requests) -> None:
    kept, recomputed = (Case("train", "sft", TrainSft(**SFT, gradient_checkpointing=on)) for on in (False, True))
    digests = []
    for case in (kept, recomputed):
        request = requested(case)
        tiny.run_stage(case.code, request)
        digests.append(tiny.folder_digests(request.output))
    assert digests[0] == digests[1]


def test_new_adapters_change_nothing_yet(requested: Requests, data: dict[str, Path], bases: dict[str, Path]) -> None:
    case = CASES[4]
    assert torch.equal(
        logits(tiny.run_stage(case.code, requested(case)).live, data), logits(tiny.load_model(bases["llama"]), data)
    )


def test_target_modules_that_are_not_there(requested: Requests) -> None:
    from recipe_engine.errors import StageFailed

    case = Case("adapt", "lora", options.AdaptLora(target_modules=("w_pack", "c_attn")))
    with pytest.raises(
        StageFailed, match=r"^adapt: target_modules: no linear layer of this model is named w_pack\."
    ) as caught:
        tiny.run_stage(case.code, requested(case))
    assert caught.value.hint == (
        "Its linear layers are down_proj, gate_proj, k_proj, lm_head, o_proj, q_proj, up_proj, v_proj."
    )


EVALUATIONS: dict[str, Any] = {
    "perplexity": options.EvaluatePerplexity(batch_size=3),
    "preference": options.EvaluatePreference(batch_size=3),
    "answers": metrics.EvaluateAnswers(batch_size=3, max_new_tokens=6),
    "samples": options.EvaluateSamples(count=2, max_new_tokens=6),
}


def test_every_evaluation_is_here() -> None:
    """Metrics get no model, so they cannot change it: ``test_metrics.py`` has them. ``test_harness.py`` has its own."""
    asking = {
        name
        for (stage, name), method in CATALOGUE.methods.items()
        if stage == "evaluate" and not issubclass(method.descriptor.options, metrics.Measured)
    }
    assert set(EVALUATIONS) == asking - {"harness"}


def evaluation(root: Path, name: str, model: Any, tokenizer: Path, data: Path) -> StageRequest:
    return tiny.stage_request(
        root, EVALUATIONS[name], node=f"evaluate.{name}", model=model, tokenizer=tokenizer, data={"eval": data}
    )


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", EVALUATIONS)
def test_an_evaluation_only_borrows(
    name: str, training: bool, tmp_path: Path, bases: dict[str, Path], data: dict[str, Path], pairs: dict[str, Path]
) -> None:
    code = Case("evaluate", name, EVALUATIONS[name]).code
    model = tiny.adapted_model(tmp_path, bases["llama"], dropout=0.2)
    rows = (pairs if name in PAIRS else data)["eval"]
    model = (RewardModel(model) if name in PAIRS else model).train(training)
    torch.manual_seed(7)
    first, second = (evaluation(tmp_path, name, model, bases["llama"], rows) for _ in range(2))
    before = tiny.model_state(model)
    result = code.run(first)
    tiny.assert_same_state(tiny.model_state(model), before)
    assert code.run(second).metrics == result.metrics, "the same again, as nothing was left behind"
    assert tiny.folder_digests(first.output) == tiny.folder_digests(second.output)
    assert result.live is None
    assert code.restore(first, first.output) is None
    done, total, unit = first.reporter.progressed[-1]  # type: ignore[attr-defined]
    assert (done, unit) == (total, "rows")


@pytest.mark.parametrize("name", sorted(EVALUATIONS.keys() - PAIRS))
def test_an_evaluation_before_a_training_changes_no_bit_of_it(
    name: str, requested: Requests, tmp_path: Path, bases: dict[str, Path], data: dict[str, Path]
) -> None:
    case = TRAININGS[0]
    digests = []
    for evaluated in (False, True):
        request = requested(case)
        if evaluated:
            code = Case("evaluate", name, EVALUATIONS[name]).code
            code.run(evaluation(tmp_path, name, request.inputs.model, bases["llama"], data["eval"]))
        tiny.run_stage(case.code, request)
        digests.append(tiny.folder_digests(request.output))
    assert digests[0] == digests[1]


def test_answers_are_what_the_model_says_beside_what_was_wanted(
    tmp_path: Path, bases: dict[str, Path], data: dict[str, Path]
) -> None:
    from recipe_engine.methods.evaluate import Answers
    from recipe_engine.training.tokenizer import open_tokenizer

    model = tiny.load_model(bases["llama"])
    rows = read_rows(data["eval"])
    said = greedy(
        model,
        open_tokenizer(bases["llama"]),
        [row.prompt_ids for row in rows],
        Decoding(max_new_tokens=6),
        batch_size=1,
        progress=lambda _done, _total: None,
    )
    request = evaluation(tmp_path, "answers", model, bases["llama"], data["eval"])
    assert Answers().run(request).facts == {"rows": 4}
    answers = read_answers(request.output)
    assert [answer["answer"] for answer in answers] == [text.strip() for text in said]
    assert [answer["reference"] for answer in answers] == [row.reference.strip() for row in rows]
    assert [answer["row"] for answer in answers] == [row.number for row in rows]


@pytest.mark.parametrize("name", ["answers", "samples"])
def test_rows_without_a_question_cannot_be_answered(name: str, tmp_path: Path, bases: dict[str, Path]) -> None:
    from recipe_engine.errors import DataRejected

    data = tiny.prepare_data(tmp_path / "text", [{"text": "One two."}], bases["llama"], data_format="text")
    request = evaluation(tmp_path, name, None, bases["llama"], data)
    with pytest.raises(DataRejected, match=f"^evaluate.{name}: its data set has rows without a question") as refused:
        Case("evaluate", name, EVALUATIONS[name]).code.run(request)
    assert refused.value.hint == "Measure perplexity on it, or name another data set."


def test_samples_are_the_first_rows(tmp_path: Path, bases: dict[str, Path], data: dict[str, Path]) -> None:
    from recipe_engine.methods.evaluate import Samples

    request = evaluation(tmp_path, "samples", tiny.load_model(bases["llama"]), bases["llama"], data["eval"])
    assert Samples().run(request).metrics == {}
    assert [answer["question"] for answer in read_answers(request.output)] == [
        row.question for row in read_rows(data["eval"])[:2]
    ]


def test_perplexity_before_and_after(tmp_path: Path, bases: dict[str, Path], data: dict[str, Path]) -> None:
    """Each row's own loss; a row is won where it falls."""
    from recipe_engine.methods.evaluate import Perplexity
    from recipe_engine.training.loss import mean_loss

    model = tiny.load_model(bases["llama"])
    rows = read_rows(data["eval"])
    base = evaluation(tmp_path, "perplexity", model, bases["llama"], data["eval"])
    before = Perplexity().run(base)
    loss, tokens = mean_loss(model, rows, 3, 0, lambda _done, _total: None)
    assert before.metrics["loss"] == pytest.approx(loss, rel=1e-6)
    assert before.facts == {"tokens": tokens}

    with torch.no_grad():
        model.lm_head.weight *= 0.5
    request = evaluation(tmp_path, "perplexity", model, bases["llama"], data["eval"])
    inputs = dataclasses.replace(request.inputs, artifacts={"before": base.output})
    after = Perplexity().run(dataclasses.replace(request, inputs=inputs))
    alone = [mean_loss(model, [row], 1, 0, lambda _done, _total: None)[0] for row in rows]
    told = json.loads((request.output / "counts.json").read_text())
    assert [total / count for total, count in told] == pytest.approx(alone, rel=1e-5)
    earlier = json.loads((base.output / "counts.json").read_text())
    won = sum(new < old for (new, _), (old, _) in zip(told, earlier, strict=True))
    found = after.facts["comparison"]["loss"]
    assert found["difference"] == after.metrics["loss"] - before.metrics["loss"]
    assert (found["wins"], found["losses"], found["ties"]) == (won, 4 - won, 0)


def test_perplexity_of_a_hopeless_model_is_a_number(
    tmp_path: Path, bases: dict[str, Path], data: dict[str, Path]
) -> None:
    from recipe_engine.methods.evaluate import Perplexity

    model = tiny.load_model(bases["llama"])
    found = Perplexity().run(evaluation(tmp_path, "perplexity", model, bases["llama"], data["eval"])).metrics
    assert found["perplexity"] == pytest.approx(torch.tensor(found["loss"]).exp().item())
    with torch.no_grad():
        model.lm_head.weight *= 1e4
    found = Perplexity().run(evaluation(tmp_path, "perplexity", model, bases["llama"], data["eval"])).metrics
    assert found["perplexity"] == 1e300
