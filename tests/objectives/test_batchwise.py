"""What reads the whole step: sorts and baselines by hand, the same however the step is cut; and what is remembered."""

from math import exp, log, log1p

import pytest
import torch
from objectives.batches import cut_loss, facts_of, logps_of, random_batch, select, step_loss, with_logps

from mmalign.objectives.batchwise import meetings
from mmalign.objectives.compose import build
from mmalign.train.survey import told

# Log-ratios R of (better, worse), all of one token: (1, -2), (3, 0), (-1, 2).
POLICY = logps_of([[(-4.0, 1), (-7.0, 1)], [(-2.0, 1), (-5.0, 1)], [(-6.0, 1), (-3.0, 1)]])
REFERENCE = logps_of([[(-5.0, 1), (-5.0, 1)]] * 3)
FACTS = facts_of([(0, 1)] * 3)


def nls(margin):
    return log1p(exp(-margin))


def sigmoid(x):
    return 1 / (1 + exp(-x))


def test_aot_sorts_margins_of_policy_and_reference_apart():
    """Policy margins 3, 3, -3 and reference margins 4, 0, -1, both sorted: -3 - -1, 3 - 0, 3 - 4."""
    reference = logps_of([[(-1.0, 1), (-5.0, 1)], [(-5.0, 1), (-5.0, 1)], [(-6.0, 1), (-5.0, 1)]])
    loss = step_loss(build([{"name": "aot", "beta": 0.5}]), POLICY, reference, FACTS)
    assert loss.item() == pytest.approx((nls(-1.0) + nls(1.5) + nls(-0.5)) / 3)


def test_aot_unpaired_sorts_better_and_worse_apart():
    """R of the better: -1, 1, 3; of the worse: -2, 0, 2. Every rank leads by 1."""
    loss = step_loss(build([{"name": "aot_unpaired", "beta": 0.5}]), POLICY, REFERENCE, FACTS)
    assert loss.item() == pytest.approx(nls(0.5))


def test_aot_unpaired_passes_its_gradient_to_both_sides():
    policy, reference, facts = random_batch(groups=6)
    start = policy.token_logps.nan_to_num(-1.0).requires_grad_(True)
    step_loss(build([{"name": "aot_unpaired"}]), with_logps(policy, start), reference, facts).backward()

    again = policy.token_logps.nan_to_num(-1.0).requires_grad_(True)
    ratio = with_logps(policy, again).sums() - reference.sums()
    difference = ratio[:, 0].sort().values - ratio[:, 1].sort().values
    (-torch.nn.functional.logsigmoid(0.1 * difference)).mean().backward()
    torch.testing.assert_close(start.grad, again.grad, rtol=1e-12, atol=1e-15)


def test_ties_in_a_sort_use_every_opponent_once_wherever_the_step_is_cut():
    policy = logps_of([[(-4.0, 1), (-5.0, 1)]] * 4)
    reference = logps_of([[(-5.0, 1), (-5.0 + k, 1)] for k in range(4)])
    facts, objective = facts_of([(0, 1)] * 4), build([{"name": "aot", "beta": 1.0}])
    expected = sum(nls(1.0 - b) for b in (-3, -2, -1, 0)) / 4
    for cuts in ([[0, 1, 2, 3]], [[2], [0, 3], [1]]):
        assert cut_loss(objective, policy, reference, facts, cuts).item() == pytest.approx(expected)


def test_kto_pair_measures_each_side_from_the_mean_of_the_other():
    """Means of R over the step: better (1 + 3 - 1) / 3 = 1, worse (-2 + 0 + 2) / 3 = 0."""
    loss = step_loss(build([{"name": "kto_pair", "beta": 0.5}]), POLICY, REFERENCE, FACTS)
    by_hand = [sigmoid(-0.5 * high) + sigmoid(0.5 * (low - 1)) for high, low in ((1, -2), (3, 0), (-1, 2))]
    assert loss.item() == pytest.approx(sum(by_hand) / 3)


def test_a_baseline_below_zero_is_zero():
    sunk = logps_of([[(-8.0, 1), (-9.0, 1)]])
    loss = step_loss(build([{"name": "kto_pair", "beta": 0.5}]), sunk, logps_of([[(-5.0, 1)] * 2]), facts_of([(0, 1)]))
    assert loss.item() == pytest.approx(sigmoid(1.5) + sigmoid(-2.0))


def test_a_baseline_passes_no_gradient():
    start = POLICY.token_logps.clone().requires_grad_(True)
    policy = with_logps(POLICY, start)
    step_loss(build([{"name": "kto_pair", "beta": 0.5}]), policy, REFERENCE, FACTS).backward()
    slope = lambda x: sigmoid(x) * (1 - sigmoid(x))  # noqa: E731
    assert start.grad[0, 0, 0].item() == pytest.approx(-0.5 * slope(0.5) / 3)
    assert start.grad[0, 1, 0].item() == pytest.approx(0.5 * slope(0.5 * (-2 - 1)) / 3)


