"""Reward models on encoders: the loss beside transformers' own classes, what is learned, what others load."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 -- the name that everyone knows
from tests import tiny
from tests.encoders import BERT, ENCODERS, POSITIONS
from tests.unit.training.encoder_jobs import Job
from tests.unit.training.training_jobs import Fragile, Killed

from recipe_engine.errors import StageFailed
from recipe_engine.methods.train_reward import TrainReward
from recipe_engine.training.encoder_model import EncoderRewardModel, head_modules
from recipe_engine.training.reward import BradleyTerry, pair_scores
from recipe_engine.training.reward_model import scores
from recipe_engine.training.rows import read_pairs, read_rows
from recipe_engine.training.tokenizer import open_tokenizer

ROWS = tiny.preference_rows(20)
HELD_OUT = tiny.preference_rows(10, start=20)


def as_transformers_reads(tokenizer: Any, rows: list[dict[str, Any]]) -> Any:
    """Better and worse answers in turn, in one batch."""
    asked = [row["prompt"] for row in rows for _ in range(2)]
    said = [row[side] for row in rows for side in ("chosen", "rejected")]
    return tokenizer(asked, said, padding=True, return_tensors="pt")


def classifier(folder: Path) -> Any:
    from transformers import AutoModelForSequenceClassification

    return AutoModelForSequenceClassification.from_pretrained(folder, num_labels=1, dtype=torch.float32).eval()


@pytest.mark.parametrize("name", ENCODERS)
def test_loss_and_gradients_are_those_of_transformers(name: str, tmp_path: Path) -> None:
    job = Job(tmp_path, ENCODERS[name], "full")
    tokenizer = open_tokenizer(job.tokenizer)
    model = EncoderRewardModel(job.model, tokenizer)
    theirs = classifier(job.base)
    theirs.load_state_dict(job.model.state_dict())
    batch = model.lay(model.texts(read_rows(job.prepared(ROWS[:6]))), model.pad, "padded")
    given = as_transformers_reads(tokenizer, ROWS[:6])
    assert batch["input_ids"].tolist() == given["input_ids"].tolist()
    assert ("token_type_ids" in batch) == (name in ("bert", "electra"))
    margins = torch.linspace(0, 1, 6)
    ours = BradleyTerry(centering=0.01).loss(model, batch | {"margins": margins})
    better, worse = theirs(**given).logits.view(-1, 2).T
    expected = (-F.logsigmoid(better - worse - margins) + 0.01 * (better + worse) ** 2).sum()
    assert ours.item() == pytest.approx(expected.item(), rel=1e-6)
    ours.backward()
    expected.backward()
    wanted = {path: weight.grad for path, weight in theirs.named_parameters() if weight.grad is not None}
    found = {path: weight.grad for path, weight in job.model.named_parameters() if weight.grad is not None}
    assert found.keys() == wanted.keys()
    for path, gradient in wanted.items():
        torch.testing.assert_close(found[path], gradient, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ENCODERS)
def test_head(name: str, tmp_path: Path) -> None:
    """Beside an adapter it is trained whole, and gets no adapter of its own."""
    model = Job(tmp_path, ENCODERS[name]).model
    assert tuple(head_modules(model.get_base_model())) == ENCODERS[name].head
    trained = {path for path, weight in model.named_parameters() if weight.requires_grad}
    inside = [path for path in trained if any(f".{part}." in path for part in ENCODERS[name].head)]
    assert inside
    assert all("modules_to_save" in path for path in inside)
    assert all(".lora_" in path for path in trained.difference(inside))


@pytest.mark.parametrize(("name", "how"), [("bert", "lora"), ("roberta", "full"), ("modernbert", "lora")])
def test_what_can_be_told_apart_is_learned(name: str, how: Any, tmp_path: Path) -> None:
    job = Job(tmp_path, ENCODERS[name], how)
    rate = {"learning_rate": 3e-3} if how == "full" else {}
    result, _ = job.train({"train": job.prepared(ROWS)}, **rate)
    better, worse = pair_scores(result.live, read_pairs(job.prepared(HELD_OUT)), result.live.pad, batch_size=4)
    assert (better > worse).all()


@pytest.mark.parametrize("how", ["lora", "full"])
@pytest.mark.parametrize("name", ENCODERS)
def test_others_load_it(name: str, how: Any, tmp_path: Path) -> None:
    """By PEFT on transformers' own class, or by that alone, with the scores that it has here."""
    import peft

    job = Job(tmp_path, ENCODERS[name], how)
    data = job.prepared(ROWS[:8])
    result, folder = job.train({"train": data}, epochs=2, batch_size=4)
    if how == "lora":
        config = json.loads((folder / "adapter_config.json").read_text())
        assert (config["task_type"], tuple(config["modules_to_save"])) == ("SEQ_CLS", ENCODERS[name].head)
        theirs = peft.PeftModel.from_pretrained(classifier(job.base), folder).eval()
    else:
        theirs = classifier(folder)
    tokenizer = open_tokenizer(job.tokenizer)
    with torch.no_grad():
        expected = theirs(**as_transformers_reads(tokenizer, ROWS[:8])).logits[:, 0].tolist()
    texts = result.live.texts(read_rows(data))
    ours = scores(result.live, texts, result.live.pad, batch_size=4)
    assert ours == pytest.approx(expected, rel=1e-4, abs=1e-5)
    assert len(set(ours)) > 1
    again = TrainReward().restore(job.request({"train": data}, model=job.restored()), folder)
    assert scores(again, texts, again.pad, batch_size=4) == ours
    after, before = tiny.model_state(result.live), tiny.model_state(again)
    if how == "full":  # saving a whole model writes its class into its configuration
        after["config"]["architectures"] = before["config"]["architectures"]
    tiny.assert_same_state(after, before, generators=False)


