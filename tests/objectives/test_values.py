"""Every preset by hand, on one pair.

chosen:   S = -6 over 3 tokens (A = -2),  reference -7    R = +1
rejected: S = -5 over 5 tokens (A = -1),  reference -3    R = -2      D = 3, per token 1/3 - (-2/5) = 11/15
"""

from dataclasses import replace
from math import exp, log, log1p

import pytest
import torch
from objectives.batches import facts_of, logps_of, step_loss

from mmalign.objectives.compose import build

POLICY = logps_of([[(-6.0, 3), (-5.0, 5)]])
REFERENCE = logps_of([[(-7.0, 3), (-3.0, 5)]])
FACTS = facts_of([(0, 1)])


def nls(margin):
    """Minus log sigmoid."""
    return log1p(exp(-margin))


def sigmoid(margin):
    """Logistic function."""
    return 1 / (1 + exp(-margin))


P, G = sigmoid(1.5), sigmoid(1.5 / 0.5)
ORPO_LOG_ODDS = (-2 - log(1 - exp(-2))) - (-1 - log(1 - exp(-1)))

BY_HAND = [
    ({"name": "dpo", "beta": 0.5}, nls(1.5)),
    ({"name": "cdpo", "beta": 0.5, "label_smoothing": 0.2}, 0.8 * nls(1.5) + 0.2 * nls(-1.5)),
    ({"name": "robust", "beta": 0.5, "label_smoothing": 0.2}, (0.8 * nls(1.5) - 0.2 * nls(-1.5)) / 0.6),
    ({"name": "ipo", "beta": 0.5}, (11 / 15 - 1) ** 2),
    ({"name": "hinge", "beta": 0.25}, 0.25),
    ({"name": "hinge", "beta": 0.5}, 0.0),
    ({"name": "simpo", "beta": 2.0, "gamma": 0.5}, nls(-2.5)),
    ({"name": "dpo", "beta": 0.5, "label_smoothing": 0.2}, 0.8 * nls(1.5) + 0.2 * nls(-1.5)),
    ({"name": "hinge", "beta": 0.25, "label_smoothing": 0.2}, 0.8 * 0.25 + 0.2 * 1.75),
    ({"name": "dpo_norm", "beta": 3.0}, nls(11 / 5)),
    ({"name": "exo", "beta": 0.5, "epsilon": 0.1}, P * log(P / 0.9) + (1 - P) * log((1 - P) / 0.1)),
    ({"name": "discopop", "beta": 0.5, "discopop_tau": 0.5}, (1 - G) * nls(1.5) + G * exp(-1.5)),
    ({"name": "f_dpo", "beta": 0.5}, nls(0.5 * (nls(-2) - nls(1)))),
    ({"name": "f_dpo", "beta": 0.5, "f_divergence_type": "forward_kl"}, nls(0.5 * (exp(2) - exp(-1)))),
    ({"name": "ld_dpo", "beta": 0.5, "ld_alpha": 0.5}, nls(0.5 * (1 + 2 - 0.5 * 2 * 2 / 5))),
    ({"name": "mask_dpo", "beta": 0.5}, nls(1.5)),
    ({"name": "ddpo", "beta": 0.5, "edit_weight": 3.0}, nls(3 * 1.5)),
    ({"name": "sampo", "beta": 0.5}, nls(0.5 * (1 + 2 * 3 / 5))),
    ({"name": "wpo", "beta": 0.5}, exp(-2 - 1) * nls(1.5)),
    ({"name": "dpo", "beta": 0.5, "use_weighting": True}, exp(-2 - 1) * nls(1.5)),
    ({"name": "rpo", "beta": 0.5, "sft_weight": 3.0}, nls(1.5) + 3 * 2.0),
    ({"name": "curry_dpo", "beta": 0.5}, nls(1.5)),
    ({"name": "bco_pair", "beta": 0.5}, nls(0.5) + nls(1.0)),
    ({"name": "bco", "beta": 0.5}, nls(0.5) + nls(1.0)),
    ({"name": "nca", "beta": 0.5}, nls(0.5) + 0.5 * nls(-0.5) + 0.5 * nls(1.0)),
    ({"name": "sppo_hard", "beta": 0.5}, (1 - 1) ** 2 + (-2 + 1) ** 2),
    ({"name": "apo_zero", "beta": 0.5}, sigmoid(-0.5) + sigmoid(-1.0)),
    ({"name": "apo_down", "beta": 0.5}, sigmoid(0.5) + sigmoid(-1.5)),
    ({"name": "kto_pair", "beta": 0.5}, sigmoid(-0.5) + sigmoid(-1.0 - 0.5)),
    (
        {"name": "kto_pair", "beta": 0.5, "desirable_weight": 2.0, "undesirable_weight": 3.0},
        2 * sigmoid(-0.5) + 3 * sigmoid(-1.0 - 0.5),
    ),
    ({"name": "aot", "beta": 0.5}, nls(1.5)),
    ({"name": "aot_unpaired", "beta": 0.5}, nls(1.5)),
    ({"name": "mpo", "beta": 0.5}, 0.8 * nls(1.5) + 0.2 * (nls(0.5) + nls(1.0)) + 2.0),
    ({"name": "simpo", "beta": 2.0, "gamma": 0.5, "label_smoothing": 0.2}, 0.8 * nls(-2.5) + 0.2 * nls(2.5)),
    ({"name": "alphapo", "beta": 2.0, "gamma": 0.5, "alpha": 0.5}, nls(2 * (exp(0.5) - exp(1)) / 0.5 - 0.5)),
    ({"name": "cpo", "beta": 0.5, "sft_weight": 0.0}, nls(-0.5)),
    ({"name": "cpo", "beta": 0.5, "sft_weight": 3.0}, nls(-0.5) + 3 * 2.0),
    ({"name": "cpo_simpo", "beta": 2.0, "gamma": 0.5, "sft_weight": 3.0}, nls(-2.5) + 3 * 2.0),
    ({"name": "orpo", "beta": 0.5}, 2.0 + 0.5 * nls(ORPO_LOG_ODDS)),
    ({"name": "sft"}, 2.0),
    ({"name": "sft", "normalise": "sequence"}, 2.0),
]


