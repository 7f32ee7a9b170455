"""The loss against the textbook's: all logits, then cross-entropy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 -- the name that everyone knows
from tests import tiny

from recipe_engine.training.batches import IGNORE, Plan, collate
from recipe_engine.training.loss import NextToken, label_loss, mean_loss
from recipe_engine.training.rows import Row, read_rows

PAD = 297


@pytest.fixture(scope="module")
def rows(llama: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Row]:
    """Single answers of different lengths, and conversations."""
    folder = tmp_path_factory.mktemp("data")
    one = tiny.prepare_data(folder / "one", tiny.instruction_rows(5), llama)
    two = tiny.prepare_data(folder / "two", tiny.chat_rows(2), llama, data_format="chat")
    return read_rows(one) + read_rows(two)


@pytest.fixture(scope="module", params=["llama", "gpt2", "adapted"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder: Path = request.getfixturevalue("gpt2" if request.param == "gpt2" else "llama")
    if request.param == "adapted":
        return tiny.adapted_model(tmp_path_factory.mktemp("adapted"), folder)
    return tiny.load_model(folder)


def textbook(model: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Summed cross-entropy over all logits, labels shifted by one."""
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    return F.cross_entropy(
        logits[:, :-1].flatten(0, 1), batch["labels"][:, 1:].flatten(), ignore_index=IGNORE, reduction="sum"
    )


@pytest.mark.parametrize("all_tokens", [False, True])
def test_equal_to_the_textbook(model: Any, rows: list[Row], all_tokens: bool) -> None:
    batch = collate(rows, PAD, all_tokens=all_tokens)
    with torch.no_grad():
        ours, theirs = label_loss(model, batch), textbook(model, batch)
    assert ours.dtype == torch.float32
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-5)


def test_padding_changes_nothing(model: Any, rows: list[Row]) -> None:
    short, long = rows[0], max(rows, key=lambda row: len(row.input_ids))
    with torch.no_grad():
        apart = label_loss(model, collate([short], PAD)) + label_loss(model, collate([long], PAD))
        together = label_loss(model, collate([short, long], PAD))
        other_pad = label_loss(model, collate([short, long], 0))
    assert together.item() == pytest.approx(apart.item(), rel=1e-5)
    assert other_pad.item() == together.item()


def test_prompts_carry_no_loss_and_the_end_does(rows: list[Row], llama: Path) -> None:
    """The gradient reaches the head's row of a token where the token is a label; a raised logit lowers the loss."""
    model = tiny.load_model(llama)
    model.lm_head.weight.requires_grad_(requires_grad=True)
    row = rows[1]
    batch = collate([row], PAD)
    label_loss(model, batch).backward()
    learned = {token for token, flag in zip(row.input_ids, row.supervised, strict=True) if flag}
    prompt_only = set(row.prompt_ids) - learned
    assert PAD in learned, "the tokenizer pads with its end of sequence"
    logits = model(input_ids=batch["input_ids"]).logits[0]
    targets = batch["labels"][0, 1:]
    positions = [at for at, target in enumerate(targets.tolist()) if target != IGNORE]
    assert [row.input_ids[at + 1] for at in positions] == [
        token for token, flag in zip(row.input_ids, row.supervised, strict=True) if flag
    ]
    # The gradient of the summed loss by a logit is softmax - one-hot; no prompt token is a target anywhere.
    probabilities = torch.softmax(logits, -1)[positions]
    hot = F.one_hot(targets[positions], logits.shape[-1]).float()
    hidden = model.model(input_ids=batch["input_ids"]).last_hidden_state[0, positions]
    expected = (probabilities - hot).T @ hidden
    torch.testing.assert_close(model.lm_head.weight.grad, expected, rtol=1e-4, atol=1e-5)
    assert prompt_only
    assert not hot[:, sorted(prompt_only)].any()
    assert hot[:, PAD].sum() == 1


def gradients(model: Any) -> dict[str, torch.Tensor]:
    found = {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}
    model.zero_grad()
    return found