@pytest.mark.parametrize("how", ["lora", "full"])
def test_killed_and_gone_on(how: Any, tmp_path: Path) -> None:
    """To the bit, with the dropout that encoders have."""
    options = {"epochs": 2, "checkpoint_steps": 2}
    whole = Job(tmp_path / "whole", BERT, how)
    data = {"train": whole.prepared(ROWS)}
    result, folder = whole.train(data, **options)
    killed = Job(tmp_path / "killed", BERT, how)
    with pytest.raises(Killed):
        killed.train(data, reporter=Fragile(5), **options)
    again = Job(tmp_path / "killed", BERT, how)
    reporter = tiny.Recorder()
    gone_on, other = again.train(data, reporter=reporter, **options)
    assert reporter.messages == ["going on from the checkpoint of step 4"]
    assert gone_on.facts["trace"] == result.facts["trace"]
    assert tiny.folder_digests(other) == tiny.folder_digests(folder)


def test_micro_batches_and_recomputed_activations_are_one_batch(tmp_path: Path) -> None:
    """Without dropout, which draws otherwise."""
    BERT.write(tmp_path / "encoder", hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    traces = []
    for options in ({}, {"micro_batch_size": 1}, {"gradient_checkpointing": True}):
        job = Job(tmp_path, BERT)
        data = {"train": job.prepared(ROWS[:10])}
        for old in (tmp_path / "work-train").glob("*"):
            old.rename(tmp_path / f"old-{len(list(tmp_path.iterdir()))}")
        traces.append(job.train(data, epochs=1, **options)[0].facts["trace"])
    for other in traces[1:]:
        for one, step in zip(traces[0], other, strict=True):
            assert (one["loss"], one["grad_norm"]) == pytest.approx((step["loss"], step["grad_norm"]), rel=2e-3)


def test_the_head_is_in_float32_whatever_the_rest_is_in(tmp_path: Path) -> None:
    job = Job(tmp_path, BERT, dtype="bfloat16")
    dtypes = {weight.dtype for path, weight in job.model.named_parameters() if "modules_to_save" in path}
    assert dtypes == {torch.float32}
    assert job.model.get_base_model().bert.embeddings.word_embeddings.weight.dtype == torch.bfloat16
    result, _ = job.train({"train": job.prepared(ROWS[:5])}, epochs=1, mixed_precision="bf16")
    found = scores(result.live, result.live.texts(read_rows(job.prepared(ROWS[:5]))), result.live.pad, batch_size=10)
    assert any(torch.tensor(score).bfloat16().item() != score for score in found)


def test_the_head_is_trained_whatever_is_left_frozen(tmp_path: Path) -> None:
    job = Job(tmp_path, BERT, "full", train_only=("layer.1",))
    before = {name: weight.clone() for name, weight in job.model.named_parameters()}
    job.train({"train": job.prepared(ROWS[:5])}, epochs=1)
    changed = {name for name, weight in job.model.named_parameters() if not torch.equal(weight, before[name])}
    assert {"classifier.weight", "bert.pooler.dense.weight"} <= changed
    assert all(".layer.1." in name or "classifier" in name or "pooler" in name for name in changed)


def test_a_row_is_longer_than_the_model_reads(tmp_path: Path) -> None:
    """Its tokenizer does not say so."""
    BERT.write(tmp_path / "encoder")
    settings = tmp_path / "encoder" / "tokenizer_config.json"
    settings.write_text(json.dumps({**json.loads(settings.read_text()), "model_max_length": 10**9}))
    job = Job(tmp_path, BERT)
    data = {"train": job.prepared([{**ROWS[0], "prompt": "why " * POSITIONS}])}
    with pytest.raises(StageFailed, match=f"and this model reads {POSITIONS} at most.*") as failed:
        job.train(data)
    assert failed.value.hint == f"Set max_length = {POSITIONS} in its data table."


def test_a_model_that_was_scored_is_as_it_was(tmp_path: Path) -> None:
    job = Job(tmp_path, BERT)
    model = EncoderRewardModel(job.model, open_tokenizer(job.tokenizer))
    before = tiny.model_state(model)
    scores(model, model.texts(read_rows(job.prepared(ROWS[:3]))), model.pad, batch_size=2)
    tiny.assert_same_state(tiny.model_state(model), before)
