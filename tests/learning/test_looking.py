"""Pairs that words alone tell apart: DPO solves them without looking, mDPO makes the policy look.

The policy is linear: the log-prob of a response is (its words) times some weights, plus (how its words fit the picture)
times others. It starts with no weight on the picture. The worse response has a word too many, which is all that DPO
needs; how well either response fits the picture differs by chance.
"""

import pytest
import torch

from mmalign.engine.logps import GroupLogps
from mmalign.objectives.comparison import GroupFacts
from mmalign.objectives.compose import build

PAIRS, WORDS, LOOKS, STEPS = 200, 8, 8, 150


def drawn(seed):
    """Return features of words [P, 2, W], of the fit to the picture [P, 2, L], and of that to a changed one."""
    generator = torch.Generator().manual_seed(seed)
    words = torch.randn(PAIRS, 2, WORDS, generator=generator, dtype=torch.float64)
    words[:, 1, 0] += 4.0
    fit = torch.randn(PAIRS, 2, LOOKS, generator=generator, dtype=torch.float64)
    fit[:, 0] += 0.3  # true captions fit their pictures
    fit[:, 1] += 0.3  # and so do they with a word too many
    return words, fit, torch.randn(fit.shape, generator=generator, dtype=torch.float64)


def as_logps(values, seen):
    """Return one token a response, whose log-prob is the value, and the same in every view."""
    mask = torch.ones(*values.shape, 1, dtype=torch.bool)
    views = {"crop": GroupLogps(seen[..., None], mask)}
    return GroupLogps(values[..., None], mask, tokens=mask.long(), views=views)


def trained(spec, seed):
    """Return what the changed pictures of fresh rows cost better responses, and the share of fresh pairs in order."""
    words, fit, changed = drawn(seed)
    objective = build([spec])
    ones = torch.ones(PAIRS, dtype=torch.float64)
    facts = GroupFacts(
        levels=torch.tensor([[0, 1]]).expand(PAIRS, 2),
        weight=ones,
        margin=ones,
        response_mask=torch.ones(PAIRS, 2, dtype=torch.bool),
        scores=torch.full((PAIRS, 2), torch.nan),
        seed=torch.arange(PAIRS),
        annotator=torch.zeros(PAIRS, dtype=torch.int64),
    )
    zero = torch.zeros(PAIRS, 2, dtype=torch.float64)
    of_words, of_looks = (torch.zeros(size, dtype=torch.float64, requires_grad=True) for size in (WORDS, LOOKS))
    optimizer = torch.optim.Adam([of_words, of_looks], lr=0.05)
    totals = {named.name: float(PAIRS) for named in objective.parts}
    for _ in range(STEPS):
        policy = as_logps(words @ of_words + fit @ of_looks, words @ of_words + changed @ of_looks)
        objective(policy, as_logps(zero, zero), facts).loss(totals).backward()
        optimizer.step()
        optimizer.zero_grad()
    words, fit, changed = drawn(seed + 1000)
    with torch.no_grad():
        scores = words @ of_words + fit @ of_looks
        reliance = ((fit - changed)[:, 0] @ of_looks).mean().item()
        return reliance, (scores[:, 0] > scores[:, 1]).double().mean().item()


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_mdpo_makes_a_policy_look_and_dpo_does_not(seed):
    blind, in_order = trained({"name": "dpo", "beta": 0.5}, seed)
    looking, still_in_order = trained({"name": "mdpo", "beta": 0.5}, seed)
    assert in_order > 0.95
    assert still_in_order > 0.95
    assert abs(blind) < 0.5
    assert looking > 1.0