@pytest.mark.parametrize(("spec", "expected"), BY_HAND, ids=lambda value: str(value))
def test_loss_of_one_pair_is_the_value_worked_by_hand(spec, expected):
    loss = step_loss(build([spec]), POLICY, REFERENCE, FACTS)
    assert loss.item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("name", ["dpo", "cdpo", "robust"])
def test_logistic_objectives_at_zero_margin_are_ln2(name):
    assert step_loss(build([{"name": name}]), POLICY, POLICY, FACTS).item() == pytest.approx(log(2), rel=1e-12)


def test_dpo_gradient_at_zero_margin_is_half_beta_on_every_token():
    policy = logps_of([[(-6.0, 3), (-5.0, 5)]])
    policy.token_logps.requires_grad_(True)
    step_loss(build([{"name": "dpo", "beta": 0.1}]), policy, POLICY, FACTS).backward()
    expected = torch.where(POLICY.mask, torch.tensor([-0.05, 0.05])[None, :, None].double(), 0.0)
    torch.testing.assert_close(policy.token_logps.grad, expected)


@pytest.mark.parametrize(
    ("spec", "chosen", "rejected"),
    [
        ({"name": "dpo", "beta": 0.5}, 0.5, -1.0),
        ({"name": "ipo", "beta": 0.5}, 0.5, -1.0),
        ({"name": "hinge", "beta": 0.5}, 0.5, -1.0),
        ({"name": "f_dpo", "beta": 0.5}, 0.5, -1.0),
        ({"name": "sppo_hard", "beta": 0.5}, 0.5, -1.0),
        ({"name": "bco", "beta": 0.5}, 0.5, -1.0),
        ({"name": "ld_dpo", "beta": 0.5}, 0.5, 0.5 * (-2 * 4 / 5)),
        ({"name": "simpo", "beta": 2.0}, -4.0, -2.0),
        ({"name": "cpo", "beta": 0.5}, -3.0, -2.5),
        ({"name": "orpo", "beta": 0.5}, -1.0, -0.5),
    ],
    ids=lambda value: str(value),
)
def test_reward_is_beta_times_what_the_score_measures(spec, chosen, rejected):
    output = build([spec])(POLICY, REFERENCE, FACTS)
    assert output.rewards.tolist() == [[pytest.approx(chosen), pytest.approx(rejected)]]
    assert not output.rewards.requires_grad


def test_weighted_sum_adds_the_losses_of_its_presets():
    specs = [{"name": "dpo", "beta": 0.5, "weight": 2.0}, {"name": "sft", "weight": 0.1}]
    assert step_loss(build(specs), POLICY, REFERENCE, FACTS).item() == pytest.approx(2 * nls(1.5) + 0.1 * 2.0)


def test_the_weight_of_a_preset_reaches_all_its_parts():
    loss = step_loss(build([{"name": "orpo", "beta": 0.5, "weight": 4.0}]), POLICY, None, FACTS)
    assert loss.item() == pytest.approx(4 * (2.0 + 0.5 * nls(ORPO_LOG_ODDS)))


def test_sft_divides_by_tokens_of_the_batch_or_by_sequences():
    policy = logps_of([[(-6.0, 3)], [(-10.0, 2)]])
    facts = facts_of([(0,), (0,)])
    per_token = step_loss(build([{"name": "sft"}]), policy, None, facts)
    per_sequence = step_loss(build([{"name": "sft", "normalise": "sequence"}]), policy, None, facts)
    assert per_token.item() == pytest.approx(16 / 5)
    assert per_sequence.item() == pytest.approx((2 + 5) / 2)


