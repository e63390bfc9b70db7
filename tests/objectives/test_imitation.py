"""Distillation and token rewards by hand: a vocabulary of three, of which the teacher's table holds two tokens."""

from dataclasses import replace
from math import exp, log, log1p

import pytest
import torch
from objectives.batches import facts_of, logps_of, random_batch, step_loss

from mmalign.objectives.compose import build

FACTS = facts_of([(0, 1)])
T, C, S = (0.5, 0.25, 0.25), (0.25, 0.25, 0.5), (0.2, 0.2, 0.6)
"""Teacher, contrast model and policy: first token, second token, all others."""


def places(probabilities, mask):
    return torch.tensor(probabilities, dtype=torch.float64).log().expand(*mask.shape, 3)


def policy(chosen=S, rejected=S):
    """Two tokens of log-prob -1 chosen, three of -2 rejected; every place of a side has the same distribution."""
    given = logps_of([[(-2.0, 2), (-6.0, 3)]])
    student = torch.stack([places(side, given.mask[:, 0]) for side in (chosen, rejected)], 1)
    dense = {"student_logps": student, "teacher_logps": places(T, given.mask), "contrast_logps": places(C, given.mask)}
    return replace(given, dense=dense)


def kl(p, q):
    return sum(a * log(a / b) for a, b in zip(p, q, strict=True))


def loss(spec, given, facts=FACTS):
    return step_loss(build([spec]), given, None, facts).item()


def test_dckd_adds_both_divergences_and_the_likelihood():
    other = (0.1, 0.1, 0.8)
    expected = 2 * kl(T, S) + 3 * kl(T, other) + 5 * 1.0
    spec = {"name": "dckd", "chosen_weight": 2.0, "rejected_weight": 3.0, "sft_weight": 5.0}
    assert loss(spec, policy(S, other)) == pytest.approx(expected)


def test_dckd_at_its_teacher_is_the_likelihood_alone():
    assert loss({"name": "dckd"}, policy(T, T)) == pytest.approx(1.0)


def test_dckd_of_a_single_answer_is_read_and_has_no_rejected_side():
    objective = build([{"name": "dckd"}])
    assert objective.responses_read((0,)) == (0,)
    alone = policy().mapped(lambda value: value[:, :1])
    assert loss({"name": "dckd"}, alone, facts_of([(0,)])) == pytest.approx(kl(T, S) + 1.0)


def test_the_others_are_the_same_ones_where_the_best_was_not_computed():
    """Nobody else reads the best of a pair: the worse one stands first then. Of two tied, the first is the best."""
    spec = {"name": "adpa", "sft_weight": 0.0}
    assert build([spec]).responses_read((0, 1)) == (1,)
    worse_alone = policy().mapped(lambda value: value[:, 1:])
    assert loss(spec, worse_alone, facts_of([(1,)])) == pytest.approx(loss(spec, policy()))
    assert loss(spec, worse_alone, facts_of([(1,)])) != 0
    assert build([spec]).responses_read((0, 0, 1)) == (0, 1, 2)


def test_an_outcome_that_the_policy_rules_out_counts_as_one_in_ten_million():
    never = (0.0, 0.4, 0.6)
    expected = 0.5 * log(0.5 / 1e-7) + 0.25 * log(0.25 / 0.4) + 0.25 * log(0.25 / 0.6)
    assert loss({"name": "dckd", "rejected_weight": 0.0, "sft_weight": 0.0}, policy(never)) == pytest.approx(expected)


def test_adpa_reads_the_teachers_tokens_on_the_worse_response_and_no_others():
    advantage = 0.2 * log(0.5 / 0.25) + 0.2 * log(0.25 / 0.25)
    assert loss({"name": "adpa", "advantage_weight": 3.0}, policy()) == pytest.approx(-3 * advantage + 1.0)
    both = loss({"name": "adpa", "responses": "all", "sft_weight": 0.0}, policy((1 / 3,) * 3))
    assert both == pytest.approx(-(2 * log(2) / 3 + 3 * 0.2 * log(2)) / 5)


