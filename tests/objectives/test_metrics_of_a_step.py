"""What is logged of a step beside its loss, by hand."""

from math import exp, sqrt

import pytest
import torch
from objectives.batches import facts_of, logps_of, random_batch, select, select_facts, swapped

from mmalign.objectives.compose import build
from mmalign.objectives.metrics import derived, divergence_metrics


def means_of(metrics):
    return {name: (ratio.total / ratio.count).item() for name, ratio in metrics.items()}


def test_divergence_per_token_by_hand():
    """Log-ratios: +1/3 three times (better), -2/5 five times (worse)."""
    policy, reference = logps_of([[(-6.0, 3), (-5.0, 5)]]), logps_of([[(-7.0, 3), (-3.0, 5)]])
    values = means_of(divergence_metrics(policy, reference, policy.mask.any(-1)))
    up, down = exp(-1 / 3) - 1 + 1 / 3, exp(2 / 5) - 1 - 2 / 5
    assert values == {"kl/k1": pytest.approx((1 - 2) / 8), "kl/k3": pytest.approx((3 * up + 5 * down) / 8)}


def test_k3_of_an_answer_made_impossible_is_finite_in_single_precision():
    policy, reference = (logps_of([[(total, 1)]], dtype=torch.float32) for total in (-5000.0, -1.0))
    found = means_of(divergence_metrics(policy, reference, policy.mask.any(-1)))
    assert found["kl/k3"] == pytest.approx(exp(10) - 11, rel=1e-5)


def test_a_run_without_a_reference_logs_no_divergence():
    policy, reference, facts = random_batch()
    assert "kl/k3" not in build([{"name": "simpo"}])(policy, None, facts).metrics
    assert "kl/k3" in build([{"name": "dpo"}])(policy, reference, facts).metrics


REWARDS = [[(1.0, 4), (-1.0, 2)], [(0.5, 1), (0.0, 3)]]
"""The better by 2 and longer by 2; the better by 1/2 and shorter by 2."""


def correlation_of(policy, reference, facts):
    return derived(means_of(build([{"name": "dpo", "beta": 1.0}])(policy, reference, facts).metrics))


def test_length_correlation_is_that_of_all_responses_measured_from_the_middle_of_their_pair():
    reference = logps_of([[(0.0, length) for _, length in pair] for pair in REWARDS])
    found = correlation_of(logps_of(REWARDS), reference, facts_of([(0, 1), (0, 1)]))
    reward, length = [1.0, -1.0, 0.25, -0.25], [1.0, -1.0, -1.0, 1.0]
    expected = sum(r * x for r, x in zip(reward, length, strict=True)) / sqrt(sum(r * r for r in reward) * 4)
    assert found["rewards/length_correlation"] == pytest.approx(expected)
    assert not any(name.startswith("moments/") for name in found)


def test_length_correlation_does_not_depend_on_which_response_is_called_better():
    policy, reference, facts = random_batch()
    straight = correlation_of(policy, reference, facts)
    turned = correlation_of(swapped(policy), swapped(reference), facts)
    assert turned["rewards/length_correlation"] == pytest.approx(straight["rewards/length_correlation"])


def test_length_correlation_of_micro_batches_that_are_added_up_is_that_of_the_step():
    policy, reference, facts = random_batch(groups=6)
    objective = build([{"name": "dpo"}])
    cuts = [torch.tensor([0, 1]), torch.tensor([2, 3, 4, 5])]
    parts = [objective(select(policy, c), select(reference, c), select_facts(facts, c)).metrics for c in cuts]
    means = {
        name: sum(part[name].total for part in parts).item() / sum(part[name].count for part in parts).item()
        for name in parts[0]
    }
    whole = derived(means_of(objective(policy, reference, facts).metrics))
    assert derived(means)["rewards/length_correlation"] == pytest.approx(whole["rewards/length_correlation"])


def test_without_a_difference_there_is_no_correlation():
    policy = logps_of(REWARDS)
    assert "rewards/length_correlation" not in correlation_of(policy, policy, facts_of([(0, 1), (0, 1)]))