def test_row_weights_make_a_weighted_mean():
    policy = logps_of([[(-6.0, 3), (-5.0, 5)], [(-4.0, 2), (-9.0, 3)]])
    facts = facts_of([(0, 1), (0, 1)], weight=[1.0, 3.0])
    cpo = step_loss(build([{"name": "cpo", "beta": 1.0, "sft_weight": 0.0}]), policy, None, facts)
    sft = step_loss(build([{"name": "sft"}]), policy, None, facts)
    assert cpo.item() == pytest.approx((nls(-1) + 3 * nls(5)) / 4)
    assert sft.item() == pytest.approx((6 + 3 * 4) / (3 + 3 * 2))


def test_pairs_of_a_list_share_the_weight_of_their_group():
    policy = logps_of([[(-1.0, 1), (-2.0, 1), (-4.0, 1)]])
    zero = logps_of([[(0.0, 1), (0.0, 1), (0.0, 1)]])
    loss = step_loss(build([{"name": "dpo", "beta": 1.0}]), policy, zero, facts_of([(0, 1, 2)]))
    assert loss.item() == pytest.approx((nls(1) + nls(3) + nls(2)) / 3)


def test_a_group_without_pairs_neither_adds_to_the_loss_nor_to_its_divisor():
    policy = logps_of([[(-6.0, 3), (-5.0, 5)], [(-4.0, 2), (-9.0, 3)], [(-1.0, 1)]])
    facts = facts_of([(0, 1), (0, 0), (0,)])
    objective = build([{"name": "cpo", "beta": 1.0, "sft_weight": 0.0}])
    assert objective.counts(facts, policy.lengths())["cpo"].tolist() == [1.0, 0.0, 0.0]
    assert step_loss(objective, policy, None, facts).item() == pytest.approx(nls(-1))


def test_a_batch_without_any_pair_has_loss_zero_and_gradient_zero():
    policy = logps_of([[(-6.0, 3), (-5.0, 5)]])
    policy.token_logps.requires_grad_(True)
    loss = step_loss(build([{"name": "orpo"}]), policy, None, facts_of([(0, 0)], weight=[0.0]))
    loss.backward()
    assert loss.item() == 0.0
    assert not policy.token_logps.grad[policy.mask].any()


def test_tpo_imitates_the_best_and_compares_the_two_below_it():
    """Best: 4 tokens of -0.5. Of the others S = -6, -5 and A = -2, -1."""
    policy = logps_of([[(-2.0, 4), (-6.0, 3), (-5.0, 5)]])
    facts = facts_of([(0, 1, 2)])
    sums = step_loss(build([{"name": "tpo", "beta": 0.5, "sft_weight": 3.0}]), policy, None, facts)
    means = step_loss(build([{"name": "tpo_l", "beta": 2.0, "gamma": 0.5, "sft_weight": 3.0}]), policy, None, facts)
    assert sums.item() == pytest.approx(nls(-0.5) + 3 * 0.5)
    assert means.item() == pytest.approx(nls(-2.5) + 3 * 0.5)


def test_a_pair_teaches_tpo_nothing():
    objective = build([{"name": "tpo"}])
    assert objective.responses_read((0, 1)) == ()
    assert step_loss(objective, POLICY, None, FACTS).item() == 0.0


def test_rpo_averages_the_likelihood_of_each_answer_and_mpo_of_all_tokens():
    policy = logps_of([[(-6.0, 3), (-5.0, 5)], [(-10.0, 2), (-5.0, 5)]])
    facts = facts_of([(0, 1), (0, 1)])
    dpo = {"name": "dpo", "beta": 0.5}
    plain = step_loss(build([dpo]), policy, policy, facts).item()
    rpo = step_loss(build([{"name": "rpo", "beta": 0.5}]), policy, policy, facts).item()
    per_token = step_loss(build([{"name": "rpo", "beta": 0.5, "normalise": "token"}]), policy, policy, facts).item()
    assert rpo - plain == pytest.approx((2 + 5) / 2)
    assert per_token - plain == pytest.approx(16 / 5)


def test_spans_that_do_not_count_are_masked_under_mask_dpo():
    """The first token of the chosen answer and the last three of the rejected are out: R = 1 - 1/3 and -2 + 3 * 2/5."""
    weights = torch.ones(1, 2, 5, dtype=torch.float64)
    weights[0, 0, 0] = 0
    weights[0, 1, 2:] = 0
    masked = [replace(logps, token_weights=weights) for logps in (POLICY, REFERENCE)]
    loss = step_loss(build([{"name": "mask_dpo", "beta": 0.5}]), *masked, FACTS)
    assert loss.item() == pytest.approx(nls(0.5 * (2 / 3 + 4 / 5)))
