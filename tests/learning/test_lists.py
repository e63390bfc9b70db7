"""Ranked lists teach their order to a policy that chooses among twelve options, four of which are listed; three seeds.

The bounds were set after seeing the outcome. Nulls, measured with this world and not asserted: knowpat is sft of the
best (84, 87, 85 against 85, 87, 85%), and with a list_weight of 10 in place of 0.1 worse (73 to 78%): its weights
follow the policy's own order. On a clean order pro is behind plackett_luce (89 to 91 against 95 to 97%). Where scores
are off by as much as qualities differ, others turn: trpa 66, 81, 75, plackett_luce 74, 86, 82 and rrhf 79, 88, 80
against sft's 78, 84, 78%; pro, which heeds small gaps little, 86, 88, 82%.
"""

from dataclasses import replace

import pytest
import torch
from learning.linear import facts_of, order_accuracy, trained

SEEDS = pytest.mark.parametrize("seed", [0, 1, 2])
PROMPTS, OPTIONS, LISTED, FEATURES, STEPS = 150, 12, 4, 40, 40


def teacher_of(seed, noise):
    """Return what trains an objective on lists in the order of their scores and gives its accuracy on fresh pairs.

    Args:
        noise: deviation of the scores from the qualities of the responses, whose own deviation is 2.
    """
    generator = torch.Generator().manual_seed(seed)
    truth = 2 * torch.randn(FEATURES, generator=generator) / FEATURES**0.5
    options = torch.randn(PROMPTS, OPTIONS, FEATURES, generator=generator)
    quality = (options @ truth)[:, :LISTED]
    scores, order = (quality + noise * torch.randn(quality.shape, generator=generator)).sort(1, descending=True)
    start = 0.1 * torch.randn(FEATURES, generator=generator)
    fresh = torch.randn(2000, 2, FEATURES, generator=generator)
    facts = replace(facts_of(PROMPTS, LISTED), scores=scores)

    def listed(weights):
        return (options @ weights).log_softmax(1).gather(1, order)

    return lambda **spec: order_accuracy(trained(spec, listed, start, facts, steps=STEPS), truth, fresh)


@SEEDS
def test_a_whole_list_teaches_more_than_its_best_and_worst_or_than_its_best_alone(seed):
    accuracy = teacher_of(seed, noise=0.0)
    part = max(accuracy(name="dpo", beta=1.0, pairs="best_worst"), accuracy(name="sft"))
    for spec in ({"name": "plackett_luce", "beta": 1.0}, {"name": "trpa", "beta": 1.0}, {"name": "rrhf"}):
        assert accuracy(**spec) > part + 0.02, spec


@SEEDS
@pytest.mark.parametrize("noise", [0.0, 2.0], ids=["known order", "scores as noisy as they are telling"])
def test_pro_orders_scored_lists_better_than_imitation_of_the_best(seed, noise):
    accuracy = teacher_of(seed, noise)
    assert accuracy(name="pro") > accuracy(name="sft") + 0.01
