"""NextQuill by hand: two tokens of an answer, one of which the earlier turns made likelier."""

from dataclasses import replace
from math import log

import pytest
import torch
from objectives.batches import cut_loss, facts_of, logps_of, random_batch, step_loss

from mmalign.objectives.compose import build


def answer(with_history, without, gained):
    """Return one answer with these probabilities of its tokens, and what history adds to the logits of each."""

    def as_logps(probabilities):
        given = logps_of([[(-1.0, len(probabilities))]])
        return replace(given, token_logps=torch.tensor(probabilities, dtype=torch.float64).log()[None, None])

    policy = as_logps(with_history)
    dense = {**policy.dense, "gained_logps": torch.tensor(gained, dtype=torch.float64)[None, None]}
    return replace(policy, dense=dense, views={"without history": as_logps(without)})


ANSWER = answer([0.5, 0.25], [0.2, 0.24], [-1.0, -3.0])


def test_a_token_that_history_made_likelier_counts_nine_times():
    loss = step_loss(build([{"name": "nextquill"}]), ANSWER, None, facts_of([(0,)]))
    assert loss.item() == pytest.approx(0.9 * log(2) + 0.1 * log(4) + 0.1 * 2.0)


def test_the_threshold_is_a_gain_of_probability():
    loss = step_loss(
        build([{"name": "nextquill", "threshold": 0.005, "history_weight": 0}]), ANSWER, None, facts_of([(0,)])
    )
    assert loss.item() == pytest.approx((log(2) + log(4)) / 2)


def test_weights_sum_to_one_over_the_step_however_it_is_cut():
    policy, _, facts = random_batch(groups=4)
    objective = build([{"name": "nextquill"}])
    whole = step_loss(objective, policy, None, facts)
    torch.testing.assert_close(cut_loss(objective, policy, policy, facts, [[0], [1, 3], [2]]), whole)


def test_the_view_shows_which_tokens_count_and_gets_no_gradient():
    start = ANSWER.token_logps.clone().requires_grad_()
    seen = ANSWER.views["without history"]
    other = seen.token_logps.clone().requires_grad_()
    given = replace(ANSWER, token_logps=start, views={"without history": replace(seen, token_logps=other)})
    step_loss(build([{"name": "nextquill"}]), given, None, facts_of([(0,)])).backward()
    assert start.grad[0, 0].tolist() == pytest.approx([-0.9, -0.1])
    assert other.grad is None