def test_bco_shifts_by_the_mean_reward_of_the_steps_before():
    """Rewards of the first step: 0.5, -1, 1.5, 0, -0.5, 1, whose mean is 0.25; those of the second move it to 1."""
    objective = build([{"name": "bco", "beta": 0.5}])
    memory = objective.remember(objective.first_memory(), objective.survey(POLICY, REFERENCE, FACTS))
    totals = {"bco": 3.0}
    loss = objective(POLICY, REFERENCE, FACTS, told(memory, {}, {})).loss(totals)
    rewards = ((0.5, -1.0), (1.5, 0.0), (-0.5, 1.0))
    assert loss.item() == pytest.approx(sum(nls(high - 0.25) + nls(0.25 - low) for high, low in rewards) / 3)
    lifted = logps_of([[(-1.5, 1), (-1.5, 1)]] * 3)  # R = 3.5, reward 1.75
    memory = objective.remember(memory, objective.survey(lifted, REFERENCE, FACTS))
    assert (memory["bco"]["reward_total"] / memory["bco"]["reward_count"]).item() == pytest.approx(1.0)


def test_objectives_that_share_nothing_survey_and_remember_nothing():
    objective = build([{"name": "dpo"}, {"name": "sft"}])
    assert not objective.whole_step
    assert objective.survey(POLICY, REFERENCE, FACTS) == {}
    assert objective.first_memory() == {}
    assert objective.remember({}, {}) == {}


def test_which_objectives_want_the_whole_step_or_remember():
    from mmalign.objectives.presets import PRESETS

    built = {name: build([{"name": name}]) for name in PRESETS}
    whole = {name for name, objective in built.items() if objective.whole_step}
    by_sort_or_mean = {"aot", "aot_unpaired", "kto", "kto_pair", "beta_dpo", "beta_dpo_implicit", "dama", "crm"}
    assert whole == by_sort_or_mean | {"nextquill"}
    assert {name for name, objective in built.items() if objective.first_memory()} == {
        "bco",
        "bco_unpaired",
        "beta_dpo",
        "dama",
        "lcpo",
        "spa",
    }


def test_a_pair_of_twice_the_weight_stands_twice_in_the_sort():
    """One pair of weight 2 is two equal ones of weight 1, wherever it stands and however the step is cut."""
    policy, reference, _ = random_batch(groups=5)
    doubled = torch.tensor([0, 1, 2, 2, 3, 4])
    twice, twice_reference = select(policy, doubled), select(reference, doubled)
    weighed, plain = facts_of([(0, 1)] * 5, weight=[1.0, 1.0, 2.0, 1.0, 1.0]), facts_of([(0, 1)] * 6)
    for name in ("aot", "aot_unpaired"):
        objective = build([{"name": name}])
        expected = step_loss(objective, twice, twice_reference, plain)
        torch.testing.assert_close(step_loss(objective, policy, reference, weighed), expected)
        for cuts in ([[0], [1], [2], [3], [4]], [[4, 2], [0, 3, 1]]):
            torch.testing.assert_close(cut_loss(objective, policy, reference, weighed, cuts), expected)


def test_distributions_meet_by_shares_of_their_weight():
    """First sorted: b (weight 1) before a (3); second sorted: a (3) before b (1). They overlap in shares 1, 2, 1."""
    met = meetings(torch.tensor([2.0, 1.0]), torch.tensor([5.0, 6.0]), torch.tensor([3.0, 1.0]))
    shares = {(i, j): w for i, j, w in zip(*(column.tolist() for column in met), strict=True) if w}
    assert shares == {(1, 0): 1.0, (0, 0): 2.0, (0, 1): 1.0}


def test_reliabilities_are_means_in_which_pairs_count_as_in_the_loss():
    """Margins 1 and -1, one annotator, start 0.9, rate 1: q = sigmoid(+-1 + log 9), weighed 3 to 1."""
    policy = logps_of([[(-4.0, 1), (-5.0, 1)], [(-5.0, 1), (-4.0, 1)]])
    reference = logps_of([[(-5.0, 1), (-5.0, 1)]] * 2)
    objective = build([{"name": "lcpo", "beta": 1.0, "reliability": 0.9, "reliability_rate": 1.0}])
    survey = objective.survey(policy, reference, facts_of([(0, 1)] * 2, weight=[3.0, 1.0]))
    eta = objective.remember(objective.first_memory(), survey)["lcpo"]["reliabilities"]
    assert eta.tolist() == pytest.approx([(3 * sigmoid(1 + log(9)) + sigmoid(-1 + log(9))) / 4])


def test_an_annotator_of_no_weight_teaches_nothing_of_itself():
    policy, reference, _ = random_batch(groups=2)
    objective = build([{"name": "lcpo"}])
    survey = objective.survey(policy, reference, facts_of([(0, 1)] * 2, weight=[0.0, 0.0]))
    assert objective.remember(objective.first_memory(), survey)["lcpo"]["annotators"].tolist() == []
