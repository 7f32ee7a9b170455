"""From scores to experience: what is refused, how scores are shaped, and what an answer that was cut is worth."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.unit.training.ppo.ppo_jobs import UNUSED, Judged, answers

from recipe_engine.errors import StageFailed
from recipe_engine.training.ppo.advantages import Moments
from recipe_engine.training.ppo.judging import Views, experience, judge, shaped_scores
from recipe_engine.training.ppo.options import TrainPpo

LENGTHS = (2, 1)


def views(values: list[float], after: list[float], divergence: float = 0.0) -> Views:
    zeros = torch.zeros(len(values))
    return Views(zeros, zeros - divergence, zeros, torch.tensor(values), torch.tensor(after))


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_a_reward_that_is_no_number_is_named_with_its_answer(number: float, tokenizer: Any) -> None:
    given = answers(tokenizer, LENGTHS)
    with pytest.raises(StageFailed) as refused:
        judge(lambda _: Judged([0.0, number]), given)
    start = f"train: the reward of an answer to the prompt of row 2 is {number}: {given[1].text!r}"
    assert str(refused.value).startswith(start)
    with pytest.raises(StageFailed, match=r"the reward \(length\) of an answer to the prompt of row 1"):
        judge(lambda _: Judged([0.0, 1.0], {"length": [number, 0.0]}), given)


def test_scores_are_shaped_in_this_order(tokenizer: Any) -> None:
    given = answers(tokenizer, LENGTHS, ended=[True, False])
    moments = Moments()
    assert shaped_scores([1.0, -3.0], given, moments, TrainPpo(reward=UNUSED)) == [1.0, -3.0]
    assert moments.count == 0
    assert shaped_scores([1.0, -3.0], given, moments, TrainPpo(reward=UNUSED, score_clip=2.0)) == [1.0, -2.0]
    clipped = TrainPpo(reward=UNUSED, score_clip=2.0, missing_eos_penalty=0.5)
    assert shaped_scores([1.0, -3.0], given, moments, clipped) == [1.0, -2.5]
    normal = TrainPpo(reward=UNUSED, normalize_scores=True, score_clip=0.5)
    assert shaped_scores([1.0, -3.0], given, moments, normal) == [0.5, -0.5]
    assert (moments.count, moments.mean) == (2, -1.0)
    bootstrap = TrainPpo(reward=UNUSED, cut_answers="bootstrap")
    assert shaped_scores([1.0, -3.0], given, moments, bootstrap) == [1.0, 0.0]


def test_experience_by_hand(tokenizer: Any) -> None:
    """Two tokens that cost 0.1 each and earn 1 in the end; one token that earns 3 where 2 was expected."""
    options = TrainPpo(reward=UNUSED, whiten_advantages=False, gae_lambda=0.5)
    known = experience(views([0.5, 1.0, 2.0], [9.0, 9.0], 0.2), answers(tokenizer, LENGTHS), [1.0, 3.0], 0.5, options)
    # Last: 1 - 0.1 - 1 = -0.1; first: -0.1 + 1 - 0.5 + 0.5 * -0.1 = 0.35; the other answer: 3 - 0.1 - 2 = 0.9.
    assert known.advantages.tolist() == pytest.approx([0.35, -0.1, 0.9])
    assert known.returns.tolist() == pytest.approx([0.85, 0.9, 2.9])
    assert known.values.tolist() == [0.5, 1.0, 2.0]


def test_what_was_cut_goes_on_where_it_is_said(tokenizer: Any) -> None:
    given = answers(tokenizer, LENGTHS, ended=[True, False])
    found = {
        kind: experience(
            views([0.0, 0.0, 0.0], [5.0, 5.0]),
            given,
            [1.0, 1.0],
            0.0,
            TrainPpo(reward=UNUSED, whiten_advantages=False, gae_lambda=1.0, cut_answers=kind),
        ).returns.tolist()
        for kind in ("judge", "bootstrap")
    }
    assert found == {"judge": [1.0, 1.0, 1.0], "bootstrap": [1.0, 1.0, 6.0]}


def test_whitening(tokenizer: Any) -> None:
    given, seen = answers(tokenizer, LENGTHS), views([0.0, 0.0, 0.0], [0.0, 0.0])
    plain = experience(seen, given, [1.0, 4.0], 0.0, TrainPpo(reward=UNUSED, gae_lambda=0.5))
    assert plain.advantages.mean().item() == pytest.approx(0.0, abs=1e-6)
    assert plain.advantages.square().mean().item() == pytest.approx(1.0)
    assert plain.returns.tolist() == [0.5, 1.0, 4.0]
    scaled = experience(seen, given, [1.0, 4.0], 0.0, TrainPpo(reward=UNUSED, gae_lambda=0.5, whiten_rewards=True))
    assert scaled.returns.var(correction=0).item() != pytest.approx(plain.returns.var(correction=0).item())