def test_one_batch_equals_accumulated_micro_batches(rows: list[Row], llama: Path, tmp_path: Path) -> None:
    model = tiny.adapted_model(tmp_path, llama)
    labels = sum(int((collate([row], PAD)["labels"] != IGNORE).sum()) for row in rows)
    (label_loss(model, collate(rows, PAD)) / labels).backward()
    whole = gradients(model)
    for row in rows:
        (label_loss(model, collate([row], PAD)) / labels).backward()
    parts = gradients(model)
    assert whole.keys() == parts.keys()
    assert any(gradient.abs().max() > 1e-3 for gradient in whole.values())
    for name, gradient in whole.items():
        torch.testing.assert_close(parts[name], gradient, rtol=1e-4, atol=1e-6)


def trained_step(root: Path, folder: Path, rows: list[Row], plan: Plan) -> tuple[dict[str, torch.Tensor], list[Any]]:
    """Weights after one step of plain gradient descent by the real trainer, and its log."""
    from transformers import TrainingArguments

    from recipe_engine.training.trainer import PARTS, PlannedTrainer
    from recipe_engine.training.watch import Progress

    class PlainDescent(PlannedTrainer):
        def create_optimizer(self, model: Any = None) -> Any:
            """Adam hides the scale of a gradient; this does not."""
            trained = [weight for weight in self.model.parameters() if weight.requires_grad]
            self.optimizer = torch.optim.SGD(trained, lr=self.args.learning_rate)
            return self.optimizer

    model = tiny.adapted_model(root, folder)
    arguments = TrainingArguments(
        output_dir=str(root),
        max_steps=plan.steps,
        per_device_train_batch_size=1,
        gradient_accumulation_steps=plan.accumulate,
        learning_rate=0.01,
        lr_scheduler_type="constant",
        max_grad_norm=0.0,
        save_strategy="no",
        logging_steps=1,
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        use_cpu=True,
    )
    trainer = PlainDescent(
        objective=NextToken(),
        plan=plan,
        load=lambda positions: {PARTS: [collate([rows[row] for row in positions], PAD)]},
        work=root,
        progress=Progress(),
        model=model,
        args=arguments,
        callbacks=[],
    )
    trainer.train()
    trained = {name: weight.detach() for name, weight in model.named_parameters() if weight.requires_grad}
    return trained, [entry for entry in trainer.state.log_history if "loss" in entry]


def test_the_trainer_normalizes_over_the_whole_step(rows: list[Row], llama: Path, tmp_path: Path) -> None:
    """Also in the last step, which is smaller and ends with an incomplete micro-batch."""
    positions = tuple(range(len(rows)))
    whole_plan = Plan((positions[:4], positions[4:]), 1, 2)
    cut_plan = Plan((positions[:2], positions[2:4], positions[4:6], positions[6:]), 2, 2)
    whole, whole_log = trained_step(tmp_path, llama, rows, whole_plan)
    cut, cut_log = trained_step(tmp_path, llama, rows, cut_plan)
    for name, weight in whole.items():
        torch.testing.assert_close(cut[name], weight, rtol=1e-4, atol=1e-5)
    labels = collate(rows[:4], PAD)["labels"][:, 1:]
    model = tiny.adapted_model(tmp_path, llama)
    with torch.no_grad():
        expected = textbook(model, collate(rows[:4], PAD)).item() / int((labels != IGNORE).sum())
    assert [entry["loss"] for entry in whole_log] == pytest.approx([entry["loss"] for entry in cut_log], rel=1e-5)
    assert whole_log[0]["loss"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("batch_size", [1, 3, 50])
def test_mean_loss_counts_each_token_once(model: Any, rows: list[Row], batch_size: int) -> None:
    calls: list[tuple[int, int]] = []
    loss, tokens = mean_loss(model, rows, batch_size, PAD, lambda done, total: calls.append((done, total)))
    batch = collate(rows, PAD)
    with torch.no_grad():
        expected = textbook(model, batch).item() / int((batch["labels"] != IGNORE).sum())
    assert tokens == sum(sum(row.supervised) for row in rows)
    assert loss == pytest.approx(expected, rel=1e-5)
    assert calls[-1] == (len(rows), len(rows))
