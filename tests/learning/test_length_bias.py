"""Preferences in which the better response is also mostly the longer one: who learns quality, and who learns length.

The policy has two weights: one lifts every token by the quality of its response, one lifts every token alike. The
second knows nothing of quality; under a sum over tokens it is a reward for length. LD-DPO does not help in so small a
world: its discounted tail gives less reward, and the second weight grows until it makes up for that (1.3, DPO's 0.9).
"""

import pytest
import torch

from mmalign.engine.logps import GroupLogps
from mmalign.objectives.comparison import GroupFacts
from mmalign.objectives.compose import build

PAIRS, STEPS, LONGEST = 200, 60, 40


def drawn(seed):
    """Return quality [P, 2] and lengths [P, 2], better first; in 85% of the pairs the better is the longer."""
    generator = torch.Generator().manual_seed(seed)
    quality = torch.randn(PAIRS, 2, generator=generator, dtype=torch.float64).sort(dim=1, descending=True).values
    lengths = torch.randint(5, LONGEST + 1, (PAIRS, 2), generator=generator).sort(dim=1, descending=True).values
    turned = torch.rand(PAIRS, generator=generator) < 0.15
    return quality, torch.where(turned[:, None], lengths.flip(1), lengths)


def learned(spec, seed):
    """Return by how much training lifts a token for quality, and for nothing but being there."""
    quality, lengths = drawn(seed)
    mask = torch.arange(LONGEST) < lengths[..., None]
    plain = torch.ones(PAIRS, dtype=torch.float64)
    facts = GroupFacts(
        levels=torch.tensor([[0, 1]]).expand(PAIRS, 2),
        weight=plain,
        margin=plain,
        response_mask=torch.ones(PAIRS, 2, dtype=torch.bool),
        scores=torch.full((PAIRS, 2), torch.nan, dtype=torch.float64),
        seed=torch.arange(PAIRS),
        annotator=torch.zeros(PAIRS, dtype=torch.int64),
    )
    weights = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([weights], lr=0.03)
    reference = GroupLogps(torch.full(mask.shape, -2.0, dtype=torch.float64), mask)
    objective = build([spec])
    for _ in range(STEPS):
        lift = weights[0] * quality[..., None] + weights[1]
        policy = GroupLogps(reference.token_logps + lift, mask)
        objective(policy, reference, facts).loss(dict.fromkeys([spec["name"]], PAIRS)).backward()
        optimizer.step()
        optimizer.zero_grad()
    return weights.tolist()


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_dpo_learns_length_where_objectives_that_do_not_count_it_learn_quality(seed):
    of_dpo, of_sampo = learned({"name": "dpo"}, seed), learned({"name": "sampo"}, seed)
    of_simpo = learned({"name": "simpo", "beta": 2.0, "gamma": 0.0}, seed)
    assert of_dpo[1] > 0.5
    assert of_sampo[1] == pytest.approx(0.0, abs=1e-6)
    assert of_simpo[1] == pytest.approx(0.0, abs=1e-6)
    assert min(of_sampo[0], of_simpo[0]) > of_dpo[0] + 0.1
