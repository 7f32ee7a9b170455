"""What policy and reference say of answers: the reference is the base to the bit, and no layout changes a number."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from tests import tiny
from tests.unit.training.ppo.ppo_jobs import answers, fresh_model

from recipe_engine.methods.adapt_full import AdaptFull
from recipe_engine.methods.attach import AttachStage
from recipe_engine.methods.options import AdaptFull as FullOptions
from recipe_engine.training.adapters import ADAPTER, save_adapter
from recipe_engine.training.ppo.judging import Memory, Views, view
from recipe_engine.training.ppo.policy import Policy, Reference, collate_answers, hidden_states
from recipe_engine.training.ppo.rollout import as_row

if TYPE_CHECKING:
    from recipe_engine.training.layout import Layout

PAD = 297
LENGTHS = (3, 1, 6, 2)


def views(policy: Policy, tokenizer: Any, memory: Memory | None = None, temperature: float = 1.0) -> Views:
    memory = memory or Memory("packed", PAD, 4096)
    return view(policy, Reference(policy.model), answers(tokenizer, LENGTHS), memory, temperature)


def log_probs_by_hand(model: Any, tokenizer: Any, temperature: float = 1.0) -> torch.Tensor:
    """One answer at a time, without padding, from all logits."""
    found = []
    for answer in answers(tokenizer, LENGTHS):
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([answer.tokens])).logits[0].float() / temperature
        start, end = answer.prompt_tokens, len(answer.tokens)
        found.append(logits.log_softmax(-1)[torch.arange(start - 1, end - 1), torch.tensor(answer.tokens[start:])])
    return torch.cat(found)


def stacked(root: Path, folder: Path) -> tuple[Any, Any]:
    """A model with a frozen adapter of another recipe, and the same with one on top, which changes what it says."""
    below = tiny.adapted_model(root / "below", folder)
    (root / "artifact").mkdir()
    save_adapter(below, root / "artifact", "file:tiny")
    found = []
    for _ in range(2):
        request = tiny.stage_request(root, None, node="attach", model=tiny.load_model(folder))
        found.append(AttachStage().restore(request, root / "artifact"))
    top = fresh_model(root, folder, model=found[1])
    disturb(top)
    return found[0], top


def disturb(model: Any) -> None:
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if f"lora_B.{ADAPTER}" in name:
                weight.copy_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(3)) * 0.1)


@pytest.mark.parametrize("layout", ["packed", "padded"])
@pytest.mark.parametrize("temperature", [1.0, 0.6])
@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_a_batch_is_its_answers_one_at_a_time(
    architecture: str,
    temperature: float,
    layout: Layout,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    tokenizer: Any,
) -> None:
    folder = request.getfixturevalue(architecture)
    model = tiny.adapted_model(tmp_path, folder)
    expected = log_probs_by_hand(model, tokenizer, temperature)
    for tokens in (4096, 60, 1):
        found = views(Policy(model), tokenizer, Memory(layout, PAD, tokens), temperature)
        torch.testing.assert_close(found.log_probs, expected, rtol=1e-4, atol=1e-4)


def test_a_reference_is_the_base_to_the_bit(tmp_path: Path, llama: Path, tokenizer: Any) -> None:
    base = views(Policy(tiny.load_model(llama)), tokenizer)
    adapted = tiny.adapted_model(tmp_path, llama)
    before = tiny.model_state(adapted)
    found = views(Policy(adapted), tokenizer)
    assert torch.equal(found.reference, base.log_probs)
    assert not torch.allclose(found.log_probs, base.log_probs, atol=1e-2)
    tiny.assert_same_state(tiny.model_state(adapted), before)


@pytest.mark.parametrize(
    "options", [{"modules_to_save": ("lm_head",)}, {"modules_to_save": ("embed_tokens",)}, {"dora": True}]
)
def test_a_reference_is_the_base_whatever_is_trained_beside(
    options: dict[str, Any], tmp_path: Path, llama: Path, tokenizer: Any
) -> None:
    base = views(Policy(tiny.load_model(llama)), tokenizer)
    model = fresh_model(tmp_path, llama, **options)
    disturb(model)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "modules_to_save" in name:
                weight.mul_(1.5)
    found = views(Policy(model), tokenizer)
    assert torch.equal(found.reference, base.log_probs)
    assert not torch.allclose(found.log_probs, base.log_probs, atol=1e-2)


def test_the_reference_keeps_the_adapters_below(tmp_path: Path, llama: Path, tokenizer: Any) -> None:
    below, top = stacked(tmp_path, llama)
    found = views(Policy(top), tokenizer)
    expected = log_probs_by_hand(below, tokenizer)
    torch.testing.assert_close(found.reference, expected, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(found.reference, log_probs_by_hand(tiny.load_model(llama), tokenizer), atol=1e-2)
    assert not torch.allclose(found.reference, found.log_probs, atol=1e-2)


def test_a_new_adapter_diverges_by_nothing(tmp_path: Path, llama: Path, tokenizer: Any) -> None:
    found = views(Policy(fresh_model(tmp_path, llama)), tokenizer)
    assert torch.equal(found.log_probs, found.reference)


def test_a_whole_model_is_held_to_a_copy_that_shares_what_is_frozen(
    llama: Path, tokenizer: Any, tmp_path: Path
) -> None:
    options = FullOptions(train_only=("lm_head",))
    asked = tiny.stage_request(tmp_path, options, node="adapt", model=tiny.load_model(llama))
    model = AdaptFull().run(asked).live
    reference = Reference(model)
    expected = log_probs_by_hand(model, tokenizer)
    with torch.no_grad():
        model.lm_head.weight.mul_(2.0)
    found = view(Policy(model), reference, answers(tokenizer, LENGTHS), Memory("packed", PAD, 4096), 1.0)
    torch.testing.assert_close(found.reference, expected, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(found.reference, found.log_probs, atol=1e-2)
    with reference.at_hand("padded") as copy:
        assert copy.model.embed_tokens.weight is model.model.embed_tokens.weight
        assert copy.lm_head.weight is not model.lm_head.weight
        assert not any(weight.requires_grad for weight in copy.parameters())


def test_values_belong_to_the_states_before_the_tokens(llama: Path, tokenizer: Any) -> None:
    policy = Policy(tiny.load_model(llama))
    assert not views(policy, tokenizer).values.any()
    with torch.no_grad():
        policy.value.weight.normal_(generator=torch.Generator().manual_seed(1))
    found = views(policy, tokenizer)
    values, after = [], []
    for answer in answers(tokenizer, LENGTHS):
        with torch.no_grad():
            states = policy.model.model(input_ids=torch.tensor([answer.tokens])).last_hidden_state[0]
        of_all = policy.values(states).detach()
        values.append(of_all[answer.prompt_tokens - 1 : -1])
        after.append(of_all[-1:])
    torch.testing.assert_close(found.values, torch.cat(values), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found.after, torch.cat(after), rtol=1e-4, atol=1e-4)


def test_entropies_by_hand(llama: Path, tokenizer: Any) -> None:
    model = tiny.load_model(llama)
    found = views(Policy(model), tokenizer)
    answer = answers(tokenizer, LENGTHS)[0]
    with torch.no_grad():
        log_probs = model(input_ids=torch.tensor([answer.tokens])).logits[0, answer.prompt_tokens - 1].log_softmax(-1)
    assert found.entropies[0].item() == pytest.approx(-(log_probs.exp() * log_probs).sum().item(), rel=1e-5)


@pytest.mark.parametrize("layout", ["packed", "padded"])
def test_where_things_are_in_a_batch(layout: Layout, tokenizer: Any) -> None:
    given = answers(tokenizer, LENGTHS)
    batch = collate_answers([as_row(answer) for answer in given], layout, PAD, "cpu")
    ids = batch.inputs["input_ids"].flatten()
    tokens = [answer.tokens[answer.prompt_tokens :] for answer in given]
    assert batch.targets.tolist() == [token for part in tokens for token in part]
    assert ids[batch.predicting + 1].tolist() == batch.targets.tolist()
    assert ids[batch.last].tolist() == [answer.tokens[-1] for answer in given]


def test_states_lie_end_to_end(llama: Path, tokenizer: Any) -> None:
    model = tiny.load_model(llama)
    batch = collate_answers([as_row(answer) for answer in answers(tokenizer, LENGTHS)], "padded", PAD, "cpu")
    with torch.no_grad():
        assert hidden_states(model, batch).shape == (batch.inputs["input_ids"].numel(), tiny.HIDDEN)
