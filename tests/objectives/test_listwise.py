"""Whole lists by hand, with ties, and what they become for two responses."""

from math import exp, log, log1p

import pytest
import torch
from objectives.batches import facts_of, logps_of, random_batch, step_loss, with_logps

from mmalign.objectives.compose import build

# Three answers of 2, 1 and 4 tokens: A = -0.5, -1, -2, and scores 5, 4, 1.
POLICY = logps_of([[(-1.0, 2), (-1.0, 1), (-8.0, 4)]])
REFERENCE = logps_of([[(-2.0, 2), (-1.0, 1), (-6.0, 4)]])
FACTS = facts_of([(0, 1, 2)], scores=[[5.0, 4.0, 1.0]])
A = (-0.5, -1.0, -2.0)


def softplus(x):
    return log1p(exp(x))


def loss_of(policy=POLICY, reference=REFERENCE, facts=FACTS, **spec):
    return step_loss(build([spec]), policy, reference, facts).item()


def test_plackett_luce_is_the_probability_of_drawing_the_responses_in_their_order():
    """s = beta R = 0.5, 0, -1 for R = 1, 0, -2."""
    first = exp(0.5) / (exp(0.5) + 1 + exp(-1))
    second = 1 / (1 + exp(-1))
    assert loss_of(name="plackett_luce", beta=0.5) == pytest.approx(-log(first) - log(second))


def test_tied_responses_do_not_compete():
    """Both of the best level compete with the third alone."""
    facts = facts_of([(0, 0, 1)])
    expected = -log(exp(0.5) / (exp(0.5) + exp(-1))) - log(1 / (1 + exp(-1)))
    assert loss_of(name="plackett_luce", beta=0.5, facts=facts) == pytest.approx(expected)


def test_pro_steepens_a_step_with_the_gap_of_scores():
    """T_1 = 4 with T_12 = 1, T_13 = 4; T_2 = 3 = T_23."""
    first = -log(exp(4 * A[0]) / (exp(4 * A[0]) + exp(1 * A[1]) + exp(4 * A[2])))
    second = -log(exp(3 * A[1]) / (exp(3 * A[1]) + exp(3 * A[2])))
    assert loss_of(name="pro", sft_weight=0.0) == pytest.approx(first + second)
    assert loss_of(name="pro", sft_weight=0.05) == pytest.approx(first + second + 0.05 * 2**2 * 1.0)


def test_pro_on_two_responses_is_a_logistic_link_on_the_scaled_difference():
    policy, facts = logps_of([[(-1.0, 2), (-1.0, 1)]]), facts_of([(0, 1)], scores=[[5.0, 2.0]])
    expected = softplus(-3 * (A[0] - A[1]))
    assert loss_of(name="pro", sft_weight=0.0, policy=policy, reference=None, facts=facts) == pytest.approx(expected)


def test_knowpat_by_hand():
    """mu = 1, 2/3, 0 from the policy's own scores."""
    first = softplus(-A[0]) + (softplus(A[1]) + softplus(A[2])) / 2
    second = softplus(-A[1]) + softplus(A[2])
    order = (first + 2 / 3 * second) / 2
    assert loss_of(name="knowpat", list_weight=0.1) == pytest.approx(0.5 + 0.1 * order)


def test_knowpat_passes_no_gradient_through_its_weights():
    start = POLICY.token_logps.nan_to_num(-1.0).requires_grad_(True)
    step_loss(build([{"name": "knowpat", "list_weight": 1.0}]), with_logps(POLICY, start), None, FACTS).backward()
    slope = 1 / (1 + exp(A[0]))
    assert start.grad[0, 0, 0].item() == pytest.approx((-1 - slope / 2) / 2)


def test_rrhf_pushes_pairs_in_the_wrong_order_alone():
    policy = logps_of([[(-3.0, 2), (-1.0, 1), (-8.0, 4)]])  # A = -1.5, -1, -2: the first two are exchanged
    assert loss_of(name="rrhf", sft_weight=0.0, policy=policy) == pytest.approx(0.5)
    assert loss_of(name="rrhf", policy=policy) == pytest.approx(0.5 + 1.5)
    assert loss_of(name="rrhf", sft_weight=0.0) == 0.0


def test_trpa_is_steeper_for_the_best():
    """R per token: 0.5, 0, -0.5; beta 1."""
    pairs = softplus(-2.5 * 0.5) + softplus(-2.5 * 1.0) + softplus(-0.5)
    assert loss_of(name="trpa", beta=1.0) == pytest.approx(pairs / 3)


SAME = [
    ({"name": "plackett_luce", "beta": 0.3}, {"name": "dpo", "beta": 0.3}),
    ({"name": "trpa", "beta": 0.3, "best_factor": 1.0}, {"name": "dpo_norm", "beta": 0.3}),
]


@pytest.mark.parametrize(("left", "right"), SAME, ids=str)
def test_on_two_responses_a_list_is_a_pair(left, right):
    policy, reference, facts = random_batch()
    losses = [step_loss(build([spec]), policy, reference, facts) for spec in (left, right)]
    torch.testing.assert_close(*losses, rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", ["plackett_luce", "pro", "knowpat", "rrhf"])
def test_a_list_that_is_one_tie_teaches_nothing(name):
    objective = build([{"name": name}])
    assert objective.responses_read((0, 0, 0)) == ()
    assert objective.responses_read((0,)) == ()
    assert loss_of(name=name, facts=facts_of([(0, 0, 0)], scores=[[5.0, 5.0, 5.0]])) == 0.0


@pytest.mark.parametrize("name", ["plackett_luce", "pro", "knowpat", "rrhf", "trpa"])
def test_a_policy_in_the_right_order_pays_less_than_one_in_the_wrong(name):
    right = logps_of([[(-1.0, 4), (-3.0, 4), (-6.0, 4)]])
    wrong = logps_of([[(-6.0, 4), (-3.0, 4), (-1.0, 4)]])
    level = logps_of([[(-3.0, 4)] * 3])
    spec = {"name": name} | ({"sft_weight": 0.0} if name in ("pro", "rrhf") else {})
    losses = [loss_of(**spec, policy=policy, reference=level) for policy in (right, wrong)]
    assert losses[0] < losses[1]
