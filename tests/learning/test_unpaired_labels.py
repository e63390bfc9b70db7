"""Answers of which only "good" or "bad" is known: an order is learnt that was never shown.

The policy is linear: an answer's log-prob is its features times some weights. Answers are good where the truth says so,
one in ten is labelled at random. All features have one direction in common that says nothing: moving along it makes
every answer more or less likely, whatever its prompt. KTO's baseline was expected to take that movement away. It does
not: it passes no gradient, so where most answers are good it runs after the policy, and the policy after it.
"""

from dataclasses import replace

import pytest
import torch
from objectives.batches import facts_of

from mmalign.engine.logps import GroupLogps
from mmalign.objectives.compose import build

ROWS, FEATURES, STEPS = 400, 20, 150
NOISE, COMMON = 0.1, 2.0


def drawn(seed, share_good):
    """Return features of own and borrowed answers [N, 2, F], labels [N], fresh pairs [M, 2, F], and truth [F]."""
    generator = torch.Generator().manual_seed(seed)
    truth = torch.cat([torch.zeros(1), torch.randn(FEATURES - 1, generator=generator)])
    common = torch.zeros(FEATURES)
    common[0] = COMMON
    own = torch.randn(ROWS, FEATURES, generator=generator) + common
    value = own @ truth
    good = value > value.quantile(1 - share_good)
    flipped = torch.rand(ROWS, generator=generator) < NOISE
    good = torch.where(flipped, torch.rand(ROWS, generator=generator) < share_good, good)
    features = torch.stack([own, own.roll(1, 0)], 1)
    fresh = torch.randn(2000, 2, FEATURES, generator=generator) + common
    return features, good, fresh, truth


def as_logps(values):
    return GroupLogps(values[..., None], torch.ones(*values.shape, 1, dtype=torch.bool))


def trained(spec, seed, *, share_good):
    """Return the accuracy on fresh pairs and how far the policy moved along the direction that says nothing."""
    features, good, fresh, truth = drawn(seed, share_good)
    facts = facts_of([(0 if one else 1, -1) for one in good.tolist()], dtype=torch.float32)
    facts = replace(facts, response_mask=facts.levels >= 0)
    objective, reference = build([spec]), as_logps(torch.zeros(ROWS, 2))
    weights = torch.zeros(FEATURES, requires_grad=True)
    optimizer = torch.optim.Adam([weights], lr=0.05)
    for _ in range(STEPS):
        objective(as_logps(features @ weights), reference, facts).loss({spec["name"]: ROWS}).backward()
        optimizer.step()
        optimizer.zero_grad()
    order = ((fresh[:, 0] - fresh[:, 1]) @ weights.detach() > 0) == ((fresh[:, 0] - fresh[:, 1]) @ truth > 0)
    return order.float().mean().item(), weights[0].item()


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("name", ["kto", "apo_zero_unpaired", "bco_unpaired"])
def test_an_order_is_learnt_from_labels_of_single_answers(name, seed):
    accuracy, _ = trained({"name": name, "beta": 1.0}, seed, share_good=0.2)
    assert accuracy > 0.8


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_weights_that_balance_good_and_bad_answers_help_where_bad_ones_are_four_of_five(seed):
    plain, _ = trained({"name": "kto", "beta": 1.0}, seed, share_good=0.2)
    balanced, _ = trained({"name": "kto", "beta": 1.0, "desirable_weight": 4.0}, seed, share_good=0.2)
    assert balanced > plain + 0.01


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_where_most_answers_are_good_ktos_baseline_runs_after_the_policy(seed):
    """What KTO does not do; BCO's mean of good and bad answers alike holds the movement to half of plain APO's."""
    kept = {"beta": 1.0}
    order, moved = trained({"name": "kto", **kept}, seed, share_good=0.8)
    plain_order, plain_moved = trained({"name": "apo_zero_unpaired", **kept}, seed, share_good=0.8)
    _, shifted = trained({"name": "bco_unpaired", **kept}, seed, share_good=0.8)
    assert moved > 1.5 * plain_moved > 2 * abs(shifted)
    assert order < plain_order - 0.05