def test_aligndistil_leads_the_teacher_on_by_how_far_the_two_disagree():
    scale = 4.0 * 0.5 + 1e-3
    unnormalised = [t * (t / c) ** scale for t, c in zip(T, C, strict=True)]
    aim = [value / sum(unnormalised) for value in unnormalised]
    expected = 0.2 / scale * kl(S, aim)
    assert loss({"name": "aligndistil", "beta": 0.2, "lead": 4.0}, policy()) == pytest.approx(expected)


def test_aligndistil_without_reach_is_reverse_kl_to_the_teacher():
    expected = 0.2 / 1e-3 * kl(S, [t * (t / c) ** 1e-3 for t, c in zip(T, C, strict=True)])
    normaliser = log(sum(t * (t / c) ** 1e-3 for t, c in zip(T, C, strict=True)))
    got = loss({"name": "aligndistil", "beta": 0.2, "lead": 0.0}, policy())
    assert got == pytest.approx(expected + 0.2 / 1e-3 * normaliser)


def test_aligndistil_averages_over_responses_where_dckd_averages_over_tokens():
    other = (0.1, 0.1, 0.8)

    def of(given, **more):
        return loss({"name": "aligndistil", **more}, given)

    both = of(policy(S, other), responses="all")
    assert both == pytest.approx((of(policy(S)) + of(policy(other))) / 2)


@pytest.mark.parametrize("spec", [{"name": "dckd"}, {"name": "adpa"}, {"name": "aligndistil", "responses": "all"}])
def test_gradients_with_respect_to_the_policys_distributions_are_exact(spec):
    given, _, facts = random_batch(groups=2, longest=3)
    objective = build([spec])
    totals = {name: counts.sum() for name, counts in objective.counts(facts, given.lengths()).items()}
    start = given.dense["student_logps"].nan_to_num(-1.0).requires_grad_()

    def of(student):
        moved = replace(given, dense={**given.dense, "student_logps": student})
        return objective(moved, None, facts).loss(totals)

    assert torch.autograd.gradcheck(of, (start,))


@pytest.mark.parametrize("name", ["dckd", "adpa", "aligndistil"])
def test_what_stands_behind_a_response_passes_no_gradient(name):
    given, _, facts = random_batch()
    student = given.dense["student_logps"].clone().requires_grad_()
    step_loss(
        build([{"name": name}]), replace(given, dense={**given.dense, "student_logps": student}), None, facts
    ).backward()
    assert torch.isfinite(student.grad).all()
    assert not student.grad[~given.mask].any()
    assert student.grad.any()


# ---- sail: R = +1 over three tokens, -2 over five, and rewards of single tokens -------------------------------------

SIDES = logps_of([[(-6.0, 3), (-5.0, 5)]]), logps_of([[(-7.0, 3), (-3.0, 5)]])
REWARD = torch.tensor([[[3.0, 0.0, 0.0, torch.nan, torch.nan], [0.0, 0.0, 0.0, 0.0, 8.0]]], dtype=torch.float64)


def rewarded():
    return [replace(side, dense={"token_reward": REWARD}) for side in SIDES]


@pytest.mark.parametrize(
    ("options", "margin"),
    [
        # 1 + 0.5 * 0.5 * 3 on a third of the better's log-ratio; 1 - 0.5 * 0.5 * 8 = -1 on a fifth of the worse's.
        ({}, (2 + 1.75) / 3 - (-2) * (4 - 1) / 5),
        ({"positive_weights": True}, (2 + 1.75) / 3 - (-2) * 4 / 5),
        ({"token_rate": 0.0}, 3.0),
    ],
    ids=str,
)
def test_sail_counts_tokens_by_their_reward(options, margin):
    spec = {"name": "sail", "beta": 0.5, **options}
    assert step_loss(build([spec]), *rewarded(), FACTS).item() == pytest.approx(log1p(exp(-0.5 * margin)))
