"""A reference that follows the policy: the same number of steps takes the policy further from where it began.

The policy is linear and pairs are drawn; against a fixed reference the logistic loss lets go of a pair that is told
apart, while after every move of the reference all pairs begin anew. Fresh pairs are told apart no better for it.
"""

import pytest
import torch
from objectives.batches import facts_of
from torch import nn

from mmalign.engine.logps import GroupLogps
from mmalign.engine.moving_reference import MovingReference
from mmalign.engine.reference import FrozenCopy
from mmalign.objectives.compose import build

PAIRS, FEATURES, STEPS = 200, 20, 200


class Linear(nn.Module):
    """Scores answers by their features."""

    def __init__(self):
        super().__init__()
        self.weights = nn.Parameter(torch.zeros(FEATURES))

    @property
    def base(self):
        return self

    def forward(self, features):
        return features @ self.weights


def as_logps(values):
    return GroupLogps(values[..., None], torch.ones(*values.shape, 1, dtype=torch.bool))


def distance(seed, **update):
    """Return the mean margin at the end, against where the policy began, and the accuracy on fresh pairs."""
    generator = torch.Generator().manual_seed(seed)
    truth = torch.randn(FEATURES, generator=generator)
    features, fresh = (torch.randn(count, 2, FEATURES, generator=generator) for count in (PAIRS, 2000))
    better = (features[:, 0] @ truth > features[:, 1] @ truth)[:, None, None]
    features = torch.where(better, features, features.flip(1))
    policy, objective = Linear(), build([{"name": "dpo", "beta": 1.0}])
    reference = FrozenCopy(Linear())
    following = MovingReference(reference, policy, **update) if update else None
    facts = facts_of([(0, 1)] * PAIRS, dtype=torch.float32)
    optimizer = torch.optim.SGD(policy.parameters(), lr=0.5)
    for step in range(1, STEPS + 1):
        output = objective(as_logps(policy(features)), as_logps(reference(features)), facts)
        output.loss({"dpo": PAIRS}).backward()
        optimizer.step()
        optimizer.zero_grad()
        if following is not None:
            following.after_step(step)
    margin = policy(features).detach().diff(dim=1).neg().mean().item()
    right = (policy(fresh).diff(dim=1).squeeze(1) < 0) == (fresh[:, 0] @ truth > fresh[:, 1] @ truth)
    return margin, right.float().mean().item()


@pytest.mark.parametrize("update", [{"every_steps": 20, "share": 1.0}, {"every_steps": 10, "share": 0.6}], ids=str)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_reference_that_follows_lets_the_policy_go_further(seed, update):
    fixed, accuracy = distance(seed)
    moved, accuracy_moved = distance(seed, **update)
    assert moved > 2 * fixed
    assert abs(accuracy_moved - accuracy) < 0.05
